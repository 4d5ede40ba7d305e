"""What `ground` returns in Python: where the model looks for a finding, as numbers and as an image."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carzero.core.optional import require_extra
from carzero.inference.places import describe_score, ground_image, to_corners
from carzero.inference.score_calibration import ScoreCalibration
from carzero.records import MapKind, ScoredImage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

    from carzero.images import PixelTransform

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Grounding:
    """Where the model looks for one finding. In a notebook it shows itself as the image of `to_image`.

    Attributes:
        label: the finding.
        logit: its raw score; the map says where, this says whether.
        heatmap: (height, width) float32 in the image's own pixels, the cells of the model's grid interpolated (what
            they are: `MapKind`); NaN where the model does not look (outside its crop).
        peak: (x, y) of the map's highest cell centre in the image's pixels, pixel centres at +0.5.
        box: (xmin, ymin, xmax, ymax) around the peak's region, in the image's pixels; None for a map without one
            (constant within the image, or low on a fixed scale).
        image_id: the image.
        kind: what the cells of the map are.
        pixels: (height, width) grey levels of the image, 0-255.
        probability: of the finding, by a calibration; the map of `to_image` is as strong as that, unless its scale is
            fixed. None without a calibration.
        warnings: doubts about the image, each a sentence.
        doubt: what is to be known before the map is trusted, or ""; it stands on the image of `to_image`.
    """

    label: str
    logit: float
    heatmap: NDArray[np.float32] = field(repr=False)
    peak: tuple[float, float]
    box: Box | None
    image_id: str
    kind: MapKind = field(repr=False)
    pixels: NDArray[np.generic] = field(repr=False)
    probability: float | None = None
    warnings: tuple[str, ...] = ()
    doubt: str = ""

    def to_image(self) -> Image.Image:
        """The image with the map over it, the peak marked, the box drawn, and a scale: a Pillow image, RGB."""
        from carzero.images.overlay import OverlayMarks, draw_overlay

        boxes = [] if self.box is None else [self.box]
        said = describe_score(self.logit, self.probability)
        marks = OverlayMarks(self.label, said, self.peak, boxes, self.image_id, self.doubt, self.probability)
        return draw_overlay(self.pixels, self.heatmap, marks, kind=self.kind)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draws `to_image` into a figure of matplotlib.

        Args:
            axes: where; None makes a figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        if axes is None:
            with require_extra("A plot needs matplotlib", "eval", "take .to_image()"):
                from matplotlib import pyplot
            axes = pyplot.figure(figsize=(5, 5), layout="constrained").subplots()
        axes.imshow(np.asarray(self.to_image()))
        axes.set_axis_off()
        return axes

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.to_image().save(buffer, format="PNG")
        return buffer.getvalue()


def to_groundings(
    image: ScoredImage,
    labels: Sequence[str],
    transform: PixelTransform,
    doubt: str = "",
    calibration: ScoreCalibration | None = None,
) -> Iterator[Grounding]:
    """Carries the maps of an image to its own pixels.

    Args:
        image: scored with `need_maps=True`.
        labels: the findings, in the order of its scores.
        transform: to the model's square, of the weights that scored it.
        doubt: of every map of these weights.
        calibration: of the scores.
    """
    for row, placed in ground_image(image, labels, transform, calibration=calibration):
        if image.radiograph is None:
            raise ValueError("The image was scored without its pixels; score it with need_maps=True.")
        box = row["box"]
        yield Grounding(
            label=row["label"],
            logit=row["logit"],
            heatmap=placed.heatmap,
            peak=(row["peak"]["x"], row["peak"]["y"]),
            box=None if box is None else to_corners(box),
            image_id=image.item.image_id,
            kind=image.map_kind,
            pixels=image.radiograph.pixels,
            probability=row.get("probability"),
            warnings=image.info.warnings,
            doubt=doubt,
        )
