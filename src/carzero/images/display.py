"""Images as a viewer needs them: every grey level that the file holds, and the windows that it asks for.

The levels that a model sees are those under the file's own window. A viewer that lets its reader choose another needs
what is before it: values after the modality transform, in whole steps, with the polarity settled.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from carzero.errors import printable
from carzero.images.checks import as_unreadable
from carzero.images.dicom import read_frame
from carzero.images.dicom_dataset import is_dicom
from carzero.images.dicom_greyscale import Greyscale, read_windows
from carzero.images.dicom_luts import GreyPipeline, build_pipeline, map_values
from carzero.images.dicom_subject import doubts_about_orientation, find_view
from carzero.images.grey_levels import grey_from_array
from carzero.images.raster import decode_raster, sniff_raster
from carzero.images.reading import read_bytes, unknown_format

_TOP = 2**16 - 1
_MOST_PRESETS = 8
_LONGEST_NAME = 40


@dataclass(frozen=True, slots=True)
class Window:
    """A window over levels: brightness is `(level - centre) / width + 0.5`, cut to 0..1.

    Attributes:
        centre: the level of middle grey.
        width: levels from black to white, above 0.
        name: as the file calls it, or "".
    """

    centre: float
    width: float
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class DisplayImage:
    """An image at full depth.

    Attributes:
        levels: (H, W) uint16, larger is brighter, whatever the file's convention; padding is 0.
        largest: the level of full scale.
        window: what is shown first; what a model sees, as far as a window can say it.
        presets: windows that the file names, the first of them included.
        slope: the file's unit per level; negative where the file's small values are bright.
        intercept: the file's unit at level 0.
        photometric: DICOM's Photometric Interpretation; "" of other files.
        encoding: how the file held the pixels, for example "DICOM JPEG 2000 12-bit".
        view: "PA", "AP", "LATERAL" or "".
        doubts: about the image, each a sentence.
    """

    levels: NDArray[np.uint16]
    largest: int
    window: Window
    presets: tuple[Window, ...] = ()
    slope: float = 1.0
    intercept: float = 0.0
    photometric: str = ""
    encoding: str = ""
    view: str = ""
    doubts: tuple[str, ...] = ()


def load_display(path: str | Path, force: bool = False) -> DisplayImage:
    """Reads an image at full depth.

    Args:
        path: the file; its suffix does not matter.
        force: take a readable image that is not a chest radiograph too.

    Raises:
        UnreadableImageError: no such file, or not a complete image in a known format.
        UnsuitableImageError: readable but not a chest radiograph, not forced.
    """
    source = printable(str(path))
    with as_unreadable("image", source):
        data = read_bytes(Path(path), source)
        if is_dicom(data):
            return _read_dicom(data, source, force)
        if not sniff_raster(data):
            raise unknown_format(data, source)
        image = decode_raster(data, source=source, force=force)
        return _from_grey(image.grey, image.depth, encoding=image.encoding, doubts=image.doubts)


def _from_grey(
    grey: NDArray[np.float32],
    depth: int,
    *,
    encoding: str,
    doubts: tuple[str, ...],
    view: str = "",
    photometric: str = "",
) -> DisplayImage:
    """Levels of an image whose grey levels are its samples over their full scale."""
    top = 2 ** min(max(depth, 8), 16) - 1
    levels = np.rint(grey * (top / 255)).astype(np.uint16)
    shown = Window(top / 2, float(top))
    return DisplayImage(levels, top, shown, encoding=encoding, doubts=doubts, view=view, photometric=photometric)


def _read_dicom(data: bytes, source: str, force: bool) -> DisplayImage:
    frame = read_frame(data, source=source, force=force)
    header, doubts = frame.header, [*frame.doubts]
    photometric, view = str(header.PhotometricInterpretation), find_view(header)
    turned = doubts_about_orientation(header)
    if frame.samples.ndim != 2:
        grey, odd = grey_from_array(frame.samples, bits=frame.colour_bits, source=source, force=force)
        said = (*doubts, *odd, *turned)
        depth = 8 * frame.samples.dtype.itemsize
        return _from_grey(grey, depth, encoding=frame.encoding, doubts=said, view=view, photometric=photometric)
    words = Greyscale.of(header)
    pipeline = build_pipeline(frame.samples, words, header)
    if pipeline is None:
        empty = np.zeros(frame.samples.shape, dtype=np.uint16)
        return DisplayImage(empty, 1, Window(0.5, 1.0), doubts=(*doubts, *words.doubts, *turned))
    scale = _Scale.of(pipeline)
    levels = map_values(frame.samples, scale.to_levels).astype(np.uint16)
    shown, curves = scale.first_window()
    return DisplayImage(
        levels,
        scale.top,
        shown,
        tuple(scale.to_window(*each) for each in _find_presets(header)),
        -scale.step if words.inverted else scale.step,
        scale.low + scale.step * scale.top if words.inverted else scale.low,
        photometric,
        frame.encoding,
        view,
        (*doubts, *words.doubts, *curves, *turned),
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """How an image's units become levels: `top` steps from the unit `low` upwards, turned round if inverted."""

    pipeline: GreyPipeline
    low: float
    step: float
    top: int

    @classmethod
    def of(cls, pipeline: GreyPipeline) -> _Scale:
        """Whole units stay what they are where 16 bits hold them, so that levels are the file's own numbers."""
        low, high = pipeline.span
        rescale = pipeline.words.rescale
        whole = pipeline.modality is not None or rescale is None or all(number == int(number) for number in rescale)
        if whole and low >= 0 and high <= _TOP:
            bits = pipeline.words.bits
            return cls(pipeline, 0.0, 1.0, 2**bits - 1 if high < 2**bits <= _TOP + 1 else _TOP)
        if whole and high - low <= _TOP:
            return cls(pipeline, low, 1.0, max(1, int(high - low)))
        return cls(pipeline, low, (high - low) / _TOP or 1.0, _TOP)

    def to_levels(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Levels of stored values."""
        levels = np.clip(np.rint((self.pipeline.to_units(values) - self.low) / self.step), 0, self.top)
        if self.pipeline.words.inverted:
            levels = self.top - levels
        return np.where(self.pipeline.words.is_padding(values), 0, levels)

    def to_window(self, centre: float, width: float, function: str, name: str = "") -> Window:
        """A window of the header over levels. LINEAR is PS3.3 C.11.2.1.2.1's, half a unit off the exact one."""
        if function not in ("LINEAR_EXACT", "SIGMOID"):
            centre, width = centre - 0.5, width - 1
        level = (centre - self.low) / self.step
        level = self.top - level if self.pipeline.words.inverted else level
        return Window(level, max(width, self.step) / self.step, name)

    def first_window(self) -> tuple[Window, list[str]]:
        """What is shown first, and a doubt where no window says it exactly."""
        found = self.pipeline
        if found.window is not None:
            centre, width, function = found.window
            said = ["The file asks for a sigmoid curve; it is shown as the straight one of the same window."]
            return self.to_window(centre, width, function), said if function == "SIGMOID" else []
        if found.voi is None:
            low, high = found.ends or found.span
            return self.to_window((low + high) / 2, high - low, "LINEAR_EXACT"), []
        units = np.linspace(*found.span, 4096)
        shares = found.voi.look_up_shares(units)
        inside = units[(shares > 0.02) & (shares < 0.98)]
        low, high = (float(inside[0]), float(inside[-1])) if inside.size > 1 else found.span
        said = ["The file has a look-up table for its grey levels; a window near to it is shown."]
        return self.to_window((low + high) / 2, high - low, "LINEAR_EXACT"), said


def _find_presets(header: Dataset) -> Iterator[tuple[float, float, str, str]]:
    """Centre, width, function and name of the windows in a header that can be read."""
    names = itertools.chain(_read_names(header), itertools.repeat(""))
    for (centre, width, function), name in itertools.islice(
        zip(read_windows(header), names, strict=False), _MOST_PRESETS
    ):
        if math.isfinite(centre) and width > (0 if function in ("LINEAR_EXACT", "SIGMOID") else 1):
            yield centre, width, function, printable(name)[:_LONGEST_NAME]


def _read_names(header: Dataset) -> list[str]:
    """What the header calls its windows; nothing where it cannot be read."""
    try:
        value = header.get("WindowCenterWidthExplanation") or []
    except Exception:  # pydicom refuses what is no text, each in its own way
        return []
    return [str(each).strip() for each in value] if isinstance(value, MultiValue | list) else [str(value).strip()]
