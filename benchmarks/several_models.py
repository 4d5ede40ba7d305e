"""Four kinds of model on the 247 NIH test images in one command: simr, cosine, similarity_map and a SigLIP.

    python benchmarks/several_models.py DATA OUT

DATA is the folder with `nih/labels.csv` and `nih/images`, as in docs/demo-weights.md. simr is the demo; the others are
tiny models with random weights, so what is shown is that they stand behind one door, and what chance looks like.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from recipes.demo.build_table import split_of

from carzero.datasets.chestxray14 import LABELS
from tests.support.dual import save_siglip
from tests.support.tiny import save_tiny_weights


def write_list(data: Path, out: Path) -> Path:
    """The test images of the demo, in the form of the released list: a path and fourteen 0 or 1 a line."""
    lines = []
    with (data / "nih" / "labels.csv").open(encoding="utf-8") as file:
        for record in csv.DictReader(file):
            test = record["split"] == "valid" or split_of(record["patient_id"]) == "test"
            if test:
                present = record["labels"].split("|")
                lines.append(" ".join([record["image"], *("1" if label in present else "0" for label in LABELS)]))
    path = out / "test_list.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def main(data: Path, out: Path) -> None:
    """Builds the tiny models, and runs the command."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {
        "cosine-random": lambda folder: save_tiny_weights(folder, alignment="cosine"),
        "similarity_map-random": lambda folder: save_tiny_weights(folder, alignment="similarity_map"),
        "siglip-random": save_siglip,
    }
    for name, save in weights.items():
        save(out / name)
    named = [option for name in ("demo", *(str(out / name) for name in weights)) for option in ("--weights", name)]
    command = [
        *(sys.executable, "-m", "carzero", "benchmark", "chestxray14"),
        *("--images", str(data / "nih" / "images"), "--labels", str(write_list(data, out)), "--allow-missing"),
        *(*named, "--normal", "max", "--out", str(out / "comparison"), "--overwrite"),
    ]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
