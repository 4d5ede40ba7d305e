"""The report of a benchmark: one HTML file that needs nothing else, every text in it escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from carzero.core.atomic import replace_when_done
from carzero.core.text_files import format_csv
from carzero.datasets.base import PUBLISHED_SOURCE, PublicDataset
from carzero.evaluation.benchmark.classification import BenchmarkResult
from carzero.evaluation.benchmark.manifest import BenchmarkManifest, BenchmarkRow, Task
from carzero.evaluation.benchmark.plots import draw_figures, to_png, to_svg
from carzero.evaluation.controls import ABNORMAL_GROUP, BASELINE
from carzero.records import Failure

CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 82rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
p.sub, figcaption, td.faint { color: #616e7c; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: .22rem .55rem; text-align: right; vertical-align: top; border-bottom: 1px solid #e4e7eb; }
td, td span { white-space: nowrap; } td:first-child { white-space: normal; min-width: 8rem; }
td span { display: block; color: #616e7c; font-size: 12px; font-weight: 400; }
th { border-bottom: 2px solid #9aa5b1; font-weight: 600; } th:first-child, td:first-child { text-align: left; }
tr.average td { font-weight: 600; } figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; } pre { background: #f5f7fa; padding: 1rem; overflow-x: auto; font-size: 12px; }
.note { background: #fff8e6; border-left: 4px solid #f0b429; padding: .5rem 1rem; }
""".strip()

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
        f"<h1>{escape(title)}</h1>",
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
        *(_build_figure(name, svg) for name, svg in figures.items()),
        _build_failures(result.failures),
        "<h2>Record</h2><details><summary>manifest.json</summary>",
        f"<pre>{escape(json.dumps(manifest, indent=2, ensure_ascii=False))}</pre></details>",
    ]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>\n{CSS}\n</style></head>\n<body>\n{body}\n</body></html>\n"
    )


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
        kind = "" if name in result.dataset.labels else ' class="average"'
        lines.append(_build_line(cells, kind))
    few = "; Newcombe's where few patients have a positive: there the others hold less often than they say"
    few = few if task == "classification" else ""
    return (
        _build_rows(head, lines)
        + f'<p class="sub">Below a figure its 95 % interval (bootstrap where the record does not say '
        f"otherwise){few}. Published: {escape(PUBLISHED_SOURCE)}.</p>"
    )


def _build_rows(head: Sequence[str], lines: Sequence[str]) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "\n".join(lines)
    return f'<div class="wide"><table><thead><tr>{header}</tr></thead><tbody>\n{body}\n</tbody></table></div>\n'


def _build_line(cells: Sequence[str], kind: str = "") -> str:
    """A line of a table; the cells are HTML."""
    return f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


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
        _build_line(
            [escape(label), *(_write_figure(found.get((group, label, metric), [])) for _, group, metric in kept)]
        )
        for label in labels
    ]
    table = _build_rows(["", *(title for title, _, _ in kept)], lines)
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
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in (label, *cells)) + "</tr>")
    return (
        "<h2>Control: does a map peak higher where the finding is there?</h2>"
        "<table><thead><tr><th></th><th>peak, present</th><th>peak, absent</th><th>AUROC of the peak</th></tr></thead>"
        "<tbody>\n" + "\n".join(lines) + '\n</tbody></table>\n<p class="sub">Peak: median over images of the '
        "highest cell over the map's mean cell. An AUROC of 0.5 says that the height of a peak tells nothing about "
        "presence.</p>"
    )


def _build_figure(name: str, svg: bytes) -> str:
    data = base64.b64encode(svg).decode("ascii")
    caption = escape(_CAPTIONS[name])
    image = f'<img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _build_failures(failures: Sequence[Failure]) -> str:
    if not failures:
        return ""
    items = "".join(f"<li>{escape(each.image_id)}: {escape(each.reason)}</li>" for each in failures[:50])
    more = f"<li>and {len(failures) - 50} more</li>" if len(failures) > 50 else ""
    return f"<h2>{len(failures)} images were not scored</h2><ul>{items}{more}</ul>"


RESULT_FILES = ("metrics.csv", "metrics.json", "manifest.json", "report.html")  # and a PNG for each figure


def save_result(result: BenchmarkResult, out: Path) -> list[Path]:
    """Writes metrics.csv, metrics.json (as `--json` prints), manifest.json, a PNG for each figure, and report.html.

    Args:
        result: of the benchmark.
        out: an existing folder.

    Returns:
        the files, the report last.

    Raises:
        OutputError: they cannot be written.
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
    for name, content in contents.items():
        with replace_when_done(out / name) as target:
            target.write_bytes(content)
    return [out / name for name in contents]
