"""Left and right in sentences: every way of saying a side is exchanged, or the image is not to be mirrored."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carzero.reports.vocabulary import load_vocabulary
from carzero.text.cleaning import clean_text
from carzero.text.laterality import can_mirror, is_lateral, mirror_sides

EXCHANGED = {
    "There is effusion on the left": "There is effusion on the right",
    "RLL consolidation": "LLL consolidation",
    "LUL nodule.": "RUL nodule.",
    "Effusion on the L.": "Effusion on the R.",
    "Rt effusion, Lt clear": "Lt effusion, Rt clear",
    "R-sided effusion": "L-sided effusion",
    "L>R effusions": "R>L effusions",
    "L/R asymmetry": "R/L asymmetry",
    "L lower lobe": "R lower lobe",
    "(R) base": "(L) base",
    "there is effusion in the l lung": "there is effusion in the r lung",
    "LEFT lung": "RIGHT lung",
    "Left-sided PICC": "Right-sided PICC",
    "leftward shift, rightmost rib": "rightward shift, leftmost rib",
    "RIJ catheter": "LIJ catheter",
    "left subclavian port": "right subclavian port",
    "elevated Rt hemidiaphragm": "elevated Lt hemidiaphragm",
    "cardiac apex to the left": "cardiac apex to the right",
    "left heart border obscured": "right heart border obscured",
    "Dextroscoliosis of the spine": "Levoscoliosis of the spine",
    "mild levo-convex curvature": "mild dextro-convex curvature",
    "clips in the RUQ": "clips in the LUQ",
    "rotated clockwise": "rotated counterclockwise",
}
NO_SIDE = (
    "bilateral effusions",
    "rightly, copyright, leftover, alright",
    "compression of L1 and L 2",
    "L spine and l-spine",
    "r/o pneumonia",
    "b/l effusions, B/L opacities",
    "5 mmol/L, 2 mg/L",
    "r o pneumonia",
    "oxygen at 3 L/min, 2 L and 1.5 l",
    "litres, L per min",
    "lungs are clear",
    "low lung volumes, hilar lymph nodes",
    "the patient's chest, e.g. ribs",
)
WITHOUT_MIRROR = (
    "fractures of ribs R5-R7",
    "right middle lobe opacity",
    "RML atelectasis",
    "middle lobe collapse",
    "lingular atelectasis",
    "opacity in the lingula",
    "fluid in the minor fissure",
    "left ventricular hypertrophy",
    "LV enlargement",
    "leads in the right atrium and right ventricle",
    "tip in the RA",
    "right heart failure",
    "situs inversus",
    "the tube is left in place",
    "patient left the hospital",
    "at a right angle",
    "derrame pleural izquierdo",
    "Erguss rechts",
    "epanchement gauche",
    "RLL and RML consolidation",
)
SIDES = ("left", "right", "Left-sided", "RIGHT", "rt", "L", "r")


@pytest.mark.parametrize("text", EXCHANGED)
def test_a_side_is_exchanged_and_back(text: str) -> None:
    assert is_lateral(text)
    assert mirror_sides(text) == EXCHANGED[text]
    assert mirror_sides(EXCHANGED[text]) == text


@pytest.mark.parametrize("text", NO_SIDE)
def test_what_names_no_side_stays(text: str) -> None:
    assert not is_lateral(text)
    assert mirror_sides(text) == text


@pytest.mark.parametrize("text", WITHOUT_MIRROR)
def test_what_has_no_counterpart_is_not_exchanged(text: str) -> None:
    assert is_lateral(text)
    assert not can_mirror(text)
    with pytest.raises(ValueError, match="ask can_mirror"):
        mirror_sides(text)


def phrases() -> list[str]:
    """Every wording of the vocabulary: findings, and where they are."""
    vocabulary = load_vocabulary()
    terms = [term for finding in vocabulary.findings.values() for term in finding.terms]
    return sorted({*terms, *(phrase for anatomy in vocabulary.anatomy.values() for phrase in anatomy)})


LUMBAR = re.compile(r"\b[LR] (?:spin|vertebra|dis[ck])", re.IGNORECASE)  # lumbar, and what would read so


def sides_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:left|right)", text.lower()))


@pytest.mark.parametrize("side", SIDES)
def test_no_sentence_of_the_vocabulary_keeps_its_side(side: str) -> None:
    for phrase in phrases():
        for sentence in (f"There is {side} {phrase}", f"There is {phrase} on the {side}"):
            for text in () if LUMBAR.search(sentence) else (sentence, clean_text(sentence)):
                assert is_lateral(text), text
                if can_mirror(text):
                    assert mirror_sides(text) != text
                    assert mirror_sides(mirror_sides(text)) == text
                    if side.lower() in ("left", "right") and not sides_in(phrase):
                        assert side.lower() not in mirror_sides(text).lower()


def test_what_the_vocabulary_says_without_a_side_stays() -> None:
    sided = [phrase for phrase in phrases() if is_lateral(phrase)]
    assert "lingula" in sided
    for phrase in phrases():
        if phrase not in sided:
            assert mirror_sides(phrase) == phrase
    named = re.compile(r"left|right|lingul|middle lobe|dextro|levo|situs|azygos|fissure|ventric|lvad|\b[lr][lmu]l\b")
    assert [phrase for phrase in sided if not named.search(phrase)] == []


@given(st.lists(st.sampled_from([*EXCHANGED, *NO_SIDE]), min_size=1, max_size=5))
def test_sentences_are_exchanged_one_by_one(texts: list[str]) -> None:
    expected = "; ".join(EXCHANGED.get(text, text) for text in texts)
    assert mirror_sides("; ".join(texts)) == expected
