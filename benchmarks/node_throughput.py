"""Images a minute through the node beside `carzero predict` on the same images, their processor time, and memory.

    python benchmarks/node_throughput.py --images 1000 --labels pneumonia,"pleural effusion" --kinds sr,sc
    python benchmarks/node_throughput.py --images 300 --full-size
    python benchmarks/node_throughput.py --parts

The images are the bundled radiograph under new identifiers (JPEG 2000, 1955 x 1841). They are sent to a real node by
C-STORE, ten an association, and again where one is broken off, as a modality does; its results go to a receiver that
drops them. The clock of the node runs from the first image sent, weights loaded, to the last result sent on; that of
`predict` from its first batch to the last one before which images are still being read.
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
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID, Comprehensive3DSRStorage, EncapsulatedPDFStorage, SecondaryCaptureImageStorage
from pynetdicom import AE, evt

from carzero.clinical.content import THUMBNAIL_PX
from carzero.clinical.image_header import load_source
from carzero.clinical.node.sender import Peer, SendError
from carzero.clinical.node.spool import Spool
from carzero.clinical.result_objects import build_by_kind
from carzero.clinical.run import ResultMaker, save_result
from carzero.core.system import tune_process
from carzero.images.listing import list_images
from carzero.images.loading import load_item
from carzero.images.overlay import make_thumbnail
from carzero.inference.scoring import ScoringRun, ScoringSettings
from carzero.prompts import PromptSet
from carzero.records import FailedImage
from carzero.weights.source import WeightsSource, example_film

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Spent:
    """What so many images took: wall-clock seconds, and processor seconds."""

    images: int
    seconds: float
    processor: float

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


def time_predict(paths: list[Path], labels: list[str], weights: str) -> Spent:
    """What `predict` takes once it runs evenly: from its first batch to that after which it only scores."""
    source, prompts = WeightsSource(weights), PromptSet.from_labels(labels)
    settings = ScoringSettings(weights=source, prompts=prompts, device="cpu")
    marks: list[tuple[int, float, float]] = []

    def mark(done: int, failed: int) -> None:
        marks.append((done, time.perf_counter(), processor_s(os.getpid())))

    ScoringRun(list_images(paths), settings).execute(mark)
    first = marks[0]
    last = [each for each in marks if each[0] <= len(paths) - 3 * settings.batch_size or each is marks[1]][-1]
    return Spent(last[0] - first[0], last[1] - first[1], last[2] - first[2])


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


@dataclass(frozen=True, slots=True)
class Through:
    """What all images took through the node.

    Attributes:
        spent: by the node.
        standin_s: processor time of the stand-in for the PACS, an image.
        taker: what took the results.
        curve: memory of the node after so many images, MiB.
        sender: what sent the images.
    """

    spent: Spent
    standin_s: float
    taker: str
    curve: list[tuple[int, float]]
    sender: Sender


def run_node(paths: list[Path], asked: argparse.Namespace, weights: str, folder: Path) -> Through:
    """Starts a node and has it work on all images."""
    path = folder / "node.log"
    with taking(folder) as (taker, taker_port, taker_process), path.open("w") as file:
        command = [sys.executable, "-m", "carzero", "dicom", "node", "--spool", folder / "spool", "--port", 0]
        command += ["--host", "127.0.0.1", "--forward", f"SINK@127.0.0.1:{taker_port}", "--labels", asked.labels]
        command += ["--kinds", asked.kinds, "--device", "cpu", "--keep-hours", 0, "--weights", weights]
        node = subprocess.Popen(list(map(str, command)), stderr=file)
        try:
            return watch(Log(path, node), node.pid, paths, taker, taker_process)
        finally:
            node.terminate()
            node.wait()


def watch(log: Log, node: int, paths: list[Path], taker: str, taker_process: int | None) -> Through:
    """Sends the images to a node that is starting, until the last of their results is sent on."""

    def standin_s() -> float:
        return time.process_time() + (0.0 if taker_process is None else processor_s(taker_process))

    port = log.wait_for("listening")["port"]
    log.wait_for("ready")
    sender = Sender(paths, int(str(port)))
    own, processor, begun = standin_s(), processor_s(node), time.perf_counter()
    sender.start()
    curve = [(0, memory_mib(node))]
    step = max(1, len(paths) // 20)
    while log.sent < len(paths):
        for _ in log.read():
            pass
        if sender.error is not None:
            raise RuntimeError(f"{sender.error} {log.tail}")
        if log.sent >= step * len(curve):
            curve.append((log.sent, memory_mib(node)))
        time.sleep(0.05)
    spent = Spent(len(paths), time.perf_counter() - begun, processor_s(node) - processor)
    own = standin_s() - own
    sender.join()
    if curve[-1][0] < len(paths):
        curve.append((len(paths), memory_mib(node)))
    return Through(spent, own / len(paths), taker, curve, sender)


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
        for each in made[kind]:
            save_result(each, folder / "result.dcm")

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
    if asked.images < 96:
        parser.error("--images: 96 at least, or predict does not come to run evenly")
    tune_process()  # as the command line does
    with tempfile.TemporaryDirectory(dir=asked.scratch) as name:
        folder = Path(name)
        (folder / "images").mkdir()
        weights = str(make_full_size(folder / "full")) if asked.full_size else asked.weights
        paths = write_images(folder / "images", asked.images)
        alone = time_predict(paths, asked.labels.split(","), weights)
        node = run_node(paths, asked, weights, folder)
    through, curve, sender = node.spent, node.curve, node.sender
    ratio = (alone.seconds / alone.images) / (through.seconds / through.images)
    share = (alone.processor / alone.images) / (through.processor / through.images)
    named = "weights of full size" if asked.full_size else f"weights {asked.weights}"
    print(f"n = {asked.images}, labels {asked.labels}, kinds {asked.kinds}, {named}, {os.cpu_count()} cores")
    print(f"predict: {alone}")
    print(f"node:    {through}; {ratio:.2f} of predict by the clock, {share:.2f} by processor time")
    print(f"stand-in for the PACS ({node.taker}): {node.standin_s:.3f} s of processor time an image")
    received = 60 * asked.images / sender.seconds
    print(f"sent: {received:.0f} images a minute, slowest answer {sender.slowest_s:.1f} s, {sender.again} times again")
    middle = min(curve, key=lambda each: abs(each[0] - asked.images / 2))
    most = max(mib for _, mib in curve)
    ends = f"{curve[0][1]:.0f} at the start, {middle[1]:.0f} in the middle, {curve[-1][1]:.0f} at the end"
    print(f"memory of the node, MiB: {ends}, {most:.0f} at most; after so many images:")
    print("  " + ", ".join(f"{done}: {mib:.0f}" for done, mib in curve))


if __name__ == "__main__":
    main()
