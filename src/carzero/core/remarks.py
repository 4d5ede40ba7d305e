"""What libraries say while a call runs: their warnings, their logs, and what their C code prints; and saying it once.

A decoder warns of what it repairs in silence otherwise. On a user's terminal such a line names no file; here it is
kept, so that it can be told with the file.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

_LONGEST_BYTES = 2**16  # of what is printed in one call; the rest is dropped
_ABOUT_CODE = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning, ImportWarning)
_DESCRIPTORS = (1, 2)  # of stdout and stderr


_said: set[tuple[str, int, str]] = set()  # by `warn_once`: file, line, text
_MOST_SAID = 10_000


def warn_once(text: str, category: type[Warning], stacklevel: int = 1) -> None:
    """Warns as `warnings.warn`, once for each text and line of code where Python's filter is "default".

    Python means to do so by itself, but forgets what it said whenever any library touches the filters, as torch and
    pandas do all the time: a loop over images would warn at every image. Other filters, such as "always" and "error",
    hold as they are.

    Args:
        text: what to say.
        category: the warning's class.
        stacklevel: whose line is meant: 1 is the caller of this function.
    """
    frame = sys._getframe(stacklevel)
    place = (frame.f_code.co_filename, frame.f_lineno, text)
    if place in _said and _find_action(text, category, str(frame.f_globals.get("__name__", "")), place[1]) == "default":
        return
    if len(_said) >= _MOST_SAID:
        _said.clear()
    _said.add(place)
    warnings.warn(text, category, stacklevel=stacklevel + 1)


def _find_action(text: str, category: type[Warning], module: str, line: int) -> str:
    """What Python's filters do with a warning, by the rules of `warnings.warn_explicit`."""
    for action, message, wanted, place, number in warnings.filters:
        if (
            (message is None or re.match(message, text))
            and issubclass(category, wanted)
            and (place is None or re.match(place, module))
            and number in (0, line)
        ):
            return action
    return "default"


class Remark(NamedTuple):
    """One thing said.

    Attributes:
        source: the module that warned, the logger, or "printed".
        text: its first line.
    """

    source: str
    text: str


class _Records(logging.Handler):
    """Takes what is logged, warnings and worse."""

    def __init__(self, remarks: list[Remark]) -> None:
        super().__init__(logging.WARNING)
        self._remarks = remarks

    def emit(self, record: logging.LogRecord) -> None:
        self._remarks.append(_to_remark(record.name, record.getMessage()))


@contextmanager
def collected_remarks() -> Iterator[list[Remark]]:
    """Yields a list that holds, once the block has ended, what libraries have said in it, each remark once.

    Nothing of it is printed. It takes over what belongs to the whole process (stdout, stderr, the filter of warnings),
    so it is for processes that do one thing at a time. Warnings about code, such as a deprecation, are left out.
    """
    remarks: list[Remark] = []
    handler, said = _Records(remarks), list[Remark]()
    with ExitStack() as held:
        printed = _capture_output(held)
        caught = held.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        logging.getLogger().addHandler(handler)
        held.callback(logging.getLogger().removeHandler, handler)
        try:
            yield remarks
        finally:
            said += remarks
            said += [
                _to_remark(Path(each.filename).stem, str(each.message))
                for each in caught
                if not issubclass(each.category, _ABOUT_CODE)
            ]
            said += [_to_remark("printed", line) for line in _read_lines(printed)]
            remarks[:] = dict.fromkeys(remark for remark in said if remark.text)


def _to_remark(source: str, text: str) -> Remark:
    return Remark(source, (text.strip().splitlines() or [""])[0].strip())


def _capture_output(held: ExitStack) -> IO[bytes] | None:
    """Has the descriptors of stdout and stderr write into a file until `held` is closed.

    Returns:
        the file; None where there is no room for one, so that all is printed.
    """
    try:
        if sys.platform == "linux":
            file: IO[bytes] = os.fdopen(os.memfd_create("remarks"), "w+b")
        else:
            file = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError:
        return None
    held.enter_context(file)
    _flush()
    for descriptor in _DESCRIPTORS:
        before = os.dup(descriptor)
        held.callback(os.close, before)
        held.callback(os.dup2, before, descriptor)
        os.dup2(file.fileno(), descriptor)
    return file


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _read_lines(file: IO[bytes] | None) -> list[str]:
    if file is None:
        return []
    _flush()
    file.seek(0)
    return file.read(_LONGEST_BYTES).decode(errors="replace").splitlines()
