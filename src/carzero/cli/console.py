"""What verbs share: results go to stdout, all else to stderr; exit codes 0 done, 1 done with failures, 2 misuse."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from carzero.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from carzero.cli.terminal_table import TextTable
    from carzero.prompts import PromptReview
    from carzero.records import Failure


EXIT_FAILURES = 1
EXIT_MISUSE = 2

_SHOWN = 50  # lines of a list on a terminal
_PARTS = 20  # of the whole: a line after each where there is no terminal
_EVERY_S = 30.0  # and a line at least so often
_QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def stderr_console() -> Console:
    """A console for notes, progress and errors."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False)


def number_of(number: int, what: str) -> str:
    """A number of things in words, "1 row" or "3 rows", where the plural is regular."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def say(*lines: str) -> None:
    """Prints lines on stderr; they are data, and neither markup nor what a terminal obeys."""
    console = stderr_console()
    for line in lines:
        console.print(_shown(line), markup=False)


def report_error(message: str) -> None:
    """Prints an error on stderr; the message is data, so it is never read as markup."""
    from rich.text import Text

    stderr_console().print(Text.assemble(("error: ", "bold red"), _shown(message)))


def _shown(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def show_notes(notes: Iterable[str]) -> None:
    """Prints what a reader should know of a result on stderr, a line each."""
    say(*(f"note: {note}" for note in notes))


def show_review(review: PromptReview) -> None:
    """Prints what is to be known of prompts before their scores are trusted on stderr, one line per rule."""
    show_warnings(review.lines)


def show_warnings(warnings: Iterable[str], *, rest: str = "") -> None:
    """Prints doubts on stderr, a line each; of more than fifty the first, and where the `rest` is."""
    lines = [f"warning: {warning}" for warning in warnings]
    say(*lines[:_SHOWN])
    if len(lines) > _SHOWN:
        say(f"warning: there are {len(lines) - _SHOWN} more" + (f"; {rest}" if rest else ""))


def print_some(title: str, lines: Sequence[str], *, rest: str, shown: int = _SHOWN, count: int | None = None) -> None:
    """Prints a title on stderr and the first lines under it; nothing where there are no lines.

    Args:
        title: what the lines are.
        lines: data, never read as markup.
        rest: where all of them are, as a sentence's end, such as "--json lists all of them".
        shown: how many are printed.
        count: how many there are; None: as many as lines.
    """
    if lines:
        say(title, *(f"  {line}" for line in lines[:shown]))
    if (more := (count or len(lines)) - shown) > 0:
        say(f"  and {more} more; {rest}")


def print_failures(title: str, failures: Sequence[Failure], *, rest: str) -> None:
    """Prints images that could not be scored or read on stderr, each with its reason; see `print_some`."""
    lines = [f"{each.image_id}: {each.reason.removeprefix(f'{each.path}: ')}" for each in failures]
    print_some(f"{title}:", lines, rest=rest)


def print_json(content: object) -> None:
    """Prints a result for programs on stdout."""
    sys.stdout.write(json.dumps(content, indent=2) + "\n")


def print_result(*tables: TextTable, to_stderr: bool = False) -> None:
    """Prints tables on stdout: in a form that fits on a terminal, whole in a pipe."""
    from rich.console import Console

    from carzero.cli.terminal_table import print_table

    console = stderr_console() if to_stderr else Console(highlight=False)
    for number, table in enumerate(tables):
        if number:
            console.print()
        print_table(table, console)


def quiet_libraries() -> None:
    """Keeps transformers' own bars and advice off the user's terminal. Only the command line calls this.

    Where it is not loaded yet its variables are set: loading takes seconds, in which images may be read already.
    """
    if "transformers" not in sys.modules:
        os.environ.update(_QUIET)
        return
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


class Task:
    """How far a piece of work is: a bar on a terminal, a line now and then elsewhere.

    Args:
        bars: the display on a terminal; None where lines are printed.
        doing: the bar's title, such as "scoring".
        done: the lines' verb, such as "scored"; "" prints none.
        items: what is counted in a second, such as "images"; "" shows no speed.
        total: how many there are; None: the calls say it.
    """

    def __init__(self, bars: Bars | None, doing: str, done: str, items: str, total: int | None) -> None:
        self._bars, self._doing, self._done, self._items, self._total = bars, doing, done, items, total
        self._bar: TaskID | None = None
        self._parts = 0
        self._spoken_s: float | None = None

    def advance(self, done: int, failed: int = 0, total: int | None = None, note: str = "", /) -> None:
        """Takes the numbers done and failed, the whole where it was not known at the start, and what else to show."""
        self._total = total or self._total
        notes = [f"{failed} failed"] if failed else []
        notes += [note] if note else []
        if self._bars is None:
            self._print(done, self._total or done, notes)
            return
        if self._bar is None:
            self._bar = self._bars.add_task(self._doing, total=self._total, rate="")
        speed = self._bars.tasks[self._bar].speed if self._items else None
        rate = ", ".join([*([f"{speed:.1f} {self._items}/s"] if speed else []), *notes])
        self._bars.update(self._bar, completed=done, total=self._total, rate=rate)

    def count(self, done: int, total: int, /) -> None:
        """Takes the number done, and the whole."""
        self.advance(done, 0, total)

    def _print(self, done: int, total: int, notes: list[str]) -> None:
        now_s = time.monotonic()
        self._spoken_s = now_s if self._spoken_s is None else self._spoken_s
        part = done // max(1, total // _PARTS)
        if self._done and (done == total or part > self._parts or now_s - self._spoken_s > _EVERY_S):
            self._parts, self._spoken_s = part, now_s
            say(", ".join([f"{self._done} {done} of {total}", *notes]))


class Progress:
    """The display of a run's tasks, on stderr.

    Args:
        is_shown: whether this process speaks; of several that do the same only one should.
        is_kept: whether bars stay on the terminal when the work is done.
    """

    def __init__(self, *, is_shown: bool = True, is_kept: bool = True) -> None:
        self._is_shown = is_shown
        self._console = stderr_console()
        self._bars = _make_bars(self._console, is_kept) if is_shown and self._console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def add(self, doing: str, done: str = "", items: str = "", total: int | None = None) -> Task:
        """A task below those added before; the arguments are those of `Task`."""
        return Task(self._bars, doing, done if self._is_shown else "", items, total)

    def say(self, text: str) -> None:
        """Prints a line of its own, above the bars."""
        if self._is_shown:
            self._console.print(_shown(text), markup=False)


def _make_bars(console: Console, is_kept: bool) -> Bars:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    # Where a row is too wide its texts wrap; left to themselves all columns are cut, the counts too.
    title, rate = (
        TextColumn(text, table_column=Column(no_wrap=False)) for text in ("{task.description}", "{task.fields[rate]}")
    )
    bar = BarColumn(bar_width=max(6, min(40, console.width - 60)))
    columns = (title, bar, MofNCompleteColumn(), rate, TimeRemainingColumn())
    return Progress(*columns, console=console, transient=not is_kept)


@contextmanager
def show_progress(doing: str, done: str = "", items: str = "", total: int | None = None) -> Iterator[Task]:
    """Yields the one task of a run; the arguments are those of `Task`. Nothing is shown for a total of one."""
    with Progress(is_shown=total != 1, is_kept=bool(done)) as progress:
        yield progress.add(doing, done, items, total)
