"""`carzero ground`, the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from carzero.cli.ground import read_prompts
from carzero.cli.main import run
from carzero.data.maps import load_map

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def carzero(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "carzero.cli.main", "ground", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=300)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_sentences_json_and_files(films: list[Path], tiny_weights: Path, tmp_path: Path) -> None:
    sentences = ("There is pleural effusion", "There is a large mass")
    done = carzero(
        *(films[0], films[1], "--prompts", sentences[0], "--prompts", sentences[1], "-w", tiny_weights),
        *("--json", "--out", tmp_path / "out", "--map-format", "png"),
    )
    printed = json.loads(done.stdout)
    assert printed.keys() == {"findings", "failures", "manifest"}
    assert [row["label"] for row in printed["findings"]] == [*sentences, *sentences]
    assert printed["manifest"]["prompts"] == {sentence: [sentence] for sentence in sentences}
    row = printed["findings"][0]
    assert row["box"].keys() == {"xmin", "ymin", "xmax", "ymax"}
    heatmap = load_map(tmp_path / "out" / row["files"]["map"]).heatmap
    assert heatmap.shape == (row["height"], row["width"])
    assert np.isfinite(heatmap).any()
    assert "Wrote 4 maps and overlays, grounding.json and boxes.coco.json" in done.stderr


def test_a_table_failures_and_doubts_of_the_demo(films: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    done = carzero(films[0], tmp_path / "broken.png", "-l", "edema,mass", code=1)
    assert "peak x, y" in done.stdout
    assert "a map says where, not whether" in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.strip().startswith(films[0].name)]) == 2
    assert "1 of 2 pictures were not read:" in done.stderr
    assert "  broken.png: " in done.stderr
    assert "warning: Maps of the demo weights are not to be trusted" in done.stderr


def test_prompts_may_be_sentences_a_file_or_a_set_of_the_library(tmp_path: Path) -> None:
    (tmp_path / "asked.yaml").write_text("edema: [There is edema, The lungs are congested]\n")
    template = "There is {label}"
    assert read_prompts(None, [str(tmp_path / "asked.yaml")], template).labels == ["edema"]
    assert len(read_prompts(None, ["chexpert5"], template)) == 5
    assert read_prompts(None, ["There is edema"], template).prompts == {"There is edema": ("There is edema",)}
    assert read_prompts(None, ["There is edema", "A mass"], template).labels == ["There is edema", "A mass"]
    assert read_prompts(["edema, mass"], None, template).labels == ["edema", "mass"]


def test_wrong_use_is_one_message(
    films: list[Path],
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    cases = {
        "Nothing is asked": (films[0],),
        "exclude each other": (films[0], "-l", "edema", "-p", "There is edema"),
        "no such prompt set and no such file": (films[0], "-p", "effusion"),
        "There is no such file or folder": (tmp_path / "nowhere.png", "-l", "edema"),
        "format is unknown": (films[0], "-l", "edema", "-w", tiny_weights, "--map-format", "tif"),
        "no share": (films[0], "-l", "edema", "-w", tiny_weights, "--box-share", "0"),
        "cannot be made": (films[0], "-l", "edema", "-w", tiny_weights, "--out", tmp_path / "file"),
    }
    for message, arguments in cases.items():
        monkeypatch.setattr(sys, "argv", ["carzero", "ground", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run()
        printed = capsys.readouterr()
        assert ended.value.code == 2
        assert not printed.out
        assert message in printed.err
        assert len(printed.err.splitlines()) == 1, printed.err
