"""Finding a test set's pictures: by name, wherever they lie below a folder."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from carzero.datasets.base import Protocol, stem
from carzero.errors import TableError, describe
from carzero.records import ImageItem

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"})


@dataclass(frozen=True, slots=True)
class FoundImages:
    """Pictures of a test set: what was found, in the set's order, and the ids that were not."""

    items: list[ImageItem]
    missing: list[str]


def find_images(folder: Path, images: Sequence[str], to_id: Callable[[str], str]) -> FoundImages:
    """Finds pictures by their ids in a folder and everything below it.

    A picture in another format is taken if its name is the same up to the suffix; the exact name goes first.

    Raises:
        TableError: no such folder, or two files could be the same picture.
    """
    if not folder.is_dir():
        raise TableError(describe("There is no such folder of pictures", got=str(folder), then="check --images"))
    exact: dict[str, list[Path]] = {}
    loose: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
            found = to_id(path.relative_to(folder).as_posix())
            exact.setdefault(found, []).append(path)
            loose.setdefault(stem(found), []).append(path)
    items, missing = [], []
    for image_id in images:
        candidates = exact.get(image_id) or loose.get(stem(image_id)) or []
        if len(candidates) > 1:
            raise TableError(
                describe(
                    f"{len(candidates)} files could be the picture {image_id}",
                    got=[str(path) for path in candidates[:3]],
                    expected="each picture once",
                    then="name the folder that holds the ones to use",
                )
            )
        if candidates:
            items.append(ImageItem(image_id, str(candidates[0]), str(candidates[0])))
        else:
            missing.append(image_id)
    return FoundImages(items, missing)


def find_label_files(folder: Path, protocol: Protocol) -> list[Path]:
    """Finds a set's label files by their official names, beside the pictures or below.

    Raises:
        TableError: none is there, or two of one name.
    """
    everything = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    found = []
    for pattern in protocol.label_files:
        matching = [path for path in everything if fnmatch(path.name, pattern)]
        if len(matching) > 1:
            raise TableError(
                describe(
                    f"Several files could be the labels of {protocol.title}",
                    got=[str(path) for path in matching[:3]],
                    expected=f"one {pattern}",
                    then="name them with --labels",
                )
            )
        found += matching
    if not found:
        raise TableError(
            describe(
                f"The labels of {protocol.title} are not given and not found",
                got=str(folder),
                expected=f"a file named {' or '.join(protocol.label_files)}",
                then="name them with --labels",
            )
        )
    return found


REPORT_LIMIT_BYTES = 1 << 20

_TABLE_LIMIT_BYTES = 1 << 29

_MIMIC_REPORT = re.compile(r"(.*?)p\d{2}/p\d{8}/s\d{8}\.txt")


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
    """Yields the rows of a CSV file, gzipped or not, values as text.

    Raises:
        TableError: the file is broken, larger than 512 MiB, or lacks columns.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(_TABLE_LIMIT_BYTES + 1)
        if len(content) > _TABLE_LIMIT_BYTES:
            raise ValueError(f"more than {_TABLE_LIMIT_BYTES} bytes")
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        lacking = [column for column in columns if column not in (reader.fieldnames or ())]
        if lacking:
            raise ValueError(f"no columns {', '.join(lacking)}")
        for row in reader:
            yield {column: (row[column] or "").strip() for column in reader.fieldnames or ()}
    except (OSError, EOFError, ValueError, csv.Error, zlib.error) as error:
        raise TableError(
            describe(f"{path} cannot be read", got=str(error), expected="the file as it was released")
        ) from error


def decode_report(content: bytes) -> str:
    """Returns a report's text.

    Raises:
        ValueError: it is larger than 1 MiB, or no UTF-8.
    """
    if len(content) > REPORT_LIMIT_BYTES:
        raise ValueError(f"it is larger than {REPORT_LIMIT_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 text: byte {error.start} is {content[error.start]:#x}") from error


class ReportFiles:
    """The reports of MIMIC-CXR, in a folder or in the ZIP archive that is released.

    Args:
        place: the folder that holds `files/` or `p10/` ..., or the archive.

    Raises:
        TableError: there is no such place, or it is no archive of reports.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._archive: zipfile.ZipFile | None = None
        if place.is_dir():
            self._prefix = f"{place / 'files'}/" if (place / "files").is_dir() else f"{place}/"
            return
        try:
            self._archive = zipfile.ZipFile(place)
        except (OSError, zipfile.BadZipFile) as error:
            raise TableError(
                describe("The reports cannot be read", got=str(place), expected="a folder, or mimic-cxr-reports.zip")
            ) from error
        named = next((match for name in self._archive.namelist() if (match := _MIMIC_REPORT.fullmatch(name))), None)
        if named is None:
            raise TableError(describe(f"{place} holds no reports", expected="files such as files/p10/p1.../s5....txt"))
        self._prefix = named.group(1)

    def read(self, name: str) -> str | None:
        """Returns the report of this name ("p10/p10000032/s50414267.txt"), None where there is none.

        Raises:
            ValueError: it is too large, no UTF-8, or damaged.
        """
        try:
            if self._archive is None:
                with Path(self._prefix, name).open("rb") as file:
                    return decode_report(file.read(REPORT_LIMIT_BYTES + 1))
            with self._archive.open(self._prefix + name) as member:
                return decode_report(member.read(REPORT_LIMIT_BYTES + 1))
        except (KeyError, FileNotFoundError):
            return None
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"it is damaged: {error}") from error
