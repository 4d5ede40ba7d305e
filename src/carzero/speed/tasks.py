"""What is timed, as calls that return when the work is done."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from carzero.errors import PromptError, describe
from carzero.images import load_image, load_radiograph
from carzero.images.loading import Readers, load_ahead
from carzero.inference.backends import TorchBackend
from carzero.inference.classifier import ZeroShotClassifier
from carzero.inference.prompt_bank import PromptBank
from carzero.model import CARZeroConfig, CARZeroModel
from carzero.model.scoring_model import dtype_of
from carzero.processing import build_processor
from carzero.prompts import PromptSet, load_prompt_set
from carzero.records import ImageItem
from carzero.speed.timing import Task
from carzero.text.tokenizers import continuation_pieces
from carzero.weights.precision import choose_device, has_fast_bfloat16, to_torch_dtype
from carzero.weights.source import DEMO, WeightsSource, example_film


def list_reading(
    classifier: ZeroShotClassifier, images: Mapping[str, Sequence[ImageItem]], readers: Readers
) -> list[Task]:
    """Reading of each format to grey levels of the model's size, as prediction does it."""
    transform = classifier.processor.image_processor.pixels

    def read(items: Sequence[ImageItem]) -> None:
        _exhaust(load_ahead(items, readers, batch_size=len(items), transform=transform, in_order=False))

    return [Task(f"read {name}", "", len(items), partial(read, items)) for name, items in images.items()]


def list_scoring(
    classifier: ZeroShotClassifier,
    prompt_sets: Mapping[int, PromptSet],
    images: Sequence[ImageItem],
    readers: Readers,
    batch_size: int,
    first: int,
) -> list[Task]:
    """The bare tower where torch has one, scoring with each prompt set, and from files to scores with the first.

    Args:
        classifier: with weights in one precision.
        prompt_sets: by number of prompts.
        images: files for the last task.
        readers: read them.
        batch_size: images in one pass.
        first: place of the first task in the list it is put into.
    """
    image = classifier.processor.image_processor.to_pixel_values(load_image(images[0].image))
    pixels = image.expand(batch_size, *image.shape).contiguous()
    tower = _tower_task(classifier, pixels)
    base = None if tower is None else first
    banks = {count: classifier.encode_prompts(prompt_set) for count, prompt_set in prompt_sets.items()}
    tasks = [] if tower is None else [replace(tower, base=base)]
    for count, bank in banks.items():
        tasks.append(
            Task(f"score, {count} prompts", classifier.dtype, batch_size, _score(classifier, pixels, bank), base)
        )
    count, bank = next(iter(banks.items()))
    work = partial(_predict, classifier, images, bank, readers, batch_size)
    tasks.append(Task(f"PNG to scores, {count} prompts", classifier.dtype, len(images), work, base))
    return tasks


def device_of(classifier: ZeroShotClassifier) -> str:
    """Where scores are computed, as torch names it; "cpu" for engines that do not say."""
    return str(getattr(classifier.backend, "device", "cpu"))


def _tower_task(classifier: ZeroShotClassifier, pixels: torch.Tensor) -> Task | None:
    backend = classifier.backend
    if not isinstance(backend, TorchBackend):
        return None
    model = backend.model
    ready = pixels.to(backend.device, dtype_of(model))

    @torch.inference_mode()
    def run() -> torch.Tensor:
        return backend.encode_in_blocks(model.encode_raw_images, ready).pooled.cpu()  # the copy waits for a GPU

    return Task("image tower", classifier.dtype, len(pixels), run)


def _score(classifier: ZeroShotClassifier, pixels: torch.Tensor, bank: PromptBank[object]) -> Callable[[], object]:
    pool = classifier.style.pool
    asked = classifier.backend.merge_prompts(bank) if pool == "text" else bank
    return lambda: asked.to_scores(classifier.backend.score(pixels, asked).scores, pool)


def _predict(
    classifier: ZeroShotClassifier,
    images: Sequence[ImageItem],
    bank: PromptBank[object],
    readers: Readers,
    batch_size: int,
) -> None:
    _exhaust(classifier.stream(images, bank, batch_size=batch_size, readers=readers, in_order=False))


def _exhaust(results: Iterable[object]) -> None:
    deque(results, maxlen=0)


FULL_SIZE = "random weights of the paper's size"

_PLACES = ("", " in the left lung", " in the right lung", " in both lungs")


def list_dtypes(device: str | None) -> list[str]:
    """The precisions that are worth timing with torch: float32, and those that the device has in hardware."""
    kind = choose_device(device).type
    return [
        "float32",
        *(["bfloat16"] if has_fast_bfloat16(device) else []),
        *(["float16"] if kind == "cuda" else []),
    ]


def load_classifiers(
    weights: WeightsSource | None, dtypes: Sequence[str], device: str | None
) -> list[ZeroShotClassifier]:
    """Loads the weights once for each precision.

    Args:
        weights: where they are; None makes a ViT-B/16, a BERT-base and four alignment layers of random numbers.
        dtypes: precisions, or none to time what there is: all of `list_dtypes`, or the one of exported weights.
        device: where to compute; None takes a GPU if there is one.
    """
    if weights is None:
        return _build_full_size(dtypes or list_dtypes(device), device)
    named = dtypes or ([weights.own_dtype] if weights.own_dtype else list_dtypes(device))
    return [ZeroShotClassifier.from_pretrained(weights, device=device, dtype=dtype) for dtype in named]


def build_prompts(count: int) -> PromptSet:
    """So many prompts of usual length, one a label: PadChest's labels, then the same at places of the chest.

    Raises:
        PromptError: fewer than one, or more than there are.
    """
    labels = [f"{label}{place}" for place in _PLACES for label in load_prompt_set("padchest192").labels]
    if not 1 <= count <= len(labels):
        raise PromptError(
            describe("This number of prompts cannot be timed", got=count, expected=f"a number from 1 to {len(labels)}")
        )
    return PromptSet.from_labels(labels[:count])


def _build_full_size(dtypes: Sequence[str], device: str | None) -> list[ZeroShotClassifier]:
    tokenizer = WeightsSource(DEMO).load_processor().tokenizer
    config = CARZeroConfig(text_config={"model_type": "bert", "vocab_size": len(tokenizer)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CARZeroModel(config)
    model.set_continuations(continuation_pieces(tokenizer))
    processor = build_processor(tokenizer, max_text_length=config.max_text_length)
    return [
        ZeroShotClassifier(TorchBackend(copy.deepcopy(model), device=device, dtype=to_torch_dtype(dtype)), processor)
        for dtype in dtypes
    ]


FORMATS = ("PNG", "JPEG", "DICOM")

_SIDE_PX = 1024

_BITS = 12


def write_images(folder: Path, count: int) -> dict[str, list[ImageItem]]:
    """Writes the bundled image in each format, `count` files each, with a longer side of 1,024 px.

    Args:
        folder: an empty one.
        count: files of each format; they are equal, and read from the system's cache.

    Returns:
        items by format: 8-bit PNG, 8-bit JPEG of quality 95, and 12-bit DICOM, uncompressed.
    """
    grey = _load_image()
    writers = {"PNG": _write_png, "JPEG": _write_jpeg, "DICOM": _write_dicom}
    items: dict[str, list[ImageItem]] = {}
    for name in FORMATS:
        paths = [folder / f"image_{number}.{name.lower()}" for number in range(count)]
        writers[name](paths[0], grey)
        for path in paths[1:]:
            path.write_bytes(paths[0].read_bytes())
        items[name] = [ImageItem(path.name, str(path), str(path)) for path in paths]
    return items


def _load_image() -> NDArray[np.float32]:
    """(height, width) grey levels in [0, 255]."""
    image = Image.fromarray(load_radiograph(example_film()).pixels)
    scale = _SIDE_PX / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    return np.asarray(image.resize(size, Image.Resampling.BOX), dtype=np.float32)


def _write_png(path: Path, grey: NDArray[np.float32]) -> None:
    Image.fromarray(grey.round().astype(np.uint8)).save(path, format="PNG")


def _write_jpeg(path: Path, grey: NDArray[np.float32]) -> None:
    Image.fromarray(grey.round().astype(np.uint8)).save(path, format="JPEG", quality=95)


def _write_dicom(path: Path, grey: NDArray[np.float32]) -> None:
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.Modality, data.BodyPartExamined, data.ViewPosition = "CR", "CHEST", "PA"
    data.Rows, data.Columns = grey.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, _BITS, _BITS - 1
    data.WindowCenter, data.WindowWidth = 2 ** (_BITS - 1), 2**_BITS
    data.PixelData = (grey * ((2**_BITS - 1) / 255)).round().astype("<u2").tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.save_as(path, enforce_file_format=True)
