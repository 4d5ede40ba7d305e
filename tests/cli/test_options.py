"""Choices on the command line are those of the library; options that belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args, get_type_hints

import pytest
import typer
from typer.testing import CliRunner, Result

from carzero.cli import benchmark, calibrate, data, export, ground, models, options
from carzero.cli.main import build_command
from carzero.cli.option_records import takes_records
from carzero.datasets.folder import PatientFrom
from carzero.datasets.mimic_cxr import Labeller
from carzero.evaluation.benchmark.manifest import Task
from carzero.inference.heatmaps import MAP_FORMATS
from carzero.metrics.calibration import AbnormalityPool
from carzero.metrics.calibrators import CalibrationMethod
from carzero.metrics.labels import UncertainPolicy
from carzero.model.vision import STRETCHES
from carzero.prompts.library import VARIANTS
from carzero.records import Pool, ScoreKind
from carzero.weights.export_manifest import ExportDtype, ExportEngine
from carzero.weights.precision import DTYPES


def choices_of(verb: object, parameter: str) -> tuple[str, ...]:
    return get_args(get_type_hints(verb)[parameter])


@pytest.mark.parametrize(
    ("shown", "known"),
    [
        (get_args(options.DtypeName), DTYPES),
        (get_args(options.UncertainAs), get_args(UncertainPolicy)),
        (get_args(options.PoolName), get_args(Pool)),
        (get_args(options.ScoreName), get_args(ScoreKind)),
        (choices_of(models.convert, "stretch"), tuple(STRETCHES)),
        (choices_of(ground.ground, "map_format"), MAP_FORMATS),
        (choices_of(calibrate.fit, "method"), get_args(CalibrationMethod)),
        (choices_of(calibrate.fit, "pool"), get_args(AbnormalityPool)),
        (choices_of(export.export, "engine"), get_args(ExportEngine)),
        (choices_of(export.export, "dtype"), get_args(ExportDtype)),
        (choices_of(benchmark.benchmark, "task"), get_args(Task)),
        (choices_of(data.mimic_cxr, "labels"), get_args(Labeller)),
        (choices_of(data.folder, "patient_from"), get_args(PatientFrom)),
        (get_args(options.VariantName), VARIANTS),
    ],
)
def test_choices_are_those_of_the_library(shown: tuple[str, ...], known: tuple[str, ...]) -> None:
    assert set(shown) == set(known)


def test_values_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("mine/weights", "run/weights", "other"):
        (tmp_path / place).mkdir(parents=True)
    for file in ("mine/config.json", "run/weights/config.json"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    assert options.complete_weights("") == ["demo", "mine", "run"]
    assert options.complete_weights(f"{tmp_path}/m") == [f"{tmp_path}/mine"]
    assert options.complete_weights("[") == []
    assert options.complete_prompts("chestx") == ["chestxray14", "chestxdet10"]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("carzero pre", ["predict", "pretrain"]),
        ("carzero predict --pool m", ["mean", "max"]),
        ("carzero predict --dtype f", ["float32", "float16"]),
        ("carzero predict --weights de", ["demo"]),
        ("carzero prompts show vin", ["vindr28"]),
    ],
)
def test_the_shell_asks_for_them(
    line: str, values: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_CARZERO_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    with pytest.raises(SystemExit) as ended:
        build_command()([], prog_name="carzero")
    assert not ended.value.code
    assert capsys.readouterr().out.split() == values


@dataclass(frozen=True, kw_only=True)
class Size:
    width: Annotated[int, typer.Option()]
    height: Annotated[int, typer.Option(min=1)] = 3


def run_verb(verb: Callable[..., None], *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(verb)
    return CliRunner().invoke(app, arguments)


def test_fields_of_a_record_are_options_each_by_itself() -> None:
    seen: list[tuple[Size, str, str]] = []

    @takes_records("first height last width")
    def verb(first: str, size: Size, last: str = "z") -> None:
        seen.append((size, first, last))

    assert run_verb(verb, "a", "--width", "2").exit_code == 0
    assert run_verb(verb, "a", "--width", "2", "--height", "5", "--last", "b").exit_code == 0
    assert seen == [(Size(width=2, height=3), "a", "z"), (Size(width=2, height=5), "a", "b")]
    shown = run_verb(verb, "--help").output
    assert shown.index("--height") < shown.index("--last") < shown.index("--width")
    assert run_verb(verb, "a").exit_code == run_verb(verb, "a", "--width", "2", "--height", "0").exit_code == 2


@pytest.mark.parametrize("order", ["size", "width", "width height height", "width height other"])
def test_an_order_names_every_option_once(order: str) -> None:
    def verb(size: Size) -> None:
        raise AssertionError(size)

    with pytest.raises(TypeError, match="verb: the options are"):
        takes_records(order)(verb)


def test_two_options_of_one_name_are_refused() -> None:
    def verb(width: str, size: Size) -> None:
        raise AssertionError(width, size)

    with pytest.raises(TypeError, match="verb: the options are"):
        takes_records()(verb)
