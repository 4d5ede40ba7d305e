"""The one door to prediction: images and words in, named scores and maps out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from carzero.errors import PromptError, UnreadableImageError, WeightsError, describe, refuse_broken
from carzero.images.listing import list_arrays
from carzero.images.loading import Readers, load_ahead
from carzero.inference.backends import Backend, TorchBackend, load_backend
from carzero.inference.prompt_bank import BankKey, PromptBank, load_bank, save_bank
from carzero.inference.score_table import mark_unfamiliar, score_row, to_frame
from carzero.model import CARZeroModel
from carzero.model.vision import is_convolutional
from carzero.processing import CARZeroProcessor
from carzero.prompts import DEFAULT_TEMPLATE, PromptReview, PromptSet
from carzero.prompts.review import review_prompts
from carzero.records import (
    FailedImage,
    Failure,
    Grounding,
    ImageItem,
    ImageSource,
    LoadedImage,
    Pool,
    ScoredImage,
    ScoreKind,
)
from carzero.weights.source import DEMO, WeightsSource, to_source

if TYPE_CHECKING:
    import pandas as pd


class ZeroShotClassifier:
    """Scores chest radiographs against words.

    Scores are raw logits: within one finding a higher one means a likelier finding; between findings, and as
    probabilities, they mean nothing until calibrated.

    Safe to use from many threads at once: each gets the numbers that it would get alone.

    Args:
        model: the model, which is put into eval mode; or another backend with the weights in it.
        processor: the processor that belongs to it.
        device: where to compute; None takes a GPU if there is one. A backend has its own.
        weights_id: name of the weights, as `from_pretrained` takes it; empty for a model made in memory.

    Example:
        >>> classifier = ZeroShotClassifier.from_pretrained("demo")
        >>> table = classifier.predict(["chest.dcm"], labels=["pneumonia", "pleural effusion"])
    """

    def __init__(
        self,
        model: CARZeroModel | Backend,
        processor: CARZeroProcessor,
        *,
        device: str | torch.device | None = None,
        weights_id: str = "",
    ) -> None:
        if isinstance(model, CARZeroModel):
            _check_pair(model, processor)
            model = TorchBackend(model, device=device)
        self.backend: Backend = model
        self.processor = processor
        self.weights_id = weights_id
        self._source: WeightsSource | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | WeightsSource = DEMO,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> ZeroShotClassifier:
        """Loads weights and processor.

        Args:
            name: "demo" (in the package), a folder, or a hub id; or weights that were looked up already.
            device: where to compute; None takes a GPU if there is one.
            dtype: precision to compute in; None is float32, the same numbers on every machine (exported weights have
                their own). Or "float32", "bfloat16", "float16", "int8" (exported weights), "auto": bfloat16 where the
                device has it in hardware and the image tower is a transformer, else float32.

        Raises:
            WeightsError: not found, or not fitting.
            ConfigurationError: this device or precision is not available.
        """
        source = to_source(name)
        backend = load_backend(source, device=device, dtype=dtype)
        processor = source.load_processor()
        if isinstance(backend, TorchBackend):
            _check_pair(backend.model, processor)
        classifier = cls(backend, processor, weights_id=source.name)
        classifier._source = source
        if isinstance(backend, TorchBackend):
            classifier._try()
        return classifier

    def _try(self) -> None:
        """Scores a grey image once: a configuration or a tensor that the loader lets pass may be none of a model's.

        Raises:
            WeightsError: it cannot be scored, or its score is not a number.
        """
        what, then = f"The weights {self.weights_id} give no scores", "take other weights, or compute in float32"
        with refuse_broken(what, error=WeightsError, expected="a finite logit of any image", then=then):
            bank = self.encode_prompts(PromptSet.from_labels(["finding"]))
            side = self.processor.image_processor.pixels.model_px
            pairs = self.backend.score(torch.zeros(1, 3, side, side), bank, need_maps=True)
            if not pairs.scores.isfinite().all() or (pairs.maps is not None and not pairs.maps.isfinite().all()):
                raise ValueError("a score that is not a number")

    @property
    def model(self) -> CARZeroModel:
        """The torch model.

        Raises:
            WeightsError: the weights are computed by another backend.
        """
        if isinstance(self.backend, TorchBackend):
            model: CARZeroModel = self.backend.model
            return model
        raise WeightsError(
            describe(
                "There is no torch model behind these scores",
                got=self.backend.name,
                expected="weights that torch computes",
                then="load the weights that were exported",
            )
        )

    @property
    def dtype(self) -> str:
        """Precision of the computation, such as "float32"."""
        return self.backend.dtype

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of the weights' files, for the record; empty for a model made in memory. Read on first use."""
        source = self._find_source()
        return "" if source is None else source.sha256

    def _find_source(self) -> WeightsSource | None:
        if self._source is None and self.weights_id:
            self._source = WeightsSource(self.weights_id)
        return self._source

    def review_prompts(self, prompt_set: PromptSet) -> PromptReview:
        """What is to be known of prompts before their scores are trusted: denials, words that the weights do not know.

        `predict` and `ground` do so themselves, and warn.
        """
        source = self._find_source()
        if source is not None:
            return source.review(prompt_set)
        return review_prompts(prompt_set, self.processor.tokenizer, self.processor.max_text_length, None)

    def encode_prompts(self, prompt_set: PromptSet) -> PromptBank[object]:
        """Encodes prompts, once for all images.

        Raises:
            PromptError: a prompt is longer than the model reads.
        """
        return self.backend.encode_prompts(self.processor, prompt_set)

    def save_prompts(self, bank: PromptBank[object], folder: str | Path, *, overwrite: bool = False) -> None:
        """Keeps encoded prompts in a folder, for runs with the same weights and precision.

        Raises:
            OutputError: the folder holds a bank already, or cannot be written.
            PromptError: the weights were made in memory or exported.
        """
        if not isinstance(self.backend, TorchBackend):
            raise PromptError(
                describe(
                    "Encoded prompts of exported weights cannot be saved",
                    got=self.backend.name,
                    expected="weights that torch computes",
                    then="export the weights with the prompts baked in: `carzero export --prompts`",
                )
            )
        save_bank(bank, Path(folder), self._bank_key(), overwrite=overwrite)

    def load_prompts(self, folder: str | Path) -> PromptBank[object]:
        """Reads encoded prompts back.

        Raises:
            PromptError: there are none, or they belong to other weights, another precision or package version.
        """
        device = self.backend.device if isinstance(self.backend, TorchBackend) else "cpu"
        return load_bank(folder, self._bank_key(), device)

    def _bank_key(self) -> BankKey:
        from carzero._version import __version__

        return BankKey(self.weights_hash, self.backend.name, self.dtype, __version__)

    def predict(
        self,
        images: ImageSource | Sequence[ImageSource],
        labels: Sequence[str] | None = None,
        *,
        prompts: Mapping[str, Any] | PromptSet | None = None,
        template: str = DEFAULT_TEMPLATE,
        pool: Pool = "mean",
        score_kind: ScoreKind = "logit",
        batch_size: int = 16,
        force: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> pd.DataFrame:
        """Scores images against words.

        Args:
            images: an image or a sequence of them: path, array (height, width), PIL image or `Radiograph`.
            labels: findings; each is put into `template`.
            prompts: instead of labels: `{label: [prompt, ...]}` or a `PromptSet`.
            template: sentence with the field {label}.
            pool: how the logits of a label's prompts become one: their mean, or the largest.
            score_kind: "logit", or "logit_difference": the logit less that of "There is no {label}", or of the
                `negative` sentences of prompts.
            batch_size: images in one pass; changes speed and memory, not scores.
            force: also score readable images that are not chest radiographs.
            on_error: "raise" the first image's error, or "skip" and list failures in `table.attrs["failures"]`.

        Returns:
            one row an image in the order given: `image_id`, `path`, `study_uid`, `series_uid`, `sop_uid`, `view`, a
            column `logit:<label>` per finding, `unfamiliar` where some of the labels are, and `warnings`.
            `table.attrs["prompts"]` holds what is to be known of the prompts, see `PromptReview.to_manifest`.

        Warns:
            PromptWarning: a label is not a finding, is a denial, or is unfamiliar to the weights.

        Raises:
            PromptError: nothing is asked, or words that cannot be asked.
            ImageError: an image is broken or no chest radiograph (with `on_error="raise"`).
            TableError: an image is given twice.
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error must be "raise" or "skip"; got {on_error!r}.')
        asked = PromptSet.from_request(labels, prompts, template, score_kind=score_kind)
        review = self.review_prompts(asked)
        review.warn()
        bank = self.encode_prompts(asked)
        scored: list[ScoredImage] = []
        failures: list[Failure] = []
        for result in self.stream(list_arrays(images), bank, pool=pool, batch_size=batch_size, force=force):
            if isinstance(result, ScoredImage):
                scored.append(result)
            elif on_error == "raise":
                raise result.error
            else:
                failures.append(result.failure)
        table = mark_unfamiliar(to_frame([score_row(image, bank.labels) for image in scored], bank.labels), review.mark)
        table.attrs["prompts"] = review.to_manifest()
        table.attrs["failures"] = [(f.image_id, f.path, f.reason) for f in failures]
        return table

    def ground(
        self,
        image: ImageSource,
        labels: Sequence[str] | None = None,
        *,
        prompts: Mapping[str, Any] | PromptSet | None = None,
        template: str = DEFAULT_TEMPLATE,
        force: bool = False,
    ) -> list[Grounding]:
        """Shows where the model looks for each finding, in the image's own pixels; see `Grounding`.

        What a cell is depends on the weights (`backend.map_kind`): attention says where, not whether, as it sums to the
        same for a finding that is absent; a similarity map is on one scale, and low where the finding is not seen.

        Args:
            image: path, array (height, width), PIL image or `Radiograph`.
            labels: findings, as in `predict`.
            prompts: instead of labels, as in `predict`.
            template: sentence with the field {label}.
            force: also take a readable image that is not a chest radiograph.
        """
        asked = PromptSet.from_request(labels, prompts, template)
        self.review_prompts(asked).warn()
        bank = self.encode_prompts(asked)
        result = next(self.stream(list_arrays([image]), bank, force=force, need_maps=True))
        if isinstance(result, FailedImage):
            raise result.error
        return self.to_groundings(result, bank.labels)

    def to_groundings(self, image: ScoredImage, labels: Sequence[str]) -> list[Grounding]:
        """Carries the maps of an image scored with `need_maps=True` to its own pixels."""
        if image.maps is None or image.radiograph is None:
            raise ValueError("The image was scored without maps; score it with need_maps=True.")
        geometry = self.processor.image_processor.geometry(image.radiograph)
        return [
            Grounding(label, float(logit), geometry.map_to_original(cells), geometry.peak_to_original(cells))
            for label, logit, cells in zip(labels, image.logits, image.maps, strict=True)
        ]

    def stream(
        self,
        items: Iterable[ImageItem],
        bank: PromptBank[object],
        *,
        pool: Pool = "mean",
        batch_size: int = 16,
        force: bool = False,
        need_maps: bool = False,
        readers: Readers | None = None,
        in_order: bool = True,
    ) -> Iterator[ScoredImage | FailedImage]:
        """Scores any number of images in bounded memory.

        Args:
            items: the images.
            bank: prompts from `encode_prompts`.
            pool: how the logits of a label's prompts become one.
            batch_size: images in one pass.
            force: also score readable images that are not chest radiographs.
            need_maps: keep attention maps and grey levels with each result.
            readers: what reads the images; None reads them in threads of its own.
            in_order: True keeps the order given; False does not wait for a slow image, see `load_ahead`.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
        if pool not in ("mean", "max"):
            raise ValueError(f'pool must be "mean" or "max"; got {pool!r}.')
        transform = self.processor.image_processor.pixels
        with Readers() if readers is None else nullcontext(readers) as reading:
            loaded = load_ahead(
                items,
                reading,
                batch_size=batch_size,
                transform=transform,
                force=force,
                keep_pixels=need_maps,
                in_order=in_order,
            )
            while batch := list(itertools.islice(loaded, batch_size)):
                good = [entry for entry in batch if not isinstance(entry, FailedImage)]
                scores = iter(self.score_loaded(good, bank, pool, need_maps)) if good else iter(())
                for entry in batch:
                    yield entry if isinstance(entry, FailedImage) else next(scores)

    def score_loaded(
        self, batch: Sequence[LoadedImage], bank: PromptBank[object], pool: Pool = "mean", need_maps: bool = False
    ) -> Iterator[ScoredImage | FailedImage]:
        """Scores images that are read already, in one pass; see `stream`."""
        pixels = self.processor.image_processor.normalise(np.stack([entry.levels for entry in batch])).contiguous()
        pairs = self.backend.score(pixels, bank, need_maps)
        logits = bank.to_scores(pairs.scores, pool).numpy()
        maps = None if pairs.maps is None else bank.pool(pairs.maps, "mean").numpy()
        kind = self.backend.map_kind
        for index, entry in enumerate(batch):
            if not np.isfinite(logits[index]).all():
                yield _not_finite(entry.item)
                continue
            yield ScoredImage(
                entry.item,
                entry.info,
                logits[index],
                None if maps is None else maps[index],
                entry.radiograph,
                kind,
            )


def _not_finite(item: ImageItem) -> FailedImage:
    error = UnreadableImageError(
        describe(
            f"{item.path or item.image_id} gets a score that is not a number",
            expected="finite logits",
            then="check the weights, or compute in float32",
        )
    )
    return FailedImage(item, error)


def _check_pair(model: CARZeroModel, processor: CARZeroProcessor) -> None:
    """Refuses a processor that is not this model's, because its scores would be others without a word.

    Raises:
        WeightsError: text length, vocabulary or image size differ.
    """
    size = getattr(model.config.vision_config, "image_size", None)
    tokens_only = not is_convolutional(model.config.vision_config)
    pairs = {
        "max_text_length": (processor.max_text_length, model.config.max_text_length),
        "vocabulary": (len(processor.tokenizer), int(model.config.text_config.vocab_size)),
        "crop_px": (processor.image_processor.crop_px, size if tokens_only and isinstance(size, int) else None),
    }
    wrong = {name: pair for name, pair in pairs.items() if pair[1] is not None and pair[0] != pair[1]}
    if wrong:
        raise WeightsError(
            describe(
                "Processor and model do not belong together",
                got={name: {"processor": a, "model": b} for name, (a, b) in wrong.items()},
                expected="equal values",
                then="take the processor that was saved with the weights",
            )
        )
