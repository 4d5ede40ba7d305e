"""What a training run shows: one live line on a terminal, a line every so often elsewhere."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from carzero.cli.console import stderr_console

__all__ = ["TrainingProgress"]

_EVERY_S = 30.0  # between lines where there is no terminal


class TrainingProgress:
    """Shows pictures being read, then steps. Only the main process of several speaks."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.is_main = os.environ.get("RANK", "0") == "0"
        self._console = stderr_console()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
        shown = self.is_main and self._console.is_terminal
        self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console, disable=not shown)
        self._tasks: dict[str, Any] = {}
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

    def count_pictures(self, done: int, total: int) -> None:
        """Pictures read."""
        self._advance("reading pictures", done, total)
        if self._bar.disable and done == total:
            self.say(f"Read {total} pictures.")

    def add_record(self, record: dict[str, Any]) -> None:
        """A step's log record; validations stand on a line of their own."""
        counted = next(name for name in record if name.endswith("_per_s"))
        speed = f"{record[counted]:.1f} {counted.removesuffix('_per_s')}/s"
        line = f"loss {record['loss']:.4f}  lr {record['lr']:.2e}  {speed}"
        self._advance(line, record["step"], record["steps"])
        if "validation" in record:
            self.say(f"step {record['step']}: {json.dumps(_round(record['validation']))}")
        elif self._bar.disable and time.monotonic() - self._spoken > _EVERY_S:
            self._spoken = time.monotonic()
            self.say(f"step {record['step']}/{record['steps']}  {line}")

    def _advance(self, text: str, done: int, total: int) -> None:
        name = "pictures" if text == "reading pictures" else "steps"
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(text, total=total)
        self._bar.update(self._tasks[name], completed=done, total=total, description=text)


def _round(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _round(part) for name, part in value.items()}
    return round(value, 4) if isinstance(value, float) else value
