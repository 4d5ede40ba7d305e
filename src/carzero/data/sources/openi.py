"""Open-i (Indiana University chest radiographs): XML reports and PNG pictures.

Source: D. Demner-Fushman et al., Preparing a collection of radiology examinations for distribution and retrieval,
JAMIA 2016; https://openi.nlm.nih.gov. The release has no patient ids: a report counts as a patient.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from carzero.data.sources.official_files import read_rows
from carzero.data.sources.openi_reports import OpeniReport, load_reports
from carzero.data.sources.records import Advance, ImportReport, assign_split, build_row, check_shares
from carzero.errors import ConfigurationError, TableError, describe

__all__ = ["import_openi"]

NO_PICTURE, NO_IMAGES, NO_WORDS = "pictures that are not there", "reports without a picture", "reports without text"
BAD_REPORT, NO_VIEW = "reports that cannot be read", "pictures that the projections do not name"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")
_SUFFIX = re.compile(r"(?:\.dcm)?(?:\.(?:png|jpe?g|dcm))?$", re.IGNORECASE)
_NAME = re.compile(r"(?:CXR)?(\d+)(?:_\d+)?_(IM-[\w-]+)", re.IGNORECASE)
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
    """Makes rows of Open-i, one a picture.

    Args:
        root: folder with the XML reports somewhere in it, or NLMCXR_reports.tgz, which is read without extraction.
        images: folder with the pictures somewhere in it; None looks where the reports are. Names may be the official
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
        TableError: there are no reports, or one picture has two files.
        ConfigurationError: views are asked for without projections, or the shares do not add up to 1.
    """
    check_shares(shares)
    if views and projections is None:
        raise ConfigurationError(
            describe("Views are asked for", got=list(views), then="give --projections: the official files name none")
        )
    reports, broken = load_reports(root)
    named = {_key(name) for report in reports for name in report.images}
    files = _index_pictures(images or (root if root.is_dir() else root.parent), named)
    projected = None if projections is None else _read_projections(projections)
    result = ImportReport()
    result.found.update({"reports": len(reports), "reports with an impression": 0, "reports with findings": 0})
    for entry in broken:
        result.miss(BAD_REPORT, entry)
    wanted = {view.upper() for view in views}
    for number, report in enumerate(reports, start=1):
        result.found["reports with an impression"] += bool(report.impression)
        result.found["reports with findings"] += bool(report.findings)
        result.found["pictures named"] += len(report.images)
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
            result.miss(NO_PICTURE, f"{name}.png")
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
    """What the official and the re-released name of a picture share: report number and series."""
    stem = _SUFFIX.sub("", name)
    match = _NAME.fullmatch(stem)
    return (match.group(1), match.group(2).upper()) if match else ("", stem)


def _index_pictures(folder: Path, named: set[tuple[str, str]]) -> dict[tuple[str, str], Path]:
    if not folder.is_dir():
        raise TableError(describe("There is no such folder of pictures", got=str(folder)))
    files: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.resolve().rglob("*")):
        key = _key(path.name)
        if path.suffix.lower() not in _SUFFIXES or key not in named or not path.is_file():
            continue
        if (other := files.setdefault(key, path)) != path:
            raise TableError(
                describe(
                    "One picture has two files",
                    got=[str(other), str(path)],
                    expected="each picture once",
                    then="name the folder to take with --images",
                )
            )
    return files


def _read_projections(path: Path) -> dict[tuple[str, str], str]:
    rows = read_rows(path, ("uid", "filename", "projection"))
    return {_key(row["filename"]): row["projection"].upper() for row in rows}
