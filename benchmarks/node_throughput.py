"""Images a minute through the node beside `carzero predict` on the same images, their processor time, and memory.

    python benchmarks/node_throughput.py --images 1000 --labels pneumonia,"pleural effusion" --kinds sr,sc
    python benchmarks/node_throughput.py --images 300 --full-size
    python benchmarks/node_throughput.py --parts

The images are the bundled radiograph under new identifiers (JPEG 2000, 1955 x 1841). They are sent to a real node by
C-STORE, ten an association, and again where one is broken off, as a modality does; its results go to a receiver that
drops them. `carzero predict` has the same images in a folder.

Both run at the same time and take turns: one is stopped (SIGSTOP) while the other works, so that both meet the machine
in the same condition. Turns begin when both run evenly, and end before one of them has read its last image. The node
then finishes alone, for its memory.
`--full-size` makes weights of the released model's size
by the test suite's formula (about 1.8 GB under --scratch); `--weights` takes others. `--parts` measures what the node
does beside scoring, part by part, for one image.

Processor time (user and system, of the whole tree of processes) holds on a busy machine too; images a minute do not.
The stand-in for the PACS, which sends and takes results, shares the machine with the node, and is stated apart.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID, Comprehensive3DSRStorage, EncapsulatedPDFStorage, SecondaryCaptureImageStorage
from pynetdicom import AE, evt

from carzero.clinical.content import THUMBNAIL_PX
from carzero.clinical.image_header import load_source
from carzero.clinical.node.sender import Peer, SendError
from carzero.clinical.node.spool import Spool, filling
from carzero.clinical.result_objects import build_by_kind
from carzero.clinical.run import ResultMaker
from carzero.core.run_record import journal_path
from carzero.images.listing import list_images
from carzero.images.loading import load_item
from carzero.images.overlay import make_thumbnail
from carzero.inference.scoring import ScoringSettings
from carzero.prompts import PromptSet
from carzero.records import FailedImage
from carzero.weights.source import WeightsSource, example_film

TICKS = os.sysconf("SC_CLK_TCK")
TURN_S = 20.0
EVEN = 48  # images after which all parts of both are at work
NEARLY_READ = 120  # images that are read and not yet sent on, at most
PATIENCE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Spent:
    """What so many images took: wall-clock seconds, and processor seconds."""

    images: int
    seconds: float
    processor: float

    @classmethod
    def of(cls, turns: list[Spent]) -> Spent:
        """All turns together."""
        return cls(
            sum(each.images for each in turns),
            sum(each.seconds for each in turns),
            sum(each.processor for each in turns),
        )

    def __str__(self) -> str:
        rate, each = 60 * self.images / self.seconds, self.processor / self.images
        return f"{rate:.0f} images a minute, {each:.3f} s of processor time an image"


def write_images(folder: Path, count: int) -> list[Path]:
    """Copies of the bundled radiograph under new identifiers."""
    image = dcmread(example_film())
    paths = []
    for number in range(1, count + 1):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.826.0.1.3680043.8.498.7.{number}")
        image.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.8.{number}"
        image.SeriesInstanceUID = f"1.2.826.0.1.3680043.8.498.9.{number}"
        paths.append(folder / f"{number:05d}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


def make_full_size(folder: Path) -> Path:
    """Weights of the released model's size."""
    maker = Path(__file__).with_name("convert_full_size.py")
    subprocess.run([sys.executable, str(maker), "--keep", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder / "weights"


@contextmanager
def taking(folder: Path) -> Iterator[tuple[str, int, int | None]]:
    """A receiver that drops what it takes: its name, its port, and its process where it is not this one.

    dcmtk's storescp where it is installed, which costs the machine little, as a PACS of its own machine would; else
    pynetdicom's, in this process.
    """
    program = shutil.which("storescp")
    if program is None:
        ae = AE(ae_title="SINK")
        for each in (Comprehensive3DSRStorage, SecondaryCaptureImageStorage, EncapsulatedPDFStorage):
            ae.add_supported_context(each)
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: 0)])
        if server is not None:
            yield "pynetdicom", int(server.server_address[1]), None
            server.shutdown()
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    process = subprocess.Popen([program, "--ignore", "--aetitle", "SINK", str(port)], cwd=folder)
    try:
        yield "storescp", port, process.pid
    finally:
        process.terminate()
        process.wait()


class Log:
    """The node's log, read as it grows."""

    def __init__(self, path: Path, node: subprocess.Popen[bytes]) -> None:
        self._file, self._path, self._node = path.open(), path, node
        self.sent = 0
        self._rest = ""

    def read(self) -> Iterator[dict[str, object]]:
        """Yields events that are new since the last time; raises RuntimeError where the node has ended."""
        if self._node.poll() is not None:
            raise RuntimeError(self.tail)
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for line in lines:
            if line.startswith("{"):
                event = dict(json.loads(line))
                self.sent += event["event"] == "sent"
                if event["event"] in ("dead", "fault"):
                    raise RuntimeError(line)
                yield event

    def wait_for(self, name: str) -> dict[str, object]:
        """The next event of this name."""
        while True:
            for event in self.read():
                if event["event"] == name:
                    return event
            time.sleep(0.1)

    @property
    def tail(self) -> str:
        """How it ends."""
        return self._path.read_text()[-2000:]


def find_tree(process: int) -> set[int]:
    """A process and all that it has started."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, more = {process}, {process}
    while more:
        more = {child for child, parent in parents.items() if parent in more}
        found |= more
    return found


def memory_mib(process: int) -> float:
    """Resident memory of a process and those that it has started, in MiB."""
    pages = 0
    for each in find_tree(process):
        try:
            pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * 4096 / 2**20


def processor_s(process: int) -> float:
    """Processor time of a process and those that it has started, user and system."""
    ticks = 0
    for each in find_tree(process):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))  # its own, and those of what has ended
    return ticks / TICKS


class Sender(threading.Thread):
    """A modality: stores images, ten an association, and sends those of an association again where it is broken off."""

    def __init__(self, paths: list[Path], port: int) -> None:
        super().__init__(daemon=True)
        self._tens = [paths[start : start + 10] for start in range(0, len(paths), 10)]
        self._peer = Peer("CARZERO", "127.0.0.1", port, "BENCH")
        self.again, self.slowest_s, self.seconds = 0, 0.0, 0.0
        self.error: SendError | None = None

    def run(self) -> None:
        """Sends all; what is refused, or broken off five times, ends it with `error`."""
        begun = time.perf_counter()
        try:
            for ten in self._tens:
                self._send(ten)
                self._peer.close()
        except SendError as error:
            self.error = error
        self.seconds = time.perf_counter() - begun

    def _send(self, ten: list[Path]) -> None:
        for attempt in range(5):
            try:
                for path in ten:
                    begun = time.perf_counter()
                    self._peer.send([path])
                    self.slowest_s = max(self.slowest_s, time.perf_counter() - begun)
            except SendError as error:
                if error.refused or attempt == 4:
                    raise
                self.again += 1
            else:
                return


class Node:
    """A node at work, and the log that says how far it is.

    Args:
        asked: the command line.
        weights: its weights.
        folder: for its spool and its log.
        taker_port: where its results go.
    """

    def __init__(self, asked: argparse.Namespace, weights: str, folder: Path, taker_port: int) -> None:
        path = folder / "node.log"
        command = [sys.executable, "-m", "carzero", "dicom", "node", "--spool", folder / "spool", "--port", 0]
        command += ["--host", "127.0.0.1", "--forward", f"SINK@127.0.0.1:{taker_port}", "--labels", asked.labels]
        command += ["--kinds", asked.kinds, "--device", "cpu", "--keep-hours", 0, "--weights", weights]
        with path.open("w") as file:
            self.process = subprocess.Popen(list(map(str, command)), stderr=file)
        self._log = Log(path, self.process)

    def wait_until_ready(self) -> int:
        """Waits until it can work, and returns its port."""
        port = int(str(self._log.wait_for("listening")["port"]))
        self._log.wait_for("ready")
        return port

    def count(self) -> int:
        """Images whose results are sent on."""
        for _ in self._log.read():
            pass
        return self._log.sent


class Predict:
    """`carzero predict` on a folder of images, and its journal, which says how far it is; arguments as of `Node`."""

    def __init__(self, asked: argparse.Namespace, weights: str, folder: Path) -> None:
        out = folder / "scores.csv"
        self._journal = journal_path(out)
        command = [sys.executable, "-m", "carzero", "predict", folder / "images", "--labels", asked.labels]
        command += ["--device", "cpu", "--weights", weights, "--out", out]
        self.process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)

    def count(self) -> int:
        """Images that are scored."""
        if self.process.poll() is not None:
            raise RuntimeError("predict has ended")
        return max(0, self._journal.read_bytes().count(b"\n") - 1) if self._journal.exists() else 0  # below its head


Worker = Node | Predict


def signal_tree(worker: Worker, number: signal.Signals) -> None:
    """Sends a signal to a process and all that it has started."""
    for each in find_tree(worker.process.pid):
        with suppress(ProcessLookupError):
            os.kill(each, number)


def work_for(worker: Worker, seconds: float, until: Callable[[], bool] = lambda: False) -> Spent:
    """Has a worker that is stopped work for a while, or until something has come about."""
    before, processor = worker.count(), processor_s(worker.process.pid)
    begun = time.perf_counter()
    signal_tree(worker, signal.SIGCONT)
    while time.perf_counter() - begun < seconds and not until():
        time.sleep(0.2)
    signal_tree(worker, signal.SIGSTOP)
    took = time.perf_counter() - begun
    return Spent(worker.count() - before, took, processor_s(worker.process.pid) - processor)


@dataclass(frozen=True, slots=True)
class Through:
    """What images took in turns, and in the node all together.

    Attributes:
        node: in its turns.
        predict: likewise.
        standin_s: processor time of the stand-in for the PACS, an image.
        taker: what took the results.
        curve: memory of the node after so many images, MiB.
        sender: what sent the images.
    """

    node: Spent
    predict: Spent
    standin_s: float
    taker: str
    curve: list[tuple[int, float]]
    sender: Sender


def take_turns(paths: list[Path], asked: argparse.Namespace, weights: str, folder: Path) -> Through:
    """Has a node and `predict` work in turns, and then the node finish."""
    with taking(folder) as (taker, taker_port, taker_process), ExitStack() as stack:

        def standin_s() -> float:
            return time.process_time() + (0.0 if taker_process is None else processor_s(taker_process))

        def end(worker: Worker) -> None:
            signal_tree(worker, signal.SIGCONT)
            worker.process.terminate()
            worker.process.wait()

        node = Node(asked, weights, folder, taker_port)
        stack.callback(end, node)
        sender, own = Sender(paths, node.wait_until_ready()), standin_s()
        sender.start()
        curve, last = [(0, memory_mib(node.process.pid))], len(paths) - NEARLY_READ

        def is_sent() -> bool:
            if sender.error is not None:
                raise RuntimeError(str(sender.error))
            return not sender.is_alive() and node.count() >= EVEN

        work_for(node, PATIENCE_S, is_sent)
        if node.count() >= last:
            raise RuntimeError("the node was done before all images were sent: take more --images")
        predict = Predict(asked, weights, folder)
        stack.callback(end, predict)
        work_for(predict, PATIENCE_S, lambda: predict.count() >= EVEN)
        turns: dict[str, list[Spent]] = {"node": [], "predict": []}
        while node.count() < last and predict.count() < last:
            turns["predict"].append(work_for(predict, TURN_S, lambda: predict.count() >= last))
            turns["node"].append(work_for(node, TURN_S, lambda: node.count() >= last))
            curve.append((node.count(), memory_mib(node.process.pid)))
        end(predict)
        signal_tree(node, signal.SIGCONT)
        while (done := node.count()) < len(paths):
            if done >= curve[-1][0] + len(paths) // 20:
                curve.append((done, memory_mib(node.process.pid)))
            time.sleep(0.2)
        curve.append((len(paths), memory_mib(node.process.pid)))
        both = {name: Spent.of(each) for name, each in turns.items()}
        return Through(both["node"], both["predict"], (standin_s() - own) / len(paths), taker, curve, sender)


def time_parts(asked: argparse.Namespace, folder: Path, rounds: int = 20) -> Iterator[tuple[str, float]]:
    """Yields parts of the node's work on one image, and the mean milliseconds of processor time that each takes."""
    prompts, kinds = PromptSet.from_labels(asked.labels.split(",")), asked.kinds.split(",")
    maker = ResultMaker(ScoringSettings(weights=WeightsSource(asked.weights), prompts=prompts, device="cpu"))
    classifier, bank = maker.load()
    [item], transform = list_images([example_film()]), classifier.processor.image_processor.pixels
    image = next(classifier.stream([item], bank, need_maps=True))
    if isinstance(image, FailedImage) or image.radiograph is None:
        raise RuntimeError("the bundled image was not scored")
    pixels, source = image.radiograph.pixels, load_source(item.path)
    small = replace(image, thumbnail=make_thumbnail(pixels, THUMBNAIL_PX), radiograph=None)
    spool, data, uids = Spool(folder / "parts"), Path(item.path).read_bytes(), itertools.count(1)
    made = dict(build_by_kind(small, maker.settings, kinds, source))

    def save(kind: str) -> None:
        with filling(folder / "results") as into:
            for number, each in enumerate(made[kind]):
                each.save_as(into / f"{number}.dcm", enforce_file_format=True)

    works: dict[str, Callable[[], object]] = {
        "take the image over": lambda: spool.take_over(f"1.2.{next(uids)}", data, "BENCH"),
        "read it down to the model's crop": lambda: load_item(item, transform),
        "make it small for the page": lambda: make_thumbnail(pixels, THUMBNAIL_PX),
        "read its header again": lambda: load_source(item.path),
        **{f"build {kind}": partial(build_by_kind, small, maker.settings, [kind], source) for kind in kinds},
        **{f"write {kind}": partial(save, kind) for kind in kinds},
    }
    for name, work in works.items():
        work()
        begun = time.process_time()
        for _ in range(rounds):
            work()
        yield name, 1000 * (time.process_time() - begun) / rounds


def main() -> None:
    """Prints both speeds and the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--labels", default="pneumonia,pleural effusion")
    parser.add_argument("--kinds", default="sr,sc")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--weights", default="demo", help='"demo", or a folder')
    chosen.add_argument("--full-size", action="store_true", help="weights of the released model's size, made here")
    parser.add_argument("--scratch", type=Path, help="a folder on a disk with room: about 1 MB an image")
    parser.add_argument("--parts", action="store_true", help="measure the parts of one image alone")
    asked = parser.parse_args()
    if asked.parts:
        with tempfile.TemporaryDirectory(dir=asked.scratch) as name:
            for part, milliseconds in time_parts(asked, Path(name)):
                print(f"{milliseconds:6.1f} ms  {part}")
        return
    if asked.images < 2 * (EVEN + NEARLY_READ):
        parser.error(f"--images: {2 * (EVEN + NEARLY_READ)} at least, or there are no turns in which both run evenly")
    with tempfile.TemporaryDirectory(dir=asked.scratch) as name:
        folder = Path(name)
        (folder / "images").mkdir()
        weights = str(make_full_size(folder / "full")) if asked.full_size else asked.weights
        both = take_turns(write_images(folder / "images", asked.images), asked, weights, folder)
    node, predict, curve, sender = both.node, both.predict, both.curve, both.sender
    ratio = (predict.seconds / predict.images) / (node.seconds / node.images)
    share = (predict.processor / predict.images) / (node.processor / node.images)
    named = "weights of full size" if asked.full_size else f"weights {asked.weights}"
    print(f"n = {asked.images}, labels {asked.labels}, kinds {asked.kinds}, {named}, {os.cpu_count()} cores")
    print(f"in turns of {TURN_S:.0f} s, {predict.images} images by predict and {node.images} by the node:")
    print(f"predict: {predict}")
    print(f"node:    {node}; {ratio:.2f} of predict by the clock, {share:.2f} by processor time")
    print(f"stand-in for the PACS ({both.taker}): {both.standin_s:.3f} s of processor time an image")
    received = f"{60 * asked.images / sender.seconds:.0f} images a minute"
    print(f"sent: {received}, slowest answer {sender.slowest_s:.1f} s, {sender.again} times again")
    middle = min(curve, key=lambda each: abs(each[0] - asked.images / 2))
    most = max(mib for _, mib in curve)
    ends = f"{curve[0][1]:.0f} at the start, {middle[1]:.0f} in the middle, {curve[-1][1]:.0f} at the end"
    print(f"memory of the node, MiB: {ends}, {most:.0f} at most; after so many images:")
    print("  " + ", ".join(f"{done}: {mib:.0f}" for done, mib in curve))


if __name__ == "__main__":
    main()
