"""Text: the released cleaning, tokenizers, left and right."""
