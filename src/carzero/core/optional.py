"""Packages that only some commands need, each installed with an extra of this one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from carzero.errors import MissingExtraError, describe


@contextmanager
def require_extra(what: str, extra: str, otherwise: str = "") -> Iterator[None]:
    """Turns an ImportError of the block into a message that names the extra to install.

    The imports stay written out in the block, so that type checkers and the test of dependencies see them.

    Args:
        what: what needs which package, such as "Scoring on several workers needs Ray".
        extra: the extra of pyproject.toml that installs it.
        otherwise: what else the user can do, such as "take it out of the recipe's log".

    Raises:
        MissingExtraError: a package is not installed.
    """
    try:
        yield
    except ImportError as error:
        # The package is on no index: a bare name would be looked for there, and might be somebody else's.
        then = f"install it in a checkout of carzero: {sys.executable} -m pip install '.[{extra}]'"
        then += f", or {otherwise}" if otherwise else ""
        raise MissingExtraError(describe(what, then=then)) from error
