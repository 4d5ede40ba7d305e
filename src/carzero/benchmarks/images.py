"""Finding a test set's pictures: by name, wherever they lie below a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from carzero.benchmarks.protocol import Protocol, stem
from carzero.data.images import ImageItem
from carzero.errors import TableError, describe

__all__ = ["FoundImages", "find_images", "find_label_files"]

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"})


@dataclass(frozen=True, slots=True)
class FoundImages:
    """Pictures of a test set: what was found, in the set's order, and the ids that were not."""

    items: list[ImageItem]
    missing: list[str]


def find_images(folder: Path, images: Sequence[str], to_id: Callable[[str], str]) -> FoundImages:
    """Finds pictures by their ids in a folder and everything below it.

    A picture in another format is taken if its name is the same up to the suffix; the exact name goes first.

    Raises:
        TableError: no such folder, or two files could be the same picture.
    """
    if not folder.is_dir():
        raise TableError(describe("There is no such folder of pictures", got=str(folder), then="check --images"))
    exact: dict[str, list[Path]] = {}
    loose: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
            found = to_id(path.relative_to(folder).as_posix())
            exact.setdefault(found, []).append(path)
            loose.setdefault(stem(found), []).append(path)
    items, missing = [], []
    for image_id in images:
        candidates = exact.get(image_id) or loose.get(stem(image_id)) or []
        if len(candidates) > 1:
            raise TableError(
                describe(
                    f"{len(candidates)} files could be the picture {image_id}",
                    got=[str(path) for path in candidates[:3]],
                    expected="each picture once",
                    then="name the folder that holds the ones to use",
                )
            )
        if candidates:
            items.append(ImageItem(image_id, str(candidates[0]), str(candidates[0])))
        else:
            missing.append(image_id)
    return FoundImages(items, missing)


def find_label_files(folder: Path, protocol: Protocol) -> list[Path]:
    """Finds a set's label files by their official names, beside the pictures or below.

    Raises:
        TableError: none is there, or two of one name.
    """
    everything = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    found = []
    for pattern in protocol.label_files:
        matching = [path for path in everything if fnmatch(path.name, pattern)]
        if len(matching) > 1:
            raise TableError(
                describe(
                    f"Several files could be the labels of {protocol.title}",
                    got=[str(path) for path in matching[:3]],
                    expected=f"one {pattern}",
                    then="name them with --labels",
                )
            )
        found += matching
    if not found:
        raise TableError(
            describe(
                f"The labels of {protocol.title} are not given and not found",
                got=str(folder),
                expected=f"a file named {' or '.join(protocol.label_files)}",
                then="name them with --labels",
            )
        )
    return found
