"""Rows of scores as a journal keeps them: small, and exact to the bit."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from carzero.data.scores import KEY_COLUMNS
from carzero.outputs import FailedImage, ScoredImage

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["pack_frame", "pack_result", "unpack_rows"]

_FLOAT = np.dtype("<f4")


def pack_result(result: ScoredImage | FailedImage) -> dict[str, Any]:
    """What a journal keeps of a picture: its keys and logits, or `reason` where it was not scored."""
    if isinstance(result, FailedImage):
        return {"image_id": result.image_id, "path": result.path, "reason": result.reason}
    keys = {name: getattr(result, name) for name in KEY_COLUMNS}
    return {**keys, "warnings": " ".join(result.warnings), "logits": _pack(result.logits)}


def pack_frame(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What a journal keeps of each row of a score table, the inverse of `unpack_rows`."""
    logits = frame[[name for name in frame.columns if name.startswith("logit:")]].to_numpy(_FLOAT)
    texts = frame[[*KEY_COLUMNS, "warnings"]].to_dict("records")
    for row, values in zip(texts, logits, strict=True):
        yield {**{str(name): value for name, value in row.items()}, "logits": _pack(values)}


def unpack_rows(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> pd.DataFrame:
    """Rows of scored pictures as a table, as `carzero.data.scores.to_frame` makes it."""
    import pandas as pd

    logits = np.empty((len(rows), len(labels)), np.float32)
    for row, target in zip(rows, logits, strict=True):
        target[:] = np.frombuffer(base64.b64decode(row["logits"]), _FLOAT)
    keys = pd.DataFrame({name: [row[name] for row in rows] for name in KEY_COLUMNS}, dtype=object)
    scores = pd.DataFrame(logits, columns=[f"logit:{label}" for label in labels])
    warnings = pd.DataFrame({"warnings": [row["warnings"] for row in rows]}, dtype=object)
    return pd.concat([keys, scores, warnings], axis=1)


def _pack(logits: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(logits, _FLOAT).tobytes()).decode("ascii")
