"""The linter of prompt sets: what a set asks that its author did not mean. It reports and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from carzero.errors import describe
from carzero.prompts.lint_finding import LintFinding
from carzero.prompts.lint_labels import lint_denials, lint_duplicates, lint_names, lint_near_duplicates, lint_sides
from carzero.prompts.lint_wording import WordPieces, lint_length, lint_tokens, lint_wording
from carzero.prompts.prompt_set import PromptSet
from carzero.prompts.training_words import TrainingWords

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_RELEASED_LENGTH = 97


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


_NAMED = 8  # findings, in a message


def _lint_unfamiliar(prompt_set: PromptSet, known: TrainingWords) -> Iterator[LintFinding]:
    """Finds prompts that no training sentence speaks of. Whatever the words, the model gives them a score."""
    frequent = sorted(known.findings, key=lambda name: (-known.findings[name], name))
    for label, prompts in prompt_set:
        for prompt in prompts:
            if strange := known.find_unfamiliar(prompt):
                message = describe(
                    "No sentence that these weights were trained on speaks of it, and its score may mean nothing",
                    got=", ".join(strange),
                    expected=f"what they know: {', '.join(frequent[:_NAMED])}" + (", ..." * (len(frequent) > _NAMED)),
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
