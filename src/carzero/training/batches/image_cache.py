"""The images of a run as the model's squares: read once, kept in one file that all processes map."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from carzero.core.atomic import remove_leftovers, replace_together, room_for
from carzero.errors import TableError, describe
from carzero.images import PixelTransform
from carzero.images.loading import Readers, load_ahead
from carzero.records import FailedImage, ImageItem
from carzero.training.distributed import DistributedContext

_BATCH = 32


def save_images(
    paths: Sequence[str], resize_px: int, folder: Path, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Path:
    """Reads images into one file of squares, resize_px^2 bytes each, unless it is there already.

    Args:
        paths: the images.
        resize_px: side of the squares.
        folder: where the file lies; created. Its name follows from paths, sizes and times of the images.
        progress: called with the images read so far, and how many there are.

    Returns:
        the file; beside it lie the images' own sizes, see `CachedImages.size`.

    Raises:
        TableError: images cannot be read; the first five are named with the reason.
        OutputError: the file cannot be written, for example on a full disk.
    """
    remove_leftovers(folder)  # features of frozen towers lie there too
    file = folder / f"films-{_fingerprint(paths, resize_px)}.u8"
    sizes = _sizes_file(file)
    if sizes.is_file() and file.is_file() and file.stat().st_size == len(paths) * resize_px**2:
        return file
    with room_for("The read images", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replace_together([sizes, file]) as (own, temporary):  # the squares last: with them all is there
            failures: list[str] = []
            found = _write_squares(temporary, paths, resize_px, failures, progress)
            if failures:
                raise _unreadable(failures, len(paths))
            with own.open("wb") as out:
                np.save(out, np.array(found, dtype=np.int64).reshape(-1, 2))
    return file


class CachedImages:
    """Squares of images, mapped from a file of `save_images`; of N images only those asked for are in memory.

    Args:
        file: the file; its name tells its content.
        resize_px: side of its squares.
        numbers: table row to place in the file.
    """

    def __init__(self, file: Path, resize_px: int, numbers: dict[int, int]) -> None:
        self.name = file.name
        self._squares = np.memmap(file, dtype=np.uint8, mode="r").reshape(-1, resize_px, resize_px)
        self._sizes_file, self._numbers = _sizes_file(file), numbers

    def size(self, row: int) -> tuple[int, int]:
        """(height, width) in px of the image of a table row, before it became a square."""
        height, width = self._sizes[self._numbers[row]].tolist()
        return height, width

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        """(N, 2) sizes; read on first use, as few runs ask."""
        sizes: NDArray[np.int64] = np.load(self._sizes_file, allow_pickle=False)
        return sizes

    def load(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Squares of some rows of the table: (I, resize_px, resize_px) uint8."""
        places = [self._numbers[int(row)] for row in rows]  # none, where a process has no share of a batch
        return torch.from_numpy(self._squares[np.array(places, dtype=np.int64)])


def share_images(
    paths: Sequence[str],
    rows: NDArray[np.int64],
    resize_px: int,
    folder: Path,
    context: DistributedContext,
    progress: Callable[[int, int], None],
) -> CachedImages:
    """Squares of some rows of a table: the main process reads them, then all processes map its file.

    Args:
        paths: of all rows of the table.
        rows: those that are needed.
        resize_px: side of the squares.
        folder: see `save_images`.
        context: tells the main process.
        progress: see `save_images`; called in the main process.
    """
    needed = [paths[row] for row in rows]
    with context.main_first():
        file = save_images(needed, resize_px, folder, progress)
    return CachedImages(file, resize_px, {int(row): place for place, row in enumerate(rows)})


def _sizes_file(file: Path) -> Path:
    return file.with_suffix(".sizes.npy")


def _write_squares(
    file: Path, paths: Sequence[str], resize_px: int, failures: list[str], progress: Callable[[int, int], None]
) -> list[tuple[int, int]]:
    """Writes the squares in the order of their paths, and adds why some cannot be read; returns the images' sizes."""
    sizes: list[tuple[int, int]] = []
    items = (ImageItem(path, path, path) for path in paths)
    square = PixelTransform(resize_px, resize_px)  # the whole padded square: crops are drawn in training
    with file.open("wb") as out, Readers(images=len(paths), isolated=True) as readers:
        for done, entry in enumerate(load_ahead(items, readers, batch_size=_BATCH, transform=square), start=1):
            if isinstance(entry, FailedImage):
                failures.append(entry.failure.reason)
            else:
                out.write(entry.levels.tobytes())
                sizes.append(entry.size)
            progress(done, len(paths))
    return sizes


def _unreadable(failures: list[str], count: int) -> TableError:
    return TableError(
        describe(
            f"{len(failures)} of {count} images cannot be trained on: {' '.join(failures[:5])}",
            expected="chest radiographs that can be read",
            then="run `carzero data validate TABLE --out CLEAN`, which keeps the good rows, and train on CLEAN",
        )
    )


def _fingerprint(paths: Sequence[str], resize_px: int) -> str:
    def state(path: str) -> tuple[str, int, int]:
        try:
            found = Path(path).stat()
        except OSError:  # reading it will say so
            return path, 0, 0
        return path, found.st_size, found.st_mtime_ns

    content = json.dumps([resize_px, [state(path) for path in paths]])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
