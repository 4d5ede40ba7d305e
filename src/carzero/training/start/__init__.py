"""Start: the model that a training run begins with."""
