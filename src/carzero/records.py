"""The values that cross the borders between layers.

Nothing here computes: these are records with names, shapes and units, so that a layer reads without the one below.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Pool = Literal["mean", "max"]  # how the logits of a label's prompts become one

POOLS: tuple[Pool, ...] = ("mean", "max")


@dataclass(frozen=True, slots=True, eq=False)
class Radiograph:
    """One radiograph as grey levels, and what its file said about itself.

    Attributes:
        pixels: (height, width) float32 in [0, 255]; larger is brighter (denser tissue), whatever the file's convention.
        source: path or name the picture came from; empty for an array.
        encoding: how the file held the pixels, for example "PNG 16-bit" or "DICOM JPEG 2000 12-bit".
        view: "PA", "AP", "LATERAL" or "" where the file does not say.
        study_uid: DICOM Study Instance UID, or "".
        series_uid: DICOM Series Instance UID, or "".
        sop_uid: DICOM SOP Instance UID, or "".
        warnings: doubts about the picture, each a full sentence; empty for a plain chest radiograph.
    """

    pixels: NDArray[np.float32]
    source: str = ""
    encoding: str = ""
    view: str = ""
    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, eq=False)
class ScoredImage:
    """One picture and its scores.

    Attributes:
        image_id: key of the picture, unique in its run.
        path: where it came from; empty for an array.
        study_uid: DICOM Study Instance UID, or "".
        series_uid: DICOM Series Instance UID, or "".
        sop_uid: DICOM SOP Instance UID, or "".
        view: "PA", "AP", "LATERAL" or "".
        warnings: doubts about the picture.
        logits: (labels,) float32 raw logits.
        maps: (labels, h, w) float32 attention on the model's grid, or None.
        radiograph: the picture itself where maps were asked for, or None.
    """

    image_id: str
    path: str
    study_uid: str
    series_uid: str
    sop_uid: str
    view: str
    warnings: tuple[str, ...]
    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None = None
    radiograph: Radiograph | None = None


@dataclass(frozen=True, slots=True)
class FailedImage:
    """One picture that could not be scored, and why; `error` is what predict raises."""

    image_id: str
    path: str
    reason: str
    error: Exception


@dataclass(frozen=True, slots=True, eq=False)
class Grounding:
    """Where the model looks for one finding.

    Attributes:
        label: the finding.
        logit: its raw score; the map says where, this says whether.
        heatmap: (height, width) float32 in the picture's own pixels, attention per cell of the model's grid,
            interpolated; NaN where the model does not look (outside its crop).
        peak: (x, y) of the map's highest cell centre in the picture's pixels, pixel centres at +0.5.
    """

    label: str
    logit: float
    heatmap: NDArray[np.float32]
    peak: tuple[float, float]


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One picture to score: its key, where it came from, and what to read (a path, or the picture itself)."""

    image_id: str
    path: str
    image: Any


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LoadedImage:
    """A picture ready to be scored: its item, what its file said, and (crop_px, crop_px) uint8 grey levels."""

    item: ImageItem
    radiograph: Radiograph
    levels: NDArray[np.uint8]
