"""Checks that images of a table can be read, in several processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from carzero.core.lookahead import ahead
from carzero.core.workers import CAN_ISOLATE, WorkerCrashedError, WorkerHungError, WorkerPool

Advance = Callable[[int, int, int], None]
_AHEAD = 4  # images that wait for each process
_LIMIT_S = 300.0  # for one image


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """What became of one image.

    Attributes:
        kind: "" if it can be trained on, else "missing-file", "unreadable-image" or "unsuitable-image".
        reason: why not, in words.
        digest: hash of its grey levels and shape: equal for equal images, whatever their files' format.
        doubts: what is odd about it, each a full sentence.
    """

    kind: str
    reason: str = ""
    digest: str = ""
    doubts: tuple[str, ...] = ()


Check = Callable[[str], ImageCheck]


def check_image(path: str) -> ImageCheck:
    """Reads one image as the trainer would."""
    import numpy as np

    from carzero.errors import ImageError, UnsuitableImageError
    from carzero.images import load_radiograph

    try:
        if not Path(path).exists():
            return ImageCheck("missing-file", "there is no such file")
        radiograph = load_radiograph(path)
    except ImageError as error:
        kind = "unsuitable-picture" if isinstance(error, UnsuitableImageError) else "unreadable-picture"
        return ImageCheck(kind, str(error).removeprefix(f"{path}: "))
    except OSError as error:  # a name that is too long, a folder that may not be entered
        return ImageCheck("unreadable-picture", f"the file cannot be reached: {error.strerror}")
    except MemoryError:
        return ImageCheck("unreadable-picture", "there is not enough memory to read it")
    levels = np.rint(radiograph.pixels).astype(np.uint8)  # as the model sees them
    digest = hashlib.blake2b(repr(levels.shape).encode() + levels.tobytes(), digest_size=16).hexdigest()
    return ImageCheck("", digest=digest, doubts=radiograph.warnings)


def check_images(
    paths: Sequence[str],
    *,
    jobs: int = 1,
    advance: Advance = lambda done, failed, total: None,
    check: Check = check_image,
) -> list[ImageCheck]:
    """Reads images; the results are in the order of `paths`, whatever the number of processes.

    A file that brings its reader down (a crash inside a decoder, no memory left) or keeps it busy for five minutes is
    reported as unreadable, and the rest is read all the same.

    Args:
        paths: image files.
        jobs: processes; on Windows the images are read here.
        advance: called with the numbers of images done, failed and in all, after each.
        check: what reads one image; importable by name, as processes find it so.
    """
    checks: dict[int, ImageCheck] = {}
    failed = 0
    read = (
        _read_in_processes(paths, min(jobs, len(paths)), check) if CAN_ISOLATE and paths else _read_here(paths, check)
    )
    for number, found in read:
        checks[number] = found
        failed += bool(found.kind)
        advance(len(checks), failed, len(paths))
    return [checks[number] for number in range(len(paths))]


def _read_here(paths: Sequence[str], check: Check) -> Iterator[tuple[int, ImageCheck]]:
    for number, path in enumerate(paths):
        yield number, check(path)


def _read_in_processes(paths: Sequence[str], jobs: int, check: Check) -> Iterator[tuple[int, ImageCheck]]:
    with WorkerPool(check, jobs, limit_s=_LIMIT_S) as pool:
        reading = ahead(range(len(paths)), lambda number: pool.submit(paths[number]), _AHEAD * jobs, patience=1)
        with closing(reading):
            for number, future in reading:
                yield number, _to_check(future)


def _to_check(future: Future[ImageCheck]) -> ImageCheck:
    try:
        return future.result()
    except WorkerCrashedError:
        return ImageCheck("unreadable-picture", "its reader crashed: the file is broken, or too large")
    except WorkerHungError as error:
        return ImageCheck("unreadable-picture", f"its reader hung: {error}")
