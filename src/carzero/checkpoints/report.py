"""What a conversion did: the record that is printed, and saved beside the weights as `conversion.json`."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from carzero.model.conversion import KeyRecord

__all__ = ["ConversionReport", "KeyGroup"]

_LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class KeyGroup:
    """Released tensors that met the same fate: `pattern` has N in place of layer numbers."""

    pattern: str
    action: str
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """A conversion's provenance and the fate of every released tensor.

    Attributes:
        source: file name of the checkpoint, without its folder.
        source_bytes: its size.
        source_sha256: its SHA-256, as `sha256sum` prints it.
        tokenizer: the tokenizer's hub id, or its folder's or file's name.
        out: folder that was written; not part of the saved file.
        epoch: epochs the checkpoint had been trained for, if it says so.
        global_step: optimiser steps, likewise.
        lightning_version: version of PyTorch Lightning that wrote it, likewise.
        hyper_parameters: the authors' training settings, as they were in the file.
        carzero_version: version of this package.
        date: when it was converted, UTC, ISO 8601.
        records: one per released tensor, in the file's order.
        missing: tensors of the model that the file lacked and that are random; empty unless `lenient`.
        lenient: unknown and missing tensors were allowed.
    """

    source: str
    source_bytes: int
    source_sha256: str
    tokenizer: str
    out: str
    epoch: int | None
    global_step: int | None
    lightning_version: str | None
    carzero_version: str
    date: str
    lenient: bool
    missing: list[str]
    records: list[KeyRecord]
    hyper_parameters: dict[str, Any] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Number of released tensors by action: "renamed", "split", "dropped", "unknown"."""
        return dict(Counter(record.action for record in self.records))

    def groups(self, *actions: str) -> list[KeyGroup]:
        """Released tensors of these actions, those that differ in layer number alone as one group."""
        grouped = Counter(
            (_LAYER_NUMBER.sub("N", record.source), record.action, record.reason)
            for record in self.records
            if record.action in actions
        )
        return [KeyGroup(pattern, action, count, reason) for (pattern, action, reason), count in grouped.items()]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {"counts": self.counts(), **asdict(self)}
