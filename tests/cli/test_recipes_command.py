"""`carzero recipes` and `carzero docs`, and names of recipes where a recipe is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from carzero.cli.recipes import find_shipped, list_shipped
from carzero.errors import ConfigurationError
from carzero.training.recipes import load_recipe
from tests.support.commands import ROOT, in_process


def test_list_names_each_recipe_with_what_it_trains(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = in_process(capsys, "recipes", "list")
    assert code == 0
    assert "two-cores" in out
    assert "Pairs of images and reports on two CPU cores" in [line[16:].rstrip() for line in out.splitlines()]
    assert "carzero recipes copy" in err


def test_copy_writes_the_recipe_and_never_over_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = (ROOT / "recipes" / "two-cores.yaml").read_bytes()
    assert in_process(capsys, "recipes", "copy", "two-cores")[0] == 0
    assert (tmp_path / "two-cores.yaml").read_bytes() == shipped
    load_recipe(tmp_path / "two-cores.yaml")
    code, _, err = in_process(capsys, "recipes", "copy", "paper", "two-cores.yaml")
    assert (code, "exists already" in err) == (2, True)
    assert (tmp_path / "two-cores.yaml").read_bytes() == shipped
    assert in_process(capsys, "recipes", "copy", "paper", "two-cores.yaml", "--overwrite")[0] == 0
    assert (tmp_path / "two-cores.yaml").read_bytes() != shipped
    code, _, err = in_process(capsys, "recipes", "copy", "nosuch")
    assert (code, "gpu-24gb, paper" in err) == (2, True)


def test_docs_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = in_process(capsys, "docs")
    assert code == 0
    assert all(name in out for name in list_shipped("docs", ".md"))
    code, out, _ = in_process(capsys, "docs", "training")
    assert (code, out) == (0, (ROOT / "docs" / "training.md").read_text(encoding="utf-8"))
    assert in_process(capsys, "docs", "../README")[0] == 2


def test_train_takes_a_recipe_by_its_name_and_a_file_of_that_name_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = in_process(capsys, "train", "two-cores", "--table", "none.csv", "--out", "run")
    assert (code, "none.csv" in err) == (2, True)
    Path("two-cores").write_text("name: [", encoding="utf-8")
    code, _, err = in_process(capsys, "train", "two-cores", "--table", "none.csv", "--out", "run")
    assert (code, "none.csv" in err) == (2, False)


def test_a_name_of_no_recipe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for given, said in {"twocores": "Did you mean two-cores?", "mine.yaml": "no such file"}.items():
        code, _, err = in_process(capsys, "train", given, "--table", "none.csv", "--out", "run")
        assert (code, said.lower() in err.lower()) == (2, True), err
    assert find_shipped("recipes", ".yaml", "paper.yaml").stem == "paper"
    with pytest.raises(ConfigurationError, match="None of the recipes has this name"):
        find_shipped("recipes", ".yaml", "../recipes/paper")
