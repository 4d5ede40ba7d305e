"""`carzero benchmark`, the real command: from images and from score files, refusals, resuming, what lies in --out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from carzero.datasets.catalogue import DATASETS
from tests.support.commands import carzero, in_process
from tests.support.official import nih_entries, nih_list
from tests.support.tiny import save_images

NIH = DATASETS["chestxray14"]
FILMS = 24


Benchmark = Callable[..., tuple[str, str]]


@pytest.fixture
def benchmark(capsys: pytest.CaptureFixture[str]) -> Benchmark:
    """The command in this process: stdout and stderr of a run that ends with the code expected."""

    def run_here(*arguments: object, code: int = 0) -> tuple[str, str]:
        ended, out, err = in_process(capsys, "benchmark", *arguments)
        assert ended == code, err
        return out, err

    return run_here


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for --images with two sets in it: 24 images as ChestXray14 in NIH's layout, and as ChestX-Det10."""
    folder = tmp_path_factory.mktemp("sets")
    films = save_images(folder / "chestxray14" / "images_001" / "images", FILMS, side_px=160)
    names = [f"{index // 2:08d}_{index % 2:03d}.png" for index in range(FILMS)]
    for film, name in zip(films, names, strict=True):
        film.rename(film.with_name(name))
    matrix = (np.random.default_rng(0).random((FILMS, 14)) < 0.3).astype(np.float32)
    nih_entries(folder / "chestxray14" / "Data_Entry_2017_v2020.csv", names[::-1], NIH.labels, matrix[::-1])
    nih_list(folder / "chestxray14" / "test_list.txt", names, None)
    boxed = save_images(folder / "chestxdet10" / "test_data", 6, side_px=160)
    findings = DATASETS["chestxdet10"].labels
    content = [
        {
            "file_name": film.name,
            "syms": [findings[index], findings[index + 1]],
            "boxes": [[0, 0, 80, 160], [5, 5, 20, 20]],
        }
        for index, film in enumerate(boxed)
    ]
    (folder / "chestxdet10" / "test.json").write_text(json.dumps(content))
    return folder


def test_from_pictures_to_a_report_and_again_from_its_own_scores(
    root: Path, tiny_weights: Path, tmp_path: Path, benchmark: Benchmark
) -> None:
    images, out = root / "chestxray14", tmp_path / "new" / "out"
    command = ("chestxray14", "--images", images, "-w", tiny_weights, "-o", out, "--json", "--rounds", 50)
    done = carzero("benchmark", *command)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed.keys() == {"metrics", "manifest"}
    manifest = printed["manifest"]
    assert (manifest["images"], manifest["weights"], manifest["missing"]) == (FILMS, str(tiny_weights), [])
    assert manifest["preprocessing"]["crop_px"] == 32
    assert manifest["prompts"]["Nodule"] == ["There is Lung Nodule"]
    assert len(manifest["weights_sha256"]) == len(manifest["prompts_sha256"]) == 64
    assert "12 of them" in manifest["intervals"], "patients"
    assert f"scored {FILMS} of {FILMS}" in done.stderr
    assert "note: The published figures rest on 22433 images, these on 24" in done.stderr
    assert json.loads((out / "metrics.json").read_text()) == printed
    assert {path.name for path in out.iterdir()} == {
        *("metrics.csv", "metrics.json", "manifest.json", "report.html", "forest.png", "roc.png"),
        *("precision_recall.png", "scores.parquet", "scores.parquet.manifest.json"),
    }

    stdout, stderr = benchmark(*command, "--resume")
    assert "scored" not in stderr, "nothing is left to do"
    second = json.loads(stdout)
    assert second.keys() == printed.keys()
    assert second["metrics"] == printed["metrics"]
    assert {**second["manifest"], "date": ""} == {**manifest, "date": ""}

    stdout, _ = benchmark(
        *("chestxray14", images / "Data_Entry_2017_v2020.csv", "--labels", images / "test_list.txt"),
        *("--scores", out / "scores.parquet", "--json", "--rounds", 50, "--among-abnormal", "--baseline"),
    )
    repeated = json.loads(stdout)
    assert [row for row in repeated["metrics"] if row["group"] == "all"] == printed["metrics"]
    assert "abnormal=yes" in {row["group"] for row in repeated["metrics"]}
    assert repeated["manifest"]["controls"]["baseline"]["folds_by"] == "patient"
    for key in ("weights", "weights_sha256", "preprocessing", "prompts_sha256", "truth_sha256", "image_list_sha256"):
        assert repeated["manifest"][key] == manifest[key]


def test_broken_and_missing_pictures_are_left_out_and_listed(
    root: Path, tiny_weights: Path, tmp_path: Path, benchmark: Benchmark
) -> None:
    for film in sorted((root / "chestxray14").rglob("*.png"))[1:]:
        (tmp_path / film.name).write_bytes(film.read_bytes())
    (tmp_path / "00000003_001.png").write_bytes(b"no image")
    labels = [root / "chestxray14" / name for name in ("test_list.txt", "Data_Entry_2017_v2020.csv")]
    command = ("chestxray14", *labels, "--images", tmp_path, "-w", tiny_weights, "--rounds", 20)
    out, err = benchmark(*command, "--allow-missing", code=1)
    assert "ChestXray14, 22 images: AUROC" in out
    assert "2 of the set have no score" in err
    assert "1 images were not scored and are left out:" in err
    assert "  00000003_001.png: " in err


def test_pointing(root: Path, tiny_weights: Path, tmp_path: Path, benchmark: Benchmark) -> None:
    folder = root / "chestxdet10"
    command = ("chestxdet10", "--task", "pointing", "--rounds", 20)
    out, _ = benchmark(
        *command, "--images", folder, "--labels", folder / "test.json", "-w", tiny_weights, "-o", tmp_path, "--json"
    )
    printed = json.loads(out)
    macro = next(row for row in printed["metrics"] if (row["metric"], row["label"]) == ("pointing", "macro"))
    assert macro["n"] == 12
    assert macro["published"] == 0.543
    assert printed["manifest"]["task"] == "pointing"
    shown, _ = benchmark(*command, folder / "test.json", "--scores", tmp_path / "maps.npz")
    assert "hits / trials" in shown
    assert "pointing" in (tmp_path / "report.html").read_text()


def test_all_takes_the_sets_that_have_a_folder(root: Path, tiny_weights: Path, benchmark: Benchmark) -> None:
    out, err = benchmark("all", "--images", root, "-w", tiny_weights, "--rounds", 20, "--json")
    printed = json.loads(out)
    assert printed["manifest"].keys() == {"chestxray14", "chestxdet10"}
    assert {row["dataset"] for row in printed["metrics"]} == {"chestxray14", "chestxdet10"}
    assert "openi: no folder of that name, left out" in err


def test_wrong_use_is_one_message(root: Path, tmp_path: Path, benchmark: Benchmark) -> None:
    folder = root / "chestxray14"
    pd.DataFrame(np.zeros((2, 14)), columns=[str(c) for c in range(14)]).to_csv(tmp_path / "logits.csv", index=False)
    pd.DataFrame({"image": ["a.png"]}).to_csv(tmp_path / "images.csv", index=False)
    labels = ("--labels", folder / "test_list.txt", "--labels", folder / "Data_Entry_2017_v2020.csv")
    scores = ("--scores", tmp_path / "logits.csv")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    cases = {
        "name it with --image-list": ("chestxray14", *labels, *scores),
        "2 rows of scores and 1 images": ("chestxray14", *labels, *scores, "--image-list", tmp_path / "images.csv"),
        "cannot be read": ("chestxray14", *labels, "--scores", tmp_path / "nowhere.csv"),
        "no such folder of images": ("chestxray14", *labels, "--images", tmp_path / "nowhere"),
        "not given and not found": ("chestxray14", "--images", tmp_path / "empty"),
        "24 of 24 images are not below": ("chestxray14", *labels, "--images", tmp_path / "empty"),
        "No set has a folder here": ("all", "--images", tmp_path / "empty"),
        "has no boxes": ("chestxray14", *labels, "--images", folder, "--task", "pointing"),
        "is not a table of maps": ("chestxdet10", root / "chestxdet10" / "test.json", *scores, "--task", "pointing"),
        "The output folder is a file": ("chestxray14", *labels, *scores, "-o", tmp_path / "file"),
        "images or scores; expected either": ("chestxray14", *labels),
        "images or scores": ("chestxray14", *labels, *scores, "--images", folder),
        "name the files with --labels": ("chestxray14", *scores),
        "a folder for each set": ("all", *scores),
        "leave it out": ("chestxray14", *labels, "--images", folder, "--image-list", tmp_path / "images.csv"),
        "--resume needs --out": ("chestxray14", *labels, "--images", folder, "--resume"),
        "--images alone": ("all", "--images", root, "--task", "pointing"),
    }
    for message, arguments in cases.items():
        stdout, stderr = benchmark(*arguments, code=2)
        assert not stdout
        assert message.casefold() in stderr.casefold(), stderr
        assert len(stderr.splitlines()) == 1, stderr
    assert "'mimic' is not one of 'chestxray14'" in benchmark("mimic", *scores, code=2)[1]
    assert "'segmentation' is not one of" in benchmark("chestxray14", *scores, "--task", "segmentation", code=2)[1]
