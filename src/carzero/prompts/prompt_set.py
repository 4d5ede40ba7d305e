"""A prompt set: finding labels, and the sentences that ask for each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carzero.errors import PromptError, describe
from carzero.text_cleaning import clean_text

__all__ = ["DEFAULT_TEMPLATE", "PromptSet"]

DEFAULT_TEMPLATE = "There is {label}"
_HEADER_KEYS = frozenset({"version", "source"})


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Labels in order, each with one or more prompts.

    Attributes:
        prompts: label to its prompts; every prompt keeps at least two words after cleaning.
    """

    prompts: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if not self.prompts:
            raise PromptError(
                describe("Nothing is asked", expected="at least one label", then="give labels or a prompt file")
            )
        for label, prompts in self.prompts.items():
            _check_label(label, prompts)
            for prompt in prompts:
                _check_prompt(label, prompt)

    @classmethod
    def from_labels(cls, labels: Sequence[str], template: str = DEFAULT_TEMPLATE) -> PromptSet:
        """Makes one prompt a label.

        Args:
            labels: finding names, such as "pleural effusion".
            template: sentence with the field {label}; the paper's is "There is {label}".

        Raises:
            PromptError: a label is empty or repeated, or the template lacks its field.
        """
        if "{label}" not in template:
            raise PromptError(
                describe(
                    "The template has no place for the label",
                    got=template,
                    expected='"{label}" in it, as in "There is {label}"',
                )
            )
        cleaned = [" ".join(str(label).split()) for label in labels]
        doubled = sorted({label for label in cleaned if cleaned.count(label) > 1})
        if doubled:
            raise PromptError(describe("Labels are repeated", got=doubled, expected="each label once"))
        return cls({label: (template.replace("{label}", label),) for label in cleaned})

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> PromptSet:
        """Reads `{label: prompt}`, `{label: [prompt, ...]}` or `{label: {"positive": [prompt, ...], ...}}`.

        The keys `version` and `source` may describe the set. Other entries of a label's record (`negative`,
        `synonyms`, `code`) are kept out of the score.

        Raises:
            PromptError: another form, or a prompt that cannot be asked.
        """
        entries = {label: value for label, value in mapping.items() if label not in _HEADER_KEYS or _is_prompts(value)}
        return cls({str(label): _positive_prompts(str(label), value) for label, value in entries.items()})

    @classmethod
    def from_request(
        cls,
        labels: str | Sequence[str] | None,
        prompts: Mapping[str, Any] | PromptSet | None,
        template: str = DEFAULT_TEMPLATE,
    ) -> PromptSet:
        """Takes either labels, put into `template`, or prompts.

        Raises:
            PromptError: neither is given, or both are, or the words cannot be asked.
        """
        if (labels is None) == (prompts is None):
            raise PromptError(
                describe(
                    "Nothing is asked" if labels is None else "Labels and prompts exclude each other",
                    expected='labels ("pneumonia", ...) or prompts ({"pneumonia": ["There is pneumonia", ...]})',
                )
            )
        if prompts is not None:
            return prompts if isinstance(prompts, PromptSet) else cls.from_mapping(prompts)
        return cls.from_labels([labels] if isinstance(labels, str) else list(labels or ()), template)

    @classmethod
    def load(cls, path: str | Path) -> PromptSet:
        """Reads a prompt file, JSON or YAML, in one of the forms of `from_mapping`.

        Raises:
            PromptError: the file cannot be read or has another form.
        """
        import yaml

        try:
            # Every JSON file is a YAML file; the safe loader builds plain values only.
            content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_unique_key_loader())  # noqa: S506
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise PromptError(
                describe(
                    f"The prompt file {path} cannot be read",
                    got=str(error).splitlines()[0],
                    expected="JSON or YAML text",
                    then="correct the file",
                )
            ) from error
        if not isinstance(content, dict):
            raise PromptError(
                describe(
                    f"The prompt file {path} is no mapping",
                    got=type(content).__name__,
                    expected='{"label": ["There is ...", ...], ...}',
                )
            )
        strange = [key for key in content if not isinstance(key, str)]
        if strange:
            raise PromptError(
                describe(
                    f"A label of {path} is not read as text",
                    got=strange,
                    expected="labels in quotation marks where YAML reads them otherwise (no, on, 1)",
                )
            )
        return cls.from_mapping(content)

    @property
    def labels(self) -> list[str]:
        """Labels in order."""
        return list(self.prompts)

    @property
    def hash(self) -> str:
        """SHA-256 of labels and prompts in order; equal prompt sets have equal hashes."""
        content = json.dumps([[label, list(prompts)] for label, prompts in self.prompts.items()], ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def __iter__(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        return iter(self.prompts.items())

    def __len__(self) -> int:
        return len(self.prompts)


def _unique_key_loader() -> Any:
    """YAML's safe loader, refusing repeated keys, of which it would silently keep the last."""
    import yaml

    class UniqueKeyLoader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            doubled = sorted({str(key) for key in keys if keys.count(key) > 1})
            if doubled:
                raise yaml.YAMLError(f"labels are repeated: {', '.join(doubled)}")
            return super().construct_mapping(node, deep)

    return UniqueKeyLoader


def _is_prompts(value: Any) -> bool:
    return isinstance(value, list | dict)


def _positive_prompts(label: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        value = value.get("positive")
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(prompt, str) for prompt in value):
        raise PromptError(
            describe(
                f'The prompts of "{label}" have an unknown form',
                got=value,
                expected='a prompt, a list of prompts, or {"positive": [prompt, ...]}',
            )
        )
    return tuple(value)


def _check_label(label: str, prompts: Sequence[str]) -> None:
    if not label.strip():
        raise PromptError(describe("A label is empty", got=label, expected="the name of a finding"))
    if not prompts:
        raise PromptError(describe(f'"{label}" has no prompt', got=list(prompts), expected="at least one"))


def _check_prompt(label: str, prompt: str) -> None:
    if not clean_text(prompt):
        raise PromptError(
            describe(
                f'The prompt of "{label}" is empty once cleaned: the released cleaning drops one-word sentences',
                got=prompt,
                expected="a sentence of two words or more",
                then=f'ask "There is {prompt.strip().lower() or label}"',
            )
        )
