"""When a request is sent again, and how long to wait before it."""

from __future__ import annotations

import datetime
import random
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

__all__ = ["MAX_RETRY_AFTER_S", "RetryPolicy", "is_passing", "retry_after_s"]

MAX_RETRY_AFTER_S = 300.0
_PASSING = frozenset({408, 409, 425, 429})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with jitter.

    Attributes:
        tries: how often a request is sent in all.
        first_wait_s: middle of the wait behind the first failure; it doubles with each further one.
        max_wait_s: limit of the doubling.
    """

    tries: int = 8
    first_wait_s: float = 1.0
    max_wait_s: float = 60.0

    def wait_s(self, failures: int, chance: random.Random) -> float:
        """Seconds to wait behind so many failures (1 or more): half to one and a half times the step's middle."""
        middle = min(self.max_wait_s, self.first_wait_s * 2.0 ** (failures - 1))
        return middle * (0.5 + chance.random())


def is_passing(status: int) -> bool:
    """Whether an HTTP status stands for a trouble that may pass: too many requests, or the server's own fault."""
    return status in _PASSING or status >= 500


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds that a response asks to wait (RFC 9110, section 10.2.3: a number or a date).

    Returns:
        0 where nothing readable is asked, at most `MAX_RETRY_AFTER_S`.
    """
    asked = headers.get("retry-after", "").strip()
    if not asked.isascii():
        return 0.0
    if asked.isdigit():
        return float(min(int(asked[:9]), MAX_RETRY_AFTER_S))
    try:
        until = parsedate_to_datetime(asked)
    except (ValueError, TypeError):
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=datetime.UTC)
    seconds = (until - datetime.datetime.now(datetime.UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
