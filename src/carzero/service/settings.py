"""What a service is told when it is made: weights, limits, keys and who may ask."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from carzero.core.text_files import load_lines
from carzero.errors import ConfigurationError, describe
from carzero.metrics.calibration import Calibration
from carzero.weights.source import DEMO, WeightsSource

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_LINE = re.compile(r"([A-Za-z0-9._-]{1,64})[ \t]+([0-9a-f]{64})")
_LONGEST_KEY = 512


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """Keys that open a service.

    A key file holds one line per key, its name and the SHA-256 of the key; empty lines and those that begin with "#"
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
                what = f"{path}: entry {number} is not a key" if found is None else f"{path} names {found[1]} twice"
                raise ConfigurationError(describe(what, expected=expected, then=then))
            hashes[found[1]] = bytes.fromhex(found[2])
        if not hashes:
            raise ConfigurationError(
                describe(f"{path} holds no keys", expected=f"one line per key: {expected}", then=then)
            )
        return cls(hashes)

    def find(self, key: str) -> str | None:
        """The name of a key, or None. Every hash is compared, so that time tells nothing."""
        given = hashlib.sha256(key[:_LONGEST_KEY].encode("utf-8", "surrogatepass")).digest()
        found = None
        for name, own in self.hashes.items():
            if hmac.compare_digest(given, own) and len(key) <= _LONGEST_KEY:
                found = name
        return found


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request, and all of them together, may take.

    Attributes:
        body_bytes: of a request.
        images: in a request.
        prompts: in a request, over all labels.
        maps: in the image's pixels, in an answer; those of the model's own cells are small and have no limit.
        seconds: from the end of the upload to the answer; then 504.
        waiting: images that are accepted and not answered yet, over all requests; then 503.
        held_bytes: of uploads that are not answered yet, over all requests; then 503.
        idle_s: seconds that a client may take for a request's head, and in which nothing may arrive of its body.
        slowest_bytes_s: a body that arrives slower than this, in bytes a second, is cut; so is a client that reads its
            answer slower.
    """

    body_bytes: int = 256 * 2**20
    images: int = 32
    prompts: int = 256
    maps: int = 32
    seconds: float = 120.0
    waiting: int = 512
    held_bytes: int = 4 * 2**30
    idle_s: float = 20.0
    slowest_bytes_s: int = 16 * 2**10

    def __post_init__(self) -> None:
        wrong = {name: value for name in self.__slots__ if (value := getattr(self, name)) <= 0}
        if wrong:
            raise ConfigurationError(describe("A limit lets nothing through", got=wrong, expected="numbers above 0"))


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """How a service works.

    Attributes:
        weights: by the name under which they are asked for; the first is the default.
        calibrations: by the same names; weights without one give no probabilities.
        keys: who may ask; None lets everybody who reaches the port.
        hosts: names under which the service answers; None answers under any. Without keys they keep other web pages
            from reaching a service on this machine by a name of their own.
        dicomweb: roots of DICOMweb services that images may be fetched from, such as
            "https://user:password@pacs/dicom-web".
        limits: see `Limits`.
        batch_size: images in one pass; None: one on a CPU, where that is no slower and a score so never depends on who
            else asks, to its last digit; 16 elsewhere.
        device: where to compute; None takes a GPU if there is one.
        dtype: precision, see `carzero.weights.precision.DTYPES`; None is float32.
        readers: processes that read images; None takes one for each core.
    """

    weights: Mapping[str, WeightsSource] = field(default_factory=lambda: {DEMO: WeightsSource(DEMO)})
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    keys: ApiKeys | None = None
    hosts: tuple[str, ...] | None = None
    dicomweb: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    batch_size: int | None = None
    device: str | None = None
    dtype: str | None = None
    readers: int | None = None

    def __post_init__(self) -> None:
        if not self.weights:
            raise ConfigurationError(describe("There is nothing to score with", expected="at least one set of weights"))
        if strange := sorted(set(self.calibrations) - set(self.weights)):
            raise ConfigurationError(
                describe("A calibration belongs to no weights", got=strange, expected=f"of {list(self.weights)}")
            )


def name_weights(given: Iterable[str]) -> dict[str, WeightsSource]:
    """Weights by name, from NAME=WEIGHTS or WEIGHTS alone, which are named by themselves or by their folder.

    Raises:
        ConfigurationError: a name is given twice.
        WeightsError: a name looks like a path, and there are no weights.
    """
    named: dict[str, WeightsSource] = {}
    for each in given:
        name, place = split_name(each)
        source = WeightsSource(place)
        name = name or source.short_name
        if name in named:
            raise ConfigurationError(
                describe("Two sets of weights have one name", got=name, then=f"name them: other={place}")
            )
        named[name] = source
    return named


def split_name(given: str) -> tuple[str, str]:
    """NAME=REST as (NAME, REST); a text without "=", or with it in a path that exists, as ("", text)."""
    name, separator, rest = given.partition("=")
    return (name, rest) if separator and name and not Path(given).exists() else ("", given)
