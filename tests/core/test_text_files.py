"""Tables and lists as spreadsheets write them: read where the file says what it is, else refused with the cause."""

from __future__ import annotations

import codecs
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from carzero.core.tables import load_table, load_table_pieces, write_pieces
from carzero.core.text_files import Layout, decode_text, find_layout, load_lines
from carzero.errors import TableError

TEXT = "image_id,score,age\nä.png,0.5,40\nb.png,-1.25,50\n"
ROWS = [{"image_id": "ä.png", "score": 0.5, "age": 40}, {"image_id": "b.png", "score": -1.25, "age": 50}]
EUROPEAN = TEXT.replace(",", ";").replace(".5", ",5").replace("1.25", "1,25")

READ = {
    "utf-8": ("t.csv", TEXT.encode()),
    "mark": ("t.csv", codecs.BOM_UTF8 + TEXT.encode()),
    "mark and quotes": ("t.csv", codecs.BOM_UTF8 + TEXT.replace("image_id", '"image_id"').encode()),
    "mark in a tsv": ("t.tsv", codecs.BOM_UTF8 + TEXT.replace(",", "\t").encode()),
    "windows line ends": ("t.csv", TEXT.replace("\n", "\r\n").encode()),
    "utf-16 little": ("t.csv", codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le")),
    "utf-16 big": ("t.csv", codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be")),
    "unicode text of Excel": ("t.csv", TEXT.replace(",", "\t").replace("\n", "\r\n").encode("utf-16")),
    "semicolons": ("t.csv", TEXT.replace(",", ";").encode()),
    "semicolons and decimal commas": ("t.csv", EUROPEAN.encode()),
    "the same in utf-16": ("t.csv", EUROPEAN.encode("utf-16")),
    "tabs and decimal commas": ("t.tsv", EUROPEAN.replace(";", "\t").encode()),
    "tabs in a csv": ("t.csv", TEXT.replace(",", "\t").encode()),
    "commas in a tsv": ("t.tsv", TEXT.encode()),
    "declared": ("t.csv", codecs.BOM_UTF8 + f"sep=;\r\n{EUROPEAN}".encode()),
    "quoted commas": ("t.csv", TEXT.replace(",", ";").replace("ä.png", '"ä.png"').encode()),
    "marked json": ("t.json", codecs.BOM_UTF8 + pd.DataFrame(ROWS).to_json(orient="records").encode()),
    "utf-16 json": ("t.json", pd.DataFrame(ROWS).to_json(orient="records").encode("utf-16")),
    "marked json lines": (
        "t.jsonl",
        codecs.BOM_UTF8 + pd.DataFrame(ROWS).to_json(orient="records", lines=True).encode(),
    ),
}
REFUSED = {
    "windows-1252": ("t.csv", TEXT.encode("cp1252"), "not UTF-8"),
    "latin-1 in a tsv": ("t.tsv", TEXT.replace(",", "\t").encode("latin-1"), "not UTF-8"),
    "mac": ("t.csv", TEXT.encode("mac-roman"), "not UTF-8"),
    "utf-16 without its mark": ("t.csv", TEXT.encode("utf-16-le"), "zero bytes"),
    "utf-32": ("t.csv", TEXT.encode("utf-32"), "UTF-32"),
    "utf-16 cut": ("t.csv", TEXT.encode("utf-16")[:-1], "UTF-16"),
    "windows-1252 late": ("t.csv", TEXT.encode() + b"c.png,0,1\n" * 300_000 + "ü.png,0,1\n".encode("cp1252"), "0xfc"),
    "windows-1252 in json": ("t.json", '[{"a": "ä"}]'.encode("cp1252"), "not UTF-8"),
    "windows-1252 in json lines": ("t.jsonl", '{"a": "ä"}'.encode("cp1252"), "not UTF-8"),
}


@pytest.mark.parametrize("name", READ)
def test_a_table_is_read_however_a_spreadsheet_wrote_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / READ[name][0]
    path.write_bytes(READ[name][1])
    assert load_table(path).to_dict("records") == ROWS
    pieces = list(load_table_pieces(path, 1))
    assert pd.concat(pieces).to_dict("records") == ROWS
    assert len(pieces) == (2 if path.suffix == ".csv" else 1)
    as_text = load_table(path, as_text=True)
    assert as_text["image_id"].tolist() == ["ä.png", "b.png"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_have_to_be_guessed_is_refused_with_the_cause(name: str, tmp_path: Path) -> None:
    path = tmp_path / REFUSED[name][0]
    path.write_bytes(REFUSED[name][1])
    for read in (load_table, lambda path: list(load_table_pieces(path, 100_000))):
        with pytest.raises(TableError, match=rf"{path.name} cannot be read; got .*{REFUSED[name][2]}.*CSV UTF-8"):
            read(path)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("a;b", Layout("utf-8-sig", ";")),
        ("a\tb;c", Layout("utf-8-sig", ";")),
        ("a,b;c;d", Layout("utf-8-sig", ",")),
        ('"a;b",c', Layout("utf-8-sig", ",")),
        ('"a,b";c', Layout("utf-8-sig", ";")),
        ("path", Layout("utf-8-sig", ",")),
        ("", Layout("utf-8-sig", ",")),
        ("sep=\t\r\na\tb", Layout("utf-8-sig", "\t", 1)),
    ],
)
def test_the_header_tells_the_separator(header: str, expected: Layout) -> None:
    file = io.BytesIO(f"{header}\n1;2,3\t4\n".encode())
    assert find_layout(file, ",") == expected
    assert file.tell() == 0


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        (["0,5", "-1,25", "3"], [0.5, -1.25, 3.0]),
        (["1,250", "0,001"], [1.25, 0.001]),
        (["1,5e-3", ""], [0.0015, np.nan]),
        (["1,250", "2,500"], ["1,250", "2,500"]),  # thousands, or decimals?
        (["1.250,5", "1,5"], ["1.250,5", "1,5"]),
        (["a,5", "1,5"], ["a,5", "1,5"]),
        (["0,5", "0.5"], ["0,5", "0.5"]),
    ],
)
def test_decimal_commas_are_read_where_they_can_be_nothing_else(
    cells: list[str], read: list[object], tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("k;v\n" + "".join(f"k{n};{cell}\n" for n, cell in enumerate(cells)))
    found = load_table(tmp_path / "t.csv")["v"].tolist()
    assert found == pytest.approx(read, nan_ok=True) if isinstance(read[0], float) else found == read
    assert load_table(tmp_path / "t.csv", as_text=True)["v"].dropna().tolist() == [cell for cell in cells if cell]


@pytest.mark.parametrize(
    "header",
    ["id,a,a", "id;a;a", "id\ta\ta", 'id,"a","a"', "\n\nid,a,a", "\ufeffid,id,a", "sep=;\nid;a;a", 'id,"a\nb","a\nb"'],
)
def test_two_columns_of_one_name_are_refused(header: str, tmp_path: Path) -> None:
    cells = header.splitlines()[-1].replace("id", "x")
    (tmp_path / "t.csv").write_text(f"{header}\n{cells}\n")
    for read in (load_table, lambda path: list(load_table_pieces(path, 1))):
        with pytest.raises(TableError, match="2 columns named"):
            read(tmp_path / "t.csv")


@pytest.mark.parametrize("header", ["id,,", "id,a,A", "id,a,a.1", "id,a, a"])
def test_names_that_differ_are_read(header: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"{header}\n1,2,3\n")
    assert load_table(tmp_path / "t.csv").shape == (1, 3)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_are_read(encoding: str, end: str, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(end.join(["ä.png", "", "  b.png ", "c\u2028d"]).encode(encoding))
    assert load_lines(tmp_path / "l.txt", expected="") == ["ä.png", "b.png", "c\u2028d"]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "mac-roman", "utf-16-le", "utf-32"])
def test_lists_in_other_encodings_are_refused(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes("ä.png\n".encode(encoding))
    with pytest.raises(TableError, match=r"l\.txt cannot be read; got 'not UTF-8.*expected one image per line"):
        load_lines(tmp_path / "l.txt", expected="one image per line")
    with pytest.raises(ValueError, match="not UTF-8"):
        decode_text("ä.png\n".encode(encoding))


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_floats_read_back_equal(suffix: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal(2000) * 10.0 ** random.integers(-30, 30, 2000)
    frame = pd.DataFrame({"key": "x", "single": values.astype(np.float32), "double": values})
    with np.errstate(over="ignore"):
        write_pieces([frame[:700], frame[700:]], tmp_path / f"t{suffix}", suffix)
    back = load_table(tmp_path / f"t{suffix}")
    np.testing.assert_array_equal(back["double"], frame["double"])
    np.testing.assert_array_equal(back["single"].astype(np.float32), frame["single"])
