"""The report of a benchmark: one HTML file that needs nothing else, every text in it escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from carzero.core.html_page import build_figure, build_html_page, build_line, build_table
from carzero.core.outputs import new_files
from carzero.core.text_files import format_csv
from carzero.datasets.base import PUBLISHED_SOURCE, PublicDataset
from carzero.evaluation.benchmark.classification import BenchmarkResult
from carzero.evaluation.benchmark.manifest import BenchmarkManifest, BenchmarkRow, Task
from carzero.evaluation.benchmark.plots import draw_figures, to_png, to_svg
from carzero.evaluation.controls import ABNORMAL_GROUP, BASELINE
from carzero.records import Failure

_TITLES = {
    "classification": "zero-shot classification",
    "pointing": "grounding (pointing game)",
}

_COLUMNS = {
    "classification": (("auroc", "AUROC"), ("auprc", "AUPRC"), ("average_precision", "av. precision")),
    "pointing": (("pointing", "pointing"), ("iou", "IoU"), ("dice", "Dice"), ("cnr", "CNR"), ("ap@0.3", "AP at 0.3")),
}

# Further intervals of the first figure: heading, and what its rows' method says.
_SPANS = {"classification": (("DeLong", "DeLong"), ("Newcombe", "Newcombe")), "pointing": ()}

_CAPTIONS = {
    "forest": "Value and 95 % interval of each class (positives/images; hits/trials in the pointing game).",
    "roc": "ROC curve of each class, with its AUROC and 95 % interval; in grey those of the others.",
    "precision_recall": "Precision-recall curve of each class, with its average precision and 95 % interval; dotted: "
    "the share of positives, which chance reaches.",
    "reliability": "Probabilities against what came true, in bins of equal width; dotted: where both agree.",
}


def build_report(result: BenchmarkResult, figures: Mapping[str, bytes]) -> str:
    """Returns the report as HTML.

    Args:
        result: of the benchmark.
        figures: SVG by name.
    """
    manifest, dataset = result.manifest, result.dataset
    task = manifest["task"]
    title = f"{dataset.title}: {_TITLES[task]}"
    parts = [
        f'<p class="sub">{escape(_describe_run(manifest))}</p>',
        '<p class="note">Research software, not for clinical use. Scores are raw logits; they rank images within a '
        "class and are not probabilities unless a calibration is stated.</p>",
        "<h2>Result</h2>",
        _build_table(result, task),
        _build_published(task, dataset),
        _build_controls(result),
        _build_control(result) if task == "pointing" else "",
        "<h2>What to know before comparing</h2>",
        "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in manifest["notes"]) + "</ul>",
        *(build_figure(svg, "image/svg+xml", said := _CAPTIONS[name], escape(said)) for name, svg in figures.items()),
        _build_failures(result.failures),
        "<h2>Record</h2><details><summary>manifest.json</summary>",
        f"<pre>{escape(json.dumps(manifest, indent=2, ensure_ascii=False))}</pre></details>",
    ]
    return build_html_page(title, parts)


def _describe_run(manifest: BenchmarkManifest) -> str:
    weights = manifest.get("weights") or "weights not stated by the score file"
    hashed = f" ({str(manifest['weights_sha256'])[:12]})" if manifest.get("weights_sha256") else ""
    return (
        f"{manifest['images']} images; {weights}{hashed}; carzero {manifest['carzero_version']}; {manifest['date']}. "
        f"Intervals: {manifest['intervals']}."
    )


def _build_table(result: BenchmarkResult, task: Task) -> str:
    """One line a class and average: for each metric its value and intervals, and the published value of the first."""
    columns = _COLUMNS[task]
    found: dict[tuple[str, str], list[BenchmarkRow]] = {}
    for row in result.rows:
        if row["group"] == "all":
            found.setdefault((row["label"], row["metric"]), []).append(row)
    names = list(dict.fromkeys(label for label, metric in found if metric == columns[0][0]))
    counted = ("hits", "trials") if task == "pointing" else ("positives", "images")
    spans = _SPANS[task]
    head = [
        "",
        *counted,
        columns[0][1],
        *(title for title, _ in spans),
        "published",
        *(title for _, title in columns[1:]),
    ]
    lines = []
    for name in names:
        rows = found[name, columns[0][0]]
        first = rows[0]
        cells = [escape(name), str(first["n_pos"]), str(first["n"]), _write_figure(rows, digits=4)]
        for _, made in spans:
            own = [row for row in rows if made in row["method"]]
            cells.append(_write_span(own[0]) if own else "")
        cells.append("" if first["published"] is None else f"{first['published']:.3f}")
        cells += [_write_figure(found.get((name, metric), [])) for metric, _ in columns[1:]]
        lines.append(build_line(cells, "" if name in result.dataset.labels else "average"))
    few = "; Newcombe's where few patients have a positive: there the others hold less often than they say"
    few = few if task == "classification" else ""
    return (
        build_table(head, lines)
        + f'<p class="sub">Below a figure its 95 % interval (bootstrap where the record does not say '
        f"otherwise){few}. Published: {escape(PUBLISHED_SOURCE)}.</p>"
    )


def _build_controls(result: BenchmarkResult) -> str:
    """The AUROC of each class beside that among abnormal images and that of the baseline, as far as they were asked."""
    wanted = (
        ("AUROC", "all", "auroc"),
        ("among abnormal", ABNORMAL_GROUP, "auroc"),
        ("baseline", BASELINE, "auroc"),
        ("AUROC - baseline", f"all - {BASELINE}", "auroc_difference"),
        ("baseline among abnormal", f"{BASELINE}, {ABNORMAL_GROUP}", "auroc"),
    )
    found: dict[tuple[str, str, str], list[BenchmarkRow]] = {}
    for row in result.rows:
        found.setdefault((row["group"], row["label"], row["metric"]), []).append(row)
    kept = [each for each in wanted if any(group == each[1] for group, _, _ in found)]
    labels = [label for label in (*result.dataset.labels, "macro") if ("all", label, "auroc") in found]
    if len(kept) < 2:
        return ""
    lines = [
        build_line(
            [escape(label), *(_write_figure(found.get((group, label, metric), [])) for _, group, metric in kept)]
        )
        for label in labels
    ]
    table = build_table(["", *(title for title, _, _ in kept)], lines)
    said = [
        "Among abnormal: a finding against other findings only.",
        "Baseline: a logistic regression on eight statistics of files and grey levels, cross-validated, for which no "
        "finding was seen.",
    ]
    told = [
        each for each, word in zip(said, (ABNORMAL_GROUP, BASELINE), strict=True) if any(word in k[1] for k in kept)
    ]
    return f'<h2>What the figures hide</h2>\n{table}<p class="sub">{" ".join(told)}</p>'


def _write_figure(rows: Sequence[BenchmarkRow], digits: int = 3) -> str:
    """A figure with its first interval below, as HTML."""
    if not rows or rows[0]["value"] is None:
        return "-"
    span = "" if rows[0]["ci_low"] is None else f"<span>{_write_span(rows[0])}</span>"
    return f"{rows[0]['value']:.{digits}f}{span}"


def _write_span(row: BenchmarkRow) -> str:
    low, high = row["ci_low"], row["ci_high"]
    return "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _build_published(task: Task, dataset: PublicDataset) -> str:
    listed = dataset.list_published("pointing" if task == "pointing" else "auroc")
    if not listed:
        return ""
    models = "; ".join(f"{label} {model} {value:.3f}" for label, model, value in listed)
    return f'<p class="sub">Printed by papers: {escape(models)}.</p>'


def _build_control(result: BenchmarkResult) -> str:
    """How high maps peak with and without the finding."""
    names = ("peak_present", "peak_absent", "peak_auroc")
    found = {(row["label"], row["metric"]): row["value"] for row in result.rows}
    lines = []
    for label in (*result.dataset.labels, "macro"):
        cells = ["-" if (value := found[label, name]) is None else f"{value:.3f}" for name in names]
        lines.append(build_line([escape(label), *cells]))
    table = build_table(["", "peak, present", "peak, absent", "AUROC of the peak"], lines)
    return (
        f"<h2>Control: does a map peak higher where the finding is there?</h2>{table}"
        '<p class="sub">Peak: median over images of the highest cell over the '
        "map's mean cell. An AUROC of 0.5 says that the height of a peak tells nothing about "
        "presence.</p>"
    )


def _build_failures(failures: Sequence[Failure]) -> str:
    if not failures:
        return ""
    items = "".join(f"<li>{escape(each.image_id)}: {escape(each.reason)}</li>" for each in failures[:50])
    more = f"<li>and {len(failures) - 50} more</li>" if len(failures) > 50 else ""
    return f"<h2>{len(failures)} images were not scored</h2><ul>{items}{more}</ul>"


RESULT_FILES = ("metrics.csv", "metrics.json", "manifest.json", "report.html", *(f"{name}.png" for name in _CAPTIONS))


def save_result(result: BenchmarkResult, out: Path, *, overwrite: bool = True) -> list[Path]:
    """Writes metrics.csv, metrics.json (as `--json` prints), manifest.json, a PNG for each figure, and report.html.

    Args:
        result: of the benchmark.
        out: an existing folder.
        overwrite: whether results that are there are replaced; by default they are.

    Returns:
        the files, the report last.

    Raises:
        OutputError: they cannot be written, or are there and must stay.
        MissingExtraError: matplotlib is not installed.
    """
    metric = "pointing" if result.manifest["task"] == "pointing" else "auroc"
    figures = draw_figures(result.dataset.labels, result.rows, result.joined, metric)
    svg = {name: to_svg(figure) for name, figure in figures.items()}
    contents = {
        "metrics.csv": format_csv(result.rows).encode(),
        "metrics.json": (json.dumps(result.to_dict(), indent=2) + "\n").encode(),
        "manifest.json": (json.dumps(result.manifest, indent=2) + "\n").encode(),
        **{f"{name}.png": to_png(figure) for name, figure in figures.items()},
        "report.html": build_report(result, svg).encode(),
    }
    files = [out / name for name in contents]
    with new_files(files, overwrite=overwrite) as targets:
        for target, content in zip(targets, contents.values(), strict=True):
            target.write_bytes(content)
    return files
