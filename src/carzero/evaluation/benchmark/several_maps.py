"""Maps of the same two images by each of several models, for the page that compares them.

One image shows the finding, the other none: what a map is worth is seen by both. Cells are drawn as they are, at the
size that they have in the image, so that a coarse map does not look finer than it is.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carzero.core.html_page import build_figure
from carzero.datasets.files import find_images
from carzero.evaluation.benchmark.several import Contender, SeveralResult
from carzero.images.overlay import OverlayMarks, draw_overlay
from carzero.inference.places import DEMO_CAUTION, DEMO_DOUBT
from carzero.metrics.calibration import to_abnormal
from carzero.records import FailedImage, ImageItem, MapKind

if TYPE_CHECKING:
    from carzero.inference.classifier import ZeroShotClassifier
    from carzero.inference.prompt_bank import PromptBank

_MAP_PX = 420
_PARTS = 16  # of a cell's side; between the parts a map is interpolated, so a cell's edges are a sixteenth wide


@dataclass(frozen=True, slots=True)
class Example:
    """A finding, an image that shows it and one that shows no finding; their ids, None where the set has none."""

    label: str
    present: str | None
    absent: str | None


def choose_example(result: SeveralResult) -> Example | None:
    """The most frequent finding; the first image with it, and the first with no finding, else the first without it."""
    joined = result.contenders[0].result.joined
    if joined is None:
        return None
    truth = joined.truth[:, [joined.labels.index(label) for label in result.dataset.labels]]
    column = int(np.argmax((truth == 1).sum(axis=0)))
    present, normal = np.flatnonzero(truth[:, column] == 1), np.flatnonzero(to_abnormal(truth) == 0)
    without = normal if len(normal) else np.flatnonzero(truth[:, column] == 0)
    first = [joined.ids[int(rows[0])] if len(rows) else None for rows in (present, without)]
    return Example(result.dataset.labels[column], *first)


def build_maps(result: SeveralResult, images: Path) -> str:
    """The section of the page: for each image a row with every model's map, or what is said in its place.

    Args:
        result: of the benchmark.
        images: folder of the set's images.
    """
    example = choose_example(result)
    if example is None:
        return ""
    chosen = {example.present: f"with {example.label}", example.absent: f"without {example.label}"}
    ids = [image_id for image_id in chosen if image_id is not None]
    found = find_images(images, ids, result.dataset.to_id).items
    shown = {each.weights.sha256: each for each in reversed(result.contenders)}  # each once, however it was asked
    models = [each for each in result.contenders if each is shown[each.weights.sha256]]
    rows: dict[str, list[str]] = {item.image_id: [] for item in found}
    for model in models:
        if not model.map_kind:
            for figures in rows.values():
                figures.append(_say(model, f"{model.weights.family.title} has no maps."))
            continue
        classifier = model.settings.load_classifier()
        bank = _encode(classifier, model, example.label)
        for item in found:
            rows[item.image_id].append(_draw(classifier, bank, model, item))
    parts = [f"<h2>Maps of {escape(example.label)}</h2>"]
    for item in found:
        about = f"{escape(item.image_id)}, {escape(chosen[item.image_id])}"
        parts.append(f'<h3>{about}</h3><div class="maps">{"".join(rows[item.image_id])}</div>')
    return "\n".join(parts) if found else ""


def _encode(classifier: ZeroShotClassifier, model: Contender, label: str) -> PromptBank[object]:
    prompts = model.settings.prompts
    asked = {label: {"positive": list(prompts.prompts[label]), "negative": list(prompts.entry(label).negative)}}
    return classifier.encode_prompts(classifier.style.ask(None, asked, score_kind=prompts.score_kind))


def _draw(classifier: ZeroShotClassifier, bank: PromptBank[object], model: Contender, item: ImageItem) -> str:
    """One map over its image, at the model's cells."""
    image = next(classifier.stream([item], bank, pool=model.settings.pool, force=True, need_maps=True))
    if isinstance(image, FailedImage):
        return _say(model, str(image.error))
    if image.maps is None or image.radiograph is None:
        return _say(model, "There is no map of this image.")
    grid, pixels = image.maps[0], image.radiograph.pixels
    geometry = classifier.processor.image_processor.pixels.geometry(*pixels.shape)
    heatmap = geometry.map_to_original(np.kron(grid, np.ones((_PARTS, _PARTS), grid.dtype)))
    across, down = (geometry.affine[axis][axis] * geometry.crop_px / grid.shape[1 - axis] for axis in (0, 1))
    label = bank.labels[0]
    peak, caution = geometry.peak_to_original(grid), DEMO_CAUTION if model.weights.is_demo else ""
    marks = OverlayMarks(label, f"score {image.logits[0]:.2f}", peak, image=item.image_id, caution=caution)
    overlay = draw_overlay(pixels, heatmap, marks, kind=image.map_kind, long_side_px=_MAP_PX)
    data = io.BytesIO()
    overlay.save(data, format="PNG")
    cells = f"{grid.shape[1]} x {grid.shape[0]} cells, each {across:.0f} x {down:.0f} of the image's pixels"
    said = [_describe_scale(image.map_kind, grid), f"{cells}.", *([DEMO_DOUBT] if model.weights.is_demo else [])]
    caption = f"<b>{escape(model.short_name)}</b>: {escape(image.map_kind.description)}."
    words = f"{caption} {escape(' '.join(said))}"
    return build_figure(data.getvalue(), "image/png", f"{model.short_name}: map of {label}", words)


def _describe_scale(kind: MapKind, grid: np.ndarray) -> str:
    if kind.scale is not None:
        return f"Scale {kind.scale[0]:g} to {kind.scale[1]:g}, the same for all maps of these weights."
    return f"No fixed scale: colours span this map's own cells, {grid.min():.3g} to {grid.max():.3g}."


def _say(model: Contender, text: str) -> str:
    """What stands in the place of a map."""
    name = f"<b>{escape(model.short_name)}</b>"
    return f'<figure><div class="absent">{escape(text)}</div><figcaption>{name}</figcaption></figure>'
