"""Reading many pictures for no other end than to know that they can be read, in several processes."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Advance", "PictureCheck", "check_picture", "check_pictures"]

Advance = Callable[[int, int, int], None]
_AHEAD = 4  # pictures handed to each process at once


@dataclass(frozen=True, slots=True)
class PictureCheck:
    """What became of one picture.

    Attributes:
        kind: "" if it can be trained on, else "missing-file", "unreadable-picture" or "unsuitable-picture".
        reason: why not, in words.
        digest: hash of its grey levels and shape: equal for equal pictures, whatever their files' format.
        doubts: what is odd about it, each a full sentence.
    """

    kind: str
    reason: str = ""
    digest: str = ""
    doubts: tuple[str, ...] = ()


Check = Callable[[str], PictureCheck]


def check_picture(path: str) -> PictureCheck:
    """Reads one picture as the trainer would."""
    import numpy as np

    from carzero.errors import ImageError, UnsuitableImageError
    from carzero.pixels import load_radiograph

    try:
        if not Path(path).exists():
            return PictureCheck("missing-file", "there is no such file")
        radiograph = load_radiograph(path)
    except ImageError as error:
        kind = "unsuitable-picture" if isinstance(error, UnsuitableImageError) else "unreadable-picture"
        return PictureCheck(kind, str(error).removeprefix(f"{path}: "))
    except OSError as error:  # a name that is too long, a folder that may not be entered
        return PictureCheck("unreadable-picture", f"the file cannot be reached: {error.strerror}")
    except MemoryError:
        return PictureCheck("unreadable-picture", "there is not enough memory to read it")
    levels = np.rint(radiograph.pixels).astype(np.uint8)  # as the model sees them
    digest = hashlib.blake2b(repr(levels.shape).encode() + levels.tobytes(), digest_size=16).hexdigest()
    return PictureCheck("", digest=digest, doubts=radiograph.warnings)


def check_pictures(
    paths: Sequence[str],
    *,
    jobs: int = 1,
    advance: Advance = lambda done, failed, total: None,
    check: Check = check_picture,
) -> list[PictureCheck]:
    """Reads pictures; the results are in the order of `paths`, whatever the number of processes.

    A file that brings its reader down (a crash inside a decoder, no memory left) is reported as unreadable, and the
    rest is read all the same.

    Args:
        paths: picture files.
        jobs: processes; 1 reads here. More start fresh interpreters, so a script that calls this needs the usual
            `if __name__ == "__main__":`.
        advance: called with the numbers of pictures done, failed and in all, after each.
        check: what reads one picture; importable by name, as processes find it so.
    """
    checks: dict[int, PictureCheck] = {}
    failed = 0
    jobs = min(jobs, len(paths))
    for number, found in _read_in_processes(paths, jobs, check) if jobs > 1 else _read_here(paths, check):
        checks[number] = found
        failed += bool(found.kind)
        advance(len(checks), failed, len(paths))
    return [checks[number] for number in range(len(paths))]


def _read_here(paths: Sequence[str], check: Check) -> Iterator[tuple[int, PictureCheck]]:
    for number, path in enumerate(paths):
        yield number, check(path)


def _read_in_processes(paths: Sequence[str], jobs: int, check: Check) -> Iterator[tuple[int, PictureCheck]]:
    remaining = deque(range(len(paths)))
    while remaining:
        suspects = yield from _read_until_crash(paths, remaining, jobs, check)
        for number in suspects:  # one of them brought a process down: each gets one of its own
            if (yield from _read_until_crash(paths, deque([number]), 1, check)):
                yield number, PictureCheck("unreadable-picture", "its reader crashed: the file is broken, or too large")


def _read_until_crash(
    paths: Sequence[str], remaining: deque[int], jobs: int, check: Check
) -> Generator[tuple[int, PictureCheck], None, list[int]]:
    """Takes numbers from `remaining` and yields their checks; returns those that were in work when a process died."""
    waiting: dict[Future[PictureCheck], int] = {}
    crashed: list[int] = []
    with _start_pool(jobs) as pool:
        while waiting or (remaining and not crashed):
            while remaining and not crashed and len(waiting) < _AHEAD * jobs:
                number = remaining.popleft()
                try:
                    with _held_interrupts():
                        waiting[pool.submit(check, paths[number])] = number
                except BrokenProcessPool:
                    crashed.append(number)
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                number = waiting.pop(future)
                try:
                    yield number, future.result()
                except BrokenProcessPool:
                    crashed.append(number)
    return crashed


@contextlib.contextmanager
def _start_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    # Not forked: a fork copies the locks of the libraries' threads in whatever state they are.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _held_interrupts() -> Iterator[None]:
    """Holds Ctrl-C back: processes that start meanwhile never see it, and the parent alone ends the run."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Ends this process when its parent is gone, killed for example; it would wait for work for ever."""

    def watch() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
