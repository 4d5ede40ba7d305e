"""The linter: every rule has a set that triggers it, and one like it that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from carzero.errors import WeightsError
from carzero.prompts import LintFinding, PromptSet, TrainingWords, lint, list_prompt_sets, load_prompt_set
from carzero.prompts.lint_finding import RULES
from carzero.prompts.lint_wording import WordPieces
from carzero.text.tokenizers import build_wordpiece_tokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "there", "is", "edema", "right", "lung", "h"]
PIECES += ["##a", "##e", "##m", "##o", "##t"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(PIECES))
    return build_wordpiece_tokenizer(path)


def findings_of(mapping: dict[str, Any], rule: str, *arguments: Any) -> list[LintFinding]:
    return [finding for finding in lint(PromptSet.from_mapping(mapping), *arguments) if finding.rule == rule]


def both(positive: str, negative: str, **rest: Any) -> dict[str, Any]:
    return {"positive": positive, "negative": negative, **rest}


WITHOUT_TOKENIZER: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    (
        "duplicate",
        "error",
        {"a": "There is edema", "b": "there is EDEMA."},
        {"a": "There is edema", "b": "There is gas"},
    ),
    ("duplicate", "warning", {"a": ["There is edema", "There is edema!"]}, {"a": ["There is edema", "There is gas"]}),
    ("duplicate", "error", {"a": both("There is a", "There is a.")}, {"a": both("There is a", "There is no a")}),
    (
        "near-duplicate",
        "warning",
        {"Mass": both("There is mass", "There is no mass", synonyms=["masses in the lung"]), "b": "There is lung mass"},
        {"Mass": "There is mass", "Lung mass": "There is lung mass"},
    ),
    (
        "near-duplicate",
        "warning",
        {"Edema": "There is fluid", "edemas": "There is water"},
        {"a": "There is fluid", "b": "In b"},
    ),
    ("negated-label", "warning", {"No Finding": "There is No Finding"}, {"No Finding": "The heart and lungs are well"}),
    ("negated-label", "warning", {"Normal": "There is no finding"}, {"Nodule": "There is nodule"}),
    ("negated-label", "warning", {"normal heart size": "There is normal heart size"}, {"normal": "There is normal"}),
    ("negated-label", "warning", {"no finding": "There is no finding"}, {"normal lungs": "There is normal lungs"}),
    ("not-a-finding", "warning", {"unremarkable": "There is unremarkable"}, {"edema": "There is unremarkable edema"}),
    ("negated-label", "warning", {"without edema": "There is without edema"}, {"Nonunion": "There is nonunion"}),
    ("sentence-within", "warning", {"a": "There is There is edema"}, {"a": "There is edema"}),
    (
        "sentence-within",
        "warning",
        {"a": "There is the heart is enlarged"},
        {"a": "There is a tube that is too deep. It is new."},
    ),
    ("denied-prompt", "error", {"edema": "There is no edema"}, {"No edema": "There is no edema"}),
    (
        "denied-prompt",
        "warning",
        {"gas": "There is air without walls"},
        {"gas": both("There is gas", "There is no gas")},
    ),
    (
        "affirming-negative",
        "warning",
        {"a": both("There is a", "There is b")},
        {"a": both("There is a", "It is not a")},
    ),
    (
        "affirming-negative",
        "warning",
        {"edema": both("There is edema", "There is an abnormality")},
        {"normal": both("The lungs are fine", "There is an abnormality")},
    ),
    ("weak-negative", "note", {"a": both("There is a", "There is no a")}, {"a": "There is a"}),
    ("sides", "error", {"left rib": "There is right rib"}, {"left rib": "There is left rib"}),
    ("sides", "error", {"a": ["There is left-sided a", "There is right a"]}, {"a": ["There is left a", "There is a"]}),
    ("sides", "error", {"a": both("There is left a", "There is no right a")}, {"a": "There is a, left and right"}),
    ("sides", "error", {"a": "There is unilateral, bilateral a"}, {"a": "There is bilateral a, larger on the left"}),
    ("question", "warning", {"a": "Is there a"}, {"a": "There is a"}),
    ("question", "warning", {"a": "There is edema?"}, {"a": "Island of bone is there"}),
    ("form", "note", {"a": "Edema is seen"}, {"a": ["There is edema", "there are nodules"]}),
    ("dropped-sentence", "error", {"a": "Pneumonia. There is edema"}, {"a": "There is pneumonia. There is edema."}),
    ("lost-number", "warning", {"a": "There is nodule of 3.5 cm"}, {"a": "There is nodule of 3 cm"}),
    ("lost-number", "warning", {"a": "There is fracture of rib 5."}, {"a": "There is fracture of rib 5"}),
    ("lost-character", "warning", {"a": "There is naïve edema"}, {"a": "There is edema – mild"}),
    ("underscore", "warning", {"a": "There is Pleural_Thickening"}, {"Pleural_Thickening": "There is thickening"}),
    ("too-long", "error", {"a": "There is " + "very " * 94 + "edema"}, {"a": "There is " + "very " * 92 + "edema"}),
    (
        "not-a-finding",
        "note",
        {"Support Devices": "There is support device"},
        {"Kerley lines": "There is kerley lines"},
    ),
]


@pytest.mark.parametrize(("rule", "severity", "wrong", "right"), WITHOUT_TOKENIZER)
def test_each_rule_finds_what_it_is_for_and_nothing_else(
    rule: str, severity: str, wrong: dict[str, Any], right: dict[str, Any]
) -> None:
    found = findings_of(wrong, rule)
    assert [finding.severity for finding in found] == [severity]
    assert found[0].label in {*wrong, ""}
    assert found[0].message.endswith(".")
    assert findings_of(right, rule) == []


def test_every_rule_is_described_and_tried() -> None:
    of_weights = {"unknown-word", "broken-word", "unfamiliar"}
    assert {rule for rule, *_ in WITHOUT_TOKENIZER} | of_weights == set(RULES)


def test_what_weights_were_trained_on_is_familiar_and_a_trained_state_may_be_asked() -> None:
    known = TrainingWords.of({"There is edema": 9, "The lungs are clear": 9, "There is an abnormality": 3})
    mapping = {"edema": "There is edema", "mass": "There is mass", "clear": "The lungs are clear"}
    assert [f.label for f in findings_of(mapping, "unfamiliar", None, 97, known)] == ["mass"]
    states = {"clear": "The lungs are clear", "abnormal": "There is abnormal", "normal": "There is normal"}
    assert [f.label for f in findings_of(states, "not-a-finding")] == ["clear", "abnormal", "normal"]
    found = findings_of(states, "not-a-finding", None, 97, known)
    assert [f.label for f in found] == ["normal"]
    assert "--labels abnormal" in found[0].message


def test_a_saved_tokenizer_breaks_words_as_the_loaded_one(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    saved = WordPieces(tmp_path / "tokenizer.json")
    asked = {"a": "There is h a e m a t o m a edema haematoma", "b": "There is xylophone"}
    assert lint(PromptSet.from_mapping(asked), saved, 8) == lint(PromptSet.from_mapping(asked), tokenizer, 8)
    with pytest.raises(WeightsError, match=r"tokenizer\.json of the weights"):
        WordPieces(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("label", "severity", "kind"),
    [
        ("No Finding", "warning", "normal state"),
        ("normal", "warning", "normal state"),
        ("Lungs are clear", "warning", "normal state"),
        ("exclude", "warning", "remark on the study"),
        ("suboptimal study", "warning", "remark on the study"),
        ("unchanged", "warning", "remark on the study"),
        ("Pleural Other", "warning", "catch-all"),
        ("Other disease", "warning", "catch-all"),
        ("Lesion", "warning", "catch-all"),
        ("Support Devices", "note", "device or material"),
        ("NSG tube", "note", "device or material"),
        ("central line", "note", "device or material"),
        ("surgery breast", "note", "procedure"),
        ("mastectomy", "note", "procedure"),
        ("Lung Lesion", "", ""),
        ("heart valve calcified", "", ""),
        ("abnormal foreign bodies", "note", "device or material"),
        ("hip fracture", "warning", "condition outside the chest"),
        ("Hiatal hernia", "", ""),
        ("brachial cyst", "", ""),
    ],
)
def test_labels_that_are_no_findings(label: str, severity: str, kind: str) -> None:
    found = findings_of({label: "There is such a thing"}, "not-a-finding")
    assert [finding.severity for finding in found] == ([severity] if kind else [])
    assert all(f"This is a {kind} and no finding" in finding.message for finding in found)


def test_a_prompt_may_speak_of_devices_beside_a_finding_but_not_of_the_brain() -> None:
    assert findings_of({"atelectasis": "There is atelectasis beside a tube"}, "not-a-finding") == []
    (found,) = findings_of({"dai": "There is DAI (Diffuse Axonal Injury)"}, "not-a-finding")
    assert "outside the chest" in found.message


def test_messages_say_what_the_model_reads_and_what_to_do() -> None:
    (dropped,) = findings_of({"a": "Pneumonia. There is edema"}, "dropped-sentence")
    assert dropped.message == (
        'The one-word sentence "pneumonia" is dropped; the model reads "there is edema". Make it one sentence.'
    )
    (number,) = findings_of({"a": "There is nodule of 3.5 cm"}, "lost-number")
    assert 'the model reads "there is nodule of 5 cm"' in number.message
    (shared,) = findings_of(
        {"a": "There is fluid", "b": both("There is b", "No b here", synonyms=["fluid"])}, "near-duplicate"
    )
    assert shared.label == "b"
    assert 'It shares the name "fluid" with "a"' in shared.message


def test_words_that_the_tokenizer_breaks_or_does_not_know(tokenizer: PreTrainedTokenizerBase) -> None:
    broken = {"a": "There is haematoma"}
    (found,) = findings_of(broken, "broken-word", tokenizer)
    assert found.severity == "warning"
    assert "'haematoma': 'h ##a ##e ##m ##a ##t ##o ##m ##a'" in found.message
    assert findings_of(broken, "broken-word") == [], "only the weights' tokenizer can tell"
    assert findings_of({"a": "There is right lung haem"}, "broken-word", tokenizer) == []

    (found,) = findings_of({"a": "There is zebra edema"}, "unknown-word", tokenizer)
    assert found.severity == "error"
    assert "got 'zebra'" in found.message
    assert findings_of({"a": "There is edema"}, "unknown-word", tokenizer) == []


def test_length_is_counted_in_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    asked = {"a": "There is haematoma"}
    (found,) = findings_of(asked, "too-long", tokenizer, 12)
    assert "The prompt has 13 tokens; expected at most 12" in found.message
    assert findings_of(asked, "too-long", tokenizer, 13) == []
    (found,) = findings_of(asked, "too-long", None, 4)
    assert "at least 5 tokens" in found.message


def test_negatives_are_read_too() -> None:
    (found,) = findings_of({"a": both("There is a", "Edema. There is no a")}, "dropped-sentence")
    assert found.prompt == "Edema. There is no a"


def test_findings_come_in_the_order_of_the_labels() -> None:
    asked = PromptSet.from_mapping(
        {"b": both("Is b there", "There is no b"), "a": "There is no a", "normal": "It is so"}
    )
    found = lint(asked)
    assert [finding.label for finding in found] == ["b", "b", "a", "normal", "normal", ""]
    assert found[0].to_dict().keys() == {"severity", "rule", "label", "prompt", "message"}


def test_what_it_says_of_the_papers_prompts() -> None:
    """The figures of docs/prompts.md."""
    said = {
        name: [finding for finding in lint(load_prompt_set(name, "paper")) if finding.severity != "note"]
        for name in ("chestxray14", "chexpert5", "padchest192", "padchest20", "chestxdet10", "openi18")
    }
    assert {name: [finding.label for finding in found] for name, found in said.items() if found} == {
        "padchest192": ["dai", "exclude", "suboptimal study", "unchanged"],
        "openi18": ["Lesion"],
    }
    assert {finding.rule for found in said.values() for finding in found} == {"not-a-finding"}
    assert len(lint(load_prompt_set("padchest192", "paper"))) == 45


def test_sets_of_the_library_have_no_errors_in_any_wording() -> None:
    for name in ("chestxray14", "chexpert14", "padchest192", "chestxdet10", "openi18", "vindr28"):
        for variant in ("pairs", "synonyms"):
            found = [finding for finding in lint(load_prompt_set(name, variant)) if finding.severity != "note"]
            assert {finding.rule for finding in found} <= {"not-a-finding"}, (name, variant)


def test_a_set_is_not_changed(tmp_path: Path) -> None:
    asked = load_prompt_set("padchest192")
    before = asked.hash
    lint(asked)
    assert asked.hash == before


def test_the_page_lists_every_rule_and_set() -> None:
    page = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert f"| `{rule}`" in page, rule
    for record in list_prompt_sets():
        assert f"| `{record.name}` | {record.labels} | {', '.join(record.variants)} | {record.coded} |" in page
