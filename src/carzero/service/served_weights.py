"""Weights that are served: what they are called and say of themselves, and the prompts that they keep encoded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carzero.core.run_record import RunRecord
from carzero.errors import ConfigurationError
from carzero.inference.score_calibration import check_origin, describe_calibration
from carzero.inference.scoring import ScoringSettings, build_manifest
from carzero.metrics.calibration import Calibration
from carzero.prompts import PromptReview, PromptSet
from carzero.records import FailedImage, LoadedImage, MapKind, Pool, ScoredImage, ScoreKind, ScoreProvenance
from carzero.service.problems import ProblemError
from carzero.service.schemas import Model, ModelStyle
from carzero.weights.families import CARZERO, FAMILIES
from carzero.weights.source import WeightsSource

if TYPE_CHECKING:
    from carzero.inference.backends import Backend
    from carzero.inference.classifier import ZeroShotClassifier
    from carzero.inference.prompt_bank import PromptBank

RESEARCH_USE = "Research use, not a diagnosis."
_KEPT_PROMPTS = 512  # encoded, in all sets that are kept
_KEPT_REVIEWS = 64
MOST_IMAGES = 16  # in one pass, where nothing else is asked for


@dataclass(slots=True)
class ServedWeights:
    """A set of weights.

    Attributes:
        name: that callers use.
        source: where they are.
        calibration: turns scores into probabilities; None gives none.
        device: where to compute; None takes a GPU if there is one.
        dtype: precision to compute in; None is float32.
        batch_size: images in one pass, see `ServiceSettings`.
    """

    name: str
    source: WeightsSource
    calibration: Calibration | None
    device: str | None
    dtype: str | None
    batch_size: int | None = None
    _classifier: ZeroShotClassifier | None = field(default=None, init=False)
    _about: Model | None = field(default=None, init=False)
    _banks: OrderedDict[str, PromptBank[object]] = field(default_factory=OrderedDict, init=False)
    _reviews: dict[str, PromptReview] = field(default_factory=dict, init=False)
    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)

    def load(self) -> None:
        """Loads the model, and checks that the calibration is its own.

        Raises:
            WeightsError: the weights do not fit.
            ConfigurationError: a device or precision that is not available, or a calibration of other scores.
        """
        from carzero.inference.classifier import ZeroShotClassifier

        classifier = ZeroShotClassifier.from_pretrained(self.source, device=self.device, dtype=self.dtype)
        calibration = self.calibration
        if calibration is not None:
            own = ScoreProvenance.of(calibration.provenance)
            provenance = replace(self._provenance(_SOME_PROMPTS, None, force=False), prompts=None, pool=own.pool)
            check_origin(calibration, provenance, calibration.score_kind, [])
        self._about = self._build_about(classifier.backend)
        self._classifier = classifier

    def _build_about(self, backend: Backend) -> Model:
        source, kind, style = self.source, backend.map_kind, self.source.style
        is_own = source.kind == "torch" and source.family is FAMILIES[CARZERO]
        return Model(
            name=self.name,
            title="Demo weights of CARZero" if source.is_demo else source.short_name,
            family=source.family.title,
            engine=backend.name,
            alignment=source.config.alignment if is_own else None,
            style=ModelStyle(
                template=style.template,
                negative=style.negative,
                pool=style.pool,
                score_kind=style.score_kind,
                linted=style.is_linted,
            ),
            map_kind=None if kind is None else kind.description,
            map_scale=None if kind is None else kind.scale,
            calibrated=self.calibration is not None,
            demo=source.is_demo,
            weights_sha256=source.sha256,
            image_size=source.pixels.model_px,
            research_use=RESEARCH_USE,
        )

    @property
    def classifier(self) -> ZeroShotClassifier:
        """The door to prediction.

        Raises:
            ProblemError: the weights are not loaded yet.
        """
        if self._classifier is None:
            raise not_ready()
        return self._classifier

    def describe(self) -> Model:
        """What they are; raises as `classifier`."""
        if self._about is None:
            raise not_ready()
        return self._about

    @property
    def map_kind(self) -> MapKind:
        """What its maps are; raises as `classifier`.

        Raises:
            ProblemError: the model has none.
        """
        found = self.classifier.backend.map_kind
        if found is None:
            raise ProblemError("no-maps", f"{self.name} has no maps: it scores images, and does not say where.")
        return found

    def score(
        self, images: Sequence[LoadedImage], prompts: PromptSet, pool: Pool, need_maps: bool
    ) -> Iterator[ScoredImage | FailedImage]:
        """Scores images that are read, in passes of `batch_size`; for the one thread that scores.

        Raises:
            PromptError: a prompt is longer than the model reads.
        """
        classifier, bank = self.classifier, self._encode(prompts)
        size = self.batch_size or (1 if _is_on_cpu(classifier.backend) else MOST_IMAGES)
        for start in range(0, len(images), size):
            yield from classifier.score_loaded(images[start : start + size], bank, pool, need_maps)

    def _encode(self, prompt_set: PromptSet) -> PromptBank[object]:
        """Encodes prompts, or takes them from those kept."""
        bank = self._banks.pop(prompt_set.hash, None) or self.classifier.encode_prompts(prompt_set)
        self._banks[prompt_set.hash] = bank
        while len(self._banks) > 1 and sum(len(each.owner) for each in self._banks.values()) > _KEPT_PROMPTS:
            self._banks.popitem(last=False)
        return bank

    def review(self, prompt_set: PromptSet) -> PromptReview:
        """What is to be known of prompts before their scores are trusted; kept, as the same are asked again."""
        with self._guard:
            review = self._reviews.get(prompt_set.hash)
        if review is None:
            review = self.source.review(prompt_set)
            with self._guard:
                self._reviews[prompt_set.hash] = review
                if len(self._reviews) > _KEPT_REVIEWS:
                    self._reviews.pop(next(iter(self._reviews)))
        return review

    def _provenance(self, prompt_set: PromptSet, pool: Pool | None, *, force: bool) -> ScoreProvenance:
        settings = ScoringSettings(self.source, prompt_set, pool, force, device=self.device, dtype=self.dtype)
        return replace(settings.provenance(None), weights=self.name)  # the place of a folder is nobody's business

    def build_manifest(
        self, prompt_set: PromptSet, pool: Pool, *, force: bool, review: PromptReview, **results: object
    ) -> dict[str, object]:
        """The manifest that `carzero predict` writes beside the same scores."""
        provenance = self._provenance(prompt_set, pool, force=force)
        record = RunRecord(provenance.settings)
        fitting = self._list_calibrated(prompt_set, provenance)
        about = {"calibration": describe_calibration(self.calibration, None, fitting)} if self.calibration else {}
        return build_manifest(record, provenance, **results, **review.to_manifest(), **about)

    def calibrate(self, logits: NDArray[np.float32], prompt_set: PromptSet, pool: Pool) -> list[float | None]:
        """Probabilities of an image's scores (labels,); None where the calibration was not fitted on such scores."""
        calibration = self.calibration
        if calibration is None:
            return [None] * len(logits)
        fitting = self._list_calibrated(prompt_set, self._provenance(prompt_set, pool, force=False))
        values = calibration.apply(logits[None], prompt_set.labels)[0]
        return [
            float(value) if label in fitting else None for label, value in zip(prompt_set.labels, values, strict=True)
        ]

    def _list_calibrated(self, prompt_set: PromptSet, provenance: ScoreProvenance) -> list[str]:
        """Labels that have a probability: the calibration was fitted on such scores of theirs."""
        known = self.calibration
        labels = [] if known is None else [label for label in prompt_set.labels if label in known.labels]
        return [label for label in labels if known and _fits(known, provenance, prompt_set.score_kind, label)]


def _is_on_cpu(backend: Backend) -> bool:
    device: object = getattr(backend, "device", None)  # engines without one compute on the CPU
    return getattr(device, "type", "cpu") == "cpu"


_SOME_PROMPTS = PromptSet.from_labels(["finding"])


def not_ready() -> ProblemError:
    """What is raised while weights are being loaded."""
    return ProblemError("not-ready", "The weights are not loaded yet.", {"Retry-After": "2"})


def _fits(calibration: Calibration, provenance: ScoreProvenance, score_kind: ScoreKind, label: str) -> bool:
    try:
        check_origin(calibration, provenance, score_kind, [label])
    except ConfigurationError:
        return False
    return True
