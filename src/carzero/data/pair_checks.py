"""What stops a training run before it starts: contradictions within a table, and leakage between its splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from carzero.errors import describe

if TYPE_CHECKING:
    from carzero.data.pairs import PairTable

__all__ = ["SPLITS", "PairProblem", "find_problems"]

SPLITS = ("train", "val", "test")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class PairProblem:
    """One kind of fault, with all its cases.

    Attributes:
        kind: "unknown-split", "contradiction", "image-twice", "patient-leakage" or "study-leakage".
        message: the fault in words, with up to five cases.
        cases: every case: what it is (a split, a picture, a patient), and the rows it stands in, from 1.
    """

    kind: str
    message: str
    cases: list[tuple[str, list[int]]]


def find_problems(table: PairTable, rows: Sequence[int], path: Path) -> list[PairProblem]:
    """Returns what is wrong with a table, each kind once.

    A patient id belongs to its source; an unknown one ("") never leaks. A study id belongs to its patient, as releases
    number studies by patient too; so studies are compared where the patient is unknown.

    Args:
        table: the rows that would be trained on.
        rows: (len(table),) their numbers in the file, for messages.
        path: the file, for messages.
    """
    known_patients = [number for number, patient in enumerate(table.patients) if patient]
    loose_studies = [n for n, study in enumerate(table.studies) if study and not table.patients[n]]
    patients = {n: _key(table.sources[n], table.patients[n]) for n in known_patients}
    studies = {n: _key(table.sources[n], table.studies[n]) for n in loose_studies}
    found = [
        (
            "unknown-split",
            _group((split, row) for split, row in zip(table.splits, rows, strict=True) if split not in SPLITS),
            "unknown splits",
            ("train, val or test", "correct the column split"),
        ),
        (
            "contradiction",
            _group((name, rows[n]) for n in range(len(table)) for name in table.present[n] if name in table.absent[n]),
            "findings both present and absent",
            ("each finding in one of the two columns, or in none", ""),
        ),
        (
            "image-twice",
            _repeated((name, row) for name, row in zip(table.images, rows, strict=True) if name),
            "pictures named more than once",
            ("one row a picture", "join the rows' sentences"),
        ),
        (
            "patient-leakage",
            _leaking(patients, table.splits, rows),
            "patients in more than one split",
            ("each patient in one split", "assign splits by patient"),
        ),
        (
            "study-leakage",
            _leaking(studies, table.splits, rows),
            "studies in more than one split",
            ("each study in one split", "assign splits by patient, or by study where no patient is known"),
        ),
    ]
    return [
        PairProblem(kind, _message(f"{path} has {what} ({len(cases)})", cases, *advice), cases)
        for kind, cases, what, advice in found
        if cases
    ]


def _message(what: str, cases: list[tuple[str, list[int]]], expected: str, then: str) -> str:
    shown = [f"{name!r} (rows {', '.join(map(str, rows[:_SHOWN]))})" for name, rows in cases[:_SHOWN]]
    more = f" and {len(cases) - _SHOWN} more" if len(cases) > _SHOWN else ""
    return describe(f"{what}: {', '.join(shown)}{more}", expected=expected, then=then)


def _key(source: str, name: str) -> str:
    return f"{source}/{name}" if source else name


def _group(pairs: Iterable[tuple[str, int]]) -> list[tuple[str, list[int]]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for name, row in pairs:
        groups[name].append(row)
    return list(groups.items())


def _repeated(pairs: Iterable[tuple[str, int]]) -> list[tuple[str, list[int]]]:
    return [(name, rows) for name, rows in _group(pairs) if len(rows) > 1]


def _leaking(names: dict[int, str], splits: Sequence[str], rows: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Names in several splits, each with the first row of each split."""
    first: dict[str, dict[Hashable, int]] = defaultdict(dict)
    for number, name in names.items():
        first[name].setdefault(splits[number], rows[number])
    return [(name, list(by_split.values())) for name, by_split in first.items() if len(by_split) > 1]
