"""What verbs share: results go to stdout, all else to stderr; exit codes 0 done, 1 done with failures, 2 wrong use."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from carzero.prompts import PromptReview
    from carzero.training.progress import StepRecord


EXIT_FAILURES = 1
EXIT_MISUSE = 2


def stderr_console() -> Console:
    """A console for notes, progress and errors."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False)


def stdout_console() -> Console:
    """A console for results."""
    from rich.console import Console

    return Console(highlight=False)


def report_error(message: str) -> None:
    """Prints an error on stderr; the message is data, so it is never read as markup."""
    from rich.text import Text

    stderr_console().print(Text.assemble(("error: ", "bold red"), message))


def print_some(title: str, lines: Sequence[str], *, shown: int, rest: str) -> None:
    """Prints a title with the number of lines on stderr and the first lines under it; nothing where there are none.

    Args:
        title: what the lines are.
        lines: data, never read as markup.
        shown: how many are printed.
        rest: where all of them are, as a sentence's end, such as "--json lists all of them".
    """
    console = stderr_console()
    if lines:
        console.print(f"{title}: {len(lines)}", markup=False)
    for line in lines[:shown]:
        console.print(f"  {line}", markup=False)
    if len(lines) > shown:
        console.print(f"  and {len(lines) - shown} more; {rest}", markup=False)


def show_notes(notes: Iterable[str]) -> None:
    """Prints what a reader should know of a result on stderr, a line each."""
    console = stderr_console()
    for note in notes:
        console.print(f"note: {note}", markup=False)


def show_review(review: PromptReview) -> None:
    """Prints what is to be known of prompts before their scores are trusted on stderr, a line a rule."""
    console = stderr_console()
    for line in review.lines:
        console.print(f"warning: {line}", markup=False)


def split_names(given: Iterable[str] | None) -> list[str] | None:
    """Names of an option that takes several, separated by commas, and may be repeated; None stays None."""
    if given is None:
        return None
    return [name.strip() for group in given for name in group.split(",") if name.strip()]


@contextmanager
def show_rounds() -> Iterator[Callable[[int, int], None]]:
    """Yields `advance(done, rounds)` of a bootstrap: a bar on a terminal, nothing elsewhere."""
    console = stderr_console()
    if not console.is_terminal:
        yield lambda done, rounds: None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("bootstrap", total=None)
        yield lambda done, rounds: bar.update(task, completed=done, total=rounds)


def quiet_libraries() -> None:
    """Keeps transformers' own bars and advice off the user's terminal. Only the command line calls this."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


class Advance(Protocol):
    """Tells how far a run is."""

    def __call__(self, done: int, failed: int, total: int | None = None, note: str = "", /) -> None:
        """Takes the numbers done and failed, the whole where it was not known at the start, and what else to show."""


@contextmanager
def show_progress(doing: str, done: str, things: str, total: int | None = None) -> Iterator[Advance]:
    """Yields `advance(number done, number failed)`: a bar on a terminal, a line now and then elsewhere.

    Args:
        doing: the bar's title, such as "scoring".
        done: the lines' verb, such as "scored".
        things: what is counted in a second, such as "images".
        total: how many there are; nothing is shown for one. None: `advance` is told.
    """
    console = stderr_console()
    if total == 1:
        yield lambda *_: None
    elif console.is_terminal:
        with _bar(console, total, doing, things) as advance:
            yield advance
    else:
        last = 0

        def log(number: int, failed: int, counted: int | None = None, note: str = "", /) -> None:
            nonlocal last
            whole = counted or total or number
            step = max(1, whole // 20)
            if number == whole or number // step > last:
                last = number // step
                console.print(", ".join([f"{done} {number} of {whole}", *_notes(failed, note)]), markup=False)

        yield log


@contextmanager
def _bar(console: Console, total: int | None, doing: str, things: str) -> Iterator[Advance]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(doing, total=total, rate="")

        def advance(number: int, failed: int, counted: int | None = None, note: str = "", /) -> None:
            speed = bar.tasks[0].speed
            rate = ", ".join([*([f"{speed:.1f} {things}/s"] if speed else []), *_notes(failed, note)])
            bar.update(task, completed=number, total=counted or total, rate=rate)

        yield advance


def _notes(failed: int, note: str) -> list[str]:
    return ([f"{failed} failed"] if failed else []) + ([note] if note else [])


_EVERY_S = 30.0  # between lines where there is no terminal


class TrainingProgress:
    """Shows images being read, then steps. Only the main process of several speaks."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.is_main = os.environ.get("RANK", "0") == "0"
        self._console = stderr_console()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
        shown = self.is_main and self._console.is_terminal
        self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console, disable=not shown)
        self._tasks: dict[str, TaskID] = {}
        self._spoken = 0.0

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.is_main:
            self._console.print(text, markup=False)

    def count_images(self, done: int, total: int) -> None:
        """Images read."""
        self._advance("reading images", done, total)
        if self._bar.disable and done == total:
            self.say(f"Read {total} images.")

    def add_record(self, record: StepRecord) -> None:
        """A step's log record; validations stand on a line of their own."""
        line = f"loss {record.loss:.4f}  lr {record.lr:.2e}  {record.items_per_s:.1f} {record.items}/s"
        self._advance(line, record.step, record.steps)
        if record.validation is not None:
            self.say(f"step {record.step}: {json.dumps(_round(record.validation.to_dict()))}")
        elif self._bar.disable and time.monotonic() - self._spoken > _EVERY_S:
            self._spoken = time.monotonic()
            self.say(f"step {record.step}/{record.steps}  {line}")

    def _advance(self, text: str, done: int, total: int) -> None:
        name = "pictures" if text == "reading images" else "steps"
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(text, total=total)
        self._bar.update(self._tasks[name], completed=done, total=total, description=text)


def _round(value: object) -> object:
    if isinstance(value, dict):
        return {name: _round(part) for name, part in value.items()}
    return round(value, 4) if isinstance(value, float) else value
