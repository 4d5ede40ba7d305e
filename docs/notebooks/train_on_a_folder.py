# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Train on a folder
#
# From a folder of images with reports to a checked training table and a recipe. The images here are noise with
# invented reports: with them there is nothing to learn, so the last step, the training itself, is shown and not run.

# %%
from pathlib import Path

import numpy as np
from PIL import Image

random = np.random.default_rng(0)
for patient in range(12):
    folder = Path("ours", f"patient_{patient}")
    folder.mkdir(parents=True)
    Image.fromarray(random.integers(0, 256, (240, 200), np.uint8)).save(folder / "a.png")
    sentence = "Small left pleural effusion." if patient % 3 else "The heart is enlarged. No effusion."
    (folder / "report.txt").write_text(f"FINDINGS: {sentence}")

# %% [markdown]
# Splits are drawn by patient, by a hash of the patient's name: the same on every machine.

# %%
from carzero.data.pair_files import save_pairs
from carzero.datasets.folder import import_folder

found = import_folder(Path("ours"), shares=(0.6, 0.2, 0.2))
save_pairs(found.rows, Path("pairs.csv"))
print(found.to_dict()["splits"], found.to_dict()["patients"], "patients")

# %%
from carzero.data.pairs import load_pairs

pairs = load_pairs("pairs.csv")
for split in ("train", "val", "test"):
    print(split, sum(each == split for each in pairs.splits), "rows")
assert sum(each == "train" for each in pairs.splits) > 3

# %% [markdown]
# What the rules read in the reports, as sentences of one form:

# %%
from carzero.reports.rules import RuleAligner

aligned = RuleAligner().align("r1", "FINDINGS: The heart is enlarged. No effusion.")
print(aligned.sentences)
assert "There is no pleural effusion" in aligned.sentences

# %% [markdown]
# ```
# carzero data validate pairs.csv --out clean.csv
# carzero train two-cores --table clean.csv --out run
# carzero predict films/ --labels "pleural effusion" --weights run/weights
# ```
# `carzero docs training` says what each field of a recipe does, and what memory a run takes.
