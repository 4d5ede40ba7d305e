"""A grounding run: places in the image's own pixels, files that say the same, and honest words about the demo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carzero.errors import ConfigurationError, OutputError, TableError
from carzero.images.boxes import load_coco
from carzero.images.listing import list_images
from carzero.images.loading import Readers
from carzero.images.overlay import Captions
from carzero.inference.classifier import ZeroShotClassifier
from carzero.inference.grounding import GroundingRun
from carzero.inference.heatmaps import load_map
from carzero.inference.score_calibration import ScoreCalibration
from carzero.inference.scoring import ScoringRun, ScoringSettings
from carzero.metrics.calibration import Calibration
from carzero.metrics.calibrators import LabelCalibration
from carzero.prompts import PromptSet
from carzero.records import ImageItem
from carzero.weights.source import DEMO, WeightsSource
from tests.support.tiny import save_tiny_weights

ASKED = PromptSet.from_labels(["pneumonia", "pleural effusion"])


def run(films: list[Path], weights: Path, **options: object) -> GroundingRun:
    return GroundingRun(list_images(films), ASKED, weights=WeightsSource(weights), device="cpu", **options)  # type: ignore[arg-type]


def test_rows_agree_with_the_door_to_prediction(
    films: list[Path], tiny_weights: Path, classifier: ZeroShotClassifier
) -> None:
    result = run(films[:2], tiny_weights).execute()
    assert [(row["image_id"], row["label"]) for row in result.rows] == [
        (film.name, label) for film in films[:2] for label in ASKED.labels
    ]
    for film in films[:2]:
        for grounding in classifier.ground(film, prompts=ASKED):
            (row,) = [row for row in result.rows if (row["image_id"], row["label"]) == (film.name, grounding.label)]
            assert (row["peak"]["x"], row["peak"]["y"]) == pytest.approx(grounding.peak)
            assert row["logit"] == pytest.approx(grounding.logit, abs=1e-5)
            height, width = grounding.heatmap.shape
            assert (row["height"], row["width"]) == (height, width)
            assert row["contrast"] >= 1
            box = row["box"]
            assert 0 <= box["xmin"] < box["xmax"] <= width
            assert 0 <= box["ymin"] < box["ymax"] <= height
            top = np.unravel_index(int(np.nanargmax(grounding.heatmap)), (height, width))
            assert box["ymin"] <= top[0] < box["ymax"]
            assert box["xmin"] <= top[1] < box["xmax"]
    assert result.manifest["warnings"] == []
    assert run(films[:2], tiny_weights).execute().rows == result.rows
    assert "lowest + 0.5 * (highest - lowest)" in result.manifest["box_rule"]


@pytest.mark.parametrize("map_format", ["npz", "png"])
def test_files_hold_what_the_rows_say(films: list[Path], tiny_weights: Path, tmp_path: Path, map_format: str) -> None:
    out = tmp_path / "new" / "folder"
    result = run(films[:1], tiny_weights, out=out, map_format=map_format).execute()
    assert json.loads((out / "grounding.json").read_text()) == result.to_dict()
    boxes = load_coco(out / "boxes.coco.json")
    assert boxes.images == (films[0].name,)
    for row, box in zip(result.rows, boxes.boxes, strict=True):
        assert list(row["box"].values()) == pytest.approx(list(box.box))
        assert (box.label, box.score) == (row["label"], pytest.approx(row["logit"]))
        score_map = load_map(out / row["files"]["map"])
        assert score_map.heatmap.shape == (row["height"], row["width"])
        with Image.open(out / row["files"]["overlay"]) as picture:
            assert picture.mode == "RGB"
    assert boxes.sizes == {films[0].name: (result.rows[0]["height"], result.rows[0]["width"])}


def test_broken_pictures_are_listed(films: list[Path], tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    counts: list[tuple[int, int]] = []
    result = run([tmp_path / "broken.png", films[0]], tiny_weights).execute(lambda *done: counts.append(done))
    assert [failure.image_id for failure in result.failures] == ["broken.png"]
    assert len(result.rows) == 2
    assert counts == [(1, 1), (2, 1)]


def test_wrong_settings_are_refused(films: list[Path], tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="format is unknown"):
        run(films[:1], tiny_weights, map_format="tif").execute()
    with pytest.raises(ConfigurationError, match="not a share"):
        run(films[:1], tiny_weights, box_share=1.5).execute()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        run(films[:1], tiny_weights, out=tmp_path / "file").execute()


def test_every_map_names_its_image_its_score_and_the_demo(
    films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Captions] = []

    def record(image: Image.Image, captions: Captions, *_: object) -> Image.Image:
        seen.append(captions)
        return image

    monkeypatch.setattr("carzero.images.overlay.frame_image", record)
    settings = ScoringSettings(WeightsSource(DEMO), ASKED, device="cpu")
    fitted = LabelCalibration("platt", {"slope": 1.0, "intercept": -30.0}, 9, 4, -1.0, 1.0)
    known = ScoreCalibration.check(Calibration({ASKED.labels[0]: fitted}), settings.origin)
    ground = run(films[:1], DEMO, out=tmp_path / "ground", calibration=known).execute()
    assert ground.manifest["warnings"] == [
        "Maps of the demo weights miss about as often as they hit; see `carzero docs demo-weights`."
    ]
    ScoringRun(list_images(films[:1]), settings, overlay=tmp_path / "predict", calibration=known).execute()
    chances = [captions.subtitle.partition(", probability ")[2] for captions in seen]
    assert [bool(chance) for chance in chances] == 2 * [label == ASKED.labels[0] for label in ASKED.labels]
    assert float(chances[0]) < 1e-6
    assert chances[0] == f"{ground.rows[0].get('probability'):.2g}" == chances[2]
    assert ground.rows[1].get("probability") is None
    assert "how strong they are says whether" in seen[0].notes[1]
    assert [captions.title for captions in seen] == 2 * [row["label"] for row in ground.rows]
    for captions, row in zip(seen, [*ground.rows, *ground.rows], strict=True):
        assert captions.subtitle.startswith(f"logit {row['logit']:.2f}")
        assert captions.image == films[0].name
        assert captions.caution == "demo weights: not for diagnosis; maps often miss"
        assert "attention, over this map's own range" in captions.notes[0]
        assert ("where, not whether" in captions.notes[1]) == (", probability" not in captions.subtitle)


def test_an_interrupted_run_is_resumed_a_finished_one_kept_or_replaced(
    films: list[Path],
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    classifier: ZeroShotClassifier,
) -> None:
    read: list[str] = []
    stream = ZeroShotClassifier.stream

    def counted(self: ZeroShotClassifier, items: list[ImageItem], *args: object, **options: object) -> object:
        read.extend(item.image_id for item in items)
        return stream(self, items, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ZeroShotClassifier, "stream", counted)
    monkeypatch.setattr(ZeroShotClassifier, "from_pretrained", lambda *_, **__: classifier)
    monkeypatch.setattr("carzero.inference.grounding.Readers", lambda **_: Readers())  # no processes to wait for
    whole, out = tmp_path / "whole", tmp_path / "out"
    expected = run(films[:3], tiny_weights, out=whole).execute()

    def die(done: int, failed: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(films[:3], tiny_weights, out=out).execute(die)
    with pytest.raises(OutputError, match=r"is waiting.*--resume.*--overwrite"):
        run(films[:3], tiny_weights, out=out).execute()
    with pytest.raises(TableError, match=r"other settings.*box_share"):
        run(films[:3], tiny_weights, out=out, box_share=0.7, resume=True).execute()
    read.clear()
    assert run(films[:3], tiny_weights, out=out, resume=True).execute().rows == expected.rows
    assert read == [film.name for film in films[1:3]]
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole.iterdir())
    read.clear()
    assert run(films[:3], tiny_weights, out=out, resume=True).execute().rows == expected.rows
    assert read == []
    with pytest.raises(OutputError, match=r"exists already.*grounding\.json.*--overwrite"):
        run(films[:1], tiny_weights, out=out).execute()
    (out / "notes.txt").touch()
    run(films[:1], tiny_weights, out=out, overwrite=True).execute()
    assert {path.name.partition("__")[0] for path in out.iterdir()} == {
        films[0].name,
        "grounding.json",
        "boxes.coco.json",
        "notes.txt",
    }
    (out / "grounding.json").unlink()
    with pytest.raises(OutputError, match=r"exists already.*overlay\.png"):
        run(films[:1], tiny_weights, out=out).execute()


def test_maps_on_a_fixed_scale_are_drawn_and_cut_by_it(films: list[Path], tmp_path: Path) -> None:
    """An absent finding has no box, whatever the range of its own map; nor is its heat stretched to full colour."""
    options = {"temperature": 0.5, "map_high": 4.0}  # cosines of random weights are high
    weights = save_tiny_weights(tmp_path / "weights", alignment="similarity_map", alignment_options=options)
    out = tmp_path / "out"
    drawn = run(films[:1], weights, out=out).execute()
    low, high = drawn.manifest["maps"]["scale"]
    assert run(films[:1], weights, out=out, resume=True).execute().manifest["maps"] == drawn.manifest["maps"]
    assert (low, high) == (0, 4)
    assert "cosine of the finding's text with every patch" in drawn.manifest["map_kind"]
    for row in drawn.rows:
        grid = load_map(out / row["files"]["map"]).grid
        assert row["highest"] == pytest.approx(float(grid.max()))
        assert row["contrast"] is None
        assert grid.max() < 0.5 * high, "random weights show nothing"
        assert row["box"] is None
        with Image.open(out / row["files"]["overlay"]) as picture:
            assert colourfulness(np.asarray(picture)[100:600, 20:600]) < 8
    assert drawn.manifest["box_rule"].startswith("the part of the map, connected to its highest pixel, at or above 2,")
    low_share = run(films[:1], weights, box_share=0.001).execute()
    assert any(row["box"] is not None for row in low_share.rows)
    overlays = tmp_path / "overlays"
    ScoringRun(
        list_images(films[:1]), ScoringSettings(WeightsSource(weights), ASKED, device="cpu"), overlay=overlays
    ).execute()
    with Image.open(next(overlays.iterdir())) as picture, Image.open(out / drawn.rows[0]["files"]["overlay"]) as other:
        assert picture.height == other.height, "one legend"


def colourfulness(picture: np.ndarray) -> int:
    """The largest difference between the channels of a pixel."""
    values = picture.astype(int)
    return int(np.ptp(values, axis=-1).max())
