"""Evaluation: arrays in, numbers out.

From the ground: `labels` (what a label may be), `sums` (metrics as sums over images), `metrics`; `resampling` and
`sampling` (bootstrap), `delong`, `score_interval` (other intervals), `intervals` (the bootstrap's front door); `panel`,
`rows`, `table` (everything of a set at once), `subgroups`, `comparison`, `readers`; `thresholds`, `calibration`.
"""
