"""Evaluation: score files and truth in; tables, reports and figures out."""
