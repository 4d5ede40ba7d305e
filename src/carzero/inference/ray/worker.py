"""What Ray runs in each worker's process: it turns Ray's batches into parts, and results into rows."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from carzero.errors import CARZeroError, describe
from carzero.images.loading import Readers
from carzero.inference.ray.parts import PartJob, PartResult, PartScorer
from carzero.records import ImageItem


class RayWorker:
    """A worker's process: weights and prompts in memory, one part at a time.

    Errors are handed back as text: one that is raised here comes out of Ray wrapped many times, behind pages of traces.

    Args:
        job: what to do.
        folder: where the run was started, so that relative paths mean the same here.
        threads: processors that this worker may use.
    """

    def __init__(self, job: PartJob, folder: str, threads: int) -> None:
        import torch

        if Path(folder).is_dir():
            os.chdir(folder)
        torch.set_num_threads(threads)
        self._refusal = ""
        try:
            self._scorer = PartScorer(job, readers=Readers(threads, isolated=True))
        except Exception as error:  # whatever it is, the run must hear of it
            self._refusal = _tell(error)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Scores one part: columns `number`, `image_ids` and `paths` of one row.

        Returns:
            one row: the fields of `PartResult`, and `refusal`, why this worker does not work, or "".
        """
        number = int(batch["number"][0])
        result = PartResult(number, 0, 0, 0)
        if not self._refusal:
            try:
                result = self._scorer.score(number, _to_items(batch))
            except Exception as error:  # as above
                self._refusal = _tell(error)
        return {**{name: [value] for name, value in asdict(result).items()}, "refusal": [self._refusal]}


def _to_items(batch: Mapping[str, Any]) -> list[ImageItem]:
    pairs = zip(batch["image_ids"][0], batch["paths"][0], strict=True)
    return [ImageItem(str(image_id), str(path), str(path)) for image_id, path in pairs]


def _tell(error: Exception) -> str:
    if isinstance(error, CARZeroError):
        return str(error)
    return describe(
        f"A worker on {platform.node()} cannot go on",
        got=f"{type(error).__name__}: {error}",
        then="mend what it names, and continue with --resume",
    )
