"""Worker processes: what crashes or hangs costs the call in hand, and everything else goes on."""

from __future__ import annotations

import dataclasses
import os
import platform
import signal
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carzero.core.remarks import Remark
from carzero.core.workers import WorkerCrashedError, WorkerHungError, WorkerPool, WorkerProcess, interrupts_held
from carzero.errors import ConfigurationError, UnreadableImageError
from carzero.images import PixelTransform
from carzero.images.loading import Readers, _with_remarks, load_ahead, load_item
from carzero.records import FailedImage, ImageItem, LoadedImage, RadiographInfo
from tests.support.commands import ENVIRONMENT, ROOT, default_interrupts, run_program
from tests.support.decoder import FOREVER_S, behave, count_new_pages


def test_a_crash_or_a_hang_costs_its_own_call() -> None:
    worker = WorkerProcess(behave)
    first, process = worker.call("fine", limit_s=FOREVER_S)
    assert (first, worker.call("print", limit_s=FOREVER_S)) == ("fine", ("print", process))
    with pytest.raises(UnreadableImageError, match="it is broken"):
        worker.call("refuse", limit_s=FOREVER_S)
    assert worker.call("fine", limit_s=FOREVER_S) == ("fine", process), "an exception is an answer"
    with pytest.raises(WorkerCrashedError, match="exit status -11"):
        worker.call("crash", limit_s=FOREVER_S)
    second = worker.call("fine", limit_s=FOREVER_S)[1]
    with pytest.raises(WorkerHungError, match=r"no answer within 0\.2 s"):
        worker.call("hang", limit_s=0.2)
    assert len({process, second, worker.call("fine", limit_s=FOREVER_S)[1]}) == 3
    worker.close()
    with pytest.raises(WorkerCrashedError, match="closed"):
        worker.call("fine", limit_s=FOREVER_S)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to keep freed memory")
def test_memory_of_one_image_is_used_for_the_next() -> None:
    worker = WorkerProcess(count_new_pages)
    first, second = (worker.call(100 * 2**20, limit_s=FOREVER_S) for _ in range(2))
    assert second < first / 10
    worker.close()


def test_what_is_said_in_a_call_is_told_with_its_result(capfd: pytest.CaptureFixture[str]) -> None:
    worker = WorkerProcess(behave, lambda value, remarks: (value[0], [remark.text for remark in remarks]))
    assert worker.call("print", limit_s=FOREVER_S) == ("print", ["noise on stdout"])
    assert worker.call("fine", limit_s=FOREVER_S)[0] == "fine"
    worker.close()
    assert capfd.readouterr() == ("", "")


def test_a_decoders_remarks_are_doubts_about_its_image() -> None:
    info = RadiographInfo(warnings=("It is small.",))
    loaded = LoadedImage(ImageItem("a", "a.png", "a.png"), info, np.zeros((4, 4), np.uint8))
    said = [Remark("valuerep", "an odd name"), Remark("printed", "libpng warning: iCCP."), Remark("PIL", "x" * 500)]
    doubts = _with_remarks(loaded, said).info.warnings
    assert doubts[:2] == ("It is small.", "Its decoder warns: libpng warning: iCCP.")
    assert (len(doubts), len(doubts[2])) == (3, len("Its decoder warns: .") + 160)
    assert _with_remarks(loaded, said[:1]) is loaded


def test_a_pool_ends_at_once_whatever_its_processes_do() -> None:
    with WorkerPool(behave, 2, limit_s=FOREVER_S) as pool:
        pool.submit("fine").result()
        for _ in range(3):
            pool.submit("hang")


def test_an_interpreter_that_cannot_import_the_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ConfigurationError, match=r"ends before it has begun; got 'exit status 1'"):
        WorkerProcess(behave).call("fine", limit_s=FOREVER_S)


def test_processes_end_with_their_parent() -> None:
    program = (
        "import os, signal; from carzero.core.workers import WorkerProcess\n"
        "from tests.support.decoder import behave\n"
        "print(WorkerProcess(behave).call('fine', limit_s=10_000)[1], flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    # The pipe of stderr, which the child holds too, ends only when both have ended; else this waits for ever.
    done = run_program([sys.executable, "-c", program], env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert int(done.stdout) > 0


class ByHand(Readers):
    """Readers whose images are finished by the test."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.begun: dict[str, Future[LoadedImage]] = {}

    def read(self, item: ImageItem, **_: Any) -> Future[LoadedImage]:
        self.begun[item.image_id] = Future()
        return self.begun[item.image_id]

    def finish(self, *names: str) -> None:
        for name in names:
            item = ImageItem(name, "", "")
            self.begun[name].set_result(LoadedImage(item, RadiographInfo(), np.zeros((4, 4), np.uint8)))


ITEMS = [ImageItem(f"{n}", f"/x/{n}.png", f"/x/{n}.png") for n in range(9)]


def test_a_slow_picture_is_passed_once_enough_others_are_ready() -> None:
    readers = ByHand(1)
    loaded = load_ahead(ITEMS, readers, batch_size=1, transform=PixelTransform(4, 4), in_order=False)
    readers_ahead = ["0", "1", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("carzero.core.lookahead.wait", lambda futures, **_: readers.finish("1", "2"))
        assert next(loaded).item.image_id == "1"
    assert list(readers.begun) == readers_ahead, "no more than the room there is"
    readers.finish("0")
    assert next(loaded).item.image_id == "0", "what has come in time keeps its place"


def test_order_is_kept_where_it_is_promised() -> None:
    readers = ByHand(1)
    loaded = load_ahead(ITEMS[:3], readers, batch_size=1, transform=PixelTransform(4, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("carzero.core.lookahead.wait", lambda futures, **_: readers.finish(*list(readers.begun)[::-1]))
        assert [found.item.image_id for found in loaded] == ["0", "1", "2"]


@pytest.mark.parametrize("isolated", [False, True])
def test_threads_and_processes_read_the_same(isolated: bool, films: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    sources: list[Any] = [*films[:3], tmp_path / "broken.png", tmp_path / "gone.png"]
    items = [ImageItem(Path(path).name, str(path), str(path)) for path in sources]
    items.append(ImageItem("array", "", np.arange(400, dtype=np.uint8).reshape(20, 20)))
    with Readers(2, isolated=isolated) as readers:
        found = list(load_ahead(items, readers, batch_size=2, transform=PixelTransform(36, 32)))
    assert [isinstance(result, FailedImage) for result in found] == [False] * 3 + [True, True, False]
    for item, result in zip(items, found, strict=True):
        if isinstance(result, LoadedImage):
            np.testing.assert_array_equal(result.levels, load_item(item, PixelTransform(36, 32)).levels)
            assert result.radiograph is None
            assert result.item is item
        else:
            assert isinstance(result.error, UnreadableImageError)
            assert item.path in result.failure.reason


def test_a_file_that_its_reader_does_not_survive_fails_alone(
    films: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carzero.images.loading.load_item", read_or_crash)
    items = [ImageItem(name, f"/{name}", f"{films[0]}?{name}") for name in ("good", "crash", "fine", "hang", "last")]
    with Readers(2, isolated=True, limit_s=FOREVER_S) as readers:
        found = list(load_ahead(items[:3] + items[4:], readers, batch_size=1, transform=PixelTransform(36, 32)))
    assert [result.failure.reason if isinstance(result, FailedImage) else "" for result in found] == [
        "",
        "/crash: its reader crashed; got 'exit status -11'; expected an image that its decoder can read. "
        "Export the image again, or leave it out.",
        "",
        "",
    ]
    with Readers(1, isolated=True, limit_s=0.2) as readers:
        (hung,) = load_ahead(items[3:4], readers, batch_size=1, transform=PixelTransform(36, 32))
    assert isinstance(hung, FailedImage)
    assert hung.failure.reason.startswith("/hang: its reader hung; got 'no answer within 0.2 s'")


def read_or_crash(item: ImageItem, *arguments: Any) -> LoadedImage:
    path, _, how = str(item.image).partition("?")
    behave(how)
    return load_item(dataclasses.replace(item, image=path), *arguments)


def test_readers_must_be_some() -> None:
    with pytest.raises(ValueError, match="at least 1; got 0"):
        Readers(0)


def test_an_interrupt_waits_while_processes_are_started_and_they_never_see_one() -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('lives')"
    reached = []

    def start_and_be_interrupted() -> None:
        with interrupts_held():
            reached.append(run_program([sys.executable, "-S", "-c", program]).stdout)
            signal.raise_signal(signal.SIGINT)
            reached.append("the end of the block")

    with default_interrupts(), pytest.raises(KeyboardInterrupt):  # a pytest in the background ignores them
        start_and_be_interrupted()
    assert reached == ["lives\n", "the end of the block"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
