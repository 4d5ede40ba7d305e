"""Memory and time of the alignment's forward and backward pass at full size, all pairs at once against tiles.

    python benchmarks/alignment_memory.py [--pairs 16 64 256] [--tile-pairs 256] [--repeats 3] [--plain-up-to 64]
        [--kind simr]

Weights are random, of the released size: width 768, 4 layers, 196 patches, 97 word positions, float32. Every
measurement is a process of its own. Memory is the highest resident size less that before the pass, when model and
features are there already. Times are medians of runs taken in turns. Plain, `simr` would take some 36 GiB at 256 pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch

from carzero.model import AlignmentOutput, CARZeroConfig, ImageFeatures, TextFeatures
from carzero.model.alignment import ALIGNMENTS, find_alignment

WIDTH, PATCHES, WORDS = 768, 196, 97


def resident_mib(field: str) -> float:
    """VmRSS (now) or VmHWM (highest) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}: this benchmark needs Linux.")


def run_pass(kind: str, pairs: int, tile_pairs: int | None) -> dict[str, float]:
    """One forward and backward pass."""
    torch.manual_seed(0)
    alignment = find_alignment(kind)(CARZeroConfig(alignment=kind)).train()
    alignment.reset_parameters()
    images = ImageFeatures(
        torch.randn(pairs, WIDTH, requires_grad=True), torch.randn(pairs, PATCHES, WIDTH, requires_grad=True), (14, 14)
    )
    texts = TextFeatures(
        torch.randn(pairs, WIDTH, requires_grad=True), torch.randn(pairs, WORDS, WIDTH, requires_grad=True)
    )
    few = ImageFeatures(images.pooled[:2].detach(), images.local[:2].detach(), (14, 14))
    alignment.score_both(few, texts.select(torch.arange(2)))  # libraries set themselves up outside the measurement
    Path("/proc/self/clear_refs").write_text("5")  # the highest size starts anew
    base, started = resident_mib("VmRSS"), time.perf_counter()
    output = AlignmentOutput.join(*alignment.score_both(images, texts, tile_pairs=tile_pairs))
    alignment.loss(output).backward()
    return {"seconds": time.perf_counter() - started, "mib": resident_mib("VmHWM") - base}


def measure(kind: str, pairs: int, tile_pairs: int | None) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--kind", kind, "--one", str(pairs), str(tile_pairs or 0)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", type=int, default=[16, 64, 256])
    parser.add_argument("--tile-pairs", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain-up-to", type=int, default=64)
    parser.add_argument("--kind", choices=list(ALIGNMENTS), default="simr")
    parser.add_argument("--one", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_pass(options.kind, options.one[0], options.one[1] or None)))
        return
    rows = []
    for pairs in options.pairs:
        found: dict[str, list[dict[str, float]]] = {"plain": [], "tiled": []}
        for _ in range(options.repeats if pairs <= options.plain_up_to else 1):
            if pairs <= options.plain_up_to:
                found["plain"].append(measure(options.kind, pairs, None))
            found["tiled"].append(measure(options.kind, pairs, options.tile_pairs))
        row: dict[str, object] = {"pairs": pairs}
        for name, runs in found.items():
            if runs:
                row[f"{name} MiB"] = round(statistics.median(run["mib"] for run in runs))
                row[f"{name} s"] = round(statistics.median(run["seconds"] for run in runs), 2)
        if found["plain"]:
            row["memory, plain / tiled"] = round(float(row["plain MiB"]) / float(row["tiled MiB"]), 1)
            row["time, tiled / plain"] = round(float(row["tiled s"]) / float(row["plain s"]), 2)
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    machine = f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32"
    print(f"{options.kind}, {machine}, tiles of {options.tile_pairs} pairs")
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
