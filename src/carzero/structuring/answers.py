"""A language model's answer: read as JSON and checked against its form; nothing in it is run or believed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import get_args

from carzero.core.documents import parse_json
from carzero.reports.vocabulary import Laterality, Presence
from carzero.structuring.answer_cache import KeptAnswer

# Why an answer as a whole is not accepted; the words are what a repeated question tells the model.
REFUSALS = {
    "too_large": "it was too long",
    "cut_off": "it was cut off before its end",
    "refused": "no answer was given",
    "empty": "it was empty",
    "not_json": "it was no JSON",
    "wrong_schema": "it had not the required fields and values",
    "unfaithful": "most of its sentences or findings are not in the report",
    "incomplete": "it left out most sentences of the report that speak of findings",
}

_MAX_ANSWER_CHARS = 2**16
_MAX_CLAIMS = 200
_MAX_CHARS = {"sentence": 2000, "finding": 80, "location": 120, "severity": 40}
_CHOICES = {"presence": get_args(Presence), "laterality": tuple(side or "none" for side in get_args(Laterality))}
# Where an answer may begin among other words. Whatever stands around it, a fence of any spelling included, is passed
# over; no pattern here looks for the end of anything, so none can backtrack over what a model says.
_BEGINS = re.compile(r'\{\s{0,100}"findings"')
_MAX_BEGINNINGS = 16
_THOUGHT_TAGS = ("think", "thinking", "thought", "reasoning")


class InvalidAnswerError(ValueError):
    """An answer that is not accepted; `reason` is a key of `REFUSALS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(REFUSALS[reason])
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Claim:
    """A finding as the model gives it; see `ReportFinding`. The side is "none" where none is said."""

    sentence: str
    finding: str
    presence: Presence
    location: str
    laterality: str
    severity: str


def build_schema() -> dict[str, object]:
    """The JSON schema of an answer, from the records' own types.

    It keeps to what every server understands of JSON schema: it sets no lengths (`read_claims` does), and a side that
    is not said is "none", because some servers refuse an empty choice.
    """
    fields = {
        name: {"type": "string", "enum": list(_CHOICES[name])} if name in _CHOICES else {"type": "string"}
        for name in Claim.__slots__
    }
    claim = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {
        "type": "object",
        "properties": {"findings": {"type": "array", "items": claim}},
        "required": ["findings"],
        "additionalProperties": False,
    }


def read_claims(answer: KeptAnswer) -> list[Claim]:
    """Reads what a model claims: each entry with exactly the schema's fields, values of their type, choice and length.

    Thoughts before it ("<think>...</think>"), fences and words around the JSON are passed over.

    Raises:
        InvalidAnswerError: the answer has a fault, is not JSON, or has another form.
    """
    if answer.fault:
        raise InvalidAnswerError(answer.fault)
    if len(answer.content) > _MAX_ANSWER_CHARS:
        raise InvalidAnswerError("too_large")
    value = _find_json(_skip_thought(answer.content).strip("\ufeff\u200b \t\r\n"))
    entries = value.get("findings") if isinstance(value, dict) and value.keys() == {"findings"} else None
    if not isinstance(entries, list) or len(entries) > _MAX_CLAIMS or not all(map(_has_form, entries)):
        raise InvalidAnswerError("wrong_schema")
    return [Claim(**entry) for entry in entries]


def _skip_thought(content: str) -> str:
    """What follows the last end of a thought; some servers leave out its beginning."""
    lower = content.lower()
    if len(lower) != len(content):  # letters that change their number in lower case: positions would not fit
        lower = content
    ends = [lower.rfind(f"</{tag}>") + len(f"</{tag}>") for tag in _THOUGHT_TAGS if f"</{tag}>" in lower]
    return content[max(ends, default=0) :]


def _find_json(content: str) -> object:
    """The one JSON value of an answer: all of it, or the object with the findings among other words.

    Raises:
        InvalidAnswerError: there is none, or there are several that differ.
    """
    try:
        return parse_json(content)
    except ValueError:
        pass
    decoder = json.JSONDecoder()
    found: list[object] = []
    end = 0
    for number, match in enumerate(_BEGINS.finditer(content)):
        if number == _MAX_BEGINNINGS:
            raise InvalidAnswerError("not_json")
        if match.start() < end:  # inside the one before
            continue
        try:
            value, end = decoder.raw_decode(content, match.start())
        except (ValueError, RecursionError):
            continue
        found.append(value)
    if not found or any(value != found[0] for value in found):
        raise InvalidAnswerError("not_json")
    return found[0]


def _has_form(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == set(Claim.__slots__)
        and all(isinstance(value, str) for value in entry.values())
        and all(len(entry[name]) <= limit for name, limit in _MAX_CHARS.items())
        and all(entry[name] in allowed for name, allowed in _CHOICES.items())
    )
