"""What is said about one image, before it takes any form: findings with score, place and code, and all doubts.

The identifiers of results follow from it: the same image, weights, prompts and settings give the same ones, whenever
and wherever, so that a result that is made twice, after a crash or by a second node, is one instance. Another version,
other weights or another prompt give others.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carzero._version import __version__
from carzero.clinical.codes import Concept, find_concept
from carzero.clinical.image_header import SourceImage
from carzero.core.hashing import hash_texts
from carzero.images import PixelTransform
from carzero.images.overlay import draw_layers, make_thumbnail
from carzero.inference.places import (
    DEMO_DOUBT,
    check_box_share,
    describe_box_rule,
    ground_image,
    mark_place,
    to_corners,
)
from carzero.inference.score_calibration import CALIBRATION, ScoreCalibration
from carzero.metrics.calibration import Calibration
from carzero.prompts import PromptReview, PromptSet
from carzero.records import MapKind, RadiographInfo, ScoredImage, ScoreProvenance, Thumbnail
from carzero.weights.source import WeightsSource, is_demo

if TYPE_CHECKING:
    from PIL import Image

_NAMESPACE = uuid.UUID("5f6a2c1e-6d0b-5c7e-9a53-0c1b6a7d9f42")  # of this package; never to be changed


@dataclass(frozen=True, slots=True)
class ResultUIDs:
    """The identifiers of the results of one image.

    Attributes:
        image: its SOP Instance UID.
        study: its Study Instance UID.
        settings: what decides the results' content beside the image; plain values.
    """

    image: str
    study: str
    settings: Mapping[str, object]

    def instance(self, kind: str, number: int = 1) -> str:
        """SOP Instance UID of a result.

        Args:
            kind: of `carzero.clinical.result_objects.KINDS`.
            number: of the page, from 1.
        """
        return self._make("instance", self.image, kind, number)

    def series(self, kind: str) -> str:
        """Series Instance UID: results of one kind, study and setting share a series."""
        return self._make("series", self.study, kind)

    def finding(self, label: str) -> str:
        """Tracking UID of a finding in this image."""
        return self._make("finding", self.image, label)

    def _make(self, *parts: object) -> str:
        return to_uid([*parts, self.settings])


def device_uid(weights_sha256: str) -> str:
    """Device UID of the algorithm: another one for other weights, as IHE AI Results asks after each retraining."""
    return to_uid(["device", weights_sha256])


def to_uid(content: object) -> str:
    """A UID for plain values: "2.25." and a UUID of version 5 as a number (PS3.5 section B.2)."""
    name = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


NAME = "CARZero"
RESEARCH_USE = "Research use, not a diagnosis."
THUMBNAIL_PX = 420  # longer side of the image on pages


@dataclass(frozen=True, slots=True)
class ResultSettings:
    """What decides the content of results, beside the image.

    Attributes:
        provenance: of the scores.
        pixels: what is done to images before the model sees them.
        prompts: what was asked.
        box_share: the box's threshold as a share of the map's range.
        calibration: turns scores into probabilities; None gives none.
        review: what is to be known of the prompts; None where that is not known.
        doubts: about prompts, calibration and weights, each a sentence; they stand in every result.
        score_calibration: the calibration, compared with the scores.

    Raises:
        ConfigurationError: the share is none, or the calibration was fitted on other scores.
        TableError: the calibration has none of the labels.
    """

    provenance: ScoreProvenance
    pixels: PixelTransform
    prompts: PromptSet
    box_share: float = 0.5
    calibration: Calibration | None = None
    review: PromptReview | None = None
    doubts: tuple[str, ...] = field(init=False, default=())
    score_calibration: ScoreCalibration | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_box_share(self.box_share)
        if self.calibration is not None:
            own = ScoreCalibration.check(self.calibration, self.provenance)
            object.__setattr__(self, "score_calibration", own)
        object.__setattr__(self, "doubts", tuple(self._list_doubts()))

    @property
    def _said(self) -> list[str]:
        """Doubts about the prompts."""
        return [] if self.review is None else self.review.lines

    def _list_doubts(self) -> Iterator[str]:
        yield from self._said
        if self.score_calibration is not None:
            yield from self.score_calibration.doubts
        if self.is_demo:
            yield DEMO_DOUBT

    @property
    def is_demo(self) -> bool:
        """Whether the scores are of the demo weights."""
        return is_demo(self.provenance.weights_sha256 or "")

    @property
    def unfamiliar(self) -> tuple[str, ...]:
        """Labels that no sentence speaks of which the weights were trained on."""
        return () if self.review is None else self.review.unfamiliar or ()

    @classmethod
    def of(
        cls,
        weights: WeightsSource,
        provenance: ScoreProvenance,
        prompts: PromptSet,
        *,
        box_share: float = 0.5,
        calibration: Calibration | None = None,
    ) -> ResultSettings:
        """The settings of results of one set of weights; see the attributes."""
        return cls(provenance, weights.pixels, prompts, box_share, calibration, weights.review(prompts))

    @property
    def parameters(self) -> dict[str, object]:
        """All that decides the content, as plain values."""
        return {
            "carzero_version": __version__,
            **self.provenance.settings,
            "box_share": self.box_share,
            CALIBRATION: None if self.score_calibration is None else self.score_calibration.sha256,
            # Of the prompts alone: all other doubts follow from what stands above.
            **({"review_sha256": hash_texts(self._said)} if self._said else {}),
        }

    def to_manifest(self) -> dict[str, object]:
        """What a manifest says of prompts and probabilities."""
        told: dict[str, object] = {} if self.review is None else {**self.review.to_manifest()}
        return told if self.score_calibration is None else {**told, "calibration": self.score_calibration.to_manifest()}

    @property
    def device_uid(self) -> str:
        """Of the algorithm with these weights."""
        return device_uid(self.provenance.weights_sha256 or "")

    def uids(self, source: SourceImage) -> ResultUIDs:
        """The identifiers of the results of an image."""
        return ResultUIDs(source.uid, source.study_uid, self.parameters)


@dataclass(frozen=True, slots=True, eq=False)
class FindingResult:
    """What is said of one finding.

    Attributes:
        label: the finding.
        concept: its code.
        prompts: the sentences that asked for it.
        logit: raw score.
        probability: calibrated, or None.
        box: xyxy in the image's pixels around the peak's region, or None for an even map.
        overlay: the map drawn over the image, where pages are wanted.
        region: (H, W) mask of the peak's region, where segments are wanted.
        unfamiliar: whether no sentence speaks of it that the weights were trained on.
    """

    label: str
    concept: Concept
    prompts: tuple[str, ...]
    logit: float
    probability: float | None
    box: tuple[float, float, float, float] | None
    overlay: Image.Image | None = None
    region: NDArray[np.bool_] | None = None
    unfamiliar: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ResultContent:
    """All that the results of one image say.

    Attributes:
        source: the image.
        info: what its file said.
        thumbnail: the image as pages show it, where they are wanted.
        settings: what decided the content.
        findings: in the order asked.
        doubts: about the image and the weights, each a sentence.
        when: when the content was made; local time, or that of the image's own time zone.
        map_kind: what the cells of the maps are.
    """

    source: SourceImage
    info: RadiographInfo
    thumbnail: Thumbnail | None
    settings: ResultSettings
    findings: tuple[FindingResult, ...]
    doubts: tuple[str, ...]
    when: datetime.datetime
    map_kind: MapKind
    uids: ResultUIDs = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uids", self.settings.uids(self.source))


def collect_content(
    image: ScoredImage,
    source: SourceImage,
    settings: ResultSettings,
    *,
    overlays: bool,
    regions: bool,
    when: datetime.datetime | None = None,
) -> ResultContent:
    """Puts together what is said about an image.

    Args:
        image: scored with `need_maps=True`.
        source: its header.
        settings: what decides the content.
        overlays: draw the maps.
        regions: keep the regions.
        when: when the content is made; None is now.
    """
    thumbnail = _find_thumbnail(image) if overlays else None
    kind = image.map_kind
    findings: list[FindingResult] = []
    labels, known = settings.prompts.labels, settings.score_calibration
    for row, placed in ground_image(image, labels, settings.pixels, settings.box_share, known):
        label, box, chance = row["label"], row["box"], row.get("probability")
        title = f"{len(findings) + 1}. {label}"
        subtitle = f"logit {row['logit']:.3f}" + ("" if chance is None else f", probability {chance:.3f}")
        strange = label in settings.unfamiliar
        subtitle += "; unfamiliar" if strange else ""
        # What names the image may name the patient: pages do not.
        marks = mark_place(row, title, subtitle, image="", is_demo=settings.is_demo)
        findings.append(
            FindingResult(
                label,
                find_concept(label, settings.prompts.entry(label)),
                settings.prompts.prompts[label],
                row["logit"],
                chance,
                None if box is None else to_corners(box),
                None if thumbnail is None else draw_layers(placed.to_layers(thumbnail, kind), marks, kind=kind),
                placed.mark_region(settings.box_share, kind.scale) if regions else None,
                strange,
            )
        )
    doubts = (*image.info.warnings, *_doubt_range(settings, findings), *settings.doubts)
    moment = to_local(when, source)
    return ResultContent(source, image.info, thumbnail, settings, tuple(findings), doubts, moment, kind)


def _doubt_range(settings: ResultSettings, findings: Sequence[FindingResult]) -> list[str]:
    """Which scores lie beyond those that the calibration was fitted on."""
    known = settings.score_calibration
    return [] if known is None else known.describe_range({each.label: [each.logit] for each in findings})


def to_local(when: datetime.datetime | None, source: SourceImage) -> datetime.datetime:
    """A time in the image's own time zone, which its results state; the machine's own where it has none."""
    moment = when or datetime.datetime.now(datetime.UTC)
    offset = str(source.header.get("TimezoneOffsetFromUTC") or "")
    try:
        zone = datetime.datetime.strptime(offset, "%z").tzinfo if offset else None
    except ValueError:
        zone = None
    return moment.astimezone(zone)


def _find_thumbnail(image: ScoredImage) -> Thumbnail:
    if image.thumbnail is not None:
        return image.thumbnail
    if image.radiograph is None:
        raise ValueError("The image was scored without maps; score it with need_maps=True.")
    return make_thumbnail(image.radiograph.pixels, THUMBNAIL_PX)


def describe_provenance(content: ResultContent) -> Mapping[str, str]:
    """Where scores and boxes come from, as short texts by name, for a report and a page."""
    settings = content.settings
    provenance = settings.provenance
    told = {
        "weights": provenance.weights,
        "weights_sha256": provenance.weights_sha256,
        "preprocessing": provenance.preprocessing,
        "prompts_sha256": provenance.prompts_sha256,
        "score_kind": provenance.score_kind,
        "dtype": provenance.dtype,
        "pool": provenance.pool,
        "box_rule": describe_box_rule(settings.box_share, content.map_kind),
    }
    if settings.score_calibration is not None:
        told["calibration"] = settings.score_calibration.calibration.describe()
        told |= settings.score_calibration.record
    return {name: value if isinstance(value, str) else repr(value) for name, value in told.items() if value is not None}
