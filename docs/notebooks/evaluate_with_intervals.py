# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Evaluate with intervals
#
# How good are scores on images with labels? The numbers here are made up, so that the answer is known: patients with
# one to three images each, a finding in a fifth of them, scores that separate it with an AUROC of about 0.8.

# %%
import numpy as np

random = np.random.default_rng(0)
patients = np.repeat(np.arange(120), random.integers(1, 4, 120))
ill = (random.random(120) < 0.2)[patients]
scores = random.normal(size=len(patients)) + 1.2 * ill

# %% [markdown]
# An AUROC is a figure of this sample. The interval draws patients, not images: images of one patient resemble each
# other.

# %%
from carzero.metrics import Cohort, Statistics, evaluate

rows = evaluate(
    scores[:, None],
    ill[:, None].astype(float),
    ["finding"],
    cohort=Cohort(dataset="made up", patients=patients.astype(str)),
    statistics=Statistics(rounds=200),
)
auroc = next(row for row in rows if row.metric == "auroc" and row.label == "finding")
print(
    f"AUROC {auroc.value:.3f} ({auroc.ci_low:.3f} to {auroc.ci_high:.3f}) on {auroc.n} images, {auroc.n_pos} positive"
)
assert auroc.ci_low < 0.8 < auroc.ci_high

# %%
from matplotlib import pyplot

order = np.argsort(-scores)
found, wrong = np.cumsum(ill[order]) / ill.sum(), np.cumsum(~ill[order]) / (~ill).sum()
axes = pyplot.figure(figsize=(4, 4), layout="constrained").subplots()
axes.plot(wrong, found)
axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
_ = axes.set(xlabel="1 - specificity", ylabel="sensitivity", title=f"AUROC {auroc.value:.3f}", aspect="equal")

# %% [markdown]
# On files the same is `carzero evaluate scores.parquet --truth labels.csv`.
