"""The values that cross the borders between layers.

Nothing here computes: these are records with names, shapes and units, so that a layer can be read without the one below.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Radiograph"]


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
