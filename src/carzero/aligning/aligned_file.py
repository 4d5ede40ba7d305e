"""Aligned reports read back from the file that a run has written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from carzero.errors import TableError, describe
from carzero.reports.schema import AlignedReport, Laterality, Presence, ReportFinding

__all__ = ["load_aligned"]

_TEXTS = ("finding", "presence", "location", "laterality", "severity", "sentence")


def load_aligned(path: Path) -> list[AlignedReport]:
    """Reads the output of `carzero reports align`; a report that stands in several rows (several pictures) once.

    Raises:
        TableError: the file cannot be read, a line is no aligned row, one report has two texts, or there is none.
    """
    reports: dict[str, AlignedReport] = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                report = _read_line(path, number, line)
                if reports.setdefault(report.report_id, report).text != report.text:
                    raise TableError(
                        describe(
                            f"Line {number} of {path} repeats a report with another text",
                            got=report.report_id,
                            expected="one text a report",
                        )
                    )
    except OSError as error:
        raise TableError(describe(f"{path} cannot be read", got=str(error), expected="aligned reports")) from error
    if not reports:
        raise TableError(describe(f"{path} holds no reports", expected="the output of carzero reports align"))
    return list(reports.values())


def _read_line(path: Path, number: int, line: bytes) -> AlignedReport:
    try:
        row = json.loads(line)
        texts = [_text(row, name) for name in ("report_id", "text", "backend")]
        findings = tuple(_read_finding(entry) for entry in row["structured"])
        return AlignedReport(texts[0], texts[1], findings, tuple(map(str, row["sentences"])), texts[2])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TableError(
            describe(
                f"Line {number} of {path} is no aligned report",
                got=line[:100],
                expected="a line of carzero reports align's output",
                then="align the reports first",
            )
        ) from error


def _read_finding(entry: Mapping[str, Any]) -> ReportFinding:
    values = {name: _text(entry, name) for name in _TEXTS}
    if values["presence"] not in get_args(Presence) or values["laterality"] not in get_args(Laterality):
        raise ValueError("an unknown presence or side")
    start, end = entry["span"]
    return ReportFinding(span=(int(start), int(end)), **values)  # type: ignore[arg-type]


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value
