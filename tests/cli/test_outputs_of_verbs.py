"""Outputs, the same for every verb that writes: what is finished stays, and what cannot be written is said at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.core import TyperCommand, TyperGroup

from carzero.cli.main import build_command
from carzero.clinical.run import save_result
from carzero.core import atomic
from carzero.data.pair_files import save_pairs, save_report
from carzero.errors import OutputError
from carzero.evaluation.results import save_results
from carzero.images.overlay import save_overlay
from carzero.inference.calibration_file import save_calibration
from carzero.inference.score_table import save_scores, to_frame
from carzero.metrics.calibration import Calibration
from carzero.prompts.prompt_file import save_text
from carzero.weights.source import example_film
from tests.support.commands import in_process
from tests.support.pretraining import RECIPES, save_sentences
from tests.support.runs import save_findings_table, save_recipe, tiny_recipe

Arguments = Callable[[Path], list[object]]


@dataclass(frozen=True)
class Verb:
    """A verb that writes.

    Attributes:
        name: its words.
        out: name of an output in a folder.
        inputs: its arguments but for the output, in a folder that may hold their files.
        holds: files of a finished output, where the output is a folder.
        option: "--out", another option, or "" where the output is an argument.
    """

    name: str
    out: str
    inputs: Arguments
    holds: list[str] = field(default_factory=list)
    option: str = "--out"

    def command(self, folder: Path, out: Path) -> list[object]:
        return [*self.name.split(), *self.inputs(folder), *([self.option] if self.option else []), out]


def scoring(folder: Path) -> list[object]:
    return [folder / "image.png", "--labels", "edema", "--weights", folder / "weights"]


def scores_and_truth(folder: Path) -> list[object]:
    return [folder / "scores.csv", "--truth", folder / "truth.csv"]


def training(folder: Path) -> list[object]:
    return [folder / "recipe.yaml", "--table", folder / "table.csv"]


def pretraining_images(folder: Path) -> list[object]:
    return [RECIPES / "pretrain-image.yaml", "--table", folder / "table.csv"]


def pretraining_texts(folder: Path) -> list[object]:
    return [RECIPES / "pretrain-text.yaml", "--table", folder / "sentences.jsonl"]


VERBS = [
    Verb("predict", "scores.parquet", scoring),
    Verb("predict", "overlays", scoring, ["image.png__edema.png"], "--overlay"),
    Verb(
        "dicom results",
        "objects",
        lambda folder: [folder / "image.dcm", "--labels", "edema", "--weights", folder / "weights"],
        ["image.sr.dcm"],
    ),
    Verb("ground", "found", scoring, ["grounding.json"]),
    Verb("demo", "demo", lambda _: [], ["chest.dcm__pneumonia.png"]),
    Verb("reports align", "aligned.jsonl", lambda folder: [folder / "reports.csv"]),
    Verb("evaluate", "metrics.csv", scores_and_truth),
    Verb("evaluate", "metrics", scores_and_truth, ["metrics.json"]),
    Verb("compare", "metrics.json", lambda folder: [folder / "scores.csv", *scores_and_truth(folder)]),
    Verb("compare", "plot.png", lambda folder: ["--readers", folder], option="--plot"),
    Verb("calibrate fit", "calibration.json", scores_and_truth),
    Verb("calibrate apply", "with.csv", lambda folder: [folder / "scores.csv", "--calibration", folder / "c.json"]),
    Verb("benchmark", "bench", lambda folder: ["openi", "--images", folder], ["report.html"]),
    Verb("data import mimic-cxr", "pairs.csv", lambda folder: [folder]),
    Verb("data import openi", "pairs.csv", lambda folder: [folder]),
    Verb("data import folder", "pairs.csv", lambda folder: [folder]),
    Verb("data validate", "kept.csv", lambda folder: [folder / "table.csv"]),
    Verb("data validate", "found.json", lambda folder: [folder / "table.csv"], option="--report"),
    Verb("prompts make", "asked.yaml", lambda _: ["edema"]),
    Verb("prompts encode", "bank", lambda folder: ["chexpert5", "--weights", folder / "weights"], ["bank.json"]),
    Verb("convert", "weights", lambda folder: [folder / "x.ckpt", "--tokenizer", "x"], ["config.json"], ""),
    Verb("recipes copy", "mine.yaml", lambda _: ["two-cores"], option=""),
    Verb("export", "exported", lambda _: ["demo", "--to", "onnx"], ["export.json"]),
    Verb("train", "run", training, ["run.yaml", "log.jsonl"]),
    Verb("pretrain image", "run", pretraining_images, ["run.yaml", "log.jsonl"]),
    Verb("pretrain text", "run", pretraining_texts, ["run.yaml", "log.jsonl"]),
]
IDS = [f"{verb.name} {verb.option}{' of files' if verb.holds else ''}".strip() for verb in VERBS]


@pytest.fixture(scope="module")
def inputs(films: list[Path], tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "image.png").write_bytes(films[0].read_bytes())
    (folder / "image.dcm").write_bytes(Path(example_film()).read_bytes())
    (folder / "weights").symlink_to(tiny_weights)
    (folder / "reports.csv").write_text("report_id,text\na,No edema.\n")
    save_recipe(folder / "recipe.yaml", tiny_recipe())
    save_findings_table(folder / "table.csv")
    save_sentences(folder / "sentences.jsonl")
    return folder


@pytest.fixture(autouse=True)
def where_things_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def leaves(command: TyperCommand | TyperGroup, name: str = "") -> Iterator[tuple[str, TyperCommand]]:
    if isinstance(command, TyperGroup):
        for word, each in command.commands.items():
            yield from leaves(each, f"{name} {word}".strip())
    else:
        yield name, command


def test_every_verb_that_writes_is_tested_here_and_takes_overwrite() -> None:
    writing = {
        name: {parameter.name for parameter in command.params}
        for name, command in leaves(build_command())
        if any(parameter.name in ("out", "paths") for parameter in command.params)
    }
    assert {verb.name for verb in VERBS} == set(writing)
    assert [name for name, parameters in writing.items() if "overwrite" not in parameters] == []


def refused(capsys: pytest.CaptureFixture[str], arguments: list[object]) -> str:
    """The one line of a command that must end as a usage error, with nothing done."""
    code, out, err = in_process(capsys, *arguments)
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    return err


@pytest.mark.parametrize("verb", VERBS, ids=IDS)
def test_a_finished_output_stays_and_the_message_names_the_option(
    verb: Verb, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / verb.out
    files = [out / name for name in verb.holds] or [out]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("finished")
    assert "--overwrite" in refused(capsys, verb.command(inputs, out))
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == dict.fromkeys(
        files, "finished"
    )


@pytest.mark.parametrize("verb", VERBS, ids=IDS)
def test_a_folder_for_a_file_and_a_file_for_a_folder(
    verb: Verb, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / verb.out
    if verb.holds:
        out.write_text("a file")
        assert "is a file" in refused(capsys, verb.command(inputs, out))
        assert "is a file" in refused(capsys, verb.command(inputs, out / "below"))
        assert out.read_text() == "a file"
    elif not (verb.name in ("evaluate", "compare") and verb.option == "--out"):  # these take either
        out.mkdir()
        assert "is a folder" in refused(capsys, verb.command(inputs, out))
        assert list(out.iterdir()) == []


@pytest.mark.parametrize("verb", VERBS, ids=IDS)
@pytest.mark.parametrize("name", ["x" * 240, "é" * 200])
def test_a_name_that_is_too_long(
    name: str, verb: Verb, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, verb.command(inputs, tmp_path / f"{name}{Path(verb.out).suffix}"))
    assert "File name too long" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", VERBS, ids=IDS)
def test_a_place_that_takes_nothing(verb: Verb, inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs /proc, which nobody may write to, not even root")
    assert "written" in refused(capsys, verb.command(inputs, Path("/proc/self") / verb.out))


def save_dicom(path: Path, *, overwrite: bool) -> None:
    result = pydicom.dcmread(example_film())
    result.SOPInstanceUID = "1.2.3"
    save_result(result, path, overwrite=overwrite)


SAVERS = {
    "metrics.csv": lambda path, **options: save_results([], path, {}, **options),
    "metrics": lambda path, **options: save_results([], path, {}, **options),
    "scores.csv": lambda path, **options: save_scores(to_frame([], ["edema"]), path, {}, **options),
    "calibration.json": lambda path, **options: save_calibration(Calibration({}), path, **options),
    "pairs.csv": lambda path, **options: save_pairs([{"image": "/a.png", "text": "No edema."}], path, **options),
    "found.json": lambda path, **options: save_report({}, path, **options),
    "asked.yaml": lambda path, **options: save_text("edema: [edema]\n", path, **options),
    "overlay.png": lambda path, **options: save_overlay(path, np.zeros((8, 8)), np.zeros((8, 8)), **options),
    "result.dcm": save_dicom,
}


@pytest.mark.parametrize("name", SAVERS)
def test_what_another_command_finishes_meanwhile_stays_without_overwrite(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_temporary = atomic._name_temporary

    def finish_first(path: Path) -> Path:
        if not path.name.endswith(".manifest.json"):
            path.write_text("another's")
        return name_temporary(path)

    monkeypatch.setattr(atomic, "_name_temporary", finish_first)
    with pytest.raises(OutputError, match=r"exists already.*--overwrite"):
        SAVERS[name](tmp_path / name, overwrite=False)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left
    assert {path.read_text() for path in left} == {"another's"}
    SAVERS[name](tmp_path / name, overwrite=True)
    assert all(path.read_bytes() != b"another's" for path in left)
