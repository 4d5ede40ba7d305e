"""Every verb with every family of weights: it works, or says in one line what the model has no part for."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from carzero.datasets.chestxray14 import LABELS
from carzero.weights.source import example_film
from tests.support.commands import in_process
from tests.support.dual import save_biovil, save_chexzero, save_clip, save_siglip
from tests.support.tiny import save_images, save_tiny_weights


@dataclass(frozen=True)
class Kind:
    """A family, and which parts its models have."""

    save: Callable[[Path], object]
    own: bool = False
    maps: bool = True
    one_vector: bool = True
    score_kind: str = "logit"
    alike: bool = False  # to a kind above, so that what costs time is tried of that alone


KINDS = {
    "similarity_map": Kind(
        lambda folder: save_tiny_weights(folder, alignment="similarity_map"), own=True, one_vector=False
    ),
    "siglip": Kind(save_siglip),
    "chexzero": Kind(save_chexzero, maps=False, score_kind="logit_difference"),
    "clip": Kind(save_clip, alike=True),
    "biovil": Kind(lambda folder: save_biovil(folder, image_px=64), alike=True),
    "biovil_t": Kind(lambda folder: save_biovil(folder, temporal=True, image_px=64), alike=True),
}

IMAGES = 4

Run = Callable[..., str]


@dataclass(frozen=True)
class Case:
    kind: Kind
    weights: Path
    images: Path
    one: Path
    out: Path


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    kind = KINDS[request.param]
    kind.save(folder / "weights")
    images = save_images(folder / "images", IMAGES, side_px=64)
    return Case(kind, folder / "weights", folder / "images", images[0], folder)


@pytest.fixture
def done(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command, which must succeed: what it prints."""

    def run(*arguments: object) -> str:
        code, out, err = in_process(capsys, *arguments)
        assert code == 0, err
        return out

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command, which must end in one line that says why."""

    def run(*arguments: object) -> str:
        code, out, err = in_process(capsys, *arguments)
        assert (code, out) == (2, "")
        lines = err.splitlines()
        assert lines[-1].startswith("error: ")
        assert "Traceback" not in err
        return lines[-1]

    return run


def labelled(case: Case) -> list[object]:
    return ["--labels", "edema,mass", "--weights", case.weights]


def test_scores_are_evaluated_and_calibrated(case: Case, done: Run) -> None:
    scores, truth, calibration = case.out / "scores.csv", case.out / "truth.csv", case.out / "calibration.json"
    done("predict", case.images, *labelled(case), "--normal", "max", "--out", scores)
    manifest = json.loads(scores.with_name("scores.csv.manifest.json").read_text())
    assert manifest["score_kind"] == case.kind.score_kind
    if case.kind.alike:
        return  # what reads score tables knows no family
    with scores.open(newline="") as file:
        names = [row["image_id"] for row in csv.DictReader(file)]
    lines = [f"{name},{number % 2},{number // 2}" for number, name in enumerate(names)]
    truth.write_text("\n".join(["image_id,edema,mass", *lines]) + "\n")
    told = done("evaluate", scores, "--truth", truth, "--bootstrap", 5)
    assert "auroc" in told
    assert "normal score" in told
    done("calibrate", "fit", scores, "--truth", truth, "--out", calibration)
    done("calibrate", "apply", scores, "--calibration", calibration, "--out", case.out / "probabilities.csv")


def test_the_other_score_kind_and_a_bank_of_it(case: Case, done: Run, capsys: pytest.CaptureFixture[str]) -> None:
    other = "logit" if case.kind.score_kind == "logit_difference" else "logit_difference"
    if case.kind.alike:
        return  # the bank of this kind is that of siglip
    bank, asked = case.out / "bank", ("--weights", case.weights, "--score", other)
    done("prompts", "encode", "chexpert5:pairs", *asked, "--out", bank)
    plain = json.loads(done("predict", case.one, "--prompts", "chexpert5:pairs", *asked, "--json"))
    encoded = json.loads(done("predict", case.one, "--prompts", bank, *asked, "--json"))
    assert encoded["scores"] == plain["scores"]
    assert encoded["manifest"]["score_kind"] == other
    wrong = ("--score", case.kind.score_kind)
    code, _, err = in_process(capsys, "predict", case.one, "--prompts", bank, "-w", case.weights, *wrong)
    assert (code, f"encoded for {other}" in err) == (2, True)


def test_benchmark(case: Case, done: Run) -> None:
    lines = [
        " ".join([name.name, *(str(int((number + column) % 2 == 0)) for column in range(len(LABELS)))])
        for number, name in enumerate(sorted(case.images.iterdir()))
    ]
    labels = case.out / "test_list.txt"
    labels.write_text("\n".join(lines) + "\n")
    command = ("benchmark", "chestxray14", labels, "--images", case.images, "--weights", case.weights)
    found = json.loads(done(*command, "--rounds", 2, "--json"))
    assert found["manifest"]["score_kind"] == case.kind.score_kind
    assert found["manifest"]["images"] == IMAGES
    macro = next(row["value"] for row in found["metrics"] if (row["label"], row["metric"]) == ("macro", "auroc"))
    assert 0 <= macro <= 1


def test_one_text_vector(case: Case, done: Run, refused: Run) -> None:
    if case.kind.alike:
        return  # as siglip
    command = ("predict", case.one, *labelled(case), "--pool", "text")
    if case.kind.one_vector:
        assert "edema" in done(*command)
    else:
        assert "one vector per text" in refused(*command)


@pytest.mark.parametrize(
    "command",
    [
        ("ground", "--out", "maps"),
        ("dicom", "results", "--kinds", "sr,sc", "--out", "objects"),
    ],
    ids=lambda command: command[0],
)
def test_maps(command: Sequence[str], case: Case, done: Run, refused: Run) -> None:
    *verb, option, out = command
    if case.kind.alike and "dicom" in verb:
        return  # objects are made of maps, which ground has shown
    image = example_film() if "dicom" in verb else case.one
    asked = [*verb[:2], image] if "dicom" in verb else [*verb, image]
    whole = [*asked, *verb[2:], "--labels", "edema", "--weights", case.weights, option, case.out / out]
    if case.kind.maps:
        done(*whole, "--score", "logit_difference")
        assert any((case.out / out).iterdir())
        if "ground" in verb:
            told = json.loads((case.out / out / "grounding.json").read_text())["manifest"]
            assert told["score_kind"] == "logit_difference"
    else:
        assert "has no maps" in refused(*whole)


def test_export_and_further_training_are_for_carzero(case: Case, refused: Run) -> None:
    if not case.kind.own and not case.kind.alike:
        assert "CARZero's own" in refused("export", case.weights, "--to", "onnx", "--out", case.out / "exported")


def test_speed(case: Case, done: Run) -> None:
    if case.kind.maps:
        return  # the ensemble without maps is the one that is timed otherwise
    assert "images/s" in done("speed", "--weights", case.weights, "--batch-size", 2, "--prompts", 2, "--turns", 1)
