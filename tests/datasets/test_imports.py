"""Imports of official releases, on files in their layouts: what becomes of each image, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from carzero.data.pair_files import save_pairs
from carzero.data.pairs import load_pairs
from carzero.datasets import ImportReport, import_folder, import_mimic_cxr, import_openi
from carzero.datasets import files as release_files
from carzero.datasets.base import assign_split
from carzero.datasets.openi import load_reports
from carzero.errors import ConfigurationError, TableError
from tests.support import releases
from tests.support.image_files import encode
from tests.support.image_files import film as synthetic_film
from tests.support.releases import openi_report, picture_name, save_mimic, save_openi, save_tgz

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.png"
    path.write_bytes(encode(synthetic_film(), "PNG"))
    return path


NOT_UTF8 = (
    "not UTF-8 (byte {}) but Windows-1252 or another older encoding; save it as UTF-8 (in a spreadsheet: CSV UTF-8)"
)


def by_study(result: ImportReport) -> dict[str, dict[str, Any]]:
    return {row["study_id"]: row for row in result.rows}


class TestMimic:
    @pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz and zip"])
    def test_frontal_pictures_with_sections_and_labels(self, zipped: bool, film: Path, tmp_path: Path) -> None:
        root = save_mimic(tmp_path / "mimic", film, zipped=zipped)
        result = import_mimic_cxr(root)
        assert [row["image"] for row in result.rows] == [
            str(root / f"files/p10/p10000001/s50000001/{picture_name(0)}.jpg"),
            str(root / f"files/p10/p10000001/s50000002/{picture_name(2)}.jpg"),
            str(root / f"files/p10/p10000002/s50000003/{picture_name(3)}.jpg"),
            str(root / f"files/p11/p11000003/s50000005/{picture_name(5)}.jpg"),
        ]
        rows = by_study(result)
        assert rows["50000001"] == {
            "image": result.rows[0]["image"],
            "impression": "Consolidation in the right lower lobe.",
            "findings": "There is a consolidation in the right lower lobe.  The heart is of\n normal size.",
            "present": "consolidation",
            "absent": "cardiomegaly",  # pneumonia is uncertain (-1) and the rest is not mentioned
            "split": "train",
            "patient_id": "10000001",
            "study_id": "50000001",
            "view": "AP",
            "source": "mimic-cxr",
        }
        assert rows["50000002"]["findings"] == "The lungs are clear.  No pneumothorax is seen."
        assert (rows["50000002"]["present"], rows["50000002"]["absent"]) == ("no finding", "pneumothorax")
        assert (rows["50000003"]["split"], rows["50000003"]["present"]) == ("val", "")
        assert (rows["50000005"]["impression"], rows["50000005"]["present"]) == ("", "edema")
        counts = result.to_dict()
        assert counts["found"] == {
            "images in the metadata": 6,
            "reports": 3,
            "reports with an impression": 2,
            "reports with findings": 3,
            "labelled studies": 3,
        }
        assert counts["left_out"] == {"view LATERAL": 1, "view (none stated)": 1}
        assert counts["missing"] == {"reports that are not there": ["files/p11/p11000003/s50000005.txt"]}
        assert (counts["rows"], counts["patients"], counts["studies"]) == (4, 3, 4)
        assert counts["splits"] == {"train": 2, "val": 1, "test": 1}

    @pytest.mark.parametrize("suffix", FORMATS)
    def test_the_table_reads_back(self, suffix: str, film: Path, tmp_path: Path) -> None:
        result = import_mimic_cxr(save_mimic(tmp_path / "mimic", film))
        save_pairs(result.rows, tmp_path / f"pairs{suffix}")
        table = load_pairs(tmp_path / f"pairs{suffix}")
        assert table.images == [row["image"] for row in result.rows]
        assert table.sentences[0] == [
            *("Consolidation in the right lower lobe", "There is a consolidation in the right lower lobe"),
            "The heart is of normal size",
        ]
        assert table.sentences[3] == []
        assert table.present == [["consolidation"], ["no finding"], [], ["edema"]]
        assert table.patients == ["10000001", "10000001", "10000002", "11000003"]
        assert table.views == ["AP", "PA", "PA", "AP"]
        assert table.splits == ["train", "train", "val", "test"]

    def test_other_views_labels_and_places_of_reports(self, film: Path, tmp_path: Path) -> None:
        root = save_mimic(tmp_path / "mimic", film, reports={})
        assert len(import_mimic_cxr(root, views=()).rows) == 4, "two studies have neither report nor labels"
        assert [row["view"] for row in import_mimic_cxr(root, views=("lateral", "")).rows] == ["LATERAL"]
        other = save_mimic(tmp_path / "other", film, zipped=True)
        unzipped = tmp_path / "unzipped"
        with zipfile.ZipFile(other / "mimic-cxr-reports.zip") as archive:
            archive.extractall(unzipped)
        for reports in (other / "mimic-cxr-reports.zip", unzipped, unzipped / "files"):
            rows = by_study(import_mimic_cxr(root, reports=reports, labeller="negbio"))
            assert rows["50000001"]["impression"] == "Consolidation in the right lower lobe."
            assert rows["50000001"]["present"] == "", "the second labeller says nothing of it"
        rows = by_study(import_mimic_cxr(root, reports=unzipped, labeller="none"))
        assert rows["50000002"]["present"] == ""
        assert "50000005" not in rows

    def test_what_is_missing_is_named(self, film: Path, tmp_path: Path) -> None:
        reports = {**releases.REPORTS, "50000002": b"\xff", "50000003": b"a" * 2**20 + b"b"}
        root = save_mimic(tmp_path / "mimic", film, without=[0], reports=reports)
        split = root / "mimic-cxr-2.0.0-split.csv"
        split.write_text("\n".join(line for line in split.read_text().splitlines() if picture_name(5) not in line))
        result = import_mimic_cxr(root)
        assert result.missing == {
            "images that are not there": [f"files/p10/p10000001/s50000001/{picture_name(0)}.jpg"],
            "reports that cannot be read": [
                f"files/p10/p10000001/s50000002.txt: {NOT_UTF8.format('0xff')}",
                "files/p10/p10000002/s50000003.txt: it is larger than 1048576 bytes",
            ],
            "images without text and labels": [f"files/p10/p10000002/s50000003/{picture_name(3)}.jpg"],
            "images without a split": [picture_name(5)],
        }
        assert list(by_study(result)) == ["50000002"]

    def test_a_dicom_release_serves_too(self, film: Path, tmp_path: Path) -> None:
        root = save_mimic(tmp_path / "mimic", film)
        for path in root.rglob("*.jpg"):
            path.rename(path.with_suffix(".dcm"))
        assert {Path(row["image"]).suffix for row in import_mimic_cxr(root).rows} == {".dcm"}

    @pytest.mark.parametrize(
        ("name", "old", "new", "message"),
        [
            ("metadata", "10000001,", "../../etc,", r"Row 1 of the metadata .* no ids of MIMIC-CXR; got \['../../etc'"),
            ("metadata", picture_name(0), "a/../b", "no ids of MIMIC-CXR"),
            ("metadata", "ViewPosition", "view", r"cannot be read; got 'no columns ViewPosition'"),
            ("chexpert", "-1.0", "maybe", r"Row 1 of .*chexpert\.csv holds no label; got \{'Pneumonia': 'maybe'\}"),
            ("split", "dicom_id", "image", "no columns dicom_id"),
        ],
    )
    def test_tables_that_are_not_the_releases(
        self, name: str, old: str, new: str, message: str, film: Path, tmp_path: Path
    ) -> None:
        root = save_mimic(tmp_path / "mimic", film)
        path = root / f"mimic-cxr-2.0.0-{name}.csv"
        path.write_text(path.read_text().replace(old, new))
        with pytest.raises(TableError, match=message):
            import_mimic_cxr(root)

    def test_files_that_lack_or_are_broken(self, film: Path, tmp_path: Path) -> None:
        root = save_mimic(tmp_path / "mimic", film, zipped=True)
        with pytest.raises(TableError, match=r"lacks its metadata file; got .*expected a folder with mimic-cxr-2"):
            import_mimic_cxr(tmp_path)
        (root / "mimic-cxr-2.1.0-split.csv.gz").write_bytes(b"")
        with pytest.raises(TableError, match="holds several releases"):
            import_mimic_cxr(root)
        (root / "mimic-cxr-2.1.0-split.csv.gz").unlink()
        with pytest.raises(TableError, match="reports cannot be read"):
            import_mimic_cxr(root, reports=tmp_path / "nowhere.zip")
        with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
            archive.writestr("readme.txt", "x")
        with pytest.raises(TableError, match="holds no reports"):
            import_mimic_cxr(root, reports=tmp_path / "other.zip")
        (root / "mimic-cxr-2.0.0-chexpert.csv.gz").write_bytes(b"no gzip")
        with pytest.raises(TableError, match=r"chexpert\.csv\.gz cannot be read"):
            import_mimic_cxr(root)

    def test_little_that_stands_for_much(self, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = save_mimic(tmp_path / "mimic", film, zipped=True)
        monkeypatch.setattr("carzero.datasets.files._TABLE_LIMIT_BYTES", 2**20)
        (root / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress(b"dicom_id,split\n" + b"0,1\n" * 2**20))
        with pytest.raises(TableError, match="more than 1,048,576 bytes"):
            import_mimic_cxr(root)
        monkeypatch.setattr("carzero.datasets.files._LIMIT_ROWS", 3)
        with pytest.raises(TableError, match="more than 3 rows"):
            import_mimic_cxr(root)

    def test_a_damaged_report_in_the_archive_costs_that_report(self, film: Path, tmp_path: Path) -> None:
        root = save_mimic(tmp_path / "mimic", film, zipped=True)
        archive = root / "mimic-cxr-reports.zip"
        content = bytearray(archive.read_bytes())
        start = content.index(b"s50000002.txt") + len("s50000002.txt")
        content[start : start + 8] = b"\xff" * 8
        archive.write_bytes(bytes(content))
        result = import_mimic_cxr(root)
        (entry,) = result.missing["reports that cannot be read"]
        assert entry.startswith("files/p10/p10000001/s50000002.txt: it is damaged")
        assert by_study(result)["50000001"]["impression"]


OPENI = {
    "1.xml": openi_report(
        1,
        impression="Cardiomegaly is seen.",
        findings="The heart is large. There is no XXXX.",
        major=("Cardiomegaly/mild", "Lung/hyperdistention", "Pulmonary Atelectasis/base/left", "cardiomegaly"),
        images=("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"),
    ),
    "2.xml": openi_report(2, findings="Clear lungs are seen.", images=("CXR2_IM-0652-1001",)),
    "10.xml": openi_report(10, major=("No Indexing",), images=("CXR10_IM-0002-1001",)),
    "3.xml": openi_report(3, impression="No edema."),
}


def save_pictures(folder: Path, film: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(film.read_bytes())


class TestOpeni:
    @pytest.mark.parametrize(
        "names",
        [
            ("CXR1_1_IM-0001-3001.png", "CXR1_1_IM-0001-4001.png", "CXR2_IM-0652-1001.png", "CXR10_IM-0002-1001.png"),
            ("1_IM-0001-3001.dcm.png", "1_IM-0001-4001.dcm.png", "2_IM-0652-1001.dcm.png", "10_IM-0002-1001.dcm.png"),
        ],
        ids=["official names", "names of the re-release"],
    )
    @pytest.mark.parametrize("archived", [False, True])
    def test_rows_of_both_kinds_of_names(
        self, names: tuple[str, ...], archived: bool, film: Path, tmp_path: Path
    ) -> None:
        root = save_tgz(tmp_path / "NLMCXR_reports.tgz", OPENI) if archived else save_openi(tmp_path, OPENI)
        save_pictures(tmp_path / "images", film, *names)
        result = import_openi(root)
        assert [Path(row["image"]).name for row in result.rows] == list(names[:3])
        assert result.rows[0] == {
            "image": str(tmp_path / "images" / names[0]),
            "impression": "Cardiomegaly is seen.",
            "findings": "The heart is large. There is no XXXX.",
            "present": "cardiomegaly|atelectasis",
            "absent": "",
            "split": assign_split("CXR1", (0.8, 0.1, 0.1)),
            "patient_id": "CXR1",
            "study_id": "CXR1",
            "view": "",
            "source": "openi",
        }
        assert result.rows[2]["present"] == "normal"
        assert dict(result.found) == {
            "reports": 4,
            "reports with an impression": 2,
            "reports with findings": 2,
            "images named": 4,
        }
        assert result.missing == {"reports without text": ["CXR10"], "reports without an image": ["CXR3"]}

    def test_missing_pictures_and_views_of_the_projections(self, film: Path, tmp_path: Path) -> None:
        root = save_openi(tmp_path, OPENI)
        save_pictures(tmp_path / "png", film, "CXR1_1_IM-0001-3001.png", "CXR1_1_IM-0001-4001.png")
        lines = ["uid,filename,projection", "1,1_IM-0001-3001.dcm.png,Lateral", "1,1_IM-0001-4001.dcm.png,Frontal"]
        (tmp_path / "indiana_projections.csv").write_text("\n".join(lines))
        result = import_openi(root, projections=tmp_path / "indiana_projections.csv")
        assert [row["view"] for row in result.rows] == ["LATERAL", "FRONTAL"]
        assert result.missing["images that are not there"] == ["CXR2_IM-0652-1001.png"]
        assert result.missing["images that the projections do not name"] == ["CXR2_IM-0652-1001"]
        frontal = import_openi(root, projections=tmp_path / "indiana_projections.csv", views=["frontal"])
        assert [row["view"] for row in frontal.rows] == ["FRONTAL"]
        assert dict(frontal.left_out) == {"view LATERAL": 1, "view (none stated)": 1}
        with pytest.raises(ConfigurationError, match="Give --projections"):
            import_openi(root, views=["frontal"])

    def test_splits_stand_whatever_else_is_there(self, film: Path, tmp_path: Path) -> None:
        reports = {f"{n}.xml": openi_report(n, impression="No edema.", images=(f"CXR{n}_IM-1-1",)) for n in range(200)}
        root = save_openi(tmp_path, reports)
        save_pictures(tmp_path / "images", film, *(f"CXR{n}_IM-1-1.png" for n in range(200)))
        splits = {row["patient_id"]: row["split"] for row in import_openi(root, shares=(0.6, 0.2, 0.2)).rows}
        counts = Counter(splits.values())
        assert 100 < counts["train"] < 140
        assert min(counts["val"], counts["test"]) > 20
        for path in list(root.rglob("*.xml"))[::2]:
            path.unlink()
        again = {row["patient_id"]: row["split"] for row in import_openi(root, shares=(0.6, 0.2, 0.2)).rows}
        assert len(again) == 100
        assert again.items() <= splits.items()

    def test_two_files_of_one_picture(self, film: Path, tmp_path: Path) -> None:
        root = save_openi(tmp_path, OPENI)
        save_pictures(tmp_path / "a", film, "CXR2_IM-0652-1001.png")
        save_pictures(tmp_path / "b", film, "2_IM-0652-1001.dcm.png")
        with pytest.raises(TableError, match=r"One image has two files.*--images"):
            import_openi(root)
        assert len(import_openi(root, images=tmp_path / "b").rows) == 1
        with pytest.raises(TableError, match="no such folder of images"):
            import_openi(root, images=tmp_path / "c")

    def test_other_pictures_are_no_matter(self, film: Path, tmp_path: Path) -> None:
        root = save_openi(tmp_path, OPENI)
        save_pictures(tmp_path / "a", film, "CXR2_IM-0652-1001.png", "logo.png", "CXR99_IM-1-1.png")
        save_pictures(tmp_path / "b", film, "logo.png", "99_IM-1-1.dcm.png")
        assert [Path(row["image"]).name for row in import_openi(root).rows] == ["CXR2_IM-0652-1001.png"]

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (openi_report(9, head='<!DOCTYPE x [<!ENTITY a "b">]>\n'), "declares a document type"),
            (openi_report(9, head='<!DOCTYPE x SYSTEM "http://localhost/x">\n'), "declares a document type"),
            (openi_report(9, head="<!DOCTYPE x>").encode("utf-16"), "utf-8"),
            (openi_report(9).replace("</eCitation>", ""), "no XML"),
            (openi_report(9, impression="&undefined;"), "no XML: undefined entity"),
            ("<a/>", "no element uId"),
            (b"", "no XML"),
            (b"<a>" * 400_000, "larger than 1048576 bytes"),
            (b"<a>" * 300_000, "no XML"),
        ],
    )
    def test_what_is_no_report_is_named_and_the_rest_is_read(
        self, content: str | bytes, reason: str, tmp_path: Path
    ) -> None:
        files = {"9.xml": content, "3.xml": OPENI["3.xml"]}
        for place in (save_openi(tmp_path / "folder", files), save_tgz(tmp_path / "reports.tgz", files)):
            reports, broken = load_reports(place)
            assert [report.uid for report in reports] == ["CXR3"]
            assert len(broken) == 1
            assert "9.xml: " in broken[0]
            assert reason in broken[0]

    def test_archives_that_are_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = save_tgz(tmp_path / "whole.tgz", OPENI).read_bytes()
        (tmp_path / "cut.tgz").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "text.tgz").write_text("no archive")
        for name in ("cut.tgz", "text.tgz", "nowhere.tgz"):
            with pytest.raises(TableError, match=rf"reports in .*{name} cannot be read; got "):
                load_reports(tmp_path / name)
        with pytest.raises(TableError, match="There are no reports"):
            load_reports(save_tgz(tmp_path / "empty.tgz", {}))
        monkeypatch.setattr(release_files, "_ARCHIVE_LIMIT_BYTES", 2**20)
        bomb = save_tgz(tmp_path / "bomb.tgz", {"a.bin": b"0" * 2**22, **OPENI})
        assert bomb.stat().st_size < 2**14
        with pytest.raises(TableError, match="more than 1,048,576 bytes"):
            load_reports(bomb)

    def test_too_many_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(release_files, "_LIMIT_FILES", 3)
        for place in (save_openi(tmp_path / "folder", OPENI), save_tgz(tmp_path / "reports.tgz", OPENI)):
            with pytest.raises(TableError, match="more than 3 files"):
                load_reports(place)

    @pytest.mark.parametrize("compress", [bz2.compress, lzma.compress, bytes])
    def test_archives_otherwise_compressed(self, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
        archive = save_tgz(tmp_path / "reports.tgz", OPENI)
        archive.write_bytes(compress(gzip.decompress(archive.read_bytes())))
        assert [report.uid for report in load_reports(archive)[0]] == ["CXR1", "CXR2", "CXR3", "CXR10"]

    def test_names_in_an_archive_are_never_paths(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        archive = save_tgz(tmp_path / "in" / "reports.tgz", {"../../../escaped.xml": OPENI["3.xml"]})
        assert [report.uid for report in load_reports(archive)[0]] == ["CXR3"]
        assert [path.name for path in tmp_path.rglob("*")] == ["in", "reports.tgz"]

    def test_the_real_reports(self, shared: Path) -> None:
        result = import_openi(shared / "reports" / "NLMCXR_reports.tgz")
        assert result.found["reports"] == 3955
        assert result.found["images named"] == 7470
        assert len(set(result.missing["images that are not there"])) == 7470
        assert not result.rows
        assert "reports that cannot be read" not in result.missing


class TestFolder:
    @pytest.fixture
    def root(self, film: Path, tmp_path: Path) -> Path:
        root = tmp_path / "films"
        save_pictures(root / "p1" / "a", film, "x.png", "y.jpg")
        save_pictures(root / "p1" / "b", film, "z_1.png", "no_text.png")
        save_pictures(root / "p2", film, "q_2.png", "silent.png", "broken.png")
        save_pictures(root, film, "top.png")
        save_pictures(root / ".hidden", film, "h.png")
        (root / "p1" / "a" / "report.txt").write_text("FINDINGS: Clear lungs.")
        (root / "p1" / "a" / "y.txt").write_text("A nodule is seen.")
        (root / "p1" / "b" / "z_1.txt").write_text("The heart is large.")
        (root / "p2" / "q_2.txt").write_text("INDICATION: Cough.\nIMPRESSION: No edema.")
        (root / "p2" / "silent.txt").write_text("INDICATION: Cough.")
        (root / "p2" / "broken.txt").write_bytes(b"\xe9t\xe9")
        (root / "p2" / "orphan.txt").write_text("No image.")
        (root / "top.txt").write_text("No effusion.")
        return root

    def test_a_text_beside_each_or_one_for_all(self, root: Path, tmp_path: Path) -> None:
        result = import_folder(root)
        rows = {Path(row["image"]).relative_to(root).as_posix(): row for row in result.rows}
        assert {name: (row["patient_id"], row["study_id"], row["text"]) for name, row in rows.items()} == {
            "p1/a/x.png": ("p1", "p1/a", "FINDINGS: Clear lungs."),
            "p1/a/y.jpg": ("p1", "p1/a/y.jpg", "A nodule is seen."),
            "p1/b/z_1.png": ("p1", "p1/b/z_1.png", "The heart is large."),
            "p2/q_2.png": ("p2", "p2/q_2.png", "INDICATION: Cough.\nIMPRESSION: No edema."),
            "top.png": ("", "top.png", "No effusion."),
        }
        assert len({row["split"] for name, row in rows.items() if name.startswith("p1")}) == 1
        assert dict(result.found) == {"images": 8, "reports": 8}
        assert result.missing == {
            "images without a report": ["p1/b/no_text.png"],
            "reports that cannot be read": [f"p2/broken.txt: {NOT_UTF8.format('0xe9')}"],
            "reports that say nothing of the image": ["p2/silent.txt"],
            "reports without an image": ["p2/orphan.txt"],
        }
        save_pairs(result.rows, root / "pairs.csv")
        assert json.dumps(str(tmp_path))[1:-1] not in (root / "pairs.csv").read_text(), "paths go with the folder"
        moved = root.rename(tmp_path / "moved")
        table = load_pairs(moved / "pairs.csv")
        assert table.images[0] == str(moved / "p1" / "a" / "x.png")
        assert table.sentences[3] == ["No edema"]

    def test_patients_from_names_or_unknown(self, root: Path) -> None:
        stems = [row["patient_id"] for row in import_folder(root, patient_from="stem").rows]
        assert stems == ["x", "y", "z", "q", "top"]
        assert {row["patient_id"] for row in import_folder(root, patient_from="none").rows} == {""}

    def test_pictures_that_share_the_text_beside_them_are_one_study(self, film: Path, tmp_path: Path) -> None:
        names = [f"{n}{suffix}" for n in range(20) for suffix in (".jpg", ".png")]
        save_pictures(tmp_path / "sub", film, *names, "alone.png")
        for name in (*range(20), "alone"):
            (tmp_path / "sub" / f"{name}.txt").write_text("No edema.")
        rows = import_folder(tmp_path, patient_from="none", shares=(0.5, 0.3, 0.2)).rows
        studies = {Path(row["image"]).name: row["study_id"] for row in rows}
        assert studies == {**{name: f"sub/{name[:-4]}" for name in names}, "alone.png": "sub/alone.png"}
        splits = {study: {row["split"] for row in rows if row["study_id"] == study} for study in studies.values()}
        assert all(len(splits[study]) == 1 for study in splits)
        assert len({row["split"] for row in rows}) == 3
        first = next(row for row in rows if row["study_id"] == "sub/0")
        assert first["split"] == assign_split("sub/0", (0.5, 0.3, 0.2))

    def test_a_name_that_is_no_utf8_costs_that_picture_alone(self, film: Path, tmp_path: Path) -> None:
        root = tmp_path / "films"
        save_pictures(root / "b", film, "b.png")
        odd, folder = os.fsdecode(b"a\xe9.png"), os.fsdecode(b"\xff")
        save_pictures(root / "b", film, odd)
        save_pictures(root / folder, film, "c.png")
        for place in (root / "b", root / folder):
            (place / "report.txt").write_text("No edema.")
        (root / "b" / os.fsdecode(b"a\xe9.txt")).write_text("No edema.")
        (root / os.fsdecode(b"\xfe.txt")).write_text("No image.")
        result = import_folder(root)
        assert [(row["image"], row["text"]) for row in result.rows] == [(str(root / "b" / "b.png"), "No edema.")]
        assert result.missing == {
            "images whose names are not UTF-8": ["b/a\\udce9.png", "\\udcff/c.png"],
            "reports without an image": ["\\udcfe.txt"],
        }
        json.dumps(result.to_dict(), ensure_ascii=False).encode("utf-8")
        save_pairs(result.rows, tmp_path / "pairs.csv")

    def test_a_broken_report_is_named_although_its_first_picture_is_left_out(self, film: Path, tmp_path: Path) -> None:
        save_pictures(tmp_path, film, os.fsdecode(b"a\xe9.png"), "b.png")
        (tmp_path / "report.txt").write_bytes(b"\xe9")
        missing = import_folder(tmp_path).missing
        assert list(missing) == ["images whose names are not UTF-8", "reports that cannot be read"]

    def test_what_is_no_folder_of_pictures(self, tmp_path: Path) -> None:
        with pytest.raises(TableError, match="no such folder"):
            import_folder(tmp_path / "nowhere")
        with pytest.raises(TableError, match="No images are found"):
            import_folder(tmp_path)
        for shares in ((0.5, 0.5), (0.5, 0.6, 0.1), (1.2, -0.2, 0.0)):
            with pytest.raises(ConfigurationError, match="shares of the splits do not fit"):
                import_folder(tmp_path, shares=shares)


def test_a_split_is_a_matter_of_the_key_alone() -> None:
    assert [assign_split(f"CXR{n}", (0.8, 0.1, 0.1)) for n in range(1, 9)] == [
        *("train", "val", "train", "val", "train", "train", "train", "train")
    ]
    assert {assign_split(str(n), (1, 0, 0)) for n in range(500)} == {"train"}
    assert {assign_split(str(n), (0, 0, 1)) for n in range(500)} == {"test"}
    assert {assign_split(str(n), (0.5, 0.5, 0)) for n in range(500)} == {"train", "val"}
