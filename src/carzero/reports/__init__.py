"""Reports: text in, structured findings and sentences of one form out (paper section 3.3, prompt alignment)."""
