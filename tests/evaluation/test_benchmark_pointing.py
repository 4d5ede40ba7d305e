"""The grounding task: figures from maps whose answers are known, and from maps made with tiny weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from carzero.datasets.catalogue import DATASETS
from carzero.errors import ConfigurationError, OutputError, TableError
from carzero.evaluation.benchmark.classification import BenchmarkResult, Output
from carzero.evaluation.benchmark.pointing import point_images, point_maps
from carzero.evaluation.benchmark.pointing_metrics import measure_maps
from carzero.images import Geometry, PixelTransform
from carzero.inference.heatmaps import MapTable, load_map_table, save_map_table
from carzero.inference.scoring import ScoringSettings
from carzero.metrics.boxes import Boxes
from carzero.metrics.resampling import Statistics
from carzero.prompts import load_prompt_set
from carzero.weights.source import WeightsSource
from tests.support.tiny import save_images

DET = DATASETS["chestxdet10"]
FEW = Statistics(rounds=50)
SIZES = [(1024, 1024), (1024, 700), (600, 1024), (1024, 1024)]


def cell_box(row: int, column: int, size: tuple[int, int]) -> list[float]:
    """The image's pixels that a cell of a 14 x 14 map covers."""
    corners = [[16 * column, 16 * row], [16 * column + 16, 16 * row + 16]]
    return [float(edge) for edge in Geometry.fit(*size).points_to_original(corners).ravel()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images with one-cell maps of two findings, and boxes that some of them hit.

    Mass: hit in 0 (the second of two boxes), missed in 1. Nodule: hit in 2. Image 3 has no box.
    """
    cells = {0: (4, 5), 1: (7, 8), 2: (6, 6), 3: (2, 9)}
    grids = np.full((4, 10, 14, 14), 0.001, dtype=np.float32)
    for row, (y, x) in cells.items():
        grids[row, :, y, x] = 0.5
    content = [
        {"file_name": "0.png", "syms": ["Mass", "Mass"], "boxes": [[1, 1, 9, 9], cell_box(4, 5, SIZES[0])]},
        {"file_name": "1.png", "syms": ["Mass"], "boxes": [cell_box(9, 8, SIZES[1])]},
        {"file_name": "2.png", "syms": ["Nodule"], "boxes": [cell_box(6, 6, SIZES[2])]},
        {"file_name": "3.png", "syms": [], "boxes": []},
    ]
    (tmp_path / "test.json").write_text(json.dumps(content))
    logits = np.zeros((4, 10), dtype=np.float32)
    logits[:, DET.labels.index("Mass")] = [3, 2, 1, 0]
    names = ("3.png", "2.png", "1.png", "0.png")
    order = [3, 2, 1, 0]
    table = MapTable(names, DET.labels, grids[order], logits[order], np.array(SIZES)[order], PixelTransform())
    save_map_table(table, tmp_path / "maps.npz")
    return tmp_path


def rows(result: BenchmarkResult) -> dict[tuple[str, str], dict]:
    return {(row["metric"], row["label"]): row for row in result.rows}


def test_known_maps_give_known_figures(folder: Path) -> None:
    found = rows(point_maps(DET, [folder / "test.json"], folder / "maps.npz", statistics=FEW))
    mass, nodule = found["pointing", "Mass"], found["pointing", "Nodule"]
    assert (mass["value"], mass["n"], mass["n_pos"]) == (0.5, 2, 1)
    assert (nodule["value"], nodule["n"], nodule["n_pos"]) == (1, 1, 1)
    assert found["pointing", "Effusion"]["value"] is None
    assert found["pointing", "macro"]["value"] == 0.75
    assert found["pointing", "micro"]["value"] == pytest.approx(2 / 3)
    assert (found["pointing", "macro"]["published"], mass["published"]) == (0.543, 0.7)
    # One hot cell, interpolated, falls off as (1 - |u|) (1 - |v|) from its centre; the cell is 16 pixels wide.
    side = 1 - (np.arange(8) + 0.5) / 16
    height = np.outer(side, side)
    share = (height >= 0.5 * height.max()).mean()
    assert found["iou", "Nodule"]["value"] == pytest.approx(share, abs=1e-9)
    assert found["dice", "Nodule"]["value"] == pytest.approx(2 * share / (1 + share), abs=1e-9)
    assert found["cnr", "Nodule"]["value"] > 2
    # Mass: the box of image 0 comes first and is right, the others are false; one of three truths is found.
    assert found["ap@0.5", "Mass"]["value"] == pytest.approx(1 / 3)
    assert found["ap@0.5", "Mass"]["n_pos"] == 3
    # Nodule: all scores tie, so the right box of image 2 comes third.
    assert found["ap@0.5", "macro"]["value"] == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert found["peak_auroc", "Mass"]["value"] == 0.5, "every map peaks alike, present or absent"
    assert found["peak_absent", "Mass"]["value"] == pytest.approx(0.5 / ((0.5 + 195 * 0.001) / 196), rel=1e-5)


def test_boxes_are_carried_to_the_pictures_own_pixels(folder: Path) -> None:
    table = load_map_table(folder / "maps.npz")
    nothing = Boxes(np.zeros((0, 4)), np.zeros(0, np.intp), np.zeros(0, np.intp))
    drawn = measure_maps(table, nothing).drawn
    for row, image in enumerate(table.images):
        (box, *_) = drawn.xyxy[(drawn.image == row) & (drawn.kind == 0)]
        y, x = np.unravel_index(int(table.grids[row, 0].argmax()), (14, 14))
        expected = cell_box(int(y), int(x), SIZES[int(image[0])])
        pixel = max(SIZES[int(image[0])]) / 256
        assert box == pytest.approx(expected, abs=pixel), "within one pixel of what the model saw"


def test_pictures_without_maps_and_sets_without_boxes(folder: Path) -> None:
    table = load_map_table(folder / "maps.npz")
    save_map_table(table.select([0, 1, 3], table.labels), folder / "part.npz")
    with pytest.raises(TableError, match=r"1 of 4 labelled images have no map; got \['1\.png'\]"):
        point_maps(DET, [folder / "test.json"], folder / "part.npz")
    part = point_maps(DET, [folder / "test.json"], folder / "part.npz", allow_missing=True, statistics=FEW)
    assert rows(part)["pointing", "Mass"]["n"] == 1
    assert part.manifest["missing"] == ["1.png"]
    save_map_table(table.select([0, 1, 2, 3], ["Mass"]), folder / "mass.npz")
    with pytest.raises(TableError, match="lack findings of ChestX-Det10"):
        point_maps(DET, [folder / "test.json"], folder / "mass.npz")
    (folder / "test_list.txt").write_text("1_0.png" + " 0" * 14 + "\n")
    with pytest.raises(ConfigurationError, match="ChestXray14 has no boxes"):
        point_maps(DATASETS["chestxray14"], [folder / "test_list.txt"], folder / "maps.npz")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of six images in official form, one of them broken."""
    folder = tmp_path_factory.mktemp("det")
    content = []
    for index, path in enumerate(save_images(folder / "test_data", 6)):
        content.append({"file_name": path.name, "syms": ["Mass"], "boxes": [[0, 0, 120, 240]]})
        if index == 5:
            path.write_bytes(b"no image")
    (folder / "test.json").write_text(json.dumps(content))
    return folder


def asked_of(weights: Path, *, batch_size: int = 16) -> ScoringSettings:
    prompts = load_prompt_set(DET.prompts, "paper")
    return ScoringSettings(WeightsSource(weights), prompts, batch_size=batch_size, device="cpu", dtype="float32")


def test_maps_made_here_are_kept_and_give_the_same_figures_again(
    films: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    options = {"settings": asked_of(tiny_weights), "statistics": FEW}
    first = point_images(DET, [films / "test.json"], films, output=Output(tmp_path), **options)
    assert [failure.image_id for failure in first.failures] == ["film_005.png"]
    assert first.manifest["images"] == 5
    assert rows(first)["pointing", "Mass"]["n"] == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps.npz"]
    again = point_maps(DET, [films / "test.json"], tmp_path / "maps.npz", allow_missing=True, statistics=FEW)
    assert again.rows == first.rows
    for key in ("weights", "weights_sha256", "preprocessing", "prompts_sha256"):
        assert again.manifest[key] == first.manifest[key]
    assert not any("demo" in note for note in first.manifest["notes"])


def test_an_interrupted_run_goes_on(films: Path, tiny_weights: Path, tmp_path: Path) -> None:
    options = {"settings": asked_of(tiny_weights, batch_size=2), "statistics": FEW, "output": Output(tmp_path)}

    @contextmanager
    def interrupted(total: int) -> Iterator[Callable[[int, int], None]]:
        def stop(done: int, failed: int) -> None:
            raise KeyboardInterrupt

        yield stop

    with pytest.raises(KeyboardInterrupt):
        point_images(DET, [films / "test.json"], films, progress=interrupted, **options)
    journal = tmp_path / "maps.npz.journal"
    assert journal.read_bytes().count(b"\n") == 3
    with pytest.raises(OutputError, match=r"is waiting.*--resume"):
        point_images(DET, [films / "test.json"], films, **options)
    counts: list[tuple[int, int, int]] = []

    @contextmanager
    def counted(total: int) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, failed: counts.append((done, failed, total))

    resumed = point_images(
        DET, [films / "test.json"], films, **{**options, "output": Output(tmp_path, resume=True)}, progress=counted
    )
    assert counts == [(4, 0, 6), (6, 1, 6)], "the first two are not made again"
    assert not journal.exists()
    whole = point_images(DET, [films / "test.json"], films, **{**options, "output": None})
    assert resumed.rows == whole.rows


def test_missing_pictures_stop_the_run(films: Path, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text(
        json.dumps([*json.loads((films / "test.json").read_text()), {"file_name": "x.png", "syms": [], "boxes": []}])
    )
    with pytest.raises(TableError, match="1 of 7 images are not below"):
        point_images(DET, [tmp_path / "test.json"], films, asked_of(tiny_weights))
    result = point_images(
        DET,
        [tmp_path / "test.json"],
        films,
        asked_of(tiny_weights),
        allow_missing=True,
        statistics=FEW,
    )
    assert sorted(result.manifest["missing"]) == ["film_005.png", "x.png"]
