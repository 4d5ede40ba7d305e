"""Converts a checkpoint of the released model's full size and prints the seconds and the memory that it took.

    python benchmarks/convert_full_size.py [--keep DIR]

The checkpoint holds the test suite's formula weights in the released layout: 12 ViT blocks, 12 BERT layers, the whole
alignment decoder; about 880 MB. `--keep` leaves the checkpoint and the converted folder there (and reuses the former).
The conversion runs in a process of its own, whose peak resident memory is what is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.checkpoint_files import save_released
from tests.support.released import FIXTURES, load_meta, released_state_dict

FULL_DEPTH = 12
REPEATED = ("img_encoder.model.blocks.", "text_encoder.model.encoder.layer.")


def full_size_parameters() -> dict[str, list[int]]:
    """Names and shapes of the released model: the fixture's, with the second block and layer repeated to 12."""
    parameters: dict[str, list[int]] = {}
    for name, shape in load_meta("mlp_head")["parameters"].items():
        parameters[name] = shape
        for prefix in REPEATED:
            if name.startswith(f"{prefix}1."):
                rest = name.removeprefix(f"{prefix}1.")
                parameters.update({f"{prefix}{n}.{rest}": shape for n in range(2, FULL_DEPTH)})
    return parameters


def convert(checkpoint: Path, out: Path) -> tuple[float, float]:
    """Runs `carzero convert` and returns wall-clock seconds and peak memory in MB (10^6 bytes)."""
    command = [sys.executable, "-m", "carzero.cli.main", "convert", str(checkpoint), str(out), "--overwrite"]
    command += ["--tokenizer", str(FIXTURES / "vocab.txt")]
    start = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    seconds = time.perf_counter() - start
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return seconds, kilobytes * 1024 / 1e6


def main() -> None:
    """Builds the checkpoint if need be, converts it, prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder for the checkpoint and the converted weights")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / "full_size.ckpt"
        if not checkpoint.exists():
            save_released(checkpoint, released_state_dict(full_size_parameters(), seed=0))
        seconds, peak_mb = convert(checkpoint, folder / "weights")
        result = {
            "checkpoint_mb": round(checkpoint.stat().st_size / 1e6),
            "seconds": round(seconds, 1),
            "peak_mb": round(peak_mb),
            "torch": torch.__version__,
            "cpus": os.cpu_count(),
        }
        sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
