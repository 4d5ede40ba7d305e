"""`carzero publish`: what belongs to the weights, a card that the hub can read, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, constants

from carzero.weights.model_card import load_figures
from tests.support.commands import in_process
from tests.support.fake_hub import FakeHub, running_hub
from tests.support.tiny import build_model, tiny_config, tiny_processor

TRAINED = """---
library_name: carzero
---
# mine

## Data

```json
{
  "train images": 12,
  "patients": 9,
  "sources": [""]
}
```

## Result on validation pairs

Nothing was validated.

## Recipe

```json
{"table": "/home/somebody/private.csv"}
```
"""
METRICS = {
    "metrics": [
        {"dataset": "Ours 2026", "group": "all", "label": "edema", "metric": "auroc", "value": 0.8123}
        | {"ci_low": 0.77, "ci_high": 0.85, "n": 120, "n_pos": 31, "threshold": None, "method": "bootstrap"},
        {"dataset": "Ours 2026", "group": "sex=F", "label": "edema", "metric": "auroc", "value": 0.1}
        | {"ci_low": None, "ci_high": None, "n": 60, "n_pos": 3, "threshold": None, "method": ""},
        {"dataset": "Ours 2026", "group": "all", "label": "mass", "metric": "auroc", "value": None}
        | {"ci_low": None, "ci_high": None, "n": 120, "n_pos": 0, "threshold": None, "method": ""},
    ],
    "manifest": {},
}
BELONGS = {"README.md", "config.json", "model.safetensors", "processor_config.json"}
OTHERS = ("chest.dcm", "report.txt", "pairs.csv", "log.jsonl", "checkpoint.pt", "conversion.json", ".env")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training run's folder with much that must not leave the machine."""
    run = tmp_path_factory.mktemp("run")
    weights = run / "weights"
    build_model(tiny_config(text_config={"model_type": "bert", **TEXT})).save_pretrained(weights)
    tiny_processor().save_pretrained(weights)
    (weights / "README.md").write_text(TRAINED, encoding="utf-8")
    for folder in (run, weights):
        for name in OTHERS:
            (folder / name).write_text("secret", encoding="utf-8")
    (weights / "images").mkdir()
    (run / "metrics.json").write_text(json.dumps(METRICS), encoding="utf-8")
    return run


TEXT = {
    "vocab_size": 30522,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    with running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_ours")
        yield hub


def check_card(text: str) -> None:
    head = ModelCard(text).data.to_dict()
    assert head == yaml.safe_load(text.split("---")[1])
    assert (head["license"], head["library_name"]) == ("cc-by-4.0", "carzero")
    assert head["pipeline_tag"] == "zero-shot-image-classification"
    (result,) = head["model-index"][0]["results"]
    assert (result["dataset"]["name"], result["metrics"][0]["value"]) == ("Ours 2026", 0.8123)
    for part in ("## Use", "## Data", "## Figures", "## Prompts", "## Limits", 'from_pretrained("ours/chest")'):
        assert part in text
    assert "0.8123 (0.770-0.850) | 120 | 31" in text
    assert "Our own hospital." in text
    assert "train images: 12; patients: 9." in text
    assert "secret" not in text
    assert "/home/somebody" not in text


def test_a_dry_run_writes_what_an_upload_uploads(
    run: Path, hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["publish", run, "ours/chest", "--license", "cc-by-4.0", "--data", "Our own hospital."]
    asked += ["--metrics", run / "metrics.json", "--private"]
    code, _, err = in_process(capsys, *asked, "--dry-run", tmp_path / "dry")
    assert code == 0, err
    assert hub.files == {}
    written = {path.name: path.read_bytes() for path in (tmp_path / "dry").iterdir()}
    assert written.keys() >= BELONGS
    assert not written.keys() & {*OTHERS, "images"}
    assert all(name in err for name in (*BELONGS, *OTHERS))
    code, _, err = in_process(capsys, *asked)
    assert code == 0, err
    assert hub.files == written
    assert hub.repositories[0]["name"] == "chest"
    assert hub.repositories[0].get("private") or hub.repositories[0].get("visibility") == "private"
    assert hub.tokens == {"Bearer hf_ours"}
    check_card(written["README.md"].decode())


def test_a_second_dry_run_leaves_the_first(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["publish", run / "weights", "ours/chest", "--license", "mit", "--dry-run", tmp_path / "dry"]
    assert in_process(capsys, *asked)[0] == 0
    code, _, err = in_process(capsys, *asked)
    assert (code, "is not empty" in err) == (2, True)


def test_what_the_hub_refuses_is_one_line(run: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.refuses = True
    code, _, err = in_process(capsys, "publish", run, "ours/chest", "--license", "mit")
    assert code == 2
    assert re.search(r"error: The weights were not published: the hub says: .*403", err)


def test_nobody_is_logged_in(
    run: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    code, _, err = in_process(capsys, "publish", run, "ours/chest", "--license", "mit")
    assert (code, "hf auth login" in err) == (2, True)
    assert (hub.repositories, hub.files) == ([], {})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ours/chest"], "No licence is given; expected one that your images, reports and starting weights allow"),
        (["chest", "--license", "mit"], "This is not a name on the hub"),
        (["ours/chest", "--license", "My own!"], "This is not the identifier of a licence"),
        (["ours/chest", "--license", "mit", "--metrics", "config.json"], "not a table of metrics"),
    ],
)
def test_wrong_requests(
    run: Path,
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(run / "weights")
    code, _, err = in_process(capsys, "publish", run, *arguments, "--dry-run", tmp_path / "dry")
    assert (code, said in err) == (2, True), err
    assert not (tmp_path / "dry").exists()


def test_undefined_figures_and_groups_are_left_out(run: Path) -> None:
    assert [figure.label for figure in load_figures(run / "metrics.json")] == ["edema"]
