"""What is done to a text before it is tokenised: CARZero's released cleaning, and those of other models.

Scores depend on every step. A new cleaning is a function here and a line in `CLEANINGS`.
"""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable

from carzero.core.optional import require_extra
from carzero.errors import PromptError, describe

_NUMBERING = re.compile(r"(?<![0-9])[0-9]++\.")  # from the first digit on: a long number is read once
_TOKEN = re.compile(r"\w+")


def clean_text(text: str) -> str:
    """Returns text as the released model was trained on it: lower-case ASCII words, single spaces, no punctuation.

    Newlines become spaces; the text is split at list numbers ("2.") and at full stops; a sentence of one word or none
    is dropped; non-ASCII characters are deleted inside words. So a one-word text ("Pneumonia") comes out empty, and a
    decimal ("3.5 cm") is split. Both are quirks of the released code that its scores depend on.
    """
    kept: list[str] = []
    for words in split_words(text):
        if len(words) > 1:
            ascii_only = (word.encode("ascii", "ignore").decode("ascii") for word in words)
            kept.extend(word for word in ascii_only if word)
    return " ".join(kept)


def split_words(text: str) -> list[list[str]]:
    """Returns the lower-case words of each sentence, before `clean_text` drops sentences and deletes characters."""
    parts = [part for point in _NUMBERING.split(text.replace("\n", " ")) for part in point.split(".")]
    return [_TOKEN.findall(part.lower()) for part in parts]


def keep_text(text: str) -> str:
    """Returns text as it is: the tokenizer does what there is to do (CLIP and SigLIP in transformers; RadZero)."""
    return text


_PLAIN = re.compile(r"[ -%'-~\n\t]*")  # printable ASCII without "&": what ftfy would leave as it is


def clean_clip(text: str) -> str:
    """Returns text as OpenAI's CLIP and CheXzero clean it: repaired, HTML entities resolved, lower-case, single blanks.

    Raises:
        MissingExtraError: the text holds characters that the package ftfy repairs, and it is not installed.
    """
    if not _PLAIN.fullmatch(text):
        with require_extra("This prompt has characters that need the package ftfy", "clip", "write it in plain ASCII"):
            import ftfy
        text = ftfy.fix_text(text)
    text = html.unescape(html.unescape(text)).strip()
    return re.sub(r"\s+", " ", text).strip().lower()


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def clean_siglip(text: str) -> str:
    """Returns text as SigLIP's own tokenizer makes it: lower-case, without ASCII punctuation, single blanks."""
    return clean_siglip_cased(text.lower())


def clean_siglip_cased(text: str) -> str:
    """As `clean_siglip`, for a tokenizer that keeps capitals."""
    return re.sub(r"\s+", " ", text.translate(_PUNCTUATION)).strip()


_BERT_TOKENS = ("[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]")


def clean_biovil(text: str) -> str:
    """Returns text as BioViL takes prompts: without the punctuation at its end.

    Raises:
        PromptError: the text holds a special token.
    """
    if found := [token for token in _BERT_TOKENS if token in text]:
        raise PromptError(
            describe("A prompt holds a special token of the vocabulary", got=text, then=f"leave out {found[0]}")
        )
    return text.rstrip("!?.")


CLEANINGS: dict[str, Callable[[str], str]] = {
    "carzero": clean_text,
    "none": keep_text,
    "clip": clean_clip,
    "siglip": clean_siglip,
    "siglip_cased": clean_siglip_cased,
    "biovil": clean_biovil,
}
