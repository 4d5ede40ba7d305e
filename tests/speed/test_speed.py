"""Speed runs, without depending on time: a clock of our own, and what the table makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carzero.core.system import list_features
from carzero.errors import ConfigurationError, PromptError
from carzero.images import load_radiograph
from carzero.speed import SpeedResult, SpeedRow, SpeedRun
from carzero.speed.run import describe_machine
from carzero.speed.tasks import FORMATS, build_prompts, load_classifiers, write_images
from carzero.speed.timing import Task, summarise, time_in_turns
from carzero.weights.source import WeightsSource
from tests.support.commands import in_process


class Clock:
    """Stands still but for what tasks add to it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def takes(self, *seconds: float) -> Callable[[], None]:
        """A task that takes these times, one after the other."""
        left: Iterator[float] = iter(seconds)

        def work() -> None:
            self.now += next(left)

        return work


def test_tasks_take_turns_and_the_first_call_does_not_count() -> None:
    clock = Clock()
    calls: list[str] = []
    slow, fast = clock.takes(9, 2, 4), clock.takes(9, 1, 1)
    tasks = [
        Task("a", "float32", 4, lambda: (calls.append("a"), slow())),
        Task("b", "float32", 4, lambda: (calls.append("b"), fast())),
    ]
    seen: list[tuple[int, int]] = []
    seconds = time_in_turns(tasks, 2, clock=clock, advance=lambda done, failed: seen.append((done, failed)))
    assert seconds == [[2, 4], [1, 1]]
    assert [sorted(calls[turn : turn + 2]) for turn in (0, 2, 4)] == [["a", "b"]] * 3
    assert seen == [(n, 0) for n in range(1, 5)]


def test_orders_change_between_turns() -> None:
    clock = Clock()
    calls: list[int] = []
    tasks = [Task(str(n), "", 1, lambda n=n: (calls.append(n), clock.takes(1)())) for n in range(4)]
    time_in_turns(tasks, 5, clock=clock)
    turns = {tuple(calls[start : start + 4]) for start in range(4, 24, 4)}
    assert len(turns) > 1


def test_a_quick_task_is_called_several_times() -> None:
    clock = Clock()
    task = Task("quick", "", 1, clock.takes(0.125, 0.25, 0.5))
    assert time_in_turns([task], 1, shortest_s=0.25, clock=clock) == [[0.375]]


def test_rows_are_medians_and_ratios_within_a_turn() -> None:
    tasks = [
        Task("image tower", "float32", 10, print, base=0),
        Task("score", "float32", 10, print, base=0),
        Task("read", "", 6, print),
    ]
    # The machine is half as fast in the second turn: ratios do not see it.
    rows = summarise(tasks, [[1.0, 2.0, 1.0], [2.0, 4.0, 1.25], [3.0, 1.0, 2.0]])
    assert rows[0] == SpeedRow("image tower", "float32", 10.0, 5.0, 10.0, 1.0, 3)
    assert rows[1] == SpeedRow("score", "float32", 5.0, 2.5, 8.0, 0.5, 3)
    assert rows[2] == SpeedRow("read", "", 3.0, 2.0, 6.0, None, 3)


def test_a_run_times_every_part_in_every_precision(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()

    def count_calls(tasks: list[Task], turns: int, **options: Any) -> list[list[float]]:
        for task in tasks:
            task.work()
        options["advance"](1, 0)
        return [[float(turn + 1) for turn in range(turns)] for _ in tasks]

    monkeypatch.setattr("carzero.speed.run.time_in_turns", count_calls)
    monkeypatch.setattr("carzero.speed.run._READ_ITEMS", 1)
    seen: list[tuple[int, int, int]] = []
    run = SpeedRun(
        WeightsSource(tiny_weights), ["float32", "bfloat16"], prompts=[2, 5], batch_size=2, turns=3, device="cpu"
    )
    result = run.execute(lambda *state: seen.append(state))
    measures = ["image tower", "score, 2 prompts", "score, 5 prompts", "PNG to scores, 2 prompts"]
    assert [(row.measure, row.dtype) for row in result.rows] == [
        *((f"read {name}", "") for name in FORMATS),
        *((measure, "float32") for measure in measures),
        *((measure, "bfloat16") for measure in measures),
    ]
    assert [row.images_per_s for row in result.rows] == [2.0] * 3 + [1.0, 1.0, 1.0, 2.0] * 2
    assert [row.of_tower for row in result.rows] == [None] * 3 + [1.0, 1.0, 1.0, 2.0] * 2
    assert seen == [(1, 0, 33)]
    assert clock.now == 100.0
    content = json.loads(json.dumps(result.to_dict()))
    assert content.keys() == {"rows", "machine", "settings", "notes"}
    assert content["rows"][3].keys() == {
        "measure", "dtype", "images_per_s", "lowest", "highest", "of_tower", "turns",
    }  # fmt: skip
    assert content["settings"]["prompts"] == [2, 5]


@pytest.mark.parametrize("change", [{"prompts": []}, {"turns": 0}, {"batch_size": 0}])
def test_nothing_to_time_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="nothing to time"):
        SpeedRun(None, **change)


@pytest.mark.parametrize(("slowest", "told"), [(60.0, False), (49.0, True)])
def test_a_busy_machine_is_told(slowest: float, told: bool) -> None:
    rows = [SpeedRow("read PNG", "", 90.0, slowest, 100.0, None, 5), SpeedRow("read JPEG", "", 9.0, 8.0, 9.0, None, 5)]
    notes = SpeedResult(rows, {}, {}).notes
    assert any("busy: 1 of 2 rates differ" in note for note in notes) == told


def test_films_are_one_film_in_three_formats(tmp_path: Path) -> None:
    items = write_images(tmp_path, 2)
    assert [len(items[name]) for name in FORMATS] == [2, 2, 2]
    png, jpeg, dicom = (load_radiograph(items[name][1].image) for name in FORMATS)
    assert png.pixels.shape == jpeg.pixels.shape == dicom.pixels.shape
    assert max(png.pixels.shape) == 1024
    assert float(np.abs(png.pixels - jpeg.pixels).mean()) < 2
    assert float(np.abs(png.pixels - dicom.pixels).max()) <= 1
    assert (png.encoding, dicom.view, dicom.warnings) == ("PNG 8-bit", "PA", ())


@pytest.mark.parametrize("count", [1, 14, 192, 300])
def test_prompts_are_as_many_as_asked(count: int) -> None:
    prompt_set = build_prompts(count)
    assert sum(len(prompts) for _, prompts in prompt_set) == len(set(prompt_set.labels)) == count


@pytest.mark.parametrize("count", [0, 100_000])
def test_prompts_that_there_are_not_are_refused(count: int) -> None:
    with pytest.raises(PromptError, match="cannot be timed"):
        build_prompts(count)


def test_features_are_those_that_matter() -> None:
    text = (
        "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16\n\nprocessor\t: 1\n"
    )
    assert list_features(text) == ["AVX2", "AVX-512", "AVX-512 BF16", "AMX BF16"]
    assert list_features("Features\t: asimd bf16\n") == ["NEON", "ARM BF16"]
    assert list_features("") == []


def test_the_machine_is_described() -> None:
    machine = describe_machine("cpu")
    assert machine["cores"] >= 1
    assert machine["processor"]
    assert machine["gpu"] is None
    assert machine["features"]


def test_full_size_is_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carzero.speed.tasks.CARZeroModel", _Refuse)
    with pytest.raises(_Refuse) as refused:
        load_classifiers(None, ["float32"], "cpu")
    config = refused.value.args[0]
    assert (config.vision_config.hidden_size, config.vision_config.num_hidden_layers) == (768, 12)
    assert (config.vision_config.image_size, config.vision_config.patch_size) == (224, 16)
    assert (config.text_config.hidden_size, config.text_config.num_hidden_layers, config.decoder_layers) == (768, 12, 4)


class _Refuse(Exception):  # noqa: N818 (a model that is not built)
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        raise self


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--full-size", "--weights", "mine"], "exclude each other"),
        (["--prompts", "many"], "expected numbers separated by commas, got many"),
        (["--dtype", "float8"], "This precision is not known"),
        (["--prompts", "0"], "This number of prompts cannot be timed"),
    ],
)
def test_wrong_use_is_refused(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, stdout, stderr = in_process(capsys, "speed", *options)
    assert (code, stdout) == (2, "")
    assert message in stderr


def test_the_command_prints_json(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("carzero.speed.run._READ_ITEMS", 1)
    options = ["--weights", tiny_weights, "--dtype", "float32", "--prompts", "2", "--turns", "1", "--batch-size", "1"]
    code, stdout, stderr = in_process(capsys, "bench", *options, "--device", "cpu", "--json")
    assert code == 0
    assert [row["turns"] for row in json.loads(stdout)["rows"]] == [1] * 6
    assert "timed 6 of 6" in stderr


def test_the_command_prints_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        SpeedRow("read PNG", "", 123.4, 100.0, 150.0, None, 5),
        SpeedRow("score, 14 prompts", "float32", 6.321, 6.0, 7.0, 0.9, 5),
    ]
    result = SpeedResult(rows, {"cores": 2, "gpu": None, "features": ["AVX2", "AVX-512"]}, {"prompts": [14, 192]})
    monkeypatch.setattr(SpeedRun, "execute", lambda self, advance: result)
    code, stdout, stderr = in_process(capsys, "speed")
    assert code == 0
    lines = [line.split() for line in stdout.splitlines() if line.strip()]
    assert ["read", "PNG", "123", "100-150"] in lines
    assert ["score,", "14", "prompts", "float32", "6.32", "6.00-7.00", "0.90"] in lines
    assert lines[-3:] == [["cores", "2"], ["features", "AVX2,", "AVX-512"], ["prompts", "14,", "192"]]
    assert "note: The image tower is timed bare" in stderr
