"""Times exported weights beside the torch model, tensors already in memory.

    python benchmarks/exported_speed.py WEIGHTS [--folders EXPORTED...] [--batch 8] [--rounds 5]

WEIGHTS and every exported folder score one batch of random pixel values against the 14 prompts of chestxray14, encoded
beforehand. The contestants take turns, so that a drift of the machine meets them all, and the median of the rounds is
printed in images/s. `carzero export` makes the folders; for full-size weights see convert_full_size.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from carzero.inference.backends import load_backend
from carzero.prompts import PromptSet, resolve_prompts
from carzero.weights.source import WeightsSource


def main() -> None:
    """Prints one line of JSON for each contestant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("--folders", nargs="*", default=[], type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    processor = WeightsSource(options.weights).load_processor()
    prompts = PromptSet.from_request(None, resolve_prompts("chestxray14"))
    side = processor.image_processor.crop_px
    pixels = torch.randn(options.batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    asked = [
        (options.weights, "float32"),
        (options.weights, "bfloat16"),
        *((folder, "auto") for folder in options.folders),
    ]
    contestants = {}
    for weights, dtype in asked:
        backend = load_backend(WeightsSource(weights), device="cpu", dtype=dtype)
        bank = backend.encode_prompts(processor, prompts)
        backend.score(pixels, bank)  # compiles, and fills caches
        contestants[f"{backend.name} {backend.dtype}"] = (backend, bank)
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, (backend, bank) in contestants.items():
            start = time.perf_counter()
            backend.score(pixels, bank)
            seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        rates = sorted(options.batch / each for each in times)
        line = {
            "contestant": name,
            "images_per_s": round(statistics.median(rates), 2),
            "lowest": round(rates[0], 2),
            "highest": round(rates[-1], 2),
            "batch": options.batch,
            "prompts": len(prompts),
            "threads": torch.get_num_threads(),
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main()
