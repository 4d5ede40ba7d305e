"""Calibrations as files: JSON, checked on the way in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from carzero.core.documents import load_json
from carzero.core.hashing import hash_texts
from carzero.core.outputs import new_files
from carzero.errors import ConfigurationError, refuse_broken
from carzero.metrics.calibration import Abnormality, AbnormalityPool, Calibration
from carzero.metrics.calibrators import CalibrationMethod, LabelCalibration
from carzero.records import ScoreKind

Number = Annotated[float, Field(allow_inf_nan=False)]


class _Section(BaseModel):
    """A part of a file: every field is needed, and no other is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _LabelRecord(_Section):
    method: CalibrationMethod
    parameters: dict[str, Number | list[Number]]
    n: Annotated[int, Field(ge=1)]
    n_pos: Annotated[int, Field(ge=0)]
    low: Number
    high: Number

    def to_map(self) -> LabelCalibration:
        return LabelCalibration(**self.model_dump())


class _AbnormalityRecord(_Section):
    findings: tuple[str, ...]
    no_finding: str
    pool: AbnormalityPool
    calibration: _LabelRecord


class _Record(_Section):
    carzero_calibration: Literal[1]
    labels: dict[str, _LabelRecord]
    score_kind: ScoreKind
    provenance: dict[str, object]
    left_out: dict[str, str]
    thresholds: dict[str, dict[str, Number]]
    abnormality: _AbnormalityRecord | None


def save_calibration(calibration: Calibration, path: Path, *, overwrite: bool = True) -> None:
    """Writes a calibration as JSON, whole or not at all.

    Args:
        calibration: maps from logits to probabilities, thresholds, and what they were fitted on.
        path: the file.
        overwrite: whether a file that is there is replaced.

    Raises:
        OutputError: the file is there and must stay, or cannot be written.
    """
    record = {"carzero_calibration": 1, **calibration.to_record()}
    with new_files([path], overwrite=overwrite) as (target,):
        target.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def hash_calibration(calibration: Calibration) -> str:
    """SHA-256 of all that a calibration says but its date: the same when fitted again on the same files."""
    record = calibration.to_record()
    record["provenance"] = {name: value for name, value in calibration.provenance.items() if name != "date"}
    return hash_texts([json.dumps(record, sort_keys=True)])


def load_calibration(path: Path) -> Calibration:
    """Reads a calibration back.

    Raises:
        ConfigurationError: the file is missing, or no calibration of this format.
    """
    what, expected = f"{path} is not a calibration", "a file that `carzero calibrate fit` wrote"
    content = load_json(path, what, error=ConfigurationError, expected=expected)
    with refuse_broken(what, error=ConfigurationError, expected=expected):
        return _to_calibration(_Record.model_validate(content))


def _to_calibration(record: _Record) -> Calibration:
    own = record.abnormality
    return Calibration(
        labels={label: each.to_map() for label, each in record.labels.items()},
        score_kind=record.score_kind,
        provenance=record.provenance,
        left_out=record.left_out,
        thresholds=record.thresholds,
        abnormality=None
        if own is None
        else Abnormality(own.findings, own.no_finding, own.pool, own.calibration.to_map()),
    )
