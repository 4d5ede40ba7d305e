"""Measures the rules that read reports against the headings that readers gave to the Open-i reports.

    python benchmarks/reports_openi.py NLMCXR_reports.tgz [--half HALF] [--json OUT] [--show FINDING]

The truth is what two readers coded from each report (MeSH "major" headings); reports_openi.yaml says which heading is
which finding. A finding counts where the aligner calls it present. The reports are split in two halves by a hash of
their id: the rules were developed on the first only, so the held-out half is the figure to quote. `--show` lists the
disagreements about one finding (development half only); the reports' licence forbids to publish their text.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import yaml

from carzero.reports.agreement import compare_truth, macro_f1, report_presence
from carzero.reports.rules import RuleAligner
from carzero.reports.schema import StructuredReport

HALVES = ("development", "held-out", "all")
SIDES = frozenset({"left", "right", "bilateral"})
_MAP = Path(__file__).with_suffix(".yaml")
_MOST_BYTES = 1_000_000  # of one report's file


@dataclass(frozen=True)
class CodedReport:
    """A report and its headings, such as "Opacity/lung/base/left"."""

    uid: str
    text: str
    headings: tuple[str, ...]

    @property
    def half(self) -> str:
        """The half that it belongs to."""
        return "development" if hashlib.sha256(self.uid.encode()).digest()[0] % 2 == 0 else "held-out"


def load_reports(archive: Path) -> list[CodedReport]:
    """Reads the archive of XML files as it is published."""
    with tarfile.open(archive) as tar:
        files = (tar.extractfile(member) for member in tar if member.isfile() and member.name.endswith(".xml"))
        reports = [read_report(file.read(_MOST_BYTES)) for file in files if file]
    return sorted(reports, key=lambda report: (len(report.uid), report.uid))


def read_report(content: bytes) -> CodedReport:
    """Decodes one file; its sections become text under headings."""
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError("a report declares entities, and none is ever expanded")
    root = ElementTree.fromstring(content)  # noqa: S314 - without entities there is nothing to expand
    sections = ((part.get("Label", ""), (part.text or "").strip()) for part in root.iter("AbstractText"))
    text = "\n\n".join(f"{label}: {body}" for label, body in sections if body)
    headings = tuple((heading.text or "").strip() for heading in root.findall("MeSH/major"))
    return CodedReport(root.find("uId").get("id"), text, headings)


def matches(heading: str, row: Mapping[str, Any]) -> bool:
    """Whether a heading is one that a row of the map names."""
    subject, *qualifiers = heading.split("/")
    wanted = [row["with"], row["and"]] if "and" in row else [row["with"]] if "with" in row else []
    return (
        subject == row["subject"]
        and all(set(any_of) & set(qualifiers) for any_of in wanted)
        and not set(row.get("without", ())) & set(qualifiers)
    )


def coded(report: CodedReport, entry: Mapping[str, Any]) -> list[str]:
    """The headings of a report that belong to a class."""
    return [heading for heading in report.headings if any(matches(heading, row) for row in entry["headings"])]


def names_of(name: str, entry: Mapping[str, Any]) -> frozenset[str]:
    """The findings of our vocabulary that count as a class."""
    return frozenset(entry.get("findings", [name]))


def side_agreement(
    reports: Iterable[CodedReport], aligned: Iterable[StructuredReport], classes: Mapping[str, Any]
) -> tuple[int, int]:
    """Of the findings that both give and whose headings give a side: how many have the same side, and how many."""
    same = total = 0
    for report, reading in zip(reports, aligned, strict=True):
        for name, entry in classes.items():
            found = [f for f in reading.findings if f.finding in names_of(name, entry) and f.presence == "present"]
            told = {word for heading in coded(report, entry) for word in heading.split("/")} & SIDES
            if found and told:
                total += 1
                same += one_side(told) == one_side({f.laterality for f in found} - {""})
    return same, total


def wrongly_denied(
    reports: Iterable[CodedReport], aligned: Iterable[StructuredReport], classes: Mapping[str, Any]
) -> tuple[int, int]:
    """Of the findings that readers coded and the rules speak of: how many are read as absent alone, and how many."""
    denied = total = 0
    for report, reading in zip(reports, aligned, strict=True):
        verdicts = report_presence(reading.findings)
        for name, entry in classes.items():
            read = {verdicts[one] for one in names_of(name, entry) if one in verdicts}
            if coded(report, entry) and read:
                total += 1
                denied += read == {"absent"}
    return denied, total


def one_side(sides: set[str]) -> str:
    """Left and right together are bilateral."""
    return "bilateral" if len(sides) > 1 else next(iter(sides), "")


def measure(reports: list[CodedReport], aligned: list[StructuredReport], classes: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of one half."""
    truth = {report.uid: {name: bool(coded(report, entry)) for name, entry in classes.items()} for report in reports}
    names = {name: names_of(name, entry) for name, entry in classes.items()}
    scores = compare_truth(aligned, truth, names)
    doubted = compare_truth(aligned, truth, names, uncertain_as=True)
    same, total = side_agreement(reports, aligned, classes)
    denied, spoken = wrongly_denied(reports, aligned, classes)
    normal = [reading for report, reading in zip(reports, aligned, strict=True) if report.headings == ("normal",)]
    return {
        "reports": len(reports),
        "macro_f1": macro_f1(scores),
        "classes": sum(score.positives >= 20 for score in scores),
        "macro_f1_with_uncertain": macro_f1(doubted),
        "side_agreement": same / total,
        "sided": total,
        "wrongly_denied": denied,
        "coded_and_spoken_of": spoken,
        "normal_reports": len(normal),
        "normal_reports_with_a_present_finding": sum(
            any(f.presence == "present" for f in reading.findings) for reading in normal
        ),
        "scores": [score.to_dict() for score in sorted(scores, key=lambda score: -score.positives)],
    }


def show(
    reports: list[CodedReport], aligned: list[StructuredReport], name: str, entry: Mapping[str, Any]
) -> Iterator[str]:
    """Lines on every disagreement about one class."""
    for report, reading in zip(reports, aligned, strict=True):
        found = [f for f in reading.findings if f.finding in names_of(name, entry)]
        hit = any(f.presence == "present" for f in found)
        if hit != bool(coded(report, entry)):
            yield f"{report.uid} {'found' if hit else 'missed'}; coded {'; '.join(report.headings)}"
            yield from (f"    {f.presence}: {f.sentence}" for f in found)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--half", choices=HALVES, action="append", help="one or more; all three where not given")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--show")
    options = parser.parse_args()
    classes = yaml.safe_load(_MAP.read_text(encoding="utf-8"))["classes"]
    reports = load_reports(options.archive)
    if options.show:
        reports = [report for report in reports if report.half == "development"]
    aligner = RuleAligner()
    aligner.align("", "")  # the lexicon is built once, on first use
    start = time.process_time()
    aligned = [aligner.align(report.uid, report.text) for report in reports]
    seconds = time.process_time() - start
    if options.show:
        sys.stdout.writelines(f"{line}\n" for line in show(reports, aligned, options.show, classes[options.show]))
        return
    results: dict[str, Any] = {"reports_per_second": len(reports) / seconds}
    for half in options.half or HALVES:
        kept = [index for index, report in enumerate(reports) if half in ("all", report.half)]
        result = measure([reports[i] for i in kept], [aligned[i] for i in kept], classes)
        results[half] = result
        table = pd.DataFrame(result["scores"])
        print(f"\n{half}: {result['reports']} reports\n{table.round(3).to_string(index=False)}")
        print({key: value for key, value in result.items() if key != "scores"})
    print(f"\n{results['reports_per_second']:.0f} reports a second on one core")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
