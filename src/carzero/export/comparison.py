"""An exported folder compared with the torch model in float32, on images not used for calibration."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from carzero.errors import UnreadableImageError, WeightsError, describe
from carzero.images.loading import Readers, load_ahead
from carzero.inference.backends import Backend, TorchBackend
from carzero.inference.backends.graph_backend import open_exported
from carzero.processing import CARZeroProcessor
from carzero.prompts import PromptSet
from carzero.records import FailedImage, Failure, ImageItem, LoadedImage
from carzero.weights.export_manifest import Accuracy, ExportManifest
from carzero.weights.source import example_film

_LARGEST_CHECK = 32


@dataclass(frozen=True, slots=True)
class ExportImages:
    """Pixel values for an export.

    Attributes:
        calibration: (C, 3, h, w); none of them is in `check`.
        calibration_sha256: of the calibration images' pixel values.
        check: (I, 3, h, w).
        of: what `check` shows, in words.
        failures: images that could not be read.
    """

    calibration: Tensor
    calibration_sha256: str
    check: Tensor
    of: str
    failures: list[Failure]


def load_images(items: Sequence[ImageItem], processor: CARZeroProcessor, largest: int) -> ExportImages:
    """Reads images, spread over the items.

    Args:
        items: the user's images; none: the bundled image is the check.
        processor: makes their pixel values.
        largest: how many images the calibration takes at most. Every fourth is set aside for the check, 32 at most;
            with 0 they all are the check.

    Raises:
        ImageError: too few of the images can be read.
    """
    if not items:
        image = processor.image_processor.preprocess(str(example_film()))["pixel_values"]
        return ExportImages(image[:0], "", image, "the bundled image", [])
    wanted = min(len(items), largest + min(_LARGEST_CHECK, -(-largest // 3) or _LARGEST_CHECK))
    good: list[Tensor] = []
    failures: list[Failure] = []
    spread = [items[number * len(items) // wanted] for number in range(wanted)]
    for entry in _read(spread, processor):
        if isinstance(entry, FailedImage):
            failures.append(entry.failure)
        else:
            good.append(processor.image_processor.normalise(entry.levels[None]).contiguous()[0])
    needed = 2 if largest else 1
    if len(good) < needed:
        raise UnreadableImageError(
            describe(
                "Too few of the calibration images can be read",
                got=f"{len(good)} of {wanted}" + (f" ({failures[0].reason})" if failures else ""),
                expected=f"{needed} at least, better a hundred",
                then="name a folder of images like those that will be scored",
            )
        )
    checked = set(list(range(0, len(good), 4 if largest else 1))[:_LARGEST_CHECK])
    kept = [image for number, image in enumerate(good) if number not in checked]
    check = torch.stack([good[number] for number in sorted(checked)])
    calibration = torch.stack(kept) if kept else check[:0]
    digest = hashlib.sha256(calibration.contiguous().numpy().tobytes()).hexdigest() if kept else ""
    return ExportImages(calibration, digest, check, "calibration images" + " set aside" * bool(kept), failures)


def _read(items: Sequence[ImageItem], processor: CARZeroProcessor) -> Iterator[LoadedImage | FailedImage]:
    with Readers(images=len(items), isolated=True) as readers:
        yield from load_ahead(items, readers, batch_size=8, transform=processor.image_processor.pixels)


_IMAGES_AT_ONCE = 8

# A right graph in float32 stays below a tenth of it.
_LARGEST_FLOAT32_DIFFERENCE = 1e-3


def compare(
    folder: Path,
    manifest: ExportManifest,
    source: TorchBackend,
    processor: CARZeroProcessor,
    prompt_set: PromptSet,
    images: ExportImages,
) -> Accuracy:
    """Scores the check images by both.

    Raises:
        WeightsError: a float32 export does not give the torch model's scores.
    """
    ours = _score(open_exported(folder, manifest), processor, prompt_set, images.check)
    theirs = _score(source, processor, prompt_set, images.check)
    difference = (ours - theirs).abs()
    largest = float(difference.max())
    if not torch.isfinite(ours).all() or (manifest.dtype == "float32" and largest > _LARGEST_FLOAT32_DIFFERENCE):
        raise WeightsError(
            describe(
                "The exported graph does not give the torch model's scores",
                got=f"a logit that differs by {largest:g}",
                expected=f"at most {_LARGEST_FLOAT32_DIFFERENCE:g}",
                then="report this with the versions of torch and of the engine; nothing was left behind",
            )
        )
    return Accuracy(
        pictures=len(images.check),
        of=images.of,
        prompts=theirs.shape[1],
        largest_logit_difference=largest,
        mean_logit_difference=float(difference.mean()),
        logit_deviation=float(theirs.std(dim=0).mean()) if len(theirs) > 1 else 0.0,
    )


def _score(backend: Backend, processor: CARZeroProcessor, prompt_set: PromptSet, images: Tensor) -> Tensor:
    """Raw logits (I, prompts)."""
    bank = backend.encode_prompts(processor, prompt_set)
    return torch.cat([backend.score(some, bank).scores for some in images.split(_IMAGES_AT_ONCE)])
