"""The pictures of a run as the model's squares: read once, kept in one file that all processes map."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from carzero.core.atomic import remove_leftovers, replace_when_done, room_for
from carzero.errors import ImageError, TableError, describe
from carzero.images import Geometry, load_radiograph
from carzero.training.distributed import DistributedContext

_AHEAD = 64


def read_square(path: str, resize_px: int) -> NDArray[np.uint8]:
    """Reads a picture as the model's padded square before the crop: (resize_px, resize_px) uint8."""
    radiograph = load_radiograph(path)
    height, width = radiograph.pixels.shape
    geometry = Geometry.fit(height, width, resize_px=resize_px, crop_px=resize_px)
    return geometry.apply(radiograph.pixels).astype(np.uint8)


def save_films(
    paths: Sequence[str], resize_px: int, folder: Path, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Path:
    """Reads pictures into one file of squares, resize_px^2 bytes each, unless it is there already.

    Args:
        paths: the pictures.
        resize_px: side of the squares.
        folder: where the file lies; created. Its name follows from paths, sizes and times of the pictures.
        progress: called with the pictures read so far, and how many there are.

    Returns:
        the file.

    Raises:
        TableError: pictures cannot be read; the first five are named with the reason.
        RunError: the file cannot be written, for example on a full disk.
    """
    remove_leftovers(folder)  # features of frozen towers lie there too
    file = folder / f"films-{_fingerprint(paths, resize_px)}.u8"
    if file.is_file() and file.stat().st_size == len(paths) * resize_px**2:
        return file
    with room_for("The read pictures", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replace_when_done(file) as temporary:
            if failures := _write_squares(temporary, paths, resize_px, progress):
                raise _unreadable(failures, len(paths))
    return file


class Films:
    """Squares of pictures, mapped from a file of `save_films`; of N pictures only those asked for are in memory.

    Args:
        file: the file; its name tells its content.
        resize_px: side of its squares.
        numbers: table row to place in the file.
    """

    def __init__(self, file: Path, resize_px: int, numbers: dict[int, int]) -> None:
        self.name = file.name
        self._squares = np.memmap(file, dtype=np.uint8, mode="r").reshape(-1, resize_px, resize_px)
        self._numbers = numbers

    def load(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Squares of some rows of the table: (I, resize_px, resize_px) uint8."""
        places = [self._numbers[int(row)] for row in rows]  # none, where a process has no share of a batch
        return torch.from_numpy(self._squares[np.array(places, dtype=np.int64)])


def share_films(
    paths: Sequence[str],
    rows: NDArray[np.int64],
    resize_px: int,
    folder: Path,
    context: DistributedContext,
    progress: Callable[[int, int], None],
) -> Films:
    """Squares of some rows of a table: the main process reads them, then all processes map its file.

    Args:
        paths: of all rows of the table.
        rows: those that are needed.
        resize_px: side of the squares.
        folder: see `save_films`.
        context: tells the main process.
        progress: see `save_films`; called in the main process.
    """
    needed = [paths[row] for row in rows]
    with context.main_first():
        file = save_films(needed, resize_px, folder, progress)
    return Films(file, resize_px, {int(row): place for place, row in enumerate(rows)})


def _write_squares(file: Path, paths: Sequence[str], resize_px: int, progress: Callable[[int, int], None]) -> list[str]:
    """Writes the squares in the order of their paths; returns why some could not be read."""
    failures: list[str] = []
    with file.open("wb") as out, ThreadPoolExecutor(os.cpu_count() or 1) as readers:
        for done, square in enumerate(_in_order(readers, paths, resize_px), start=1):
            if isinstance(square, ImageError):
                failures.append(str(square))
            else:
                out.write(square.tobytes())
            progress(done, len(paths))
    return failures


def _unreadable(failures: list[str], count: int) -> TableError:
    return TableError(
        describe(
            f"{len(failures)} of {count} pictures cannot be trained on: {' '.join(failures[:5])}",
            expected="chest radiographs that can be read",
            then="run `carzero data validate TABLE --out CLEAN`, which keeps the good rows, and train on CLEAN",
        )
    )


def _in_order(
    readers: ThreadPoolExecutor, paths: Sequence[str], resize_px: int
) -> Iterator[NDArray[np.uint8] | ImageError]:
    """Squares in the order of their paths, a bounded number of them read ahead."""
    waiting: deque[Future[NDArray[np.uint8] | ImageError]] = deque()
    for path in paths:
        waiting.append(readers.submit(_read_or_fail, path, resize_px))
        if len(waiting) >= _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read_or_fail(path: str, resize_px: int) -> NDArray[np.uint8] | ImageError:
    try:
        return read_square(path, resize_px)
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError(describe(f"{path} cannot be read", got=str(error)))


def _fingerprint(paths: Sequence[str], resize_px: int) -> str:
    def state(path: str) -> tuple[str, int, int]:
        try:
            found = Path(path).stat()
        except OSError:  # reading it will say so
            return path, 0, 0
        return path, found.st_size, found.st_mtime_ns

    content = json.dumps([resize_px, [state(path) for path in paths]])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
