"""Ray started, joined and stopped: quiet, without its usage statistics, and with nothing left behind."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from carzero.core.optional import require_extra
from carzero.core.system import count_cores
from carzero.errors import ConfigurationError, RunError, describe, first_line
from carzero.inference.ray.parts import PartJob, PartResult
from carzero.records import ImageItem

_STORE_BYTES = 128 * 2**20  # lists of paths pass through the object store, images never do

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def import_ray() -> Any:
    """Returns the module `ray` with `ray.data` loaded.

    Raises:
        MissingExtraError: it is not installed.
    """
    with require_extra("Scoring on several workers needs Ray", "ray"):
        import ray
        import ray.data
    return ray


@contextlib.contextmanager
def joined_cluster(address: str | None, workers: int) -> Iterator[Any]:
    """Yields Ray's module, connected; a cluster that was started for this is stopped at the end, come what may.

    Args:
        address: of a running cluster, "auto" for the one this machine belongs to, None to start one on this machine. In
            a process that is connected already, that connection is used, and kept.
        workers: processes that a cluster of our own must have room for.

    Raises:
        MissingExtraError: Ray is not installed.
        RunError: there is no cluster at the address.
    """
    with _quiet_environment():
        ray = import_ray()
        if ray.is_initialized():
            yield ray
            return
        with _sigterm_restored():
            _connect(ray, address, workers)
            _end_on_sigterm()
            try:
                # Ray prints what it has to say of dead workers on stdout, which is for results.
                with contextlib.redirect_stdout(sys.stderr):
                    yield ray
            finally:
                ray.shutdown()


def _connect(ray: Any, address: str | None, workers: int) -> None:
    local = {
        "num_cpus": max(workers, count_cores()),
        "object_store_memory": _STORE_BYTES,
        "include_dashboard": False,
    }
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else local),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RunError(
            describe(
                "No Ray cluster answers",
                got=f"{address}: {first_line(error)}",
                expected='an address like 10.0.0.1:6379, or "auto" on a machine of the cluster',
                then="start one with `ray start --head`, or leave --address out",
            )
        ) from error


@contextlib.contextmanager
def _sigterm_restored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if _is_main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _end_on_sigterm() -> None:
    """Has SIGTERM end the program in order; Ray's own handler aborts it with a dump."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if _is_main_thread():  # only there may handlers be set
        signal.signal(signal.SIGTERM, end)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def _quiet_environment() -> Iterator[None]:
    """Sets what Ray reads from the environment, where the user has not, for the time of the block."""
    added = {name: value for name, value in _ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@dataclass(frozen=True, slots=True)
class Placement:
    """How many workers, and what each has to itself: processors, and a GPU or none."""

    workers: int
    cpus: int
    gpus: int


def place_workers(ray: Any, workers: int | None, device: str | None, parts: int) -> Placement:
    """Divides a cluster among workers.

    Args:
        ray: the module, connected.
        workers: how many are wanted; None takes one a GPU, or one a machine where there are none.
        device: "cpu" leaves GPUs alone, another one needs them, None takes them where there are enough.
        parts: more workers than parts would have nothing to do.

    Raises:
        ConfigurationError: the cluster lacks the processors or GPUs.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = 0 if device == "cpu" else int(sum(machine.get("GPU", 0) for machine in machines))
    workers = min(workers or gpus or len(machines), parts)
    wants_gpu = device not in (None, "cpu") or gpus >= workers
    if wants_gpu and gpus < workers:
        raise ConfigurationError(
            describe(
                "There are more workers than GPUs in the cluster",
                got=workers,
                expected=f"at most {gpus}",
                then="ask for fewer workers, or --device cpu",
            )
        )
    return Placement(
        workers, divide_cpus([int(machine.get("CPU", 0)) for machine in machines], workers), int(wants_gpu)
    )


def divide_cpus(machines: Sequence[int], workers: int) -> int:
    """The most processors that each of so many equal workers can have.

    Args:
        machines: processors of each machine.
        workers: processes to place on them.

    Raises:
        ConfigurationError: there are fewer processors than workers.
    """
    for share in range(max(machines, default=0), 0, -1):
        if sum(cpus // share for cpus in machines) >= workers:
            return share
    raise ConfigurationError(
        describe(
            "There are more workers than processors in the cluster",
            got=workers,
            expected=f"at most {sum(machines)}",
            then="ask for fewer workers",
        )
    )


def score_parts(
    ray: Any, parts: Mapping[int, Sequence[ImageItem]], job: PartJob, placement: Placement
) -> Iterator[PartResult]:
    """Has workers score parts, and yields each one's result when it is written.

    Ray starts a worker that dies anew and hands its part out again, without end; `PartScorer` sees to it that a
    image which kills its worker is given up.

    Raises:
        RunError: a worker refuses, or fails for a reason of its own, such as a full disk; or workers cannot be started.
    """
    from carzero.inference.ray.parts import RayWorker

    rows = [
        {"number": number, "image_ids": [item.image_id for item in items], "paths": [item.path for item in items]}
        for number, items in parts.items()
    ]
    device = job.settings.device or ("cuda" if placement.gpus else "cpu")
    job = replace(job, settings=replace(job.settings, device=device))
    with _quiet_data(ray):
        # One block a part: left to itself, Ray joins small blocks and gives one worker everything.
        scored = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            RayWorker,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=placement.workers),
            fn_constructor_args=(job, str(Path.cwd()), placement.cpus),
            num_cpus=placement.cpus,
            num_gpus=placement.gpus,
        )
        with _told_shortly(ray):
            for row in scored.iter_rows():
                if refusal := row.pop("refusal"):
                    raise RunError(refusal)
                yield PartResult(**row)


@contextlib.contextmanager
def _told_shortly(ray: Any) -> Iterator[None]:
    """Turns what Ray itself cannot cope with into one message."""
    try:
        yield
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RunError(
            describe(
                "Ray cannot continue",
                got=lines[-1] if lines else type(error).__name__,
                then="see its logs (/tmp/ray/session_latest/logs on each machine); --resume continues where they were",
            )
        ) from error


@contextlib.contextmanager
def _quiet_data(ray: Any) -> Iterator[None]:
    """Keeps Ray Data's bars and reports off the terminal for the time of the block."""
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)
