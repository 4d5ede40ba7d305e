"""Tiny training runs: recipes, tables and the real command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from carzero.training.progress import StepRecord
from tests.support.commands import ENVIRONMENT, PATIENCE_S, ROOT, carzero_command, run_program, start, wait_until
from tests.support.released import FIXTURES
from tests.support.tiny import save_images

TOLERANCE = 1e-6  # largest difference of two processes from one, in float64; measured: some 1e-16
IMAGES = sorted((FIXTURES / "images").glob("*.png"))
EFFUSION = [0, 2, 5]  # an arbitrary truth that nothing but the images can tell
TOWER = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def tiny_recipe(**changes: Any) -> dict[str, Any]:
    """A recipe that trains in seconds; what `changes` names is replaced, whole sections at a time."""
    recipe: dict[str, Any] = {
        "name": "tiny",
        "model": {
            "vision": {"config": {**TOWER, "patch_size": 8}},
            "text": {"config": TOWER, "tokenizer": str(FIXTURES / "vocab.txt")},
            "fields": {
                "max_text_length": 16,
                "summed_text_layers": 1,
                "decoder_layers": 1,
                "decoder_heads": 2,
                "decoder_ffn_dim": 64,
                "score_head": "linear",
                "dropout": 0.0,
            },
        },
        "pixels": {"resize_px": 32, "crop_px": 32, "rotation_degrees": 0, "shift": 0, "scale": [1, 1]},
        "optimiser": {"steps": 80, "batch_size": 6, "lr": 3.0e-3},
        "evaluate_every": 40,
    }
    return {**recipe, **changes}


FINDINGS = {
    "sentences": {"effusion": ["pleural effusion"], "normal": {"present": ["There is no finding"]}},
    "sources": {"films": {"share": 1, "judged": ["effusion", "normal"]}},
    "loss": {"sigmoid": 0.5},
    "best_by": "auroc",
}


def save_recipe(path: Path, recipe: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(recipe)))
    return path


def save_findings_table(path: Path) -> Path:
    """The fixtures' six images with labels, in training and validation."""
    rows = ["image,source,split,patient_id,present,absent,boxes"]
    for split in ("train", "val"):
        folder = path.parent / split
        folder.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(IMAGES):
            present, absent = ("effusion", "normal") if index in EFFUSION else ("normal", "effusion")
            copied = folder / image.name
            copied.write_bytes(image.read_bytes())
            boxes = '"{""effusion"": [[2, 2, 20, 20]]}"' if present == "effusion" else ""
            rows.append(f"{copied},films,{split},,{present},{absent},{boxes}")
    path.write_text("\n".join(rows) + "\n")
    return path


def save_reports_table(path: Path, count: int = 16) -> Path:
    """Synthetic images, each with a report of two sentences; every third also in validation."""
    places = ["left upper lobe", "left lower lobe", "right upper lobe", "right lower lobe", "lingula", "right apex"]
    kinds = ["nodule", "consolidation", "opacity"]
    rows = []
    for split, number in (("train", count), ("val", count // 2)):
        for index, film in enumerate(save_images(path.parent / split, number, side_px=96)):
            sentence = f"There is a {kinds[index % 3]} in the {places[index // 3 % 6]}."
            row = {"image": str(film), "text": f"{sentence} The heart is normal.", "split": split}
            rows.append({**row, "patient_id": f"{split}{index}"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train_command(recipe: Path, table: Path, out: Path, *more: str) -> list[str]:
    return carzero_command("train", recipe, "--table", table, "-o", out, *more)


def torchrun(*arguments: object) -> None:
    """Runs a program in two processes that know of each other."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    done = run_program(command, folder=ROOT, env={**ENVIRONMENT, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"})
    assert done.returncode == 0, done.stderr


def stop_at(command: Sequence[str], out: Path, step: int, number: signal.Signals) -> subprocess.Popen[str]:
    """Sends a signal to a training command that stands still at a step until the signal is there."""
    release = out.with_name(f"{out.name}.release")
    release.unlink(missing_ok=True)
    held = [sys.executable, "-m", "tests.support.held_training", step, release, *command[3:]]
    process = start(held, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    log = out / "log.jsonl"
    wait_until(lambda: log.is_file() and len(log.read_text().splitlines()) >= step, process)
    process.send_signal(number)
    release.touch()
    process.wait(PATIENCE_S)
    return process


class Records(list[dict[str, Any]]):
    """What a run tells its observer of its steps, as the log says it, and what it says besides."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def add_record(self, record: StepRecord) -> None:
        self.append(record.to_dict())

    def count_encoded(self, done: int, total: int) -> None:
        self.encoded = (done, total)

    def count_images(self, done: int, total: int) -> None:
        assert 0 < done <= total

    def say(self, text: str) -> None:
        self.said.append(text)


def read_log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
