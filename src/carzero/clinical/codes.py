"""Codes of findings and of what else a result says: never a guessed one.

A finding has the code of its prompt file, or of the library's reviewed table (docs/prompts.md), where DICOM's own
dictionary (PS3.16, as pydicom has it) holds that code; what it means is taken from there too. Any other finding has a
code of the private scheme 99CARZERO, made of its label, with the label as its meaning.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from carzero.prompts import Code, LabelEntry, list_codes
from carzero.records import ScoreKind

SCHEME = "99CARZERO"
SCHEME_NAME = "CARZero's own codes: zero-shot findings by their label"
_LONGEST_MEANING = 64  # VR LO, PS3.5 section 6.2


@dataclass(frozen=True, slots=True)
class Concept:
    """One coded concept as DICOM writes it (PS3.3 section 8.8).

    Attributes:
        value: the code, at most 16 characters.
        scheme: designator of its scheme.
        meaning: what it means, at most 64 characters.
    """

    value: str
    scheme: str
    meaning: str


# What DICOM's dictionary has; written out, so that pydicom is not needed to read them. A test compares them with it.
PROBABILITY = Concept("122157", "DCM", "Probability")
PROCESSING_EQUIPMENT = Concept("109102", "DCM", "Processing Equipment")
OF_INTEREST = Concept("113000", "DCM", "Of Interest")
PLAIN_RADIOGRAPHY = Concept("168537006", "SCT", "Plain radiography")
CHEST = Concept("816094009", "SCT", "Chest")
NO_UNITS = Concept("1", "UCUM", "no units")
ARTIFICIAL_INTELLIGENCE = Concept("123110", "DCM", "Artificial Intelligence")
MORPHOLOGIC_ABNORMALITY = Concept("49755003", "SCT", "Morphologically Abnormal Structure")

# Code of the score of the finding of its group, and what it is called, by its kind.
_SCORES: Mapping[ScoreKind, tuple[str, str]] = {
    "logit": ("LOGIT", "Zero-shot logit"),
    "logit_difference": ("LOGIT_DIFFERENCE", "Zero-shot logit difference"),
}
NOT_CALIBRATED = Concept("RAW", SCHEME, "Raw score, not a probability, not calibrated")
CALIBRATED = Concept("CALIBRATED", SCHEME, "Calibrated on a labelled set")
INTENDED_USE = Concept("INTENDED_USE", SCHEME, "Intended use")
RESEARCH = Concept("RESEARCH", SCHEME, "Research use, not a diagnosis")
DOUBT = Concept("DOUBT", SCHEME, "Doubt about the image or the result")


def name_score(label: str, kind: ScoreKind) -> Concept:
    """The name of a finding's score: one code for all findings, and a meaning that says which finding it is.

    A meaning is for people, never a key (PS3.3 section 8.3); viewers write it, and not the finding, at a region.
    """
    code, name = _SCORES[kind]
    meaning = f"{name}, {label}"
    return Concept(code, SCHEME, meaning if len(meaning) <= _LONGEST_MEANING else f"{meaning[:61]}...")


def find_concept(label: str, entry: LabelEntry) -> Concept:
    """The code under which a finding is sent.

    Args:
        label: as the prompts name it.
        entry: what its prompt file knows of it.

    Returns:
        A code of DICOM's dictionary; or the prompt file's own, if it is not one of the library's, with the label as its
        meaning; or a private code.
    """
    known = list_codes()
    code = entry.code or known.get(label.strip().lower())
    if code is not None:
        meaning = _meanings().get((code.scheme, code.value), "")
        if meaning:
            return Concept(code.value, code.scheme, meaning)
        if code not in known.values() and _is_sendable(code):
            return Concept(code.value, code.scheme, label[:_LONGEST_MEANING])
    return Concept(hashlib.sha256(label.encode()).hexdigest()[:16], SCHEME, label[:_LONGEST_MEANING])


@functools.cache
def _meanings() -> Mapping[tuple[str, str], str]:
    """Meaning by scheme and code, the shortest where a code has several names."""
    from pydicom.sr.codedict import codes

    found: dict[tuple[str, str], str] = {}
    for scheme in ("SCT", "DCM", "RADLEX"):
        terms = getattr(codes, scheme)
        for name in terms.dir():
            try:
                code = getattr(terms, name)
            except (AttributeError, RuntimeError):  # a name of several codes
                continue
            meaning = found.get((scheme, code.value))
            if len(code.meaning) <= _LONGEST_MEANING and (meaning is None or len(code.meaning) < len(meaning)):
                found[scheme, code.value] = code.meaning
    return found


def _is_sendable(code: Code) -> bool:
    return len(code.value) <= 16 and len(code.scheme) <= 16 and (code.value + code.scheme).isascii()
