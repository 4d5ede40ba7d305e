"""Prediction: images and words in, named scores and maps out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from carzero.core.lookahead import watch
from carzero.images.listing import list_arrays
from carzero.images.loading import Readers, load_ahead
from carzero.inference.backends import Backend, TorchBackend, Trial, load_backend, require_maps, require_torch
from carzero.inference.bank_record import BankKey
from carzero.inference.groundings import Grounding, to_groundings
from carzero.inference.places import DEMO_CAUTION
from carzero.inference.prompt_bank import PromptBank, load_bank, save_bank
from carzero.inference.score_calibration import ScoreCalibration, find_calibration, find_origin
from carzero.inference.score_table import mark_unfamiliar, not_finite, score_row, to_frame
from carzero.model import CARZeroModel
from carzero.model.scoring_model import ScoringModel
from carzero.processing import CARZeroProcessor
from carzero.prompts import PromptReview, PromptSet
from carzero.prompts.review import review_prompts
from carzero.prompts.style import CARZERO_STYLE, PromptStyle
from carzero.records import (
    POOLS,
    UNSTATED,
    FailedImage,
    Failure,
    ImageItem,
    ImageSource,
    LoadedImage,
    MapKind,
    Pool,
    ScoredImage,
    ScoreKind,
)
from carzero.weights.families.carzero import check_pair, require_carzero
from carzero.weights.source import DEMO, WeightsSource, to_source

if TYPE_CHECKING:
    import pandas as pd

    from carzero.inference.score_calibration import GivenCalibration


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
        style: how they want to be asked.

    Example:
        >>> classifier = ZeroShotClassifier.from_pretrained("demo")
        >>> table = classifier.predict(["chest.dcm"], labels=["pneumonia", "pleural effusion"])
    """

    def __init__(
        self,
        model: ScoringModel | Backend,
        processor: CARZeroProcessor,
        *,
        device: str | torch.device | None = None,
        weights_id: str = "",
        style: PromptStyle = CARZERO_STYLE,
    ) -> None:
        if isinstance(model, ScoringModel):
            model = TorchBackend(model, device=device)
        if isinstance(model, TorchBackend) and isinstance(model.model, CARZeroModel):
            check_pair(model.model, processor)
        self.backend: Backend = model
        self.processor = processor
        self.weights_id = weights_id
        self.style = style
        self._source: WeightsSource | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.weights_id or 'in memory'!r}, {self.backend.name}, {self.dtype})"

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
        classifier = cls(backend, source.load_processor(), weights_id=source.name, style=source.style)
        classifier._source = source
        return classifier

    @property
    def model(self) -> CARZeroModel:
        """The torch model of CARZero.

        Raises:
            WeightsError: the weights are computed by another backend, or are another family's.
        """
        return require_carzero(require_torch(self.backend).model)

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

    @property
    def map_kind(self) -> MapKind:
        """What the maps are; raises WeightsError where the model has none."""
        return require_maps(self.backend, self.weights_id)

    def encode_prompts(self, prompt_set: PromptSet) -> PromptBank[object]:
        """Encodes prompts, once for all images; `style.ask` makes a set as the weights want to be asked.

        Raises:
            PromptError: a prompt is longer than the model reads.
        """
        asked = self.style.check(prompt_set)
        with self._trial.blaming_weights():
            return self.backend.encode_prompts(self.processor, asked)

    @property
    def _trial(self) -> Trial:
        return Trial(self.backend, self.processor, self.style, self.weights_id)

    def save_prompts(self, bank: PromptBank[object], folder: str | Path, *, overwrite: bool = False) -> None:
        """Keeps encoded prompts in a folder, for runs with the same weights and precision.

        Raises:
            OutputError: the folder holds a bank already, or cannot be written.
            PromptError: the weights were made in memory or exported.
        """
        self._trial.check()
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
        template: str | None = None,
        pool: Pool | None = None,
        score_kind: ScoreKind | None = None,
        batch_size: int = 16,
        force: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
        progress: bool | None = None,
        calibration: GivenCalibration = None,
    ) -> pd.DataFrame:
        """Scores images against words.

        Args:
            images: an image or a sequence of them: path, folder, bytes, open file, pydicom data set, array (height,
                width), PIL image or `Radiograph`.
            labels: findings; each is put into `template`.
            prompts: instead of labels: `{label: [prompt, ...]}` or a `PromptSet`.
            template: sentence with the field {label}; None is the weights' own, "There is {label}" for CARZero's.
            pool: how the prompts of a label become one: the mean or the largest of their logits, or "text", one text
                vector; None is the weights' own, the mean for CARZero's.
            score_kind: "logit", or "logit_difference": the logit less that of "There is no {label}", or of the
                `negative` sentences of prompts; None is the weights' own, or that of a `PromptSet` of differences.
            batch_size: images in one pass; changes speed and memory, not scores.
            force: also score readable images that are not chest radiographs.
            on_error: "raise" the first image's error, or "skip" and list failures in `table.attrs["failures"]`.
            progress: show a bar; None: in a notebook and on a terminal.
            calibration: of these scores, or its file (of `carzero calibrate fit`, or `own_calibration`): adds
                probabilities.

        Returns:
            one row per image in the order given: `image_id`, `path`, `study_uid`, `series_uid`, `sop_uid`, `view`, a
            column `logit:<label>` per finding, `prob:<label>` where it is calibrated, `unfamiliar` where some
            labels are, and `warnings`.
            `table.attrs["prompts"]` holds what is to be known of the prompts, see `PromptReview.to_manifest`, and
            `table.attrs["calibration"]` where the probabilities are from.

        Warns:
            PromptWarning: a label is not a finding, is a denial, or is unfamiliar to the weights.
            CalibrationWarning: what speaks against the probabilities.

        Raises:
            PromptError: nothing is asked, or words that cannot be asked.
            ImageError: an image is broken or no chest radiograph (with `on_error="raise"`).
            ConfigurationError: a calibration of other scores.
            TableError: an image is given twice, or the calibration has none of the labels.
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error must be "raise" or "skip"; got {on_error!r}.')
        asked = self.style.ask(labels, prompts, template, score_kind)
        review, known = self.review_prompts(asked), self._calibrate(calibration, asked, pool)
        review.warn()
        bank = self.encode_prompts(asked)
        scored: list[ScoredImage] = []
        failures: list[Failure] = []
        items = list_arrays(images)
        results = self.stream(items, bank, pool=pool, batch_size=batch_size, force=force)
        for result in watch(results, len(items), progress):
            if isinstance(result, ScoredImage):
                scored.append(result)
            elif on_error == "raise":
                raise result.error
            else:
                failures.append(result.failure)
        table = mark_unfamiliar(to_frame([score_row(image, bank.labels) for image in scored], bank.labels), review.mark)
        if known is not None:
            known.warn({label: table[f"logit:{label}"] for label in bank.labels}, known.add_to(table))
            table.attrs["calibration"] = known.to_manifest()
        table.attrs["prompts"] = review.to_manifest()
        table.attrs["failures"] = [(f.image_id, f.path, f.reason) for f in failures]
        return table

    def ground(
        self,
        image: ImageSource,
        labels: Sequence[str] | None = None,
        *,
        prompts: Mapping[str, Any] | PromptSet | None = None,
        template: str | None = None,
        score_kind: ScoreKind | None = None,
        force: bool = False,
        calibration: GivenCalibration = None,
    ) -> list[Grounding]:
        """Shows where the model looks for each finding, in the image's own pixels; see `Grounding`.

        What a cell is depends on the weights (`map_kind`): attention says where, not whether, as it sums to the same
        for a finding that is absent; a similarity map is on one scale, and low where the finding is not seen.

        Args:
            image: one, as in `predict`.
            labels: findings, as in `predict`.
            prompts: instead of labels, as in `predict`.
            template: sentence with the field {label}, as in `predict`.
            score_kind: of the score beside a map, as in `predict`; the map is that of the affirming prompts.
            force: also take a readable image that is not a chest radiograph.
            calibration: as in `predict`; maps are drawn as strongly as its probabilities are high, so that a finding
                which is absent does not glow.
        """
        asked = self.style.ask(labels, prompts, template, score_kind)
        known = self._calibrate(calibration, asked, None)
        self.review_prompts(asked).warn()
        bank = self.encode_prompts(asked)
        result = next(self.stream(list_arrays([image]), bank, force=force, need_maps=True))
        if isinstance(result, FailedImage):
            raise result.error
        if known is not None:
            known.warn({label: [logit] for label, logit in zip(bank.labels, result.logits.tolist(), strict=True)})
        return self.to_groundings(result, bank.labels, known)

    @property
    def own_calibration(self) -> Path:
        """The calibration that comes with the weights; ConfigurationError where there is none."""
        return find_calibration(self._find_source())

    def _calibrate(self, given: GivenCalibration, asked: PromptSet, pool: Pool | None) -> ScoreCalibration | None:
        return None if given is None else ScoreCalibration.check(given, find_origin(self._find_source(), asked, pool))

    def to_groundings(
        self, image: ScoredImage, labels: Sequence[str], calibration: ScoreCalibration | None = None
    ) -> list[Grounding]:
        """Carries the maps of an image scored with `need_maps=True` to its own pixels; see `ground`."""
        doubt = DEMO_CAUTION if (source := self._find_source()) is not None and source.is_demo else ""
        return list(to_groundings(image, labels, self.processor.image_processor.pixels, doubt, calibration))

    def stream(
        self,
        items: Iterable[ImageItem],
        bank: PromptBank[object],
        *,
        pool: Pool | None = None,
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
            pool: how the prompts of a label become one, as in `predict`.
            batch_size: images in one pass.
            force: also score readable images that are not chest radiographs.
            need_maps: keep attention maps and grey levels with each result.
            readers: what reads the images; None reads them in threads of its own.
            in_order: True keeps the order given; False does not wait for a slow image, see `load_ahead`.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
        chosen = pool or self.style.pool
        if chosen not in POOLS:
            raise ValueError(f"pool must be one of {', '.join(POOLS)}; got {chosen!r}.")
        if need_maps:
            _ = self.map_kind  # a model without maps is refused before any image is read
        if chosen == "text":
            self.backend.merge_prompts(bank)  # refused before any image is read
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
                scores = iter(self.score_loaded(good, bank, chosen, need_maps)) if good else iter(())
                for entry in batch:
                    yield entry if isinstance(entry, FailedImage) else next(scores)

    def score_loaded(
        self, batch: Sequence[LoadedImage], bank: PromptBank[object], pool: Pool = "mean", need_maps: bool = False
    ) -> Iterator[ScoredImage | FailedImage]:
        """Scores images that are read already, in one pass; see `stream`."""
        pixels = self.processor.image_processor.normalise(np.stack([entry.levels for entry in batch])).contiguous()
        if pool == "text":
            bank = self.backend.merge_prompts(bank)
        with self._trial.blaming_weights():
            pairs = self.backend.score(pixels, bank, need_maps)
        logits = bank.to_scores(pairs.scores, pool).numpy()
        maps = None if pairs.maps is None else bank.pool(pairs.maps, "mean").numpy()
        kind = self.backend.map_kind or UNSTATED
        for index, entry in enumerate(batch):
            own = None if maps is None else maps[index]
            if not np.isfinite(logits[index]).all() or (own is not None and not np.isfinite(own).all()):
                self._trial.check()
                yield not_finite(entry.item)
                continue
            yield ScoredImage(entry.item, entry.info, logits[index], own, entry.radiograph, kind, entry.thumbnail)
