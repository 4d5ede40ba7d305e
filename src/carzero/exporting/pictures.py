"""Pictures that an export is calibrated on and measured with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from carzero.data.images import ImageItem
from carzero.errors import UnreadableImageError, describe
from carzero.image_loading import LoadedImage, Readers, load_ahead
from carzero.outputs import FailedImage
from carzero.processing import CARZeroProcessor
from carzero.weights import example_film

__all__ = ["ExportPictures", "load_pictures"]

_LARGEST_CHECK = 32


@dataclass(frozen=True, slots=True)
class ExportPictures:
    """Pixel values for an export.

    Attributes:
        calibration: (C, 3, h, w); none of them is in `check`.
        calibration_sha256: of the calibration pictures' pixel values.
        check: (I, 3, h, w).
        of: what `check` shows, in words.
        failures: path and reason of pictures that could not be read.
    """

    calibration: Tensor
    calibration_sha256: str
    check: Tensor
    of: str
    failures: list[tuple[str, str]]


def load_pictures(items: Sequence[ImageItem], processor: CARZeroProcessor, largest: int) -> ExportPictures:
    """Reads pictures, spread over the items.

    Args:
        items: the user's pictures; none: the bundled film is the check.
        processor: makes their pixel values.
        largest: how many pictures the calibration takes at most. Every fourth is set aside for the check, 32 at most;
            with 0 they all are the check.

    Raises:
        ImageError: too few of the pictures can be read.
    """
    if not items:
        film = processor.image_processor.preprocess(str(example_film()))["pixel_values"]
        return ExportPictures(film[:0], "", film, "the bundled film", [])
    wanted = min(len(items), largest + min(_LARGEST_CHECK, -(-largest // 3) or _LARGEST_CHECK))
    good: list[Tensor] = []
    failures: list[tuple[str, str]] = []
    spread = [items[number * len(items) // wanted] for number in range(wanted)]
    for entry in _read(spread, processor):
        if isinstance(entry, FailedImage):
            failures.append((entry.path, entry.reason))
        else:
            good.append(processor.image_processor.normalise(entry.levels[None]).contiguous()[0])
    needed = 2 if largest else 1
    if len(good) < needed:
        raise UnreadableImageError(
            describe(
                "Too few of the calibration pictures can be read",
                got=f"{len(good)} of {wanted}" + (f" ({failures[0][1]})" if failures else ""),
                expected=f"{needed} at least, better a hundred",
                then="name a folder of films like those that will be scored",
            )
        )
    checked = set(list(range(0, len(good), 4 if largest else 1))[:_LARGEST_CHECK])
    kept = [picture for number, picture in enumerate(good) if number not in checked]
    check = torch.stack([good[number] for number in sorted(checked)])
    calibration = torch.stack(kept) if kept else check[:0]
    digest = hashlib.sha256(calibration.contiguous().numpy().tobytes()).hexdigest() if kept else ""
    return ExportPictures(calibration, digest, check, "calibration pictures" + " set aside" * bool(kept), failures)


def _read(items: Sequence[ImageItem], processor: CARZeroProcessor) -> Iterator[LoadedImage | FailedImage]:
    fields = processor.image_processor
    with Readers() as readers:
        yield from load_ahead(items, readers, batch_size=8, resize_px=fields.resize_px, crop_px=fields.crop_px)
