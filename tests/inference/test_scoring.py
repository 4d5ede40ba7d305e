"""A run over many images, inside one process: what is resumed, what is computed again, and what is written."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from carzero.core.journal import Journal
from carzero.core.run_record import manifest_path
from carzero.errors import ConfigurationError, OutputError, TableError, WeightsError
from carzero.images.listing import list_images
from carzero.inference.classifier import ZeroShotClassifier
from carzero.inference.score_table import SCORE_SUFFIXES, load_scores
from carzero.inference.scoring import ScoringRun, ScoringSettings
from carzero.inference.scoring_result import RunResult
from carzero.prompts import PromptSet
from carzero.records import ImageItem
from carzero.weights.source import WeightsSource
from tests.support.commands import run_program

ASKED = PromptSet.from_labels(["edema", "pleural effusion"])


@pytest.fixture
def work(classifier: ZeroShotClassifier, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of all images that runs have read; weights are loaded once."""
    read: list[str] = []
    stream = ZeroShotClassifier.stream

    def counted(self: ZeroShotClassifier, items: list[ImageItem], *args: Any, **options: Any) -> Any:
        read.extend(item.image_id for item in items)
        return stream(self, items, *args, **options)

    monkeypatch.setattr(ZeroShotClassifier, "stream", counted)
    monkeypatch.setattr(ZeroShotClassifier, "from_pretrained", lambda *_, **__: classifier)
    return read


@pytest.fixture
def folder(films: list[Path], tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    for film in films[:4]:
        (folder / film.name).write_bytes(film.read_bytes())
    return folder


def run(folder: Path, weights: Path, out: Path | None = None, **options: Any) -> RunResult:
    return build(folder, weights, out, **options).execute()


def build(folder: Path, weights: Path, out: Path | None = None, **options: Any) -> ScoringRun:
    """A run over a folder; options are those of the run and of its settings."""
    asked = {"prompts": ASKED, "batch_size": 2, **options}
    own = {name: asked.pop(name) for name in ("overlay", "resume", "overwrite") if name in asked}
    return ScoringRun(list_images([folder]), ScoringSettings(WeightsSource(weights), **asked), out, **own)


def interrupt(folder: Path, weights: Path, out: Path, **options: Any) -> None:
    """A run that dies while its second batch is on the way."""

    def die(done: int, failed: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(folder, weights, out, **options).execute(die)


@pytest.mark.parametrize("suffix", SCORE_SUFFIXES)
def test_a_finished_run_is_resumed_without_work(
    suffix: str, work: list[str], folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"scores{suffix}"
    first = run(folder, tiny_weights, out)
    assert len(work) == 4
    again = run(folder, tiny_weights, out, resume=True)
    assert len(work) == 4
    assert again.table.to_dict("records") == first.table.to_dict("records")
    assert load_scores(out).to_dict("records") == first.table.to_dict("records")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["films", out.name, manifest_path(out).name]


def test_an_interrupted_run_reads_the_rest_only(
    work: list[str], folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    interrupt(folder, tiny_weights, out)
    work.clear()
    seen: list[tuple[int, int]] = []
    resumed = build(folder, tiny_weights, out, resume=True, batch_size=1).execute(
        lambda done, failed: seen.append((done, failed))
    )
    assert work == ["film_002.png", "film_003.png"]
    assert seen == [(3, 0), (4, 0)]
    assert resumed.table["image_id"].tolist() == [f"film_00{i}.png" for i in range(4)]


def test_a_finished_run_takes_new_pictures(
    work: list[str], folder: Path, films: list[Path], tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    run(folder, tiny_weights, out)
    work.clear()
    (folder / "film_001b.png").write_bytes(films[5].read_bytes())
    longer = run(folder, tiny_weights, out, resume=True)
    assert work == ["film_001b.png"]
    assert longer.table["image_id"].tolist()[1:3] == ["film_001.png", "film_001b.png"]
    assert len(load_scores(out)) == 5


def test_failures_are_tried_again(
    work: list[str], folder: Path, films: list[Path], tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    (folder / "film_000.png").write_bytes(b"not yet copied")
    first = run(folder, tiny_weights, out)
    assert [failure.image_id for failure in first.failures] == ["film_000.png"]
    assert first.manifest["failures"] == [failure.to_dict() for failure in first.failures]
    assert len(first.table) == 3
    work.clear()
    (folder / "film_000.png").write_bytes(films[0].read_bytes())
    second = run(folder, tiny_weights, out, resume=True)
    assert work == ["film_000.png"]
    assert second.failures == []
    assert second.table["image_id"].tolist() == [f"film_00{i}.png" for i in range(4)]


@pytest.mark.parametrize("finished", [False, True])
def test_other_pictures_of_the_same_names_are_read(
    finished: bool, work: list[str], folder: Path, films: list[Path], tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    if finished:
        run(folder, tiny_weights, out)
    else:
        interrupt(folder, tiny_weights, out)
    others = tmp_path / "others"
    others.mkdir()
    for index in range(4):
        (others / f"film_{index:03d}.png").write_bytes(films[6 - index].read_bytes())
    work.clear()
    resumed = run(others, tiny_weights, out, resume=True)
    assert len(work) == 4
    assert all(path.startswith(str(others)) for path in resumed.table["path"])
    expected = run(others, tiny_weights).table
    assert resumed.table["logit:edema"].tolist() == pytest.approx(expected["logit:edema"].tolist(), abs=1e-5)


def test_failures_in_a_journal_are_tried_again(
    work: list[str], folder: Path, films: list[Path], tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    (folder / "film_000.png").write_bytes(b"not yet copied")
    interrupt(folder, tiny_weights, out)
    (folder / "film_000.png").write_bytes(films[0].read_bytes())
    work.clear()
    resumed = run(folder, tiny_weights, out, resume=True)
    assert work == ["film_000.png", "film_002.png", "film_003.png"]
    assert resumed.failures == []
    assert len(resumed.table) == 4


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("change", [{"prompts": PromptSet.from_labels(["edema"])}, {"pool": "max"}, {"force": True}])
def test_other_settings_are_refused_and_nothing_is_lost(
    finished: bool, change: dict[str, Any], work: list[str], folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    if finished:
        run(folder, tiny_weights, out)
    else:
        interrupt(folder, tiny_weights, out)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    work.clear()
    with pytest.raises(TableError, match=r"belongs to a run with other settings.*--overwrite"):
        run(folder, tiny_weights, out, resume=True, **change)
    assert work == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert len(run(folder, tiny_weights, out, overwrite=True, resume=True, **change).table) == 4
    assert len(work) == 4


def test_a_waiting_journal_is_not_overwritten_by_accident(
    work: list[str], folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    interrupt(folder, tiny_weights, out)
    work.clear()
    with pytest.raises(OutputError, match=r"An interrupted run of .* is waiting.*--resume.*--overwrite"):
        run(folder, tiny_weights, out)
    assert work == []
    assert len(run(folder, tiny_weights, out, overwrite=True).table) == 4
    assert len(work) == 4


def test_a_run_killed_between_table_and_journal_is_whole(
    work: list[str], folder: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores.csv"
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", lambda self: None)
        first = run(folder, tiny_weights, out)
    assert out.with_name("scores.csv.journal").exists()
    work.clear()
    second = run(folder, tiny_weights, out, resume=True)
    assert work == []
    assert second.table.to_dict("records") == first.table.to_dict("records")
    assert not out.with_name("scores.csv.journal").exists()


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b"5"])
def test_a_damaged_manifest_is_named(
    content: bytes, work: list[str], folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    run(folder, tiny_weights, out)
    manifest_path(out).write_bytes(content)
    with pytest.raises(TableError, match=r"scores\.csv\.manifest\.json is not the manifest of a run"):
        run(folder, tiny_weights, out, resume=True)


def test_overlays_are_drawn_for_every_finding(
    work: list[str], folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    (folder / "deep").mkdir()
    (folder / "film_003.png").rename(folder / "deep" / "odd name!.png")
    (folder / "film_002.png").rename(folder / "deep_odd_name!.png")  # the same once both are made file names
    result = run(folder, tiny_weights, overlay=tmp_path / "a" / "b")
    names = sorted(path.name for path in result.overlays)
    assert len(set(names)) == 8
    odd = [name for name in names if name.startswith("deep_odd_name_.png-")]
    assert len(odd) == 4
    assert all(re.fullmatch(r"deep_odd_name_\.png-[0-9a-f]{8}__(edema|pleural_effusion)\.png", name) for name in odd)
    for path in result.overlays:
        with Image.open(path) as picture:
            assert picture.mode == "RGB"


def test_wrong_settings_stop_before_any_work(work: list[str], folder: Path, tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--resume needs --out"):
        run(folder, tiny_weights, resume=True)
    with pytest.raises(OutputError, match="format is unknown"):
        run(folder, tiny_weights, tmp_path / "scores.txt")
    with pytest.raises(WeightsError, match="No weights are found"):
        run(folder, tmp_path / "nowhere", tmp_path / "scores.csv")
    assert work == []
    assert [path.name for path in tmp_path.iterdir()] == ["films"]


def test_a_result_is_plain_values(work: list[str], folder: Path, tiny_weights: Path) -> None:
    result = run(folder, tiny_weights)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [row["image_id"] for row in plain["scores"]] == result.table["image_id"].tolist()
    assert plain["manifest"]["scored"] == 4
    assert plain["manifest"]["score_kind"] == "logit"


def test_a_run_with_nothing_left_to_do_loads_no_torch(
    work: list[str], folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    run(folder, tiny_weights, out)
    program = (
        "import sys; from pathlib import Path; from carzero.images.listing import list_images\n"
        "from carzero.prompts import PromptSet; from carzero.inference.scoring import ScoringRun, ScoringSettings\n"
        "from carzero.weights.source import WeightsSource\n"
        f"labels = PromptSet.from_labels({ASKED.labels!r})\n"
        f"settings = ScoringSettings(WeightsSource({str(tiny_weights)!r}), labels)\n"
        f"run = ScoringRun(list_images([{str(folder)!r}]), settings, Path({str(out)!r}))\n"
        "run.resume = True\n"
        "print(len(run.execute().table), 'torch' in sys.modules)"
    )
    done = run_program([sys.executable, "-c", program])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4", "False"]


def test_two_runs_never_write_one_output(folder: Path, work: list[str], tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    refused: list[str] = []

    def try_again(done: int, failed: int) -> None:
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(TableError, match=r"Another run is writing .*scores\.csv\.journal") as error:
                run(folder, tiny_weights, out, **options)
            refused.append(str(error.value))

    build(folder, tiny_weights, out, batch_size=16).execute(try_again)
    assert len(refused) == 3
    assert len(load_scores(out)) == 4


@pytest.mark.parametrize("suffix", SCORE_SUFFIXES)
def test_a_table_in_pieces_is_the_same_table(
    suffix: str, work: list[str], folder: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "film_002.png").write_bytes(b"no image")
    whole = run(folder, tiny_weights, tmp_path / f"whole{suffix}")
    monkeypatch.setattr("carzero.inference.score_table._CELLS", 2)  # one row of two findings
    result = run(folder, tiny_weights, tmp_path / f"pieces{suffix}")
    assert len(list(result.pieces())) == (1 if suffix == ".json" else 3)
    assert result.table.to_dict("records") == whole.table.to_dict("records")
    assert list(result.table.dtypes) == list(whole.table.dtypes)
    assert (tmp_path / f"pieces{suffix}").exists()
    again = run(folder, tiny_weights, tmp_path / f"pieces{suffix}", resume=True)
    assert again.table.to_dict("records") == whole.table.to_dict("records")
    printed = json.loads("".join(run(folder, tiny_weights).iterate_json()))
    assert printed["scores"] == whole.table.to_dict("records")
    assert [failure["image_id"] for failure in printed["failures"]] == ["film_002.png"]


@pytest.mark.parametrize("suffix", SCORE_SUFFIXES)
def test_a_run_without_a_score_is_whole_too(suffix: str, work: list[str], tiny_weights: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in "abc":
        (broken / f"{name}.png").write_bytes(b"no image")
    result = run(broken, tiny_weights, tmp_path / f"scores{suffix}")
    assert (result.scored, [failure.image_id for failure in result.failures]) == (0, ["a.png", "b.png", "c.png"])
    assert json.loads("".join(run(broken, tiny_weights).iterate_json()))["scores"] == []


def test_rows_have_the_order_of_the_inputs_whatever_was_finished_first(
    work: list[str], folder: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = ZeroShotClassifier.stream
    monkeypatch.setattr(ZeroShotClassifier, "stream", lambda *args, **options: reversed(list(stream(*args, **options))))
    result = run(folder, tiny_weights, tmp_path / "scores.csv")
    assert result.table["image_id"].tolist() == [f"film_00{i}.png" for i in range(4)]
    assert load_scores(tmp_path / "scores.csv")["image_id"].tolist() == result.table["image_id"].tolist()


def test_many_failures_are_listed_in_a_file(
    work: list[str],
    folder: Path,
    films: list[Path],
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("carzero.inference.scoring_result._LISTED_FAILURES", 1)
    for index in range(2):
        (folder / f"film_00{index}.png").write_bytes(b"not yet copied")
    out = tmp_path / "scores.csv"
    result = run(folder, tiny_weights, out)
    listed = tmp_path / "scores.csv.failures.csv"
    assert result.manifest["failures"] == [result.failures[0].to_dict()]
    assert result.manifest["all_failures"] == {"count": 2, "file": listed.name}
    assert listed.read_text().splitlines()[0] == "image_id,path,reason"
    assert len(listed.read_text().splitlines()) == 3
    (folder / "film_000.png").write_bytes(films[0].read_bytes())
    assert "all_failures" not in run(folder, tiny_weights, out, resume=True).manifest
    assert not listed.exists()


def test_a_damaged_table_leaves_no_journal(work: list[str], folder: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    run(folder, tiny_weights, out)
    out.write_bytes(b"damaged")
    with pytest.raises(TableError, match="cannot be read"):
        run(folder, tiny_weights, out, resume=True)
    assert out.read_bytes() == b"damaged"
    assert not out.with_name("scores.parquet.journal").exists()
