"""Lint rules that look at labels: what they name, whether prompts agree with them, and how they differ from others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from carzero.errors import describe
from carzero.prompts.lint_finding import LintFinding, Severity
from carzero.prompts.lint_wording import strip_form
from carzero.prompts.prompt_set import PromptSet
from carzero.prompts.training_words import TrainingWords
from carzero.reports.agreement import report_presence
from carzero.reports.naming import to_singular
from carzero.reports.rules import find_findings
from carzero.reports.vocabulary import canonical_finding
from carzero.text.cleaning import clean_text, split_words


@dataclass(frozen=True, slots=True)
class NotFinding:
    """A kind of label that is not a finding.

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


_LONGEST_NAME = 500  # characters; the patterns take time that grows with the square
_KINDS = (
    NotFinding(
        "normal state",
        "warning",
        re.compile(
            r"no (?:significant |acute |active )?(?:findings?|abnormalit\w+|diseases?|pathology)|healthy|negative|"
            r"(?:the )?(?:heart and lungs|lungs?|chest|study|film|radiograph)?(?: is| are)? ?"
            r"(?:normal|clear|unremarkable)(?: (?:chest|lungs?|study|film|radiograph))?"
        ),
        "a normal state is not recognised by asking for it",
        "compute it from the findings (the lower the highest calibrated probability, the likelier normal), or ask for "
        "--labels abnormal and read it the other way round",
    ),
    NotFinding(
        "remark on the study",
        "warning",
        re.compile(
            r"exclude|(?:the findings are )?(?:unchanged|stable)|suboptimal(?: study| quality)?|poor quality|uncertain"
            r"|unknown|undetermined|technically limited|rotated|follow up|comparison"
        ),
        "one image does not show it",
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
        "an image shows traces of it at most",
        "ask for the trace, such as sternotomy wires",
    ),
)


def match_not_finding(name: str, asked: Sequence[str] = ()) -> NotFinding | None:
    """Returns the kind of a label that is not a finding, or None.

    Args:
        name: the label, cleaned: lower case, single blanks.
        asked: what its prompts ask for, cleaned. A prompt may well speak of a device or a procedure beside a finding,
            so these two kinds are told by the label alone.
    """
    short = [text for text in asked if len(text) <= _LONGEST_NAME]
    by_label = (kind for kind in _KINDS if len(name) <= _LONGEST_NAME and kind.pattern.fullmatch(name))
    by_prompts = (kind for kind in _KINDS if kind.severity != "note" and any(map(kind.pattern.fullmatch, short)))
    return next(by_label, None) or next(by_prompts, None)


_OPENS_DENIAL = frozenset({"no", "not", "without", "normal", "absent", "negative", "clear", "unremarkable"})
_DENIES = frozenset({"no", "not", "without", "absent", "absence", "never", "neither", "nor", "negative"})
_STATES = frozenset(
    {"normal", "negative", "clear", "unremarkable"}
)  # deny a finding, unless they are all that is asked
_FILLERS = frozenset({"a", "an", "the", "of", "in", "on", "at"})


def lint_names(prompt_set: PromptSet, known: TrainingWords | None = None) -> Iterator[LintFinding]:
    """Finds labels that name no finding; one that the weights were trained to answer may be asked for."""
    for label, prompts in prompt_set:
        if (kind := _kind(label, prompts)) and not _is_trained(kind, prompts, known):
            message = describe(f"This is a {kind.kind} and no finding: {kind.why}", then=kind.then)
            yield LintFinding(kind.severity, "not-a-finding", label, "", message)


def lint_denials(prompt_set: PromptSet, known: TrainingWords | None = None) -> Iterator[LintFinding]:
    """Finds labels and prompts that deny where they should affirm, and negatives that do not deny."""
    for label, prompts in prompt_set:
        denied = bool(_OPENS_DENIAL.intersection(_words(label)[:1]))
        kind = _kind(label, prompts)
        is_trained = kind is not None and _is_trained(kind, prompts, known)
        opening = _OPENS_DENIAL - _STATES if _is_state(kind) else _OPENS_DENIAL  # "normal" is told as a state alone
        for prompt in () if is_trained else prompts:
            if denied and opening.intersection(strip_form(prompt).split()[:1]):
                message = describe("The prompt is a denial", got=prompt, then="ask for the findings that it denies")
                yield LintFinding("warning", "negated-label", label, prompt, message)
            elif not denied and _DENIES.intersection(_words(prompt)) and not _is_affirmed(label, prompt):
                yield _denied_prompt(label, prompt)
        if denied or _is_state(kind):
            continue
        for negative in prompt_set.entry(label).negative:
            if not (_DENIES | _OPENS_DENIAL).intersection(_words(negative)):
                message = describe("The negative denies nothing", got=negative, expected='"There is no ..."')
                yield LintFinding("warning", "affirming-negative", label, negative, message)


def lint_sides(prompt_set: PromptSet) -> Iterator[LintFinding]:
    """Finds sentences of one label that name different sides, or another side than the label."""
    for label, prompts in prompt_set:
        known = _side(label)
        for prompt in (*prompts, *prompt_set.entry(label).negative):
            side = _side(prompt)
            if "unilateral" in _words(prompt) and side == "both sides":
                yield _contradiction(label, prompt, "both sides", "one side")
            elif known and side and side != known:
                yield _contradiction(label, prompt, side, known)
            known = known or side


def lint_duplicates(prompt_set: PromptSet) -> Iterator[LintFinding]:
    """Finds prompts that are one text once cleaned."""
    owners: dict[str, str] = {}
    for label, prompts in prompt_set:
        for prompt in prompts:
            text = clean_text(prompt)
            if owners.get(text) == label:
                message = describe("Another prompt of this label is the same; it counts twice", then="drop one")
                yield LintFinding("warning", "duplicate", label, prompt, message)
            elif text in owners:
                message = describe(f'"{owners[text]}" asks the same; both get one score', then="reword or drop one")
                yield LintFinding("error", "duplicate", label, prompt, message)
            owners.setdefault(text, label)
        for negative in prompt_set.entry(label).negative:
            if clean_text(negative) in _texts(prompts):
                message = describe("The label is affirmed and denied by one sentence", then="reword one")
                yield LintFinding("error", "duplicate", label, negative, message)


def lint_near_duplicates(prompt_set: PromptSet) -> Iterator[LintFinding]:
    """Finds labels that share a name, by label, prompt or synonym, up to plural, order and small words."""
    owners: dict[tuple[str, ...], str] = {}
    for label, prompts in prompt_set:
        shared: dict[str, str] = {}
        for form, name in _names(prompt_set, label).items():
            other = owners.setdefault(form, label)
            if other != label and not set(_texts(prompts)).intersection(_texts(prompt_set.prompts[other])):
                shared.setdefault(other, name)
        for other, name in shared.items():
            message = describe(f'It shares the name "{name}" with "{other}"', then="check that the two differ")
            yield LintFinding("warning", "near-duplicate", label, "", message)


def _kind(label: str, prompts: tuple[str, ...]) -> NotFinding | None:
    return match_not_finding(" ".join(_words(label)), [strip_form(prompt) for prompt in prompts])


_TRAINABLE = ("normal state", "catch-all")  # kinds that a sentence of training may state of a whole image


def _is_trained(kind: NotFinding, prompts: tuple[str, ...], known: TrainingWords | None) -> bool:
    """Whether the weights were trained on what a label that is not a finding asks ("The lungs are clear")."""
    return kind.kind in _TRAINABLE and known is not None and not any(map(known.find_unfamiliar, prompts))


def _is_state(kind: NotFinding | None) -> bool:
    return kind is not None and kind.kind in ("normal state", "remark on the study")


def _is_affirmed(label: str, prompt: str) -> bool:
    """Whether a prompt affirms its label though it denies something: "Pneumothorax without tension"."""
    name = canonical_finding(label)
    return name is not None and report_presence(find_findings(prompt)).get(name) == "present"


def _denied_prompt(label: str, prompt: str) -> LintFinding:
    certain = set(_words(label)) <= set(_words(prompt))
    message = describe(
        "The prompt denies, but its label does not", got=prompt, then='move it to the label\'s "negative" sentences'
    )
    return LintFinding("error" if certain else "warning", "denied-prompt", label, prompt, message)


def _contradiction(label: str, prompt: str, side: str, other: str) -> LintFinding:
    message = describe(f"The sentence says {side}, the label or another of its sentences {other}", then="choose one")
    return LintFinding("error", "sides", label, prompt, message)


def _side(text: str) -> str:
    words = set(_words(text))
    if words & {"bilateral", "both"} or {"left", "right"} <= words:
        return "both sides"
    return next((side for side in ("left", "right") if side in words), "")


def _words(text: str) -> list[str]:
    return [part for words in split_words(text.replace("_", " ")) for part in words]


def _texts(prompts: tuple[str, ...]) -> list[str]:
    return [clean_text(prompt) for prompt in prompts]


def _names(prompt_set: PromptSet, label: str) -> dict[tuple[str, ...], str]:
    """Every name of a label in a form that plural, order and small words do not change, to the name as written."""
    asked = [strip_form(prompt) for prompt in prompt_set.prompts[label]]
    names = [*asked, *prompt_set.entry(label).synonyms, label]
    forms = {tuple(sorted(to_singular(word) for word in _words(name) if word not in _FILLERS)): name for name in names}
    forms.pop((), None)
    return forms
