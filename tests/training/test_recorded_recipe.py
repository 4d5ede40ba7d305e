"""A run that is resumed takes its own recipe, unless it is told another; what differs is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from carzero.errors import RunError
from carzero.training.recipes import ImagePretrainRecipe, Recipe, TextPretrainRecipe, load_recorded, load_schema
from tests.support.commands import ROOT, in_process

KINDS = {
    "two-cores": Recipe,
    "paper": Recipe,
    "pretrain-image": ImagePretrainRecipe,
    "pretrain-text": TextPretrainRecipe,
}


@pytest.mark.parametrize("name", KINDS)
def test_what_was_changed_is_read_back(name: str, tmp_path: Path) -> None:
    path, schema = ROOT / "recipes" / f"{name}.yaml", KINDS[name]
    begun = load_schema(schema, path, {"seed": 7, "optimiser.lr": 0.25})
    now = load_schema(schema, path)
    assert load_recorded(schema, tmp_path, now) == (now, [])
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"recipe": begun.model_dump(mode="json")}, sort_keys=False))
    recorded, differing = load_recorded(schema, tmp_path, now)
    assert recorded == begun
    assert differing == ["optimiser.lr", "seed"]
    assert load_recorded(schema, tmp_path, begun) == (begun, [])


@pytest.mark.parametrize("content", ["", "[", "recipe: 3", "other: {}"])
def test_a_record_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(RunError):
        load_recorded(Recipe, tmp_path, load_schema(Recipe, ROOT / "recipes" / "two-cores.yaml"))


def test_resume_needs_no_repeated_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = load_schema(Recipe, ROOT / "recipes" / "two-cores.yaml", {"optimiser.lr": 0.25})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"recipe": changed.model_dump(mode="json")}))
    asked = ("train", "two-cores", "--table", tmp_path / "none.csv", "--out", tmp_path, "--resume")
    said = "note: the run resumes with its own recipe, which differs from two-cores in optimiser.lr."
    assert said in in_process(capsys, *asked)[2]
    assert "own recipe" not in in_process(capsys, *asked, "--set", "optimiser.lr=0.25")[2]
