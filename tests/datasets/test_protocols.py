"""Label matrices from official files: generated ones in their layouts, and, where they are at hand, the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from carzero.datasets.base import Truth
from carzero.datasets.catalogue import DATASETS
from carzero.datasets.openi import load_every_report
from carzero.errors import TableError
from carzero.prompts import load_prompt_set
from tests.support.official import nih_entries, nih_list, openi_archive, openi_report, padchest_table

NIH, OPENI, PADCHEST = DATASETS["chestxray14"], DATASETS["openi"], DATASETS["padchest"]
CHEXPERT, CHESTXDET = DATASETS["chexpert"], DATASETS["chestxdet10"]


def found(labelled: Truth, labels: tuple[str, ...]) -> dict[str, set[str]]:
    """Each image's findings."""
    return {
        name: {label for label, value in zip(labels, row, strict=True) if value}
        for name, row in zip(labelled.ids, labelled.matrix, strict=True)
    }


def test_the_command_names_the_sets_of_the_catalogue() -> None:
    """The help is text: reading the catalogue there would load numpy for every help page."""
    from carzero.cli.benchmark import SetName

    assert list(get_args(SetName)) == [*DATASETS, "all"]
    assert list(DATASETS) == [dataset.name for dataset in DATASETS.values()]


@pytest.mark.parametrize("protocol", DATASETS.values(), ids=DATASETS)
def test_prompts_of_the_library_ask_these_classes_in_this_order(protocol: Any) -> None:
    prompt_set = load_prompt_set(protocol.prompts, "paper")
    assert tuple(prompt_set.labels) == protocol.labels
    assert all(len(prompts) == 1 for _, prompts in prompt_set)
    assert protocol.no_findings <= set(protocol.labels)


# ChestXray14

NAMES = ("00000003_000.png", "00000003_001.png", "00000017_000.png")
MATRIX = np.zeros((3, 14), dtype=np.float32)
MATRIX[0, [2, 12]] = MATRIX[2, 13] = 1


def test_nih_list_and_table_give_the_same_matrix(tmp_path: Path) -> None:
    released = nih_list(tmp_path / "test_list.txt", NAMES, MATRIX)
    bare = nih_list(tmp_path / "names.txt", NAMES, None)
    entries = nih_entries(
        tmp_path / "Data_Entry_2017.csv", ["00000001_000.png", *NAMES[::-1]], NIH.labels, np.ones((4, 14))
    )
    right = nih_entries(tmp_path / "Data_Entry_2017_v2020.csv", NAMES[::-1], NIH.labels, MATRIX[::-1])
    for files in ([released], [bare, right], [released, right], [right, released]):
        labelled = NIH.load(files)
        assert labelled.ids == NAMES
        assert np.array_equal(labelled.matrix, MATRIX)
        assert labelled.groups == ("00000003", "00000003", "00000017")
        assert labelled.unit == "patient"
    with pytest.raises(TableError, match="disagree on 3 of 3 images"):
        NIH.load([released, entries])
    with pytest.raises(TableError, match=r"without labels.*Data_Entry_2017\.csv"):
        NIH.load([bare])
    with pytest.raises(TableError, match="needs one list"):
        NIH.load([right])
    with pytest.raises(TableError, match="lacks 1 of 4 listed images"):
        NIH.load([nih_list(tmp_path / "more.txt", [*NAMES, "00000099_000.png"], None), right])


@pytest.mark.parametrize("line", ["a.png 0 1", "a.png" + " 0" * 13 + " 2", "a.png" + " 0" * 15, "a.png"])
def test_a_broken_line_of_the_list_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "test_list.txt"
    path.write_text("b.png" + " 0" * 14 + f"\n{line}\n")
    with pytest.raises(TableError, match=r"Line 2 of .*test_list\.txt has another form"):
        NIH.load([path])


def test_doubled_pictures_and_unknown_findings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"more than once; got \['00000003_000.png'\]"):
        NIH.load([nih_list(tmp_path / "twice.txt", [*NAMES, NAMES[0]], np.vstack([MATRIX, MATRIX[:1]]))])
    strange = nih_entries(tmp_path / "strange.csv", NAMES, ["Cough", *NIH.labels[1:]], np.eye(3, 14))
    with pytest.raises(TableError, match=r"findings that NIH does not; got \['Cough'\]"):
        NIH.load([nih_list(tmp_path / "names.txt", NAMES, None), strange])
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(TableError, match="is empty"):
        NIH.load([tmp_path / "empty.txt"])


# Open-i

REPORTS = {
    "10.xml": openi_report("CXR10", ["CXR10_IM-0002-2001"], ["normal"], []),
    "2.xml": openi_report(
        "CXR2",
        ["CXR2_IM-0652-2001", "CXR2_IM-0652-1001"],
        ["Emphysema"],
        ["Pericardial Effusion", "Calcified Granuloma", "Mass Lesion"],
    ),
    "1.xml": openi_report("CXR1", ["CXR1_1_IM-0001-3001"], [], ["Infiltrates", "Atelectases", "Pleural Thickening"]),
}


def test_open_i_reads_substrings_of_automatic_headings_from_either_file(tmp_path: Path) -> None:
    archive = openi_archive(tmp_path / "NLMCXR_reports.tgz", REPORTS)
    labelled = OPENI.load([archive])
    assert labelled.ids == (
        *("CXR1_IM-0001-3001.png", "CXR2_IM-0652-2001.png", "CXR2_IM-0652-1001.png", "CXR10_IM-0002-2001.png"),
    )
    assert labelled.groups == ("CXR1", "CXR2", "CXR2", "CXR10")
    lesions = {"Effusion", "Mass", "Lesion", "Granuloma", "Calcified Granuloma"}
    assert found(labelled, OPENI.labels) == {
        "CXR1_IM-0001-3001.png": {"Infiltration", "Atelectasis", "Pleural_Thickening"},
        "CXR2_IM-0652-2001.png": lesions,
        "CXR2_IM-0652-1001.png": lesions,
        "CXR10_IM-0002-2001.png": set(),
    }, "readers' headings (major) and prose take no part"
    (tmp_path / "custom.csv").write_text(
        ",uid,file_name,labels_major,labels_automatic\n"
        "0,CXR1,CXR1_IM-0001-3001.png,,atelectases|infiltrates|pleural thickening\n"
        "0,CXR2,CXR2_IM-0652-2001.png,emphysema,calcified granuloma|mass lesion|pericardial effusion\n"
        "0,CXR2,CXR2_IM-0652-1001.png,emphysema,calcified granuloma|mass lesion|pericardial effusion\n"
        "0,CXR10,CXR10_IM-0002-2001.png,normal,\n"
    )
    table = OPENI.load([tmp_path / "custom.csv"])
    assert (table.ids, table.groups) == (labelled.ids, labelled.groups)
    assert np.array_equal(table.matrix, labelled.matrix)
    folder = tmp_path / "ecgen-radiology"
    folder.mkdir()
    for name, text in REPORTS.items():
        (folder / name).write_text(text)
    assert np.array_equal(OPENI.load([folder]).matrix, labelled.matrix)


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("CXR1_1_IM-0001-3001.png", "CXR1_IM-0001-3001.png"),
        ("images/CXR5_IM-2117-1004003.png", "CXR5_IM-2117-1004003.png"),
        ("1_IM-0001-4001.dcm.png", "CXR1_IM-0001-4001.png"),
        ("12/12_IM-0133-1001.dcm", "CXR12_IM-0133-1001.png"),
        ("CXR1_1_IM-0001-3001", "CXR1_IM-0001-3001.png"),
        ("other.png", "other.png"),
    ],
)
def test_open_i_names_its_pictures_in_several_ways(name: str, image_id: str) -> None:
    assert OPENI.to_id(name) == image_id


def test_hostile_reports_are_refused(tmp_path: Path) -> None:
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    outside = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    for prefix in (bomb, outside):
        archive = openi_archive(
            tmp_path / "bomb.tgz",
            {"1.xml": f'{prefix}<eCitation><uId id="CXR1"/><MeSH><major>&a;</major></MeSH></eCitation>'},
        )
        with pytest.raises(TableError, match="declares a document type"):
            load_every_report(archive)
    with pytest.raises(TableError, match="cannot be read as a report"):
        load_every_report(openi_archive(tmp_path / "torn.tgz", {"1.xml": "<eCitation><uId"}))
    with pytest.raises(TableError, match=r"cannot be read as a report.*no report of Open-i"):
        load_every_report(openi_archive(tmp_path / "other.tgz", {"1.xml": "<html/>"}))
    with pytest.raises(TableError, match="larger than 1048576 bytes"):
        load_every_report(openi_archive(tmp_path / "large.tgz", {"1.xml": "<a>" + " " * (1 << 20) + "</a>"}))
    with pytest.raises(TableError, match="There are no reports"):
        load_every_report(openi_archive(tmp_path / "empty.tgz", {"readme.txt": "nothing"}))
    whole = openi_archive(tmp_path / "whole.tgz", {"1.xml": openi_report("CXR1", [], [], [])}).read_bytes()
    for name, damage in (("torn.tgz", whole[:-30]), ("stream.tgz", whole[:60] + bytes(20) + whole[80:])):
        (tmp_path / name).write_bytes(damage)
        with pytest.raises(TableError, match="cannot be read"):
            load_every_report(tmp_path / name)
    (tmp_path / "no.tgz").write_bytes(b"no archive")
    with pytest.raises(TableError, match="cannot be read"):
        load_every_report(tmp_path / "no.tgz")


# PadChest

MANUAL = {
    "1_a.png": ["normal"],
    "1_b.png": ["kyphosis", "COPD signs", "laminar atelectasis"],
    "2-3_-c.png": ["exclude"],
}


def padchest_rows(**changes: str) -> list[dict[str, str]]:
    row = {"MethodLabel": "Physician"}
    rows = [
        {**row, "ImageID": "1_a.png", "PatientID": "p1", "Labels": "['normal']"},
        {
            **row,
            "ImageID": "1_b.png",
            "PatientID": "p1",
            "Labels": "['kyphosis', ' COPD signs', '', 'laminar atelectasis ']",
        },
        {**row, "ImageID": "2-3_-c.png", "PatientID": "p2", "Labels": "['exclude']"},
        {"MethodLabel": "RNN_model", "ImageID": "9_z.png", "PatientID": "p9", "Labels": "['nodule']"},
        {**row, "ImageID": "8_y.png", "PatientID": "p8", "Labels": ""},
    ]
    rows[1] |= changes
    return rows


def test_padchest_from_the_released_and_from_the_official_table(tmp_path: Path) -> None:
    (tmp_path / "manual_image.json").write_text(json.dumps(MANUAL))
    official = padchest_table(tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", padchest_rows())
    released = PADCHEST.load([tmp_path / "manual_image.json"])
    expected = {"1_a.png": set(), "1_b.png": set(MANUAL["1_b.png"]), "2-3_-c.png": {"exclude"}}
    assert found(released, PADCHEST.labels) == expected
    assert (released.groups, released.unit) == (("1", "1", "2-3"), "study")
    for files in ([official], [official, tmp_path / "manual_image.json"]):
        labelled = PADCHEST.load(files)
        assert found(labelled, PADCHEST.labels) == expected, (
            "rows labelled by a program, and rows without, are left out"
        )
        assert (labelled.groups, labelled.unit) == (("p1", "p1", "p2"), "patient")
    unknown = padchest_rows(PatientID="")
    unknown[2]["PatientID"] = ""
    labelled = PADCHEST.load([padchest_table(tmp_path / "gaps.csv", unknown)])
    assert labelled.groups == ("p1", "1", "2-3"), "images without a patient are not one patient's"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("['kyphosis'", "labels of another form"),
        ("__import__('os').system('true')", "labels of another form"),
        ("['kyphosis', open('x')]", "labels of another form"),
        ("['cough']", r"labels that PadChest does not; got \['cough'\]"),
    ],
)
def test_labels_of_another_form_are_refused_and_never_evaluated(tmp_path: Path, labels: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        PADCHEST.load([padchest_table(tmp_path / "t.csv", padchest_rows(Labels=labels))])


def test_padchest_tables_that_disagree_or_repeat_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manual_image.json").write_text(json.dumps(MANUAL))
    other = padchest_table(tmp_path / "t.csv", padchest_rows(Labels="['kyphosis']"))
    with pytest.raises(TableError, match=r"disagree on 1 of 3 images; got '1_b\.png'"):
        PADCHEST.load([other, tmp_path / "manual_image.json"])
    with pytest.raises(TableError, match="more than once"):
        PADCHEST.load([padchest_table(tmp_path / "d.csv", padchest_rows(ImageID="1_a.png"))])
    (tmp_path / "list.json").write_text('["1_a.png"]')
    with pytest.raises(TableError, match="another form"):
        PADCHEST.load([tmp_path / "list.json"])
    with pytest.raises(TableError, match="needs its table"):
        PADCHEST.load([])


# CheXpert and ChestX-Det10

CHEXPERT_HEADER = (
    "Path,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def test_chexpert_picks_five_columns_and_knows_films_by_their_last_three_parts(tmp_path: Path) -> None:
    path = tmp_path / "test_labels.csv"
    path.write_text(
        f"{CHEXPERT_HEADER}\n"
        "CheXpert-v1.0/test/patient64741/study1/view1_frontal.jpg,0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0,0.0,1.0\n"
        "test/patient64741/study1/view2_lateral.jpg,1,0,0,0,0,1,1,1,1,0,0,0,0,0\n"
    )
    labelled = CHEXPERT.load([path])
    assert labelled.ids == ("patient64741/study1/view1_frontal.jpg", "patient64741/study1/view2_lateral.jpg")
    assert labelled.matrix.tolist() == [[0, 1, 0, 0, 1], [1, 0, 1, 1, 0]]
    assert labelled.groups == ("patient64741", "patient64741")
    assert CHEXPERT.to_id("C:\\data\\patient1\\study2\\view1_frontal.jpg") == "patient1/study2/view1_frontal.jpg"
    path.write_text(path.read_text().replace("jpg,1,0,0,0,0,1", "jpg,1,0,0,0,0,-1"))
    with pytest.raises(TableError, match="1 labels that are neither 0 nor 1"):
        CHEXPERT.load([path])
    path.write_text("Path,Edema\na/b/c.jpg,1\n")
    with pytest.raises(TableError, match="lacks columns"):
        CHEXPERT.load([path])


def test_chestxdet10_has_a_finding_where_it_has_a_box(tmp_path: Path) -> None:
    content = [
        {"file_name": "1.png", "syms": ["Mass", "Mass", "Nodule"], "boxes": [[0, 0, 1, 1], [2, 2, 3, 3], [1, 1, 5, 5]]},
        {"file_name": "2.png", "syms": [], "boxes": []},
    ]
    path = tmp_path / "test.json"
    path.write_text(json.dumps(content))
    labelled = CHESTXDET.load([path])
    assert found(labelled, CHESTXDET.labels) == {"1.png": {"Mass", "Nodule"}, "2.png": set()}
    assert labelled.boxes is not None
    assert len(labelled.boxes.boxes) == 3
    path.write_text(path.read_text().replace("Nodule", "Node"))
    with pytest.raises(TableError, match=r"findings that ChestX-Det10 does not; got \['Node'\]"):
        CHESTXDET.load([path])


# The real files

FILES = {
    "chestxray14": ("test_list.txt", 22433, 16510),
    "openi": ("custom.csv", 7470, 4849),
    "padchest": ("manual_image.json", 39053, 72219),
    "chexpert": ("test_labels.csv", 668, 593),
    "chestxdet10": ("test.json", 542, 966),
}


@pytest.mark.parametrize("name", DATASETS)
def test_the_released_lists_are_read_in_their_order(shared: Path, name: str) -> None:
    protocol, (file, images, positives) = DATASETS[name], FILES[name]
    folder = shared / "benchmarks" / name
    labelled = protocol.load([folder / file])
    listed = [protocol.to_id(path) for path in pd.read_csv(folder / "images.csv")["image"]]
    assert list(labelled.ids) == listed
    assert len(listed) == protocol.images == images
    assert labelled.matrix.sum() == positives
    prompts = json.loads((folder / "prompts.json").read_text())
    assert [list(asked) for _, asked in load_prompt_set(protocol.prompts, "paper")] == list(prompts.values())


def test_matrices_equal_what_the_released_code_builds(shared: Path) -> None:
    """The released code's way to each matrix, written out with pandas and scikit-learn."""
    from sklearn.preprocessing import MultiLabelBinarizer

    folder = shared / "benchmarks"
    nih = pd.read_csv(folder / "chestxray14" / "test_list.txt", sep=" ", header=None)
    assert np.array_equal(NIH.load([folder / "chestxray14" / "test_list.txt"]).matrix, nih.iloc[:, 1:].to_numpy())

    manual = json.loads((folder / "padchest" / "manual_image.json").read_text())
    classes = sorted({label for labels in manual.values() for label in labels})
    encoded = MultiLabelBinarizer(classes=classes).fit_transform(manual.values())
    encoded = np.delete(encoded, classes.index("normal"), axis=1)
    classes.remove("normal")
    assert tuple(classes) == PADCHEST.labels
    assert np.array_equal(PADCHEST.load([folder / "padchest" / "manual_image.json"]).matrix, encoded)
    assert (encoded.sum(axis=0) <= 10).sum() == 20

    table = pd.read_csv(folder / "openi" / "custom.csv").fillna("-1")["labels_automatic"]
    synonyms = {"Pleural_Thickening": "pleural thickening", "Infiltration": "infiltrate", "Atelectasis": "atelectases"}
    columns = [
        table.str.contains(label.lower()) | table.str.contains(synonyms.get(label, label.lower()))
        for label in OPENI.labels
    ]
    assert np.array_equal(OPENI.load([folder / "openi" / "custom.csv"]).matrix, np.array(columns).T)

    chexpert = pd.read_csv(folder / "chexpert" / "test_labels.csv")[list(CHEXPERT.labels)].to_numpy()
    assert np.array_equal(CHEXPERT.load([folder / "chexpert" / "test_labels.csv"]).matrix, chexpert)

    boxes = json.loads((folder / "chestxdet10" / "test.json").read_text())
    encoded = MultiLabelBinarizer(classes=CHESTXDET.labels).fit_transform([entry["syms"] for entry in boxes])
    assert np.array_equal(CHESTXDET.load([folder / "chestxdet10" / "test.json"]).matrix, encoded)


def test_open_is_reports_give_the_released_matrix(shared: Path) -> None:
    reports = OPENI.load([shared / "reports" / "NLMCXR_reports.tgz"])
    table = OPENI.load([shared / "benchmarks" / "openi" / "custom.csv"])
    rows = {name: row for row, name in enumerate(reports.ids)}
    assert rows.keys() == set(table.ids)
    order = [rows[name] for name in table.ids]
    assert np.array_equal(reports.matrix[order], table.matrix)
    assert [reports.groups[row] for row in order] == list(table.groups)


def test_nihs_own_table_gives_the_released_matrix(shared: Path, tmp_path: Path) -> None:
    """NIH's table is not available here: it is written from the released labels in NIH's layout and read back."""
    path = shared / "benchmarks" / "chestxray14" / "test_list.txt"
    released = NIH.load([path])
    entries = nih_entries(tmp_path / "Data_Entry_2017.csv", released.ids[::-1], NIH.labels, released.matrix[::-1])
    assert np.array_equal(NIH.load([path, entries]).matrix, released.matrix)
