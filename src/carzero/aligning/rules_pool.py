"""The rules in several processes, results in the order of the texts."""

from __future__ import annotations

import itertools
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from carzero.errors import CARZeroError, describe
from carzero.reports.rules import RuleAligner
from carzero.reports.schema import AlignedReport

__all__ = ["align_in_processes"]

_CHUNK = 256
_WAITING_CHUNKS_EACH = 4

Report = tuple[str, str]


def align_in_processes(reports: Iterable[Report], jobs: int) -> Iterator[list[AlignedReport]]:
    """Aligns reports in chunks, in their order; memory holds a few chunks a process, however many there are.

    Args:
        reports: (report_id, text) pairs.
        jobs: processes; 1 works in this one.

    Raises:
        CARZeroError: a process died.
    """
    left = iter(reports)
    chunks = iter(lambda: list(itertools.islice(left, _CHUNK)), [])
    if jobs == 1:
        yield from map(_align, chunks)
        return
    # Spawned, not forked: the caller may have started threads (pandas, pyarrow), whose locks a fork would copy.
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future[list[AlignedReport]]] = deque()
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_align, chunk))
                if len(waiting) >= jobs * _WAITING_CHUNKS_EACH:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise CARZeroError(
                describe("A process of the rules died", then="go on with --resume, perhaps with a smaller --jobs")
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _align(chunk: list[Report]) -> list[AlignedReport]:
    aligner = RuleAligner()
    return [aligner.align(*report) for report in chunk]
