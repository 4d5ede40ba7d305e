"""Label files of the public test sets in their official layouts, with content of our own."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
PADCHEST_HEADER = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
    "MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,"
    "PixelRepresentation_DICOM,PixelAspectRatio_DICOM,SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,"
    "WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,"
    "RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,LabelsLocalizationsBySentence,"
    "labelCUIS,LocalizationsCUIS"
)


def nih_entries(path: Path, names: Sequence[str], labels: Sequence[str], matrix: np.ndarray) -> Path:
    """Data_Entry_2017.csv: findings joined by |, "No Finding" where there is none."""
    lines = [NIH_HEADER]
    for name, row in zip(names, matrix, strict=True):
        findings = [label for label, value in zip(labels, row, strict=True) if value] or ["No Finding"]
        lines.append(f"{name},{'|'.join(findings)},0,{int(name.split('_')[0])},058,M,PA,2682,2749,0.143,0.143,")
    path.write_text("\n".join(lines) + "\n")
    return path


def nih_list(path: Path, names: Sequence[str], matrix: np.ndarray | None) -> Path:
    """test_list.txt as released (a folder before the name, labels behind it), or NIH's own list of names."""
    rows = [""] * len(names) if matrix is None else [" " + " ".join(map(str, row.astype(int))) for row in matrix]
    folder = "" if matrix is None else "images_001/"
    path.write_text("".join(f"{folder}{name}{row}\n" for name, row in zip(names, rows, strict=True)))
    return path


def padchest_table(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """PADCHEST_chest_x_ray_images_labels_160K.csv: what a row does not state is empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, next(csv.reader([PADCHEST_HEADER])), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def openi_report(uid: str, images: Sequence[str], major: Sequence[str], automatic: Sequence[str]) -> str:
    """One report; its prose is not read by anything."""
    headings = "".join(f"<major>{text}</major>" for text in major)
    headings += "".join(f"<automatic>{text}</automatic>" for text in automatic)
    pictures = "".join(f'<parentImage id="{image}"><caption>a caption</caption></parentImage>' for image in images)
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<eCitation><uId id="{uid}"/><Abstract>'
        f'<AbstractText Label="FINDINGS">Major words here count for nothing.</AbstractText></Abstract>'
        f"<MeSH>{headings}</MeSH>{pictures}</eCitation>"
    )


def openi_archive(path: Path, reports: Mapping[str, str]) -> Path:
    """NLMCXR_reports.tgz: ecgen-radiology/1.xml and so on."""
    with tarfile.open(path, "w:gz") as archive:
        for name, text in reports.items():
            member = tarfile.TarInfo(f"ecgen-radiology/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path
