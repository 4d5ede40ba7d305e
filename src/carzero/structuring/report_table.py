"""Rows of reports: what a user's table or release holds, ready to be structured and passed on to a training table."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from carzero.core.columns import Cells
from carzero.core.documents import parse_json_object
from carzero.core.tables import load_table
from carzero.data.pairs import PAIR_COLUMNS
from carzero.datasets.openi import load_reports
from carzero.errors import TableError, describe, refuse_broken
from carzero.reports.schema import ReportFinding, StructuredReport
from carzero.reports.vocabulary import Laterality, Presence

if TYPE_CHECKING:
    import pandas as pd


# What an aligned row adds; columns of these names in the input are replaced.
ALIGNED_COLUMNS = ("report_id", "text", "structured", "sentences", "backend", "fallback")
ROW_COLUMNS = ("report_id", *PAIR_COLUMNS)
_KEYS = ("report_id", "study_id", "image", "path")
_IMAGE_COLUMNS = ("image", "path")
_ARCHIVES = (".tgz", ".gz", ".tar")
_MOST_CHARS = 2**20  # of a report; a longer text is a broken table (a quotation mark that is not closed) and no report
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One row of the input.

    Attributes:
        report_id: the report's key; several images of a study may share it.
        text: the report, without blanks around it.
        carried: the row's other columns, as plain values.
    """

    report_id: str
    text: str
    carried: dict[str, object] = field(default_factory=dict)


def load_report_rows(
    path: Path, out_folder: Path, columns: Mapping[str, str] | None = None
) -> tuple[list[ReportRow], list[str]]:
    """Reads a table of reports, or the reports of Open-i as they are released.

    Args:
        path: a table, see `load_table_rows`; or a folder of XML reports, or NLMCXR_reports.tgz.
        out_folder: where the aligned table will lie.
        columns: of a table: name in our schema to name in the file, such as {"text": "report"}.

    Returns:
        the rows, and "name: reason" of each file that is not a report.

    Raises:
        TableError: as `load_table_rows`; or a release that cannot be read.
    """
    if path.is_dir() or path.suffix.lower() in _ARCHIVES:
        if columns:
            raise TableError(describe("Open-i's reports have no columns to rename", got=dict(columns)))
        return _load_openi(path)
    return load_table_rows(path, out_folder, columns), []


def load_table_rows(path: Path, out_folder: Path, columns: Mapping[str, str] | None = None) -> list[ReportRow]:
    """Reads a table of reports.

    The text is the column `text`, or `findings` and `impression` under headings. The key is the first of the columns
    `report_id`, `study_id`, `image`, `path` that has any value. Every other column is carried on under its name.

    Args:
        path: .csv, .tsv, .jsonl, .json or .parquet.
        out_folder: where the aligned table will lie; relative paths of images are made to hold from there.
        columns: name in our schema to name in the file, such as {"text": "report"}.

    Raises:
        TableError: the table cannot be read, lacks a text or a key column, has a row without key, no row, or a text of
            more than 1,048,576 characters.
    """
    frame = load_table(path, as_text=True)
    renamed = dict(columns or {})
    cells = Cells(frame, path, ROW_COLUMNS, renamed)
    keys = _read_keys(cells)
    texts = _read_texts(cells)
    names = {given: ours for ours, given in renamed.items()}
    taken = {renamed.get("text", "text"), *ALIGNED_COLUMNS}
    kept = [str(name) for name in frame.columns if name not in taken and names.get(name) not in ALIGNED_COLUMNS]
    values = {names.get(name, name): [_plain(value) for value in _cells(frame[name])] for name in kept}
    for name in set(_IMAGE_COLUMNS) & set(values):
        values[name] = [_seen_from(out_folder, path.parent, value) for value in values[name]]
    carried = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)] or [{} for _ in keys]
    return [ReportRow(*row) for row in zip(keys, texts, carried, strict=True)]


def load_labels(path: Path, columns: Mapping[str, str] | None = None) -> list[tuple[str, list[str], list[str]]]:
    """Reads (key, present findings, absent findings) of each row of a table; see `load_table_rows` for keys.

    Raises:
        TableError: the table cannot be read, lacks a key or both other columns, or has a row without key.
    """
    cells = Cells(load_table(path, as_text=True), path, ROW_COLUMNS, columns or {})
    keys = _read_keys(cells)
    if "present" not in cells and "absent" not in cells:
        raise _lacking(cells, "the findings: present, absent or both", "present=findings")
    return list(zip(keys, cells.lists("present", "|"), cells.lists("absent", "|"), strict=True))


def _load_openi(place: Path) -> tuple[list[ReportRow], list[str]]:
    """One row a report; a report counts as a patient, as the release names none."""
    reports, broken = load_reports(place)
    rows = [
        ReportRow(
            report.uid,
            "\n".join(_headed(report.findings, report.impression)),
            {
                "study_id": report.uid,
                "patient_id": report.uid,
                "findings": report.findings,
                "impression": report.impression,
                "images": list(report.images),
                "mesh": list(report.major),
            },
        )
        for report in reports
    ]
    if not rows:
        raise TableError(describe(f"{place} holds no report that can be read", got=broken[:_SHOWN]))
    return rows, broken


def _read_keys(cells: Cells) -> list[str]:
    given = {name: texts for name in _KEYS if name in cells and any(texts := cells.texts(name))}
    if len(cells) and not given:
        raise _lacking(cells, f"a key: one of {', '.join(_KEYS)}", "report_id=accession")
    named, keys = next(iter(given.items()), ("", []))
    if not keys:
        raise TableError(describe(f"{cells.path} has no rows", expected="one row per report"))
    if empty := [row for row, key in enumerate(keys, start=1) if not key]:
        shown = ", ".join(map(str, empty[:_SHOWN])) + (", ..." if len(empty) > _SHOWN else "")
        raise TableError(
            describe(f"{cells.path} has {len(empty)} rows without {named}: {shown}", expected="one key each")
        )
    return keys


def _read_texts(cells: Cells) -> list[str]:
    if "text" in cells:
        texts = cells.texts("text")
    elif "findings" in cells or "impression" in cells:
        sections = zip(cells.texts("findings"), cells.texts("impression"), strict=True)
        texts = ["\n".join(_headed(findings, impression)) for findings, impression in sections]
    else:
        raise _lacking(cells, "the report: text, or findings and impression", "text=report")
    for row, text in enumerate(texts, start=1):
        if len(text) > _MOST_CHARS:
            raise TableError(
                describe(
                    f"The text of row {row} of {cells.path} is too long for a report",
                    got=f"{len(text)} characters",
                    expected=f"{_MOST_CHARS} at most",
                    then="look for a quotation mark that is not closed, or name the right column with --column",
                )
            )
    return texts


def _headed(findings: str, impression: str) -> list[str]:
    return [f"{name}: {text}" for name, text in (("FINDINGS", findings), ("IMPRESSION", impression)) if text]


def _lacking(cells: Cells, what: str, example: str) -> TableError:
    return TableError(
        describe(
            f"{cells.path} lacks {what}",
            got=cells.columns,
            then=f"say which column it is, such as --column {example}",
        )
    )


def _seen_from(folder: Path, origin: Path, value: object) -> object:
    """A path relative to `origin` as it reads from `folder`; whatever else a cell holds stays."""
    if not isinstance(value, str) or not value or Path(value).is_absolute() or folder.resolve() == origin.resolve():
        return value
    return os.path.relpath(origin / value, folder)


def _cells(column: pd.Series) -> list[object]:
    return column.astype(object).where(column.notna(), None).tolist()


def _plain(value: object) -> object:
    """A cell as JSON can hold it: None for what is not a number, whole numbers without a point, lists for arrays."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such number
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


_TEXTS = ("finding", "presence", "location", "laterality", "severity", "sentence")


def load_aligned(path: Path) -> list[StructuredReport]:
    """Reads the output of `carzero reports align`; a report that stands in several rows (several images) once.

    Raises:
        TableError: the file cannot be read, a line is not an aligned row, one report has two texts, or there is none.
    """
    reports: dict[str, StructuredReport] = {}
    with refuse_broken(f"{path} cannot be read", error=TableError, expected="aligned reports"), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            with refuse_broken(
                f"Line {number} of {path} is not an aligned report",
                error=TableError,
                got=line[:100],
                expected="a line of carzero reports align's output",
                then="align the reports first",
            ):
                report = to_aligned(parse_json_object(line))
            if reports.setdefault(report.report_id, report).text != report.text:
                raise TableError(
                    describe(
                        f"Line {number} of {path} repeats a report with another text",
                        got=report.report_id,
                        expected="one text per report",
                    )
                )
    if not reports:
        raise TableError(describe(f"{path} holds no reports", expected="the output of carzero reports align"))
    return list(reports.values())


def to_aligned(row: Mapping[str, object]) -> StructuredReport:
    """Reads a row of the output of `carzero reports align`.

    Raises:
        ValueError: it is not such a row; KeyError: a part is missing.
    """
    texts = [_text(row, name) for name in ("report_id", "text", "backend")]
    findings, sentences = row["structured"], row["sentences"]
    if not isinstance(findings, list) or not isinstance(sentences, list):
        raise ValueError("structured or sentences is not a list")
    return StructuredReport(
        texts[0], texts[1], tuple(map(_read_finding, findings)), tuple(map(str, sentences)), texts[2]
    )


def _read_finding(entry: object) -> ReportFinding:
    if not isinstance(entry, dict):
        raise ValueError("a finding that is not an object")
    values = {name: _text(entry, name) for name in _TEXTS}
    if values["presence"] not in get_args(Presence) or values["laterality"] not in get_args(Laterality):
        raise ValueError("an unknown presence or side")
    span = entry["span"]
    if not isinstance(span, list) or len(span) != 2 or not all(type(edge) is int for edge in span):
        raise ValueError("a span that is not two numbers")
    return ReportFinding(span=(span[0], span[1]), **values)  # type: ignore[arg-type]


def _text(row: Mapping[str, object], name: str) -> str:
    value = row[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} is not text")
    return value
