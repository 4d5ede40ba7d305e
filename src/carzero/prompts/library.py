"""The label sets that come with the package: those of the public test sets, each in several wordings.

    load_prompt_set("chestxray14")                 the paper's prompts, exactly as released
    load_prompt_set("chestxray14", "pairs")        one sentence that affirms and one that denies each finding
    load_prompt_set("chestxray14", "synonyms")     the same for every name of the finding

One file of `library/` holds the labels of one collection, which may serve several sets; `library/findings.yaml` holds
what all of them know of a finding: its other names and its code.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from carzero.errors import PromptError, describe
from carzero.prompts.prompt_set import Code, LabelEntry, PromptSet, read_code, read_record

VARIANTS = {
    "paper": "the prompts released with the paper, exactly",
    "pairs": "one sentence that affirms and one that denies each finding",
    "synonyms": "the same for every name of the finding",
}

_FINDINGS = "findings"
_COLLECTIONS = ("chestxray14", "chexpert", "padchest", "chestxdet10", "openi", "vindr")


@dataclass(frozen=True, slots=True)
class LibraryRecord:
    """One label set of the library.

    Attributes:
        name: what `load_prompt_set` and `--prompts` take.
        title: what it is.
        labels: how many labels it has.
        variants: its wordings, the default first; "paper" only where the paper asked every label.
        coded: labels with a code.
        version: of its file.
        source: where labels and prompts come from.
    """

    name: str
    title: str
    labels: int
    variants: tuple[str, ...]
    coded: int
    version: str
    source: str

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return asdict(self)


def list_prompt_sets() -> list[LibraryRecord]:
    """The label sets of the library, those of one collection together."""
    return [_to_record(name) for name in _homes()]


def load_prompt_set(name: str, variant: str | None = None) -> PromptSet:
    """Loads a label set of the library.

    Args:
        name: such as "chestxray14"; see `list_prompt_sets`.
        variant: "paper", "pairs" or "synonyms". None is the paper's, or "pairs" for a set that the paper did not ask.

    Returns:
        Labels spelled and ordered as in the released tables. "paper" has no negatives: the paper asked none.

    Raises:
        PromptError: there is no such set, or it has no such variant.
    """
    if name not in _homes():
        raise _unknown_name(name)
    variants = _to_record(name).variants
    variant = variants[0] if variant is None else variant
    if variant not in variants:
        raise PromptError(
            describe(f"{name} has no such variant", got=variant, expected=f"one of {', '.join(variants)}")
        )
    collection = _read_file(_homes()[name])
    records = {label: _build_record(label, collection["labels"][label], variant) for label in _labels_of(name)}
    parsed = {label: read_record(label, record) for label, record in records.items()}
    return PromptSet(
        {label: prompts for label, (prompts, _) in parsed.items()},
        {label: entry for label, (_, entry) in parsed.items() if entry != LabelEntry()},
        version=collection["version"],
        source=f"carzero {name}, variant {variant}. {collection['source']}",
    )


def resolve_prompts(name_or_path: str | Path, variant: str | None = None, *, cleaning: str = "carzero") -> PromptSet:
    """Loads what a user names: NAME or NAME:VARIANT of the library, else a file.

    A name of the library always means the library; a file of that name is "./NAME".

    Args:
        name_or_path: what the user typed.
        variant: of a set of the library, another way to say NAME:VARIANT.
        cleaning: of the weights that are to be asked; it decides what is a prompt.

    Raises:
        PromptError: neither, the file cannot be asked, or a variant is named twice or of a file.
    """
    name, _, suffix = str(name_or_path).partition(":")
    if name in _homes():
        if variant and suffix:
            raise PromptError(describe("A variant is named twice", got=f"{name_or_path} and {variant}", expected="one"))
        return load_prompt_set(name, variant or suffix or None)
    path = Path(name_or_path)
    if not path.exists() and (variant or (path.name == str(name_or_path) and not path.suffix)):
        raise _unknown_name(name)
    if variant:
        raise PromptError(describe("Only sets of the library have variants", got=str(name_or_path), then="drop it"))
    return PromptSet.load(name_or_path, cleaning=cleaning)


@functools.cache
def list_findings() -> Mapping[str, tuple[str, ...]]:
    """Every finding that some set of the library asks for, in small letters, and its other names."""
    names = {_finding(label, fields) for stem in _COLLECTIONS for label, fields in _read_file(stem)["labels"].items()}
    findings = _read_file(_FINDINGS)
    return {name: tuple(findings.get(name, {}).get("synonyms", ())) for name in sorted(names | set(findings))}


@functools.cache
def list_codes() -> Mapping[str, Code]:
    """The codes of the library's findings by name and by other names, in small letters; see docs/prompts.md."""
    findings = _read_file(_FINDINGS)
    coded = {name: code for name, record in findings.items() if (code := read_code(name, record.get("code")))}
    others = {each.lower(): code for name, code in coded.items() for each in findings[name].get("synonyms", ())}
    return others | {name.lower(): code for name, code in coded.items()}


def _homes() -> dict[str, str]:
    """Name of each set to the collection that holds it."""
    return {name: collection for collection in _COLLECTIONS for name in _read_file(collection)["sets"]}


@functools.cache
def _read_file(stem: str) -> Mapping[str, Any]:
    import yaml

    text = resources.files("carzero.prompts").joinpath("library", f"{stem}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def _labels_of(name: str) -> list[str]:
    collection = _read_file(_homes()[name])
    chosen = collection["sets"][name]
    return list(chosen.get("labels", collection["labels"]))


def _to_record(name: str) -> LibraryRecord:
    collection, labels = _read_file(_homes()[name]), _labels_of(name)
    asked = all("paper" in collection["labels"][label] for label in labels)
    findings = _read_file(_FINDINGS)
    return LibraryRecord(
        name=name,
        title=collection["sets"][name]["title"],
        labels=len(labels),
        variants=tuple(variant for variant in VARIANTS if variant != "paper" or asked),
        coded=sum("code" in findings.get(_finding(label, collection["labels"][label]), ()) for label in labels),
        version=collection["version"],
        source=collection["source"],
    )


def _build_record(label: str, fields: Mapping[str, str], variant: str) -> dict[str, object]:
    """A label's record in the form of a prompt file."""
    name = _finding(label, fields)
    known = _read_file(_FINDINGS).get(name, {})
    synonyms = known.get("synonyms", [])
    record: dict[str, object] = {"synonyms": synonyms, "code": known.get("code")}
    if variant == "paper":
        return record | {"positive": fields["paper"]}
    names = [name, *synonyms] if variant == "synonyms" else [name]
    return record | {
        "positive": known.get("positive", [f"There is {each}" for each in names]),
        "negative": known.get("negative", [f"There is no {each}" for each in names]),
    }


def _finding(label: str, fields: Mapping[str, str]) -> str:
    return fields.get("finding", label.lower().replace("_", " "))


def _unknown_name(name: str) -> PromptError:
    near = get_close_matches(name, _homes(), n=1, cutoff=0.5)
    return PromptError(
        describe(
            "There is no such prompt set and no such file",
            got=name,
            expected=f"a file, or one of {', '.join(_homes())}",
            then=f'perhaps you mean "{near[0]}"' if near else "`carzero prompts list` shows the sets",
        )
    )
