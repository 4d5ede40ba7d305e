"""What works behind the routes: weights, readers, the queue and its thread, started together and ended together."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from carzero.core.workers import CAN_ISOLATE, WorkerPool
from carzero.errors import CARZeroError
from carzero.images.display import DisplayImage, load_display
from carzero.images.loading import Readers
from carzero.service.problems import ProblemError
from carzero.service.scoring_queue import ScoringQueue
from carzero.service.served_weights import MOST_IMAGES, ServedWeights, not_ready
from carzero.service.settings import ServiceSettings
from carzero.service.telemetry import Telemetry

_LONGEST_READING_S = 60.0


class Engine:
    """A service without its routes.

    Args:
        settings: how it works.
        telemetry: is told.
    """

    def __init__(self, settings: ServiceSettings, telemetry: Telemetry) -> None:
        self.settings = settings
        self.telemetry = telemetry
        self.weights = {
            name: ServedWeights(
                name, source, settings.calibrations.get(name), settings.device, settings.dtype, settings.batch_size
            )
            for name, source in settings.weights.items()
        }
        self.failure: Exception | None = None
        self._ready = threading.Event()
        self._is_closed = False
        self._guard = threading.Lock()
        self._stack: ExitStack | None = None
        self._queue: ScoringQueue | None = None
        self._displays: WorkerPool | ThreadPoolExecutor | None = None
        self._folder: Path | None = None

    def start(self, prepare: Callable[[], None] = lambda: None, on_failure: Callable[[], None] = lambda: None) -> None:
        """Starts processes that read and the thread that loads the weights and scores; once, and returns at once.

        Args:
            prepare: called in that thread before weights are loaded.
            on_failure: called in that thread where the weights cannot be loaded; `failure` says why.
        """
        with self._guard:
            if self._stack is not None:
                return
            self._is_closed = False
            self._ready.clear()
            stack = ExitStack()
            limit_s = min(_LONGEST_READING_S, self.settings.limits.seconds)
            readers = stack.enter_context(Readers(self.settings.readers, isolated=True, limit_s=limit_s))
            self._displays = WorkerPool(load_display, 1, limit_s=limit_s) if CAN_ISOLATE else ThreadPoolExecutor(1)
            stack.push(self._displays)
            self._folder = Path(tempfile.mkdtemp(prefix="carzero-"))  # for its owner alone
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            queue = self._queue = ScoringQueue(
                self.weights,
                readers,
                batch_size=self.settings.batch_size or MOST_IMAGES,
                most_waiting=self.settings.limits.waiting,
                telemetry=self.telemetry,
            )
            thread = threading.Thread(
                target=self._work, args=(queue, prepare, on_failure), name="carzero-scoring", daemon=True
            )
            thread.start()
            stack.callback(thread.join)
            stack.callback(queue.close)
            self._stack = stack

    def ensure_started(self) -> None:
        """Starts what nobody has started, as the app was mounted into another; what was closed stays closed."""
        if not self._is_closed:
            self.start()

    def close(self) -> None:
        """Finishes what was accepted, and ends processes and thread."""
        with self._guard:
            stack, self._stack, self._is_closed = self._stack, None, True
        if stack is not None:
            stack.close()
            self.telemetry.ready.set(0)

    @property
    def queue(self) -> ScoringQueue:
        """Where images wait; the engine is started if it never was."""
        self.ensure_started()
        if self.failure is not None:
            raise ProblemError("fault", "The weights cannot be loaded; the log says why.")
        if self._queue is None or not self._ready.is_set():
            raise not_ready()
        return self._queue

    @property
    def is_ready(self) -> bool:
        """Whether the weights are loaded and images are taken."""
        return self._ready.is_set() and self._stack is not None

    def find_weights(self, name: str | None) -> ServedWeights:
        """Weights by name; None takes the first.

        Raises:
            ProblemError: there are none of this name.
        """
        found = next(iter(self.weights.values())) if name is None else self.weights.get(name)
        if found is None:
            raise ProblemError("unknown-weights", f"Got {name!r}; expected one of {list(self.weights)}.")
        return found

    def load_display(self, path: Path, force: bool) -> Future[DisplayImage]:
        """Begins to read an image at full depth, in a process of its own."""
        self.ensure_started()
        if self._displays is None:
            raise not_ready()
        if isinstance(self._displays, ThreadPoolExecutor):
            return self._displays.submit(load_display, path, force)
        return self._displays.submit(path, force)

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder for the images of one request, deleted at its end."""
        self.ensure_started()
        with tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as name:
            yield Path(name)

    def _work(self, queue: ScoringQueue, prepare: Callable[[], None], on_failure: Callable[[], None]) -> None:
        try:
            prepare()
            for each in self.weights.values():
                each.load()
        except Exception as error:
            self.failure = error
            if isinstance(error, CARZeroError):
                self.telemetry.tell("fault", kind=type(error).__name__, reason=str(error))
            else:
                self.telemetry.tell_fault(error)
            on_failure()
            return
        self._ready.set()
        self.telemetry.ready.set(1)
        hashes = ", ".join(each.source.sha256 for each in self.weights.values())
        self.telemetry.tell("ready", weights_sha256=hashes)
        queue.work()
