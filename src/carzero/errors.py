"""Every error CARZero raises on purpose, as one tree.

    CARZeroError
    ├── ImageError               an image cannot or should not be scored
    │   ├── UnreadableImageError     broken, empty, truncated, constant, not an image: never scored
    │   └── UnsuitableImageError     readable, but not a chest radiograph: scored only when forced
    ├── PromptError              words that cannot be asked
    ├── TableError               a table that lacks a column, has doubled keys, or does not fit the run
    ├── WeightsError             weights that cannot be found or do not fit the model
    │   └── CheckpointError          a released checkpoint that cannot be converted
    │       └── UnsafeCheckpointError    a pickle that asks for more than tensors and containers
    ├── ConfigurationError       a configuration or recipe that contradicts itself
    ├── OutputError              an output that is there and must stay, or cannot be written: disk, permissions, name
    ├── RunError                 a training run that cannot start, go on or be resumed
    ├── LanguageModelError       a language model's server cannot be reached, or refuses every request
    └── MissingExtraError        an optional dependency is not installed

Messages have four parts: what, the value got, what was expected, the next step. `describe` puts them together.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Control characters, line and paragraph separators, marks that turn the direction of writing, bytes that are not UTF-8.
_UNPRINTABLE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")


def printable(text: str) -> str:
    r"""Returns a name or a text from a file as a terminal and a table can show it; what cannot be shown is escaped.

    Args:
        text: any string. Bytes of a file name that are not UTF-8 come out as \xff, other characters as Python writes
            them. All else is unchanged, so that most texts are returned as they are.
    """
    return _UNPRINTABLE.sub(_escape, text) if _UNPRINTABLE.search(text) else text


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if "\udc80" <= character <= "\udcff":  # how Python keeps the byte
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def describe(what: str, *, got: object = None, expected: str = "", then: str = "") -> str:
    """Returns a message in the project's one form: what; got; expected; next step.

    Args:
        what: what went wrong, without a full stop.
        got: the offending value; shown by `repr`, cut to 200 characters. None leaves the part out.
        expected: what would have been right.
        then: what the user can do next, as a sentence without a full stop.
    """
    parts = [_cut(what, _MOST_SAID)]
    if got is not None:
        parts.append(f"got {_cut(_show(got, _DEPTH), _MOST_SHOWN)}")
    if expected:
        parts.append(f"expected {_cut(expected, _MOST_SAID)}")
    message = "; ".join(parts) + "."
    if then:
        then = _cut(then, _MOST_SAID)
        message += f" {then[0].upper()}{then[1:]}."
    return printable(message)


_MOST_SHOWN = 200  # characters of a value
_MOST_SAID = 2000  # characters of a part in which a caller has put values of its own
_DEPTH = 4  # of lists in lists
_BRACKETS: dict[type, str] = {list: "[]", tuple: "()", dict: "{}", set: "{}"}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _show(value: object, depth: int) -> str:
    """The beginning of a value's `repr`, at a cost that does not grow with the value."""
    if isinstance(value, str | bytes) and len(value) > _MOST_SHOWN:
        return repr(value[:_MOST_SHOWN])
    if type(value) is int and value.bit_length() > 4 * _MOST_SHOWN:
        return f"a whole number of about {value.bit_length() * 3 // 10} digits"
    brackets = _BRACKETS.get(type(value))
    if brackets is None or not value:
        return repr(value)
    if not depth:
        return f"{brackets[0]}...{brackets[1]}"
    shown: Iterator[str] = iter(())
    if isinstance(value, dict):
        shown = (f"{_show(key, depth - 1)}: {_show(each, depth - 1)}" for key, each in value.items())
    elif isinstance(value, list | tuple | set):
        shown = (_show(each, depth - 1) for each in value)
    parts: list[str] = []
    while sum(map(len, parts)) <= _MOST_SHOWN and (part := next(shown, None)) is not None:
        parts.append(part)
    single = "," if isinstance(value, tuple) and len(value) == 1 else ""
    return brackets[0] + ", ".join(parts) + single + brackets[1]


def first_line(error: BaseException) -> str:
    """What an exception says on its first line, or its name where it says nothing.

    Of a system's error it is the words and the file, without the number. Of values that a pydantic model refuses it is
    the first wrong one: its place, and what was expected there.
    """
    pydantic = sys.modules.get("pydantic_core")  # loaded where one of its models has refused something
    if pydantic is not None and isinstance(error, pydantic.ValidationError):
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        return f"{place}: {problem['msg']}" if place else str(problem["msg"])
    text = str(error).strip()
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    return text.split("\n", 1)[0].rstrip() if text else type(error).__name__


@contextmanager
def refuse_broken(
    what: str, *, error: type[CARZeroError], got: object = None, expected: str = "", then: str = ""
) -> Iterator[None]:
    """The one border around the reading of a file that somebody else has written.

    Parsers raise whatever they like over bytes that they did not expect, and a list of what each has raised so far is
    never whole. So a reader puts its parsing into one such block, and whatever ends it belongs to the file. What is our
    own error passes unchanged.

    Args:
        what: what cannot be read, with its path and, where it has one, its place; without a full stop.
        error: the kind that is raised.
        got: the offending value; by default the first line of what the parser said.
        expected: what would have been right.
        then: what the user can do next.

    Raises:
        CARZeroError: (`error`) the block raised an exception.
    """
    try:
        yield
    except CARZeroError:
        raise
    except Exception as found:
        said = first_line(found) if got is None else got
        raise error(describe(what, got=said, expected=expected, then=then)) from found


@contextmanager
def refuse_settings(what: str) -> Iterator[None]:
    """Turns the ValueError of a computation, which knows no files and no user, into a ConfigurationError.

    Args:
        what: what cannot be done, such as "The scores cannot be evaluated"; the ValueError's message follows.
    """
    try:
        yield
    except CARZeroError:
        raise
    except ValueError as error:
        raise ConfigurationError(f"{what}: {error}") from error


class CARZeroError(Exception):
    """Base of every error that CARZero raises on purpose."""


class ImageError(CARZeroError, ValueError):
    """An image cannot or should not be scored."""


class UnreadableImageError(ImageError):
    """The file is broken, empty, truncated, constant or no image at all; no option overrides it."""


class UnsuitableImageError(ImageError):
    """The file reads well but is not a chest radiograph; `force=True` scores it all the same."""


class PromptError(CARZeroError, ValueError):
    """Words that cannot be asked."""


class TableError(CARZeroError, ValueError):
    """A table lacks a column, repeats a key, or does not belong to the run."""


class WeightsError(CARZeroError, ValueError):
    """Weights cannot be found, or do not fit the model."""


class CheckpointError(WeightsError):
    """A released checkpoint cannot be converted."""


class UnsafeCheckpointError(CheckpointError):
    """A pickle asks for something other than tensors and plain containers."""


class ConfigurationError(CARZeroError, ValueError):
    """A configuration or recipe contradicts itself."""


class OutputError(CARZeroError):
    """An output is there and must stay, or cannot be written; what was finished before is kept."""


class RunError(CARZeroError, RuntimeError):
    """A training run cannot start, go on or be resumed; what it has saved stays."""


class LanguageModelError(CARZeroError):
    """A language model's server cannot be reached, or refuses every request."""


class MissingExtraError(CARZeroError, ImportError):
    """An optional dependency is not installed; the message names the extra."""
