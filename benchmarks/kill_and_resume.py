"""Kills predict, ground, reports align and train at random moments, resumes them, and compares with runs left alone.

    python benchmarks/kill_and_resume.py --kills 20 --seed 1 --out kills.json

Each command is started with --resume again and again in one output; each start but the last is ended by SIGKILL after a
time drawn evenly between nothing and what a run takes that is left alone, so that it dies in imports, in the work and
at its end. An output that is finished before the kill is compared, and the next start begins a new one. What must be
equal: every file, byte for byte, but for dates and speeds, and no file more.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

import carzero

_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
_DATED = ("date", "images_per_s", "carzero_version")
_IMAGES, _REPORTS, _STEPS = 24, 12_000, 60
_TOWER = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


@dataclass(frozen=True, slots=True)
class Case:
    """A command under test: its arguments but for the output, and the output's name in a folder of its own."""

    name: str
    arguments: Sequence[str]
    out: str

    def command(self, folder: Path) -> list[str]:
        """The command line that writes below `folder`, or resumes what is there."""
        return [sys.executable, "-m", "carzero", *self.arguments, "--out", str(folder / self.out), "--resume"]


def write_images(folder: Path) -> None:
    """Images that differ: the bundled radiograph, shifted."""
    grey = np.asarray(Image.fromarray(carzero.load_radiograph(carzero.example_film()).pixels).resize((320, 320)))
    folder.mkdir()
    for number in range(_IMAGES):
        shifted = np.roll(grey, (3 * number, -2 * number), (0, 1)).round().astype(np.uint8)
        Image.fromarray(shifted).save(folder / f"image {number:03d}.png")


def write_reports(path: Path) -> None:
    """Reports of two sentences each, in JSON lines."""
    places = ("left lower lobe", "right upper lobe", "lingula", "right apex", "left hilum")
    kinds = ("opacity", "nodule", "consolidation", "mass")
    with path.open("w", encoding="utf-8") as file:
        for number in range(_REPORTS):
            text = (
                f"There is a {kinds[number % 4]} in the {places[number // 4 % 5]}. No pleural effusion, case {number}."
            )
            file.write(json.dumps({"report_id": f"r{number}", "text": text}) + "\n")


def write_training(folder: Path, images: Path) -> tuple[Path, Path]:
    """A recipe of a tiny model, and its table."""
    recipe = {
        "name": "killed",
        "model": {
            "vision": {"config": {**_TOWER, "patch_size": 8}},
            "text": {"config": _TOWER, "tokenizer": str(Path(carzero.__file__).parent / "assets" / "demo")},
            "fields": {
                "max_text_length": 16,
                "summed_text_layers": 1,
                "decoder_layers": 1,
                "decoder_heads": 2,
                "decoder_ffn_dim": 64,
                "score_head": "linear",
                "dropout": 0.2,
            },
        },
        "pixels": {"resize_px": 40, "crop_px": 32, "flip": 0.5},
        "optimiser": {"steps": _STEPS, "batch_size": 4, "lr": 1.0e-3, "average": 0.9},
        "evaluate_every": 10,
        "checkpoint_every": 7,
        "keep": "best",
    }
    rows = [
        {
            "image": str(image),
            "text": f"There is an opacity, kind {number % 7}. The heart is normal.",
            "split": "val" if number % 3 == 0 else "train",
            "patient_id": f"p{number}",
        }
        for number, image in enumerate(sorted(images.iterdir()))
    ]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "recipe.yaml", folder / "pairs.jsonl"


def build_cases(folder: Path) -> list[Case]:
    """The four commands, with their inputs written."""
    images, reports = folder / "images", folder / "reports.jsonl"
    write_images(images)
    write_reports(reports)
    recipe, table = write_training(folder, images)
    asked = [str(images), "--labels", "pneumonia,pleural effusion", "--batch-size", "1"]
    return [
        Case("predict", ["predict", *asked], "scores.csv"),
        Case("ground", ["ground", *asked], "maps"),
        Case("reports align", ["reports", "align", str(reports), "--jobs", "1"], "aligned.jsonl"),
        Case("train", ["train", str(recipe), "--table", str(table)], "run"),
    ]


def read_output(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its name, without dates and speeds; logs of steps and locks left out or plain."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.name == ".lock":
            continue
        content = path.read_bytes()
        if path.suffix in (".json", ".jsonl") and path.name != "aligned.jsonl":
            lines = [content] if path.suffix == ".json" else content.splitlines()
            content = json.dumps([_undated(json.loads(line)) for line in lines]).encode()
        elif path.name == "README.md":
            content = b"".join(line for line in content.splitlines(keepends=True) if b"images_per_s" not in line)
        elif path.name.startswith("step-"):
            continue  # a checkpoint holds when it was written; the weights are compared
        files[name] = content
    return files


def _undated(value: object) -> object:
    if isinstance(value, dict):
        return {name: _undated(part) for name, part in value.items() if name not in _DATED}
    return [_undated(part) for part in value] if isinstance(value, list) else value


def run_whole(command: Sequence[str]) -> None:
    """Runs a command to its end.

    Raises:
        RuntimeError: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=_ENVIRONMENT, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")


def is_killed(command: Sequence[str], after_s: float) -> bool:
    """Starts a command and kills it after a time; False where it had ended before.

    Raises:
        RuntimeError: it ended before and failed.
    """
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_ENVIRONMENT) as process:
        try:
            _, stderr = process.communicate(timeout=after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {stderr.decode()[-2000:]}")
    return False


def find_differences(folder: Path, whole: dict[str, bytes]) -> list[str]:
    """Names of files that one output has and the other lacks, or that differ."""
    found = read_output(folder)
    return sorted(name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name))


def kill_case(
    case: Case, folder: Path, kills: int, draw: random.Random, say: Callable[[str], None]
) -> dict[str, object]:
    """Kills a command so often, and compares every output that comes to its end."""
    whole_folder = folder / f"{case.out} whole"
    whole_folder.mkdir()
    started = time.monotonic()
    run_whole(case.command(whole_folder))
    duration = time.monotonic() - started
    whole, killed, outputs, differing = read_output(whole_folder), 0, 0, []
    moments: list[float] = []
    while killed < kills:
        outputs += 1
        at = folder / f"{case.out} {outputs}"
        at.mkdir()
        while killed < kills:
            moment = draw.uniform(0, duration)
            if not is_killed(case.command(at), moment):
                break
            killed += 1
            moments.append(round(moment, 2))
            say(f"{case.name}: kill {killed} of {kills} after {moment:.1f} s")
        run_whole(case.command(at))
        if names := find_differences(at, whole):
            differing.append({"output": outputs, "files": names[:10]})
        say(f"{case.name}: output {outputs} {'differs' if names else 'is equal'}")
        shutil.rmtree(at)
    return {
        "command": case.name,
        "seconds_whole": round(duration, 1),
        "kills": killed,
        "moments_s": moments,
        "outputs": outputs,
        "files_compared": len(whole),
        "different": differing,
    }


def main() -> None:
    """Runs what is asked for; exit code 1 where an output differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", help="one command alone: predict, ground, reports align or train")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    asked = parser.parse_args()
    draw = random.Random(asked.seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        cases = [case for case in build_cases(Path(folder)) if asked.only in (None, case.name)]
        results = [
            kill_case(case, Path(folder), asked.kills, draw, lambda text: print(text, file=sys.stderr, flush=True))
            for case in cases
        ]
    content = {
        "seed": asked.seed,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "carzero": carzero.__version__,
        "results": results,
    }
    text = json.dumps(content, indent=2) + "\n"
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")
    print(text, end="")
    sys.exit(any(result["different"] for result in results))


if __name__ == "__main__":
    main()
