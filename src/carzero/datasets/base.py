"""What a public data set is: classes, a reader of its files, published figures; and rows of training tables."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carzero.core.columns import describe_number, to_numbers
from carzero.core.hashing import hash_texts
from carzero.errors import ConfigurationError, TableError, describe

if TYPE_CHECKING:
    import pandas as pd

    from carzero.images.boxes import BoxTable


IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"})

# What is compared with; the figures themselves stand with each set.
PUBLISHED_MODEL = "CARZero"

PUBLISHED_SOURCE = "CARZero: Lai et al., CVPR 2024, zero-shot, as printed there"


# What a finding's column holds where nobody was sure.
UNCERTAIN = -1.0


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What is known of images.

    Attributes:
        ids: (N,) key of each image, each once.
        frame: one row per image, in the order of `ids`: findings and metadata, as they were read.
        id_column: where the keys were found.
        source: file names, or the kind of object.
        sha256: of the file, or of keys and labels.
        labels: (C,) findings in order; of a public data set its classes, else empty: any column may be one.
        groups: (N,) what is resampled as a whole: the patient of each image, or the nearest thing that the files tell;
            None where a column of `frame` is to tell.
        unit: what `groups` are: "patient", "study", "report" or "image".
        files: the files that were read.
        boxes: where the files hold boxes.
        reported: columns of `frame` that say what reports say.
    """

    ids: tuple[str, ...]
    frame: pd.DataFrame
    id_column: str
    source: str
    sha256: str
    labels: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    unit: str = "image"
    files: tuple[Path, ...] = ()
    boxes: BoxTable | None = None
    reported: frozenset[str] = frozenset()

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(N, C) values of `labels`; see `values`."""
        return self.values(self.labels)

    @property
    def units(self) -> str:
        """What groups are, as a plural."""
        return {"study": "studies"}.get(self.unit, f"{self.unit}s")

    def values(self, columns: Sequence[str]) -> NDArray[np.float64]:
        """(N, len(columns)) of 1, 0, -1 (uncertain) and NaN (blank: unknown).

        Raises:
            TableError: a cell holds something else.
        """
        return np.column_stack([self._read(column) for column in columns])

    def _read(self, column: str) -> NDArray[np.float64]:
        import pandas as pd

        cells = self.frame[column]
        if cells.dtype == object or isinstance(cells.dtype, pd.StringDtype):
            cells = cells.map(lambda cell: cell.strip() or None if isinstance(cell, str) else cell)
            cells = cells.replace({"True": 1, "true": 1, "False": 0, "false": 0})
        numbers = to_numbers(cells)
        unread = np.isnan(numbers) & cells.notna().to_numpy()
        strange = unread | ~np.isin(numbers, (1, 0, UNCERTAIN)) & ~np.isnan(numbers)
        if strange.any():
            row = int(np.flatnonzero(strange)[0])
            raise TableError(
                describe(
                    f"{self.source}: the column {column} is not a finding "
                    f"(row {self.ids[row]}, one of {strange.sum()})",
                    got=(cell := self.frame[column].iloc[row]),
                    expected=describe_number(cell, "1, 0, -1 (uncertain) or blank (unknown)"),
                    then="name the findings with --labels",
                )
            )
        return numbers


def build_truth(
    labels: Sequence[str],
    ids: Sequence[str],
    matrix: NDArray[np.float32],
    *,
    groups: Sequence[str],
    unit: str,
    files: Sequence[Path],
    boxes: BoxTable | None = None,
) -> Truth:
    """The truth of a public data set.

    Args:
        labels: (C,) classes in order.
        ids: (N,) in the files' order.
        matrix: (N, C), 1 where the finding is present, 0 where it is absent.
        groups: (N,) what is resampled as a whole.
        unit: what `groups` are; patients become the column `patient_id`.
        files: that were read.
        boxes: of findings, where the files hold some.

    Raises:
        TableError: an image stands in several rows.
        ValueError: ids, matrix and groups differ in length.
    """
    import pandas as pd

    if not len(ids) == len(matrix) == len(groups):
        raise ValueError(f"rows differ: {len(ids)}, {len(matrix)}, {len(groups)}.")
    if doubled := [name for name, count in Counter(ids).items() if count > 1]:
        raise TableError(
            describe("The label files list images more than once", got=doubled[:5], expected="each image once")
        )
    keys = {"image_id": list(ids), **({"patient_id": list(groups)} if unit == "patient" else {})}
    frame = pd.concat([pd.DataFrame(keys), pd.DataFrame(matrix, columns=list(labels))], axis=1)
    lines = zip(ids, matrix.astype(np.int64).tolist(), strict=True)
    return Truth(
        ids=tuple(ids),
        frame=frame,
        id_column="image_id",
        source=", ".join(path.name for path in files),
        sha256=hash_texts(f"{name} {' '.join(map(str, row))}" for name, row in lines),
        labels=tuple(labels),
        groups=tuple(groups),
        unit=unit,
        files=tuple(files),
        boxes=boxes,
    )


@dataclass(frozen=True, slots=True)
class PublicDataset:
    """A public data set, and how it is evaluated.

    Attributes:
        name: as typed: "chestxray14".
        title: as printed: "ChestXray14".
        prompts: name of the prompt set in the library whose "paper" wording was released.
        labels: classes in the released order.
        images: how many images the published figures rest on.
        load: reads label files in any of their official forms.
        label_files: patterns of the label files' names, for finding them beside the images.
        to_id: an image's path or name as an id of this set.
        quirks: what one should know before comparing figures; full sentences.
        orders: other column orders of released score files: number of columns to the classes (None is left out).
        no_findings: classes that describe no finding; the report adds a mean without them.
        published: what papers print of this set: (metric, label) to the figure of each model. AUROC is zero-shot,
            "macro" over the set's classes; "pointing" hits over trials. All to three decimals, as printed: KAD (Zhang
            et al., Nature Communications 2023) and CARZero (Lai et al., CVPR 2024) from the latter's tables, RadZero
            (Park et al., 2025, at 518 px), SentZero (2026).
    """

    name: str
    title: str
    prompts: str
    labels: tuple[str, ...]
    images: int
    load: Callable[[Sequence[Path]], Truth]
    label_files: tuple[str, ...]
    to_id: Callable[[str], str]
    quirks: tuple[str, ...]
    orders: Mapping[int, tuple[str | None, ...]] = field(default_factory=dict)
    no_findings: frozenset[str] = frozenset()
    published: Mapping[tuple[str, str], Mapping[str, float]] = field(default_factory=dict)

    def find_published(self, metric: str, label: str) -> float | None:
        """What the CARZero paper prints for this figure; None where it prints none, or it is not known here."""
        return self.published.get((metric, label), {}).get(PUBLISHED_MODEL)

    def list_published(self, metric: str) -> list[tuple[str, str, float]]:
        """What papers print of this set on average over classes: label, model, figure."""
        return [
            (label, model, value)
            for (task, label), models in self.published.items()
            if task == metric and label not in self.labels
            for model, value in models.items()
        ]


def file_name(path: str) -> str:
    """The last part of a path, whichever slashes it has."""
    return PurePosixPath(path.replace("\\", "/")).name


def stem(image_id: str) -> str:
    """An id without the suffix of an image, so that a set converted to another format is still found."""
    suffix = PurePosixPath(image_id).suffix
    return image_id.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else image_id


def to_matrix(labels: Sequence[str], found: Sequence[set[str]]) -> NDArray[np.float32]:
    """Returns (I, C): 1 where an image's set of findings holds the class."""
    columns = {label: column for column, label in enumerate(labels)}
    matrix = np.zeros((len(found), len(labels)), dtype=np.float32)
    for row, names in enumerate(found):
        for name in names:
            if name in columns:
                matrix[row, columns[name]] = 1
    return matrix


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
