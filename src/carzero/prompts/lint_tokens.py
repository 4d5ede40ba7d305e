"""Lint rules that ask the tokenizer of the weights how it reads a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from carzero.errors import describe
from carzero.prompts.lint_finding import LintFinding
from carzero.text_cleaning import clean_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["MOST_PIECES", "lint_length", "lint_tokens"]

MOST_PIECES = 4
_ENDS = 2  # start and end token


def lint_length(
    label: str, prompt: str, tokenizer: PreTrainedTokenizerBase | None, max_text_length: int
) -> Iterator[LintFinding]:
    """Finds a prompt that is cut off; without a tokenizer only one whose words alone are too many."""
    text = clean_text(prompt)
    count = len(text.split()) + _ENDS if tokenizer is None else len(tokenizer(text)["input_ids"])
    if count > max_text_length:
        message = describe(
            f"The prompt has {'at least ' if tokenizer is None else ''}{count} tokens",
            expected=f"at most {max_text_length}, or `carzero predict` refuses it",
            then="ask in fewer words, or split it into several prompts",
        )
        yield LintFinding("error", "too-long", label, prompt, message)


def lint_tokens(label: str, prompt: str, tokenizer: PreTrainedTokenizerBase) -> Iterator[LintFinding]:
    """Finds words that the tokenizer does not know, or knows only in more than `MOST_PIECES` pieces."""
    pieces = {word: tokenizer.tokenize(word) for word in clean_text(prompt).split()}
    unknown = [word for word, parts in pieces.items() if tokenizer.unk_token in parts or not parts]
    broken = {
        word: " ".join(parts) for word, parts in pieces.items() if len(parts) > MOST_PIECES and word not in unknown
    }
    if unknown:
        message = describe("The tokenizer does not know a word", got=", ".join(unknown), then="use another word")
        yield LintFinding("error", "unknown-word", label, prompt, message)
    if broken:
        message = describe(
            f"The tokenizer breaks a word into more than {MOST_PIECES} pieces; these weights hardly know it",
            got=broken,
            then="use a plainer word, or measure on labelled films before trusting the score",
        )
        yield LintFinding("warning", "broken-word", label, prompt, message)
