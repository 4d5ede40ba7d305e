"""Maps as files: what is written is read back, in the image's pixels, with unseen places kept apart from zero."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carzero.errors import TableError
from carzero.images import Geometry, PixelTransform
from carzero.inference.heatmaps import MapTable, ScoreMap, load_map, load_map_table, save_map, save_map_table
from carzero.inference.placed_map import MapFrame, PlacedMap

GEOMETRY = Geometry.fit(300, 200)
FRAME = MapFrame(GEOMETRY, 14, 14)
GRID = np.random.default_rng(0).random((14, 14)).astype(np.float32)


def to_score_map(grid: np.ndarray) -> ScoreMap:
    return PlacedMap(grid, FRAME).to_score_map()


def test_the_affine_takes_cells_to_the_pictures_pixels() -> None:
    score_map = to_score_map(GRID)
    assert score_map.heatmap.shape == (300, 200)
    assert np.isnan(score_map.heatmap).any()
    row, column = np.unravel_index(int(GRID.argmax()), GRID.shape)
    x, y = score_map.affine @ [column + 0.5, row + 0.5, 1]
    assert (x, y) == pytest.approx(GEOMETRY.peak_to_original(GRID), abs=1e-9)


def test_npz_keeps_every_bit_and_png_half_a_step(tmp_path: Path) -> None:
    score_map = to_score_map(GRID)
    save_map(score_map, tmp_path / "a.npz")
    exact = load_map(tmp_path / "a.npz")
    assert np.array_equal(exact.heatmap, score_map.heatmap, equal_nan=True)
    assert exact.heatmap.dtype == np.float32
    assert np.array_equal(exact.grid, GRID)
    assert np.array_equal(exact.affine, score_map.affine)

    save_map(score_map, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        levels = np.asarray(picture)
    unseen = np.isnan(score_map.heatmap)
    assert levels.dtype == np.uint16
    assert np.array_equal(levels == 0, unseen), "0 is unseen, and nothing else is"
    assert (levels[~unseen].min(), levels.max()) == (1, 65535)
    about = json.loads((tmp_path / "a.json").read_text())
    step = (about["high"] - about["low"]) / 65534
    close = load_map(tmp_path / "a.png")
    assert np.array_equal(np.isnan(close.heatmap), unseen)
    assert np.nanmax(np.abs(close.heatmap - score_map.heatmap)) <= 0.51 * step
    assert np.allclose(close.grid, GRID)
    assert np.allclose(close.affine, score_map.affine)


def test_a_constant_map_survives(tmp_path: Path) -> None:
    score_map = to_score_map(np.full((14, 14), 0.25, np.float32))
    save_map(score_map, tmp_path / "flat.png")
    assert np.nanmax(np.abs(load_map(tmp_path / "flat.png").heatmap - 0.25)) < 1e-6


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="format is unknown"):
        save_map(to_score_map(GRID), tmp_path / "a.tif")
    (tmp_path / "b.npz").write_bytes(b"no map")
    np.savez(tmp_path / "c.npz", heatmap=GRID)
    np.savez(tmp_path / "d.npz", heatmap=np.array([{}], dtype=object), grid=GRID, affine=GRID)
    for name in ("b.npz", "c.npz", "d.npz", "nowhere.npz"):
        with pytest.raises(TableError, match="is not a map"):
            load_map(tmp_path / name)
        with pytest.raises(TableError, match="is not a table of maps"):
            load_map_table(tmp_path / name)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "alone.png")
    with pytest.raises(TableError, match=r"alone\.json cannot be read"):
        load_map(tmp_path / "alone.png")


def table() -> MapTable:
    random = np.random.default_rng(1)
    return MapTable(
        ("a.png", "b.png", "c.png"),
        ("Mass", "Nodule"),
        random.random((3, 2, 4, 4)).astype(np.float32),
        random.random((3, 2)).astype(np.float32),
        np.array([[10, 20], [30, 40], [50, 60]]),
        pixels=PixelTransform(36, 32),
        provenance={"weights": "mine", "preprocessing": {"crop_px": 32}},
    )


def test_a_table_of_maps_is_read_back_and_selected(tmp_path: Path) -> None:
    whole = table()
    save_map_table(whole, tmp_path / "maps.npz")
    read = load_map_table(tmp_path / "maps.npz")
    assert (read.images, read.labels, read.pixels.resize_px, read.pixels.crop_px) == (
        whole.images,
        whole.labels,
        36,
        32,
    )
    for name in ("grids", "logits", "sizes"):
        assert np.array_equal(getattr(read, name), getattr(whole, name))
    assert read.geometry(1) == Geometry.fit(30, 40, resize_px=36, crop_px=32)
    assert read.provenance == whole.provenance
    part = read.select([2, 0], ["Nodule"])
    assert part.images == ("c.png", "a.png")
    assert np.array_equal(part.grids, whole.grids[[2, 0]][:, [1]])
    assert part.sizes.tolist() == [[50, 60], [10, 20]]


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    save_map_table(table(), tmp_path / "maps.npz")
    whole = (tmp_path / "maps.npz").read_bytes()
    entry, stored = whole.rindex(b"PK\x01\x02"), whole.index(b"grids.npy") + 40
    damaged = {
        "version.npz": whole[: entry + 6] + b"\xff" + whole[entry + 7 :],  # of zip, above any that exists
        "torn.npz": whole[: len(whole) // 2],
        "stream.npz": whole[:stored] + bytes(200) + whole[stored + 200 :],
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TableError, match="is not a table of maps"):
            load_map_table(tmp_path / name)
        with pytest.raises(TableError, match="is not a map"):
            load_map(tmp_path / name)


def test_a_table_must_fit_itself() -> None:
    whole = table()
    fields = {"images": whole.images, "labels": whole.labels, "pixels": PixelTransform(36, 32)}
    with pytest.raises(ValueError, match=r"\(I, C, h, w\)"):
        MapTable(**fields, grids=whole.grids[:2], logits=whole.logits, sizes=whole.sizes)
    with pytest.raises(ValueError, match="sizes"):
        MapTable(**fields, grids=whole.grids, logits=whole.logits, sizes=whole.sizes[:, :1])
    with pytest.raises(ValueError, match="finite"):
        MapTable(**fields, grids=whole.grids * np.nan, logits=whole.logits, sizes=whole.sizes)
