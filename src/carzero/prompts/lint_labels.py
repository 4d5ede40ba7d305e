"""Lint rules that look at labels: what they name, whether prompts agree with them, and how they differ from others."""

from __future__ import annotations

from collections.abc import Iterator

from carzero.errors import describe
from carzero.prompts.lint_finding import LintFinding
from carzero.prompts.lint_wording import strip_form
from carzero.prompts.not_findings import NotFinding, match_not_finding
from carzero.prompts.prompt_set import PromptSet
from carzero.text_cleaning import clean_text, split_words

__all__ = ["lint_denials", "lint_duplicates", "lint_names", "lint_near_duplicates", "lint_sides"]

_OPENS_DENIAL = frozenset({"no", "not", "without", "normal", "absent", "negative", "clear", "unremarkable"})
_DENIES = frozenset({"no", "not", "without", "absent", "absence", "never", "neither", "nor", "negative"})
_FILLERS = frozenset({"a", "an", "the", "of", "in", "on", "at"})


def lint_names(prompt_set: PromptSet) -> Iterator[LintFinding]:
    """Finds labels that name no finding."""
    for label, prompts in prompt_set:
        if kind := _kind(label, prompts):
            message = describe(f"This is a {kind.kind} and no finding: {kind.why}", then=kind.then)
            yield LintFinding(kind.severity, "not-a-finding", label, "", message)


def lint_denials(prompt_set: PromptSet) -> Iterator[LintFinding]:
    """Finds labels and prompts that deny where they should affirm, and negatives that do not deny."""
    for label, prompts in prompt_set:
        denied = bool(_OPENS_DENIAL.intersection(_words(label)[:1]))
        for prompt in prompts:
            if denied and _OPENS_DENIAL.intersection(strip_form(prompt).split()[:1]):
                message = describe("The prompt is a denial", got=prompt, then="ask for the findings that it denies")
                yield LintFinding("warning", "negated-label", label, prompt, message)
            elif not denied and _DENIES.intersection(_words(prompt)):
                yield _denied_prompt(label, prompt)
        if denied or _is_state(_kind(label, prompts)):
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


def _is_state(kind: NotFinding | None) -> bool:
    return kind is not None and kind.kind in ("normal state", "remark on the study")


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
    forms = {tuple(sorted(_singular(word) for word in _words(name) if word not in _FILLERS)): name for name in names}
    forms.pop((), None)
    return forms


def _singular(word: str) -> str:
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "is", "us")) else word
