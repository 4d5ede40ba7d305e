"""Lint rules that look at one sentence: what the released cleaning makes of it, and whether it has the known form."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from carzero.errors import WeightsError, describe
from carzero.prompts.lint_finding import LintFinding, Severity
from carzero.text.cleaning import clean_text, split_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_FORM = re.compile(r"there (?:is|are) ")
_QUESTION = re.compile(r"(?:is|are|was|were|do|does|did|has|have|can|could|what|which|where|who|how) ")
_LOST_NUMBER = re.compile(r"(?<![0-9])[0-9]++\.")


def lint_wording(label: str, prompt: str) -> Iterator[LintFinding]:
    """Judges a sentence by itself."""
    for rule, severity, check in _CHECKS:
        if message := check(prompt):
            yield LintFinding(severity, rule, label, prompt, message)


def strip_form(prompt: str) -> str:
    """The cleaned prompt without its "there is": what it asks for."""
    text = clean_text(prompt)
    form = _FORM.match(text)
    return text[form.end() :] if form else text


def _dropped_sentence(prompt: str) -> str:
    dropped = [words[0] for words in split_words(prompt) if len(words) == 1]
    return _reads(prompt, f'The one-word sentence "{dropped[0]}" is dropped', "make it one sentence") if dropped else ""


def _lost_number(prompt: str) -> str:
    lost = _LOST_NUMBER.search(prompt)
    return _reads(prompt, f'"{lost.group()}" is taken for a list number', "write the number in words") if lost else ""


def _lost_character(prompt: str) -> str:
    foreign = [word for words in split_words(prompt) for word in words if not word.isascii()]
    return _reads(prompt, f'Characters of "{foreign[0]}" are deleted', "write it in plain letters") if foreign else ""


def _underscore(prompt: str) -> str:
    return _reads(prompt, "An underscore joins words", "write a blank") if "_" in prompt else ""


def _question(prompt: str) -> str:
    if not prompt.rstrip().endswith("?") and not _QUESTION.match(clean_text(prompt)):
        return ""
    return describe("This is a question", got=prompt, expected="a statement", then='state it, as in "There is edema"')


def _form(prompt: str) -> str:
    if _FORM.match(clean_text(prompt)):
        return ""
    return describe("The sentence has another form than those the model was trained on", expected='"There is ..."')


_VERBS = frozenset({"is", "are", "was", "were", "shows", "show"})
_RELATIVES = frozenset({"that", "which", "who", "whose", "where"})


def _sentence_within(prompt: str) -> str:
    words = next(iter(split_words(prompt)), [])
    is_sentence = words[2:3] == ["there"] or (_VERBS.intersection(words[3:]) and _RELATIVES.isdisjoint(words))
    if not _FORM.match(clean_text(prompt)) or not is_sentence:
        return ""
    return describe(
        "A sentence stands where a finding belongs",
        got=prompt,
        expected='the name of a finding, such as "pleural effusion"',
        then="name the finding alone, or give sentences with --prompts",
    )


def _reads(prompt: str, what: str, then: str) -> str:
    return describe(f'{what}; the model reads "{clean_text(prompt)}"', then=then)


_CHECKS: tuple[tuple[str, Severity, Callable[[str], str]], ...] = (
    ("dropped-sentence", "error", _dropped_sentence),
    ("lost-number", "warning", _lost_number),
    ("lost-character", "warning", _lost_character),
    ("underscore", "warning", _underscore),
    ("question", "warning", _question),
    ("sentence-within", "warning", _sentence_within),
    ("form", "note", _form),
)


MOST_PIECES = 4
_ENDS = 2  # start and end token


class WordPieces:
    """The tokenizer of saved weights, for looking at words: read without torch and transformers.

    Args:
        path: its `tokenizer.json`.

    Raises:
        WeightsError: the file is missing, or not a tokenizer.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain exceptions
            raise WeightsError(
                describe(f"{path} cannot be read", got=str(error), expected="the tokenizer.json of the weights")
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.unk_token: str | None = getattr(self._tokenizer.model, "unk_token", None)

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text, without start and end."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).tokens)

    def count(self, text: str) -> int:
        """Tokens of a text with start and end."""
        return len(self._tokenizer.encode(text).ids)


def lint_length(
    label: str, prompt: str, tokenizer: PreTrainedTokenizerBase | WordPieces | None, max_text_length: int
) -> Iterator[LintFinding]:
    """Finds a prompt that is cut off; without a tokenizer only one whose words alone are too many."""
    text = clean_text(prompt)
    if tokenizer is None:
        count = len(text.split()) + _ENDS
    else:
        count = tokenizer.count(text) if isinstance(tokenizer, WordPieces) else len(tokenizer(text)["input_ids"])
    if count > max_text_length:
        message = describe(
            f"The prompt has {'at least ' if tokenizer is None else ''}{count} tokens",
            expected=f"at most {max_text_length}, or `carzero predict` refuses it",
            then="ask in fewer words, or split it into several prompts",
        )
        yield LintFinding("error", "too-long", label, prompt, message)


def lint_tokens(label: str, prompt: str, tokenizer: PreTrainedTokenizerBase | WordPieces) -> Iterator[LintFinding]:
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
            then="use a plainer word, or measure on labelled images before trusting the score",
        )
        yield LintFinding("warning", "broken-word", label, prompt, message)
