"""`carzero ground`, the real command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from carzero.cli.options import read_prompts
from carzero.errors import PromptError
from carzero.inference.calibration_file import load_calibration
from carzero.inference.heatmaps import load_map
from carzero.inference.score_calibration import find_calibration
from carzero.prompts.style import PromptStyle
from carzero.weights.source import DEMO, WeightsSource
from tests.support.commands import carzero, in_process


def test_sentences_json_and_files(films: list[Path], tiny_weights: Path, tmp_path: Path) -> None:
    sentences = ("There is pleural effusion", "There is a large mass")
    done = carzero(
        *("ground", films[0], films[1], "--prompts", sentences[0], "--prompts", sentences[1], "-w", tiny_weights),
        *("--json", "--out", tmp_path / "out", "--map-format", "png"),
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed.keys() == {"findings", "failures", "manifest"}
    assert [row["label"] for row in printed["findings"]] == [*sentences, *sentences]
    assert printed["manifest"]["prompts"] == {sentence: [sentence] for sentence in sentences}
    row = printed["findings"][0]
    assert row["box"].keys() == {"xmin", "ymin", "xmax", "ymax"}
    heatmap = load_map(tmp_path / "out" / row["files"]["map"]).heatmap
    assert heatmap.shape == (row["height"], row["width"])
    assert np.isfinite(heatmap).any()
    assert "Wrote 4 maps and 4 overlays, grounding.json and boxes.coco.json" in done.stderr


def test_a_table_failures_and_doubts_of_the_demo(
    films: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    asked = ("ground", films[0], tmp_path / "broken.png", "-l", "edema,mass")
    code, out, err = in_process(capsys, *asked, "--probabilities", "--out", tmp_path / "out")
    assert code == 1, err
    assert out.split("\n")[0].split()[:4] == ["image", "finding", "logit", "probability"]
    assert "a map says where, not whether" in out
    assert len([line for line in out.splitlines() if line.strip().startswith(films[0].name)]) == 2
    assert "1 of 2 images were not read:" in err
    assert "  broken.png: " in err
    assert "warning: Maps of the demo weights miss about as often as they hit" in err
    assert "which these weights were not trained on" in err
    assert "No probability for mass: not in the calibration." in err
    result = json.loads((tmp_path / "out" / "grounding.json").read_text())
    own = find_calibration(WeightsSource(DEMO))
    edema, mass = result["findings"]
    assert edema["probability"] == float(load_calibration(own).apply([[edema["logit"]]], ["edema"])[0, 0])
    assert mass["probability"] is None
    assert result["manifest"]["calibration"]["labels"] == ["edema"]
    for told, options in {
        "calibration_sha256_but_date": ("--out", tmp_path / "out", "--resume"),
        "--calibration names another": ("--calibration", own, "--probabilities"),
        "another score_kind": ("--calibration", own, "--score", "logit_difference"),
    }.items():
        code, _, err = in_process(capsys, *asked, *options)
        assert (code, told in " ".join(err.replace("│", " ").split())) == (2, True), err


def test_prompts_may_be_sentences_a_file_or_a_set_of_the_library(tmp_path: Path) -> None:
    (tmp_path / "asked.yaml").write_text("edema: [There is edema, The lungs are congested]\n")
    template, style = "There is {label}", PromptStyle()
    assert read_prompts(None, [str(tmp_path / "asked.yaml")], template, style).labels == ["edema"]
    assert len(read_prompts(None, ["chexpert5"], template, style)) == 5
    assert read_prompts(None, ["There is edema"], template, style).prompts == {"There is edema": ("There is edema",)}
    assert read_prompts(None, ["There is edema", "A mass"], template, style).labels == ["There is edema", "A mass"]
    assert read_prompts(["edema, mass"], None, template, style).labels == ["edema", "mass"]
    with pytest.raises(PromptError, match="cannot be read"):
        read_prompts(None, [str(tmp_path / "not there.yaml")], template, style)


def test_wrong_use_is_one_message(
    films: list[Path], tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    cases = {
        "Nothing is asked": (films[0],),
        "exclude each other": (films[0], "-l", "edema", "-p", "There is edema"),
        "no such prompt set and no such file": (films[0], "-p", "effusion"),
        "There is no such file or folder": (tmp_path / "nowhere.png", "-l", "edema"),
        "not a share": (films[0], "-l", "edema", "-w", tiny_weights, "--box-share", "0"),
        "output folder is a file": (films[0], "-l", "edema", "-w", tiny_weights, "--out", tmp_path / "file"),
    }
    for message, arguments in cases.items():
        code, out, err = in_process(capsys, "ground", *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert len(err.splitlines()) == 1, err
    code, out, err = in_process(capsys, "ground", films[0], "-l", "edema", "--map-format", "tif")
    assert (code, out) == (2, "")
    assert "'tif' is not one of 'npz', 'png'" in err
