"""What users must find unchanged: public names, help texts, files that earlier code wrote, scores and figures.

python -m tests.frozen check           compares everything, one line an item
python -m tests.frozen write FOLDER    writes all of it anew, to be reviewed as a diff
"""
