# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Score and look
#
# One image, a few findings, and where the model looked. The demo weights are a research demonstration, not for clinical
# use. Open this file in Jupyter with [jupytext](https://jupytext.readthedocs.io), or `jupytext --to ipynb` it.

# %%
import carzero

classifier = carzero.ZeroShotClassifier.from_pretrained("demo")
film = carzero.example_film()

# %% [markdown]
# Scores are logits: compare them between images for one finding, not between findings.

# %%
table = classifier.predict(film, labels=["pneumonia", "pleural effusion"])
table.filter(like="logit:")

# %% [markdown]
# A word that no training sentence spoke of gets a number too, and a warning: the column `unfamiliar` names it.

# %%
import warnings

with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    asked = classifier.predict(film, labels=["pneumonia", "rib fracture"])
print(said[0].message)
assert asked["unfamiliar"].tolist() == ["rib fracture"]

# %% [markdown]
# A grounding shows itself. The maps of the demo weights miss about as often as they hit; this one peaks beside the left
# hilum.

# %%
(found,) = classifier.ground(film, labels=["pneumonia"])
found

# %%
print("peak", [round(value) for value in found.peak], "box", found.box)
assert found.box is not None
