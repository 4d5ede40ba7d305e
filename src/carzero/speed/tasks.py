"""What is timed, as calls that return when the work is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from carzero.backends import TorchBackend
from carzero.data.images import ImageItem
from carzero.image_loading import Readers, load_ahead
from carzero.processing import read_image
from carzero.prompt_bank import PromptBank
from carzero.prompts import PromptSet
from carzero.speed.timing import Task
from carzero.zeroshot import ZeroShotClassifier

__all__ = ["device_of", "list_reading", "list_scoring"]


def list_reading(
    classifier: ZeroShotClassifier, films: Mapping[str, Sequence[ImageItem]], readers: Readers
) -> list[Task]:
    """Reading of each format to grey levels of the model's size, as prediction does it."""
    fields = classifier.processor.image_processor

    def read(items: Sequence[ImageItem]) -> None:
        _exhaust(
            load_ahead(
                items,
                readers,
                batch_size=len(items),
                resize_px=fields.resize_px,
                crop_px=fields.crop_px,
                in_order=False,
            )
        )

    return [Task(f"read {name}", "", len(items), partial(read, items)) for name, items in films.items()]


def list_scoring(
    classifier: ZeroShotClassifier,
    prompt_sets: Mapping[int, PromptSet],
    films: Sequence[ImageItem],
    readers: Readers,
    batch_size: int,
    first: int,
) -> list[Task]:
    """The bare tower where torch has one, scoring with each prompt set, and from files to scores with the first.

    Args:
        classifier: with weights in one precision.
        prompt_sets: by number of prompts.
        films: files for the last task.
        readers: read them.
        batch_size: pictures in one pass.
        first: place of the first task in the list it is put into.
    """
    film = classifier.processor.image_processor.to_pixel_values(read_image(films[0].image))
    pixels = film.expand(batch_size, *film.shape).contiguous()
    tower = _tower_task(classifier, pixels)
    base = None if tower is None else first
    banks = {count: classifier.encode_prompts(prompt_set) for count, prompt_set in prompt_sets.items()}
    tasks = [] if tower is None else [replace(tower, base=base)]
    for count, bank in banks.items():
        tasks.append(
            Task(f"score, {count} prompts", classifier.dtype, batch_size, _score(classifier, pixels, bank), base)
        )
    count, bank = next(iter(banks.items()))
    work = partial(_predict, classifier, films, bank, readers, batch_size)
    tasks.append(Task(f"PNG to scores, {count} prompts", classifier.dtype, len(films), work, base))
    return tasks


def device_of(classifier: ZeroShotClassifier) -> str:
    """Where scores are computed, as torch names it; "cpu" for engines that do not say."""
    return str(getattr(classifier.backend, "device", "cpu"))


def _tower_task(classifier: ZeroShotClassifier, pixels: torch.Tensor) -> Task | None:
    backend = classifier.backend
    if not isinstance(backend, TorchBackend):
        return None
    model = backend.model
    ready = pixels.to(backend.device, model.dtype)

    @torch.inference_mode()
    def run() -> torch.Tensor:
        return model.raw_image_features(ready).pooled.cpu()  # the copy waits for a GPU

    return Task("image tower", classifier.dtype, len(pixels), run)


def _score(classifier: ZeroShotClassifier, pixels: torch.Tensor, bank: PromptBank) -> Callable[[], object]:
    return lambda: bank.pool(classifier.backend.score(pixels, bank).scores, "mean")


def _predict(
    classifier: ZeroShotClassifier, films: Sequence[ImageItem], bank: PromptBank, readers: Readers, batch_size: int
) -> None:
    _exhaust(classifier.stream(films, bank, batch_size=batch_size, readers=readers, in_order=False))


def _exhaust(results: Iterable[object]) -> None:
    deque(results, maxlen=0)
