"""`carzero prompts`, the real command: what it prints can be given to predict, and its exit codes mean something."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

from carzero.prompts import PromptSet, load_prompt_set
from tests.support.commands import carzero, in_process


def prompts(*arguments: object) -> subprocess.CompletedProcess[str]:
    return carzero("prompts", *arguments, COLUMNS="200")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one message of a command that must end as a usage error; in this process, which spares the imports."""
    code, stdout, stderr = in_process(capsys, "prompts", *arguments)
    assert (code, stdout) == (2, ""), stderr
    return stderr


def test_list_as_a_table_and_as_json() -> None:
    table, listed = prompts("list"), prompts("list", "--json")
    assert table.returncode == listed.returncode == 0, table.stderr + listed.stderr
    records = json.loads(listed.stdout)
    assert [record["name"] for record in records][:2] == ["chestxray14", "chexpert14"]
    for record in records:
        (row,) = [line for line in table.stdout.splitlines() if line.split()[:1] == [record["name"]]]
        assert str(record["labels"]) in row
        assert ", ".join(record["variants"]) in row


@pytest.mark.parametrize(("options", "suffix"), [((), ".yaml"), (("--yaml",), ".yaml"), (("--json",), ".json")])
def test_what_is_shown_is_a_prompt_file(options: tuple[str, ...], suffix: str, tmp_path: Path) -> None:
    done = prompts("show", "chestxray14", "--variant", "synonyms", *options)
    assert done.returncode == 0, done.stderr
    path = tmp_path / f"shown{suffix}"
    path.write_text(done.stdout)
    assert PromptSet.load(path) == load_prompt_set("chestxray14", "synonyms")
    if suffix == ".json":
        assert json.loads(done.stdout)["Pneumonia"]["code"] == {"scheme": "SCT", "value": "233604007"}


def test_predict_takes_a_name_and_a_file_of_that_name(
    films: list[Path],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chexpert5").write_text("edema: There is edema\n")
    manifests = {}
    for asked in ("chexpert5:pairs", "./chexpert5"):
        code, stdout, stderr = in_process(capsys, "predict", films[0], "-w", tiny_weights, "--prompts", asked, "--json")
        assert code == 0, stderr
        manifests[asked] = json.loads(stdout)["manifest"]
    assert manifests["./chexpert5"]["prompts"] == {"edema": ["There is edema"]}
    assert manifests["chexpert5:pairs"]["prompts"]["Edema"] == ["There is pulmonary edema"]
    assert manifests["chexpert5:pairs"]["prompts_sha256"] == load_prompt_set("chexpert5", "pairs").hash


def test_predict_names_the_library_where_a_name_is_nothing(films: list[Path]) -> None:
    done = carzero("predict", films[0], "--prompts", "chestxray")
    assert done.returncode == 2
    assert 'Perhaps you mean "chestxray14"' in done.stderr


def test_lint_exit_codes_tell_clean_from_doubtful(tmp_path: Path) -> None:
    clean = prompts("lint", "chestxray14")
    assert (clean.returncode, clean.stdout) == (0, "")
    assert clean.stderr.strip() == "Checked: 0 errors, 0 warnings, 0 notes."

    notes = prompts("lint", "chestxray14:pairs")
    assert notes.returncode == 0
    assert "weak-negative" in notes.stdout
    assert "(the whole set)" in notes.stdout

    path = tmp_path / "asked.yaml"
    path.write_text("'[red]edema': 'Pneumonia. There is edema'\n")
    doubtful = prompts("lint", path)
    assert doubtful.returncode == 1
    assert "Checked: 1 error, 0 warnings, 0 notes." in doubtful.stderr
    assert 'the model reads "there is edema"' in doubtful.stdout
    assert "[red]edema" in doubtful.stdout, "a label is data, never markup"
    as_json = prompts("lint", path, "--json")
    assert as_json.returncode == 1
    (finding,) = json.loads(as_json.stdout)["findings"]
    assert (finding["rule"], finding["label"]) == ("dropped-sentence", "[red]edema")
    assert json.loads(as_json.stdout)["counts"] == {"error": 1, "warning": 0, "note": 0}


def test_lint_asks_the_weights_tokenizer(capsys: pytest.CaptureFixture[str]) -> None:
    code, stdout, stderr = in_process(capsys, "prompts", "lint", "chestxray14", "--weights", "demo", "--json")
    assert code == 1, stderr
    findings = json.loads(stdout)["findings"]
    broken = [finding["label"] for finding in findings if finding["rule"] == "broken-word"]
    assert broken == ["Cardiomegaly", "Pneumothorax", "Consolidation", "Fibrosis"]
    unfamiliar = {finding["label"] for finding in findings if finding["rule"] == "unfamiliar"}
    trained = {"Atelectasis", "Effusion", "Infiltration", "Pneumonia", "Edema"}
    assert unfamiliar == set(load_prompt_set("chestxray14").labels) - trained
    assert len(findings) == len(broken) + len(unfamiliar)


def test_make_prints_a_file_and_says_what_is_doubtful(tmp_path: Path) -> None:
    done = prompts("make", "edema,pleural effusion", "nodule")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["pleural effusion"] == {
        "positive": ["There is pleural effusion"],
        "negative": ["There is no pleural effusion"],
    }
    assert list(yaml.safe_load(done.stdout)) == ["edema", "pleural effusion", "nodule"]
    assert "weak-negative" in done.stderr

    out = tmp_path / "asked.json"
    done = prompts("make", "No Finding", "--template", "There is {label}", "--negative", "", "-o", out)
    assert done.returncode == 1, "made, with warnings"
    assert not done.stdout
    assert f"Wrote {out}." in done.stderr
    assert "negated-label" in done.stderr
    assert json.loads(out.read_text()) == {"No Finding": {"positive": ["There is No Finding"]}}


def test_make_from_files_and_never_over_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels.txt").write_text("edema\n\n  lung  nodule \nedema\n")
    pd.DataFrame({"id": [1, 2, 3], "finding": ["mass", None, "edema"]}).to_csv(tmp_path / "table.csv")
    out = tmp_path / "asked.yaml"
    done = prompts("make", "--from", tmp_path / "labels.txt", "-o", out)
    assert done.returncode == 0, done.stderr
    assert PromptSet.load(out).labels == ["edema", "lung nodule"]
    before = out.read_bytes()
    again = ("make", "--from", tmp_path / "table.csv", "--column", "finding", "-o", out)
    assert "The output exists already" in refused(capsys, *again)
    assert out.read_bytes() == before
    done = prompts(*again, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert PromptSet.load(out).labels == ["mass", "edema"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["asked.yaml", "labels.txt", "table.csv"]


def test_wrong_use_is_one_message_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "table.csv").write_text("id,finding\n1,mass\n")
    (tmp_path / "list.yaml").write_text("- There is edema\n")
    cases: dict[str, tuple[object, ...]] = {
        "no such prompt set": ("show", "nowhere"),
        "has no such variant": ("show", "chexpert14", "--variant", "paper"),
        "Perhaps you mean": ("show", "chestxray", "--variant", "paper"),
        "variant is named twice": ("show", "chexpert5:pairs", "--variant", "paper"),
        "Only sets of the library have variants": ("lint", tmp_path / "list.yaml", "--variant", "paper"),
        "is not a mapping; got 'list'": ("lint", tmp_path / "list.yaml"),
        "cannot be read": ("lint", tmp_path / "nowhere.yaml"),
        "No labels are given": ("make",),
        "Labels are given twice": ("make", "edema", "--from", tmp_path / "empty.txt"),
        "Nothing is asked": ("make", "--from", tmp_path / "empty.txt"),
        "is chosen; expected --column with one of id, finding": ("make", "--from", tmp_path / "table.csv"),
        "has no such column; got 'label'": ("make", "--from", tmp_path / "table.csv", "--column", "label"),
        "This is not a table": ("make", "--from", tmp_path / "list.yaml", "--column", "a"),
        "--column belongs to a table": ("make", "edema", "--column", "a"),
        "is a text file and has no columns": ("make", "--from", tmp_path / "empty.txt", "--column", "a"),
        "no place for the label": ("make", "edema", "--negative", "No such thing"),
        "format is unknown": ("make", "edema", "-o", tmp_path / "asked.txt"),
        "folder does not exist": ("make", "edema", "-o", tmp_path / "no" / "asked.yaml"),
    }
    for message, arguments in cases.items():
        stderr = refused(capsys, *arguments)
        assert stderr.startswith("error: "), stderr
        assert message in stderr
        assert len(stderr.splitlines()) == 1, stderr
    assert "exclude each other" in refused(capsys, "show", "chexpert5", "--json", "--yaml")
    assert "Missing argument" in refused(capsys, "show")
