"""The values that packages pass to each other.

Nothing here computes: these are records with names, shapes and units, so that a layer reads without the one below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image
    from pydicom.dataset import Dataset

# How the prompts of a label become one: mean or largest of their logits; or "text", one vector, the mean of theirs.
Pool = Literal["mean", "max", "text"]

POOLS: tuple[Pool, ...] = ("mean", "max", "text")

# What the score of a label is: the logit of its prompts; or that logit less the one of the prompts that deny it, whose
# sigmoid is the softmax over the pair (of an ensemble: their mean). See carzero.inference.score_kinds.
ScoreKind = Literal["logit", "logit_difference"]

SCORE_KINDS: tuple[ScoreKind, ...] = ("logit", "logit_difference")


@dataclass(frozen=True, slots=True)
class MapKind:
    """What the cells of a model's maps are, and how they may be drawn.

    Attributes:
        name: in one word, for files.
        description: in a clause, for manifests and pages: what a cell is, and whether it says where only or also
            whether.
        scale: (low, high) of the cells over which every map is drawn and cut into boxes, whatever its own range, so
            that maps of different findings and images compare and a finding that is absent stays pale; None: each map
            has its own range.
        scale_text: what the ends of `scale` are, for the legend.
        is_share: whether the cells share out one whole, so that a cell means something beside the mean cell only.
    """

    name: str
    description: str
    scale: tuple[float, float] | None = None
    scale_text: str = ""
    is_share: bool = False


UNSTATED = MapKind("unstated", "not stated by the weights; they say where, not whether")
PATCH_COSINE = MapKind(
    "patch_cosine",
    "cosine of the finding's text with each patch, an approximation: the model was trained on whole images, never on "
    "patches, so its patches need not say where a finding is",
)


CELL_COSINE = MapKind(
    "cell_cosine",
    "cosine of the finding's text with each cell of the image, which the model was trained to compare; a low map says "
    "that nothing in the image is like the text",
)


ATTENTION = MapKind(
    "attention",
    "attention of the finding's text on the image's patches, mean over heads and layers; it says where, not whether, "
    "and peaks somewhere for an absent finding too",
    is_share=True,
)


@dataclass(frozen=True, slots=True, eq=False)
class RadiographInfo:
    """What a file says about its radiograph, and what was found odd about it.

    Attributes:
        source: path or name the image came from; empty for an array.
        encoding: how the file held the pixels, for example "PNG 16-bit" or "DICOM JPEG 2000 12-bit".
        view: "PA", "AP", "LATERAL" or "" where the file does not say.
        study_uid: DICOM Study Instance UID, or "".
        series_uid: DICOM Series Instance UID, or "".
        sop_uid: DICOM SOP Instance UID, or "".
        warnings: doubts about the image, each a full sentence; empty for a plain chest radiograph.
    """

    source: str = ""
    encoding: str = ""
    view: str = ""
    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Pixels:
    """A base of its own, so that `pixels` is the first field of a `Radiograph`."""

    __slots__ = ()
    pixels: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Radiograph(RadiographInfo, _Pixels):
    """One radiograph as grey levels, and what its file said about itself; see `RadiographInfo` for the other fields.

    Attributes:
        pixels: (height, width) float32 in [0, 255]; larger is brighter (denser tissue), whatever the file's convention.
    """


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """A radiograph made small, for pages that show it beside its scores.

    Attributes:
        pixels: (h, w) float32 grey levels in [0, 255], as of `Radiograph`.
        size: (height, width) of the radiograph itself, in px.
    """

    pixels: NDArray[np.float32]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ScoreProvenance:
    """Where scores and heatmaps come from, as the manifest of their run states it; None where it does not say.

    Attributes:
        weights: their name.
        weights_sha256: hash of their files.
        preprocessing: of images and texts: the fields of `PixelTransform`, and `max_text_length`.
        prompts_sha256: hash of labels and prompts.
        prompts: the prompts of each label.
        negative_prompts: those that deny it, where they enter the score.
        score_kind: what the score of a label is; None where the manifest does not say, or says something else.
        dtype: precision of the computation.
        pool: how the logits of a label's prompts become one.
        force: whether images that are not chest radiographs were scored.
    """

    weights: str | None = None
    weights_sha256: str | None = None
    preprocessing: Mapping[str, object] | None = None
    prompts_sha256: str | None = None
    prompts: Mapping[str, Sequence[str]] | None = None
    negative_prompts: Mapping[str, Sequence[str]] | None = None
    score_kind: ScoreKind | None = None
    dtype: str | None = None
    pool: str | None = None
    force: bool | None = None

    @classmethod
    def of(cls, manifest: Mapping[str, object]) -> ScoreProvenance:
        """What a manifest says; a value of another type than ours counts as not said."""
        prompts, negative = manifest.get("prompts"), manifest.get("negative_prompts")
        preprocessing = manifest.get("preprocessing")
        force = manifest.get("force")
        return cls(
            weights=_text(manifest.get("weights")),
            weights_sha256=_text(manifest.get("weights_sha256")),
            preprocessing=preprocessing if isinstance(preprocessing, Mapping) else None,
            prompts_sha256=_text(manifest.get("prompts_sha256")),
            prompts=prompts if isinstance(prompts, Mapping) else None,
            negative_prompts=negative if isinstance(negative, Mapping) else None,
            score_kind=to_score_kind(manifest),
            dtype=_text(manifest.get("dtype")),
            pool=_text(manifest.get("pool")),
            force=force if isinstance(force, bool) else None,
        )

    @property
    def settings(self) -> dict[str, object]:
        """What scores depend on, beside images and version: all but the weights' name and the prompts' texts."""
        # Plain logits are not named, so that runs which are older than the other kind can be resumed.
        kind = () if self.score_kind in (None, "logit") else ("score_kind",)
        return self.to_dict("weights_sha256", "preprocessing", "prompts_sha256", "dtype", "pool", "force", *kind)

    def to_dict(self, *names: str) -> dict[str, object]:
        """Fields by name, for a manifest."""
        return {name: getattr(self, name) for name in names}


def to_score_kind(manifest: Mapping[str, object]) -> ScoreKind | None:
    """The kind of scores that a manifest states; None where it states none that is known."""
    return next((kind for kind in SCORE_KINDS if kind == manifest.get("score_kind")), None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


# Grey levels in [0, 255] as a model sees them: whole, or of an image deeper than 8 bit.
Levels: TypeAlias = "NDArray[np.uint8] | NDArray[np.float32]"

# An image in any form that a user may hold it in; a string is a path.
ImageSource: TypeAlias = "str | Path | bytes | BinaryIO | Dataset | NDArray[np.generic] | Image.Image | Radiograph"


def to_info(radiograph: Radiograph) -> RadiographInfo:
    """What is known about a radiograph, without its pixels."""
    return RadiographInfo(*(getattr(radiograph, name) for name in RadiographInfo.__slots__))


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One image to score: its key, where it came from (empty for an array), and what to read."""

    image_id: str
    path: str
    image: ImageSource


@dataclass(frozen=True, slots=True, eq=False)
class LoadedImage:
    """An image that has been read down to the model's square.

    Attributes:
        item: what was read.
        info: what its file said.
        levels: (crop_px, crop_px) the grey levels in the model's crop, 0 in the padding; see `PixelTransform.apply`.
        radiograph: the image at full size, where it was asked for, or None.
        thumbnail: the image made small, where its readers were to keep that instead, or None.
        size: (height, width) of the image in px.
    """

    item: ImageItem
    info: RadiographInfo
    levels: Levels
    radiograph: Radiograph | None = None
    thumbnail: Thumbnail | None = None
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class ScoredImage:
    """One image and its scores.

    Attributes:
        item: what was scored.
        info: what its file said.
        logits: (labels,) float32 raw logits.
        maps: (labels, h, w) float32 cells of the model's grid, see `MapKind`; or None.
        radiograph: the image at full size, where maps were asked for, or None.
        map_kind: what the cells of the maps are.
        thumbnail: the image made small, where readers kept that in place of the radiograph, or None.
    """

    item: ImageItem
    info: RadiographInfo
    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None = None
    radiograph: Radiograph | None = None
    map_kind: MapKind = ATTENTION
    thumbnail: Thumbnail | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the image in px, where maps were asked for, or None."""
        if self.thumbnail is not None:
            return self.thumbnail.size
        if self.radiograph is None:
            return None
        height, width = self.radiograph.pixels.shape
        return height, width


@dataclass(frozen=True, slots=True)
class Failure:
    """One image that could not be scored, and why."""

    image_id: str
    path: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """Plain values, ready for JSON."""
        return {"image_id": self.image_id, "path": self.path, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image that could not be read or scored; `error` is what `predict` raises."""

    item: ImageItem
    error: Exception

    @property
    def failure(self) -> Failure:
        """What a record keeps of it."""
        return Failure(self.item.image_id, self.item.path, str(self.error))
