"""What Ray runs in each worker's process: it turns Ray's batches into parts, and results into rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carzero.data.images import ImageItem
from carzero.parallel.part_scoring import PartJob, PartScorer

__all__ = ["RayWorker"]


class RayWorker:
    """A worker's process: weights and prompts in memory, one part at a time.

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
        self._scorer = PartScorer(job)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[int]]:
        """Scores one part: columns `number`, `image_ids` and `paths` of one row."""
        items = [
            ImageItem(str(image_id), str(path), str(path))
            for image_id, path in zip(batch["image_ids"][0], batch["paths"][0], strict=True)
        ]
        result = self._scorer.score(int(batch["number"][0]), items)
        return {name: [getattr(result, name)] for name in ("number", "scored", "failed", "repeated")}
