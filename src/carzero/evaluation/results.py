"""Result tables as files: CSV, Parquet, JSON with the manifest inside, Markdown for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carzero.core.atomic import replace_when_done
from carzero.core.run_record import manifest_path
from carzero.errors import TableError, describe
from carzero.metrics.rows import COLUMNS, MetricRow

if TYPE_CHECKING:
    import pandas as pd


RESULT_SUFFIXES = (".csv", ".parquet", ".json", ".md")


def to_payload(rows: Sequence[MetricRow], manifest: Mapping[str, object]) -> dict[str, object]:
    """Rows and manifest as plain values: {"metrics": [...], "manifest": {...}}; NaN becomes None."""
    return {"metrics": [row.to_record() for row in rows], "manifest": dict(manifest)}


def to_frame(rows: Sequence[MetricRow]) -> pd.DataFrame:
    """Rows as a pandas table with the columns of `MetricRow`."""
    import pandas as pd

    return pd.DataFrame([{name: getattr(row, name) for name in COLUMNS} for row in rows], columns=list(COLUMNS))


def to_markdown(rows: Sequence[MetricRow]) -> str:
    """Rows as a Markdown table: figures with four digits behind the point, intervals in brackets."""
    lines = ["| group | label | metric | value | interval | n | positives | threshold | method |", "|---" * 9 + "|"]
    for row in rows:
        interval = "" if math.isnan(row.ci_low) else f"[{row.ci_low:.4f}, {row.ci_high:.4f}]"
        threshold = "" if math.isnan(row.threshold) else f"{row.threshold:.4g}"
        cells = (
            row.group,
            row.label,
            row.metric,
            f"{row.value:.4f}",
            interval,
            row.n,
            row.n_pos,
            threshold,
            row.method,
        )
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def check_result_path(path: Path) -> None:
    """Refuses an output that could not be written, before any work is done; a name without suffix is a folder.

    Raises:
        TableError: unknown suffix, a file where a folder is needed, or the parent folder does not exist.
    """
    if path.suffix and not path.is_dir() and path.suffix.lower() not in RESULT_SUFFIXES:
        raise TableError(
            describe(
                "The output's format is unknown",
                got=str(path),
                expected=f"a folder, or a name ending in {', '.join(RESULT_SUFFIXES)}",
            )
        )
    if not path.suffix and path.exists() and not path.is_dir():
        raise TableError(describe("The output folder is a file", got=str(path), then="name another"))
    if not path.parent.is_dir():
        raise TableError(
            describe("The output's folder does not exist", got=str(path.parent), then="create it, or name another")
        )


def save_results(rows: Sequence[MetricRow], path: Path, manifest: Mapping[str, object]) -> list[Path]:
    """Writes a result table; each file replaces an older one only when it is complete.

    Args:
        rows: the table.
        path: a file (.csv, .parquet, .md: its manifest lies beside it; .json holds both), or a folder, made if it is
            not there, that gets metrics.csv, metrics.md and metrics.json.
        manifest: where the figures come from.

    Returns:
        the files written.
    """
    check_result_path(path)
    if path.suffix and not path.is_dir():
        files = [path]
    else:
        path.mkdir(exist_ok=True)
        files = [path / f"metrics{suffix}" for suffix in (".csv", ".md", ".json")]
    for file in files:
        with replace_when_done(file) as target:
            _write(rows, target, file.suffix.lower(), manifest)
    if not any(file.suffix.lower() == ".json" for file in files):
        files.append(manifest_path(path))
        with replace_when_done(files[-1]) as target:
            target.write_text(json.dumps(dict(manifest), indent=2) + "\n", encoding="utf-8")
    return files


def _write(rows: Sequence[MetricRow], target: Path, suffix: str, manifest: Mapping[str, object]) -> None:
    if suffix == ".json":
        target.write_text(json.dumps(to_payload(rows, manifest), indent=2) + "\n", encoding="utf-8")
    elif suffix == ".md":
        target.write_text(to_markdown(rows), encoding="utf-8")
    elif suffix == ".parquet":
        to_frame(rows).to_parquet(target, index=False)
    else:
        to_frame(rows).to_csv(target, index=False)
