"""Prompt alignment as a run: tables of reports in, aligned reports out, by rules or by a language model."""
