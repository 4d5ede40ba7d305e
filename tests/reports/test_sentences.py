"""Aligned sentences: one form, and what is read back from them is what they were made of."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import get_args

import pytest

from carzero.reports.rules import find_findings
from carzero.reports.schema import ReportFinding, aligned_sentence, aligned_sentences
from carzero.reports.vocabulary import Laterality, Presence, load_language, load_vocabulary
from carzero.text.cleaning import clean_text

FINDINGS = load_vocabulary().findings
PLACES = load_language()["places"]
SEVERITIES = ("", *load_language()["severities"])
PRESENCES: tuple[Presence, ...] = get_args(Presence)
SIDES: tuple[Laterality, ...] = get_args(Laterality)
# With a place these are read as the narrower finding that they are there.
WIDE = {"fracture", "calcification", "lucency", "arthritis", "degenerative changes"}


def make(
    finding: str, presence: Presence = "present", location: str = "", laterality: Laterality = "", severity: str = ""
) -> ReportFinding:
    return ReportFinding(finding, presence, location, laterality, severity, "", (0, 0))


def facts(finding: ReportFinding) -> tuple[str, str, str, str, str]:
    return finding.finding, finding.presence, finding.location, finding.laterality, finding.severity


@pytest.mark.parametrize(
    ("finding", "sentence"),
    [
        (make("pneumothorax"), "There is pneumothorax"),
        (make("pneumothorax", "absent"), "There is no pneumothorax"),
        (make("pneumonia", "uncertain"), "There may be pneumonia"),
        (make("pneumonia", "uncertain", "lower lobe", "right"), "There may be pneumonia in the right lower lobe"),
        (make("pleural effusion", laterality="left", severity="small"), "There is small pleural effusion on the left"),
        (make("atelectasis", location="base", laterality="bilateral"), "There is atelectasis at both bases"),
        (make("atelectasis", "absent", "base", "bilateral"), "There is no atelectasis at either base"),
        (make("pleural effusion", "absent", "", "bilateral"), "There is no pleural effusion on either side"),
        (
            make("lung mass", location="mediastinum", laterality="left"),
            "There is lung mass in the mediastinum on the left",
        ),
        (make("scarring", location="apex"), "There is scarring at the apex"),
        (make("scarring", location="somewhere new"), "There is scarring in the somewhere new"),
    ],
)
def test_the_form(finding: ReportFinding, sentence: str) -> None:
    assert aligned_sentence(finding) == sentence


def test_each_sentence_once_in_the_order_of_the_findings() -> None:
    findings = [make("pneumonia"), make("edema", "absent"), make("pneumonia")]
    assert aligned_sentences(findings) == ("There is pneumonia", "There is no edema")
    assert aligned_sentences([]) == ()


@pytest.mark.parametrize("presence", PRESENCES)
def test_every_combination_is_read_back_as_it_was(presence: Presence) -> None:
    wrong = []
    for name, entry in FINDINGS.items():
        sides = SIDES if entry.sided else ("",)
        for side, severity in itertools.product(sides, SEVERITIES):
            if (name, severity) == ("low lung volumes", "large"):
                continue  # a large low volume: the words contradict each other
            finding = make(name, presence, "", side, severity)
            if [facts(found) for found in find_findings(aligned_sentence(finding))] != [facts(finding)]:
                wrong.append(aligned_sentence(finding))
    assert not wrong


@pytest.mark.parametrize("presence", PRESENCES)
@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_read_back(place: str, presence: Presence) -> None:
    wrong = []
    for name, entry in FINDINGS.items():
        if not entry.sited or place in name:
            continue
        for side in SIDES if entry.sided else ("",):
            if place == "lung" and not side:
                continue  # "in the lung" adds nothing and is not kept
            finding = make(name, presence, place, side, "mild")
            found = find_findings(aligned_sentence(finding))
            if name in WIDE:
                same = len(found) == 1 and name in (found[0].finding, *load_vocabulary().ancestors(found[0].finding))
                same = same and found[0].presence == presence
            else:
                same = [facts(each) for each in found] == [facts(finding)]
            if not same:
                wrong.append(aligned_sentence(finding))
    assert not wrong


def test_aligning_the_aligned_sentences_of_a_report_changes_nothing() -> None:
    fixture = Path(__file__).parent / "fixtures" / "negation_sentences.jsonl"
    for line in fixture.read_text(encoding="utf-8").splitlines():
        sentences = aligned_sentences(find_findings(json.loads(line)["text"]))
        assert aligned_sentences(find_findings(". ".join(sentences))) == sentences


def test_every_sentence_survives_the_released_cleaning() -> None:
    for name, presence in itertools.product(FINDINGS, PRESENCES):
        sentence = aligned_sentence(make(name, presence, "lower lobe", "bilateral", "small"))
        assert len(clean_text(sentence).split()) == len(sentence.replace("-", " ").split())
