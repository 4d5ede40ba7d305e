"""One reader of JSON and one of YAML: whatever the bytes are, a value or one error of the caller's kind."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path

import pytest

from carzero.core.documents import load_json, load_json_object, load_yaml, parse_json, parse_json_object, parse_yaml
from carzero.errors import CARZeroError, PromptError, TableError, describe, first_line, refuse_broken

GENEROUS_S = 60  # of processor time, for what takes milliseconds and would take hours

YAML_THAT_IS_NONE = {
    "a: 1\na: 2": "line 1: keys are repeated: a",
    "- &a [1]\n- *a": "line 2: .*stands for another part",
    "b: 1\n? [a]\n: 1": "line 1: not a value of the kind map",
    "[" * 100_000: "nested too deeply",
    "- " * 100_000: "nested too deeply",
    "a:" + " {a:" * 1000: "nested too deeply",
    "a: " + ":".join(["1"] * 100_000): "a number of 199999 characters",
    "a: 0x" + "f" * 100_000: "a number of",
    "a: " + "9" * 5000: "a number of",
    "a:\n- !!int ''": "line 2: not a value of the kind int",
    "!!timestamp x": "line 1: not a value of the kind timestamp",
    "a: 2001-99-99": "month",
    "!!map [a, b]": "line 1: not a value of the kind map",
    "!!python/object/apply:os.system [x]": "line 1: not a value of the kind python/object/apply",
    "\0": "special characters",
}

JSON_THAT_IS_NONE = [
    b"",
    b"{",
    b"\xff",
    b"[" * 100_000,
    b"1" * 5000,
    b'{"a": 1}}',
    b"nul",
    "\ufeff1".encode("utf-16")[:3],
]


@pytest.mark.parametrize("text", YAML_THAT_IS_NONE, ids=range(len(YAML_THAT_IS_NONE)))
def test_yaml_is_plain_values_or_a_value_error(text: str) -> None:
    begin = time.process_time()
    with pytest.raises(ValueError, match=YAML_THAT_IS_NONE[text]):
        parse_yaml(text)
    assert time.process_time() - begin < GENEROUS_S


def test_yaml_takes_what_recipes_hold() -> None:
    assert parse_yaml("a: [1, 1.5, .inf, yes, null, 'x']\nb: {c: 0x10, d: 1e-4}\n") == {
        "a": [1, 1.5, float("inf"), True, None, "x"],
        "b": {"c": 16, "d": "1e-4"},
    }
    assert parse_yaml(json.dumps({"ö": [1, {"a": []}]})) == {"ö": [1, {"a": []}]}


@pytest.mark.parametrize("content", JSON_THAT_IS_NONE, ids=range(len(JSON_THAT_IS_NONE)))
def test_json_is_a_value_or_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(content)
    with pytest.raises(ValueError, match="not an object"):
        parse_json_object(b"[1]")


def test_files_are_named_and_never_read_to_an_end_that_they_have_not(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_bytes(b" " * 100)
    with (tmp_path / "large.json").open("r+b") as file:
        file.truncate(1 << 29)  # takes no room on the disk
    for path in (tmp_path / "large.json", Path("/dev/zero")):
        with pytest.raises(TableError, match=rf"{path.name} cannot be read as JSON; got 'more than 268,435,456 bytes'"):
            load_json(path)
        with pytest.raises(PromptError, match=r"The prompt file .* cannot be read; got 'more than 524,288 bytes'"):
            load_yaml(path, "The prompt file", error=PromptError)
    with pytest.raises(PromptError, match=r"none.json is not a record; got .*No such file.* Restore it"):
        load_json_object(
            tmp_path / "none.json", f"{tmp_path}/none.json is not a record", error=PromptError, then="restore it"
        )
    with pytest.raises(TableError, match="cannot be read as JSON"):
        load_json(tmp_path)


def test_a_message_costs_no_more_than_it_shows() -> None:
    digits = 10**100_000
    huge: dict[object, object] = {"x" * 10_000_000: [b"y" * 10_000_000] * 10_000_000, digits: digits}
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    values: tuple[object, ...] = (huge, [huge] * 1000, "z" * 10_000_000, digits, deep)
    tracemalloc.start()
    shown = [describe("It is wrong", got=value) for value in values]
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 100_000
    assert all(len(message) < 250 for message in shown)
    assert "a whole number of about 99" in shown[3]
    assert len(describe("w" * 10_000_000, got=1, expected="e" * 10_000_000)) < 10_000


@pytest.mark.parametrize(
    "value", ["a", b"b", 1, -5, 2.5, True, [], [1, "a"], (1,), (), {"a": [1, (2, None)]}, {3}, Path("x")]
)
def test_a_small_value_is_shown_as_python_writes_it(value: object) -> None:
    assert describe("w", got=value) == f"w; got {value!r}."


def test_whatever_a_parser_raises_belongs_to_the_file() -> None:
    class OddError(Exception):
        pass

    for raised in (
        KeyError("a"),
        OddError(),
        RecursionError("deep"),
        OverflowError("x\ny"),
        UnicodeDecodeError("a", b"", 0, 1, "b"),
    ):
        with (
            pytest.raises(TableError, match="The file is broken; got ") as caught,
            refuse_broken("The file is broken", error=TableError),
        ):
            raise raised
        assert caught.value.__cause__ is raised
    assert [first_line(error) for error in (OSError("a\nb"), OSError(" "), OddError())] == ["a", "OSError", "OddError"]
    with pytest.raises(PromptError, match="own"), refuse_broken("The file is broken", error=TableError):
        raise PromptError("own")
    with pytest.raises(KeyboardInterrupt), refuse_broken("The file is broken", error=TableError):
        raise KeyboardInterrupt
    assert issubclass(TableError, CARZeroError)
