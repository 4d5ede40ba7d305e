"""The training table: images, what their reports say, and which part of a run they belong to."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from carzero.core.columns import Cells
from carzero.core.tables import load_table
from carzero.core.text_files import load_lines
from carzero.errors import TableError, describe
from carzero.reports.sections import select_sentences, split_sentences

# What a run reads of its rows: images with text or findings, images alone, or text alone.
Needs = Literal["pairs", "images", "texts"]


PAIR_COLUMNS = (
    *("image", "path", "sentences", "text", "impression", "findings", "present", "absent"),
    *("split", "patient_id", "study_id", "view", "source", "boxes"),
)

Box = tuple[float, float, float, float]

_IMAGES = ("image", "path")
_TEXTS = ("sentences", "text", "impression", "findings")
_WORDS = (*_TEXTS, "present", "absent")
_LACK = {"pairs": "an image or without text and findings", "images": "an image", "texts": "text"}
_WANTED = {"pairs": "an image and sentences, text or findings", "images": "an image", "texts": "sentences or text"}

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True, slots=True)
class PairTable:
    """Rows of a training table; every list has one entry per row.

    Attributes:
        images: absolute image paths; "" where only texts are read.
        sentences: what the report of each row says, sentence by sentence, as written; [] where there is no text.
        present: findings that hold; [] where none is known to.
        absent: findings that are denied; one in neither list is unknown.
        splits: "train", "val" or "test"; "train" where the table has no such column.
        patients: patient id, "" where unknown.
        studies: study id, "" where unknown.
        views: upper case, otherwise as given: "PA", "AP", "LATERAL", "".
        sources: name of the collection; "" where the table has no such column.
        boxes: finding to the boxes (x1, y1, x2, y2) that it lies in, in pixels of the image; {} where none are known.
    """

    images: list[str]
    sentences: list[list[str]]
    present: list[list[str]]
    absent: list[list[str]]
    splits: list[str]
    patients: list[str]
    studies: list[str]
    views: list[str]
    sources: list[str]
    boxes: list[dict[str, list[Box]]]

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: list[int]) -> PairTable:
        """The rows of these numbers (from 0), in this order."""
        return PairTable(**{field.name: [getattr(self, field.name)[row] for row in rows] for field in fields(self)})


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row that cannot be trained on.

    Attributes:
        row: its number; 1 is the first row under the header.
        image: the image as the table names it.
        kind: a short name of the reason, such as "no-text".
        reason: the reason in words.
    """

    row: int
    image: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class PairReport:
    """What a table holds.

    Attributes:
        table: the rows that can be trained on.
        rows: (len(table),) their numbers in the file; 1 is the first row under the header.
        dropped: the others, each with its reason.
        problems: what stops a run: unknown splits, contradictions, repeated images, leakage between splits.
        cells: the file itself.
        image_column: "image" or "path", whichever names the images; "" where only texts are read.
    """

    table: PairTable
    rows: list[int]
    dropped: list[DroppedRow]
    problems: list[PairProblem]
    cells: Cells
    image_column: str

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table` with all columns of the file, ours under our names; absolute paths, our split names."""
        records = self.cells.records([row - 1 for row in self.rows])
        for record, image, split in zip(records, self.table.images, self.table.splits, strict=True):
            record.pop("path", None)
            record.update({"image": image, "split": split})
        return [{"image": record.pop("image"), **record} for record in records]


def load_pairs(path: str | Path, *, columns: Mapping[str, str] | None = None, needs: Needs = "pairs") -> PairTable:
    """Reads a training table; rows that name no image, or have neither text nor findings, are left out.

    Args:
        path: CSV, TSV, JSONL, JSON or Parquet; docs/data.md has its columns.
        columns: name in our schema to name in the file, such as {"text": "report"}.
        needs: "images" reads no words and asks for none; "texts" reads no images and no findings, so that several
            rows may name one image, or none.

    Raises:
        TableError: columns are missing or hold something else, a split is unknown, a finding is present and absent, a
            image is named twice, a patient (of one source) or a study stands in several splits, or no row is left.
    """
    report = inspect_pairs(path, columns=columns, needs=needs)
    if report.problems:
        raise TableError("\n".join(problem.message for problem in report.problems))
    if not report.rows:
        raise TableError(
            describe(
                f"{path} has no row to train on",
                got=f"{len(report.dropped)} rows without {_LACK[needs]}",
                expected=f"rows with {_WANTED[needs]}",
            )
        )
    return report.table


def inspect_pairs(path: str | Path, *, columns: Mapping[str, str] | None = None, needs: Needs = "pairs") -> PairReport:
    """Reads a training table and reports what is in it; arguments as for `load_pairs`.

    Raises:
        TableError: the file cannot be read, lacks columns, or a cell holds something that its column cannot.
    """
    path = Path(path)
    cells = Cells(load_table(path, as_text=True), path, PAIR_COLUMNS, columns or {})
    named = _check_columns(cells, needs)
    names = cells.texts(named) if named else [""] * len(cells)
    everything = _read_rows(cells, names, needs)
    dropped = [row for number, name in enumerate(names) if (row := _reason_to_drop(everything, number, name, needs))]
    kept = sorted(set(range(len(names))) - {row.row - 1 for row in dropped})
    table, rows = everything.select(kept), [number + 1 for number in kept]
    return PairReport(table, rows, dropped, find_problems(table, rows, path), cells, named)


def _check_columns(cells: Cells, needs: Needs) -> str:
    """Returns the column that names the images, "" where they are not read."""
    named = next((name for name in _IMAGES if name in cells), "") if needs != "texts" else ""
    words = {"pairs": _WORDS, "images": (), "texts": _TEXTS}[needs]
    if (not named and needs != "texts") or (words and not any(name in cells for name in words)):
        wanted = ["image (or path)"] * (needs != "texts") + [f"at least one of {', '.join(words)}"] * bool(words)
        raise TableError(
            describe(
                f"{cells.path} lacks columns",
                got=cells.columns,
                expected=", and ".join(wanted),
                then="say which column is which, such as text=report (--column text=report)",
            )
        )
    return named


def _read_rows(cells: Cells, names: list[str], needs: Needs) -> PairTable:
    folder = cells.path.parent.resolve()
    nothing: list[list[str]] = [[] for _ in names]
    return PairTable(
        images=[_absolute(folder, name) if name else "" for name in names],
        sentences=nothing if needs == "images" else _read_sentences(cells),
        present=cells.lists("present", "|") if needs == "pairs" else nothing,
        absent=cells.lists("absent", "|") if needs == "pairs" else nothing,
        splits=[_SPLITS.get(split.lower(), split) for split in cells.texts("split", "train")],
        patients=cells.texts("patient_id"),
        studies=cells.texts("study_id"),
        views=[view.upper() for view in cells.texts("view")],
        sources=cells.texts("source"),
        boxes=cells.objects("boxes", _to_boxes, _BOXES) if needs == "pairs" else [{} for _ in names],
    )


_BOXES = 'boxes by finding, such as {"edema": [[x1, y1, x2, y2], ...]} in pixels of the image, x1 < x2 and y1 < y2'


def _to_boxes(given: object) -> list[Box]:
    if not isinstance(given, list) or not given:
        raise ValueError("a finding without a list of boxes")
    boxes = []
    for box in given:
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(end, int | float) for end in box):
            raise ValueError("a box without four numbers")
        x1, y1, x2, y2 = (float(end) for end in box)
        if not (-math.inf < x1 < x2 < math.inf and -math.inf < y1 < y2 < math.inf):
            raise ValueError("a box without an area")
        boxes.append((x1, y1, x2, y2))
    return boxes


def _read_sentences(cells: Cells) -> list[list[str]]:
    """The first of the columns `sentences`, `text`, and `impression` with `findings` decides, for all rows alike.

    A table with a column `text` may use `findings` for labels; so a row's empty `text` is never replaced by them.
    """
    if "sentences" in cells:
        return cells.lists("sentences")
    if "text" in cells:
        return [select_sentences(text) for text in cells.texts("text")]
    sections = zip(cells.texts("impression"), cells.texts("findings"), strict=True)
    return [[*split_sentences(impression), *split_sentences(findings)] for impression, findings in sections]


def _absolute(folder: Path, name: str) -> str:
    path = folder / name
    # Resolving all of a large table takes minutes; a NUL names no file, as the reader will say.
    return str(path.resolve() if ".." in path.parts and "\0" not in name else path)


def _reason_to_drop(table: PairTable, number: int, name: str, needs: Needs) -> DroppedRow | None:
    if not name and needs != "texts":
        return DroppedRow(number + 1, "", "no-image", "the row names no image")
    if needs != "images" and not (table.sentences[number] or table.present[number] or table.absent[number]):
        lacking = "there is neither text nor a finding" if needs == "pairs" else "there is no text"
        return DroppedRow(number + 1, name, "no-text", lacking)
    return None


SPLITS = ("train", "val", "test")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class PairProblem:
    """One kind of fault, with all its cases.

    Attributes:
        kind: "unknown-split", "contradiction", "image-twice", "patient-leakage" or "study-leakage".
        message: the fault in words, with up to five cases.
        cases: every case: what it is (a split, an image, a patient), and the rows it stands in, from 1.
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
            "images named more than once",
            ("one row per image", "join the rows' sentences"),
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


def load_sentences(path: str | Path, *, columns: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Reads sentences as written.

    Args:
        path: a table as for `load_pairs`, which needs no images; or a .txt file in UTF-8 with one sentence per line,
            all of them for training.
        columns: of a table, see `load_pairs`.

    Returns:
        split to its sentences, in the order of the file; only splits that have any.

    Raises:
        TableError: the file cannot be read or holds no sentence, or a patient stands in several splits.
    """
    path = Path(path)
    if path.suffix.lower() == ".txt":
        return {"train": _load_lines(path, columns)}
    table = load_pairs(path, columns=columns, needs="texts")
    found: dict[str, list[str]] = {}
    for split, sentences in zip(table.splits, table.sentences, strict=True):
        found.setdefault(split, []).extend(sentences)
    return found


def _load_lines(path: Path, columns: Mapping[str, str] | None) -> list[str]:
    if columns:
        raise TableError(describe("A text file has no columns", got=sorted(columns), then="leave out --column"))
    lines = load_lines(path, expected="one sentence per line")
    if not lines:
        raise TableError(describe(f"{path} holds no sentence", expected="one sentence per line"))
    return lines
