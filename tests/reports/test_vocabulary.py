"""The finding vocabulary: consistent with itself, and wide enough for the label sets of the field."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from carzero.reports import lexicon
from carzero.reports.vocabulary import canonical_finding, expand_phrase, load_language, load_vocabulary, pluralise

CHESTXRAY14 = (
    "Atelectasis, Cardiomegaly, Effusion, Infiltration, Mass, Nodule, Pneumonia, Pneumothorax, Consolidation, Edema, "
    "Emphysema, Fibrosis, Pleural Thickening, Hernia"
)
CHEXPERT = (
    "Enlarged Cardiomediastinum, Cardiomegaly, Lung Opacity, Lung Lesion, Edema, Consolidation, Pneumonia, "
    "Atelectasis, Pneumothorax, Pleural Effusion, Pleural Other, Fracture, Support Devices"
)
# Classes of PadChest that are not findings of a chest radiograph.
NO_FINDINGS = {"Exclude", "Unchanged", "DAI (Diffuse Axonal Injury)", "End on Vessel"}


@pytest.mark.parametrize("label", [*CHESTXRAY14.split(", "), *CHEXPERT.split(", ")])
def test_the_label_sets_have_names_here(label: str) -> None:
    assert canonical_finding(label) in load_vocabulary().findings


def test_the_prompts_of_the_benchmarks_have_names_here(shared: Path) -> None:
    for path in (shared / "benchmarks").glob("*/prompts.json"):
        prompts = json.loads(path.read_text(encoding="utf-8")).values()
        labels = {prompt[0].removeprefix("There is ") for prompt in prompts}
        assert {label for label in labels if canonical_finding(label) is None} <= NO_FINDINGS, path


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("pleural effusion", "pleural effusion"),
        ("Pleural  EFFUSIONS", "pleural effusion"),
        ("air-fluid level", "air-fluid level"),
        ("lobar pneumonia", "pneumonia"),
        ("PICC line", "central venous catheter"),
        ("no finding", None),
        ("", None),
    ],
)
def test_canonical_names(words: str, name: str | None) -> None:
    assert canonical_finding(words) == name


def test_ancestors_are_in_the_vocabulary_and_without_circles() -> None:
    vocabulary = load_vocabulary()
    for name in vocabulary.findings:
        ancestors = vocabulary.ancestors(name)
        assert name not in ancestors
        assert set(ancestors) <= set(vocabulary.findings)
    assert vocabulary.ancestors("lung nodule") == ("lung lesion",)
    assert vocabulary.ancestors("cholecystectomy clips") == ("surgical clips", "support device")
    assert vocabulary.ancestors("nothing of the kind") == ()


def test_every_device_is_a_support_device() -> None:
    vocabulary = load_vocabulary()
    for name, entry in vocabulary.findings.items():
        is_one = name == "support device" or "support device" in vocabulary.ancestors(name)
        assert is_one == (entry.kind == "device")


def test_names_are_lower_case_words() -> None:
    for name in load_vocabulary().findings:
        assert name == " ".join(name.lower().split())


@pytest.mark.parametrize(
    ("pattern", "wordings"),
    [
        ("edema", {"edema"}),
        ("left/right lung", {"left lung", "right lung"}),
        ("(median) sternotomy", {"sternotomy", "median sternotomy"}),
        ("(a/b) c/d", {"c", "d", "a c", "b c", "a d", "b d"}),
    ],
)
def test_phrases_are_written_out(pattern: str, wordings: set[str]) -> None:
    assert set(expand_phrase(pattern)) == wordings


@pytest.mark.parametrize("pattern", ["(only)", "(two words) here", "a/b/c/d/e " * 5])
def test_phrases_that_mean_nothing_or_too_much_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="phrase"):
        expand_phrase(pattern)


@pytest.mark.parametrize(
    ("one", "many"),
    [("opacity", "opacities"), ("metastasis", "metastases"), ("apex", "apexes"), ("mass", "masses"), ("rib", "ribs")],
)
def test_plurals(one: str, many: str) -> None:
    assert pluralise(one) == many


def test_plain_words_are_read_as_the_long_way_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    phrases = [phrase for phrase, _ in lexicon._language_entries(load_language())]
    phrases += [phrase for phrase, _ in lexicon._vocabulary_entries(load_vocabulary())]
    phrases += ["r o effusion", "effusion n o oedema", "no o", "bl effusions", "pna", "cant see it", "a  b", " a", ""]
    short = [lexicon.tokenize(phrase) for phrase in phrases]
    monkeypatch.setattr(lexicon, "_PLAIN_WORDS", re.compile(r"(?!)"))
    assert [lexicon.tokenize(phrase) for phrase in phrases] == short
