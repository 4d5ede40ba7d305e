"""The door of Python: an image in any form that a user holds it in, a map that shows itself, progress without noise."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

import carzero
from carzero.errors import ConfigurationError, UnreadableImageError
from carzero.inference.calibration_file import load_calibration
from carzero.inference.classifier import ZeroShotClassifier
from carzero.inference.score_calibration import CalibrationWarning
from carzero.pipelines import ImageWarning, pipeline
from carzero.records import ImageSource

LABELS = ["pneumonia", "edema"]
COLUMNS = [f"logit:{label}" for label in LABELS]


@pytest.fixture(scope="module")
def classifier() -> ZeroShotClassifier:
    return ZeroShotClassifier.from_pretrained("demo", device="cpu")


@pytest.fixture(scope="module")
def expected(classifier: ZeroShotClassifier) -> pd.DataFrame:
    return classifier.predict(carzero.example_film(), labels=LABELS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.dcm", "below/b.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(carzero.example_film().read_bytes())
    return tmp_path


def scores(table: pd.DataFrame) -> list[list[float]]:
    return table[COLUMNS].to_numpy().tolist()


@pytest.mark.parametrize("form", ["bytes", "open file", "buffer", "data set", "data set without file"])
def test_each_form_of_a_file_gives_the_same_scores(
    classifier: ZeroShotClassifier, expected: pd.DataFrame, form: str
) -> None:
    film = carzero.example_film()
    dataset = pydicom.dcmread(film)
    if form == "data set without file":
        dataset.filename = None
    with film.open("rb") as stream:
        given: dict[str, ImageSource] = {
            "bytes": film.read_bytes(),
            "open file": stream,
            "buffer": io.BytesIO(film.read_bytes()),
            "data set": dataset,
            "data set without file": dataset,
        }
        table = classifier.predict(given[form], labels=LABELS)
    assert scores(table) == scores(expected)
    assert table["view"].tolist() == ["PA"]
    named = form in ("open file", "data set")
    assert table["image_id"].tolist() == ["chest.dcm" if named else "image_0"]


def test_a_folder_stands_for_its_images(classifier: ZeroShotClassifier, expected: pd.DataFrame, folder: Path) -> None:
    table = classifier.predict(folder, labels=LABELS)
    assert table["image_id"].tolist() == ["a.dcm", "below/b.dcm"]
    assert np.allclose(scores(table), scores(expected) * 2, atol=1e-5)  # a batch of two: other last digits
    mixed = classifier.predict([folder / "a.dcm", np.zeros((40, 40), np.uint8)], labels=LABELS, on_error="skip")
    assert mixed["image_id"].tolist() == ["a.dcm"]
    ((failed, _, reason),) = mixed.attrs["failures"]
    assert (failed, "constant" in reason or "shows nothing" in reason or bool(reason)) == ("image_1", True)


def test_what_is_no_image_is_refused_or_skipped(classifier: ZeroShotClassifier) -> None:
    bare = pydicom.Dataset()
    bare.PatientName = "Nobody"
    for given in (bare, io.StringIO("text"), b"", object()):
        with pytest.raises(UnreadableImageError):
            classifier.predict([given], labels=LABELS)  # type: ignore[list-item]
    table = classifier.predict([bare, io.BytesIO(b"no image")], labels=LABELS, on_error="skip")
    assert len(table) == 0
    assert [image for image, *_ in table.attrs["failures"]] == ["image_0", "image_1"]


def test_a_grounding_has_a_box_and_shows_itself(classifier: ZeroShotClassifier) -> None:
    (found,) = classifier.ground(carzero.example_film().read_bytes(), labels=["pneumonia"])
    assert found.box is not None
    left, top, right, bottom = found.box
    assert left <= found.peak[0] <= right
    assert top <= found.peak[1] <= bottom
    assert found.heatmap.shape == found.pixels.shape
    assert found.doubt == "demo weights: not for diagnosis; maps often miss"
    assert len(repr(found)) < 500
    picture = found.to_image()
    assert picture.mode == "RGB"
    assert picture.size[0] > 300
    with Image.open(io.BytesIO(found._repr_png_())) as shown:
        assert shown.size == picture.size


def test_a_calibration_gives_probabilities_and_lets_an_absent_finding_fade(classifier: ZeroShotClassifier) -> None:
    """The demo's own is near one half for these; one that denies a finding takes the colour out of its map."""
    own, film = load_calibration(classifier.own_calibration), carzero.example_film()
    with pytest.warns(CalibrationWarning, match="No probability for hernia"):
        table = classifier.predict(film, labels=["hernia", *LABELS], calibration=str(classifier.own_calibration))
    assert [name for name in table if name.startswith(("logit:", "prob:"))] == [
        *("logit:hernia", *COLUMNS, "prob:pneumonia", "prob:edema")
    ]
    scores = table[COLUMNS].to_numpy(dtype=np.float64)
    assert table[["prob:pneumonia", "prob:edema"]].to_numpy() == pytest.approx(own.apply(scores, LABELS))
    assert table.attrs["calibration"]["description"] == own.describe()
    absent = replace(own, labels={"pneumonia": replace(own.labels["pneumonia"], parameters=NEVER)})
    grounded = [classifier.ground(film, labels=["pneumonia"], calibration=each)[0] for each in (None, own, absent)]
    assert [found.probability for found in grounded] == [None, pytest.approx(own.apply(scores, LABELS)[0, 0]), 0.0]
    glow = [np.ptp(np.asarray(found.to_image(), dtype=int), axis=2).sum() for found in grounded]
    assert glow[0] > glow[1] > glow[2]
    other = replace(own, provenance={**own.provenance, "weights_sha256": "0" * 64})
    with pytest.raises(ConfigurationError, match="fitted on other scores"):
        classifier.ground(film, labels=["pneumonia"], calibration=other)


NEVER = {"slope": 0.0, "intercept": -1000.0}


def test_a_plot_is_the_picture(classifier: ZeroShotClassifier) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="needs the extra eval")
    matplotlib.use("agg")
    from matplotlib import pyplot

    (found,) = classifier.ground(carzero.example_film(), labels=["pneumonia"])
    axes = found.plot()
    assert np.array_equal(axes.get_images()[0].get_array(), np.asarray(found.to_image()))
    assert found.plot(axes) is axes
    pyplot.close("all")


def test_progress_is_shown_where_somebody_looks_and_goes_away(
    classifier: ZeroShotClassifier, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [carzero.load_radiograph(carzero.example_film()).pixels] * 6
    classifier.predict(images, labels=["edema"])
    assert capsys.readouterr() == ("", "")
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    classifier.predict(images, labels=["edema"])
    out, err = capsys.readouterr()
    assert (out, "scoring" in err, err.endswith("\r")) == ("", True, True)
    classifier.predict(images[:2], labels=["edema"])
    classifier.predict(images, labels=["edema"], progress=False)
    assert capsys.readouterr() == ("", "")


def test_the_pipeline_knows_the_demo_by_its_name(expected: pd.DataFrame) -> None:
    rows = pipeline(model="demo", device="cpu")(str(carzero.example_film()), candidate_labels=LABELS)
    assert [row["label"] for row in rows] == LABELS
    assert [row["score"] for row in rows] == scores(expected)[0]


def test_a_doubt_about_an_image_reaches_whoever_asks(classifier: ZeroShotClassifier) -> None:
    lateral = pydicom.dcmread(carzero.example_film())
    lateral.ViewPosition = "LL"
    (found,) = classifier.ground(lateral, labels=["pneumonia"])
    assert any("lateral" in each for each in found.warnings)
    with pytest.warns(ImageWarning, match="lateral"):
        pipeline(model="demo", device="cpu").preprocess(lateral)
