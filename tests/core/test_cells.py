"""Cells: no text from a file starts a formula in what is written, and it is read back as it was."""

from __future__ import annotations

import ast
import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carzero.core.tables import load_table, load_table_pieces, write_csv
from carzero.core.text_files import from_cell, to_cell
from carzero.data.pair_files import save_pairs
from carzero.inference.scoring_result import failures_path, save_failures
from carzero.records import Failure
from tests.support.commands import ROOT

RUN = [
    '=HYPERLINK("x")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "'=1",
    "''+x",
    "＝1",
    "-",
    "=",
    "-1;2",
    "\n-x",
]
PLAIN = ["edema", "", "'tis", "a=b", "1-2", "-1.5", "+3", "-1e-05", "'", "' ", "no - yes", "(-)", "é"]
STARTS = re.compile(r"[\s]*[=+\-@＝＋－＠]|[\t\r\n]")
NUMBER = re.compile(r"[+-]?[0-9.eE+-]*[0-9]")


@pytest.mark.parametrize("text", RUN)
def test_what_a_spreadsheet_runs_is_marked_as_text(text: str) -> None:
    assert to_cell(text) == "'" + text
    assert from_cell(to_cell(text)) == text


@pytest.mark.parametrize("value", [*PLAIN, 1, -1.5, None, True])
def test_other_values_stay(value: object) -> None:
    assert to_cell(value) == value


@given(st.text(alphabet="=+-@'\t\r\n 1.eax＝", max_size=12))
def test_every_text_comes_back_and_none_runs(text: str) -> None:
    cell = to_cell(text)
    assert from_cell(cell) == text
    assert not STARTS.match(str(cell)) or NUMBER.fullmatch(text)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_table_comes_back_value_by_value(suffix: str, tmp_path: Path) -> None:
    texts = [text for text in [*RUN, *PLAIN] if text and text.strip() not in ("'",)]
    frame = pd.DataFrame({"image_id": texts, "=cmd()": texts, "score": np.linspace(-1, 1, len(texts))})
    path = tmp_path / f"table{suffix}"
    write_csv(frame, path, "\t" if suffix == ".tsv" else ",")
    with path.open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file, delimiter="\t" if suffix == ".tsv" else ",") for cell in row]
    assert not [cell for cell in cells if STARTS.match(cell) and not NUMBER.fullmatch(cell)]
    for read in (
        load_table(path, keys=["=cmd()"]),
        pd.concat(load_table_pieces(path, 4)) if suffix == ".csv" else None,
    ):
        if read is not None:
            assert list(read["image_id"]) == texts
            assert list(read["=cmd()"]) == texts
            np.testing.assert_array_equal(read["score"], frame["score"])


def test_training_tables_and_failures(tmp_path: Path) -> None:
    save_pairs([{"image": "=a.png", "text": "- Clear lungs.", "sentences": ["=x"]}], tmp_path / "pairs.csv")
    read = load_table(tmp_path / "pairs.csv", as_text=True)
    assert read.to_dict("records") == [{"image": "=a.png", "text": "- Clear lungs.", "sentences": '["=x"]'}]
    assert "'=a.png" in (tmp_path / "pairs.csv").read_text()
    save_failures([Failure(f"={n}", "@x", "+it is broken") for n in range(2000)], tmp_path / "scores.csv")
    assert "'=7,'@x,'+it is broken" in failures_path(tmp_path / "scores.csv").read_text()


def test_every_writer_of_delimited_files_marks_its_cells() -> None:
    """`DataFrame.to_csv` and writers of `csv` stand only where `to_cell` is applied, or where no file is written."""
    found = set()
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("to_csv", "DictWriter", "writer"):
                owner = getattr(node.value, "id", "")
                if node.attr == "to_csv" or owner == "csv":
                    found.add(path.relative_to(ROOT / "src/carzero").as_posix())
    hashed = {"evaluation/truth.py"}  # the text of a table in memory, for its hash
    assert found - hashed == {"core/tables.py", "core/text_files.py", "inference/scoring_result.py"}
    for name in found - hashed:
        assert "to_cell" in (ROOT / "src/carzero" / name).read_text(encoding="utf-8")
