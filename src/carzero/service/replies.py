"""Scores and maps as the answers that the schemas describe."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carzero.images.display import DisplayImage, Window
from carzero.inference.heatmaps import encode_levels
from carzero.inference.placed_map import PlacedMap
from carzero.inference.places import GroundingRow, ground_image
from carzero.prompts import PromptReview, PromptSet
from carzero.records import Pool, ScoredImage
from carzero.service.schemas import (
    AskedMaps,
    Box,
    Cell,
    CellMap,
    Finding,
    FloatMap,
    GroundedAnswer,
    ImageFacts,
    ImageWindow,
    Peak,
    PngMap,
    Score,
    ScoredAnswer,
)
from carzero.service.served_weights import ServedWeights

_MOST_REMARKS, _LONGEST_REMARK = 12, 300  # of a header


def to_scored(
    name: str, image: ScoredImage, prompts: PromptSet, review: PromptReview, weights: ServedWeights, pool: Pool
) -> ScoredAnswer:
    """The scores of an image."""
    probabilities = weights.calibrate(image.logits, prompts, pool)
    rows = zip(prompts, image.logits, probabilities, strict=True)
    scores = [
        Score(
            label=label,
            prompt=sentences[0],
            logit=float(logit),
            probability=probability,
            unfamiliar=is_unfamiliar(label, review),
        )
        for (label, sentences), logit, probability in rows
    ]
    info = image.info
    return ScoredAnswer(
        name=name, view=info.view, encoding=info.encoding, scores=scores, remarks=hide_place(info.warnings, image, name)
    )


def is_unfamiliar(label: str, review: PromptReview) -> bool | None:
    """Whether no training sentence speaks of a label; None where that is not known."""
    return None if review.unfamiliar is None else label in review.unfamiliar


def hide_place(texts: Sequence[str], image: ScoredImage, name: str) -> list[str]:
    """Texts without the place of a file on this machine."""
    return [text.replace(image.item.path, name) for text in texts]


def to_grounded(
    name: str, image: ScoredImage, prompts: PromptSet, weights: ServedWeights, pool: Pool, asked: AskedMaps
) -> GroundedAnswer:
    """The maps of an image; the rows are those of `carzero ground`."""
    findings = []
    width = height = 0
    probabilities = weights.calibrate(image.logits, prompts, pool)
    rows = ground_image(image, prompts.labels, weights.source.pixels, asked.box_share)
    for (row, placed), probability in zip(rows, probabilities, strict=True):
        width, height = row["width"], row["height"]
        row["probability"] = probability
        scale = image.map_kind.scale or (float(placed.grid.min()), float(placed.grid.max()))
        findings.append(_to_finding(row, placed, prompts.prompts[row["label"]][0], scale, asked))
    return GroundedAnswer(
        name=name,
        view=image.info.view,
        width=width,
        height=height,
        findings=findings,
        remarks=hide_place(image.info.warnings, image, name),
    )


def _to_finding(
    row: GroundingRow, placed: PlacedMap, prompt: str, scale: tuple[float, float], asked: AskedMaps
) -> Finding:
    peak, affine = row["peak"], placed.affine
    return Finding(
        label=row["label"],
        prompt=prompt,
        logit=row["logit"],
        score=row["logit"],
        probability=row["probability"],
        peak=Peak(x=peak["x"], y=peak["y"], inside=peak["inside"], value=row["highest"]),
        box=None if row["box"] is None else Box.model_validate(row["box"]),
        cell=Cell(width=float(affine[0, 0]), height=float(affine[1, 1])),
        scale=scale,
        map=_to_map(placed, asked.format),
    )


def _to_map(placed: PlacedMap, form: str) -> CellMap | PngMap | FloatMap:
    rows, columns = placed.frame.geometry.height, placed.frame.geometry.width
    if form == "float32":
        data = np.ascontiguousarray(placed.heatmap, "<f4").tobytes()
        return FloatMap(rows=rows, columns=columns, float32=base64.b64encode(data).decode("ascii"))
    if form == "png":
        levels, low, high = encode_levels(placed.heatmap)
        return PngMap(rows=rows, columns=columns, png=_to_png(levels), low=low, high=high)
    cell_rows, cell_columns = placed.grid.shape
    values, affine = placed.grid.tolist(), placed.affine.tolist()
    return CellMap(rows=cell_rows, columns=cell_columns, values=values, affine=affine)


def _to_png(levels: NDArray[np.uint16]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def to_facts(image: DisplayImage, place: str, name: str) -> ImageFacts:
    """What a viewer must know of an image, short enough for a header.

    Args:
        image: as it was read.
        place: of the file on this machine, which stands in no remark.
        name: that stands there instead.
    """
    rows, columns = image.levels.shape
    remarks = []
    for said in image.doubts[:_MOST_REMARKS]:
        doubt = said.replace(place, name)
        remarks.append(doubt if len(doubt) <= _LONGEST_REMARK else doubt[:_LONGEST_REMARK] + "...")
    return ImageFacts(
        rows=rows,
        columns=columns,
        largest=image.largest,
        window=_to_window(image.window),
        presets=[_to_window(each) for each in image.presets],
        slope=image.slope,
        intercept=image.intercept,
        photometric=image.photometric,
        encoding=image.encoding,
        view=image.view,
        remarks=remarks,
    )


def _to_window(window: Window) -> ImageWindow:
    return ImageWindow(centre=window.centre, width=window.width, name=window.name)
