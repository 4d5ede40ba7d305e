"""A fuzz campaign over every kind of file that CARZero reads; see `python -m tests.fuzz --help` and SECURITY.md."""
