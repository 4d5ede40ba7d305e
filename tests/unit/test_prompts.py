"""Prompt sets: what may be asked, in which forms, and how a wrong one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from carzero.errors import CARZeroError, PromptError, describe
from carzero.prompts import PromptSet


def test_labels_become_the_papers_sentence() -> None:
    asked = PromptSet.from_labels(["pneumonia", "pleural effusion"])
    assert dict(asked) == {"pneumonia": ("There is pneumonia",), "pleural effusion": ("There is pleural effusion",)}
    assert asked.labels == ["pneumonia", "pleural effusion"]
    assert len(asked) == 2


def test_a_template_is_filled_wherever_it_names_the_label() -> None:
    asked = PromptSet.from_labels(["edema"], "Is there {label}? {label} it is, {not a field}")
    assert asked.prompts["edema"] == ("Is there edema? edema it is, {not a field}",)


def test_braces_in_a_label_are_plain_text() -> None:
    assert PromptSet.from_labels(["grade {label} {0}"]).prompts == {
        "grade {label} {0}": ("There is grade {label} {0}",)
    }


def test_blanks_around_and_inside_labels_are_tidied() -> None:
    assert PromptSet.from_labels(["  pleural \n effusion "]).labels == ["pleural effusion"]


@pytest.mark.parametrize(
    ("labels", "template", "message"),
    [
        ([], "There is {label}", "Nothing is asked"),
        (["edema", " edema"], "There is {label}", r"Labels are repeated; got \['edema'\]"),
        ([""], "There is {label}", "A label is empty"),
        (["edema"], "There is", r"no place for the label; got 'There is'; expected \"\{label\}\" in it"),
        (["Edema"], "{label}", r'prompt of "Edema" is empty once cleaned.*got \'Edema\'.*Ask "There is edema"'),
        (["β γ"], "{label}", "is empty once cleaned"),
    ],
)
def test_labels_that_cannot_be_asked(labels: list[str], template: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        PromptSet.from_labels(labels, template)


def test_every_form_of_a_mapping() -> None:
    asked = PromptSet.from_mapping(
        {
            "version": "1.2",
            "source": "a paper",
            "one": "There is one",
            "list": ["There is a", "There is b"],
            "record": {
                "positive": ["There is c"],
                "negative": ["There is no c"],
                "synonyms": ["see"],
                "code": {"scheme": "RADLEX", "value": "RID1"},
            },
            "short record": {"positive": "There is d"},
        }
    )
    assert asked.prompts == {
        "one": ("There is one",),
        "list": ("There is a", "There is b"),
        "record": ("There is c",),
        "short record": ("There is d",),
    }


def test_version_is_a_label_where_it_has_prompts() -> None:
    assert PromptSet.from_mapping({"version": ["There is a version"], "source": "x"}).labels == ["version"]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "Nothing is asked"),
        ({"version": "1"}, "Nothing is asked"),
        ({"a": []}, '"a" has no prompt'),
        ({"a": {"positive": []}}, '"a" has no prompt'),
        ({"a": {"negative": ["There is no a"]}}, 'prompts of "a" have an unknown form; expected a prompt, a list'),
        ({"a": 5}, "unknown form; got 5"),
        ({"a": ["There is a", 5]}, "unknown form"),
        ({"a": None}, "unknown form"),
        ({" ": "There is a"}, "A label is empty"),
        ({"a": ["There is a", "Edema"]}, "empty once cleaned.*'Edema'"),
    ],
)
def test_mappings_that_cannot_be_asked(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        PromptSet.from_mapping(mapping)


def test_files_in_json_and_yaml_are_one(tmp_path: Path) -> None:
    content = {"version": 1, "edema": ["There is edema", "Lungs are congested"], "no finding": "There is no finding"}
    as_json, as_yaml = tmp_path / "prompts.json", tmp_path / "prompts.yaml"
    as_json.write_text(json.dumps(content))
    as_yaml.write_text(
        "version: 1\nedema:\n  - There is edema\n  - Lungs are congested\nno finding: There is no finding\n"
    )
    first, second = PromptSet.load(as_json), PromptSet.load(str(as_yaml))
    assert first == second
    assert first.hash == second.hash
    assert first.labels == ["edema", "no finding"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- There is edema\n", "is no mapping; got 'list'"),
        (b"", "is no mapping; got 'NoneType'"),
        (b"edema: [unclosed\n", "cannot be read.*JSON or YAML text"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"edema: !!python/object/apply:os.system ['true']\n", "cannot be read.*python/object"),
        (b"{}", "Nothing is asked"),
    ],
)
def test_files_that_cannot_be_asked(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.yaml"
    path.write_bytes(content)
    with pytest.raises(PromptError, match=message):
        PromptSet.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"nowhere\.yaml cannot be read.*No such file"):
        PromptSet.load(tmp_path / "nowhere.yaml")


def test_the_hash_tells_everything_apart_that_changes_scores() -> None:
    base = {"a": ("There is a", "There is b")}
    variants = [
        base,
        {"a": ("There is b", "There is a")},
        {"a": ("There is a",)},
        {"b": ("There is a", "There is b")},
        {"a": ("There is a",), "b": ("There is b",)},
        {"b": ("There is b",), "a": ("There is a",)},
    ]
    assert len({PromptSet(variant).hash for variant in variants}) == len(variants)
    assert PromptSet(base).hash == PromptSet(dict(base)).hash
    assert len(PromptSet(base).hash) == 64


def test_messages_have_four_parts_and_a_bound() -> None:
    message = describe("It broke", got="x" * 500, expected="less", then="try again")
    assert message.startswith("It broke; got 'xxx")
    assert message.endswith("...; expected less. Try again.")
    assert len(message) < 260
    assert describe("It broke") == "It broke."
    assert issubclass(PromptError, CARZeroError)
    assert issubclass(PromptError, ValueError)


@pytest.mark.parametrize(
    ("content", "message"),
    [("no: [There is nothing]", "not read as text.*False"), ("a: [There is a]\na: [There is b]", "repeated: a")],
)
def test_yaml_that_would_be_misread_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "prompts.yaml"
    path.write_text(content)
    with pytest.raises(PromptError, match=message):
        PromptSet.load(path)
