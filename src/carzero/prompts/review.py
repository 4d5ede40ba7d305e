"""What is to be known of prompts before their scores are trusted: the linter, and what is shown wherever they stand.

The linter says what a set asks that its author did not mean. It reports and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from carzero.core.remarks import warn_once
from carzero.errors import describe
from carzero.prompts.lint_finding import LintFinding
from carzero.prompts.lint_labels import lint_denials, lint_duplicates, lint_names, lint_near_duplicates, lint_sides
from carzero.prompts.lint_wording import WordPieces, lint_length, lint_tokens, lint_wording
from carzero.prompts.prompt_set import PromptSet
from carzero.prompts.training_words import FILE_NAME, TrainingWords

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_RELEASED_LENGTH = 97
_FREQUENT = 8  # findings, in a message
_NAMED = 5  # labels in a line


def lint(
    prompt_set: PromptSet,
    tokenizer: PreTrainedTokenizerBase | WordPieces | None = None,
    max_text_length: int = _RELEASED_LENGTH,
    known: TrainingWords | None = None,
) -> list[LintFinding]:
    """Looks for what makes scores mean something else than their labels say.

    Args:
        prompt_set: what is asked. Prompts and negatives are read; synonyms only to find labels that share a name.
        tokenizer: of the weights that will be asked; None leaves out the rules that need it.
        max_text_length: tokens that these weights read.
        known: what these weights were trained on; None where that is not known. A normal state or "abnormal" that
            they were trained on may be asked for.

    Returns:
        Findings in the order of the labels, those on the whole set last; see `lint_finding.RULES`.
    """
    findings = [
        *_lint_sentences(prompt_set, tokenizer, max_text_length),
        *lint_names(prompt_set, known),
        *lint_denials(prompt_set, known),
        *lint_sides(prompt_set),
        *lint_duplicates(prompt_set),
        *lint_near_duplicates(prompt_set),
        *(() if known is None else _lint_unfamiliar(prompt_set, known)),
    ]
    place = {label: index for index, label in enumerate(prompt_set.labels)}
    return sorted(findings, key=lambda finding: place[finding.label]) + _lint_set(prompt_set)


def _lint_sentences(
    prompt_set: PromptSet, tokenizer: PreTrainedTokenizerBase | WordPieces | None, max_text_length: int
) -> Iterator[LintFinding]:
    for label, prompts in prompt_set:
        for sentence in (*prompts, *prompt_set.entry(label).negative):
            yield from lint_wording(label, sentence)
            yield from lint_length(label, sentence, tokenizer, max_text_length)
            if tokenizer is not None:
                yield from lint_tokens(label, sentence, tokenizer)


def _lint_unfamiliar(prompt_set: PromptSet, known: TrainingWords) -> Iterator[LintFinding]:
    """Finds prompts that no training sentence speaks of. Whatever the words, the model gives them a score."""
    frequent = sorted(known.findings, key=lambda name: (-known.findings[name], name))
    for label, prompts in prompt_set:
        for prompt in prompts:
            if strange := known.find_unfamiliar(prompt):
                message = describe(
                    "No sentence that these weights were trained on speaks of it, and its score may mean nothing",
                    got=", ".join(strange),
                    expected=f"what they know: {', '.join(frequent[:_FREQUENT])}"
                    + (", ..." * (len(frequent) > _FREQUENT)),
                    then="measure it on labelled images before trusting it",
                )
                yield LintFinding("warning", "unfamiliar", label, prompt, message)


def _lint_set(prompt_set: PromptSet) -> list[LintFinding]:
    if not any(prompt_set.entry(label).negative for label in prompt_set.labels):
        return []
    message = describe(
        "Negated prompts are weak: later papers measured 0.39-0.49 AUROC for them, below chance",
        then="read absence from a low score of the positive prompt",
    )
    return [LintFinding("note", "weak-negative", "", "", message)]


NOT_KNOWN = f"not known: these weights carry no {FILE_NAME}"

_MARK_CHARS = 200  # of the mark in a table, which every row repeats


class PromptWarning(UserWarning):
    """A prompt whose score is likely to mislead."""


class PromptsRecord(TypedDict):
    """What a manifest says of the prompts.

    Attributes:
        unfamiliar: labels of which no training sentence speaks, or why that is not known.
        prompt_warnings: what the linter says, each with `severity`, `rule`, `label`, `prompt` and `message`.
    """

    unfamiliar: list[str] | str
    prompt_warnings: list[dict[str, object]]


@dataclass(frozen=True, slots=True)
class PromptReview:
    """What the linter says of prompts that are asked of certain weights.

    Attributes:
        findings: errors and warnings, in the order of the labels; notes are left to `carzero prompts lint`.
        unfamiliar: labels of which no training sentence speaks; None where that is not known.
        doubt: why it is not known, where the weights say something that cannot be believed; else "".
    """

    findings: tuple[LintFinding, ...]
    unfamiliar: tuple[str, ...] | None
    doubt: str = ""

    @property
    def mark(self) -> str:
        """The unfamiliar labels as the column `unfamiliar` of a table names them; "" where there are none."""
        return _join(self.unfamiliar or (), _MARK_CHARS)

    @property
    def lines(self) -> list[str]:
        """One line a rule: the labels, and what is to be known of the first."""
        rules = dict.fromkeys(finding.rule for finding in self.findings)
        told = [_tell([finding for finding in self.findings if finding.rule == rule]) for rule in rules]
        return [*told, *([self.doubt] if self.doubt else [])]

    def to_manifest(self) -> PromptsRecord:
        """Plain values for the manifest of scores."""
        unknown = self.doubt or NOT_KNOWN
        return {
            "unfamiliar": unknown if self.unfamiliar is None else list(self.unfamiliar),
            "prompt_warnings": [finding.to_dict() for finding in self.findings],
        }

    def warn(self, stacklevel: int = 2) -> None:
        """Says each line as a `PromptWarning` of the code that asked."""
        for line in self.lines:
            warn_once(line, PromptWarning, stacklevel=stacklevel + 1)


def review_prompts(
    prompt_set: PromptSet,
    tokenizer: PreTrainedTokenizerBase | WordPieces | None,
    max_text_length: int,
    known: TrainingWords | None,
    doubt: str = "",
) -> PromptReview:
    """Looks at prompts as `lint` does.

    Args:
        prompt_set: what is asked.
        tokenizer: of the weights; None leaves out what needs it.
        max_text_length: tokens that the weights read.
        known: what the weights were trained on; None where that is not known.
        doubt: why it is not known, where that is to be said.
    """
    findings = lint(prompt_set, tokenizer, max_text_length, known)
    strange = tuple(dict.fromkeys(finding.label for finding in findings if finding.rule == "unfamiliar"))
    return PromptReview(
        tuple(finding for finding in findings if finding.severity != "note"),
        None if known is None else strange,
        doubt,
    )


def _tell(findings: Sequence[LintFinding]) -> str:
    first = findings[0]
    labels = list(dict.fromkeys(finding.label for finding in findings))
    others = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    named = ", ".join(f'"{label}"' for label in labels[:_NAMED])
    of_first = "" if len(labels) == 1 else f'For "{first.label}": '
    return f"{first.rule}: {named}{others}. {of_first}{first.message}"


def _join(labels: Sequence[str], most: int) -> str:
    """Labels in one text of bounded length, the number of those left out behind it."""
    for count in range(len(labels), 0, -1):
        rest = len(labels) - count
        text = "; ".join(labels[:count]) + (f"; and {rest} more" if rest else "")
        if len(text) <= most:
            return text
    return f"{len(labels)} labels" if labels else ""
