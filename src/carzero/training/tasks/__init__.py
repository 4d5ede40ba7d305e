"""Tasks: what one step of a training run computes."""
