"""Labels that name no finding, as data sets have them: a normal state, a remark on the study, a catch-all, a device."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from carzero.prompts.lint_finding import Severity

__all__ = ["NotFinding", "match_not_finding"]


@dataclass(frozen=True, slots=True)
class NotFinding:
    """A kind of label that is no finding.

    Attributes:
        kind: its name.
        severity: how grave it is to ask for it.
        pattern: what labels of this kind look like, over cleaned text.
        why: what to know.
        then: what to do.
    """

    kind: str
    severity: Severity
    pattern: re.Pattern[str]
    why: str
    then: str


_KINDS = (
    NotFinding(
        "normal state",
        "warning",
        re.compile(
            r"no (?:significant |acute |active )?(?:findings?|abnormalit\w+|diseases?|pathology)|healthy|negative|"
            r"(?:the )?(?:heart and lungs|lungs?|chest|study|film|radiograph)?(?: is| are)? ?(?:normal|clear)"
            r"(?: (?:chest|lungs?|study|film|radiograph))?"
        ),
        "a normal state is not recognised by asking for it",
        "judge it from the scores of the findings",
    ),
    NotFinding(
        "remark on the study",
        "warning",
        re.compile(
            r"exclude|(?:the findings are )?(?:unchanged|stable)|suboptimal(?: study| quality)?|poor quality|uncertain"
            r"|unknown|undetermined|technically limited|rotated|follow up|comparison"
        ),
        "one film does not show it",
        "leave the label out",
    ),
    NotFinding(
        "catch-all",
        "warning",
        re.compile(
            r"others?\b.*|.* others?|abnormal"
            r"|(?:an )?(?:abnormal )?(?:lesions?|findings?|abnormality|abnormalities|diseases?)"
        ),
        "it names nothing that a sentence could ask for",
        "ask for what it covers, by name",
    ),
    NotFinding(
        "condition outside the chest",
        "warning",
        re.compile(r".*\b(?:axonal|brain|cerebral|intracranial|skull|knee|hip|pelvic|retina\w*)\b.*"),
        "no chest radiograph shows it",
        "check what the label's abbreviation stands for",
    ),
    NotFinding(
        "device or material",
        "note",
        re.compile(
            r".*\b(?:devices?|tubes?|catheters?|pacemakers?|defibrillators?|stents?|shunts?|\w*prosthes[ie]s|implants?"
            r"|artificial|suture|osteosynthesis|hardware|cement|metal|metallic object|foreign bod(?:y|ies)|wires?"
            r"|clips?|drains?|(?:central|venous|arterial|picc) lines?)\b.*"
        ),
        "it is an object and no disease",
        "read its score as whether the object is seen",
    ),
    NotFinding(
        "procedure",
        "note",
        re.compile(r".*\b(?:surgery|\w+ectomy|sternotomy|thoracotomy|radiotherapy|transplant\w*)\b.*"),
        "a film shows traces of it at most",
        "ask for the trace, such as sternotomy wires",
    ),
)


def match_not_finding(name: str, asked: Sequence[str] = ()) -> NotFinding | None:
    """Returns the kind of a label that is no finding, or None.

    Args:
        name: the label, cleaned: lower case, single blanks.
        asked: what its prompts ask for, cleaned. A prompt may well speak of a device or a procedure beside a finding,
            so these two kinds are told by the label alone.
    """
    by_label = (kind for kind in _KINDS if kind.pattern.fullmatch(name))
    by_prompts = (kind for kind in _KINDS if kind.severity != "note" and any(map(kind.pattern.fullmatch, asked)))
    return next(by_label, None) or next(by_prompts, None)
