"""Ray started, joined and stopped: quiet, without its usage statistics, and with nothing left behind."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from carzero.errors import MissingExtraError, RunError, describe

__all__ = ["import_ray", "joined_cluster"]

_STORE_BYTES = 128 * 2**20  # lists of paths pass through the object store, pictures never do
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
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError(
            describe("Scoring on several workers needs Ray", then="install it with: pip install 'carzero[ray]'")
        ) from error
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
        "num_cpus": max(workers, os.cpu_count() or 1),
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
                got=f"{address}: {str(error).splitlines()[0]}",
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
