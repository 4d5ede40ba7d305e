"""Peak memory of `carzero predict` over runs of different length, at full size with the 192 prompts of PadChest.

    python benchmarks/memory_over_time.py [--weights DIR] [--films DIR] [--images 1000 10000] [--dtype bfloat16]

Runs the real command on folders whose files are hard links to the same images (`../shared/data/nih`, or --films) under
other names, and prints each run's peak resident memory (of the command, and of its largest reading process), its
seconds, and how much the longest run adds to the shortest one's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from end_to_end import find_weights

COMMAND = """
import json, os, resource, sys
from carzero.cli.main import run
try:
    run()
except SystemExit as end:
    code = end.code
peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
open(os.environ["PEAKS"], "w").write(json.dumps(peaks))
sys.exit(code)
"""


def link_films(films: Path, folder: Path, count: int) -> None:
    """Fills a folder with so many names for the images' files."""
    folder.mkdir()
    sources = sorted(films.iterdir())
    copies = folder.parent / "films"  # hard links need one file system
    copies.mkdir(exist_ok=True)
    for number in range(count):
        source = sources[number % len(sources)]
        copy = copies / source.name
        if not copy.exists():
            copy.write_bytes(source.read_bytes())
        os.link(copy, folder / f"{number:06d}{source.suffix}")


def run_command(weights: Path, folder: Path, dtype: str) -> tuple[int, int, float, int]:
    """Peak kilobytes of the command and of its largest child, seconds, and rows written."""
    out = folder.with_suffix(".parquet")
    arguments = ["predict", folder, "--prompts", "padchest192", "--weights", weights, "--out", out, "--dtype", dtype]
    peaks = folder.with_suffix(".peaks")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PEAKS": str(peaks)}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", COMMAND, *map(str, arguments)], check=True, env=environment)
    seconds = time.perf_counter() - start
    own, readers = json.loads(peaks.read_text())
    scored = json.loads(Path(f"{out}.manifest.json").read_text())["scored"]
    return own, readers, seconds, scored


def main() -> None:
    """Runs the command on each folder and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="full-size weights; convert_full_size.py --keep DIR makes them")
    films = Path(__file__).parents[2] / "shared" / "data" / "nih" / "images"
    parser.add_argument("--films", type=Path, default=films)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        weights = find_weights(options.weights, Path(temporary))
        print("| images | peak of the command, MB | peak of a reading process, MB | seconds |\n" + "|---" * 4 + "|")
        for count in options.images:
            folder = Path(temporary) / f"run{count}"
            link_films(options.films, folder, count)
            own, readers, seconds, scored = run_command(weights, folder, options.dtype)
            found.append(own)
            print(f"| {scored} | {own * 1024 / 1e6:.0f} | {readers * 1024 / 1e6:.0f} | {seconds:.0f} |", flush=True)
    print(f"the longest run's peak is {found[-1] / found[0] - 1:+.1%} of the shortest one's")


if __name__ == "__main__":
    main()
