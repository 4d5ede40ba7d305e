"""MIMIC-CXR-JPG 2.x and the reports of MIMIC-CXR: splits, views, labels, and findings and impression of each study.

Source: A. Johnson et al., MIMIC-CXR-JPG 2.1.0, PhysioNet, doi:10.13026/jsn5-t979; the layout of its files is described
there. Both need a data use agreement; nothing of them is in this package.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from carzero.datasets.base import Advance, ImportReport, build_row
from carzero.datasets.files import REPORT_LIMIT_BYTES, decode_report, find_one, read_rows
from carzero.errors import TableError, describe, refuse_broken
from carzero.reports.sections import select_sections

Labeller = Literal["chexpert", "negbio", "none"]
_KEYS = ("subject_id", "study_id")
_METADATA = ("dicom_id", *_KEYS, "ViewPosition")
_NUMBER, _DICOM_ID = re.compile(r"\d{8}"), re.compile(r"[0-9a-f]+(?:-[0-9a-f]+)*", re.IGNORECASE)
_SPLITS = {"train": "train", "validate": "val", "test": "test"}

_LABELS = {
    **dict.fromkeys(("1.0", "1"), "present"),
    **dict.fromkeys(("0.0", "0"), "absent"),
    **dict.fromkeys(("-1.0", "-1", ""), "unknown"),
}

_REPORTS = "mimic-cxr-reports.zip"
_REPORT_NAME = re.compile(r"(.*?)p\d{2}/p\d{8}/s\d{8}\.txt")
_SUFFIXES = (".jpg", ".png", ".dcm")
_STEP = 1000


MISSING_IMAGE, NO_REPORT = "images that are not there", "reports that are not there"
BAD_REPORT, NO_SPLIT = "reports that cannot be read", "images without a split"
NO_WORDS = "images without text and labels"


@dataclass(frozen=True, slots=True)
class _Words:
    """What is said of a study."""

    impression: str = ""
    findings: str = ""
    present: str = ""
    absent: str = ""


def import_mimic_cxr(
    root: Path,
    *,
    reports: Path | None = None,
    views: Sequence[str] = ("PA", "AP"),
    labeller: Labeller = "chexpert",
    advance: Advance = lambda done, total: None,
) -> ImportReport:
    """Makes rows of a MIMIC-CXR-JPG release, one an image.

    Args:
        root: folder with `mimic-cxr-2.0.0-metadata.csv(.gz)`, `-split`, optionally `-chexpert` and `-negbio`, and
            `files/p10/p10000032/s50414267/<dicom_id>.jpg` (.png and .dcm serve too).
        reports: folder with `files/p10/p10000032/s50414267.txt`, or `mimic-cxr-reports.zip`; None takes either from
            `root` where it is there.
        views: values of ViewPosition to take, as the metadata spells them; "" stands for none stated. Empty takes all.
            The paper trains on frontal images.
        labeller: whose labels become `present` (1) and `absent` (0); uncertain (-1) and blank stay unknown.
        advance: called with the numbers of images done and in all, now and then.

    Returns:
        Rows with `impression`, `findings`, `present`, `absent`, and what is missing. A row stands where the image is
        there and something is said of it.

    Raises:
        TableError: files of the release are missing or broken.
    """
    root = root.resolve()
    metadata = [
        (_check_ids(root, row, number), {name: row[name] for name in _METADATA})
        for number, row in enumerate(read_rows(_release_file(root, "metadata"), _METADATA), start=1)
    ]
    splits = {row["dicom_id"]: row["split"] for row in read_rows(_release_file(root, "split"), ("dicom_id", "split"))}
    labels = _read_labels(root, labeller)
    texts = _open_reports(root, reports)
    report = ImportReport(found=Counter({"images in the metadata": len(metadata)}))
    wanted = {view.upper() for view in views}
    said: dict[str, _Words] = {}
    for number, (place, row) in enumerate(metadata, start=1):
        view = row["ViewPosition"].upper()
        if wanted and view not in wanted:
            report.left_out[f"view {view or '(none stated)'}"] += 1
        elif (split := _SPLITS.get(splits.get(row["dicom_id"], ""))) is None:
            report.miss(NO_SPLIT, row["dicom_id"])
        else:
            if place not in said:
                said[place] = _read_study(place, texts, labels.get((row["subject_id"], row["study_id"])), report)
            _add_row(report, root, row, place, split, said[place])
        if number % _STEP == 0 or number == len(metadata):
            advance(number, len(metadata))
    return report


def _add_row(report: ImportReport, root: Path, row: dict[str, str], place: str, split: str, words: _Words) -> None:
    stem = root / "files" / place / row["dicom_id"]
    image = next((path for suffix in _SUFFIXES if (path := stem.with_name(stem.name + suffix)).exists()), None)
    if image is None:
        report.miss(MISSING_IMAGE, f"files/{place}/{row['dicom_id']}.jpg")
    elif words == _Words():
        report.miss(NO_WORDS, f"files/{place}/{row['dicom_id']}.jpg")
    else:
        report.rows.append(
            build_row(
                str(image),
                impression=words.impression,
                findings=words.findings,
                present=words.present,
                absent=words.absent,
                split=split,
                patient=row["subject_id"],
                study_id=row["study_id"],
                view=row["ViewPosition"].upper(),
                source="mimic-cxr",
            )
        )


def _read_study(place: str, texts: ReportFiles | None, labels: tuple[str, str] | None, report: ImportReport) -> _Words:
    impression, findings = "", ""
    try:
        text = None if texts is None else texts.read(f"{place}.txt")
        if text is None:
            report.miss(NO_REPORT, f"files/{place}.txt")
        else:
            impression, findings = select_sections(text)
            report.found["reports"] += 1
            report.found["reports with an impression"] += bool(impression)
            report.found["reports with findings"] += bool(findings)
    except ValueError as error:
        report.miss(BAD_REPORT, f"files/{place}.txt: {error}")
    present, absent = labels or ("", "")
    report.found["labelled studies"] += labels is not None
    return _Words(impression, findings, present, absent)


def _release_file(root: Path, name: str) -> Path:
    pattern = f"mimic-cxr-2.*-{name}.csv"
    path = find_one(root, pattern)
    if path is None:
        raise TableError(
            describe(
                f"The release lacks its {name} file",
                got=str(root),
                expected=f"a folder with {pattern} or {pattern}.gz",
                then="name the folder of MIMIC-CXR-JPG that holds it",
            )
        )
    return path


def _read_labels(root: Path, labeller: Labeller) -> dict[tuple[str, str], tuple[str, str]]:
    """(subject, study) to findings that hold and that are denied, in lower case, joined by "|"."""
    if labeller == "none":
        return {}
    labels = {}
    path = _release_file(root, labeller)
    for number, row in enumerate(read_rows(path, _KEYS), start=1):
        findings: dict[str, list[str]] = {"present": [], "absent": [], "unknown": []}
        for name, value in row.items():
            if name in _KEYS:
                continue
            if value not in _LABELS:
                raise TableError(
                    describe(
                        f"Row {number} of {path} holds no label", got={name: value}, expected="1.0, 0.0, -1.0 or blank"
                    )
                )
            findings[_LABELS[value]].append(name.lower())
        labels[row["subject_id"], row["study_id"]] = ("|".join(findings["present"]), "|".join(findings["absent"]))
    return labels


def _open_reports(root: Path, reports: Path | None) -> ReportFiles | None:
    if reports is not None:
        return ReportFiles(reports)
    if (root / _REPORTS).is_file():
        return ReportFiles(root / _REPORTS)
    return ReportFiles(root) if next(root.glob("files/p1?/p*/s*.txt"), None) else None


def _check_ids(root: Path, row: dict[str, str], number: int) -> str:
    """Returns the study's place, "p10/p10000032/s50414267"; ids become paths, so anything else is refused."""
    subject, study, image = row["subject_id"], row["study_id"], row["dicom_id"]
    if not (_NUMBER.fullmatch(subject) and _NUMBER.fullmatch(study) and _DICOM_ID.fullmatch(image)):
        raise TableError(
            describe(
                f"Row {number} of the metadata in {root} has no ids of MIMIC-CXR",
                got=[subject, study, image],
                expected="two numbers of 8 digits and a hexadecimal name",
            )
        )
    return f"p{subject[:2]}/p{subject}/s{study}"


class ReportFiles:
    """The reports of MIMIC-CXR, in a folder or in the ZIP archive that is released.

    Args:
        place: the folder that holds `files/` or `p10/` ..., or the archive.

    Raises:
        TableError: there is no such place, or it is not an archive of reports.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._archive: zipfile.ZipFile | None = None
        if place.is_dir():
            self._prefix = f"{place / 'files'}/" if (place / "files").is_dir() else f"{place}/"
            return
        expected = "a folder, or mimic-cxr-reports.zip"
        with refuse_broken("The reports cannot be read", error=TableError, got=str(place), expected=expected):
            self._archive = zipfile.ZipFile(place)
        named = next((match for name in self._archive.namelist() if (match := _REPORT_NAME.fullmatch(name))), None)
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
                    content = file.read(REPORT_LIMIT_BYTES + 1)
            else:
                with self._archive.open(self._prefix + name) as member:
                    content = member.read(REPORT_LIMIT_BYTES + 1)
        except (KeyError, FileNotFoundError):
            return None
        except Exception as error:  # of a damaged archive; it belongs to this report alone
            raise ValueError(f"it is damaged: {error}") from error
        return decode_report(content)
