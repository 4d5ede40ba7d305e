"""What the linter says, and how grave it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


RULES = {
    "duplicate": "two prompts are the same once cleaned",
    "near-duplicate": "two labels share a name",
    "negated-label": "the label itself denies, so its prompt is a denial",
    "denied-prompt": "a prompt denies although its label affirms",
    "affirming-negative": "a negative denies nothing",
    "weak-negative": "there are negatives, and negated prompts are known to be weak",
    "sides": "sides contradict each other",
    "not-a-finding": "the label is a normal state, a remark, a catch-all, a device, a procedure or not of the chest",
    "question": "a question is asked where the model knows statements",
    "sentence-within": "a sentence was given where a finding belongs, and the template is put before it",
    "form": "the sentence does not begin as those of training do",
    "dropped-sentence": "the released cleaning drops a sentence of one word",
    "lost-number": "the released cleaning takes a number before a full stop for a list number",
    "lost-character": "the released cleaning deletes characters that are not ASCII",
    "underscore": "an underscore joins words",
    "too-long": "the prompt has more tokens than the model reads",
    "unknown-word": "the tokenizer does not know a word",
    "broken-word": "the tokenizer breaks a word into many pieces",
    "unfamiliar": "no sentence that the weights were trained on speaks of it",
}


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One thing to know about a prompt set.

    Attributes:
        severity: "error": the score cannot mean what the label says; "warning": it is likely to mislead; "note": worth
            knowing.
        rule: a key of `RULES`.
        label: the label; "" where the whole set is meant.
        prompt: the prompt; "" where the label is meant.
        message: what, the text in question, and the next step.
    """

    severity: Severity
    rule: str
    label: str
    prompt: str
    message: str

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return asdict(self)
