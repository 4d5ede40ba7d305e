"""Reports taken apart: headings, sections, sentences, and that every span points at what it says."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carzero.reports.sections import described_spans, find_sections, sentence_spans, split_sentences

MIMIC = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with cough  // infiltrate?

 COMPARISON:  ___

 FINDINGS:

 The lungs are clear.  A 1.5 cm nodule projects over
 the right base.

 IMPRESSION:

 1. Nodule at the right base.
 2. No effusion.
"""


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("No effusion.", {"": "No effusion."}),
        ("FINDINGS: Clear. IMPRESSION: Normal.", {"findings": "Clear.", "impression": "Normal."}),
        ("Findings: Clear.\nImpression: Normal.", {"findings": "Clear.", "impression": "Normal."}),
        ("FINDINGS AND IMPRESSION: Clear.", {"findings and impression": "Clear."}),
        ("IMPRESSION\nClear.", {"impression": "Clear."}),
        ("Impression\nClear.", {"impression": "Clear."}),
        ("no stop here IMPRESSION: Clear", {"": "no stop here", "impression": "Clear"}),
        ("CHEST, PA AND LATERAL: Clear.", {"chest, pa and lateral": "Clear."}),
        ("Lungs: clear. Heart: large.", {"": "Lungs: clear. Heart: large."}),
        ("IMPRESSION: One. IMPRESSION: Two.", {"impression": "One. Two."}),
        ("INDICATION: Cough.\n\nThe lungs are clear.", {"indication": "Cough.", "": "The lungs are clear."}),
        ("COMPARISON: None.\n\n\nFINDINGS: Clear.", {"comparison": "None.", "findings": "Clear."}),
        ("FINDINGS: Chest Comparison: None. Heart large.", {"chest comparison": "None", "": "Heart large."}),
        ("Unchanged from the prior\nstudy\nof May.", {"": "Unchanged from the prior\nstudy\nof May."}),
        ("Stable compared to the prior study: no effusion.", {"": "Stable compared to the prior study: no effusion."}),
        (
            "Before.\nFINDINGS:\nLungs: Clear.\nFINDINGS: More.",
            {"": "Before.", "findings": "Lungs: Clear. More."},
        ),
        ("", {}),
        (" \n\t ", {}),
    ],
)
def test_sections_are_split_at_headings(text: str, sections: dict[str, str]) -> None:
    found: dict[str, str] = {}
    for section in find_sections(text):
        found[section.name] = f"{found.get(section.name, '')} {text[section.start : section.end].strip()}".strip()
    assert found == sections


def test_a_mimic_report_is_taken_apart() -> None:
    sections = {section.name: section.describes for section in find_sections(MIMIC)}
    assert sections == {
        "examination": False,
        "indication": False,
        "comparison": False,
        "findings": True,
        "impression": True,
    }
    sentences = [" ".join(MIMIC[start:end].split()) for start, end in described_spans(MIMIC)]
    assert sentences == [
        "The lungs are clear",
        "A 1.5 cm nodule projects over the right base",
        "Nodule at the right base",
        "No effusion",
    ]


@pytest.mark.parametrize("heading", ["INDICATION", "Clinical history", "REASON FOR EXAM", "Technique", "COMPARISON"])
def test_sections_that_do_not_describe_the_film_are_left_out(heading: str) -> None:
    assert described_spans(f"{heading}: Pneumonia, effusion.") == []
    assert sentence_spans(f"{heading}: Pneumonia, effusion.") != []


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Heart normal. Lungs clear.", ["Heart normal", "Lungs clear"]),
        ("Heart normal. Lungs clear", ["Heart normal", "Lungs clear"]),
        ("A 1.5 cm nodule at T12. No effusion.", ["A 1.5 cm nodule at T12", "No effusion"]),
        ("Seen by Dr. Smith at noon. Clear.", ["Seen by Dr. Smith at noon", "Clear"]),
        ("Atelectasis vs. pneumonia. Clear.", ["Atelectasis vs. pneumonia", "Clear"]),
        ("1. Cardiomegaly. 2. No effusion.", ["Cardiomegaly", "No effusion"]),
        ("1. Cardiomegaly 2. No effusion", ["Cardiomegaly", "No effusion"]),
        ("1) Cardiomegaly\n2) No effusion", ["Cardiomegaly", "No effusion"]),
        ("- Cardiomegaly\n- No effusion\n* Scoliosis", ["Cardiomegaly", "No effusion", "Scoliosis"]),
        ("Clear lungs.No effusion.Heart normal", ["Clear lungs", "No effusion", "Heart normal"]),
        ("No effusion.. Heart normal. .", ["No effusion", "Heart normal"]),
        ("Compared to ___. There is XXXX scarring.", ["Compared to ___", "There is XXXX scarring"]),
        ("Broken over\nlines. Next", ["Broken over lines", "Next"]),
        ("One paragraph\n\nAnother", ["One paragraph", "Another"]),
        ("Is it pneumonia? Yes!", ["Is it pneumonia", "Yes"]),
        ("HEART SIZE NORMAL. NO EFFUSION", ["HEART SIZE NORMAL", "NO EFFUSION"]),
        ("1.", []),
        ("...", []),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


def test_a_sentence_without_end_is_cut() -> None:
    text = "word " * 1000
    spans = sentence_spans(text)
    assert all(end - start <= 1000 for start, end in spans)
    assert " ".join(text[start:end] for start, end in spans).split() == text.split()
    assert [end - start for start, end in sentence_spans("x" * 2500)] == [1000, 1000, 500]


@given(st.text(alphabet=st.sampled_from("aB1 .:\n\r\t;-*?!()_\x00\u2022é") | st.characters(), max_size=300))
def test_spans_lie_in_order_and_point_at_text(text: str) -> None:
    spans = sentence_spans(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)
    assert set(described_spans(text)) <= set(spans)
    assert split_sentences(text) == [" ".join(text[start:end].split()) for start, end in spans]


@given(
    st.lists(st.sampled_from(["FINDINGS: ", "INDICATION: ", "The heart is large. ", "No effusion\n", "\n\n", "1. "]))
)
def test_sections_cover_the_text_without_overlap(parts: list[str]) -> None:
    text = "".join(parts)
    sections = find_sections(text)
    assert all(first.end <= second.start for first, second in itertools.pairwise(sections))
    kept = "".join(text[section.start : section.end] for section in sections)
    assert kept.count("heart") == text.count("heart")
    assert kept.count("effusion") == text.count("effusion")
