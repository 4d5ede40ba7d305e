"""What weights were trained on, kept beside them: what it marks, how it is bound, and what every door says."""

from __future__ import annotations

import json
import shutil
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from carzero import ZeroShotClassifier
from carzero.errors import WeightsError
from carzero.inference.score_table import load_scores, mark_unfamiliar, save_scores, to_frame
from carzero.prompts import PromptSet, PromptWarning, TrainingWords
from carzero.prompts.review import NOT_KNOWN, review_prompts
from carzero.prompts.training_words import FILE_NAME, load_training_words
from carzero.training.batches.statements import FindingStatements, ReportStatements
from carzero.training.recipe_sections import ReportSection
from carzero.training.recipes import load_recipe
from carzero.weights.source import WeightsSource, example_film
from tests.support.commands import ROOT, in_process

LISTS = ROOT / "benchmarks" / "unfamiliar_prompts"
DEMO = WeightsSource("demo")


def demo_words() -> TrainingWords:
    assert DEMO.training_words is not None
    return DEMO.training_words


@pytest.mark.parametrize("name", ["first", "second", "third"])
@pytest.mark.parametrize(("kind", "is_marked"), [("findings", True), ("nothing", True), ("own", False)])
def test_what_the_demo_was_not_trained_on_is_marked_and_its_own_is_not(name: str, kind: str, is_marked: bool) -> None:
    content = yaml.safe_load((LISTS / f"{name}.yaml").read_text(encoding="utf-8"))
    phrases = content.get(kind, ["consolidation"])
    prompts = [p if p.startswith(("There ", "The lungs ")) else f"There is {p}" for p in phrases]
    wrong = [prompt for prompt in prompts if bool(demo_words().find_unfamiliar(prompt)) != is_marked]
    assert len(wrong) <= 0.1 * len(prompts), wrong


@pytest.mark.parametrize(
    ("prompt", "strange"),
    [
        ("There is banana", ["banana"]),
        ("There is pneumonia and a bicycle", ["bicycle"]),
        ("There is left", ["There is left"]),
        ("There is lung", ["lung"]),
        ("There is a large heart", ["cardiomegaly"]),
        ("There is 肺炎", ["肺炎"]),
        ("There is 12", ["There is 12"]),
        ("There is no pneumothorax", ["pneumothorax"]),
        ("There is " + "banana " * 3000, ["banana"]),
        ("There is PNA", []),
        ("There are no signs of severe left-sided pulmonary oedema", []),
        ("The lungs are clear", []),
        ("There is abnormal", []),
    ],
)
def test_what_of_a_prompt_is_unfamiliar(prompt: str, strange: list[str]) -> None:
    assert demo_words().find_unfamiliar(prompt)[:1] == strange[:1]


def test_the_bundled_file_is_what_the_recipe_writes(tmp_path: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "demo" / "recipe.yaml")
    assert recipe.sentences is not None
    findings = list(recipe.sentences)
    statements = FindingStatements(recipe.sentences, [findings, []], [[], findings], wording=recipe.wording)
    words = TrainingWords.of(statements.count_sentences(np.arange(2)))
    assert (words.words, words.wordings, set(words.findings)) == (
        demo_words().words,
        demo_words().wordings,
        set(demo_words().findings),
    )


def test_a_finding_that_no_image_has_is_not_learned() -> None:
    statements = FindingStatements({"pneumonia": ["pneumonia"], "edema": ["edema"]}, [["pneumonia"]], [["edema"]])
    assert statements.count_sentences(np.arange(1)) == {"There is pneumonia": 1, "There is no edema": 1}
    words = TrainingWords.of(statements.count_sentences(np.arange(1)))
    assert list(words.findings) == ["pneumonia"]


def test_words_of_few_reports_are_not_kept_and_nothing_can_be_read_back(tmp_path: Path) -> None:
    pools = [["There is thymectomy", "There is effusion"]] * 3 + [["Seen by Dr Zapfenstreich"]]
    counted = ReportStatements(pools, ReportSection()).count_sentences(np.arange(4))
    words = TrainingWords.of(counted, least=3)
    assert words.find_unfamiliar("There is thymectomy") == []
    assert words.find_unfamiliar("There is Zapfenstreich") == ["zapfenstreich"]
    words.save(tmp_path, "0" * 64)
    assert "thymectomy" not in (tmp_path / FILE_NAME).read_text()
    assert load_training_words(tmp_path) is not None
    joined = words.joined(TrainingWords.of(Counter({"There is mass": 2})))
    assert joined.find_unfamiliar("There is a mass and effusion") == []


@pytest.mark.parametrize(
    "content",
    [
        "not JSON",
        "[]",
        '{"format": 2}',
        '{"format": 1, "weights_sha256": "a", "sentences": 1, "findings": {"a": "b"}, "words": [], "wordings": []}',
        '{"format": 1, "weights_sha256": "a", "sentences": 1, "findings": {}, "words": ["a"], "wordings": []}',
        '{"format": 1, "weights_sha256": 1, "sentences": 1, "findings": {}, "words": [], "wordings": []}',
        "[" * 100_000,
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(WeightsError, match="delete it: no score depends on it"):
        load_training_words(tmp_path)


def test_a_file_of_other_weights_is_not_believed_and_weights_without_one_say_so(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(DEMO.folder, folder)
    content = json.loads((folder / FILE_NAME).read_text())
    (folder / FILE_NAME).write_text(json.dumps({**content, "weights_sha256": "0" * 64}))
    asked = PromptSet.from_labels(["pneumonia", "banana"])
    review = WeightsSource(folder).review(asked)
    assert review.unfamiliar is None
    assert "written for other weights" in str(review.to_manifest()["unfamiliar"])
    assert "written for other weights" in review.lines[-1]
    (folder / FILE_NAME).unlink()
    review = WeightsSource(folder).review(asked)
    assert (review.to_manifest()["unfamiliar"], review.lines, review.mark) == (NOT_KNOWN, [], "")
    assert WeightsSource(folder).sha256 == DEMO.sha256, "no journal or bank is lost by the file"


def test_lines_and_mark_are_bounded() -> None:
    asked = PromptSet.from_labels([f"word{chr(97 + at % 26)}{chr(97 + at // 26)}" for at in range(200)])
    review = review_prompts(asked, None, 97, demo_words())
    assert review.unfamiliar is not None
    assert len(review.unfamiliar) == 200
    assert len(review.mark) <= 200
    assert review.mark.endswith(" more")
    assert len(review.lines) == 1
    assert " and 195 more" in review.lines[0]


def test_the_column_survives_writing_and_reading(tmp_path: Path) -> None:
    keys = dict.fromkeys(("image_id", "path", "study_uid", "series_uid", "sop_uid", "view", "warnings"), "a")
    frame = to_frame([{**keys, "logit:banana": 1.0}], ["banana"])
    assert "unfamiliar" not in mark_unfamiliar(frame.copy(), "").columns
    marked = mark_unfamiliar(frame, "banana")
    for suffix in ("csv", "parquet", "json"):
        save_scores(marked, tmp_path / f"s.{suffix}", {})
        assert list(load_scores(tmp_path / f"s.{suffix}").columns) == list(marked.columns)


class TestDoors:
    def test_the_commands(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "scores.csv"
        asked = ("--labels", "pneumonia,banana,normal,No effusion")
        code, _, stderr = in_process(capsys, "predict", example_film(), *asked, "--out", out)
        assert code == 0, stderr
        assert 'warning: unfamiliar: "banana", "normal"' in stderr
        assert "--labels abnormal" in stderr
        assert "negated-label" in stderr
        table = load_scores(out)
        assert list(table["unfamiliar"]) == ["banana; normal"]
        assert table["logit:banana"].dtype == np.float32
        manifest = json.loads((tmp_path / "scores.csv.manifest.json").read_text())
        assert manifest["unfamiliar"] == ["banana", "normal"]
        assert {each["rule"] for each in manifest["prompt_warnings"]} >= {"unfamiliar", "not-a-finding"}
        code, stdout, stderr = in_process(capsys, "ground", example_film(), "--labels", "banana,pneumonia", "--json")
        assert code == 0, stderr
        assert json.loads(stdout)["manifest"]["unfamiliar"] == ["banana"]
        assert 'unfamiliar: "banana"' in stderr

    def test_python(self) -> None:
        classifier = ZeroShotClassifier.from_pretrained("demo")
        with pytest.warns(PromptWarning, match="unfamiliar") as caught:
            table = classifier.predict([example_film()], labels=["banana", "abnormal"])
        assert caught[0].filename == __file__
        assert (list(table["unfamiliar"]), table.attrs["prompts"]["unfamiliar"]) == (["banana"], ["banana"])
        with warnings.catch_warnings():
            warnings.simplefilter("error", PromptWarning)
            own = classifier.predict([example_film()], labels=["pneumonia", "abnormal", "pleural effusion"])
        assert "unfamiliar" not in own.columns
        with pytest.warns(PromptWarning, match="unfamiliar"):
            classifier.ground(example_film(), ["banana"])
