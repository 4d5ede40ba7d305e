"""Prompt sets: what may be asked, in which forms, and how a wrong one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from carzero.errors import CARZeroError, PromptError, describe
from carzero.prompts import Code, LabelEntry, PromptSet, load_prompt_set


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
        (b"- There is edema\n", "is not a mapping; got 'list'"),
        (b"", "is not a mapping; got 'NoneType'"),
        (b"edema: [unclosed\n", "cannot be read.*JSON or YAML text"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"edema: 2026-13-01\n", "cannot be read.*month"),
        (b"edema: " + b"[" * 5000, "cannot be read.*nested too deeply"),
        (b"edema: !!python/object/apply:os.system ['true']\n", "cannot be read.*python/object"),
        (b"a: &a [There is a]\nb: *a\n", "cannot be read.*\\*a stands for another part"),
        (
            b"a: [&x0 [x], " + b", ".join(b"&x%d [*x%d, *x%d]" % (i, i - 1, i - 1) for i in range(1, 40)) + b"]",
            "x0 stands",
        ),
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


def test_entries_keep_what_is_not_scored(tmp_path: Path) -> None:
    (tmp_path / "prompts.yaml").write_text(
        "version: 2\nsource: mine\n"
        "edema:\n  positive: There is edema\n  negative: There is no edema\n  synonyms: [lung water]\n"
        '  code: {scheme: SCT, value: "19242006"}\n'
        "mass: There is mass\n"
    )
    asked = PromptSet.load(tmp_path / "prompts.yaml")
    assert asked.entries == {"edema": LabelEntry(("There is no edema",), ("lung water",), Code("SCT", "19242006"))}
    assert asked.entry("mass") == LabelEntry()
    assert (asked.version, asked.source) == ("2", "mine")
    assert PromptSet.from_mapping(asked.to_mapping()) == asked
    assert asked.hash == PromptSet({"edema": ("There is edema",), "mass": ("There is mass",)}).hash


def test_a_label_named_version_survives_being_written() -> None:
    asked = PromptSet({"version": ("There is a version",)}, version="3")
    assert PromptSet.from_mapping(asked.to_mapping()).prompts == asked.prompts


def test_denials_are_made_from_a_template() -> None:
    asked = PromptSet.from_labels(["edema"], negative="No sign of {label}")
    assert asked.entry("edema").negative == ("No sign of edema",)
    with pytest.raises(PromptError, match="no place for the label; got 'No sign'"):
        PromptSet.from_labels(["edema"], negative="No sign")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"negatives": ["There is no a"]},
            r"entry of \"a\" has unknown fields; got \['negatives'\]; expected pos",
        ),
        ({"negative": 5}, 'negative of "a" have an unknown form; got 5; expected a text or a list of texts'),
        ({"negative": ["Edema"]}, "empty once cleaned.*'Edema'"),
        ({"synonyms": [True]}, "synonyms of"),
        ({"code": "RID5352"}, r'code of "a" has an unknown form; got \'RID5352\'; expected \{scheme: SCT'),
        ({"code": {"scheme": "SCT", "value": 36118008}}, "code of"),
        ({"code": {"scheme": "SCT"}}, "code of"),
    ],
)
def test_entries_that_cannot_be_read(record: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        PromptSet.from_mapping({"a": {"positive": ["There is a"], **record}})


def test_entries_of_no_label_are_refused() -> None:
    with pytest.raises(PromptError, match=r"Entries belong to no label; got \['b'\]"):
        PromptSet({"a": ("There is a",)}, {"b": LabelEntry()})


def test_the_hash_is_the_one_that_saved_runs_state() -> None:
    """A run is resumed, and a result recognised, by this hash: it must never change for the same words."""
    asked = PromptSet({"Ödem": ("There is edema", "Wasser in der Lunge"), "mass": ("There is mass",)})
    assert asked.hash == "b855ba1a09003c2eb115af22c99d4171747af603e064f2e9245b7660f6d5a19e"
    released = load_prompt_set("chestxray14", "paper")
    assert released.hash == "681f6b5da4f395813c4d85f8042cccbb8b298173e2184c019f61a5ecef69f406"
