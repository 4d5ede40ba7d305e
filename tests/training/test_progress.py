"""Records of a run as its log and its checkpoints have them, which weights are kept, and towers that a recipe names."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from carzero.errors import ConfigurationError, MissingExtraError, RunError, WeightsError
from carzero.training.progress import StepRecord, Validation, WeightChoice
from carzero.training.recipe_sections import TextStart, VisionStart
from carzero.training.start.towers import TEXT_STARTS, VISION_STARTS, start_vision
from tests.support.commands import run_program

LINE = {
    **{"step": 4, "steps": 8, "epoch": 1, "loss": 0.5, "lr": 0.001, "gradient_norm": None, "images_per_s": 3.5},
    "validation": {"loss": 0.25, "films": {"edema": 0.5, "macro": 0.5}, "empty": {}, "auroc_mean": 0.5},
}


def record(step: int, loss: float | None, **more: Any) -> StepRecord:
    validation = None if loss is None else Validation(loss=loss, **more)
    return StepRecord(step, 9, 0, 1.0, 0.1, 1.0, "images", 2.0, validation)


@pytest.mark.parametrize("line", [LINE, {name: value for name, value in LINE.items() if name != "validation"}])
def test_a_line_of_the_log_is_a_record_and_back(line: dict[str, Any]) -> None:
    assert json.dumps(StepRecord.from_dict(line).to_dict()) == json.dumps(line)


def test_the_best_validation_is_kept_and_a_run_that_gains_nothing_ends() -> None:
    choice = WeightChoice("best", "loss", 2, is_validated=True)
    kept = [choice.take(record(step, loss), is_last=False) for step, loss in enumerate([3.0, None, 2.0, 2.5, 2.0])]
    assert kept == [True, False, True, False, False]
    assert choice.is_stopped_early
    assert choice.kept == record(2, 2.0)
    resumed = WeightChoice("best", "loss", 3, is_validated=True)
    resumed.load_state_dict(json.loads(json.dumps(choice.state_dict())))
    assert resumed.kept == choice.kept
    assert not resumed.is_stopped_early
    assert not resumed.take(record(5, 2.0), is_last=True)
    assert resumed.take(record(6, 1.0), is_last=True)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_last_step_is_kept_where_nothing_is_validated(keep: Any) -> None:
    choice = WeightChoice(keep, "loss", None, is_validated=False)
    assert [choice.take(record(step, None), is_last=step == 1) for step in (0, 1)] == [False, True]


def test_more_is_better_but_of_the_loss_and_what_was_not_measured_is_an_error() -> None:
    choice = WeightChoice("best", "auroc", None, is_validated=True)
    kept = [choice.take(record(step, 1.0, auroc_mean=area), is_last=False) for step, area in enumerate([0.6, 0.5, 0.7])]
    assert kept == [True, False, True]
    with pytest.raises(RunError, match="says nothing about best_by: auroc"):
        choice.take(record(3, 1.0), is_last=True)


@pytest.mark.parametrize("name", sorted(VISION_STARTS))
def test_a_named_image_tower_is_one_or_says_what_it_needs(name: str) -> None:
    try:
        tower = VISION_STARTS[name](VisionStart(start=name))
    except MissingExtraError as error:
        assert "pip install" in str(error)  # noqa: PT017
    else:
        assert isinstance(tower, PreTrainedModel)
        assert tower.main_input_name == "pixel_values"
    with pytest.raises(ConfigurationError, match="no such fields"):
        VISION_STARTS[name](VisionStart(start=name, config={"nonsense": 1}))


@pytest.mark.parametrize("name", sorted(TEXT_STARTS))
def test_a_named_text_tower_is_one_or_says_what_it_needs(name: str) -> None:
    try:
        tower, tokenizer = TEXT_STARTS[name](TextStart(start=name, layers=1), ["no effusion"])
    except MissingExtraError as error:
        assert "pip install" in str(error)  # noqa: PT017
    else:
        assert tower.main_input_name == "input_ids"
        assert len(tokenizer) <= tower.config.vocab_size
    with pytest.raises(ConfigurationError, match="comes as it is"):
        TEXT_STARTS[name](TextStart(start=name, tokenizer="other"), [])


def test_an_unknown_start_is_an_error() -> None:
    with pytest.raises(WeightsError, match="No tower could be loaded"):
        start_vision(VisionStart(start="./no-such-tower"), 32)


def test_the_trainer_needs_no_file_locks(tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['fcntl'] = None\nfrom pathlib import Path\n"
        "from carzero.training.run import train\nfrom carzero.training.run_folder import RunFolder\n"
        f"RunFolder(Path({str(tmp_path / 'run')!r}), {{}}, resume=False).close()\nprint('made')\n"
    )
    assert run_program([sys.executable, "-c", code]).stdout == "made\n"
