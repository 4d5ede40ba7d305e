"""What a public test set is to the runner: names in order, a reader of its files, and what one should know about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carzero.errors import TableError, describe

if TYPE_CHECKING:
    from carzero.data.boxes import BoxTable

__all__ = ["LabelledImages", "Protocol", "file_name", "stem", "to_matrix"]

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"})


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """The labels of a test set, as read from its files.

    Attributes:
        images: ids in the files' order; unique.
        matrix: (I, C) float32, 1 where the finding is present, 0 where it is absent, in the protocol's class order.
        groups: what is resampled as a whole: the patient of each picture, or the nearest thing that the files tell.
        unit: what `groups` are: "patient", "study", "report" or "image".
        sources: the files that were read.
        boxes: where the files hold boxes.
    """

    images: tuple[str, ...]
    matrix: NDArray[np.float32]
    groups: tuple[str, ...]
    unit: str
    sources: tuple[Path, ...]
    boxes: BoxTable | None = None

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.matrix) == len(self.groups):
            raise ValueError(f"rows differ: {len(self.images)}, {len(self.matrix)}, {len(self.groups)}.")
        doubled = [name for name, count in Counter(self.images).items() if count > 1]
        if doubled:
            raise TableError(
                describe("The label files list pictures more than once", got=doubled[:5], expected="each picture once")
            )

    @property
    def units(self) -> str:
        """What groups are, as a plural."""
        return {"study": "studies"}.get(self.unit, f"{self.unit}s")


@dataclass(frozen=True, slots=True)
class Protocol:
    """How one public test set is evaluated.

    Attributes:
        name: as typed: "chestxray14".
        title: as printed: "ChestXray14".
        prompts: name of the prompt set in the library whose "paper" wording was released.
        labels: classes in the released order.
        images: how many pictures the published figures rest on.
        load: reads label files in any of their official forms.
        label_files: patterns of the label files' names, for finding them beside the pictures.
        to_id: a picture's path or name as an id of this set.
        quirks: what one should know before comparing figures; full sentences.
        orders: other column orders of released score files: number of columns to the classes (None is left out).
        no_findings: classes that describe no finding; the report adds a mean without them.
    """

    name: str
    title: str
    prompts: str
    labels: tuple[str, ...]
    images: int
    load: Callable[[Sequence[Path]], LabelledImages]
    label_files: tuple[str, ...]
    to_id: Callable[[str], str]
    quirks: tuple[str, ...]
    orders: Mapping[int, tuple[str | None, ...]] = field(default_factory=dict)
    no_findings: frozenset[str] = frozenset()


def file_name(path: str) -> str:
    """The last part of a path, whichever slashes it has."""
    return PurePosixPath(path.replace("\\", "/")).name


def stem(image_id: str) -> str:
    """An id without the suffix of a picture, so that a set converted to another format is still found."""
    suffix = PurePosixPath(image_id).suffix
    return image_id.removesuffix(suffix) if suffix.lower() in _PICTURES else image_id


def to_matrix(labels: Sequence[str], found: Sequence[set[str]]) -> NDArray[np.float32]:
    """Returns (I, C): 1 where a picture's set of findings holds the class."""
    columns = {label: column for column, label in enumerate(labels)}
    matrix = np.zeros((len(found), len(labels)), dtype=np.float32)
    for row, names in enumerate(found):
        for name in names:
            if name in columns:
                matrix[row, columns[name]] = 1
    return matrix
