"""JSON and YAML as plain values: one reader of each, whatever the bytes are and whoever wrote them.

`parse_` takes text and raises nothing but ValueError, for callers that know a better name of the place than a file.
`load_` takes a file and raises the caller's kind of CARZeroError, which names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carzero.errors import CARZeroError, TableError, describe, first_line, refuse_broken

if TYPE_CHECKING:
    import yaml

_JSON_LIMIT_BYTES = 1 << 28
_BLOCK_BYTES = 1 << 20
_YAML_LIMIT_BYTES = 1 << 19  # PyYAML takes some seconds for as much
_MOST_DEPTH = 50  # PyYAML looks ahead in time that grows with the square of the brackets that are open
_MOST_DIGITS = 100  # YAML's numbers of base 60 ("1:30") take quadratic time


def parse_json(content: str | bytes | bytearray) -> object:
    """The value of a JSON text; bytes are UTF-8, UTF-16 or UTF-32.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or holds a whole number of more than 4,300 digits.
    """
    try:
        value: object = json.loads(content)
    except RecursionError as error:
        raise ValueError("values that are nested too deeply") from error
    return value


def parse_json_object(content: str | bytes | bytearray) -> dict[str, object]:
    """The members of a JSON object.

    Raises:
        ValueError: as `parse_json`, or it is another value.
    """
    return _to_object(parse_json(content))


def load_json(
    path: Path, what: str = "", *, error: type[CARZeroError] = TableError, expected: str = "", then: str = ""
) -> object:
    """Reads a JSON file of at most 256 MiB.

    Args:
        path: the file.
        what: what is wrong, where there is more to say than that it cannot be read as JSON.
        error: what is raised.
        expected: what the file should be.
        then: what the user can do.

    Raises:
        CARZeroError: (`error`) the file cannot be read, is too large, or is not JSON.
    """
    what, then = what or f"{path} cannot be read as JSON", then or "check the file"
    with refuse_broken(what, error=error, expected=expected, then=then):
        return parse_json(_read_bytes(path, _JSON_LIMIT_BYTES))


def load_json_object(
    path: Path, what: str = "", *, error: type[CARZeroError] = TableError, expected: str = "", then: str = ""
) -> dict[str, object]:
    """Reads a JSON file that holds one object; see `load_json`.

    Raises:
        CARZeroError: (`error`) as for `load_json`, or it holds another value.
    """
    what, then = what or f"{path} cannot be read as JSON", then or "check the file"
    with refuse_broken(what, error=error, expected=expected, then=then):
        return parse_json_object(_read_bytes(path, _JSON_LIMIT_BYTES))


def parse_yaml(text: str) -> object:
    """The plain values of a YAML text (of which JSON is a part): no aliases, no repeated keys, no tags of programs.

    Aliases of aliases make a few lines stand for more values than memory holds; of repeated keys YAML would silently
    keep the last.

    Raises:
        ValueError: it is not such a text.
    """
    import yaml

    try:
        value: object = yaml.load(text, Loader=_plain_loader())  # noqa: S506 (a safe loader)
    except _PlacedError:
        raise
    except Exception as error:
        mark, said = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = "" if mark is None else f"line {mark.line + 1}: "
        raise ValueError(f"{place}{said or first_line(error)}") from error
    return value


def load_yaml(path: str | Path, what: str, *, error: type[CARZeroError], expected: str = "", then: str = "") -> object:
    """Reads a YAML or JSON file of at most 512 KiB, in UTF-8.

    Args:
        path: the file.
        what: what it is to the user, such as "The prompt file".
        error: what is raised.
        expected: what the file should be.
        then: what the user can do.

    Raises:
        CARZeroError: (`error`) the file cannot be read, is too large, or is not as `parse_yaml` wants it.
    """
    with refuse_broken(f"{what} {path} cannot be read", error=error, expected=expected, then=then):
        return parse_yaml(_read_bytes(Path(path), _YAML_LIMIT_BYTES).decode("utf-8-sig"))


def check_folder_files(folder: Path, *, error: type[CARZeroError]) -> None:
    """Refuses a folder that a library reads by itself, where it would wait for a pipe or read a device without end.

    Raises:
        CARZeroError: (`error`) a file of a kind that libraries read is no file, or a text has more than 256 MiB.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix not in _READ_BY_LIBRARIES:
            continue
        is_text = path.suffix != ".safetensors"
        if not path.is_file() or (is_text and path.stat().st_size > _JSON_LIMIT_BYTES):
            raise error(
                describe(
                    f"{path} cannot be read",
                    got="a large file" if path.is_file() else "no file",
                    expected=f"a file{' of at most 256 MiB' if is_text else ''}, or a link to one",
                    then="remove it, or get the folder again from its source",
                )
            )


_READ_BY_LIBRARIES = (".json", ".txt", ".model", ".safetensors")


def _to_object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"not an object, but {type(value).__name__}")
    return value


def _read_bytes(path: Path, most: int) -> bytearray:
    """The bytes of a file, which is not read to its end where it has too many: it may be a device.

    In blocks: to ask for all of `most` at once would take as much memory for a file of ten bytes.
    """
    content = bytearray()
    with path.open("rb") as file:
        while len(content) <= most and (block := file.read(_BLOCK_BYTES)):
            content += block
    if len(content) > most:
        raise ValueError(f"more than {most:,} bytes")
    return content


class _PlacedError(ValueError):
    """What is wrong, and the line."""


@contextmanager
def _placed(node: yaml.Node) -> Iterator[None]:
    """Gives what is wrong with a value its line; constructors of tags raise many kinds, most of which say little."""
    try:
        yield
    except _PlacedError:
        raise
    except Exception as error:
        said = str(error)
        if type(error) is not ValueError:
            said = f"not a value of the kind {str(node.tag).removeprefix('tag:yaml.org,2002:')}"
        raise _PlacedError(f"line {node.start_mark.line + 1}: {said}") from error


@cache
def _plain_loader() -> type[yaml.SafeLoader]:
    import yaml

    class PlainLoader(yaml.SafeLoader):
        def fetch_flow_collection_start(self, token_class: Any) -> None:
            _check_depth(self.flow_level)
            super().fetch_flow_collection_start(token_class)

        def add_indent(self, column: int) -> bool:
            _check_depth(len(self.indents))
            return super().add_indent(column)

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                alias = self.peek_event()
                line = alias.start_mark.line + 1
                raise _PlacedError(f"line {line}: *{alias.anchor} stands for another part, which is not followed")
            return super().compose_node(parent, index)

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            with _placed(node):
                return super().construct_object(node, deep)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            with _placed(node):
                _check_keys(self.construct_object(each, deep=True) for each, _ in node.value)
                return super().construct_mapping(node, deep)

        def construct_scalar(self, node: Any) -> Any:
            value = super().construct_scalar(node)
            value.encode()  # JSON's escapes can stand for half a character, which no file can hold
            return value

        def construct_number(self, node: Any) -> object:
            if len(str(node.value)) > _MOST_DIGITS:
                raise ValueError(f"a number of {len(node.value)} characters")
            is_whole = node.tag == "tag:yaml.org,2002:int"
            return self.construct_yaml_int(node) if is_whole else self.construct_yaml_float(node)

    for kind in ("int", "float"):
        PlainLoader.add_constructor(f"tag:yaml.org,2002:{kind}", PlainLoader.construct_number)
    return PlainLoader


def _check_keys(keys: Iterable[object]) -> None:
    seen: set[object] = set()
    doubled: set[str] = set()
    for key in keys:
        (doubled.add(str(key)) if key in seen else seen.add(key))
    if doubled:
        raise ValueError(f"keys are repeated: {', '.join(sorted(doubled))}")


def _check_depth(depth: int) -> None:
    if depth > _MOST_DEPTH:
        raise ValueError("values that are nested too deeply")
