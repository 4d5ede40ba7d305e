"""The finding vocabulary: names, what reports call them, what implies them and what they belong to."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, NotRequired, TypedDict

_MOST = 512


def expand_phrase(pattern: str) -> tuple[str, ...]:
    """Writes out a phrase such as "(median) sternotomy wire/suture".

    Args:
        pattern: words; "a/b" are alternatives of one place, a place in brackets may be left out.

    Returns:
        Every wording, each once, longest first.

    Raises:
        ValueError: a pattern with more than 512 wordings, or one that can be left out entirely.
    """
    places = []
    for word in pattern.split():
        optional = word.startswith("(") and word.endswith(")")
        if not optional and ("(" in word or ")" in word):
            raise ValueError(f"phrase {pattern!r} has a bracket around several words; one word each can be left out")
        choices = (word[1:-1] if optional else word).split("/")
        places.append([*choices, ""] if optional else choices)
    wordings = {" ".join(filter(None, chosen)) for chosen in itertools.islice(itertools.product(*places), _MOST + 1)}
    if len(wordings) > _MOST or "" in wordings:
        raise ValueError(f"phrase {pattern!r} stands for nothing, or for more than {_MOST} wordings")
    return tuple(sorted(wordings, key=lambda wording: (-len(wording), wording)))


def pluralise(phrase: str) -> str:
    """The phrase with its last word in the plural, by the regular rules ("opacity", "opacities")."""
    if phrase.endswith("y") and phrase[-2:-1] not in "aeou":
        return phrase[:-1] + "ies"
    if phrase.endswith("sis"):
        return phrase[:-2] + "es"
    if phrase.endswith(("s", "x", "ch")):
        return phrase + "es"
    return phrase + "s"


Kind = Literal["finding", "device", "summary"]


Presence = Literal["present", "absent", "uncertain"]
Laterality = Literal["", "left", "right", "bilateral"]


# A place of language.yaml: its words, how a sentence leads to it, and how it says both of a pair.
PlaceEntry = TypedDict("PlaceEntry", {"words": list[str], "in": NotRequired[str], "both": NotRequired[str]})


class Language(TypedDict):
    """language.yaml as it stands; its remarks say what each part is for."""

    headings: dict[str, list[str]]
    words: dict[str, list[str]]
    answers: dict[str, list[str]]
    tongues: dict[str, list[str]]
    short: dict[str, str]
    triggers: dict[str, list[str]]
    verbs: list[str]
    severities: dict[str, list[str]]
    sides: dict[Laterality, list[str]]
    places: dict[str, PlaceEntry]
    sided_places: dict[str, tuple[str, Laterality]]


class _Entry(TypedDict):
    """A finding in vocabulary.yaml."""

    name: str
    kind: NotRequired[Kind]
    parents: NotRequired[list[str]]
    sited: NotRequired[bool]
    sided: NotRequired[bool]
    aliases: NotRequired[list[str]]
    terms: NotRequired[list[str]]
    pairs: NotRequired[list[str]]
    denied_by: NotRequired[list[str]]


class _VocabularyFile(TypedDict):
    version: int
    anatomy: dict[str, list[str]]
    attributes: dict[str, list[str]]
    findings: list[_Entry]


_DEVICE = "support device"  # what every device is a case of


@dataclass(frozen=True, slots=True)
class Finding:
    """One entry.

    Attributes:
        name: what aligned sentences call it, lower case.
        kind: "finding"; "device", put into the patient or lying on it; "summary", a verdict on a whole image or system.
        parents: wider findings that it is a case of.
        sited: False where the name says its place, so that none is kept.
        sided: False where a left and a right make no sense, so that no side is kept.
        aliases: what label sets call it, in lower case; not looked for in reports.
        terms: wordings that name it outright, in lower case.
        pairs: (anatomy class, attribute class) that name it when they meet in a clause.
        denied_by: such pairs that say it is absent.
    """

    name: str
    kind: Kind
    parents: tuple[str, ...]
    sited: bool
    sided: bool
    aliases: tuple[str, ...]
    terms: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    denied_by: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Everything that vocabulary.yaml says.

    Attributes:
        version: of the file, raised when findings are added, renamed or taken away.
        findings: name to entry.
        anatomy: class to wordings.
        attributes: class to wordings.
    """

    version: int
    findings: Mapping[str, Finding]
    anatomy: Mapping[str, tuple[str, ...]]
    attributes: Mapping[str, tuple[str, ...]]

    def ancestors(self, name: str) -> tuple[str, ...]:
        """The wider findings of a finding, nearest first; none for a name that is not in the vocabulary."""
        found: dict[str, None] = {}
        queue = list(self.findings[name].parents) if name in self.findings else []
        while queue:
            parent = queue.pop(0)
            if parent not in found:
                found[parent] = None
                queue += self.findings[parent].parents
        return tuple(found)


@cache
def load_language() -> Language:
    """The package's language file; read once."""
    language: Language = _decode_yaml("language.yaml")
    return language


@cache
def load_words(name: str) -> frozenset[str]:
    """One of the plain word lists of language.yaml, such as "seen"."""
    return frozenset(load_language()["words"][name])


@cache
def load_vocabulary() -> Vocabulary:
    """The package's vocabulary; read once.

    Raises:
        ValueError: the file contradicts itself (a mistake in the package, not of the user).
    """
    data: _VocabularyFile = _decode_yaml("vocabulary.yaml")
    anatomy, attributes = (
        {name: tuple(_wordings(phrases)) for name, phrases in classes.items()}
        for classes in (data["anatomy"], data["attributes"])
    )
    findings: dict[str, Finding] = {}
    for entry in data["findings"]:
        finding = _build_finding(entry)
        if finding.name in findings:
            raise ValueError(f"{finding.name} stands twice in the vocabulary")
        findings[finding.name] = finding
    for finding in findings.values():
        unknown = [name for name in finding.parents if name not in findings]
        pairs = (*finding.pairs, *finding.denied_by)
        unknown += [" + ".join(pair) for pair in pairs if pair[0] not in anatomy or pair[1] not in attributes]
        if unknown:
            raise ValueError(f"the entry {finding.name} names {', '.join(unknown)}, which the vocabulary lacks")
    return Vocabulary(data["version"], findings, anatomy, attributes)


def canonical_finding(words: str) -> str | None:
    """The name of the finding that some words stand for, whatever their case; None where the vocabulary has none."""
    return _names().get(" ".join(words.lower().replace("-", " ").split()))


def read_package_text(name: str) -> str:
    """Reads a file that is part of this package."""
    return resources.files("carzero.reports").joinpath(name).read_text(encoding="utf-8")


def _decode_yaml(name: str) -> Any:
    import yaml

    return yaml.load(read_package_text(name), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


@cache
def _names() -> Mapping[str, str]:
    names: dict[str, str] = {}
    for finding in load_vocabulary().findings.values():
        for term in (*finding.terms, *finding.aliases):
            names.setdefault(term, finding.name)
    return names | {name: name for name in load_vocabulary().findings}


def _build_finding(entry: _Entry) -> Finding:
    name, kind = entry["name"], entry.get("kind", "finding")
    parents = tuple(entry.get("parents", ()))
    return Finding(
        name=name,
        kind=kind,
        parents=(*parents, _DEVICE) if kind == "device" and name != _DEVICE else parents,
        sited=entry.get("sited", True),
        sided=entry.get("sided", True),
        aliases=tuple(entry.get("aliases", ())),
        terms=tuple(dict.fromkeys(_wordings([name, *entry.get("terms", ())]))),
        pairs=tuple(_pairs(entry.get("pairs", ()))),
        denied_by=tuple(_pairs(entry.get("denied_by", ()))),
    )


def _wordings(phrases: Iterable[str]) -> Iterator[str]:
    for phrase in phrases:
        for wording in expand_phrase(phrase):
            yield wording
            yield pluralise(wording)


def _pairs(written: Iterable[str]) -> Iterator[tuple[str, str]]:
    for pair in written:
        anatomy, attribute = pair.split(" + ")
        yield anatomy, attribute
