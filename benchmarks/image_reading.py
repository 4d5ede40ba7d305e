"""What reading an image costs a process that keeps freed memory, as readers do, and one that gives it back.

    python benchmarks/image_reading.py IMAGE... --images 50

Each process reads the images in turn, down to the model's crop and a thumbnail; without IMAGE, the bundled radiograph
(JPEG 2000, 1955 x 1841). Prints the processor time of the user and of the system and the page faults of an image, and
the peak memory.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import subprocess
import sys

from carzero.core.system import keep_freed_memory
from carzero.core.workers import KEPT
from carzero.images.listing import list_images
from carzero.images.loading import load_item
from carzero.weights.source import WeightsSource, example_film

_FIRST = 5  # images that fill the memory


def read(paths: list[str], count: int) -> str:
    """Reads images in this process, and says what each of them took."""
    items, transform = itertools.cycle(list_images(paths)), WeightsSource("demo").pixels
    for item in itertools.islice(items, _FIRST):
        load_item(item, transform, False, True, 420)
    before = resource.getrusage(resource.RUSAGE_SELF)
    for item in itertools.islice(items, count):
        load_item(item, transform, False, True, 420)
    after = resource.getrusage(resource.RUSAGE_SELF)
    user, system = (1000 * (getattr(after, name) - getattr(before, name)) / count for name in ("ru_utime", "ru_stime"))
    faults = (after.ru_minflt - before.ru_minflt) / count
    return (
        f"{user:.1f} ms user, {system:.1f} ms system, {faults:.0f} page faults; peak {after.ru_maxrss / 1024:.0f} MiB"
    )


def main() -> None:
    """Prints both, in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="*", default=[str(example_film())])
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kept", choices=("yes", "no"), help=argparse.SUPPRESS)  # in a process of its own
    asked = parser.parse_args()
    if asked.kept is not None:
        if asked.kept == "yes":
            keep_freed_memory(KEPT)
        print(read(asked.image, asked.images))
        return
    for _ in range(asked.rounds):
        for kept, name in (("no", "given back"), ("yes", "kept")):
            command = [sys.executable, __file__, *asked.image, "--images", str(asked.images), "--kept", kept]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"{name:>10}: {done.stdout.strip()}")


if __name__ == "__main__":
    main()
