"""`carzero export`, and the exported folder behind `--weights`: what a user types, and what they read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import in_process
from tests.support.exports import remember_graphs

for package in ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"):
    pytest.importorskip(package, reason=f"needs the package {package} (extra test)")


@pytest.fixture(scope="module", autouse=True)
def _graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        remember_graphs(tmp_path_factory.mktemp("graphs"), patch)
        yield


def test_exported_folder_serves_predict_ground_and_resume(
    tiny_weights: Path, films: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "exported"
    code, stdout, stderr = in_process(
        capsys, "export", tiny_weights, "--to", "openvino", "--out", folder, "--calibration", films[0].parent
    )
    assert code == 0, stderr
    assert "openvino, float32" in stdout
    assert "calibration images: 7, 14 prompts" in stdout
    assert str(folder) in stderr.replace("\n", "")
    words = ["--labels", "edema,pneumonia", "--json"]
    code, stdout, stderr = in_process(capsys, "predict", films[0], "--weights", folder, *words)
    assert code == 0, stderr
    ours = json.loads(stdout)
    code, stdout, _ = in_process(capsys, "predict", films[0], "--weights", tiny_weights, "--dtype", "float32", *words)
    theirs = json.loads(stdout)
    for name in ("logit:edema", "logit:pneumonia"):
        assert ours["scores"][0][name] == pytest.approx(theirs["scores"][0][name], abs=1e-5)
    assert ours["manifest"]["weights_sha256"] != theirs["manifest"]["weights_sha256"]
    assert ours["manifest"]["preprocessing"] == theirs["manifest"]["preprocessing"]
    code, stdout, stderr = in_process(capsys, "ground", films[0], "--weights", folder, *words)
    assert code == 0, stderr
    assert len(json.loads(stdout)["findings"]) == 2


def test_unreadable_calibration_films_are_listed(
    tiny_weights: Path, films: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "films"
    mixed.mkdir()
    for film in films[:4]:
        shutil.copy(film, mixed)
    (mixed / "broken.png").write_text("no image")
    arguments = ["export", tiny_weights, "--to", "openvino", "--dtype", "int8", "--out", tmp_path / "out"]
    code, stdout, stderr = in_process(capsys, *arguments, "--calibration", mixed, "--json")
    assert code == 1
    assert json.loads(stdout)["calibration"]["pictures"] == 3
    assert "1 calibration images could not be read:" in stderr
    assert "broken.png" in stderr
    code, _, stderr = in_process(capsys, *arguments, "--calibration", mixed / "broken.png", "--overwrite")
    assert code == 2
    assert "Too few of the calibration images" in stderr
    assert (tmp_path / "out" / "export.json").is_file(), "the earlier export stays"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--to", "coreml"], "one of 'onnx', 'openvino'"),
        (["--to", "openvino", "--dtype", "int8"], "--calibration"),
        (["--to", "onnx", "--dtype", "bfloat16"], "expected float32"),
        (["--to", "onnx", "--prompts", "nosuchset"], "nosuchset"),
    ],
)
def test_wrong_use_is_told_at_once(
    more: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, stdout, stderr = in_process(capsys, "export", "demo", "--out", tmp_path / "out", *more)
    assert (code, stdout) == (2, "")
    assert reason in stderr.replace("\n", " ")
    assert not list(tmp_path.iterdir())
