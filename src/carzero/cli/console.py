"""What verbs share: results go to stdout, all else to stderr; exit codes 0 done, 1 done with failures, 2 wrong use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["EXIT_FAILURES", "EXIT_MISUSE", "quiet_libraries", "report_error", "stderr_console", "stdout_console"]

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


def quiet_libraries() -> None:
    """Keeps transformers' own bars and advice off the user's terminal. Only the command line calls this."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
