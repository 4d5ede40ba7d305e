"""The training table: its columns in every format, what counts as text, and what stops a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from carzero.data.pairs import PairTable, inspect_pairs, load_pairs
from carzero.errors import TableError
from carzero.reports.sections import select_sections, select_sentences
from tests.support.files import save_frame

FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
NESTED = (".json", ".jsonl", ".parquet")


def save_rows(path: Path, *rows: dict[str, Any]) -> Path:
    save_frame(pd.DataFrame(list(rows)), path)
    return path


def csv(folder: Path, *lines: str) -> Path:
    path = folder / "pairs.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_and_every_column(suffix: str, tmp_path: Path) -> None:
    row = {"text": "The heart is large. No effusion.", "present": "cardiomegaly|edema", "absent": "pleural effusion"}
    keys = {"split": "validation", "patient_id": "007", "study_id": "0051", "view": "pa ", "source": "here"}
    boxes = {"boxes": '{"edema": [[1, 2, 30.5, 40]]}'}
    path = save_rows(tmp_path / f"pairs{suffix}", {"image": "films/a.png", **row, **keys, **boxes})
    assert load_pairs(str(path)) == PairTable(
        images=[str(tmp_path / "films" / "a.png")],
        sentences=[["The heart is large", "No effusion"]],
        present=[["cardiomegaly", "edema"]],
        absent=[["pleural effusion"]],
        splits=["val"],
        patients=["007"],
        studies=["0051"],
        views=["PA"],
        sources=["here"],
        boxes=[{"edema": [(1.0, 2.0, 30.5, 40.0)]}],
    )


@pytest.mark.parametrize(
    "boxes",
    [
        *('{"edema": []}', '{"edema": 3}', '{"edema": [[1, 2, 3]]}', '{"edema": [[1, 2, 1, 4]]}', "[[1, 2, 3, 4]]"),
        *('{"edema": [[1, 2, "x", 4]]}', '{"edema": [[1, 2, NaN, 4]]}', '{"edema": [[0, 0, 1e999, 4]]}', "{", "7"),
    ],
)
def test_boxes_that_are_none_are_refused(boxes: str, tmp_path: Path) -> None:
    cells = ("{}", boxes, '{"edema": [[1, 2, 3, 4]]}', "", boxes)
    rows = [{"image": f"{number}.png", "text": "Edema.", "boxes": cell} for number, cell in enumerate(cells)]
    expected = r"Column boxes of .* holds something else in 2 rows \(2, 5\); got .*expected boxes by finding"
    with pytest.raises(TableError, match=expected):
        load_pairs(save_rows(tmp_path / "pairs.csv", *rows))


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_a_table_does_not_say_is_empty_and_the_split_is_train(suffix: str, tmp_path: Path) -> None:
    rows = [{"image": "/data/a.png", "text": "No effusion."}, {"image": "../b.png", "text": "Large heart."}]
    table = load_pairs(save_rows(tmp_path / f"pairs{suffix}", *rows))
    assert len(table) == 2
    assert table.images == ["/data/a.png", str(tmp_path.parent / "b.png")]
    assert table.splits == ["train", "train"]
    assert table.present == table.absent == [[], []]
    assert table.patients == table.studies == table.views == table.sources == ["", ""]
    assert table.boxes == [{}, {}]


@pytest.mark.parametrize("suffix", NESTED)
def test_lists_and_keys_among_missing_values(suffix: str, tmp_path: Path) -> None:
    path = save_rows(
        tmp_path / f"pairs{suffix}",
        {"image": "a.png", "sentences": ["There is edema", " "], "present": ["edema"], "patient_id": 7},
        {"image": "b.png", "sentences": ["There is no edema", "There is a nodule"], "present": [], "patient_id": None},
        {"image": "c.png", "sentences": None, "present": ["edema", "mass"], "patient_id": 8},
    )
    table = load_pairs(path)
    assert table.sentences == [["There is edema"], ["There is no edema", "There is a nodule"], []]
    assert table.present == [["edema"], [], ["edema", "mass"]]
    assert table.patients == ["7", "", "8"], "a missing id is unknown, and a number beside one is no 7.0"


@pytest.mark.parametrize("suffix", NESTED)
def test_long_ids_beside_a_missing_one_are_kept_digit_by_digit(suffix: str, tmp_path: Path) -> None:
    ids = [None, 12345678901234568, 12345678901234569]
    rows = [{"image": f"{n}.png", "text": "No edema.", "patient_id": each} for n, each in enumerate(ids)]
    path = tmp_path / f"pairs{suffix}"
    if suffix == ".parquet":
        pd.DataFrame(rows, dtype=object).to_parquet(path)
    else:
        lines = [json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]")
    assert load_pairs(path).patients == ["", "12345678901234568", "12345678901234569"]


def test_values_of_a_csv_are_texts_as_written(tmp_path: Path) -> None:
    sentences = json.dumps(["There is edema", "There is no effusion"]).replace('"', '""')
    path = csv(
        tmp_path,
        "\ufeffimage,sentences,patient_id,study_id,view",
        f'1.20,"{sentences}",007,1e5,',
        '002,"[]",NA,,AP',
        '003,"[""One finding""]",2020-01-01,True,',
    )
    report = inspect_pairs(path)
    assert report.table.images == [str(tmp_path / "1.20"), str(tmp_path / "003")]
    assert report.table.sentences == [["There is edema", "There is no effusion"], ["One finding"]]
    assert report.table.patients == ["007", "2020-01-01"]
    assert report.table.studies == ["1e5", "True"]
    assert [(row.row, row.kind) for row in report.dropped] == [(2, "no-text")]


def test_the_first_of_sentences_text_and_sections_decides_for_the_table(tmp_path: Path) -> None:
    columns = "image,text,findings,impression"
    both = csv(tmp_path, columns, "a.png,A large heart.,Pneumonia/Viral,Edema is likely.", "b.png,,Pneumonia/Viral,")
    report = inspect_pairs(both)
    assert report.table.sentences == [["A large heart"]], "labels in `findings` are not text where `text` is a column"
    assert [row.image for row in report.dropped] == ["b.png"]
    sections = csv(tmp_path, "image,findings,impression", "a.png,A large heart. No edema.,1. Cardiomegaly is seen.")
    assert load_pairs(sections).sentences == [["Cardiomegaly is seen", "A large heart", "No edema"]]
    aligned = csv(tmp_path, f"{columns},sentences", 'a.png,A large heart.,x,y,"[""There is cardiomegaly""]"')
    assert load_pairs(aligned).sentences == [["There is cardiomegaly"]]
    assert load_pairs(csv(tmp_path, "image,findings", "a.png,The lungs are clear")).sentences == [
        ["The lungs are clear"]
    ]


def test_columns_by_other_names(tmp_path: Path) -> None:
    path = csv(tmp_path, "file,report,findings,text", "a.png,A large heart.,cardiomegaly|edema,ignored words")
    columns = {"image": "file", "text": "report", "present": "findings"}
    table = load_pairs(path, columns=columns)
    assert table.sentences == [["A large heart"]]
    assert table.present == [["cardiomegaly", "edema"]]
    assert table.images == [str(tmp_path / "a.png")]
    with pytest.raises(TableError, match=r"no such columns to rename; got \['report'\]; expected image, path, sent"):
        load_pairs(path, columns={"report": "text"})
    with pytest.raises(TableError, match=r"no such columns; got \['reports'\]; expected some of \['file', 'report'"):
        load_pairs(path, columns={"text": "reports"})
    only_labels = load_pairs(csv(tmp_path, "path,findings", "a.png,edema"), columns={"present": "findings"})
    assert only_labels.sentences == [[]], "a column taken for labels is not read as text too"


@pytest.mark.parametrize(
    ("given", "read"),
    [("Training", "train"), ("dev", "val"), ("valid", "val"), ("validate", "val"), ("VAL", "val"), ("test", "test")],
)
def test_spellings_of_splits(given: str, read: str, tmp_path: Path) -> None:
    assert load_pairs(csv(tmp_path, "image,text,split", f"a.png,No edema,{given}")).splits == [read]


@pytest.mark.parametrize(
    ("lines", "kind", "message"),
    [
        (
            ["image,text,split", "a,No edema,holdout", "b,No edema,train", "c,No edema,", "d,No edema,holdout"],
            "unknown-split",
            r"pairs\.csv has unknown splits \(2\): 'holdout' \(rows 1, 4\), '' \(rows 3\); expected train, val or test",
        ),
        (
            ["image,present,absent", "a,edema|mass,mass", "b,mass,edema", "c,edema,mass|edema"],
            "contradiction",
            r"has findings both present and absent \(2\): 'mass' \(rows 1\), 'edema' \(rows 3\)",
        ),
        (
            ["image,text", "a.png,No edema", "b.png,No edema", "./a.png,A nodule"],
            "image-twice",
            r"has images named more than once \(1\): .*a\.png' \(rows 1, 3\).*Join the rows' sentences",
        ),
        (
            ["image,text,split,patient_id", "a,x,train,7", "b,x,train,8", "c,x,val,7", "d,x,test,7", "e,x,train,"],
            "patient-leakage",
            r"has patients in more than one split \(1\): '7' \(rows 1, 3, 4\).*Assign splits by patient",
        ),
        (
            ["image,text,split,study_id,source", "a,x,train,5,nih", "b,x,test,5,nih", "c,x,test,5,here"],
            "study-leakage",
            r"has studies in more than one split \(1\): 'nih/5' \(rows 1, 2\)",
        ),
    ],
)
def test_what_would_spoil_a_run_is_refused(lines: list[str], kind: str, message: str, tmp_path: Path) -> None:
    path = csv(tmp_path, *lines)
    assert [problem.kind for problem in inspect_pairs(path).problems] == [kind]
    with pytest.raises(TableError, match=message):
        load_pairs(path)


def test_all_faults_are_named_at_once_and_five_cases_of_each(tmp_path: Path) -> None:
    leaking = [f"{split}{n}.png,A text here,{split},{n}" for n in range(8) for split in ("train", "test")]
    path = csv(tmp_path, "image,text,split,patient_id", *leaking, "x.png,A text here,none,9")
    problems = inspect_pairs(path).problems
    assert [(problem.kind, len(problem.cases)) for problem in problems] == [
        ("unknown-split", 1),
        ("patient-leakage", 8),
    ]
    assert problems[1].cases[7] == ("7", [15, 16])
    with pytest.raises(
        TableError, match=r"(?s)unknown splits.*\n.* patients in .* \(8\): .*'4' \(rows 9, 10\) and 3 more; expected"
    ):
        load_pairs(path)


def test_what_is_no_leakage(tmp_path: Path) -> None:
    lines = [
        "a,x y,train,,,nih",
        "b,x y,test,,,nih",  # unknown patients
        "c,x y,train,7,,nih",
        "d,x y,test,7,,here",  # one number in two collections
        "e,x y,train,8,study1,nih",
        "f,x y,test,9,study1,nih",  # studies numbered by patient
        "g,x y,train,10,,nih",
        "h,,test,10,,nih",  # a row that is never read
    ]
    path = csv(tmp_path, "image,text,split,patient_id,study_id,source", *lines)
    assert len(load_pairs(path)) == 7
    assert [row.row for row in inspect_pairs(path).dropped] == [8]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["picture,text", "a.png,x"],
            r"lacks columns; got \['picture', 'text'\]; expected image \(or.*--column",
        ),
        (["image,split", "a.png,train"], r"lacks columns.*at least one of sentences, text, impression, findings, pres"),
        (["image,text"], "has no row to train on; got '0 rows"),
        (["image,text", ",A text", "b.png,"], "has no row to train on; got '2 rows without an image or without text"),
        (
            ["image,sentences", "a.png,There is edema"],
            r"sentences of .* 1 rows \(1\); got 'There is edema'; exp",
        ),
        (["image,sentences", 'a.png,"[1, 2]"', 'b.png,"{}"'], r"holds something else in 2 rows \(1, 2\)"),
        (["image,sentences", f"a.png,{'[' * 100_000}"], r"holds something else in 1 rows \(1\)"),
        (["image,text", "a.png,large heart, no edema", "b.png,x,y"], "cannot be read; got 'rows of more cells"),
    ],
)
def test_what_is_no_training_table(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=message):
        load_pairs(csv(tmp_path, *lines))


def test_a_list_where_a_text_belongs(tmp_path: Path) -> None:
    path = save_rows(tmp_path / "pairs.jsonl", *({"image": f"{n}.png", "text": ["One.", "Two."]} for n in range(7)))
    with pytest.raises(TableError, match=r"Column text of .* in 7 rows \(1, 2, 3, 4, 5, \.\.\.\); got \['One\.', 'Two"):
        load_pairs(path)


def test_the_record_is_frozen_and_one_long() -> None:
    names = [field.name for field in dataclasses.fields(PairTable)]
    assert names[:7] == ["images", "sentences", "present", "absent", "splits", "patients", "studies"]
    assert names[7:] == ["views", "sources", "boxes"]
    said = (["a", "b"], [["x"], []], [[], ["y"]], [[], []], ["train", "val"], ["1", "2"])
    table = PairTable(*said, *([["", ""]] * 3), [{}, {}])
    assert table.select([1]).present == [["y"]]
    assert table.select([1]).splits == ["val"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.images = []  # type: ignore[misc]


REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PORTABLE AP)

 INDICATION:  Rule out pneumonia.

 COMPARISON:  None.

 FINDINGS:

 Lungs: No consolidation.
 Heart: Enlarged.

 IMPRESSION:

 1. Cardiomegaly.
 2. No pneumonia.

 RECOMMENDATION(S):  A lateral film.
"""


class TestReportText:
    def test_findings_and_impression_and_nothing_that_was_known_beforehand(self) -> None:
        impression, findings = select_sections(REPORT)
        assert findings == "Lungs: No consolidation.\nHeart: Enlarged."
        assert impression == "1. Cardiomegaly.\n 2. No pneumonia."
        assert select_sentences(REPORT) == [
            *("Cardiomegaly", "No pneumonia"),
            *("Lungs: No consolidation", "Heart: Enlarged"),
        ]

    @pytest.mark.parametrize(
        ("text", "sentences"),
        [
            ("The heart is large. No edema.", ["The heart is large", "No edema"]),
            ("Chest film: a large heart.", ["a large heart"]),
            ("INDICATION: Fever. FINDINGS: Clear lungs. IMPRESSION: Normal film.", ["Normal film", "Clear lungs"]),
            ("CLINICAL HISTORY: Fever. CONCLUSION: A nodule.", ["A nodule"]),
            ("CHEST, TWO VIEWS:\nA nodule.\nCOMPARISON: None.", ["A nodule"]),
            ("HISTORY: Fever.\n \n There is a nodule.\n \n No edema.", ["There is a nodule", "No edema"]),
            ("HISTORY: Fever.\n\nTECHNIQUE: Portable film.", []),
            ("FINDINGS AND IMPRESSION: No edema.", ["No edema"]),
            ("FINAL REPORT\r\nHISTORY: Fever.\r\n\r\nThere is a nodule.\r\n", ["There is a nodule"]),
            ("FINDINGS:\nIMPRESSION:\n", []),
            ("The CT findings: see there. A nodule.", ["The CT findings: see there", "A nodule"]),
            ("", []),
        ],
    )
    def test_headings(self, text: str, sentences: list[str]) -> None:
        assert select_sentences(text) == sentences

    def test_a_report_made_to_take_for_ever_takes_a_moment(self) -> None:
        assert "".join(select_sentences("." * 2**20 + "x")).endswith("x")
        assert select_sentences("FINDINGS:" + " \n" * 2**19 + "Clear lungs ...") == ["Clear lungs"]


def test_the_open_notes(shared: Path) -> None:
    table = load_pairs(shared / "data" / "notes" / "pairs.csv")
    assert len(table) == 550
    assert len(set(table.patients)) == 343
    assert sorted(set(table.splits)) == ["test", "train"]
    assert all(table.sentences)
    assert not any("/Viral" in sentence for sentences in table.sentences for sentence in sentences)
    assert Path(table.images[0]).is_file()
