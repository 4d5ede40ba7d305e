"""Counts of a training table: by split, view and source, and of its sentences."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any

from carzero.data.pairs import PairTable
from carzero.text_cleaning import clean_text

__all__ = ["count_pairs"]


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
