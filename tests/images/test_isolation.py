"""A file that its decoder does not survive costs one image, whichever command reads it."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from carzero.data.image_checks import check_images
from carzero.data.pairs import load_pairs
from carzero.errors import TableError
from carzero.training.batches.image_cache import save_images as save_squares
from tests.support import crashing
from tests.support.commands import in_process
from tests.support.crashing import DEADLY
from tests.support.official_boxes import write_chestxdet10
from tests.support.tiny import save_images


@pytest.fixture(autouse=True)
def _deadly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes that really die; the hooks are importable, so that the processes find them."""
    monkeypatch.setattr("carzero.images.loading.load_item", crashing.load_or_crash)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, and one in their middle that kills its reader."""
    folder = tmp_path / "films"
    save_images(folder, 3, side_px=96)
    (folder / "film_001b.png").write_bytes(DEADLY)
    return folder


def options(weights: Path) -> tuple[object, ...]:
    return "--weights", weights, "--device", "cpu", "--json"


def test_predict(folder: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = in_process(capsys, "predict", folder, "-l", "edema", *options(tiny_weights))
    printed = json.loads(out)
    assert code == 1, err
    assert [row["image_id"] for row in printed["scores"]] == [f"film_00{number}.png" for number in range(3)]
    check_failure(printed["failures"], folder / "film_001b.png")


def test_ground(folder: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = in_process(capsys, "ground", folder, "-l", "edema", *options(tiny_weights))
    printed = json.loads(out)
    assert code == 1, err
    assert [row["image_id"] for row in printed["findings"]] == [f"film_00{number}.png" for number in range(3)]
    check_failure(printed["failures"], folder / "film_001b.png")


@pytest.mark.parametrize("task", ["pointing", "classification"])
def test_benchmark(task: str, tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    films = write_chestxdet10(tmp_path, 4)
    films[1].write_bytes(DEADLY)
    code, out, err = in_process(
        *(capsys, "benchmark", "chestxdet10", "--images", tmp_path, "--task", task, "--rounds", "2"),
        *options(tiny_weights),
    )
    assert code == 1, err
    manifest = json.loads(out)["manifest"]
    assert manifest["images"] == 3
    assert [failure["image_id"] for failure in manifest["failures"]] == [films[1].name]
    assert "its reader crashed" in manifest["failures"][0]["reason"]


def test_export(folder: Path, tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx", reason="needs the package onnx (extra test)")
    pytest.importorskip("onnxruntime", reason="needs the package onnxruntime (extra test)")
    code, _, err = in_process(
        capsys, "export", tiny_weights, "--to", "onnx", "--out", tmp_path / "graphs", "--calibration", folder
    )
    assert code == 1, err
    assert "film_001b.png: its reader crashed" in err


def test_the_training_cache_names_the_image_and_reads_the_others(folder: Path, tmp_path: Path) -> None:
    paths = [str(path) for path in sorted(folder.iterdir())]
    read: list[int] = []
    with pytest.raises(TableError, match=r"1 of 4 images cannot be trained on: .*film_001b\.png: its reader crashed"):
        save_squares(paths, 40, tmp_path / "cache", lambda done, _: read.append(done))
    assert read == [1, 2, 3, 4]
    whole = [path for path in paths if not path.endswith("b.png")]
    squares = np.fromfile(save_squares(whole, 40, tmp_path / "cache"), np.uint8).reshape(3, 40, 40)
    assert all(len(np.unique(square)) > 16 for square in squares)


@pytest.mark.parametrize("jobs", [1, 2])
def test_data_validation(
    jobs: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{path},No edema is seen.,train,{path.stem}," for path in sorted(folder.iterdir())]
    table = tmp_path / "pairs.csv"
    table.write_text("\n".join(["image,text,split,patient_id,source", *rows]) + "\n")
    hooked = functools.partial(check_images, check=crashing.check_or_crash)
    monkeypatch.setattr("carzero.data.validation.check_images", hooked)
    out = tmp_path / "kept.csv"
    code, _, err = in_process(capsys, "data", "validate", table, "--jobs", jobs, "--out", out)
    assert code == 1, err
    assert "its reader crashed" in err
    assert [Path(image).name for image in load_pairs(out).images] == [f"film_00{number}.png" for number in range(3)]


def check_failure(failures: list[dict[str, str]], path: Path) -> None:
    (failure,) = failures
    assert (failure["image_id"], failure["path"]) == (path.name, str(path))
    assert failure["reason"].startswith(f"{path}: its reader crashed; got 'exit status -11'")
