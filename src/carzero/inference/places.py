"""Where the model looks in one image: peak and box of each finding's map, in the image's own pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

from carzero.errors import ConfigurationError, describe
from carzero.images import PixelTransform
from carzero.inference.heatmaps import ScoreMap
from carzero.metrics.boxes import box_of_region, region_of_peak
from carzero.records import ScoredImage

BOX_RULE = (
    "the part of the map, connected to its highest pixel, at or above lowest + {share:g} * (highest - lowest); the box "
    "is the smallest one around it"
)

DEMO_DOUBT = "Maps of the demo weights are not to be trusted; see docs/demo-weights.md."


class Peak(TypedDict):
    """A point in the image's pixels, and whether it lies in the image; one in the padding does not."""

    x: float
    y: float
    inside: bool


class GroundingRow(TypedDict):
    """One finding in one image, as plain values.

    Attributes:
        image_id: the image.
        label: the finding.
        logit: its raw score.
        peak: centre of the highest cell.
        box: xmin, ymin, xmax and ymax around the peak's region, or None for a map without one (constant within the
            image).
        contrast: highest cell over the mean cell; 1 for an even map.
        path: where the image came from.
        width: of the image, in px.
        height: of the image, in px.
        files: names of the map and the overlay, where they were written.
        warnings: doubts about the image.
    """

    image_id: str
    label: str
    logit: float
    peak: Peak
    box: dict[str, float] | None
    contrast: float
    path: str
    width: int
    height: int
    files: dict[str, str]
    warnings: list[str]


def ground_image(
    image: ScoredImage, labels: Sequence[str], transform: PixelTransform, box_share: float = 0.5
) -> Iterator[tuple[GroundingRow, ScoreMap]]:
    """Carries the maps of one image to its own pixels, one finding after the other.

    Args:
        image: scored with `need_maps=True`.
        labels: the findings, in the order of its scores.
        transform: to the model's square, of the weights that scored it.
        box_share: the box's threshold as a share of the map's range, above 0 and at most 1.

    Yields:
        The row of each finding, without files, and its map.
    """
    if image.maps is None or image.radiograph is None:
        raise ValueError("The image was scored without maps; score it with need_maps=True.")
    geometry = transform.geometry(*image.radiograph.pixels.shape)
    for label, logit, grid in zip(labels, image.logits, image.maps, strict=True):
        score_map = ScoreMap.from_grid(grid, geometry)
        x, y = geometry.peak_to_original(grid)
        box = box_of_region(region_of_peak(score_map.heatmap, box_share))
        row: GroundingRow = {
            "image_id": image.item.image_id,
            "label": label,
            "logit": float(logit),
            "peak": {"x": x, "y": y, "inside": 0 <= x <= geometry.width and 0 <= y <= geometry.height},
            "box": None if box is None else dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)),
            "contrast": float(grid.max() / grid.mean()),
            "path": image.item.path,
            "width": geometry.width,
            "height": geometry.height,
            "files": {},
            "warnings": list(image.info.warnings),
        }
        yield row, score_map


def check_box_share(share: float) -> None:
    """Refuses a threshold that is no share of a map's range.

    Raises:
        ConfigurationError: not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ConfigurationError(
            describe("The box's threshold is not a share", got=share, expected="above 0, at most 1")
        )
