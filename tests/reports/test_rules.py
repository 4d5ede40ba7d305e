"""The rules back end: what a sentence affirms, denies and doubts, where, on which side and how badly."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carzero.reports.rules import RuleAligner, find_findings
from carzero.reports.schema import ReportFinding

FIXTURE = Path(__file__).parent / "fixtures" / "negation_sentences.jsonl"
SENTENCES = [json.loads(line) for line in FIXTURE.read_text(encoding="utf-8").splitlines()]


def read(text: str) -> dict[str, set[str]]:
    """Finding to the presences that a text gives it."""
    found: dict[str, set[str]] = {}
    for finding in find_findings(text):
        found.setdefault(finding.finding, set()).add(finding.presence)
    return found


def facts(finding: ReportFinding) -> tuple[str, str, str, str, str]:
    return finding.finding, finding.presence, finding.location, finding.laterality, finding.severity


@pytest.mark.parametrize("held_out", [False, True], ids=["tuned on", "held out"])
def test_at_most_one_denial_in_a_hundred_is_read_as_present(held_out: bool) -> None:
    denials = [each for each in SENTENCES if "absent" in each["findings"].values() and each["held_out"] == held_out]
    wrong = [
        each["text"]
        for each in denials
        if any(
            presence == "absent" and "present" in read(each["text"]).get(name, ())
            for name, presence in each["findings"].items()
        )
    ]
    assert len(denials) > 150
    assert len(wrong) <= 0.01 * len(denials), wrong


@pytest.mark.parametrize("held_out", [False, True], ids=["tuned on", "held out"])
def test_labelled_sentences_are_read_as_labelled(held_out: bool) -> None:
    labels = [
        (each["text"], name, presence)
        for each in SENTENCES
        if each["held_out"] == held_out
        for name, presence in each["findings"].items()
    ]
    wrong = [
        (text, name, presence, read(text).get(name))
        for text, name, presence in labels
        if presence not in read(text).get(name, ())
    ]
    assert len(wrong) <= 0.05 * len(labels), wrong


def test_the_fixture_is_what_it_says() -> None:
    assert len(SENTENCES) >= 300
    assert len({each["text"] for each in SENTENCES}) == len(SENTENCES)
    assert {presence for each in SENTENCES for presence in each["findings"].values()} == {
        "present",
        "absent",
        "uncertain",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No effusion, pneumothorax or consolidation.", {"pleural effusion": "absent", "pneumothorax": "absent"}),
        ("No effusion, but a pneumothorax.", {"pleural effusion": "absent", "pneumothorax": "present"}),
        ("No effusion; pneumothorax on the left.", {"pleural effusion": "absent", "pneumothorax": "present"}),
        ("No change in the effusion.", {"pleural effusion": "present"}),
        ("The effusion has resolved.", {"pleural effusion": "absent"}),
        ("Pneumothorax: no.", {"pneumothorax": "absent"}),
        ("There isn't a pneumothorax.", {"pneumothorax": "absent"}),
        ("History of pneumonia.", {}),
        ("If pneumonia is suspected, repeat.", {}),
        ("Opacity may represent pneumonia.", {"lung opacity": "present", "pneumonia": "uncertain"}),
        ("Pneumonia cannot be excluded.", {"pneumonia": "uncertain"}),
        ("Atelectasis versus pneumonia.", {"atelectasis": "uncertain", "pneumonia": "uncertain"}),
        ("Likely atelectasis.", {"atelectasis": "present"}),
        ("The lungs are clear.", {"consolidation": "absent", "lung opacity": "absent"}),
        ("Heart size is at the upper limits of normal.", {"cardiomegaly": "absent"}),
        ("Borderline heart size.", {"cardiomegaly": "present"}),
        ("The heart is enlarged, and the lungs are clear.", {"cardiomegaly": "present", "consolidation": "absent"}),
        ("Normal heart, enlarged right hilum.", {"cardiomegaly": "absent", "hilar enlargement": "present"}),
        (
            "Calcified lymph nodes and granuloma.",
            {"lymph node calcification": "present", "calcified granuloma": "present"},
        ),
        ("Fractures of the left ribs.", {"rib fracture": "present"}),
    ],
)
def test_presence(text: str, expected: dict[str, str]) -> None:
    found = read(text)
    assert {name: found.get(name) for name in expected} == {name: {presence} for name, presence in expected.items()}
    assert expected or not found


def test_a_narrower_name_takes_the_place_of_the_wider_one() -> None:
    assert set(read("Calcified left upper lobe 5 mm granuloma.")) == {"calcified granuloma"}
    assert set(read("Fractures of the left ribs.")) == {"rib fracture"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Right lower lobe pneumonia.", ("pneumonia", "present", "lower lobe", "right", "")),
        ("Small left pleural effusion.", ("pleural effusion", "present", "", "left", "small")),
        ("The left effusion is small.", ("pleural effusion", "present", "", "left", "small")),
        ("The effusion has minimally decreased.", ("pleural effusion", "present", "", "", "")),
        ("Bibasilar atelectasis.", ("atelectasis", "present", "base", "bilateral", "")),
        ("Scarring in the lung bases.", ("scarring", "present", "base", "bilateral", "")),
        ("Opacities in both lungs.", ("lung opacity", "present", "", "bilateral", "")),
        ("Atelectasis in the left lung.", ("atelectasis", "present", "lung", "left", "")),
        ("Elevation of the right hemidiaphragm.", ("elevated hemidiaphragm", "present", "", "right", "")),
        ("The right hemidiaphragm is mildly elevated.", ("elevated hemidiaphragm", "present", "", "right", "mild")),
        ("Blunting of the left costophrenic angle.", ("costophrenic angle blunting", "present", "", "left", "")),
        ("Effusions, right greater than left.", ("pleural effusion", "present", "", "bilateral", "")),
        ("Mild to moderate cardiomegaly.", ("cardiomegaly", "present", "", "", "moderate")),
        ("The heart is large.", ("cardiomegaly", "present", "", "", "")),
        ("The heart is moderately enlarged.", ("cardiomegaly", "present", "", "", "moderate")),
        ("No left pneumothorax.", ("pneumothorax", "absent", "", "left", "")),
    ],
)
def test_place_side_and_severity(text: str, expected: tuple[str, ...]) -> None:
    assert [facts(finding) for finding in find_findings(text)] == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Effusion in the left base and right apical scarring.", {"pleural effusion": "left", "scarring": "right"}),
        ("Left base opacity representing atelectasis.", {"lung opacity": "left", "atelectasis": "left"}),
        ("Left base opacity, likely scarring.", {"lung opacity": "left", "scarring": "left"}),
        ("Atelectasis or scarring in the right base.", {"atelectasis": "right", "scarring": "right"}),
        ("Right pneumothorax, left effusion.", {"pneumothorax": "right", "pleural effusion": "left"}),
        ("Left effusion and cardiomegaly.", {"pleural effusion": "left", "cardiomegaly": ""}),
    ],
)
def test_findings_share_a_place_only_where_the_words_do(text: str, expected: dict[str, str]) -> None:
    assert {finding.finding: finding.laterality for finding in find_findings(text)} == expected


def test_two_sides_are_two_findings_each_with_its_grade() -> None:
    found = find_findings("Moderate right and small left pleural effusions.")
    assert {(finding.laterality, finding.severity) for finding in found} == {("right", "moderate"), ("left", "small")}


def test_sections_that_do_not_describe_the_film_are_not_read() -> None:
    report = "INDICATION: Pneumonia?\n\nCOMPARISON: Effusion in May.\n\nFINDINGS: Cardiomegaly."
    assert set(read(report)) == {"cardiomegaly"}


def test_every_finding_points_at_its_sentence() -> None:
    text = "FINDINGS: The heart is\n enlarged.\n\nIMPRESSION: 1. No effusion. 2. 1.5 cm nodule, Dr. X told."
    for finding in find_findings(text):
        start, end = finding.span
        assert " ".join(text[start:end].split()) == finding.sentence
    assert [finding.sentence for finding in find_findings(text)][:2] == ["The heart is enlarged", "No effusion"]


def test_an_aligned_report_keeps_its_text_and_says_each_sentence_once() -> None:
    text = "No effusion. No effusion. Mild cardiomegaly."
    report = RuleAligner().align("r1", text)
    assert (report.report_id, report.text, report.backend) == ("r1", text, "rules")
    assert report.sentences == ("There is no pleural effusion", "There is mild cardiomegaly")
    assert len(report.findings) == 3


@pytest.mark.parametrize("text", ["", " \n", "...", "\x00\x01", "1. 2. 3.", "___", "XXXX XXXX.", "none"])
def test_a_text_that_says_nothing_has_no_findings(text: str) -> None:
    assert find_findings(text) == []


def test_case_does_not_matter() -> None:
    text = "Mild cardiomegaly. No left effusion. Possible pneumonia."
    assert [facts(f) for f in find_findings(text)] == [facts(f) for f in find_findings(text.upper())]
    assert [facts(f) for f in find_findings(text)] == [facts(f) for f in find_findings(text.lower())]


LABELLED = st.sampled_from([each["text"] for each in SENTENCES])


@settings(max_examples=200)
@given(st.lists(LABELLED, min_size=1, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_sentences_permutes_findings_only(sentences: list[str], random: object) -> None:
    shuffled = list(sentences)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = find_findings("\n\n".join(sentences)), find_findings("\n\n".join(shuffled))
    assert sorted(map(facts, first)) == sorted(map(facts, second))


@pytest.mark.parametrize("first", ["no ptx", "no effusion/pneumothorax", "Could this be pneumonia?", "Effusion?"])
@pytest.mark.parametrize(
    "second",
    [
        "No increase in the size of the right pneumothorax.",
        "No complication of the new right jugular line such as pneumothorax.",
        "Not significantly changed bilateral effusions.",
        "Absent in the interval are any of the previously described right-sided rib fractures.",
    ],
)
def test_a_sentence_that_names_a_finding_at_its_end_answers_nothing(first: str, second: str) -> None:
    together = find_findings(f"{first}\n\n{second}")
    assert list(map(facts, together)) == [facts(each) for text in (first, second) for each in find_findings(text)]


def test_a_long_answer_is_one_too() -> None:
    [effusion] = find_findings("Effusion?\n\nYes, on the left side, as seen on both of the projections obtained today.")
    assert facts(effusion) == ("pleural effusion", "present", "", "left", "")


@settings(max_examples=300)
@given(st.text(alphabet=st.sampled_from("noefusip ,.;:/\n\x00_1") | st.characters(), max_size=200))
def test_no_text_breaks_the_reading(text: str) -> None:
    for finding in find_findings(text):
        assert text[slice(*finding.span)]


@pytest.mark.parametrize(
    "part",
    [
        *["no ptx ", "no ptx with ", "heart enlarged ", "prominent hilum ", "no effusion, mild ", "possible ptx or "],
        *[".", ".x", ":", "\n", " ", "dr. ", "1. A ", "FINDINGS: ", "INDICATION: a\n\n", "-", "_", "\x00", "İ", "x"],
        "left and right lower lobe opacity, and the ",
    ],
)
def test_a_long_hostile_text_takes_time_in_proportion_to_its_length(part: str) -> None:
    text = part * (200_000 // len(part))
    start = time.process_time()
    assert RuleAligner().align("hostile", text).text == text
    assert time.process_time() - start < 120  # of this process alone; a search that takes the square would need more
