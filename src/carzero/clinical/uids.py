"""Identifiers of results: functions of the image and of all that decides what is said about it.

The same image, weights, prompts and settings give the same identifiers, whenever and wherever: a result that is made
twice, after a crash or by a second node, is one instance. Another version, other weights or another prompt give others.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

_NAMESPACE = uuid.UUID("5f6a2c1e-6d0b-5c7e-9a53-0c1b6a7d9f42")  # of this package; never to be changed


@dataclass(frozen=True, slots=True)
class ResultUIDs:
    """The identifiers of the results of one image.

    Attributes:
        image: its SOP Instance UID.
        study: its Study Instance UID.
        settings: what decides the results' content beside the image; plain values.
    """

    image: str
    study: str
    settings: Mapping[str, object]

    def instance(self, kind: str, number: int = 1) -> str:
        """SOP Instance UID of a result.

        Args:
            kind: of `carzero.clinical.result_objects.KINDS`.
            number: of the page, from 1.
        """
        return self._make("instance", self.image, kind, number)

    def series(self, kind: str) -> str:
        """Series Instance UID: results of one kind, study and setting share a series."""
        return self._make("series", self.study, kind)

    def finding(self, label: str) -> str:
        """Tracking UID of a finding in this image."""
        return self._make("finding", self.image, label)

    def _make(self, *parts: object) -> str:
        return to_uid([*parts, self.settings])


def device_uid(weights_sha256: str) -> str:
    """Device UID of the algorithm: another one for other weights, as IHE AI Results asks after each retraining."""
    return to_uid(["device", weights_sha256])


def to_uid(content: object) -> str:
    """A UID for plain values: "2.25." and a UUID of version 5 as a number (PS3.5 section B.2)."""
    name = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"
