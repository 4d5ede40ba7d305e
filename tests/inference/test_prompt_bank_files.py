"""A prompt bank on disk: the same scores without the text tower, and a refusal of all that is stale."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carzero.errors import OutputError, PromptError
from carzero.inference.bank_record import is_bank, load_bank_prompts
from carzero.inference.classifier import ZeroShotClassifier
from carzero.inference.prompt_bank import PromptBank
from carzero.inference.score_table import load_scores
from carzero.prompts import PromptSet
from carzero.records import ImageItem, ScoredImage
from tests.support.commands import in_process
from tests.support.tiny import KINDS, save_tiny_weights, tiny_pair

ASKED = PromptSet.from_mapping(
    {"edema": ["There is edema", "The lungs are congested"], "mass": {"positive": ["There is mass"], "negative": []}}
)


@pytest.fixture(scope="module")
def folder(classifier: ZeroShotClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("banks") / "bank"
    classifier.save_prompts(classifier.encode_prompts(ASKED), path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def logits(classifier: ZeroShotClassifier, bank: PromptBank, film: Path) -> np.ndarray:
    (result,) = classifier.stream([ImageItem("a", str(film), str(film))], bank)
    assert isinstance(result, ScoredImage)
    return result.logits


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_bank_gives_the_same_scores_bit_for_bit(kind: str, films: list[Path], tmp_path: Path) -> None:
    weights = save_tiny_weights(tmp_path / "weights", **KINDS[kind])
    classifier = ZeroShotClassifier.from_pretrained(weights, device="cpu", dtype="float32")
    many = PromptSet.from_labels([f"finding number {n}" for n in range(40)])  # more than one group of texts
    bank = classifier.encode_prompts(many)
    classifier.save_prompts(bank, tmp_path / "bank")
    assert is_bank(tmp_path / "bank")
    assert load_bank_prompts(tmp_path / "bank").to_mapping() == many.to_mapping()
    loaded = classifier.load_prompts(tmp_path / "bank")
    assert loaded.labels == many.labels
    assert np.array_equal(logits(classifier, loaded, films[0]), logits(classifier, bank, films[0]))


def test_prompts_of_one_label_stay_together(classifier: ZeroShotClassifier, folder: Path, films: list[Path]) -> None:
    loaded = classifier.load_prompts(folder)
    assert loaded.owner.tolist() == [0, 0, 1]
    expected = logits(classifier, classifier.encode_prompts(ASKED), films[1])
    assert np.array_equal(logits(classifier, loaded, films[1]), expected)


def test_what_is_there_is_not_replaced_unasked(classifier: ZeroShotClassifier, copy: Path) -> None:
    bank = classifier.encode_prompts(PromptSet.from_labels(["edema"]))
    with pytest.raises(OutputError, match=r"exists already.*bank\.json.*--overwrite"):
        classifier.save_prompts(bank, copy)
    classifier.save_prompts(bank, copy, overwrite=True)
    assert classifier.load_prompts(copy).labels == ["edema"]
    with pytest.raises(OutputError, match="output folder is a file"):
        classifier.save_prompts(bank, copy / "bank.json")


def test_other_weights_and_precisions_are_refused(
    classifier: ZeroShotClassifier, folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    other = ZeroShotClassifier.from_pretrained(
        save_tiny_weights(tmp_path / "other", score_head="linear"), device="cpu", dtype="float32"
    )
    with pytest.raises(PromptError, match=r"is stale.*weights_sha256.*carzero prompts encode"):
        other.load_prompts(folder)
    halved = ZeroShotClassifier.from_pretrained(tiny_weights, device="cpu", dtype="bfloat16")
    with pytest.raises(PromptError, match=r"is stale.*\{'dtype': 'float32'\}.*\{'dtype': 'bfloat16'\}"):
        halved.load_prompts(folder)
    in_memory = ZeroShotClassifier(*tiny_pair(), device="cpu")
    with pytest.raises(PromptError, match="made in memory"):
        in_memory.save_prompts(in_memory.encode_prompts(ASKED), tmp_path / "bank")


def change_prompt(record: dict[str, Any]) -> None:
    record["prompts"]["mass"] = ["There is no mass"]


def change_version(record: dict[str, Any]) -> None:
    record["carzero_version"] = "0.0.1"


def lose_prompts(record: dict[str, Any]) -> None:
    del record["prompts"]


@pytest.mark.parametrize(
    ("change", "message"),
    [(change_prompt, "its prompts were changed"), (change_version, "is stale.*0.0.1"), (lose_prompts, "not a whole")],
)
def test_a_changed_record_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, classifier: ZeroShotClassifier, copy: Path
) -> None:
    record = json.loads((copy / "bank.json").read_text())
    change(record)
    (copy / "bank.json").write_text(json.dumps(record))
    with pytest.raises(PromptError, match=message):
        classifier.load_prompts(copy)


def test_tensors_of_another_bank_or_none_are_refused(classifier: ZeroShotClassifier, copy: Path) -> None:
    classifier.save_prompts(classifier.encode_prompts(PromptSet.from_labels(["edema"])), copy / "other")
    (copy / "bank.safetensors").write_bytes((copy / "other" / "bank.safetensors").read_bytes())
    with pytest.raises(PromptError, match="of two banks"):
        classifier.load_prompts(copy)
    (copy / "bank.safetensors").write_bytes(b"no tensors")
    with pytest.raises(PromptError, match="not a whole prompt bank"):
        classifier.load_prompts(copy)
    (copy / "bank.safetensors").unlink()
    with pytest.raises(PromptError, match="not a whole prompt bank"):
        classifier.load_prompts(copy)


def test_the_commands(
    films: list[Path], tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank, out = tmp_path / "bank", tmp_path / "scores.csv"
    precise = ("-w", tiny_weights, "--dtype", "float32")
    code, _, stderr = in_process(capsys, "prompts", "encode", "chestxray14", *precise, "-o", bank)
    assert (code, f"Wrote 14 prompts of 14 labels in float32 to {bank}" in stderr) == (0, True), stderr
    code, _, stderr = in_process(capsys, "predict", films[0], "--prompts", bank, *precise, "-o", out)
    assert code == 0, stderr
    classifier = ZeroShotClassifier.from_pretrained(tiny_weights, device="cpu", dtype="float32")
    plain = classifier.predict(films[0], prompts=load_bank_prompts(bank))
    columns = [name for name in plain.columns if name.startswith("logit:")]
    assert len(columns) == 14
    assert np.allclose(load_scores(out)[columns], plain[columns], atol=1e-6)
    assert json.loads(Path(f"{out}.manifest.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("bfloat16", "is stale"),
        ("int8", "carzero export --to openvino --dtype int8"),
        ("float8", "'float8' is not one of"),
    ],
)
def test_a_bank_of_another_precision_or_none_is_one_message(
    dtype: str, message: str, folder: Path, films: list[Path], tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, stdout, stderr = in_process(
        capsys, "predict", films[0], "--prompts", folder, "-w", tiny_weights, "--dtype", dtype
    )
    assert (code, stdout) == (2, "")
    assert message in " ".join(stderr.split())
