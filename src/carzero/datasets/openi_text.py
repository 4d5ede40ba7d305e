"""Open-i's report files (ecgen-radiology): sections, headings and picture names out of XML that is not trusted.

The standard library's parser refuses nothing by itself: a document type declaration may define entities that expand to
gigabytes, or that name files of this machine. The released files have none, so any is refused, in text that is known to
be UTF-8 (in another encoding the word could hide), before a parser sees it; sizes are limited.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from carzero.errors import TableError, describe

_FILE_LIMIT_BYTES, _ARCHIVE_LIMIT_BYTES = 1 << 20, 1 << 28


@dataclass(frozen=True, slots=True)
class OpeniReport:
    """One report.

    Attributes:
        uid: its id, such as "CXR1".
        impression: the section as written, or "".
        findings: the section as written, or "".
        major: MeSH headings that readers assigned, as written, such as "Cardiomegaly/mild"; "normal" for none.
        automatic: headings found by a program.
        images: names of its pictures without suffix, such as "CXR1_1_IM-0001-3001".
    """

    uid: str
    impression: str
    findings: str
    major: tuple[str, ...]
    automatic: tuple[str, ...]
    images: tuple[str, ...]


def load_report_texts(place: Path) -> tuple[list[OpeniReport], list[str]]:
    """Reads a folder of reports (and those below it), or the archive NLMCXR_reports.tgz, which is not extracted.

    Returns:
        the reports in the order of their numbers, and "name: reason" of each file that is no report.

    Raises:
        TableError: there is no such place, the archive is broken or beyond all limits, or there are no .xml files.
    """
    reports, broken = [], []
    for name, content in _read_files(place):
        try:
            reports.append(_read_report(content))
        except ValueError as error:
            broken.append(f"{name}: {error}")
    if not reports and not broken:
        raise TableError(describe("There are no reports", got=str(place), expected="files ending in .xml"))
    return sorted(reports, key=lambda report: (len(report.uid), report.uid)), broken


def _read_files(place: Path) -> Iterator[tuple[str, bytes]]:
    """Yields names and the first megabyte, and a byte more where there is one."""
    if place.is_dir():
        for path in sorted(place.rglob("*.xml")):
            with path.open("rb") as file:
                yield str(path.relative_to(place)), file.read(_FILE_LIMIT_BYTES + 1)
        return
    try:
        with _open_archive(place) as file, tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                if member.isreg() and member.name.endswith(".xml") and (content := archive.extractfile(member)):
                    yield member.name, content.read(_FILE_LIMIT_BYTES + 1)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise TableError(
            describe(
                "The reports cannot be read", got=f"{place}: {error}", expected="a folder, or NLMCXR_reports.tgz, whole"
            )
        ) from error


@contextmanager
def _open_archive(place: Path) -> Iterator[Any]:
    with gzip.open(place) if place.suffix in (".tgz", ".gz") else place.open("rb") as file:
        yield _Limited(file)


class _Limited:
    """An archive's bytes up to a limit: a compressed kilobyte may stand for a megabyte."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, _ARCHIVE_LIMIT_BYTES

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise tarfile.TarError(f"more than {_ARCHIVE_LIMIT_BYTES} bytes")
        content: bytes = self._file.read(size)
        self._left -= len(content)
        return content


def _read_report(content: bytes) -> OpeniReport:
    if len(content) > _FILE_LIMIT_BYTES:
        raise ValueError(f"larger than {_FILE_LIMIT_BYTES} bytes")
    text = content.decode("utf-8-sig")  # a UnicodeDecodeError is a ValueError
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("it declares a document type, which may hide anything")
    try:
        tree = ElementTree.fromstring(text)  # noqa: S314 (no declaration is left)
    except ElementTree.ParseError as error:
        raise ValueError(f"no XML: {error}") from error
    uid = next((element.get("id", "") for element in tree.iter("uId")), "")
    if not uid:
        raise ValueError("no report of Open-i: it has no element uId with an id")
    sections = {str(element.get("Label", "")).upper(): _text(element) for element in tree.iter("AbstractText")}
    return OpeniReport(
        uid=uid,
        impression=sections.get("IMPRESSION", ""),
        findings=sections.get("FINDINGS", ""),
        major=tuple(filter(None, map(_text, tree.iterfind(".//MeSH/major")))),
        automatic=tuple(filter(None, map(_text, tree.iterfind(".//MeSH/automatic")))),
        images=tuple(filter(None, (element.get("id", "") for element in tree.iter("parentImage")))),
    )


def _text(element: ElementTree.Element) -> str:
    return (element.text or "").strip()
