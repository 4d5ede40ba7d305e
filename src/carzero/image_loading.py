"""Loading pictures ahead of their scoring: in threads, in order, in bounded memory, a bad one never in the way."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from carzero.data.images import ImageItem
from carzero.errors import ImageError, UnreadableImageError, describe
from carzero.outputs import FailedImage, Radiograph
from carzero.processing import CARZeroProcessor, read_image

__all__ = ["LoadedImage", "load_ahead"]

_READERS = 2  # threads; decoding releases the interpreter lock
_NO_PIXELS = np.empty((0, 0), np.float32)


@dataclasses.dataclass(frozen=True, slots=True)
class LoadedImage:
    """A picture ready to be scored: its item, what its file said, and pixel values (3, crop_px, crop_px)."""

    item: ImageItem
    radiograph: Radiograph
    pixel_values: torch.Tensor


def load_ahead(
    items: Iterable[ImageItem], processor: CARZeroProcessor, *, ahead: int, force: bool, keep_pixels: bool
) -> Iterator[LoadedImage | FailedImage]:
    """Reads pictures in threads while earlier ones are worked on, in the order given.

    Args:
        items: the pictures.
        processor: makes their pixel values.
        ahead: how many may wait at once.
        force: also take readable pictures that are no chest radiographs.
        keep_pixels: keep each film's grey levels at full size too.
    """
    waiting: deque[Future[LoadedImage | FailedImage]] = deque()
    remaining = iter(items)
    with ThreadPoolExecutor(_READERS) as readers:
        try:
            while True:
                for item in itertools.islice(remaining, ahead - len(waiting)):
                    waiting.append(readers.submit(_load, item, processor, force, keep_pixels))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            readers.shutdown(wait=True, cancel_futures=True)


def _load(item: ImageItem, processor: CARZeroProcessor, force: bool, keep_pixels: bool) -> LoadedImage | FailedImage:
    try:
        radiograph = read_image(item.image, force=force)
        pixel_values = processor.image_processor.to_pixel_values(radiograph)
        if not keep_pixels:  # a film at full size takes tens of megabytes, and many wait here
            radiograph = dataclasses.replace(radiograph, pixels=_NO_PIXELS)
        return LoadedImage(item, radiograph, pixel_values)
    except ImageError as error:
        return FailedImage(item.image_id, item.path, str(error), error)
    except OSError as error:
        wrapped = UnreadableImageError(describe(f"{item.path} cannot be read", got=str(error)))
        return FailedImage(item.image_id, item.path, str(wrapped), wrapped)
