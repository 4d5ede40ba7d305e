"""Files of public releases: images found by name, tables, texts and members of archives, all within limits."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from carzero.core.text_files import decode_text, find_encoding, named_encoding
from carzero.datasets.base import IMAGE_SUFFIXES, PublicDataset, stem
from carzero.errors import TableError, describe, refuse_broken
from carzero.records import ImageItem


@dataclass(frozen=True, slots=True)
class FoundImages:
    """Images of a test set: what was found, in the set's order, and the ids that were not."""

    items: list[ImageItem]
    missing: list[str]


def find_images(folder: Path, images: Sequence[str], to_id: Callable[[str], str]) -> FoundImages:
    """Finds images by their ids in a folder and everything below it.

    An image in another format is taken if its name is the same up to the suffix; the exact name goes first.

    Raises:
        TableError: no such folder, or two files could be the same image.
    """
    if not folder.is_dir():
        raise TableError(describe("There is no such folder of images", got=str(folder), then="check --images"))
    exact: dict[str, list[Path]] = {}
    loose: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            found = to_id(path.relative_to(folder).as_posix())
            exact.setdefault(found, []).append(path)
            loose.setdefault(stem(found), []).append(path)
    items, missing = [], []
    for image_id in images:
        candidates = exact.get(image_id) or loose.get(stem(image_id)) or []
        if len(candidates) > 1:
            raise TableError(
                describe(
                    f"{len(candidates)} files could be the image {image_id}",
                    got=[str(path) for path in candidates[:3]],
                    expected="each image once",
                    then="name the folder that holds the ones to use",
                )
            )
        if candidates:
            items.append(ImageItem(image_id, str(candidates[0]), str(candidates[0])))
        else:
            missing.append(image_id)
    return FoundImages(items, missing)


def find_label_files(folder: Path, dataset: PublicDataset) -> list[Path]:
    """Finds a set's label files by their official names, beside the images or below.

    Raises:
        TableError: none is there, or two of one name.
    """
    everything = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    found = []
    for pattern in dataset.label_files:
        matching = [path for path in everything if fnmatch(path.name, pattern)]
        if len(matching) > 1:
            raise TableError(
                describe(
                    f"Several files could be the labels of {dataset.title}",
                    got=[str(path) for path in matching[:3]],
                    expected=f"one {pattern}",
                    then="name them with --labels",
                )
            )
        found += matching
    if not found:
        raise TableError(
            describe(
                f"The labels of {dataset.title} are not given and not found",
                got=str(folder),
                expected=f"a file named {' or '.join(dataset.label_files)}",
                then="name them with --labels",
            )
        )
    return found


REPORT_LIMIT_BYTES = 1 << 20
_TABLE_LIMIT_BYTES, _LIMIT_ROWS = 1 << 29, 1_000_000  # the largest release, MIMIC-CXR, has 377,110 images


def find_one(folder: Path, pattern: str) -> Path | None:
    """Returns the one file of a release that fits a pattern, plain or gzipped; None if there is none.

    Raises:
        TableError: there are several of different names.
    """
    found = sorted([*folder.glob(pattern), *folder.glob(f"{pattern}.gz")])
    if len({path.name.removesuffix(".gz") for path in found}) > 1:
        raise TableError(
            describe(f"{folder} holds several releases", got=[path.name for path in found], expected=f"one {pattern}")
        )
    return found[0] if found else None


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yields the rows of a CSV file, gzipped or not, values as text, one after another as they are asked for.

    Raises:
        TableError: the file is broken, lacks columns, or has more than 512 MiB or a million rows.
    """
    broken = refuse_broken(f"{path} cannot be read", error=TableError, expected="the file as it was released")
    with broken, named_encoding(), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        limited = io.BufferedReader(_Limited(file, _TABLE_LIMIT_BYTES))
        encoding = find_encoding(limited.peek(4)[:4])
        reader = csv.DictReader(io.TextIOWrapper(limited, encoding=encoding, newline=""))
        names = list(reader.fieldnames or ())
        if lacking := [column for column in columns if column not in names]:
            raise ValueError(f"no columns {', '.join(lacking)}")
        for number, row in enumerate(reader):
            if number == _LIMIT_ROWS:
                raise ValueError(f"more than {_LIMIT_ROWS:,} rows")
            yield {column: (row[column] or "").strip() for column in names}


def decode_report(content: bytes) -> str:
    """Returns a report's text.

    Raises:
        ValueError: it is larger than 1 MiB, or in an encoding that would have to be guessed.
    """
    if len(content) > REPORT_LIMIT_BYTES:
        raise ValueError(f"it is larger than {REPORT_LIMIT_BYTES} bytes")
    return decode_text(content)


# A release has 3,955 reports of some kilobytes.
_ARCHIVE_LIMIT_BYTES, _LIMIT_FILES = 1 << 28, 20_000


def read_members(place: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Yields names and contents of the files in a folder and below it, or in a tar archive, which is not extracted.

    Args:
        place: the folder, or the archive: plain, or compressed by gzip, bzip2 or xz.
        suffix: of the names to read, such as ".xml".

    Yields:
        the name, and the first `REPORT_LIMIT_BYTES` of the content; a byte more where there is one.

    Raises:
        TableError: there is no such place, the archive is broken or larger than 256 MiB, or there are more than 20,000
            such files.
    """
    expected = "a folder, or NLMCXR_reports.tgz, whole"
    with refuse_broken(f"The reports in {place} cannot be read", error=TableError, expected=expected):
        members = _read_folder(place, suffix) if place.is_dir() else _read_archive(place, suffix)
        for number, member in enumerate(members, start=1):
            if number > _LIMIT_FILES:
                raise ValueError(f"more than {_LIMIT_FILES:,} files")
            yield member


def _read_folder(place: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted(place.rglob(f"*{suffix}")):
        with path.open("rb") as file:
            yield str(path.relative_to(place)), file.read(REPORT_LIMIT_BYTES + 1)


def _read_archive(place: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    with _decompress(place) as file, tarfile.open(fileobj=_Limited(file, _ARCHIVE_LIMIT_BYTES), mode="r|") as archive:
        for member in archive:
            if member.isreg() and member.name.endswith(suffix) and (content := archive.extractfile(member)):
                yield member.name, content.read(REPORT_LIMIT_BYTES + 1)


def _decompress(path: Path) -> io.BufferedIOBase:
    """Opens a file by what it begins with: gzip, bzip2, xz, or as it is."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    if start.startswith(b"BZh"):
        return bz2.open(path)
    return lzma.open(path) if start.startswith(b"\xfd7zXZ") else path.open("rb")


class _Limited(io.RawIOBase):
    """A file's bytes up to a limit: a compressed kilobyte may stand for a megabyte."""

    def __init__(self, file: io.BufferedIOBase, limit: int) -> None:
        self._file, self._left, self._limit = file, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fills a buffer.

        Raises:
            ValueError: there are more bytes than the limit.
        """
        view = memoryview(buffer).cast("B")
        content = self._file.read(len(view))
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(f"more than {self._limit:,} bytes")
        view[: len(content)] = content
        return len(content)
