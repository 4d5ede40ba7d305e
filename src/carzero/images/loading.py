"""Loading pictures ahead of their scoring: several at a time, in bounded memory, a slow or broken one never in the way.

Threads are enough for the few pictures that a caller holds: decoders release the interpreter lock. A long run reads in
processes: a decoder that a broken file brings down, or keeps busy for ever, then costs that file alone, and the thread
that drives the model shares its interpreter with nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carzero.core.system import count_cores
from carzero.core.workers import CAN_ISOLATE, WorkerCrashedError, WorkerHungError, WorkerPool
from carzero.errors import ImageError, UnreadableImageError, describe
from carzero.images import PixelTransform, load_radiograph, to_radiograph
from carzero.records import FailedImage, ImageItem, LoadedImage, Radiograph

_NO_PIXELS = np.empty((0, 0), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ReadPicture:
    """A picture that has been read.

    Attributes:
        radiograph: what its file said, with its pixels where they are kept, else without any.
        levels: (crop_px, crop_px) uint8, the whole grey levels in the model's crop, 0 in the padding.
    """

    radiograph: Radiograph
    levels: NDArray[np.uint8]


def read_image(image: Any, *, force: bool = False) -> Radiograph:
    """Returns a picture as a radiograph, whatever form it came in.

    Args:
        image: a path (str or Path), an array (height, width), a PIL image, or a `Radiograph`, which is returned as is.
        force: score a readable picture that is no chest radiograph.

    Raises:
        ImageError: the picture is broken or no chest radiograph.
    """
    if isinstance(image, Radiograph):
        return image
    if isinstance(image, str | Path):
        return load_radiograph(image, force=force)
    return to_radiograph(image, force=force)


def to_levels(radiograph: Radiograph, transform: PixelTransform) -> NDArray[np.uint8]:
    """Returns (crop_px, crop_px) whole grey levels as the model sees the radiograph; see `Geometry`."""
    return transform.geometry(*radiograph.pixels.shape).apply(radiograph.pixels).astype(np.uint8)


def read_picture(image: Any, transform: PixelTransform, force: bool = False, keep_pixels: bool = False) -> ReadPicture:
    """Reads a picture down to the model's crop.

    Args:
        image: as for `read_image`.
        transform: to the model's square.
        force: score a readable picture that is no chest radiograph.
        keep_pixels: keep the grey levels at full size too; they take tens of megabytes.

    Raises:
        ImageError: the picture cannot be read, or is no chest radiograph.
    """
    try:
        radiograph = read_image(image, force=force)
        levels = to_levels(radiograph, transform)
    except ImageError:
        raise
    except (OSError, MemoryError) as error:
        got = str(error) or "not enough memory"
        raise UnreadableImageError(describe(f"{_name(image)} cannot be read", got=got)) from error
    return ReadPicture(radiograph if keep_pixels else replace(radiograph, pixels=_NO_PIXELS), levels)


def _name(image: Any) -> str:
    return str(image) if isinstance(image, str | Path) else "The picture"


LIMIT_S = 300.0

_MOST_READERS = 16


class Readers:
    """Threads, or processes, that read pictures; they begin to start when this is made.

    Args:
        count: how many pictures are read at the same time; None takes the number of cores, at most 16.
        isolated: True reads files in processes, where a crash or a hang costs one file; False in threads. What is no
            file is read in threads, and on Windows all is.
        limit_s: seconds that reading a file may take in a process.
    """

    def __init__(self, count: int | None = None, *, isolated: bool = False, limit_s: float = LIMIT_S) -> None:
        if count is not None and count < 1:
            raise ValueError(f"count must be at least 1; got {count}.")
        self.count = count or min(_MOST_READERS, count_cores())
        self._threads = ThreadPoolExecutor(self.count)
        self._processes = WorkerPool(read_picture, self.count, limit_s=limit_s) if isolated and CAN_ISOLATE else None

    def __enter__(self) -> Readers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._processes is not None:
            self._processes.__exit__(kind, error, trace)

    def read(
        self, item: ImageItem, *, transform: PixelTransform, force: bool, keep_pixels: bool
    ) -> Future[ReadPicture]:
        """Begins to read a picture; see `read_picture`."""
        arguments = (item.image, transform, force, keep_pixels)
        if self._processes is not None and isinstance(item.image, str | Path):
            return self._processes.submit(*arguments)
        return self._threads.submit(read_picture, *arguments)


def load_ahead(
    items: Iterable[ImageItem],
    readers: Readers,
    *,
    batch_size: int,
    transform: PixelTransform,
    force: bool = False,
    keep_pixels: bool = False,
    in_order: bool = True,
) -> Iterator[LoadedImage | FailedImage]:
    """Reads pictures while earlier ones are worked on.

    Args:
        items: the pictures; they are taken as room is made for them.
        readers: read them.
        batch_size: pictures that are worked on at once; twice as many, and one for each reader, are on their way.
        transform: to the model's square.
        force: also take readable pictures that are no chest radiographs.
        keep_pixels: keep each film's grey levels at full size too.
        in_order: True keeps the order given, and waits for a slow picture; False lets others pass it once a batch of
            them is ready, so that the order is kept where no picture is slow.
    """
    waiting: dict[Future[ReadPicture], ImageItem] = {}
    remaining = iter(items)
    ahead = 2 * batch_size + readers.count
    try:
        while True:
            for item in islice(remaining, ahead - len(waiting)):
                future = readers.read(item, transform=transform, force=force, keep_pixels=keep_pixels)
                waiting[future] = item
            if not waiting:
                return
            chosen = _wait_for_one(waiting, ahead if in_order else 2 * batch_size)
            yield _to_result(waiting.pop(chosen), chosen)
    finally:
        for future in waiting:
            future.cancel()


def _wait_for_one(waiting: Iterable[Future[ReadPicture]], patience: int) -> Future[ReadPicture]:
    """Returns the first of the futures once it is done, or the first that is done once `patience` of them are."""
    futures = list(waiting)
    while True:
        ready = [future for future in futures if future.done()]
        if futures[0].done() or len(ready) >= patience:
            return ready[0]
        wait([future for future in futures if not future.done()], return_when=FIRST_COMPLETED)


def _to_result(item: ImageItem, future: Future[ReadPicture]) -> LoadedImage | FailedImage:
    try:
        read = future.result()
    except ImageError as error:
        return FailedImage(item.image_id, item.path, str(error), error)
    except (WorkerCrashedError, WorkerHungError) as error:
        failed = UnreadableImageError(
            describe(
                f"{item.path}: its reader {'hung' if isinstance(error, WorkerHungError) else 'crashed'}",
                got=str(error),
                expected="a picture that its decoder gets through",
                then="export the picture again, or leave it out",
            )
        )
        return FailedImage(item.image_id, item.path, str(failed), failed)
    return LoadedImage(item, read.radiograph, read.levels)
