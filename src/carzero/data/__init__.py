"""Tables and lists: what goes in, what comes out, and how it survives a crash."""
