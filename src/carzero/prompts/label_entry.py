"""What is known of a label beside the prompts that are scored: denials, other names, a code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from carzero.errors import PromptError, describe

__all__ = ["Code", "LabelEntry", "read_record", "to_record"]

_RECORD_KEYS = ("positive", "negative", "synonyms", "code")


@dataclass(frozen=True, slots=True)
class Code:
    """A finding's code in a terminology.

    Attributes:
        scheme: DICOM's designator of the terminology (PS3.16): "SCT" is SNOMED CT, "RADLEX", "DCM" is DICOM itself.
        value: the code as text, so that no digit is lost.
    """

    scheme: str
    value: str


@dataclass(frozen=True, slots=True)
class LabelEntry:
    """What is known of a label; nothing of it enters a score or the hash of a prompt set.

    Attributes:
        negative: sentences that deny the finding.
        synonyms: other names of the finding, not sentences.
        code: its code, if one is known.
    """

    negative: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    code: Code | None = None


def read_record(label: str, value: Any) -> tuple[tuple[str, ...], LabelEntry]:
    """Reads what a prompt file holds for a label: a prompt, a list of prompts, or a record of them.

    Returns:
        The prompts that are scored, and the rest.

    Raises:
        PromptError: another form.
    """
    if not isinstance(value, Mapping):
        return _read_prompts(label, value), LabelEntry()
    unknown = [key for key in value if key not in _RECORD_KEYS]
    if unknown:
        raise PromptError(
            describe(f'The entry of "{label}" has unknown fields', got=unknown, expected=", ".join(_RECORD_KEYS))
        )
    texts = {key: _read_prompts(label, value[key], key) for key in ("negative", "synonyms") if key in value}
    return _read_prompts(label, value.get("positive")), LabelEntry(**texts, code=_read_code(label, value.get("code")))


def to_record(prompts: tuple[str, ...], entry: LabelEntry) -> dict[str, Any]:
    """The record that `read_record` reads back; parts that are empty are left out."""
    record: dict[str, Any] = {"positive": list(prompts)}
    record |= {key: list(texts) for key in ("negative", "synonyms") if (texts := getattr(entry, key))}
    if entry.code is not None:
        record["code"] = {"scheme": entry.code.scheme, "value": entry.code.value}
    return record


def _read_prompts(label: str, value: Any, key: str = "") -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(prompt, str) for prompt in value):
        raise PromptError(
            describe(
                f'The {key or "prompts"} of "{label}" have an unknown form',
                got=value,
                expected="a text or a list of texts" if key else 'a prompt, a list of prompts, or {"positive": [...]}',
            )
        )
    return tuple(value)


def _read_code(label: str, value: Any) -> Code | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"scheme", "value"}:
        raise _unknown_code(label, value)
    if not all(isinstance(part, str) and part for part in value.values()):
        raise _unknown_code(label, value)
    return Code(value["scheme"], value["value"])


def _unknown_code(label: str, value: Any) -> PromptError:
    return PromptError(
        describe(
            f'The code of "{label}" has an unknown form',
            got=value,
            expected='{scheme: SCT, value: "36118008"}, both in quotation marks where they are numbers',
        )
    )
