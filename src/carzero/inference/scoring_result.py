"""What a scoring run has produced: its rows stay in files, and are read piece by piece or when they are asked for."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from carzero.core.atomic import replace_when_done
from carzero.core.journal import Journal
from carzero.core.text_files import to_cells
from carzero.inference.score_table import (
    NORMAL_COLUMN,
    load_score_pieces,
    mark_unfamiliar,
    rows_in_piece,
    save_scores,
    to_rows,
    unpack_row,
    unpack_rows,
)
from carzero.records import Failure, ImageItem

if TYPE_CHECKING:
    import pandas as pd


_LISTED_FAILURES = 1000  # in a manifest
_KEPT_DOUBTS = 1000


class ScoredRows:
    """A journal's rows in the order of the inputs, and what is counted while they are read.

    Args:
        items: the images of the run.
        journal: their rows, in any order.
        labels: names of the scores.
        mark: the labels among them that are unfamiliar, see `mark_unfamiliar`.

    Attributes:
        scored: rows with scores.
        failures: every image without scores.
        doubts: (image_id, warnings) of the first thousand images that have some.
    """

    def __init__(self, items: Sequence[ImageItem], journal: Journal, labels: Sequence[str], mark: str = "") -> None:
        self._items = items
        self._journal = journal
        self._labels = list(labels)
        self._mark = mark
        self.scored = 0
        self.failures: list[Failure] = []
        self.doubts: list[tuple[str, str]] = []

    @property
    def label_count(self) -> int:
        """Scores in a row."""
        return len(self._labels)

    @property
    def score_columns(self) -> list[str]:
        """Names of the scores in a table of these rows."""
        return [f"logit:{label}" for label in self._labels]

    def plain_rows(self) -> Iterator[dict[str, object]]:
        """The rows with scores as plain values, one after the other: what a table of them holds, without pandas."""
        for row in self._rows():
            yield unpack_row(row, self._labels, self._mark)

    def pieces(self) -> Iterator[pd.DataFrame]:
        """The rows with scores as tables of bounded size below each other; at least one, which may be empty."""
        rows: list[dict[str, object]] = []
        for row in self._rows():
            rows.append(row)
            if len(rows) == rows_in_piece(len(self._labels)):
                yield mark_unfamiliar(unpack_rows(rows, self._labels), self._mark)
                rows = []
        if rows or not self.scored:
            yield mark_unfamiliar(unpack_rows(rows, self._labels), self._mark)

    def _rows(self) -> Iterator[dict[str, object]]:
        self.scored, self.failures, self.doubts = 0, [], []
        for item in self._items:
            row = self._journal.rows[item.image_id]
            if "reason" in row:
                self.failures.append(Failure(row["image_id"], row["path"], row["reason"]))
                continue
            self.scored += 1
            if row["warnings"] and len(self.doubts) < _KEPT_DOUBTS:
                self.doubts.append((row["image_id"], row["warnings"]))
            yield row


class RunResult:
    """What a run produced.

    Args:
        rows: the rows, which have been read once.
        out: the table they were written to, or None.
        manifest: where the numbers came from.
        overlays: images drawn.

    Attributes:
        scored: images with scores.
        failures: every image that was not scored.
        doubts: (image_id, warnings) of images that were, the first thousand of them.
        manifest: where the numbers came from.
        overlays: images drawn by this run.
    """

    def __init__(self, rows: ScoredRows, out: Path | None, manifest: dict[str, object], overlays: list[Path]) -> None:
        self._rows = rows
        self._out = out
        self.scored = rows.scored
        self.failures = rows.failures
        self.doubts = rows.doubts
        self.manifest = manifest
        self.overlays = overlays

    def replace_table(self, table: pd.DataFrame, manifest: dict[str, object]) -> None:
        """Takes a table of the same rows with more columns, and its manifest, in place of its own.

        Raises:
            OutputError: the run's output cannot be written anew.
        """
        if self._out is not None:
            save_scores(table, self._out, manifest)
        self.table, self.manifest = table, manifest

    def pieces(self) -> Iterator[pd.DataFrame]:
        """The table as tables of bounded size below each other; at least one, which may have no rows."""
        if "table" in self.__dict__:  # read or replaced already
            yield self.table
        elif self._out is None:
            yield from self._rows.pieces()
        else:
            yield from load_score_pieces(self._out, self._rows.label_count)

    @property
    def score_columns(self) -> list[str]:
        """Names of the table's scores and of what was added to them, in its order."""
        if "table" not in self.__dict__:
            return self._rows.score_columns
        return [name for name in self.table.columns if name.startswith(("logit:", "prob:")) or name == NORMAL_COLUMN]

    def plain_rows(self) -> Iterator[dict[str, object]]:
        """The rows of the table as plain values, one after the other; pandas is loaded only where they are in one."""
        if "table" not in self.__dict__ and self._out is None:
            yield from self._rows.plain_rows()
        else:
            for piece in self.pieces():
                yield from to_rows(piece)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a scored image, in the order of the inputs; see `ZeroShotClassifier.predict`. Read on first use."""
        import pandas as pd

        pieces = list(self.pieces())
        return pieces[0] if len(pieces) == 1 else pd.concat(pieces, ignore_index=True)

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "scores": list(self.plain_rows()),
            "failures": [failure.to_dict() for failure in self.failures],
            "manifest": self.manifest,
        }

    def iterate_json(self) -> Iterator[str]:
        """The text of `to_dict` as JSON, in parts, with a line for each image."""
        between = '{"scores": [\n'
        for row in self.plain_rows():
            yield between + json.dumps(row)
            between = ",\n"
        yield "\n" if between == ",\n" else between
        rest = {"failures": [failure.to_dict() for failure in self.failures], "manifest": self.manifest}
        yield "],\n" + json.dumps(rest, indent=2).removeprefix("{\n") + "\n"


def describe_failures(failures: Sequence[Failure], file: str) -> dict[str, object]:
    """What a manifest says of images that were not scored: the first thousand; and of more, how many, and where.

    Args:
        failures: all of them.
        file: where all are listed, as seen from the manifest; "" where they are listed nowhere.
    """
    listed: dict[str, object] = {"failures": [failure.to_dict() for failure in failures[:_LISTED_FAILURES]]}
    if file and len(failures) > _LISTED_FAILURES:
        listed["all_failures"] = {"count": len(failures), "file": file}
    return listed


def count_failures(manifest: Mapping[str, object]) -> int:
    """How many images were not scored, by what `describe_failures` wrote; 0 where the manifest does not say."""
    listed, all_of_them = manifest.get("failures"), manifest.get("all_failures")
    count = all_of_them.get("count") if isinstance(all_of_them, dict) else None
    if isinstance(count, int):
        return count
    return len(listed) if isinstance(listed, list) else 0


def failures_path(out: Path) -> Path:
    """Where all failures of a run are listed whose manifest would grow too long."""
    return out.with_name(out.name + ".failures.csv")


def save_failures(failures: Sequence[Failure], out: Path) -> None:
    """Lists failures beside the table `out` where they are too many for its manifest, and takes an older list away."""
    path = failures_path(out)
    if len(failures) <= _LISTED_FAILURES:
        path.unlink(missing_ok=True)
        return
    with replace_when_done(path) as target, target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["image_id", "path", "reason"])
        writer.writeheader()
        writer.writerows(to_cells(failure.to_dict()) for failure in failures)
