"""Where the model looks in one image: peak and box of each finding's map, in the image's own pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import NotRequired, TypedDict

from carzero.errors import ConfigurationError, describe
from carzero.images import OverlayMarks, PixelTransform
from carzero.inference.placed_map import MapFrame, PlacedMap
from carzero.inference.score_calibration import ScoreCalibration
from carzero.records import MapKind, ScoredImage

BOX_RULE = (
    "the part of the map, connected to its highest pixel, at or above lowest + {share:g} * (highest - lowest); the box "
    "is the smallest one around it"
)

FIXED_BOX_RULE = (
    "the part of the map, connected to its highest pixel, at or above {threshold:.4g}, which is {share:g} of the maps' "
    "fixed scale from {low:.4g} to {high:.4g}; the box is the smallest one around it; a map that stays below has none"
)

DEMO_DOUBT = "Maps of the demo weights miss about as often as they hit; see `carzero docs demo-weights`."
DEMO_CAUTION = "demo weights: not for diagnosis; maps often miss"  # on maps themselves


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
        probability: of the finding, by a calibration; None without one. Older results lack it.
        peak: centre of the highest cell.
        box: xmin, ymin, xmax and ymax around the peak's region, or None for a map without one (constant within the
            image, or low on a fixed scale).
        highest: value of the highest cell.
        contrast: highest cell over the mean cell, 1 for an even map; None where cells are not shares of a whole.
        path: where the image came from.
        width: of the image, in px.
        height: of the image, in px.
        files: names of the map and the overlay, where they were written.
        warnings: doubts about the image.
    """

    image_id: str
    label: str
    logit: float
    probability: NotRequired[float | None]
    peak: Peak
    box: dict[str, float] | None
    highest: float
    contrast: float | None
    path: str
    width: int
    height: int
    files: dict[str, str]
    warnings: list[str]


class MapsRecord(TypedDict):
    """What maps are, in words and by the fields of `MapKind` (`maps`), and how boxes are cut out of them."""

    map_kind: str
    maps: dict[str, object]
    box_rule: str


def ground_image(
    image: ScoredImage,
    labels: Sequence[str],
    transform: PixelTransform,
    box_share: float = 0.5,
    calibration: ScoreCalibration | None = None,
) -> Iterator[tuple[GroundingRow, PlacedMap]]:
    """Carries the maps of one image to its own pixels, one finding after the other.

    Args:
        image: scored with `need_maps=True`.
        labels: the findings, in the order of its scores.
        transform: to the model's square, of the weights that scored it.
        box_share: the box's threshold as a share of the map's range, or of the fixed scale of maps that have one, above
            0 and at most 1.
        calibration: of its scores.

    Yields:
        The row of each finding, without files, and its map.
    """
    if image.maps is None or image.size is None:
        raise ValueError("The image was scored without maps; score it with need_maps=True.")
    geometry, kind = transform.geometry(*image.size), image.map_kind
    frame = MapFrame(geometry, *image.maps.shape[1:])
    for label, logit, grid in zip(labels, image.logits, image.maps, strict=True):
        placed = PlacedMap(grid, frame)
        x, y = geometry.peak_to_original(grid)
        box = placed.find_box(box_share, kind.scale)
        row: GroundingRow = {
            "image_id": image.item.image_id,
            "label": label,
            "logit": float(logit),
            "probability": None if calibration is None else calibration.find(label, float(logit)),
            "peak": {"x": x, "y": y, "inside": 0 <= x <= geometry.width and 0 <= y <= geometry.height},
            "box": None if box is None else dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)),
            "highest": float(grid.max()),
            "contrast": float(grid.max() / grid.mean()) if kind.is_share else None,
            "path": image.item.path,
            "width": geometry.width,
            "height": geometry.height,
            "files": {},
            "warnings": list(image.info.warnings),
        }
        yield row, placed


def mark_place(row: GroundingRow, title: str, subtitle: str, *, image: str, is_demo: bool) -> OverlayMarks:
    """What an overlay of a finding's map shows: its captions, its peak and its box.

    Args:
        row: of the finding.
        title: see `OverlayMarks`.
        subtitle: likewise.
        image: likewise.
        is_demo: whether the map is of the demo weights.
    """
    boxes = [] if row["box"] is None else [to_corners(row["box"])]
    peak, caution = (row["peak"]["x"], row["peak"]["y"]), DEMO_CAUTION if is_demo else ""
    return OverlayMarks(title, subtitle, peak, boxes, image, caution, row.get("probability"))


def describe_score(logit: float, probability: float | None) -> str:
    """A finding's score as the captions of its map have it."""
    return f"logit {logit:.2f}" + ("" if probability is None else f", probability {probability:.2g}")


def to_corners(box: dict[str, float]) -> tuple[float, float, float, float]:
    """A row's box as xmin, ymin, xmax, ymax."""
    return box["xmin"], box["ymin"], box["xmax"], box["ymax"]


def describe_box_rule(share: float, kind: MapKind) -> str:
    """How boxes are cut out of maps of a kind, for a manifest."""
    if kind.scale is None:
        return BOX_RULE.format(share=share)
    low, high = kind.scale
    return FIXED_BOX_RULE.format(share=share, low=low, high=high, threshold=low + share * (high - low))


def describe_maps(share: float, kind: MapKind) -> MapsRecord:
    """What maps of a kind are, and how boxes are cut out of them, for a manifest."""
    return {"map_kind": kind.description, "maps": asdict(kind), "box_rule": describe_box_rule(share, kind)}


def check_box_share(share: float) -> None:
    """Refuses a threshold that is not a share of a map's range.

    Raises:
        ConfigurationError: not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ConfigurationError(
            describe("The box's threshold is not a share", got=share, expected="above 0, at most 1")
        )
