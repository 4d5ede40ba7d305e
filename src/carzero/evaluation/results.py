"""Result tables as files: CSV, Parquet, JSON with the manifest inside, Markdown for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carzero.core.outputs import check_file, check_folder, check_parent, make_folder, new_files, refuse_existing
from carzero.core.run_record import format_manifest, manifest_path
from carzero.core.tables import write_csv
from carzero.errors import OutputError, describe
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


def check_result_path(path: Path, *, overwrite: bool | None = None) -> None:
    """Refuses an output that could not be written, before any work is done; a name without suffix is a folder.

    Args:
        path: see `save_results`.
        overwrite: whether results that are there are replaced; None does not look.

    Raises:
        OutputError: unknown suffix, a file where a folder is needed, the parent folder does not exist or cannot be
            written, or results that are there and must stay.
    """
    check_parent(path)
    if path.suffix and not path.is_dir():
        if path.suffix.lower() not in RESULT_SUFFIXES:
            raise OutputError(
                describe(
                    "The output's format is unknown",
                    got=str(path),
                    expected=f"a folder, or a name ending in {', '.join(RESULT_SUFFIXES)}",
                )
            )
        check_file(path, RESULT_SUFFIXES)
    else:
        check_folder(path)
    if overwrite is not None:
        refuse_existing(_list_files(path), overwrite=overwrite)


def _list_files(path: Path) -> list[Path]:
    if path.suffix and not path.is_dir():
        return [path]
    return [path / f"metrics{suffix}" for suffix in (".csv", ".md", ".json")]


def save_results(
    rows: Sequence[MetricRow], path: Path, manifest: Mapping[str, object], *, overwrite: bool = True
) -> list[Path]:
    """Writes a result table; its files replace older ones together, when all are complete.

    Args:
        rows: the table.
        path: a file (.csv, .parquet, .md: its manifest goes next to it; .json holds both), or a folder, made if it
            is not there, that gets metrics.csv, metrics.md and metrics.json.
        manifest: where the figures come from.
        overwrite: whether results that are there are replaced.

    Returns:
        the files written.

    Raises:
        OutputError: they cannot be written, or are there and must stay.
    """
    check_result_path(path)
    files = _list_files(path)
    make_folder(files[0].parent)
    beside = [] if any(file.suffix.lower() == ".json" for file in files) else [manifest_path(path)]
    with new_files(files, overwrite=overwrite, beside=beside) as targets:
        for file, target in zip(files, targets, strict=False):
            _write(rows, target, file.suffix.lower(), manifest)
        if beside:
            targets[-1].write_text(format_manifest(manifest), encoding="utf-8")
    return [*files, *beside]


def _write(rows: Sequence[MetricRow], target: Path, suffix: str, manifest: Mapping[str, object]) -> None:
    if suffix == ".json":
        target.write_text(json.dumps(to_payload(rows, manifest), indent=2) + "\n", encoding="utf-8")
    elif suffix == ".md":
        target.write_text(to_markdown(rows), encoding="utf-8")
    elif suffix == ".parquet":
        to_frame(rows).to_parquet(target, index=False)
    else:
        write_csv(to_frame(rows), target)
