"""Where a language model is asked: the address, checked, and the key, taken from the environment alone."""

from __future__ import annotations

import datetime
import ipaddress
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from carzero.errors import ConfigurationError, describe

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


KEY_VARIABLES = ("CARZERO_API_KEY", "OPENAI_API_KEY")
_TAKEN_NAMES = ("rules", "all")
_ENDPOINT = "/chat/completions"


@dataclass(frozen=True, slots=True)
class Server:
    """An OpenAI-compatible server and one of its models.

    Attributes:
        base_url: address up to and without "/chat/completions", such as "http://127.0.0.1:8000/v1".
        model: the model's name as the server knows it.
        api_key: sent as bearer token; never shown, logged or kept.
        timeout_s: limit of one request, from connecting to the last byte.
        retries: what happens when a request fails.

    Raises:
        ConfigurationError: the address or the name cannot be used.
    """

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    timeout_s: float = 120.0
    retries: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise ConfigurationError(
                describe("No model is named", then="name one with --model, as the server's /models lists it")
            )
        if self.model in _TAKEN_NAMES:
            raise ConfigurationError(
                describe(
                    "The model's name means something else in results", got=self.model, then="serve it under another"
                )
            )
        try:
            parts = urlsplit(self.base_url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if not usable:
            raise ConfigurationError(
                describe(
                    "The server's address cannot be used",
                    got=self.base_url,
                    expected="such as http://127.0.0.1:8000/v1 or https://api.openai.com/v1",
                )
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigurationError(  # what stands there may be a secret, so it is not shown
                describe(
                    f"The server's address at {parts.hostname} holds a user, a query or a fragment",
                    expected="the plain address",
                    then=f"put a key into the environment variable {KEY_VARIABLES[0]}",
                )
            )

    @property
    def endpoint(self) -> str:
        """The address that requests go to."""
        return self.base_url.rstrip("/").removesuffix(_ENDPOINT) + _ENDPOINT

    @property
    def host(self) -> str:
        """Name or number of the machine that reads the reports."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def is_encrypted(self) -> bool:
        """Whether requests travel under TLS."""
        return urlsplit(self.base_url).scheme == "https"

    @property
    def is_this_machine(self) -> bool:
        """Whether the server is this machine, by its address; a name other than localhost is taken for another one."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def find_api_key() -> str:
    """The key in the environment: CARZERO_API_KEY, else OPENAI_API_KEY, else "" for servers that want none.

    Raises:
        ConfigurationError: the key holds characters that no header can carry.
    """
    for name in KEY_VARIABLES:
        if key := os.environ.get(name, "").strip():
            if not key.isascii() or not key.isprintable():
                raise ConfigurationError(
                    describe(f"The environment variable {name} holds no key", expected="printable ASCII characters")
                )
            return key
    return ""
