"""Small releases in the official layouts of MIMIC-CXR-JPG and Open-i; ids and reports are made up."""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LABELS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture"),
    *("Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia"),
    *("Pneumothorax", "Support Devices"),
)
METADATA = (
    *("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns"),
    *("StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning"),
    "PatientOrientationCodeSequence_CodeMeaning",
)
CONSOLIDATION = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PORTABLE AP)

 INDICATION:  ___F with cough  // pneumonia?

 FINDINGS:

 There is a consolidation in the right lower lobe.  The heart is of
 normal size.

 IMPRESSION:

 Consolidation in the right lower lobe.
"""
CLEAR = """                                 FINAL REPORT
 INDICATION:  Chest pain.

 COMPARISON:  None.

 The lungs are clear.  No pneumothorax is seen.
"""


def picture_name(number: int) -> str:
    """A dicom_id: five groups of eight hexadecimal digits."""
    return "-".join(f"{number * 7 + group:08x}" for group in range(5))


# (subject, study, view, split) of each image, the image's number behind.
PICTURES = (
    ("10000001", "50000001", "AP", "train"),
    ("10000001", "50000001", "LATERAL", "train"),
    ("10000001", "50000002", "PA", "train"),
    ("10000002", "50000003", "PA", "validate"),
    ("11000003", "50000004", "", "test"),
    ("11000003", "50000005", "AP", "test"),
)
REPORTS = {"50000001": CONSOLIDATION, "50000002": CLEAR, "50000003": CONSOLIDATION, "50000004": CLEAR}
STUDY_LABELS: Mapping[str, Mapping[str, str]] = {
    "50000001": {"Consolidation": "1.0", "Cardiomegaly": "0.0", "Pneumonia": "-1.0"},
    "50000002": {"No Finding": "1.0", "Pneumothorax": "0.0"},
    "50000005": {"Edema": "1.0"},
}


def save_mimic(
    root: Path, film: Path, *, zipped: bool = False, without: Sequence[int] = (), reports: Mapping[str, Any] = REPORTS
) -> Path:
    """Writes a release of six images in three patients.

    Args:
        root: its folder.
        image: what every image is.
        zipped: True gzips the tables and puts the reports into mimic-cxr-reports.zip.
        without: numbers of images whose files are left out.
        reports: study to text.
    """
    named = [(picture_name(number), *picture) for number, picture in enumerate(PICTURES)]
    metadata = [
        {"dicom_id": name, "subject_id": subject, "study_id": study, "ViewPosition": view, "Rows": 2544}
        for name, subject, study, view, _ in named
    ]
    splits = [
        {"dicom_id": name, "study_id": study, "subject_id": subject, "split": split}
        for name, subject, study, _, split in named
    ]
    subjects = {study: subject for subject, study, *_ in PICTURES}
    labels = [
        {"subject_id": subjects[study], "study_id": study, **values} for study, values in sorted(STUDY_LABELS.items())
    ]
    root.mkdir(parents=True, exist_ok=True)
    keys = ("subject_id", "study_id")
    save_csv(root / "mimic-cxr-2.0.0-metadata.csv", METADATA, metadata, zipped)
    save_csv(root / "mimic-cxr-2.0.0-split.csv", ("dicom_id", "study_id", "subject_id", "split"), splits, zipped)
    save_csv(root / "mimic-cxr-2.0.0-chexpert.csv", (*keys, *LABELS), labels, zipped)
    save_csv(root / "mimic-cxr-2.0.0-negbio.csv", (*keys, *LABELS), labels[1:], zipped)
    for number, (name, subject, study, *_) in enumerate(named):
        folder = root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}"
        folder.mkdir(parents=True, exist_ok=True)
        if number not in without:
            (folder / f"{name}.jpg").write_bytes(film.read_bytes())
    save_reports(root, {f"p{subjects[s][:2]}/p{subjects[s]}/s{s}.txt": text for s, text in reports.items()}, zipped)
    return root


def save_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], zipped: bool = False) -> None:
    """Writes a CSV, with .gz behind its name if zipped."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    if zipped:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def save_reports(root: Path, reports: Mapping[str, str | bytes], zipped: bool) -> None:
    """Writes reports below files/, or into mimic-cxr-reports.zip."""
    if zipped:
        with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("files/", "")
            for name, text in reports.items():
                archive.writestr(f"files/{name}", text)
        return
    for name, text in reports.items():
        path = root / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)


def openi_report(
    uid: int,
    *,
    impression: str = "",
    findings: str = "",
    major: Sequence[str] = ("normal",),
    images: Sequence[str] = (),
    head: str = "",
) -> str:
    """A report as ecgen-radiology holds it, with what is read of it and some of the rest."""
    heading = "".join(f"<major>{name}</major>" for name in major)
    parents = "".join(
        f'<parentImage id="{name}"><figureId>F1</figureId><caption>Chest</caption></parentImage>' for name in images
    )
    return f"""<?xml version="1.0" encoding="utf-8"?>
{head}<eCitation>
   <meta type="rr"/>
   <uId id="CXR{uid}"/>
   <pmcId id="{uid}"/>
   <MedlineCitation Owner="Indiana University" Status="supplied by publisher">
      <Article PubModel="Electronic">
         <Abstract>
            <AbstractText Label="COMPARISON">None.</AbstractText>
            <AbstractText Label="INDICATION">Cough</AbstractText>
            <AbstractText Label="FINDINGS">{findings}</AbstractText>
            <AbstractText Label="IMPRESSION">{impression}</AbstractText>
         </Abstract>
      </Article>
   </MedlineCitation>
   <MeSH>{heading}<automatic>opacity</automatic></MeSH>
   {parents}
</eCitation>
"""


def save_openi(root: Path, reports: Mapping[str, str | bytes]) -> Path:
    """Writes reports below ecgen-radiology/."""
    folder = root / "ecgen-radiology"
    folder.mkdir(parents=True)
    for name, text in reports.items():
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return root


def save_tgz(path: Path, reports: Mapping[str, str | bytes]) -> Path:
    """Writes reports as NLMCXR_reports.tgz holds them."""
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo("ecgen-radiology")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, text in reports.items():
            content = text.encode() if isinstance(text, str) else text
            member = tarfile.TarInfo(f"ecgen-radiology/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
