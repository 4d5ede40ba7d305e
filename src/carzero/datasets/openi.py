"""Open-i (Indiana University): 18 classes on 7,470 images of 3,851 reports, by substrings of automatic headings.

Files, one of these:

    custom.csv                          the released table: uid, file_name, labels_major, labels_automatic
    NLMCXR_reports.tgz, or its folder   the official reports; their MeSH headings give the same table

Reports are XML that is not trusted. The standard library's parser refuses nothing by itself: a document type
declaration may define entities that expand to gigabytes, or that name files of this machine. The released files have
none, so any is refused, in text that is known to be UTF-8 (in another encoding the word could hide), before a parser
sees it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from carzero.core.tables import load_table
from carzero.datasets.base import (
    Advance,
    ImportReport,
    PublicDataset,
    Truth,
    assign_split,
    build_row,
    build_truth,
    check_shares,
    file_name,
)
from carzero.datasets.files import REPORT_LIMIT_BYTES, read_members, read_rows
from carzero.errors import ConfigurationError, TableError, describe

# Class, and the pieces of text that make it: any of them, anywhere in the joined automatic headings.
_PIECES: dict[str, tuple[str, ...]] = {
    "Atelectasis": ("atelectasis", "atelectases"),
    "Cardiomegaly": ("cardiomegaly",),
    "Effusion": ("effusion",),
    "Infiltration": ("infiltration", "infiltrate"),
    "Mass": ("mass",),
    "Nodule": ("nodule",),
    "Pneumonia": ("pneumonia",),
    "Pneumothorax": ("pneumothorax",),
    "Edema": ("edema",),
    "Emphysema": ("emphysema",),
    "Fibrosis": ("fibrosis",),
    "Pleural_Thickening": ("pleural_thickening", "pleural thickening"),
    "Hernia": ("hernia",),
    "Fracture": ("fracture",),
    "Opacity": ("opacity",),
    "Lesion": ("lesion",),
    "Calcified Granuloma": ("calcified granuloma",),
    "Granuloma": ("granuloma",),
}

LABELS = tuple(_PIECES)

# Downloaded: "CXR1_1_IM-0001-3001.png"; released: "CXR1_IM-0001-3001.png"; a common copy: "1_IM-0001-3001.dcm.png".
_NAME = re.compile(r"^(?:CXR)?(\d+)_(?:\1_)?(IM-[\d-]+)(?:\.dcm)?(\.\w+)?$")


def load_labels(files: Sequence[Path]) -> Truth:
    """Reads the label matrix.

    Raises:
        TableError: another number of files, or one of another form.
    """
    if len(files) != 1:
        raise TableError(
            describe(
                "Open-i needs one source of labels",
                got=[path.name for path in files],
                expected="custom.csv, or NLMCXR_reports.tgz or its folder",
            )
        )
    (path,) = files
    rows = _load_table(path) if path.suffix.lower() == ".csv" else _load_reports(path)
    matrix = np.array([[any(piece in text for piece in _PIECES[label]) for label in LABELS] for _, _, text in rows])
    return build_truth(
        LABELS,
        [image for image, _, _ in rows],
        matrix.reshape(-1, len(LABELS)).astype(np.float32),
        groups=[uid for _, uid, _ in rows],
        unit="report",
        files=files,
    )


def to_id(path: str) -> str:
    """An image's name as the released table spells it: "CXR1_IM-0001-3001.png"."""
    name = file_name(path)
    match = _NAME.match(name)
    return f"CXR{match[1]}_{match[2]}{match[3] or '.png'}" if match else name


def _load_table(path: Path) -> list[tuple[str, str, str]]:
    frame = load_table(path)
    if lacking := [name for name in ("uid", "file_name", "labels_automatic") if name not in frame.columns]:
        raise TableError(describe(f"{path} lacks columns", got=lacking, expected="uid, file_name, labels_automatic"))
    texts = frame["labels_automatic"].astype(object).where(frame["labels_automatic"].notna(), "")
    return [
        (to_id(str(name)), str(uid), str(text).lower())
        for name, uid, text in zip(frame["file_name"], frame["uid"], texts, strict=True)
    ]


def _load_reports(path: Path) -> list[tuple[str, str, str]]:
    return [
        (to_id(image), report.uid, "|".join(sorted({heading.lower() for heading in report.automatic})))
        for report in load_every_report(path)
        for image in report.images
    ]


@dataclass(frozen=True, slots=True)
class OpeniReport:
    """One report.

    Attributes:
        uid: its id, such as "CXR1".
        impression: the section as written, or "".
        findings: the section as written, or "".
        major: MeSH headings that readers assigned, as written, such as "Cardiomegaly/mild"; "normal" for none.
        automatic: headings found by a program.
        images: names of its images without suffix, such as "CXR1_1_IM-0001-3001".
    """

    uid: str
    impression: str
    findings: str
    major: tuple[str, ...]
    automatic: tuple[str, ...]
    images: tuple[str, ...]


def load_reports(place: Path) -> tuple[list[OpeniReport], list[str]]:
    """Reads a folder of reports (and those below it), or the archive NLMCXR_reports.tgz, which is not extracted.

    Returns:
        the reports in the order of their numbers, and "name: reason" of each file that is not a report.

    Raises:
        TableError: there is no such place, the archive is broken or beyond all limits, or there are no .xml files.
    """
    reports, broken = [], []
    for name, content in read_members(place, ".xml"):
        try:
            reports.append(_read_report(content))
        except ValueError as error:
            broken.append(f"{name}: {error}")
    if not reports and not broken:
        raise TableError(describe("There are no reports", got=str(place), expected="files ending in .xml"))
    return sorted(reports, key=lambda report: (len(report.uid), report.uid)), broken


def load_every_report(place: Path) -> list[OpeniReport]:
    """Reads reports as `load_reports` does, where each must be readable: a file left out would change a test set.

    Raises:
        TableError: as `load_reports`; or a file is not a report.
    """
    reports, broken = load_reports(place)
    if broken:
        raise TableError(
            describe(
                f"{len(broken)} of {len(reports) + len(broken)} files cannot be read as a report",
                got=broken[0],
                expected="plain XML, as released",
            )
        )
    return reports


def _read_report(content: bytes) -> OpeniReport:
    if len(content) > REPORT_LIMIT_BYTES:
        raise ValueError(f"larger than {REPORT_LIMIT_BYTES} bytes")
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


DATASET = PublicDataset(
    name="openi",
    title="Open-I",
    prompts="openi18",
    labels=LABELS,
    images=7470,
    load=load_labels,
    label_files=("custom.csv", "NLMCXR_reports.tgz"),
    to_id=to_id,
    quirks=(
        "Labels are substrings of the headings that a program assigned (labels_automatic), not of those that readers "
        "assigned (labels_major): pericardial effusion counts as Effusion, subcutaneous emphysema as Emphysema, cystic "
        "fibrosis as Fibrosis, granulomatous disease as Granuloma.",
        "Classes overlap by construction: every Calcified Granuloma is a Granuloma, every Lesion (7 images) a Mass "
        "lesion.",
        "The label of a report goes to all of its images, laterals included.",
        "An image without automatic headings (3,408 of 7,470) is a negative of every class.",
        "The released list spells the images of report CXR1 without the second number of their file names.",
    ),
    published={("auroc", "macro"): {"KAD": 0.807, "CARZero": 0.838, "RadZero": 0.847, "SentZero": 0.889}},
)


MISSING_IMAGE, NO_IMAGES, NO_WORDS = "images that are not there", "reports without an image", "reports without text"

BAD_REPORT, NO_VIEW = "reports that cannot be read", "images that the projections do not name"

_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")

_SUFFIX = re.compile(r"(?:\.dcm)?(?:\.(?:png|jpe?g|dcm))?$", re.IGNORECASE)

_FILE_NAME = re.compile(r"(?:CXR)?(\d+)(?:_\d+)?_(IM-[\w-]+)", re.IGNORECASE)

# Headings that are findings by themselves. Others name a place ("Lung/hyperdistention") or no finding ("No Indexing").
_HEADINGS = {
    "normal": "normal",
    "cardiomegaly": "cardiomegaly",
    "pulmonary atelectasis": "atelectasis",
    "pleural effusion": "pleural effusion",
    "pneumothorax": "pneumothorax",
    "pneumonia": "pneumonia",
    "pulmonary edema": "pulmonary edema",
    "pulmonary congestion": "pulmonary congestion",
    "consolidation": "consolidation",
    "emphysema": "emphysema",
    "pulmonary emphysema": "emphysema",
    "pulmonary fibrosis": "pulmonary fibrosis",
    "infiltrate": "infiltrate",
    "opacity": "opacity",
    "nodule": "nodule",
    "mass": "mass",
    "hernia, hiatal": "hiatal hernia",
    "granulomatous disease": "granulomatous disease",
    "fractures, bone": "fracture",
}


def import_openi(
    root: Path,
    *,
    images: Path | None = None,
    projections: Path | None = None,
    views: Sequence[str] = (),
    shares: Sequence[float] = (0.8, 0.1, 0.1),
    advance: Advance = lambda done, total: None,
) -> ImportReport:
    """Makes rows of Open-i, one an image.

    Args:
        root: folder with the XML reports somewhere in it, or NLMCXR_reports.tgz, which is read without extraction.
        images: folder with the images somewhere in it; None looks where the reports are. Names may be the official
            ones (CXR1_1_IM-0001-3001.png), or those of the re-release on Kaggle (1_IM-0001-3001.dcm.png).
        projections: indiana_projections.csv of that re-release (uid, filename, projection), which tells frontal from
            lateral; the official release does not.
        views: projections to take, such as ("FRONTAL",); empty takes all.
        shares: of train, val and test. Splits go by a hash of the report's id; see `assign_split`.
        advance: called with the numbers of reports done and in all.

    Returns:
        Rows with `impression`, `findings` and `present`: the findings that readers assigned as MeSH headings, where a
        heading is a finding by itself. A heading that is not assigned denies nothing, so no finding is `absent`.

    Raises:
        TableError: there are no reports, or one image has two files.
        ConfigurationError: views are asked for without projections, or the shares do not add up to 1.
    """
    check_shares(shares)
    if views and projections is None:
        raise ConfigurationError(
            describe("Views are asked for", got=list(views), then="give --projections: the official files name none")
        )
    reports, broken = load_reports(root)
    named = {_key(name) for report in reports for name in report.images}
    files = _index_images(images or (root if root.is_dir() else root.parent), named)
    projected = None if projections is None else _read_projections(projections)
    result = ImportReport()
    result.found.update({"reports": len(reports), "reports with an impression": 0, "reports with findings": 0})
    for entry in broken:
        result.miss(BAD_REPORT, entry)
    wanted = {view.upper() for view in views}
    for number, report in enumerate(reports, start=1):
        result.found["reports with an impression"] += bool(report.impression)
        result.found["reports with findings"] += bool(report.findings)
        result.found["images named"] += len(report.images)
        _add_rows(result, report, files, projected, wanted, shares)
        advance(number, len(reports))
    return result


def _add_rows(
    result: ImportReport,
    report: OpeniReport,
    files: dict[tuple[str, str], Path],
    projected: dict[tuple[str, str], str] | None,
    wanted: set[str],
    shares: Sequence[float],
) -> None:
    present = "|".join(_findings(report.major))
    if not report.images:
        result.miss(NO_IMAGES, report.uid)
    if not (report.impression or report.findings):
        result.miss(NO_WORDS, report.uid)
        if not present:
            return
    for name in report.images:
        key = _key(name)
        view = "" if projected is None else projected.get(key, "")
        if projected is not None and not view:
            result.miss(NO_VIEW, name)
        if wanted and view not in wanted:
            result.left_out[f"view {view or '(none stated)'}"] += 1
        elif (path := files.get(key)) is None:
            result.miss(MISSING_IMAGE, f"{name}.png")
        else:
            result.rows.append(
                build_row(
                    str(path),
                    impression=report.impression,
                    findings=report.findings,
                    present=present,
                    absent="",
                    split=assign_split(report.uid, shares),
                    patient=report.uid,
                    study_id=report.uid,
                    view=view,
                    source="openi",
                )
            )


def _findings(headings: Sequence[str]) -> list[str]:
    """Findings of headings such as "Cardiomegaly/mild", each once, in order."""
    heads = (heading.split("/")[0].strip().lower() for heading in headings)
    return list(dict.fromkeys(_HEADINGS[head] for head in heads if head in _HEADINGS))


def _key(name: str) -> tuple[str, str]:
    """What the official and the re-released name of an image share: report number and series."""
    stem = _SUFFIX.sub("", name)
    match = _FILE_NAME.fullmatch(stem)
    return (match.group(1), match.group(2).upper()) if match else ("", stem)


def _index_images(folder: Path, named: set[tuple[str, str]]) -> dict[tuple[str, str], Path]:
    if not folder.is_dir():
        raise TableError(describe("There is no such folder of images", got=str(folder)))
    files: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.resolve().rglob("*")):
        key = _key(path.name)
        if path.suffix.lower() not in _SUFFIXES or key not in named or not path.is_file():
            continue
        if (other := files.setdefault(key, path)) != path:
            raise TableError(
                describe(
                    "One image has two files",
                    got=[str(other), str(path)],
                    expected="each image once",
                    then="name the folder to take with --images",
                )
            )
    return files


def _read_projections(path: Path) -> dict[tuple[str, str], str]:
    rows = read_rows(path, ("uid", "filename", "projection"))
    return {_key(row["filename"]): row["projection"].upper() for row in rows}
