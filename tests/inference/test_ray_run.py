"""One job on two Ray workers, one of them killed on the way: the same rows and failures as in one process."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from carzero._version import __version__
from carzero.core.run_record import manifest_path
from carzero.core.tables import load_table
from carzero.errors import ConfigurationError, MissingExtraError, OutputError, RunError, TableError
from carzero.images.listing import list_images
from carzero.inference.ray.cluster import Placement, divide_cpus, import_ray, place_workers, score_parts
from carzero.inference.ray.parts import PartJob, RayWorker
from carzero.inference.ray.run import ParallelResult, ParallelRun, choose_part_size
from carzero.inference.ray.score_folder import ScoreFolder
from carzero.inference.score_table import load_scores
from carzero.inference.scoring import ScoringRun, ScoringSettings
from carzero.inference.scoring_result import RunResult
from carzero.prompts import PromptSet
from carzero.records import ImageItem
from carzero.weights.source import WeightsSource
from tests.support.gated_worker import GATE, GatedWorker, waiting_pid
from tests.support.tiny import save_images

ASKED = PromptSet.from_labels(["edema", "pleural effusion"])


def asked_of(weights: Path) -> ScoringSettings:
    return ScoringSettings(WeightsSource(weights), ASKED, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[ImageItem]:
    """24 images and a file that is not an image."""
    folder = tmp_path_factory.mktemp("films")
    save_images(folder, 24)
    (folder / "film_005b.png").write_bytes(b"no image")
    return list_images([folder])


@pytest.fixture(scope="module")
def alone(items: list[ImageItem], tiny_weights: Path) -> RunResult:
    """The same job in this process."""
    return ScoringRun(items, asked_of(tiny_weights)).execute()


@pytest.fixture(scope="module")
def killed(
    items: list[ImageItem], tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ParallelResult, list[int]]:
    """A run on two workers of which one is killed in the middle of a part, when others are finished already."""
    out = tmp_path_factory.mktemp("parallel") / "scores"
    victims: list[int] = []

    def kill_waiting(done: int, failed: int) -> None:
        pid = waiting_pid(out)
        if pid is not None and not victims:
            victims.append(pid)
            os.kill(pid, signal.SIGKILL)

    run = ParallelRun(items, asked_of(tiny_weights), out, workers=2, part_size=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("carzero.inference.ray.parts.RayWorker", GatedWorker)
        result = run.execute(kill_waiting)
    (out / GATE).unlink()
    return result, victims


def test_a_killed_worker_costs_nothing(killed: tuple[ParallelResult, list[int]], alone: RunResult) -> None:
    result, victims = killed
    assert len(victims) == 1
    assert result.manifest["engine"]["repeated"] >= 1
    assert result.manifest["engine"]["workers"] == 2
    assert result.scored == 24
    assert result.failures == alone.failures
    table = load_scores(result.folder)
    pd.testing.assert_frame_equal(table, alone.table, rtol=0, atol=1e-6)
    assert [part.name for part in sorted(result.folder.glob("*.parquet"))] == [
        f"part-{n:05d}.parquet" for n in range(9)
    ]


def test_the_folder_says_what_it_is(killed: tuple[ParallelResult, list[int]], alone: RunResult) -> None:
    result, _ = killed
    manifest = json.loads(manifest_path(result.folder).read_bytes())
    assert manifest == {"complete": True, "carzero_run": manifest["carzero_run"], **result.manifest}
    common = alone.manifest.keys() - {"date"}
    assert {name: manifest[name] for name in common} == {name: alone.manifest[name] for name in common}
    assert not (result.folder / "_attempts").exists()
    assert load_table(result.folder / "_failures" / "part-00002.parquet").to_dict("records") == [
        failure.to_dict() for failure in alone.failures
    ]


def test_readers_of_parquet_folders_see_the_scores_alone(killed: tuple[ParallelResult, list[int]]) -> None:
    frame = pd.read_parquet(killed[0].folder)
    assert len(frame) == 24
    assert "reason" not in frame.columns


def test_a_finished_run_is_resumed_without_a_cluster(
    killed: tuple[ParallelResult, list[int]],
    items: list[ImageItem],
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    out = killed[0].folder
    whole = [item for item in items if item.image_id != "film_005b.png"]
    settings = {"settings": asked_of(tiny_weights), "out": out, "part_size": 3}
    with pytest.raises(OutputError, match=r"exists already.*complete it with --resume"):
        ParallelRun(items, **settings).execute()
    with pytest.raises(TableError, match="belongs to a run with other settings"):
        ParallelRun(whole, **settings, resume=True).execute()
    with pytest.raises(MissingExtraError, match=r"needs Ray\. Install it in a checkout .*'\.\[ray\]'"):
        ParallelRun(items, **settings, resume=True).execute()  # the failure is tried again


def test_nothing_to_do_needs_no_cluster(
    alone: RunResult, items: list[ImageItem], tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    whole = [item for item in items if item.image_id != "film_005b.png"]
    run = ParallelRun(whole, ScoringSettings(WeightsSource(tiny_weights), ASKED), tmp_path / "scores", part_size=24)
    with pytest.raises(MissingExtraError):
        run.execute()
    manifest = json.loads(manifest_path(run.out).read_bytes())
    folder = ScoreFolder(run.out, manifest["carzero_run"], tuple(ASKED.labels))
    folder.save_part(0, alone.table.to_dict("records"), [])
    with pytest.raises(TableError, match="holds an unfinished run"):
        load_table(run.out)
    run.resume = True
    result = run.execute()
    assert (result.scored, result.failures) == (24, [])
    assert result.manifest["engine"] == {"name": "ray", "workers": 0, "repeated": 0}
    pd.testing.assert_frame_equal(load_scores(run.out), alone.table)


def test_pictures_in_memory_are_refused(tmp_path: Path) -> None:
    items = [ImageItem("a", "", object())]
    with pytest.raises(TableError, match="Workers read images from files only"):
        ParallelRun(items, ScoringSettings(WeightsSource("demo"), ASKED), tmp_path / "scores").execute()
    assert not (tmp_path / "scores").exists()


def test_ray_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"'\.\[ray\]'"):
        import_ray()


@pytest.mark.parametrize(
    ("machines", "workers", "share"),
    [([2], 2, 1), ([2], 1, 2), ([16], 3, 5), ([16, 16], 3, 8), ([4, 16], 4, 4), ([4, 16], 5, 4), ([64, 0], 2, 32)],
)
def test_processors_are_divided(machines: list[int], workers: int, share: int) -> None:
    assert divide_cpus(machines, workers) == share


class _Cluster:
    """Two machines, one of which has two GPUs, and a third that is gone."""

    def nodes(self) -> list[dict[str, Any]]:
        machines = [({"CPU": 8.0, "GPU": 2.0}, True), ({"CPU": 4.0}, True), ({"CPU": 64.0, "GPU": 8.0}, False)]
        return [{"Resources": resources, "Alive": alive} for resources, alive in machines]


@pytest.mark.parametrize(
    ("workers", "device", "parts", "placement"),
    [
        (None, None, 100, (2, 4, 1)),  # one a GPU
        (None, None, 1, (1, 8, 1)),  # no more than parts
        (None, "cpu", 100, (2, 4, 0)),  # one a machine
        (3, None, 100, (3, 4, 0)),  # more than GPUs: all on processors
        (2, "cuda", 100, (2, 4, 1)),
    ],
)
def test_workers_are_placed(
    workers: int | None, device: str | None, parts: int, placement: tuple[int, int, int]
) -> None:
    assert dataclasses.astuple(place_workers(_Cluster(), workers, device, parts)) == placement


def test_more_workers_than_gpus_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="more workers than GPUs in the cluster; got 3; expected at most 2"):
        place_workers(_Cluster(), 3, "cuda", 100)


def test_a_worker_hands_its_errors_back_as_text(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    job = PartJob(tmp_path, "run", asked_of(tiny_weights), "0" * 64, __version__)
    batch = {"number": [3], "image_ids": [["a"]], "paths": [["a.png"]]}
    row = RayWorker(job, str(Path.cwd()), 1)(batch)
    assert {name: row[name] for name in ("number", "scored", "failed", "repeated")} == {
        "number": [3], "scored": [0], "failed": [0], "repeated": [0],
    }  # fmt: skip
    assert "A worker would compute other scores" in row["refusal"][0]

    def fill_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("carzero.inference.ray.parts.PartScorer", fill_disk)
    row = RayWorker(job, str(Path.cwd()), 1)(batch)
    assert re.search(r"A worker on .* cannot go on; got .*No space left.*--resume", row["refusal"][0])


def test_a_refusal_ends_the_run(tmp_path: Path) -> None:
    job = PartJob(tmp_path, "run", ScoringSettings(WeightsSource("demo"), ASKED), "0" * 64, __version__)
    parts = score_parts(_Refusing(), {0: [ImageItem("a", "a.png", "a.png")]}, job, Placement(1, 1, 0))
    with pytest.raises(RunError, match=r"^The disk is full\.$"):
        next(parts)


class _Refusing:
    """Ray, as far as it is asked, with one worker that refuses."""

    exceptions = SimpleNamespace(RayError=ZeroDivisionError)

    @property
    def data(self) -> Any:
        row = {"number": 0, "scored": 0, "failed": 0, "repeated": 0, "refusal": "The disk is full."}
        mapped = SimpleNamespace(iter_rows=lambda: iter([row]))
        return SimpleNamespace(
            from_items=lambda rows, **_: SimpleNamespace(map_batches=lambda *_, **__: mapped),
            ActorPoolStrategy=lambda size: size,
            DataContext=SimpleNamespace(get_current=lambda: SimpleNamespace(enable_progress_bars=True)),
        )


def test_more_workers_than_processors_are_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="more workers than processors in the cluster; got 3; expected at most 2"
    ):
        divide_cpus([2], 3)


@pytest.mark.parametrize(("images", "size"), [(1, 16), (4096, 16), (4097, 17), (25_600, 100), (10**6, 1000)])
def test_parts_are_neither_many_nor_large(images: int, size: int) -> None:
    assert choose_part_size(images) == size
