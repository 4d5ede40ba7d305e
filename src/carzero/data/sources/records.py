"""What every import shares: the record of what it found, rows of one form, and splits that depend on a key alone."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from carzero.errors import ConfigurationError, describe

__all__ = ["Advance", "ImportReport", "assign_split", "build_row", "check_shares"]

Advance = Callable[[int, int], None]
_SPLITS = ("train", "val", "test")


@dataclass(slots=True)
class ImportReport:
    """What an import found.

    Attributes:
        rows: the table's rows; `image` is an absolute path.
        found: counts of what the release holds, in words, in the order of reading.
        left_out: counts of what was not asked for, such as other views.
        missing: what should be there and is not, or cannot be read: reason to names.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    missing: dict[str, list[str]] = field(default_factory=dict)

    def miss(self, reason: str, name: str) -> None:
        """Records that something is not there; what UTF-8 cannot say of a file's name is shown by its number."""
        self.missing.setdefault(reason, []).append(name.encode("utf-8", "backslashreplace").decode("utf-8"))

    def to_dict(self) -> dict[str, Any]:
        """Counts and everything that is missing, as plain values; without the rows."""
        return {
            "rows": len(self.rows),
            "patients": len({row["patient_id"] for row in self.rows if row["patient_id"]}),
            "studies": len({(row["patient_id"], row["study_id"]) for row in self.rows if row["study_id"]}),
            "splits": dict(Counter(row["split"] for row in self.rows)),
            "views": dict(Counter(row["view"] for row in self.rows).most_common()),
            "found": dict(self.found),
            "left_out": dict(self.left_out),
            "missing": self.missing,
        }


def build_row(image: str, *, split: str, patient: str, source: str, **values: str) -> dict[str, str]:
    """One row of a table. `values`: `study_id`, `view`, and the columns of words."""
    keys = {"study_id": values.pop("study_id", ""), "view": values.pop("view", "")}
    return {"image": image, **values, "split": split, "patient_id": patient, **keys, "source": source}


def check_shares(shares: Sequence[float]) -> tuple[float, float, float]:
    """Returns the shares of train, val and test.

    Raises:
        ConfigurationError: not three numbers from 0 that add up to 1.
    """
    if len(shares) != len(_SPLITS) or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise ConfigurationError(
            describe("The shares of the splits do not fit", got=list(shares), expected="three from 0 that add up to 1")
        )
    return (shares[0], shares[1], shares[2])


def assign_split(key: str, shares: Sequence[float]) -> str:
    """Returns the split of a key: the same on every machine, in any order, whatever else the table holds.

    The first 8 bytes of the key's SHA-256, read as a fraction of their range, fall into the part of [0, 1) that belongs
    to train, val or test, in this order. So the parts have the asked shares on average only.

    Args:
        key: what must stay together: a patient, or a study where the patient is not known.
        shares: of train, val and test; they add up to 1.
    """
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    if place < shares[0]:
        return "train"
    return "val" if place < shares[0] + shares[1] or shares[2] == 0 else "test"
