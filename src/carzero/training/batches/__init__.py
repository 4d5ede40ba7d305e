"""Batches: from rows of a training table to what a step sees."""
