"""`carzero data`, the real command: exit codes, what goes where, tables that come out, and interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from carzero.data.pairs import load_pairs
from tests.support.commands import Stalled, carzero_command, in_process, is_group_alive, run_program, wait_until
from tests.support.image_files import encode, film
from tests.support.releases import openi_report, save_mimic, save_tgz

HEADER = "image,report,split,patient_id,view"


def command(*arguments: object) -> list[str]:
    return carzero_command("data", *arguments)


def carzero(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_program(command(*arguments))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "film.png"
    path.write_bytes(encode(film(), "PNG"))
    return path


def save_table(folder: Path, *lines: str) -> Path:
    path = folder / "pairs.csv"
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def test_a_good_table(picture: Path, tmp_path: Path) -> None:
    table = save_table(tmp_path, "film.png,A large heart. No effusion.,train,007,pa")
    done = carzero("validate", table, "--column", "text=report")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert lines[0] == ["split", "rows", "patients", "rows", "without", "patient", "studies"]
    assert lines[2] == ["train", "1", "1", "0", "0"]
    assert "sentences: 2; 2 to 2 a row, median 2; 2 distinct, 0.0% repeat another" in done.stdout
    assert "views: PA 1" in done.stdout
    assert done.stderr.splitlines()[-1] == "Kept 1 of 1 row."


def test_dropped_rows_are_listed_and_the_rest_is_written(picture: Path, tmp_path: Path) -> None:
    missing = [f"missing_{n}.png,No effusion.,train,{n}," for n in range(25)]
    table = save_table(tmp_path, "film.png,A large heart.,train,x,", *missing, "film2.png,,val,y,")
    (tmp_path / "clean").mkdir()
    out, report = tmp_path / "clean" / "pairs.jsonl", tmp_path / "report.json"
    done = carzero(*("validate", table, "-c", "text=report", "--jobs", "2", "--out", out, "--report", report, "--json"))
    assert done.returncode == 1, done.stderr
    assert "dropped as missing-file: 25" in done.stderr
    assert "  row 2, missing_0.png: there is no such file" in done.stderr
    assert "missing_19.png" in done.stderr
    assert "missing_20.png" not in done.stderr
    assert "  and 5 more; --json and --report list all of them" in done.stderr
    assert "dropped as no-text: 1" in done.stderr
    assert "  row 27, film2.png: there is neither text nor a finding" in done.stderr
    assert f"Wrote 1 row to {out}." in done.stderr
    printed = json.loads(done.stdout)
    assert printed == json.loads(report.read_text())
    assert [row["row"] for row in printed["dropped_rows"]] == list(range(2, 28))
    assert load_pairs(out).images == [str(picture)]
    assert carzero("validate", out).returncode == 0


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for number, name in enumerate("abce"):
        (tmp_path / "films" / f"{name}.png").write_bytes(encode(film()[: 240 - number], "PNG"))  # no two alike
    save_table(
        tmp_path,
        "films/a.png,No effusion. A large heart.,train,1,PA",
        "films/b.png,No effusion. A nodule is seen.,train,2,PA",
        "films/c.png,No pneumothorax.,val,3,AP",
        "films/d.png,No effusion.,val,4,AP",
        "films/e.png,,val,4,AP",
    )
    example = (Path(__file__).parents[2] / "docs" / "data.md").read_text().split("## Validate\n```\n$ carzero data ")[1]
    line, _, shown = example.split("```")[0].partition("\n")
    done = run_program(command(*line.split()), folder=tmp_path)
    assert done.returncode == 1, done.stderr
    printed = [line.strip() for line in (done.stdout + done.stderr).splitlines() if not line.startswith("read ")]
    assert list(filter(None, printed)) == [line.strip() for line in shown.splitlines() if line.strip()]


def test_pictures_are_left_unread_when_asked(tmp_path: Path) -> None:
    table = save_table(tmp_path, "film.png,A large heart.,train,1,")
    assert carzero("validate", table, "-c", "text=report", "--no-images").returncode == 0
    nothing = carzero("validate", table, "-c", "text=report", "--out", tmp_path / "out.csv")
    assert nothing.returncode == 1
    assert "Kept 0 of 1 row.\nNothing is written: no row is kept." in nothing.stderr
    assert not nothing.stdout
    assert not (tmp_path / "out.csv").exists()


def test_leakage_is_an_error_with_all_its_patients_in_the_report(tmp_path: Path) -> None:
    lines = [f"{split}{n}.png,No effusion.,{split},{n}," for n in range(9) for split in ("train", "test")]
    table, report = save_table(tmp_path, *lines), tmp_path / "report.json"
    out = tmp_path / "out.csv"
    done = carzero("validate", table, "-c", "text=report", "--out", out, "--report", report)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "has patients in more than one split (9): " in done.stderr
    assert "'4' (rows 9, 10) and 4 more" in done.stderr
    assert [case["name"] for case in json.loads(report.read_text())["problems"][0]["cases"]] == list("012345678")
    assert not out.exists()
    printed = carzero("validate", table, "-c", "text=report", "--json")
    assert printed.returncode == 2
    assert json.loads(printed.stdout)["kept"] == 0


def test_wrong_use_is_one_message_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = save_table(tmp_path, "film.png,A large heart.,train,1,")
    (tmp_path / "empty.csv").write_text("")
    cases = {
        "cannot be read": ("validate", tmp_path / "nowhere.csv"),
        "No columns to parse": ("validate", tmp_path / "empty.csv"),
        "This folder is not a table": ("validate", tmp_path),
        "lacks columns": ("validate", table),
        "no such columns; got ['words']": ("validate", table, "-c", "text=words"),
        "no such columns to rename; got ['words']": ("validate", table, "-c", "words=report"),
        "expected OURS=YOURS": ("validate", table, "-c", "text"),
        "format is unknown": ("validate", table, "-c", "text=report", "--out", tmp_path / "out.xlsx"),
        "folder does not exist": ("validate", table, "-c", "text=report", "--out", tmp_path / "no" / "out.csv"),
        "The output is the table itself": ("validate", table, "-c", "text=report", "--out", table),
        "lacks its metadata file": ("import", "mimic-cxr", tmp_path, "--out", tmp_path / "out.csv"),
        "'radgraph' is not one of 'chexpert'": (
            "import",
            "mimic-cxr",
            tmp_path,
            "-o",
            "x.csv",
            "--labels",
            "radgraph",
        ),
        "There are no reports": ("import", "openi", tmp_path, "--out", tmp_path / "out.csv"),
        "numbers separated by commas": (
            "import",
            "folder",
            tmp_path,
            "--out",
            tmp_path / "out.csv",
            "--split",
            "most",
        ),
        "do not fit": ("import", "folder", tmp_path, "--out", tmp_path / "out.csv", "--split", "0.9,0.9,0.9"),
        "No images are found": ("import", "folder", tmp_path, "--out", tmp_path / "out.csv"),
    }
    for message, arguments in cases.items():
        code, stdout, stderr = in_process(capsys, "data", *arguments)
        assert code == 2, (message, stderr)
        assert message in " ".join(stderr.replace("│", " ").split()), stderr
        assert not stdout
        assert "Traceback" not in stderr


def test_import_mimic(picture: Path, tmp_path: Path) -> None:
    root = save_mimic(tmp_path / "mimic", picture, zipped=True, without=[3])
    out = root / "pairs.parquet"
    done = carzero("import", "mimic-cxr", root, "--out", out)
    assert done.returncode == 1, done.stderr
    counts = {" ".join(words[1:]): words[0] for line in done.stdout.splitlines() if (words := line.split())}
    assert counts["images in the metadata"] == "6"
    assert counts["left out: view LATERAL"] == "1"
    assert (counts["rows"], counts["patients"], counts["studies"]) == ("3", "2", "3")
    assert (counts["rows in train"], counts["rows in test"]) == ("2", "1")
    assert (counts["rows of view AP"], counts["rows of view PA"]) == ("2", "1")
    assert "images that are not there: 1\n  files/p10/p10000002/s50000003/" in done.stderr
    assert "reports that are not there: 1\n  files/p11/p11000003/s50000005.txt" in done.stderr
    assert f"Wrote 3 rows to {out}." in done.stderr
    validated = carzero("validate", out, "--jobs", "1", "--json")
    assert validated.returncode == 1
    found = json.loads(validated.stdout)
    assert found["dropped"] == {"picture-leakage": 2}, "all images of the made-up release are one, in test too"
    wide = carzero(
        "import", "mimic-cxr", root, "--out", out, "--views", "all", "--labels", "none", "--overwrite", "--json"
    )
    assert json.loads(wide.stdout)["views"] == {"AP": 1, "LATERAL": 1, "PA": 1, "": 1}


def test_import_openi_and_a_folder(picture: Path, tmp_path: Path) -> None:
    report = openi_report(7, findings="No edema is seen.", major=("Opacity/lung",), images=("CXR7_IM-0001-1001",))
    archive = save_tgz(tmp_path / "NLMCXR_reports.tgz", {"7.xml": report})
    nothing = carzero("import", "openi", archive, "--out", tmp_path / "openi.csv")
    assert nothing.returncode == 1
    assert "Nothing is written" in nothing.stderr
    assert not (tmp_path / "openi.csv").exists()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "CXR7_IM-0001-1001.png").write_bytes(picture.read_bytes())
    done = carzero("import", "openi", archive, "--out", tmp_path / "openi.csv", "--split", "0,1,0")
    assert done.returncode == 0, done.stderr
    table = load_pairs(tmp_path / "openi.csv")
    assert (table.sentences, table.present, table.splits) == ([["No edema is seen"]], [["opacity"]], ["val"])
    (tmp_path / "images" / "report.txt").write_text("A nodule is seen.")
    arguments = ("--out", tmp_path / "folder.jsonl", "--patient-from", "stem", "--json")
    done = carzero("import", "folder", tmp_path / "images", *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 1
    assert load_pairs(tmp_path / "folder.jsonl").patients == ["CXR7"]


@pytest.fixture
def reading(picture: Path, tmp_path: Path) -> Iterator[Stalled]:
    """A validation that stands still at one of its first lines, in a group of its own, as a terminal has it."""
    names = [f"film_{n}.png" for n in range(4000)]
    for name in names:
        os.link(picture, tmp_path / name)
    table = save_table(tmp_path, *(f"{name},A large heart.,train,{n}," for n, name in enumerate(names)))
    arguments = command("validate", table, "-c", "text=report", "--jobs", "2", "--out", tmp_path / "out.csv")
    running = Stalled(arguments, room_bytes=60, stdout=subprocess.PIPE, start_new_session=True)
    running.wait_until(running.has_printed)
    yield running
    if is_group_alive(running.process.pid):
        os.killpg(running.process.pid, signal.SIGKILL)


def test_ctrl_c_ends_at_once_and_leaves_nothing_behind(reading: Stalled, tmp_path: Path) -> None:
    process = reading.process
    stderr = reading.end(lambda: os.killpg(process.pid, signal.SIGINT))
    assert stderr.startswith("read "), stderr
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert process.stdout is not None
    assert not process.stdout.read()
    assert not (tmp_path / "out.csv").exists()
    assert not is_group_alive(process.pid), "no process is left"


def test_readers_end_with_their_killed_parent(reading: Stalled) -> None:
    group = reading.process.pid
    reading.end(reading.process.kill)
    wait_until(lambda: not is_group_alive(group))
    assert not is_group_alive(group)
