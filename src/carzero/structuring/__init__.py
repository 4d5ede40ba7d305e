"""Prompt alignment as a run: tables of reports in, structured reports out, by rules or by a language model."""
