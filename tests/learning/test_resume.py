"""A run stopped at any moment goes on to the weights of a run that was not."""

from __future__ import annotations

import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from carzero.errors import OutputError, RunError
from carzero.training.batches.image_cache import save_images
from carzero.training.loop import stop_on_signals
from carzero.training.recipes import load_recipe
from carzero.training.run import train
from carzero.training.run_folder import RunFolder, clear_run, latest_checkpoint
from tests.support.commands import run_program
from tests.support.files import leave_behind
from tests.support.runs import (
    IMAGES,
    read_log,
    save_recipe,
    save_reports_table,
    stop_at,
    tiny_recipe,
    train_command,
)

STEPS = 24


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reports_table(tmp_path_factory.mktemp("table") / "pairs.jsonl", 12)


def recipe_with(**changes: Any) -> dict[str, Any]:
    """Everything that draws random numbers is on: dropout, variation, sentences, averages."""
    recipe = tiny_recipe(
        pixels={"resize_px": 40, "crop_px": 32, "flip": 0.5},
        optimiser={"steps": STEPS, "batch_size": 4, "lr": 1.0e-3, "average": 0.9},
        memory={"image_block": 3, "text_block": 2, "tile_pairs": 5},
        evaluate_every=6,
        checkpoint_every=5,
        keep="best",
    )
    recipe["model"]["fields"]["dropout"] = 0.2
    return {**recipe, **changes}


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml", recipe_with())


@pytest.fixture(scope="module")
def whole(recipe_file: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, in this process: those that are stopped are commands of their own."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(load_recipe(recipe_file), table, out)
    return out


def without_speed(out: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "images_per_s"} for record in read_log(out)]


def assert_same_run(out: Path, whole: Path) -> None:
    ours, theirs = (load_file(run / "weights" / "model.safetensors") for run in (out, whole))
    assert ours.keys() == theirs.keys()
    assert all(ours[key].equal(theirs[key]) for key in theirs)
    assert without_speed(out) == without_speed(whole)


def test_a_killed_run_resumes_to_equal_weights(recipe_file: Path, table: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = train_command(recipe_file, table, out)
    for step in (3, 13):  # once before the first checkpoint
        stop_at(command if step == 3 else [*command, "--resume"], out, step, signal.SIGKILL)
        assert len(read_log(out)) < STEPS, "the run ended before the signal came"
    train(load_recipe(recipe_file), table, out, resume=True)
    assert_same_run(out, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_stopped_run_resumes_to_equal_weights_even_after_a_full_disk(
    number: signal.Signals, recipe_file: Path, table: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = train_command(recipe_file, table, out)
    stopped = stop_at(command, out, 8, number)
    assert len(read_log(out)) < STEPS, "the run ended before the signal came"
    assert stopped.returncode == 128 + number
    assert "--resume" in stopped.stderr.read()  # type: ignore[union-attr]
    if number == signal.SIGTERM:
        assert_a_full_disk_leaves_the_checkpoint(command, out)
    train(load_recipe(recipe_file), table, out, resume=True)
    assert_same_run(out, whole)


def assert_a_full_disk_leaves_the_checkpoint(command: list[str], out: Path) -> None:
    """A limit on the size of files stands for the full disk: writing fails half-way in the same places."""
    good = latest_checkpoint(out / "checkpoints")
    assert good is not None
    content = good.read_bytes()

    def limit_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, len(content) // 2))

    failed = run_program([*command, "--resume"], preexec_fn=limit_files)
    assert failed.returncode == 2
    assert "cannot be written" in failed.stderr
    assert "--resume" in failed.stderr
    assert good.read_bytes() == content
    assert [path for path in (out / "checkpoints").iterdir() if path != good] == []


def test_a_finished_run_resumed_says_what_it_kept(recipe_file: Path, table: Path, whole: Path) -> None:
    before = (whole / "weights" / "model.safetensors").stat().st_mtime_ns
    kept = train(load_recipe(recipe_file), table, whole, resume=True)
    assert kept.validation is not None
    assert kept.validation.loss is not None
    assert kept.validation.loss > 0
    assert (whole / "weights" / "model.safetensors").stat().st_mtime_ns == before


def test_a_table_that_was_moved_is_the_same_table(recipe_file: Path, table: Path, whole: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(table.read_bytes())
    assert train(load_recipe(recipe_file), moved, whole, resume=True).step > 0


def test_another_recipe_or_table_is_not_resumed(recipe_file: Path, table: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"recipe\.optimiser\.lr"):
        train(load_recipe(recipe_file, {"optimiser.lr": 0.5}), table, whole, resume=True)
    copied = tmp_path / "other.jsonl"
    copied.write_text(table.read_text().replace("normal", "large"))
    with pytest.raises(RunError, match="table"):
        train(load_recipe(recipe_file), copied, whole, resume=True)


def test_a_run_removes_what_killed_processes_left_in_its_folders(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints" / "step-00000001.pt").write_bytes(b"whole")
    names = ("run.yaml", "log.jsonl", "checkpoints/step-00000002.pt")
    left = leave_behind(*(out / name for name in names))
    (out / "run.yaml").write_text("recipe: 1\n")
    RunFolder(out, {"recipe": 1}, resume=True).close()
    assert not any(path.exists() for path in left)
    assert (out / "checkpoints" / "step-00000001.pt").read_bytes() == b"whole"


def test_a_run_that_has_not_begun_begins_when_it_is_resumed(tmp_path: Path) -> None:
    for out in (tmp_path / "none", tmp_path / "locked"):
        if out.name == "locked":
            out.mkdir()
            (out / ".lock").touch()
        RunFolder(out, {"recipe": 1}, resume=True).close()
        assert (out / "run.yaml").is_file()
        with pytest.raises(RunError, match="other settings"):
            RunFolder(out, {"recipe": 2}, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(RunError, match="no run to resume"):
        RunFolder(tmp_path / "other", {"recipe": 1}, resume=True)


def test_a_run_is_deleted_when_it_is_asked_for_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "run"
    running = RunFolder(out, {"recipe": 1})
    for name in ("weights", "checkpoints", "cache"):
        (out / name).mkdir()
        (out / name / "file").touch()
    with pytest.raises(OutputError, match=r"exists already.*--resume.*--overwrite"):
        RunFolder(out, {"recipe": 2})
    with pytest.raises(RunError, match="Another process trains"):
        clear_run(out)
    running.close()
    (out / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"no run wrote; got \['notes\.txt'\]"):
        clear_run(out)
    (out / "notes.txt").unlink()
    clear_run(out)
    assert sorted(file.name for file in out.iterdir()) == [".lock", "cache"]
    RunFolder(out, {"recipe": 2}).close()
    clear_run(tmp_path / "nowhere")
    (tmp_path / "weights").mkdir()
    with pytest.raises(OutputError, match="no run wrote"):
        clear_run(tmp_path)


def test_a_run_that_was_killed_as_it_began_begins_anew(tmp_path: Path) -> None:
    (left,) = leave_behind(tmp_path / "run.yaml")
    RunFolder(tmp_path, {"recipe": 1}, resume=False).close()
    assert not left.exists()
    assert (tmp_path / "run.yaml").is_file()


def test_reading_pictures_removes_what_killed_processes_left_in_the_cache(tmp_path: Path) -> None:
    paths = [str(IMAGES[0])]
    for _ in ("no films yet", "films there already"):
        left = leave_behind(tmp_path / "films-0.u8", tmp_path / "features-0.safetensors")
        films = save_images(paths, 32, tmp_path)
        assert not any(path.exists() for path in left)
        assert sorted(tmp_path.iterdir()) == [films.with_suffix(".sizes.npy"), films]


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_first_signal_decides_the_exit_and_one_of_each_kind_lets_the_step_end(first: signal.Signals) -> None:
    second = {signal.SIGTERM: signal.SIGINT, signal.SIGINT: signal.SIGTERM}[first]
    with stop_on_signals() as request:
        assert not request
        try:
            for number in (first, second, signal.SIGTERM):
                signal.raise_signal(number)
        except KeyboardInterrupt:
            pytest.fail("one SIGINT beside a SIGTERM stopped at once")
        assert request.signal == first
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert request.signal == first
