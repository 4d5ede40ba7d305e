"""Core: files, tables, hashes, journals, runs and processes. Knows no chest, no image and no torch."""
