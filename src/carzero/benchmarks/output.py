"""What a benchmark leaves in its folder: table, record, pictures, report."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from carzero.benchmarks.plots import draw_figures, to_png, to_svg
from carzero.benchmarks.report import build_report
from carzero.benchmarks.runner import BenchmarkResult
from carzero.data.atomic import replace_when_done

__all__ = ["save_result"]


def save_result(result: BenchmarkResult, out: Path) -> list[Path]:
    """Writes metrics.csv, metrics.json (as `--json` prints), manifest.json, a PNG for each figure, and report.html.

    Args:
        result: of the benchmark.
        out: an existing folder.

    Returns:
        the files, the report last.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    metric = "pointing" if result.manifest["task"] == "pointing" else "auroc"
    figures = draw_figures(result.protocol.labels, result.rows, result.aligned, metric)
    svg = {name: to_svg(figure) for name, figure in figures.items()}
    contents = {
        "metrics.csv": _to_csv(result).encode(),
        "metrics.json": (json.dumps(result.to_dict(), indent=2) + "\n").encode(),
        "manifest.json": (json.dumps(result.manifest, indent=2) + "\n").encode(),
        **{f"{name}.png": to_png(figure) for name, figure in figures.items()},
        "report.html": build_report(result, svg).encode(),
    }
    for name, content in contents.items():
        with replace_when_done(out / name) as target:
            target.write_bytes(content)
    return [out / name for name in contents]


def _to_csv(result: BenchmarkResult) -> str:
    """The tidy table; what is undefined stays empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(result.rows[0]))
    writer.writeheader()
    writer.writerows(result.rows)
    return text.getvalue()
