"""Dual encoders of other families: one file each, all with the contract of `carzero.model.scoring_model`."""
