"""Folders: score parts, training runs, tokenizers, reader studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.fuzz.mutate import Files
from tests.fuzz.seeds import written

_LABELS = ["edema", "mass"]
_RECORD: dict[str, object] = {"weights_sha256": "ab", "images": 3, "part_size": 2}
_RUN: dict[str, Any] = {"recipe": {"name": "a", "seed": 0}, "table_sha256": "ab", "processes": 1}


def _open_parts(folder: Path, **options: bool) -> Any:
    from carzero.inference.ray.score_folder import open_score_folder

    return open_score_folder(folder, _RECORD, _LABELS, **{"resume": False, "overwrite": False, **options})


def parts() -> list[Files]:
    """A score table in parts, finished; and one under work."""
    from carzero.inference.score_table import KEY_COLUMNS

    def row(name: str) -> dict[str, object]:
        keys = {**dict.fromkeys(KEY_COLUMNS, ""), "image_id": name, "path": f"{name}.png"}
        return {**keys, **{f"logit:{label}": 0.25 for label in _LABELS}, "warnings": ""}

    def write(folder: Path) -> None:
        opened = _open_parts(folder)
        opened.save_part(0, [row("a"), row("b")], [])
        opened.save_part(1, [], [{"image_id": "c", "path": "c.png", "reason": "broken"}])
        opened.finish({**_RECORD, "weights": "demo"})

    notes = [{"host": "a", "pid": 1}, {"begun": "d"}, {"row": row("d")}, {"begun": "e"}]
    lines = b"".join(json.dumps(note).encode() + b"\n" for note in notes)
    finished = written(write)
    return [finished, {**finished, "_attempts/part-00002.jsonl": lines}]


def read_parts(folder: Path) -> None:
    from carzero.evaluation.score_matrix import load_score_matrix
    from carzero.inference.ray.parts import PartNotes
    from carzero.inference.score_table import load_scores

    for notes in sorted(folder.glob("_attempts/*.jsonl")):
        kept = PartNotes(notes)
        assert all(isinstance(name, str) for name in (*kept.rows, *kept.deaths))
    opened = _open_parts(folder, resume=True)
    for number in range(3):
        opened.load_rows(number)
    opened.load_failures(3)
    opened.finish(_RECORD)
    load_scores(folder)
    assert np.isfinite(load_score_matrix(folder).values).all()


def runs() -> list[Files]:
    """A training run that was interrupted."""
    import yaml

    log = b"".join(json.dumps({"step": step, "loss": 0.5}).encode() + b"\n" for step in range(5))
    return [{"run.yaml": yaml.safe_dump(_RUN).encode(), "log.jsonl": log}]


def read_run(folder: Path) -> None:
    from carzero.training.run_folder import RunFolder

    run = RunFolder(folder, _RUN, resume=True)
    try:
        run.truncate_log(3)
        run.append_log({"step": 4})
    finally:
        run.close()


def tokenizers() -> list[Files]:
    """A vocabulary; a saved tokenizer."""
    from carzero.text.tokenizers import to_wordpiece_tokenizer

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgimnorst", "there", "is", "##e", "##m", "##a"]
    saved = written(lambda folder: to_wordpiece_tokenizer(pieces).save_pretrained(folder))
    return [{"vocab.txt": "\n".join(pieces).encode()}, saved, saved]


def read_tokenizer(folder: Path) -> None:
    from carzero.text.tokenizers import FixedLengthEncoder, continuation_pieces, load_tokenizer

    tokenizer = load_tokenizer(folder)
    encoder = FixedLengthEncoder(tokenizer, 12)
    ids, mask = encoder.encode(["there is edema", ""])
    assert ids.shape == mask.shape == (2, 12)
    assert encoder.count("there is edema") > 0
    assert len(continuation_pieces(tokenizer)) == len(tokenizer)


def reader_studies() -> list[Files]:
    """A reader study as its authors lay it out."""
    study = [f"CheXpert-v1.0/test/patient{row:05d}/study1" for row in range(8)]
    truth = {"Atelectasis": [0, 1] * 4, "Edema": [0, 0, 1, 1] * 2}
    table = pd.DataFrame({"Study": study, **truth}).to_csv(index=False).encode()
    scores = pd.DataFrame({"Study": study, **{name: np.linspace(0, 1, 8) for name in truth}})
    return [
        {
            "groundtruth.csv": table,
            "radiologists/benchmark_radiologists/bc4.csv": table,
            "example_models/predictions/standard/first_predictions.csv": scores.to_csv(index=False).encode(),
        }
    ]


def read_reader_study(folder: Path) -> None:
    from carzero.evaluation.reader_study import load_reader_study

    study = load_reader_study(folder)
    for values in study.models.values():
        assert not np.isinf(values).any()
    for values in (study.truth, *study.readers.values()):
        assert np.isin(values[~np.isnan(values)], (0, 1)).all()
