"""A folder of images with reports beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from carzero.datasets.base import IMAGE_SUFFIXES, Advance, ImportReport, assign_split, build_row, check_shares
from carzero.datasets.files import REPORT_LIMIT_BYTES, decode_report
from carzero.errors import TableError, describe
from carzero.reports.sections import select_sentences

PatientFrom = Literal["folder", "stem", "none"]
_SHARED = "report.txt"
NO_REPORT, BAD_REPORT = "images without a report", "reports that cannot be read"
NO_WORDS, NO_IMAGE = "reports that say nothing of the image", "reports without an image"
BAD_NAME = "images whose names are not UTF-8"


def import_folder(
    root: Path,
    *,
    patient_from: PatientFrom = "folder",
    shares: Sequence[float] = (0.8, 0.1, 0.1),
    advance: Advance = lambda done, total: None,
) -> ImportReport:
    """Makes rows of a folder, one an image, in the order of their names; hidden files are left out.

    The report of `a.png` is `a.txt` beside it; where there is none, `report.txt` in the same folder serves all images
    in it. Images of one report are one study: `folder` for `folder/report.txt`, `folder/a` for `folder/a.png` and
    `folder/a.jpg`; an image with a report of its own is one too, under its path in the folder. No table can hold a name
    that is not UTF-8; such an image is left out.

    Args:
        root: the folder.
        patient_from: "folder": the first folder below `root` (an image in `root` itself has an unknown patient);
            "stem": the file's name up to the first underscore; "none": unknown.
        shares: of train, val and test. Splits go by a hash of the patient, where unknown of the study; see
            `assign_split`.
        advance: called with the numbers of images done and in all.

    Returns:
        Rows with `text`, the report as written.

    Raises:
        TableError: there is no such folder, or no image in it.
        ConfigurationError: the shares do not add up to 1.
    """
    check_shares(shares)
    root = root.resolve()
    images, reports = _list_files(root)
    result = ImportReport()
    result.found["images"] = len(images)
    used: set[Path] = set()
    read: set[Path] = set()  # not that of an image left out for its name
    serving = Counter(image.with_suffix(".txt") for image in images)
    for number, image in enumerate(images, start=1):
        beside, name = image.with_suffix(".txt"), image.relative_to(root)
        report = next((path for path in (beside, image.with_name(_SHARED)) if path in reports), None)
        if not _is_utf8(name):
            result.miss(BAD_NAME, str(name))
        elif report is None:
            result.miss(NO_REPORT, str(name))
        else:
            if text := _read(report, root, result, known=report in read):
                alone = report == beside and serving[beside] == 1
                study = name if alone else name.with_suffix("") if report == beside else name.parent
                result.rows.append(_build(name, root, text, study.as_posix(), patient_from, shares))
            read.add(report)
        used.update([report] if report else [])
        advance(number, len(images))
    for path in sorted(reports - used):
        result.miss(NO_IMAGE, str(path.relative_to(root)))
    result.found["reports"] = len(reports)
    return result


def _list_files(root: Path) -> tuple[list[Path], set[Path]]:
    if not root.is_dir():
        raise TableError(describe("There is no such folder", got=str(root)))
    files = [path for path in sorted(root.rglob("*")) if not _is_hidden(path, root) and path.is_file()]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise TableError(describe("No images are found", got=str(root), expected=f"files ending in {suffixes}"))
    return images, {path for path in files if path.suffix == ".txt"}


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _read(report: Path, root: Path, result: ImportReport, *, known: bool) -> str:
    """The report's text; "" where it cannot be read or says nothing, recorded once."""
    name = str(report.relative_to(root))
    try:
        with report.open("rb") as file:
            text = decode_report(file.read(REPORT_LIMIT_BYTES + 1)).strip()
    except (OSError, ValueError) as error:
        text, fault = "", (BAD_REPORT, f"{name}: {error}")
    else:
        fault = (NO_WORDS, name)
    if text and select_sentences(text):
        return text
    if not known:
        result.miss(*fault)
    return ""


def _build(
    name: Path, root: Path, text: str, study: str, patient_from: PatientFrom, shares: Sequence[float]
) -> dict[str, str]:
    patient = ""
    if patient_from == "folder" and len(name.parts) > 1:
        patient = name.parts[0]
    elif patient_from == "stem":
        patient = name.stem.partition("_")[0]
    key = patient or study
    image = str(root / name)
    return build_row(image, text=text, split=assign_split(key, shares), patient=patient, study_id=study, source="")
