"""CARZero: zero-shot classification of chest radiographs."""
