"""Reading files of a release: tables, gzipped or not, and single reports, in folders and ZIP archives.

Nothing is extracted, no name inside an archive becomes a path, and every file has a limit: a few kilobytes of gzip can
stand for gigabytes.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from carzero.errors import TableError, describe

__all__ = ["ReportFiles", "decode_report", "find_one", "read_rows"]

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
