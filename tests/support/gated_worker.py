"""A worker for tests that says when it is in the middle of a part, and stays there until it is killed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from carzero.inference.ray.parts import PartJob, RayWorker

__all__ = ["GATE", "GatedWorker", "waiting_pid"]

GATE = "_gate"  # a file in the run's folder: the worker that waits, by its process id


class GatedWorker(RayWorker):
    """Waits behind the second image of the first part that any worker begins; once in a run."""

    def __init__(self, job: PartJob, folder: str, threads: int) -> None:
        super().__init__(job, folder, threads)
        self._gate = job.out / GATE
        self._scorer.classifier.stream = self._gated(self._scorer.classifier.stream)  # type: ignore[method-assign]

    def _gated(self, stream: Any) -> Any:
        def gated(*args: Any, **options: Any) -> Iterator[Any]:
            for count, result in enumerate(stream(*args, **options), start=1):
                yield result
                if count == 2 and not self._gate.exists():
                    self._wait()

        return gated

    def _wait(self) -> None:
        try:
            with self._gate.open("x") as file:  # only one worker gets it
                file.write(f"{os.getpid()}\n")
        except FileExistsError:
            return
        while True:
            time.sleep(1)


def waiting_pid(out: Path) -> int | None:
    """The worker at the gate, if there is one."""
    gate = out / GATE
    if not gate.exists():
        return None
    while not (text := gate.read_text()).endswith("\n"):
        time.sleep(0.001)
    return int(text)
