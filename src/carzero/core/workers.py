"""Functions called in processes of their own: what crashes or hangs costs the call in hand, and nothing else.

Images come from anywhere, and a broken codestream may bring a decoder down or keep it busy for ever. A pool of the
standard library then loses all calls that were in work, cannot end a hanging one, and runs the caller's script again in
every process; these processes are plain interpreters with a pipe each, so it is known which call was in hand.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from carzero.core.remarks import Remark, collected_remarks
from carzero.core.system import keep_freed_memory
from carzero.errors import ConfigurationError, describe

Remarked = Callable[[Any, Sequence[Remark]], Any]

CAN_ISOLATE = os.name == "posix"  # elsewhere a pipe cannot be handed to a plain interpreter


KEPT = 2**28  # bytes of memory that a process keeps from one call to the next: an image of 15 megapixels fits
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_GRACE_S = 30.0  # by which a process outlives the limit of a call where nobody is left to end it
_GLANCE_S = 1.0  # how often a waiting call looks whether it is still wanted


class WorkerCrashedError(RuntimeError):
    """The process died during the call."""


class WorkerHungError(RuntimeError):
    """The call took longer than it may."""


class WorkerProcess:
    """A process that runs calls of one function, one after the other.

    It starts at once and loads the function meanwhile; after a crash or a hang the next call starts a new one. It never
    sees Ctrl-C, and ends with its parent.

    Args:
        function: importable by name; arguments, results and exceptions must be picklable.
        remarked: takes a result and what libraries have said during the call, and returns what `call` returns. Without
            it that is dropped; it is never printed.
        modules: names of what the function imports when it is called; the process loads it while it starts.
    """

    def __init__(
        self, function: Callable[..., Any], remarked: Remarked | None = None, modules: Sequence[str] = ()
    ) -> None:
        self._function = function
        self._modules = tuple(modules)
        self._remarked = remarked
        self._closed = False
        self._start()

    def call(self, *arguments: Any, limit_s: float) -> Any:
        """Returns the function's result, or raises what it raised.

        Args:
            arguments: for the function.
            limit_s: seconds the call may take.

        Raises:
            WorkerCrashedError: the process died.
            WorkerHungError: the limit was reached; the process is ended.
            ConfigurationError: no process can be started here.
        """
        if self._process is None or (self._ready and self._process.poll() is not None):
            self._start()
        self._await_start()
        with contextlib.suppress(OSError):  # a process that is gone answers with the end of its pipe
            self._pipe.send((arguments, limit_s))
        succeeded, value, remarks = self._receive(limit_s)
        if not succeeded:
            raise value
        return self._remarked(value, remarks) if remarks and self._remarked is not None else value

    def close(self) -> None:
        """Ends the process, and any call in it, for good."""
        self._closed = True
        self._end()

    def _start(self) -> None:
        if self._closed:
            raise WorkerCrashedError("closed")
        self._pipe, theirs = Pipe()
        descriptor = theirs.fileno()
        program = f"import sys; sys.path[:] = {sys.path!r}; from carzero.core.workers import serve; serve({descriptor})"
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(  # noqa: S603 (our own interpreter)
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=2,  # what a decoder prints is not a result
            pass_fds=(descriptor,),
            env={**os.environ, **_ONE_THREAD},
            start_new_session=True,
        )
        theirs.close()
        self._ready = False
        with contextlib.suppress(OSError):
            self._pipe.send((self._function, self._modules))

    def _await_start(self) -> None:
        if self._ready:
            return
        try:
            self._ready = bool(self._pipe.recv())
        except (EOFError, OSError) as error:
            raise ConfigurationError(
                describe(
                    "A process for reading images ends before it has begun",
                    got=f"exit status {self._end(kill=False)}",
                    expected="a second interpreter that imports carzero",
                    then="see its message above",
                )
            ) from error

    def _receive(self, limit_s: float) -> tuple[bool, Any, list[Remark]]:
        deadline = time.monotonic() + limit_s
        try:
            while not self._pipe.poll(min(_GLANCE_S, max(0.0, deadline - time.monotonic()))):
                if self._closed:
                    raise WorkerCrashedError("closed")
                if time.monotonic() >= deadline:
                    self._end()
                    raise WorkerHungError(f"no answer within {limit_s:g} s")
            answer: tuple[bool, Any, list[Remark]] = self._pipe.recv()
            return answer
        except (EOFError, OSError) as error:
            raise WorkerCrashedError(f"exit status {self._end(kill=False)}") from error

    def _end(self, *, kill: bool = True) -> int | None:
        """Ends the process, or lets it end; returns its exit status, None where that takes long (a dead disk)."""
        process, self._process = self._process, None
        if process is None:
            return None
        if kill:
            process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GLANCE_S)
        return process.returncode


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Processes started in the block never see Ctrl-C, which a terminal sends to all; one that comes waits for its end.

    A process of the standard library that is interrupted while it is loaded prints a page of Python, and may leave its
    pool waiting for ever. Only for processes that end with their parent.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(descriptor: int) -> None:
    """The process's side: receives a function, then calls of it, and sends results, until the pipe ends."""
    keep_freed_memory(KEPT)
    pipe = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):
        function, modules = pipe.recv()
        for name in modules:
            importlib.import_module(name)
        pipe.send(True)
        while True:
            arguments, limit_s = pipe.recv()
            _set_alarm(limit_s + _GRACE_S)
            with collected_remarks() as remarks:
                try:
                    answer = (True, function(*arguments))
                except Exception as error:  # whatever it is, it is the caller's to handle
                    answer = (False, error)
            _set_alarm(0)
            pipe.send((*answer, remarks))


def _set_alarm(seconds: float) -> None:
    """Has the system end this process after a time, should it hang when its parent has been killed; 0 takes it back."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


class WorkerPool:
    """Worker processes, each fed by a thread of this one.

    Args:
        function: as for `WorkerProcess`.
        workers: how many.
        limit_s: seconds a call may take.
        remarked: as for `WorkerProcess`.
        modules: likewise.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        workers: int,
        *,
        limit_s: float,
        remarked: Remarked | None = None,
        modules: Sequence[str] = (),
    ) -> None:
        self._limit_s = limit_s
        self._workers = [WorkerProcess(function, remarked, modules) for _ in range(workers)]
        self._idle: queue.SimpleQueue[WorkerProcess] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        self._threads.shutdown(wait=True)

    def submit(self, *arguments: Any) -> Future[Any]:
        """Has a worker call the function; the future holds the result, or the errors of `WorkerProcess.call`."""
        return self._threads.submit(self._call, arguments)

    def _call(self, arguments: tuple[Any, ...]) -> Any:
        worker = self._idle.get()
        try:
            return worker.call(*arguments, limit_s=self._limit_s)
        finally:
            self._idle.put(worker)
