"""Training: a recipe and a table in, weights out."""
