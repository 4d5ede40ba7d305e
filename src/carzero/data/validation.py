"""A training table checked before a run: what is kept, what is dropped and why, and what would spoil the run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from carzero.data.image_checks import Advance, ImageCheck, check_images
from carzero.data.pairs import DroppedRow, PairReport, PairTable, inspect_pairs
from carzero.text.cleaning import clean_text


def count_pairs(table: PairTable) -> dict[str, Any]:
    """Returns counts as plain values.

    Returns:
        `rows`; `splits`: rows, patients, rows without a patient, and studies by split; `views` and `sources`: rows by
        value, the most frequent first; `findings`: rows that affirm and that deny each; `sentences`: see
        `_count_sentences`.
    """
    return {
        "rows": len(table),
        "splits": _count_splits(table),
        "views": dict(Counter(table.views).most_common()),
        "sources": dict(Counter(table.sources).most_common()),
        "findings": _count_findings(table),
        "sentences": _count_sentences(table),
    }


def _count_splits(table: PairTable) -> dict[str, dict[str, int]]:
    counts = {}
    for split in sorted(set(table.splits), key=("train", "val", "test").index):
        rows = [row for row, name in enumerate(table.splits) if name == split]
        patients = {(table.sources[row], table.patients[row]) for row in rows if table.patients[row]}
        studies = {(table.sources[row], table.patients[row], table.studies[row]) for row in rows if table.studies[row]}
        unknown = sum(not table.patients[row] for row in rows)
        counts[split] = {
            "rows": len(rows),
            "patients": len(patients),
            "rows_without_patient": unknown,
            "studies": len(studies),
        }
    return counts


def _count_findings(table: PairTable) -> dict[str, dict[str, int]]:
    present = Counter(name for names in table.present for name in names)
    absent = Counter(name for names in table.absent for name in names)
    order = sorted({*present, *absent}, key=lambda name: (-present[name], name))
    return {name: {"present": present[name], "absent": absent[name]} for name in order}


def _count_sentences(table: PairTable) -> dict[str, Any]:
    """Counts of sentences as the model reads them, that is after cleaning.

    Returns:
        `total`; `emptied`: those that cleaning leaves nothing of; `per_report`: lowest, median and highest number
        in rows with text; `distinct`; `duplicate_share`: part of the rest that repeats another one, in [0, 1], which is
        the part that a contrastive loss may push apart though it says the same.
    """
    cleaned = [clean_text(sentence) for sentences in table.sentences for sentence in sentences]
    left = [sentence for sentence in cleaned if sentence]
    lengths = [len(sentences) for sentences in table.sentences if sentences]
    distinct = len(set(left))
    return {
        "total": len(cleaned),
        "emptied": len(cleaned) - len(left),
        "per_report": {"min": min(lengths), "median": median(lengths), "max": max(lengths)} if lengths else None,
        "distinct": distinct,
        "duplicate_share": 1 - distinct / len(left) if left else 0.0,
    }


_MOST_GUARDED = ("test", "val", "train")


@dataclass(frozen=True, slots=True)
class PairValidation:
    """What is known of a table.

    Attributes:
        pairs: the rows that are kept, those that are dropped with reasons, and the problems that stop a run. Where
            there are problems, neither texts nor images have been looked at.
        doubts: (row, doubt) of rows that are kept although something is odd about them; rows count from 1.
        images_read: True if the images were read.
        warnings: what is odd about the table as a whole, each a full sentence.
    """

    pairs: PairReport
    doubts: list[tuple[int, str]]
    images_read: bool
    warnings: list[str]

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return len(self.pairs.rows) + len(self.pairs.dropped)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        problems = self.pairs.problems
        return {
            "rows": self.rows,
            "kept": 0 if problems else len(self.pairs.rows),
            "dropped": dict(Counter(row.kind for row in self.pairs.dropped)),
            "pictures_read": self.images_read,
            "counts": None if problems else count_pairs(self.pairs.table),
            "dropped_rows": [asdict(row) for row in self.pairs.dropped],
            "warnings": self.warnings,
            "doubts": [{"row": row, "doubt": doubt} for row, doubt in self.doubts],
            "problems": [
                {
                    "kind": problem.kind,
                    "message": problem.message,
                    "cases": [{"name": name, "rows": rows} for name, rows in problem.cases],
                }
                for problem in problems
            ],
        }


def validate_pairs(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    read_images: bool = True,
    jobs: int = 1,
    advance: Advance = lambda done, failed, total: None,
) -> PairValidation:
    """Checks a training table.

    A row is dropped if it names no image, has neither text nor findings, has text that cleaning leaves nothing of
    (and no findings), or if its image is missing, broken, no chest radiograph, or the same one, grey level by grey
    level, as an image of a more guarded split (test before val before train): a test on an image of training proves
    nothing. The same image twice in one split is kept, and a doubt.

    Args:
        path: the table; see `load_pairs`.
        columns: name in our schema to name in the file.
        read_images: False leaves the images unread; missing ones are then not found either.
        jobs: processes that read images; see `check_images`.
        advance: called with the numbers of images done, failed and in all, after each.

    Raises:
        TableError: the file cannot be read as a table of pairs. Contradictions and leakage are not an error here: they
            stand in the result.
    """
    report = inspect_pairs(path, columns=columns)
    if report.problems:
        return PairValidation(report, [], images_read=False, warnings=[])
    report = _drop(report, _emptied_rows(report.table))
    warnings = _warn_of_sources(report.table)
    if not read_images:
        return PairValidation(report, [], images_read=False, warnings=warnings)
    checks = check_images(report.table.images, jobs=jobs, advance=advance)
    broken = {number: (check.kind, check.reason) for number, check in enumerate(checks) if check.kind}
    leaking, repeated = _compare(report, checks)
    doubts = [(row, doubt) for row, check in zip(report.rows, checks, strict=True) for doubt in check.doubts]
    gone = {report.rows[number] for number in leaking}
    doubts = [(row, doubt) for row, doubt in [*doubts, *repeated] if row not in gone]
    if leaking:
        warnings.append(f"Images that stand in another split too, and are left out: {len(leaking)}.")
    return PairValidation(_drop(report, {**broken, **leaking}), sorted(doubts), images_read=True, warnings=warnings)


def _warn_of_sources(table: PairTable) -> list[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for patient, split in zip(table.patients, table.splits, strict=True):
        splits[patient].add(split)
    several = [patient for patient, where in splits.items() if patient and len(where) > 1]
    if not several:
        return []
    shown = ", ".join(sorted(several)[:5])
    return [
        f"Patient ids that stand in several splits under different sources: {len(several)} ({shown}"
        f"{', ...' if len(several) > 5 else ''}). They count as different patients; if they are the same, leave the "
        "column source out."
    ]


def _drop(report: PairReport, reasons: Mapping[int, tuple[str, str]]) -> PairReport:
    """The report without rows of its table, by their numbers in it, from 0."""
    names = report.cells.texts(report.image_column)
    dropped = [
        DroppedRow(report.rows[number], names[report.rows[number] - 1], kind, reason)
        for number, (kind, reason) in reasons.items()
    ]
    kept = [number for number in range(len(report.rows)) if number not in reasons]
    return replace(
        report,
        table=report.table.select(kept),
        rows=[report.rows[number] for number in kept],
        dropped=sorted([*report.dropped, *dropped], key=lambda row: row.row),
    )


def _emptied_rows(table: PairTable) -> dict[int, tuple[str, str]]:
    reason = "cleaning leaves nothing of its text (a sentence needs two words)"
    return {
        number: ("text-cleaned-away", reason)
        for number, sentences in enumerate(table.sentences)
        if not (table.present[number] or table.absent[number] or any(clean_text(sentence) for sentence in sentences))
    }


def _compare(
    report: PairReport, checks: Sequence[ImageCheck]
) -> tuple[dict[int, tuple[str, str]], list[tuple[int, str]]]:
    """Equal images: reasons to drop those that leak between splits, by number; doubts about others, by row."""
    groups: dict[str, list[int]] = defaultdict(list)
    for number, check in enumerate(checks):
        if check.digest:
            groups[check.digest].append(number)
    leaking: dict[int, tuple[str, str]] = {}
    doubts = []
    splits, rows = report.table.splits, report.rows
    for numbers in groups.values():
        guarded = min((splits[number] for number in numbers), key=_MOST_GUARDED.index)
        first = next(number for number in numbers if splits[number] == guarded)
        for number in numbers:
            if splits[number] != guarded:
                reason = f"the same image stands in row {rows[first]}, which belongs to {guarded}"
                leaking[number] = ("picture-leakage", reason)
            elif number != first:
                doubts.append((rows[number], f"The same image stands in row {rows[first]} too."))
    return leaking, doubts
