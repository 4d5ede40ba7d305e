"""Images a second of the service under many clients beside `carzero predict`, on the same images in the same minutes.

    python benchmarks/service_throughput.py [--images 240] [--clients 16] [--rounds 3] [--weights demo]

The images are PNG files of the bundled radiograph at its full size, each darkened a little differently, so that all
are read in full. Each round times both in turns. The command is timed on all images and on 16 of them, and what the
first takes longer is counted: starting and loading are left out, as the service is started and asked once before.
A client is a thread with one connection that sends an image a request. Figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import local

import httpx
import numpy as np
from PIL import Image

import carzero
from carzero.core.system import count_cores, read_processor

LABELS = ("pneumonia", "pleural effusion", "atelectasis", "edema", "infiltration")
FEW = 16
PATIENCE_S = 3600


def make_images(folder: Path, count: int) -> list[Path]:
    """Images of clinical size, no two the same."""
    levels = carzero.load_radiograph(carzero.example_film()).pixels
    paths = []
    for number in range(count):
        path = folder / f"{number:04d}.png"
        Image.fromarray(np.rint(levels * (1 - number / (4 * count))).astype(np.uint8)).save(path, compress_level=1)
        paths.append(path)
    return paths


def time_command(images: list[Path], weights: str, folder: Path) -> float:
    """Seconds of `carzero predict` over images."""
    lists = folder / "list.csv"
    lists.write_text("path\n" + "".join(f"{path}\n" for path in images))
    out = folder / "scores.csv"
    command = [sys.executable, "-m", "carzero", "predict", lists, "-w", weights, "-l", ",".join(LABELS)]
    began = time.perf_counter()
    subprocess.run([*map(str, command), "--out", str(out), "--overwrite"], check=True, capture_output=True)
    return time.perf_counter() - began


@contextmanager
def running(weights: str) -> Iterator[str]:
    """The address of a service that is ready."""
    command = [sys.executable, "-m", "carzero", "serve", "--port", "0", "-w", weights]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None  # noqa: S101 (it is a pipe)
        url = process.stdout.readline().split()[-1]
        while httpx.get(f"{url}readyz").status_code != httpx.codes.OK:
            time.sleep(0.2)
        try:
            yield url
        finally:
            process.terminate()


def ask(own: local, url: str, image: Path) -> None:
    """One request of one client, which keeps its connection."""
    if not hasattr(own, "client"):
        own.client = httpx.Client(timeout=PATIENCE_S)
    files = [("images", (image.name, image.read_bytes()))]
    own.client.post(f"{url}v1/predict", files=files, data={"labels": LABELS}).raise_for_status()


def time_service(url: str, images: list[Path], clients: int) -> float:
    """Seconds until all clients together have all images scored."""
    with ThreadPoolExecutor(clients) as threads:
        began = time.perf_counter()
        list(threads.map(partial(ask, local(), url), images))
        return time.perf_counter() - began


def main() -> None:
    """Measures, and prints a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", default="demo")
    asked = parser.parse_args()
    command, service = [], []
    with tempfile.TemporaryDirectory() as name, running(asked.weights) as url:
        folder = Path(name)
        images = make_images(folder, asked.images)
        time_service(url, images[:FEW], asked.clients)
        for _ in range(asked.rounds):
            few, every = (time_command(part, asked.weights, folder) for part in (images[:FEW], images))
            command.append((asked.images - FEW) / (every - few))
            service.append(asked.images / time_service(url, images, asked.clients))
    found = {
        "images": asked.images,
        "clients": asked.clients,
        "rounds": asked.rounds,
        "weights": asked.weights,
        "cores": count_cores(),
        "processor": read_processor()[0],
        "predict_images_s": round(statistics.median(command), 2),
        "service_images_s": round(statistics.median(service), 2),
        "ratio": round(statistics.median(b / a for a, b in zip(command, service, strict=True)), 3),
        "ratios": [round(b / a, 3) for a, b in zip(command, service, strict=True)],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
