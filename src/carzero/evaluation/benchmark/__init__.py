"""Public test sets, end to end: their files, their protocols, their published rows."""
