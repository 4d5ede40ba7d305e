"""The page of a benchmark of several weights: one table, figures of each class, and all maps of one image in a row."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from carzero.core.html_page import build_html_page, build_line, build_table
from carzero.core.outputs import new_files
from carzero.core.text_files import format_csv
from carzero.datasets.files import find_images
from carzero.errors import CARZeroError
from carzero.evaluation.benchmark.manifest import BenchmarkRow
from carzero.evaluation.benchmark.several import WORDINGS, Contender, SeveralResult, load_classifier
from carzero.images.overlay import OverlayMarks, draw_overlay

_MAP_PX = 420

SEVERAL_FILES = ("comparison.json", "comparison.csv", "comparison.html")


def save_several(result: SeveralResult, images: Path, out: Path, *, overwrite: bool = True) -> list[Path]:
    """Writes comparison.json, comparison.csv and comparison.html into an existing folder.

    Args:
        result: of the benchmark.
        images: folder of the set's images, for the maps.
        out: the folder.
        overwrite: whether files that are there are replaced.

    Returns:
        the files, the page last.

    Raises:
        OutputError: they cannot be written, or are there and must stay.
    """
    contents = {
        "comparison.json": json.dumps(result.to_dict(), indent=2) + "\n",
        "comparison.csv": _to_csv(result),
        "comparison.html": build_page(result, draw_maps(result, images)),
    }
    files = [out / name for name in SEVERAL_FILES]
    with new_files(files, overwrite=overwrite) as targets:
        for name, target in zip(SEVERAL_FILES, targets, strict=True):
            target.write_text(contents[name], encoding="utf-8")
    return files


def find_row(contender: Contender, label: str) -> BenchmarkRow | None:
    """The AUROC of a class or average, with the bootstrap's interval."""
    rows = [row for row in contender.result.rows if row["label"] == label and row["metric"] == "auroc"]
    rows = [row for row in rows if row["group"] == "all"]
    return next((row for row in rows if "bootstrap" in row["method"]), rows[0] if rows else None)


def _write(row: BenchmarkRow | None) -> str:
    if row is None or row["value"] is None:
        return "-"
    low, high = row["ci_low"], row["ci_high"]
    span = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return f"{row['value']:.3f}{span}"


def _write_difference(result: SeveralResult, own: Contender) -> str:
    if own is result.contenders[0]:
        return ""
    row = result.find(own)
    if row is None or not np.isfinite(row.value):
        return "-"
    return f"{row.value:+.3f} ({row.ci_low:+.3f} to {row.ci_high:+.3f})"


COLUMNS: dict[str, Callable[[SeveralResult, Contender], str]] = {
    "weights": lambda result, own: own.short_name,
    "prompts": lambda result, own: own.wording,
    "score kind": lambda result, own: own.settings.prompts.score_kind,
    "maps": lambda result, own: "yes" if own.map_kind else "none",
    "macro AUROC": lambda result, own: _write(find_row(own, "macro")),
    "difference to the first": _write_difference,
    "ms an image": lambda result, own: f"{1000 * own.cost.seconds_an_image:.3g}",
    "weights, MB": lambda result, own: f"{own.cost.weights_mb:,.0f}",
    "GPU peak, MB": lambda result, own: "" if own.cost.peak_mb is None else f"{own.cost.peak_mb:,.0f}",
}
WORDS = 4  # of the columns; the others hold figures


def table_rows(result: SeveralResult) -> list[tuple[str, ...]]:
    """The headings, then one line a contender; columns of `COLUMNS`, without those that are empty."""
    columns = [(name, *(write(result, own) for own in result.contenders)) for name, write in COLUMNS.items()]
    return [*zip(*(column for column in columns if any(column[1:])), strict=True)]


def build_page(result: SeveralResult, maps: str) -> str:
    """Returns the page as HTML, every text in it escaped.

    Args:
        result: of the benchmark.
        maps: HTML of the maps; empty where there are none.
    """
    first = result.contenders[0].result
    title = f"{result.dataset.title}: {len(result.contenders)} ways of scoring, {first.manifest['images']} images"
    drawn = f"{result.statistics.rounds} rounds of the bootstrap, seed {result.statistics.seed}"
    parts = [
        f'<p class="sub">carzero {escape(first.manifest["carzero_version"])}; {escape(first.manifest["date"])}. '
        f"Intervals are of 95 %, from {drawn}; differences are paired: every round draws the same "
        f"{escape(first.manifest['resampled'])}s for all.</p>",
        '<p class="note">Research software, not for clinical use. Scores of different models are on different scales: '
        "compare how they rank images, never their values.</p>",
        "<h2>All together</h2>",
        _table(*_parted(table_rows(result))),
        "<ul>"
        + "".join(f"<li>{escape(name)}: {escape(meaning)}.</li>" for name, meaning in WORDINGS.items())
        + "<li>both: the authors' prompts are the common ones, or are the same sentences.</li>"
        "<li>ms an image: from pixel values to scores, on the machine that made this page.</li></ul>",
        "<h2>AUROC of each class</h2>",
        _table(("class", *(each.name for each in result.contenders)), _class_rows(result)),
        maps,
        "<h2>What to know before comparing</h2>",
        "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in first.manifest["notes"]) + "</ul>",
    ]
    return build_html_page(title, parts)


def _parted(rows: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], Sequence[tuple[str, ...]]]:
    return rows[0], rows[1:]


def _class_rows(result: SeveralResult) -> list[tuple[str, ...]]:
    labels = [*result.dataset.labels, "macro"]
    return [(label, *(_write(find_row(each, label)) for each in result.contenders)) for label in labels]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return build_table(headings, [build_line([escape(cell) for cell in row]) for row in rows])


def choose_example(result: SeveralResult) -> tuple[str, str] | None:
    """(image, label) to show maps of: the first image with the most frequent finding."""
    joined = result.contenders[0].result.joined
    if joined is None:
        return None
    counts = (joined.truth == 1).sum(axis=0)
    column = int(np.argmax(counts))
    rows = np.flatnonzero(joined.truth[:, column] == 1)
    return (joined.ids[int(rows[0])], joined.labels[column]) if len(rows) else None


def draw_maps(result: SeveralResult, images: Path) -> str:
    """The maps of one image and finding by every model that has maps, side by side, as HTML."""
    example = choose_example(result)
    if example is None:
        return ""
    image_id, label = example
    found = find_images(images, [image_id], result.dataset.to_id)
    if not found.items:
        return ""
    figures, drawn = [], set()
    for each in result.contenders:
        if each.weights.sha256 in drawn:
            continue  # asked in another wording
        drawn.add(each.weights.sha256)
        caption = f"<b>{escape(each.short_name)}</b>: {escape(each.map_kind or 'has no maps')}"
        image = _draw(each, found.items[0].path, label) if each.map_kind else ""
        figures.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    heading = f"<h2>One image by each: {escape(label)} in {escape(image_id)}</h2>"
    return heading + '<div class="maps">' + "".join(figures) + "</div>"


def _draw(contender: Contender, path: str, label: str) -> str:
    classifier = load_classifier(contender.settings)
    prompts = {label: contender.settings.prompts.prompts[label]}
    try:
        (grounding,) = classifier.ground(path, prompts=prompts, force=True)
    except CARZeroError as error:
        return f"<p>{escape(str(error))}</p>"
    from carzero.images import load_image

    marks = OverlayMarks(label, f"score {grounding.logit:.2f}", grounding.peak)
    pixels = load_image(path, force=True).pixels
    image = draw_overlay(pixels, grounding.heatmap, marks, kind=classifier.map_kind, long_side_px=_MAP_PX)
    data = io.BytesIO()
    image.save(data, format="PNG")
    coded = base64.b64encode(data.getvalue()).decode("ascii")
    return f'<img alt="{escape(label)}" src="data:image/png;base64,{coded}">'


def _to_csv(result: SeveralResult) -> str:
    """Rows of all contenders, their names in `group`, and the paired differences."""
    own = [
        {**row, "group": each.name} for each in result.contenders for row in each.result.rows if row["group"] == "all"
    ]
    different = [{**row.to_record(), "published": None} for row in result.differences]
    return format_csv([*own, *different])
