"""Inference: images and prompts in, scores and attention maps out."""
