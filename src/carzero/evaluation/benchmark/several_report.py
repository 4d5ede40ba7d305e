"""The page of a benchmark of several weights: one table, each class, what was asked, and maps side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from carzero.core.html_page import build_html_page, build_line, build_table
from carzero.core.outputs import make_folder, new_files, refuse_existing
from carzero.core.system import count_cores, read_processor
from carzero.core.text_files import format_csv
from carzero.evaluation.benchmark.classification import Progress, no_progress
from carzero.evaluation.benchmark.manifest import BenchmarkRow
from carzero.evaluation.benchmark.several import WORDINGS, Contender, SeveralResult, SeveralRun, remove_others
from carzero.evaluation.benchmark.several_maps import build_maps
from carzero.metrics.normality import NORMAL_SCORE

SEVERAL_FILES = ("comparison.json", "comparison.csv", "comparison.html")


def run_several(run: SeveralRun, progress: Progress = no_progress) -> SeveralResult:
    """Evaluates several weights, and writes the page and its tables where the run has an output.

    Args:
        run: what is compared.
        progress: called with the number of images of each; a context that yields `advance(done, failed)`.

    Raises:
        CARZeroError: settings that cannot work, or files that do not fit.
    """
    out = run.output
    if out.folder is None:
        return run.execute(progress)
    make_folder(out.folder)
    finished = (out.folder / name for name in SEVERAL_FILES)
    refuse_existing(finished, overwrite=out.overwrite or out.resume, resumable=True)
    result = run.execute(progress)
    save_several(result, run.images, out.folder, overwrite=out.overwrite or out.resume)
    if out.overwrite:
        remove_others(out.folder, result.contenders)
    return result


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
        "comparison.html": build_page(result, build_maps(result, images)),
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


def _write_ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


COLUMNS: dict[str, Callable[[SeveralResult, Contender], str]] = {
    "weights": lambda result, own: own.short_name,
    "prompts": lambda result, own: own.wording,
    "score kind": lambda result, own: own.settings.prompts.score_kind,
    "maps": lambda result, own: "yes" if own.map_kind else "none",
    "macro AUROC": lambda result, own: _write(find_row(own, "macro")),
    "difference to the first": _write_difference,
    "normal images, AUROC": lambda result, own: "" if (row := find_row(own, NORMAL_SCORE)) is None else _write(row),
    "ms an image": lambda result, own: _write_ms(1000 * own.cost.seconds_an_image),
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
    level = f"{100 * result.statistics.confidence:g} %"
    notes, processor = _join_notes(result.contenders), read_processor()[0]
    parts = [
        f'<p class="sub">carzero {escape(first.manifest["carzero_version"])}; {escape(first.manifest["date"])}. '
        f"Intervals are of {level}, from {drawn}; differences are paired: every round draws the same "
        f"{'studies' if (unit := first.manifest['resampled']) == 'study' else f'{unit}s'} for all.</p>",
        '<p class="note">Research software, not for clinical use. Scores of different models are on different scales: '
        "compare how they rank images, never their values.</p>",
        "<h2>All together</h2>",
        _table(*_parted(table_rows(result))),
        _list(
            [
                *(f"{name}: {meaning}." for name, meaning in WORDINGS.items()),
                "both: the authors' prompts are the common ones, or are the same sentences.",
                f"ms an image: from pixel values to scores, by {processor}, {count_cores()} cores; weights, MB: memory "
                "of the parameters.",
            ]
        ),
        "<h2>AUROC of each class</h2>",
        _table(("class", *(each.name for each in result.contenders)), _class_rows(result)),
        maps,
        f"<h2>What was asked, as for {escape(result.dataset.labels[0])}</h2>",
        _table(*_parted(list_asked(result))),
        "<h2>What to know before comparing</h2>",
        _list(notes),
    ]
    return build_html_page(title, parts)


def list_asked(result: SeveralResult) -> list[tuple[str, ...]]:
    """The headings, then for each contender the sentences about the first label, and how they become a score."""
    label, lines = result.dataset.labels[0], []
    for each in result.contenders:
        prompts = each.settings.prompts
        denied = prompts.entry(label).negative if prompts.score_kind == "logit_difference" else ()
        pool = each.settings.pool or each.weights.style.pool
        lines.append((each.name, "; ".join(prompts.prompts[label]), "; ".join(denied), pool))
    return [("weights, prompts", "asked", "less that of", "several prompts"), *lines]


def _join_notes(contenders: Sequence[Contender]) -> list[str]:
    """What is to be known of all, once; then of single ones, with the name. Of figures that are not shown, nothing."""
    of: dict[str, list[str]] = {}
    for each in contenders:
        for note in each.result.manifest["notes"]:
            if not note.startswith(("auprc ", "average_precision ")):
                of.setdefault(note, []).append(each.name)
    return [note if len(names) == len(contenders) else f"{' and '.join(names)}: {note}" for note, names in of.items()]


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _parted(rows: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], Sequence[tuple[str, ...]]]:
    return rows[0], rows[1:]


def _class_rows(result: SeveralResult) -> list[tuple[str, ...]]:
    named = [*result.dataset.labels, "macro", NORMAL_SCORE]
    labels = [label for label in named if any(find_row(each, label) for each in result.contenders)]
    return [(label, *(_write(find_row(each, label)) for each in result.contenders)) for label in labels]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return build_table(headings, [build_line([escape(cell) for cell in row]) for row in rows])


def _to_csv(result: SeveralResult) -> str:
    """Rows of all contenders, their names in `group`, and the paired differences."""
    own = [
        {**row, "group": each.name} for each in result.contenders for row in each.result.rows if row["group"] == "all"
    ]
    different = [{**row.to_record(), "published": None} for row in result.differences]
    return format_csv([*own, *different])
