"""The one place where images of all requests are scored: read ahead in processes, scored in passes by one thread.

Images that are asked the same wait for nothing: whatever is read when the thread is free is scored as one batch, its
prompts encoded once, so that batches are small where little is asked and full where much is.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from carzero.images.loading import Readers, await_loaded
from carzero.prompts import PromptSet
from carzero.records import FailedImage, ImageItem, LoadedImage, Pool, ScoredImage
from carzero.service.problems import ProblemError
from carzero.service.served_weights import ServedWeights
from carzero.service.telemetry import Telemetry

Result = ScoredImage | FailedImage


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of an image.

    Attributes:
        weights: by name.
        prompts: what is asked.
        pool: how the logits of a label's prompts become one.
        force: whether readable images that are not chest radiographs are scored too.
        need_maps: whether maps are wanted.
    """

    weights: str
    prompts: PromptSet
    pool: Pool = "mean"
    force: bool = False
    need_maps: bool = False

    @property
    def key(self) -> tuple[str, str, str, bool]:
        """Images with the same key may be scored in one batch."""
        return self.weights, self.prompts.hash, self.pool, self.need_maps


@dataclass(slots=True, eq=False)
class _Task:
    item: ImageItem
    question: Question
    result: Future[Result] = field(default_factory=Future)
    loaded: LoadedImage | FailedImage | None = None


class ScoringQueue:
    """Images that wait, are read, and are scored.

    Args:
        weights: by name.
        readers: read the images.
        batch_size: most images in a batch.
        most_waiting: images that are accepted and not scored yet.
        telemetry: is told.
    """

    def __init__(
        self,
        weights: Mapping[str, ServedWeights],
        readers: Readers,
        *,
        batch_size: int,
        most_waiting: int,
        telemetry: Telemetry,
    ) -> None:
        self._weights = weights
        self._readers = readers
        self._batch_size = batch_size
        self._most_waiting = most_waiting
        self._telemetry = telemetry
        self._changed = threading.Condition()
        self._waiting: deque[_Task] = deque()
        self._ready: deque[_Task] = deque()
        self._reading = 0
        self._scoring = 0
        self._closed = False
        telemetry.waiting.set_function(lambda: float(self.count()))

    def count(self) -> int:
        """Images accepted and not scored yet."""
        return len(self._waiting) + self._reading + len(self._ready) + self._scoring

    def check_room(self, images: int = 1) -> None:
        """Refuses images that there is no room for.

        Raises:
            ProblemError: busy, or stopping.
        """
        if self._closed:
            raise ProblemError("busy", "The service is stopping.", {"Retry-After": "10"})
        if (count := self.count()) + images > self._most_waiting:
            wait = {"Retry-After": str(max(1, min(60, count // 8)))}
            raise ProblemError("busy", f"{count} images are waiting, of at most {self._most_waiting}.", wait)

    def submit(self, items: Sequence[ImageItem], question: Question) -> list[Future[Result]]:
        """Takes images of one request, all of them or none. What is not wanted any more is cancelled.

        Raises:
            ProblemError: busy, or stopping.
        """
        tasks = [_Task(item, question) for item in items]
        with self._changed:
            self.check_room(len(tasks))
            self._waiting.extend(tasks)
            self._read_ahead()
        return [task.result for task in tasks]

    def close(self) -> None:
        """Takes no more images; what was taken is scored."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def work(self) -> None:
        """Scores until the queue is closed and empty; the body of the one thread that scores."""
        while batch := self._next_batch():
            try:
                self._score(batch)
            finally:
                with self._changed:
                    self._scoring = 0

    def _read_ahead(self) -> None:
        """Begins to read what there is memory for; the condition is held."""
        most = 2 * self._batch_size + self._readers.count
        while self._waiting and self._reading + len(self._ready) < most:
            task = self._waiting.popleft()
            if task.result.cancelled():
                self._telemetry.count_image("given up")
                continue
            transform = self._weights[task.question.weights].source.pixels
            asked = task.question
            self._reading += 1
            reading = self._readers.read(task.item, transform=transform, force=asked.force, keep_pixels=asked.need_maps)
            reading.add_done_callback(partial(self._take_read, task))

    def _take_read(self, task: _Task, reading: Future[LoadedImage]) -> None:
        task.loaded = _without_pixels(await_loaded(task.item, reading))
        with self._changed:
            self._reading -= 1
            self._ready.append(task)
            self._read_ahead()
            self._changed.notify_all()

    def _next_batch(self) -> list[_Task]:
        """Waits for images that are read; those of one key, in the order in which they were read. None at the end."""
        with self._changed:
            while not self._ready:
                if self._closed and not self._waiting and not self._reading:
                    return []
                self._changed.wait()
            key = self._ready[0].question.key
            batch = [*itertools.islice((task for task in self._ready if task.question.key == key), self._batch_size)]
            chosen = set(map(id, batch))
            self._ready = deque(task for task in self._ready if id(task) not in chosen)
            self._scoring = len(batch)
            self._read_ahead()
        return batch

    def _score(self, batch: Sequence[_Task]) -> None:
        wanted = [task for task in batch if task.result.set_running_or_notify_cancel()]
        for _ in range(len(batch) - len(wanted)):
            self._telemetry.count_image("given up")
        try:
            self._score_wanted(wanted)
        except Exception as error:  # whatever it is, it belongs to these images, and others go on
            for task in wanted:
                with contextlib.suppress(InvalidStateError):
                    task.result.set_exception(error)

    def _score_wanted(self, tasks: Sequence[_Task]) -> None:
        good: list[tuple[_Task, LoadedImage]] = []
        for task in tasks:
            if isinstance(task.loaded, LoadedImage):
                good.append((task, task.loaded))
            elif task.loaded is not None:
                self._finish(task, task.loaded)
        if not good:
            return
        asked = good[0][0].question
        images = [loaded for _, loaded in good]
        results = self._weights[asked.weights].score(images, asked.prompts, asked.pool, asked.need_maps)
        self._telemetry.count_batch(len(good))
        for (task, _), result in zip(good, results, strict=True):
            self._finish(task, result)

    def _finish(self, task: _Task, result: Result) -> None:
        self._telemetry.count_image("failed" if isinstance(result, FailedImage) else "scored")
        task.result.set_result(result)


def _without_pixels(loaded: LoadedImage | FailedImage) -> LoadedImage | FailedImage:
    """A loaded image whose full size is known and whose pixels are let go: maps need the one and not the other."""
    radiograph = loaded.radiograph if isinstance(loaded, LoadedImage) else None
    if radiograph is None or isinstance(loaded, FailedImage):
        return loaded
    blank = np.broadcast_to(np.float32(0), radiograph.pixels.shape)
    return replace(loaded, radiograph=replace(radiograph, pixels=blank))
