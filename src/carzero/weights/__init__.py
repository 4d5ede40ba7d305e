"""Weights: where they are, what they are, and the precision they are computed in."""
