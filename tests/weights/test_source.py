"""Weights by name: looked up once and hashed once in a run, whatever the run reads of them."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import pytest

from carzero.errors import WeightsError
from carzero.images import PixelTransform
from carzero.weights import source
from carzero.weights.source import DEMO, WeightsSource, is_demo
from tests.support.commands import in_process
from tests.support.official_boxes import write_chestxdet10
from tests.support.tiny import IMAGE_PX, MAX_TEXT, RESIZE_PX


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often weights were looked up and hashed, by what was done and to which."""
    counts: Counter[str] = Counter()
    find, digest = source._find_folder, source._hash_folder

    def find_counted(name: str | Path) -> Path | None:
        counts[f"found {Path(name).name}"] += 1
        return find(name)

    def hash_counted(folder: Path) -> str:
        counts[f"hashed {folder.name}"] += 1
        return digest(folder)

    monkeypatch.setattr(source, "_find_folder", find_counted)
    monkeypatch.setattr(source, "_hash_folder", hash_counted)
    source._hash_demo()  # kept for the process; what it costs is not the run's
    counts.clear()
    return counts


def test_each_command_looks_weights_up_once_and_hashes_them_once(
    counted: Counter[str],
    films: list[Path],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_chestxdet10(tmp_path / "det", 3)
    chosen = ("--weights", tiny_weights, "--device", "cpu")
    benchmark = ("benchmark", "chestxdet10", "--images", tmp_path / "det", *chosen, "--rounds", "2")
    commands: dict[str, tuple[tuple[object, ...], int]] = {
        "predict": (("predict", *films[:2], "-l", "edema", *chosen, "--out", tmp_path / "scores.csv"), 1),
        "predict, resumed": (
            ("predict", *films[:3], "-l", "edema", *chosen, "--out", tmp_path / "scores.csv", "--resume"),
            1,
        ),
        "ground": (("ground", *films[:2], "-l", "edema", *chosen), 1),
        "benchmark": ((*benchmark, "--out", tmp_path / "figures"), 1),
        "pointing": ((*benchmark, "--task", "pointing", "--out", tmp_path / "points"), 1),
        "bench": (("bench", *chosen, "--prompts", "2", "--batch-size", "1", "--turns", "1"), 0),
    }
    for name, (arguments, hashed) in commands.items():
        counted.clear()
        code, _, err = in_process(capsys, *arguments)
        assert code == 0, f"{name}: {err}"
        expected = {"found tiny": 1, **({"hashed tiny": hashed} if hashed else {})}
        assert {place: count for place, count in counted.items() if "tiny" in place} == expected, name


def test_an_export_looks_weights_up_once(
    counted: Counter[str], tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx", reason="needs the package onnx (extra test)")
    pytest.importorskip("onnxruntime", reason="needs the package onnxruntime (extra test)")
    code, _, err = in_process(capsys, "export", tiny_weights, "--to", "onnx", "--out", tmp_path / "graphs")
    assert code == 0, err
    assert counted == {"found tiny": 1, "hashed tiny": 1}


def test_what_belongs_to_weights_is_read_of_their_folder(tiny_weights: Path) -> None:
    weights = WeightsSource(tiny_weights)
    assert (weights.kind, weights.own_dtype, weights.folder) == ("torch", None, tiny_weights)
    assert weights.pixels == PixelTransform(RESIZE_PX, IMAGE_PX)
    assert weights.max_text_length == weights.config.max_text_length == MAX_TEXT
    assert weights.preprocessing == {**weights.pixels.to_dict(), "max_text_length": MAX_TEXT}
    assert not weights.is_demo
    assert WeightsSource(DEMO).is_demo
    assert is_demo(WeightsSource(DEMO).sha256)


def test_a_source_looks_its_name_up_where_it_was_sent(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").symlink_to(tiny_weights)
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(WeightsSource("./here"))
    monkeypatch.chdir(tmp_path.parent)
    arrived = pickle.loads(sent)
    with pytest.raises(WeightsError, match="there is no such folder"):
        _ = arrived.folder
    monkeypatch.chdir(tmp_path)
    assert arrived.sha256 == WeightsSource(tiny_weights).sha256


def test_a_wrong_name_is_refused_at_once(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "nowhere", "nowhere", "./a/b"):
        with pytest.raises(WeightsError, match="No weights are found"):
            WeightsSource(name)
