"""The public test sets by name."""

from __future__ import annotations

from carzero.datasets import chestxdet10, chestxray14, chexpert, openi, padchest
from carzero.datasets.base import Protocol

PROTOCOLS: dict[str, Protocol] = {
    module.PROTOCOL.name: module.PROTOCOL for module in (chestxray14, openi, padchest, chexpert, chestxdet10)
}
