"""Lists of images: what a user names (files, folders, tables, arrays) becomes items with unique ids."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from carzero.errors import TableError, describe, printable
from carzero.records import ImageItem, ImageSource

_TABLES = frozenset({".csv", ".tsv", ".parquet"})
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".dcm", ".dicom", ".dic", ".ima", ""})
_PATH_COLUMNS = ("path", "image", "image_path", "file")


def list_images(sources: Iterable[str | Path]) -> list[ImageItem]:
    """Lists the images that files, folders and tables name, in a stable order.

    A folder stands for the images in it and below it, by suffix (.png .jpg .jpeg .tif .tiff .dcm .dicom .dic .ima or
    none), hidden files left out, sorted by name; their ids are paths relative to the folder. A table (.csv .tsv
    .parquet) has a column `path` (or `image`, `image_path`, `file`), relative to the table's folder, and may have
    `image_id`. A file given by itself is taken whatever its suffix; its id is its name. Files that share an id get
    their whole paths as ids.

    Raises:
        TableError: a source does not exist, a table lacks its columns, an id is empty or doubled, or nothing is left.
    """
    items: list[ImageItem] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            items += _list_folder(path)
        elif path.suffix.lower() in _TABLES and path.is_file():
            items += _list_table(path)
        elif path.exists():
            items.append(ImageItem(printable(path.name), printable(str(path)), str(path)))
        else:
            raise TableError(
                describe("There is no such file or folder", got=str(source), expected="an image, a folder or a table")
            )
    if not items:
        raise TableError(
            describe(
                "No images are found",
                got=[str(source) for source in sources],
                expected=f"files ending in {' '.join(sorted(_SUFFIXES - {''}))}, or without suffix",
                then="name the files themselves to have them read whatever their suffix",
            )
        )
    return _make_unique(items)


def to_sequence(images: ImageSource | Sequence[ImageSource]) -> Sequence[ImageSource]:
    """The images given, where one may be given by itself."""
    return images if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]


def list_arrays(images: ImageSource | Sequence[ImageSource]) -> list[ImageItem]:
    """Lists images that a caller holds: one or a sequence of what `load_image` takes, of folders and of tables.

    A folder or a table stands for its images, as for `list_images`. Without a path the id is the name that the image
    brings along (an open file, a DICOM data set that was read from one), else its number in the list.

    Raises:
        TableError: a path is given twice, or a folder or a table names no image.
    """
    items: list[ImageItem] = []
    for index, image in enumerate(to_sequence(images)):
        if isinstance(image, str | Path) and _stands_for_several(Path(image)):
            items += list_images([image])
        else:
            source = _name_of(image)
            items.append(ImageItem(Path(source).name if source else f"image_{index}", source, image))
    return _make_unique(items)


def _stands_for_several(path: Path) -> bool:
    return path.is_dir() or (path.suffix.lower() in _TABLES and path.is_file())


def _name_of(image: ImageSource) -> str:
    if isinstance(image, str | Path):
        return str(image)
    named = (getattr(image, attribute, "") for attribute in ("source", "name", "filename"))
    return next((name for name in named if isinstance(name, str) and name), "")


def _list_folder(folder: Path) -> list[ImageItem]:
    # Of a million images each string counts, and so does each Path object: there is one string for a path.
    prefix = "" if folder == Path() else os.path.join(folder, "")  # noqa: PTH118
    paths = (path.removeprefix(os.path.join(os.curdir, "")) for path in _walk(str(folder)))  # noqa: PTH118
    items = [
        ImageItem(printable(path.removeprefix(prefix).replace(os.sep, "/")), printable(path), path) for path in paths
    ]
    if any(item.path is not item.image for item in items):  # two names may look alike once they can be shown
        items = _number_doubles(items)
    return items


def _number_doubles(items: list[ImageItem]) -> list[ImageItem]:
    seen: Counter[str] = Counter()
    numbered = []
    for item in items:
        seen[item.image_id] += 1
        number = f" ({seen[item.image_id]})" if seen[item.image_id] > 1 else ""
        numbered.append(replace(item, image_id=item.image_id + number, path=item.path + number) if number else item)
    return numbered


def _walk(folder: str) -> Iterator[str]:
    """Paths of the images in a folder and below it, by suffix, in the order of their parts; nothing hidden.

    Links to folders are not followed. A link that leads nowhere, a pipe or a socket under an image's name is listed:
    reading it says what it is, and waits for nothing.
    """
    waiting = [iter(_scan(folder))]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
        elif entry.is_dir(follow_symlinks=False):
            waiting.append(iter(_scan(entry.path)))
        elif os.path.splitext(entry.name)[1].lower() in _SUFFIXES and not _is_folder(entry):  # noqa: PTH122
            yield entry.path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise TableError(
            describe(
                f"The folder {folder} cannot be listed", got=str(error), then="make it readable, or move it elsewhere"
            )
        ) from error


def _list_table(table: Path) -> list[ImageItem]:
    from carzero.core.tables import load_table

    frame = load_table(table)
    column = next((name for name in _PATH_COLUMNS if name in frame.columns), None)
    if column is None:
        raise TableError(
            describe(
                f"{table} has no column that names images",
                got=list(frame.columns),
                expected=f"one of {', '.join(_PATH_COLUMNS)}",
                then="rename the column",
            )
        )
    named = frame["image_id"] if "image_id" in frame.columns else frame[column]
    items = []
    for row, (name, value) in enumerate(zip(named, frame[column], strict=True), start=1):
        if not isinstance(value, str) or not value or not isinstance(name, str | int) or str(name) == "":
            raise TableError(
                describe(f"Row {row} of {table} names no image", got=[name, value], expected="a path and an id")
            )
        path = str(table.parent / value)
        items.append(ImageItem(str(name), path, path))
    doubled = sorted(name for name, count in Counter(item.image_id for item in items).items() if count > 1)
    if doubled and "image_id" in frame.columns:  # the user's own keys are never replaced by paths
        raise TableError(
            describe(f"{table} repeats values of image_id", got=doubled[:5], expected="one row for each image_id")
        )
    return items


def _make_unique(items: list[ImageItem]) -> list[ImageItem]:
    if len({item.image_id for item in items}) == len(items):
        return items
    counts = Counter(item.image_id for item in items)
    unique = [replace(item, image_id=item.path) if counts[item.image_id] > 1 and item.path else item for item in items]
    doubled = [image_id for image_id, count in Counter(item.image_id for item in unique).items() if count > 1]
    if doubled:
        raise TableError(
            describe(
                "Images are given more than once",
                got=doubled[:5],
                expected="each image once",
                then="remove the repetitions",
            )
        )
    return unique
