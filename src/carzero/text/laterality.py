"""Left and right in sentences: a mirrored chest needs the mirrored words, and some words have no mirror.

A sentence says a side by a word ("left", "Rt", "dextroscoliosis"), by a letter ("L", "R-sided") or in an abbreviation
("RLL", "LIJ"). Most of them have a counterpart, and are exchanged. Others do not: there is no left middle lobe, the
lingula is on the left, and a mirrored heart has its left ventricle on the other side without becoming a right one.
What has no counterpart is not exchanged, and its image must not be mirrored.
"""

from __future__ import annotations

import re

# Words and abbreviations of one side, and of the other.
_PAIRS = (
    ("left", "right"),
    ("lt", "rt"),
    ("leftsided", "rightsided"),
    ("lefthand", "righthand"),
    ("leftmost", "rightmost"),
    ("leftward", "rightward"),
    ("leftwards", "rightwards"),
    ("levo", "dextro"),
    ("sinister", "dexter"),
    ("counterclockwise", "clockwise"),
    ("lul", "rul"),  # upper and lower lobe
    ("lll", "rll"),
    ("luz", "ruz"),  # upper, mid, lower zone
    ("lmz", "rmz"),
    ("llz", "rlz"),
    ("luq", "ruq"),  # quadrants
    ("llq", "rlq"),
    ("lue", "rue"),  # extremities
    ("lle", "rle"),
    ("lij", "rij"),  # internal jugular and subclavian vein, with and without the last letter
    ("lijv", "rijv"),
    ("lsc", "rsc"),
    ("lscv", "rscv"),
    ("lcp", "rcp"),  # costophrenic angle
    ("lcw", "rcw"),  # chest wall
    ("lhd", "rhd"),  # hemidiaphragm
    ("lao", "rao"),  # oblique views
    ("lpo", "rpo"),
    ("lld", "rld"),  # lateral decubitus
    ("lpa", "rpa"),  # pulmonary artery
    ("lmb", "rmb"),  # main bronchus
)
_OTHER = {word: other for left, right in _PAIRS for word, other in ((left, right), (right, left))}
# Curvature, position and turning of the spine and the heart: "dextroscoliosis", "levo-convex".
_TURNS = r"(?:levo|dextro)(?=[- ]?(?:scolio|convex|concav|curv|rota|posi|card|vers|apex))"
# One letter: not "r/o" or "b/l" (bilateral), not the lumbar spine ("L spine", "L 2") and not a litre ("3 L", "mg/L",
# "L/min").
_LUMBAR = r"[- ](?:spine|spinal|vertebra|dis[ck]|\d(?!th|st|nd|rd))"
_LETTER = (
    rf"(?<![\w'’.])(?<!\bb/)(?<!ol/)(?<!g/)(?:r(?![/ ]o\b)|(?<!\d )l(?!(?:/| per )(?:min|h))(?!{_LUMBAR}))(?![\w'’])"
)
_WORDS = "|".join(sorted(_OTHER.keys() - {"levo", "dextro"}, key=len, reverse=True))
_SIDE = re.compile(rf"\b(?:{_WORDS})(?=(?:[- ]?sided)?\b)|\b{_TURNS}|{_LETTER}", re.IGNORECASE)
_LETTERS = {"l": "r", "r": "l"}

# What has a side and no counterpart on the other. Each stands for one reason.
_WITHOUT_MIRROR = re.compile(
    r"\b(?:"
    # of one lung alone
    r"rml|r\d{1,2}(?=-r?\d)|middle lobe|lingul\w*|(?:minor|horizontal|azygos) fissure|azygos lobe"
    # chambers and their failing: of the heart, wherever it lies
    r"|(?:left|right|lt|rt|[lr])[- ]?(?:sided)?[- ]?(?:ventric\w*|atri(?:um|al|a)|auric\w*|heart (?:failure|strain|"
    r"enlargement|disease|catheter\w*|pressures?)|heart(?! border| size| contour| margin)|coronary|bundle|main coronary"
    r"|anterior descending|circumflex)"
    r"|biventric\w*|[lr]v[adefhop]{0,2}|[lr]a[adeh]|(?:(?<=\bof )|(?<=\bthe )|(?<=\bin ))[lr]a|[lr]bbb"
    # the arrangement of the organs
    r"|situs|dextrotranspos\w*|levotranspos\w*|(?:[dl]-)tga|(?:left|right|l|r)[- ]to[- ](?:left|right|l|r) shunt\w*"
    # "left" and "right" that may be no sides
    r"|left (?:in|behind|over|open|untreated|alone|unchanged|as is|the (?:hospital|ward|department|room))"
    r"|(?:was|were|been|be|is|are) left (?:in|with|on|at)|right (?:now|away|angles?|angled|after|before)|all right"
    # sides in other languages
    r"|izquierd\w*|derech\w*|links\w*|rechts\w*|linke[nrsm]?|rechte[nrsm]?|gauches?|droite?s?|sinistr\w*|destr[aoi]\b"
    r"|esquerd\w*|direit\w*"
    r")(?!\w)",
    re.IGNORECASE,
)


def is_lateral(text: str) -> bool:
    """Whether a text names a side, or something that only one side has."""
    return _SIDE.search(text) is not None or not can_mirror(text)


def can_mirror(text: str) -> bool:
    """Whether every side that a text names has a counterpart; True for a text without a side.

    False also where "left" or "right" may be no side ("left in place"): the image is then better not mirrored.
    """
    return find_without_mirror(text) is None


def find_without_mirror(text: str) -> str | None:
    """The first words of a text that have no counterpart, in lower case; None where there are none."""
    found = _WITHOUT_MIRROR.search(text)
    return None if found is None else found.group(0).lower()


def mirror_sides(text: str) -> str:
    """The text with left and right exchanged, upper and lower case kept.

    Raises:
        ValueError: the text names something without a counterpart; see `can_mirror`.
    """
    if not can_mirror(text):
        raise ValueError(f"{text!r} names something that the other side does not have; ask can_mirror first.")
    return _SIDE.sub(_exchange, text)


def _exchange(match: re.Match[str]) -> str:
    word = match.group(0)
    other = _LETTERS.get(word.lower()) or _OTHER[word.lower()]
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
