"""A prompt set: finding labels, and the sentences that ask for each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from carzero.errors import PromptError, describe
from carzero.prompts.prompt_file import load_mapping
from carzero.records import ScoreKind
from carzero.text.cleaning import CLEANINGS

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


def read_record(label: str, value: object) -> tuple[tuple[str, ...], LabelEntry]:
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
    return _read_prompts(label, value.get("positive")), LabelEntry(**texts, code=read_code(label, value.get("code")))


def to_record(prompts: tuple[str, ...], entry: LabelEntry) -> dict[str, object]:
    """The record that `read_record` reads back; parts that are empty are left out."""
    record: dict[str, object] = {"positive": list(prompts)}
    record |= {key: list(texts) for key in ("negative", "synonyms") if (texts := getattr(entry, key))}
    if entry.code is not None:
        record["code"] = {"scheme": entry.code.scheme, "value": entry.code.value}
    return record


def _read_prompts(label: str, value: object, key: str = "") -> tuple[str, ...]:
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


def read_code(label: str, value: object) -> Code | None:
    """Reads what a prompt file holds as a label's code, `{scheme: ..., value: ...}` or nothing.

    Raises:
        PromptError: another form.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"scheme", "value"}:
        raise _unknown_code(label, value)
    if not all(isinstance(part, str) and part for part in value.values()):
        raise _unknown_code(label, value)
    return Code(value["scheme"], value["value"])


def _unknown_code(label: str, value: object) -> PromptError:
    return PromptError(
        describe(
            f'The code of "{label}" has an unknown form',
            got=value,
            expected='{scheme: SCT, value: "36118008"}, both in quotation marks where they are numbers',
        )
    )


DEFAULT_TEMPLATE = "There is {label}"
NEGATIVE_TEMPLATE = "There is no {label}"
_HEADER_KEYS = ("version", "source")


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt that is scored: the number of its label, its text, and whether it denies the label."""

    label: int
    text: str
    denies: bool


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Labels in order, each with one or more prompts.

    Attributes:
        prompts: label to its prompts, which are what is scored; each keeps at least two words after cleaning.
        score_kind: whether a label's score is the logit of these, or the difference from its negative prompts, which
            are then scored too; see `as_pairs`.
        entries: label to what else is known of it; labels of which nothing is known need not be there.
        version: of the set, as its file states it.
        source: where its words come from.
        cleaning: of the weights that are to be asked, a key of `carzero.text.cleaning.CLEANINGS`.
    """

    prompts: Mapping[str, tuple[str, ...]]
    entries: Mapping[str, LabelEntry] = field(default_factory=dict)
    version: str = ""
    source: str = ""
    score_kind: ScoreKind = "logit"
    cleaning: str = field(default="carzero", compare=False)

    def __post_init__(self) -> None:
        if not self.prompts:
            raise PromptError(
                describe("Nothing is asked", expected="at least one label", then="give labels or a prompt file")
            )
        strange = [label for label in self.entries if label not in self.prompts]
        if strange:
            raise PromptError(describe("Entries belong to no label", got=strange, expected="labels with prompts"))
        _check_characters(self)
        for label, prompts in self.prompts.items():
            _check_label(label, prompts)
            for prompt in (*prompts, *self.entry(label).negative):
                _check_prompt(label, prompt, self.cleaning)
        if self.score_kind == "logit_difference":
            self._check_pairs()

    @classmethod
    def from_labels(
        cls,
        labels: Sequence[str],
        template: str = DEFAULT_TEMPLATE,
        negative: str | None = None,
        *,
        cleaning: str = "carzero",
    ) -> PromptSet:
        """Makes one prompt per label.

        Args:
            labels: finding names, such as "pleural effusion".
            template: sentence with the field {label}; the paper's is "There is {label}".
            negative: sentence with the field {label} that denies it, kept as the label's `negative`; None keeps none.
            cleaning: of the weights that are to be asked.

        Raises:
            PromptError: a label is empty or repeated, or a template lacks its field.
        """
        for sentence in (template,) if negative is None else (template, negative):
            _check_template(sentence)
        cleaned = [" ".join(str(label).split()) for label in labels]
        doubled = sorted({label for label in cleaned if cleaned.count(label) > 1})
        if doubled:
            raise PromptError(describe("Labels are repeated", got=doubled, expected="each label once"))
        entries = {} if negative is None else {la: LabelEntry((negative.replace("{label}", la),)) for la in cleaned}
        return cls({label: (template.replace("{label}", label),) for label in cleaned}, entries, cleaning=cleaning)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object], *, cleaning: str = "carzero") -> PromptSet:
        """Reads `{label: prompt}`, `{label: [prompt, ...]}` or `{label: {"positive": [prompt, ...], ...}}`.

        The keys `version` and `source` may describe the set. The other fields of a label's record (`negative`,
        `synonyms`, `code`) become its entry; `negative` is asked by the score kind "logit_difference" alone. `cleaning`
        is that of the weights that are to be asked.

        Raises:
            PromptError: another form, or a prompt that cannot be asked.
        """
        header = {key: mapping[key] for key in _HEADER_KEYS if key in mapping and not _is_prompts(mapping[key])}
        records = {str(key): read_record(str(key), value) for key, value in mapping.items() if key not in header}
        return cls(
            {label: prompts for label, (prompts, _) in records.items()},
            {label: entry for label, (_, entry) in records.items() if entry != LabelEntry()},
            version=str(header.get("version") or ""),
            source=str(header.get("source") or ""),
            cleaning=cleaning,
        )

    @classmethod
    def from_request(
        cls,
        labels: str | Sequence[str] | None,
        prompts: Mapping[str, object] | PromptSet | None,
        template: str = DEFAULT_TEMPLATE,
        *,
        score_kind: ScoreKind = "logit",
        negative: str = NEGATIVE_TEMPLATE,
        cleaning: str = "carzero",
    ) -> PromptSet:
        """Takes either labels, put into `template`, or prompts.

        Args:
            labels: findings.
            prompts: a set, or a mapping as in `from_mapping`.
            template: sentence with the field {label}.
            score_kind: "logit_difference" scores each label against its negative prompts, too.
            negative: sentence with the field {label} that denies it, for labels scored so.
            cleaning: of the weights that are to be asked.

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
            asked = prompts if isinstance(prompts, PromptSet) else cls.from_mapping(prompts, cleaning=cleaning)
        else:
            named = [labels] if isinstance(labels, str) else list(labels or ())
            denial = negative if score_kind == "logit_difference" else None
            asked = cls.from_labels(named, template, denial, cleaning=cleaning)
        return asked.as_pairs() if score_kind == "logit_difference" else asked

    @classmethod
    def load(cls, path: str | Path, *, cleaning: str = "carzero") -> PromptSet:
        """Reads a prompt file, JSON or YAML, in one of the forms of `from_mapping`.

        Raises:
            PromptError: the file cannot be read or has another form.
        """
        return cls.from_mapping(load_mapping(path), cleaning=cleaning)

    def as_pairs(self) -> PromptSet:
        """The same labels, each scored by how much its prompts beat those that deny it.

        Raises:
            PromptError: a label has no negative prompt.
        """
        return replace(self, score_kind="logit_difference")

    def _check_pairs(self) -> None:
        if lacking := [label for label in self.prompts if not self.entry(label).negative]:
            raise PromptError(
                describe(
                    f"{len(lacking)} of {len(self.prompts)} labels have no prompt that denies them",
                    got=lacking[:5],
                    expected='a record such as {positive: ["There is edema"], negative: ["There is no edema"]}',
                    then='add them, take a variant with pairs, such as chestxray14:pairs, or score by "logit"',
                )
            )

    @property
    def negative_prompts(self) -> dict[str, tuple[str, ...]] | None:
        """Label to the prompts that deny it, where they enter the score; None where they do not."""
        if self.score_kind == "logit":
            return None
        return {label: self.entry(label).negative for label in self.prompts}

    @property
    def questions(self) -> list[Question]:
        """Every prompt that is scored, label by label."""
        denials = self.negative_prompts or {}
        return [
            Question(number, text, denies)
            for number, (label, prompts) in enumerate(self)
            for texts, denies in ((prompts, False), (denials.get(label, ()), True))
            for text in texts
        ]

    @property
    def labels(self) -> list[str]:
        """Labels in order."""
        return list(self.prompts)

    @property
    def hash(self) -> str:
        """SHA-256 of labels and prompts in order, all that scores depend on; version, source and other entries are out.

        Negative prompts are in where they enter the score.
        """
        asked: list[object] = [[label, list(prompts)] for label, prompts in self.prompts.items()]
        if (denials := self.negative_prompts) is not None:
            asked = [[label, list(prompts), list(denials[label])] for label, prompts in self.prompts.items()]
        content = json.dumps(asked, ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def entry(self, label: str) -> LabelEntry:
        """What is known of a label beside its prompts; an empty entry where nothing is."""
        return self.entries.get(label, LabelEntry())

    def to_mapping(self) -> dict[str, object]:
        """The mapping that `from_mapping` reads back: plain values, ready for JSON or YAML."""
        header = {key: value for key in _HEADER_KEYS if (value := getattr(self, key)) and key not in self.prompts}
        return header | {label: to_record(prompts, self.entry(label)) for label, prompts in self}

    def __iter__(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        return iter(self.prompts.items())

    def __len__(self) -> int:
        return len(self.prompts)


def _is_prompts(value: object) -> bool:
    return isinstance(value, list | dict)


def _check_template(template: str) -> None:
    if "{label}" not in template:
        raise PromptError(
            describe(
                "The template has no place for the label",
                got=template,
                expected='"{label}" in it, as in "There is {label}"',
            )
        )


def _check_characters(prompt_set: PromptSet) -> None:
    """Refuses halves of characters, which JSON and YAML can hold and no file in UTF-8 can."""
    try:
        json.dumps(prompt_set.to_mapping(), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        around = str(error.object)[max(0, error.start - 20) : error.start + 20]
        raise PromptError(
            describe(
                "A text holds half of a surrogate pair", got=around, expected="whole characters", then="type it again"
            )
        ) from error


def _check_label(label: str, prompts: Sequence[str]) -> None:
    if not label.strip():
        raise PromptError(describe("A label is empty", got=label, expected="the name of a finding"))
    if not prompts:
        raise PromptError(describe(f'"{label}" has no prompt', got=list(prompts), expected="at least one"))


def _check_prompt(label: str, prompt: str, cleaning: str) -> None:
    if cleaning != "carzero":
        if not CLEANINGS[cleaning](prompt).strip():
            raise PromptError(describe(f'A prompt of "{label}" is empty', got=prompt, expected="a sentence or a word"))
    elif not CLEANINGS[cleaning](prompt):
        raise PromptError(
            describe(
                f'The prompt of "{label}" is empty once cleaned: the released cleaning drops one-word sentences',
                got=prompt,
                expected="a sentence of two words or more",
                then=f'ask "There is {prompt.strip().lower() or label}"',
            )
        )
