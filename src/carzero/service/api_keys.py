"""Who may ask: keys by name, of which only hashes are kept."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from carzero.core.text_files import load_lines
from carzero.errors import ConfigurationError, describe

_LINE = re.compile(r"([A-Za-z0-9._-]{1,64})[ \t]+([0-9a-f]{64})")
_LONGEST_KEY = 512


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """Keys that open a service.

    A file of keys holds a line a key, its name and the SHA-256 of the key; empty lines and those that begin with "#"
    are passed over. A plain hash is enough for keys that are long and random, such as `openssl rand -hex 32` makes.

    Attributes:
        hashes: SHA-256 of each key by its name, which stands in the log.
    """

    hashes: Mapping[str, bytes]

    @classmethod
    def load(cls, path: Path) -> ApiKeys:
        """Reads a file of keys.

        Raises:
            TableError: it cannot be read.
            ConfigurationError: it holds another line, a name twice, or no key.
        """
        hashes: dict[str, bytes] = {}
        expected = "a name and the SHA-256 of the key in hexadecimal, separated by a blank"
        then = 'make a line with: printf \'%s %s\' NAME "$(printf %s "$KEY" | sha256sum | cut -c-64)"'
        for number, line in enumerate(load_lines(path, expected=expected), start=1):
            if line.startswith("#"):
                continue
            found = _LINE.fullmatch(line)
            if found is None or found[1] in hashes:  # the line itself may be a key, so it is not shown
                what = f"{path}: entry {number} is no key" if found is None else f"{path} names {found[1]} twice"
                raise ConfigurationError(describe(what, expected=expected, then=then))
            hashes[found[1]] = bytes.fromhex(found[2])
        if not hashes:
            raise ConfigurationError(describe(f"{path} holds no keys", expected=f"a line a key: {expected}", then=then))
        return cls(hashes)

    def find(self, key: str) -> str | None:
        """The name of a key, or None. Every hash is compared, so that time tells nothing."""
        given = hashlib.sha256(key[:_LONGEST_KEY].encode("utf-8", "surrogatepass")).digest()
        found = None
        for name, own in self.hashes.items():
            if hmac.compare_digest(given, own) and len(key) <= _LONGEST_KEY:
                found = name
        return found
