"""Open-i's report files: MeSH headings and picture names out of XML that is not trusted.

A document type declaration is refused before anything in it takes effect, so entities are never expanded.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from carzero.errors import TableError, describe

_LIMIT_BYTES, _LIMIT_FILES = 1 << 20, 20_000


@dataclass(slots=True)
class ReportHeadings:
    """One report: its id ("CXR1"), its headings in lower case, sorted and unique, and the names of its pictures."""

    uid: str = ""
    major: list[str] = field(default_factory=list)
    automatic: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)


class _Declared(Exception):  # noqa: N818 (never leaves this module)
    """The document declares a type."""


def load_reports(path: Path) -> list[ReportHeadings]:
    """Reads a folder of reports, or the archive NLMCXR_reports.tgz, in the order of the reports' numbers.

    Raises:
        TableError: nothing to read, a file too large or too many, or a file that is no report.
    """
    reports = [_read_report(name, content) for name, content in _open_all(path)]
    if not reports:
        raise TableError(describe("There are no reports", got=str(path), expected="files ending in .xml"))
    return sorted(reports, key=lambda report: (len(report.uid), report.uid))


def _open_all(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        if path.is_dir():
            for number, file in enumerate(sorted(path.rglob("*.xml"))):
                _check_size(file.name, file.stat().st_size, number)
                yield file.name, file.read_bytes()
            return
        with tarfile.open(path, mode="r:*") as archive:
            number = 0
            for member in archive:
                if member.isfile() and member.name.endswith(".xml"):
                    _check_size(member.name, member.size, number)
                    content = archive.extractfile(member)
                    number += 1
                    yield member.name, b"" if content is None else content.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        raise TableError(
            describe(f"The reports {path} cannot be read", got=str(error), expected="a folder, or NLMCXR_reports.tgz")
        ) from error


def _check_size(name: str, size: int, number: int) -> None:
    if size > _LIMIT_BYTES or number >= _LIMIT_FILES:
        raise TableError(
            describe(
                f"{name} is too large, or one of too many",
                got=f"{size} bytes, number {number + 1}",
                expected=f"at most {_LIMIT_BYTES} bytes in at most {_LIMIT_FILES} files",
            )
        )


def _read_report(name: str, content: bytes) -> ReportHeadings:
    report, place, text = ReportHeadings(), [], [""]

    def start(tag: str, attributes: dict[str, str]) -> None:
        place.append(tag)
        text[0] = ""
        if tag == "uId":
            report.uid = attributes.get("id", "")
        elif tag == "parentImage":
            report.images.append(attributes.get("id", ""))

    def end(tag: str) -> None:
        if place[-2:] == ["MeSH", "major"]:
            report.major.append(text[0].lower())
        elif place[-2:] == ["MeSH", "automatic"]:
            report.automatic.append(text[0].lower())
        place.pop()

    def characters(data: str) -> None:
        text[0] += data

    def refuse(*_: object) -> None:
        raise _Declared

    parser = expat.ParserCreate()
    parser.buffer_text = True  # else text full of references comes in pieces without number
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, characters
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, _Declared) as error:
        reason = "a document type declaration" if isinstance(error, _Declared) else str(error)
        raise TableError(describe(f"{name} cannot be read as a report", got=reason, expected="plain XML")) from error
    if not report.uid:
        raise TableError(describe(f"{name} is no report of Open-i", expected="an element uId with an id"))
    report.major, report.automatic = sorted(set(report.major)), sorted(set(report.automatic))
    return report
