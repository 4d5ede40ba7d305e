"""Images a minute through the node beside `carzero predict` on the same images, and the node's memory on the way.

    python benchmarks/node_throughput.py --images 1000 --labels pneumonia,"pleural effusion" --kinds sr,sc

The images are the bundled radiograph under new identifiers (JPEG 2000, 1955 x 1841). They are sent to a real node by
C-STORE, one association for ten images; its results go to a receiver in this process, which counts and drops them. The
clock of the node runs from the first image sent, weights loaded, to the last result; that of `predict` from its first
batch to its last.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    ComputedRadiographyImageStorage,
    EncapsulatedPDFStorage,
    SecondaryCaptureImageStorage,
)

from carzero.images.listing import list_images
from carzero.inference.scoring import ScoringRun, ScoringSettings
from carzero.prompts import PromptSet
from carzero.weights.source import WeightsSource, example_film

JPEG_2000 = "1.2.840.10008.1.2.4.91"


def write_images(folder: Path, count: int) -> list[Path]:
    """Copies of the bundled radiograph under new identifiers."""
    image = dcmread(example_film())
    paths = []
    for number in range(1, count + 1):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.7.{number}"
        image.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.8.{number}"
        image.SeriesInstanceUID = f"1.2.826.0.1.3680043.8.498.9.{number}"
        paths.append(folder / f"{number:05d}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


def time_predict(paths: list[Path], labels: list[str]) -> float:
    """Seconds from the first batch of `predict` to its end, scaled to all images."""
    settings = ScoringSettings(weights=WeightsSource("demo"), prompts=PromptSet.from_labels(labels), device="cpu")
    marks: list[tuple[int, float]] = []
    ScoringRun(list_images(paths), settings).execute(lambda done, failed: marks.append((done, time.perf_counter())))
    (first, begun), (last, ended) = marks[0], marks[-1]
    return (ended - begun) * len(paths) / max(1, last - first)


class Sink:
    """A receiver that counts results by their image, and forgets them."""

    def __init__(self) -> None:
        self.studies: dict[str, int] = {}
        ae = AE(ae_title="SINK")
        for each in (Comprehensive3DSRStorage, SecondaryCaptureImageStorage, EncapsulatedPDFStorage):
            ae.add_supported_context(each)
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self.count)])
        self.port = self.server.server_address[1]

    def count(self, event: evt.Event) -> int:
        """Answers success."""
        study = str(event.dataset.StudyInstanceUID)
        self.studies[study] = self.studies.get(study, 0) + 1
        return 0


def memory_mib(process: int) -> float:
    """Resident memory of a process and its children, in MiB."""
    own = {process}
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    own |= {child for child, parent in parents.items() if parent in own}
    pages = 0
    for each in own:
        try:
            pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * 4096 / 2**20


def send(paths: list[Path], port: int) -> None:
    """Stores the images, ten an association."""
    for start in range(0, len(paths), 10):
        ae = AE(ae_title="BENCH")
        ae.add_requested_context(ComputedRadiographyImageStorage, JPEG_2000)
        association = ae.associate("127.0.0.1", port, ae_title="CARZERO")
        for path in paths[start : start + 10]:
            status = association.send_c_store(dcmread(path)).Status
            if status != 0:
                raise RuntimeError(f"the node answered 0x{status:04X}")
        association.release()


def run_node(paths: list[Path], labels: str, kinds: str, folder: Path) -> tuple[float, list[tuple[int, float]]]:
    """Seconds for all images through the node, and its memory after so many images."""
    sink, log = Sink(), folder / "node.log"
    command = [sys.executable, "-m", "carzero", "dicom", "node", "--spool", folder / "spool", "--port", 0]
    command += ["--host", "127.0.0.1", "--forward", f"SINK@127.0.0.1:{sink.port}", "--labels", labels]
    command += ["--kinds", kinds, "--device", "cpu", "--keep-hours", 0]
    with log.open("w") as file:
        node = subprocess.Popen(list(map(str, command)), stderr=file)
    try:
        port = wait_for(log, node, "listening")["port"]
        wait_for(log, node, "ready")
        sender = threading.Thread(target=send, args=(paths, port))
        begun = time.perf_counter()
        sender.start()
        curve: list[tuple[int, float]] = []
        step = max(1, len(paths) // 20)
        while len(sink.studies) < len(paths):
            if node.poll() is not None:
                raise RuntimeError(log.read_text()[-2000:])
            if len(sink.studies) >= step * (len(curve) + 1):
                curve.append((len(sink.studies), memory_mib(node.pid)))
            time.sleep(0.05)
        elapsed = time.perf_counter() - begun
        sender.join()
        curve.append((len(sink.studies), memory_mib(node.pid)))
        return elapsed, curve
    finally:
        node.terminate()
        node.wait()
        sink.server.shutdown()


def wait_for(log: Path, node: subprocess.Popen[bytes], event: str) -> dict[str, object]:
    """The first line of the node's log with this event."""
    while node.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith("{") and json.loads(line)["event"] == event:
                return dict(json.loads(line))
        time.sleep(0.1)
    raise RuntimeError(log.read_text()[-2000:])


def main() -> None:
    """Prints both speeds and the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--labels", default="pneumonia,pleural effusion")
    parser.add_argument("--kinds", default="sr,sc")
    parser.add_argument("--scratch", type=Path, help="a folder on a disk with room: about 1 MB an image")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.scratch) as name:
        folder = Path(name)
        (folder / "images").mkdir()
        paths = write_images(folder / "images", asked.images)
        alone = time_predict(paths, asked.labels.split(","))
        through, curve = run_node(paths, asked.labels, asked.kinds, folder)
    print(f"n = {asked.images}, labels {asked.labels}, kinds {asked.kinds}, demo weights")
    print(f"predict: {60 * asked.images / alone:.0f} images a minute")
    print(f"node:    {60 * asked.images / through:.0f} images a minute, {alone / through:.2f} of predict")
    print("memory of the node, MiB: " + ", ".join(f"{done}: {mib:.0f}" for done, mib in curve))


if __name__ == "__main__":
    main()
