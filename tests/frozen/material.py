"""What samples are made from: tiny weights, films, tables. Written once, kept with the samples, only read by a check.

The one module here that uses the helpers of other tests, and so the insides of the package.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

__all__ = ["save_material"]

FILMS = 20
_WORDS = (
    "there is are a an no not the of in and with heart lung lungs left right upper lower lobe large small normal "
    "enlarged clear finding pleural effusion edema pneumonia nodule pulmonary mass consolidation atelectasis bone "
    "fracture fibrosis emphysema pneumothorax tissue calcification opacity congested"
)


def save_material(folder: Path) -> None:
    """Writes everything into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _save_vocabulary(folder / "vocab.txt")
    _save_weights(folder / "weights", folder / "vocab.txt")
    _save_films(folder / "films")
    _save_tables(folder)
    _save_benchmark(folder)
    _save_training(folder)


def _save_vocabulary(path: Path) -> None:
    signs = [*"abcdefghijklmnopqrstuvwxyz0123456789"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS.split(), *".,:-'()", *signs]
    pieces += [f"##{sign}" for sign in signs]
    path.write_text("\n".join(dict.fromkeys(pieces)) + "\n", encoding="utf-8")


def _save_weights(folder: Path, vocabulary: Path) -> None:
    from carzero.images import PixelTransform
    from carzero.processing import build_processor
    from carzero.text.tokenizers import continuation_pieces, load_tokenizer
    from tests import tiny

    processor = build_processor(
        load_tokenizer(vocabulary), PixelTransform(tiny.RESIZE_PX, tiny.IMAGE_PX), max_text_length=tiny.MAX_TEXT
    )
    text = {"model_type": "bert", **tiny.BERT, "vocab_size": len(processor.tokenizer)}
    model = tiny.build_model(tiny.tiny_config(text_config=text))
    model.set_continuations(continuation_pieces(processor.tokenizer))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _save_films(folder: Path) -> None:
    from tests.support.tiny import save_images

    save_images(folder, FILMS, side_px=96)
    (folder / "broken.png").write_bytes(b"no picture")


def _save_tables(folder: Path) -> None:
    """Truth of the films, and two score tables of 90 pictures with truth and groups."""
    import numpy as np
    import pandas as pd

    rows = [f"film_{index:03d}.png,{int(index % 3 == 0)},{int(index % 4 == 1)}" for index in range(FILMS)]
    (folder / "films_truth.csv").write_text("image_id,edema,pneumonia\n" + "\n".join(rows) + "\n")
    random, labels, count = np.random.default_rng(3), ["edema", "pleural effusion"], 90
    truth = (random.random((count, 2)) < [0.4, 0.3]).astype(int)
    table = pd.DataFrame({"image_id": [f"{row:03d}.png" for row in range(count)]})
    table[["Edema", "Pleural_Effusion"]] = truth
    table["patient_id"] = [f"p{row // 2}" for row in range(count)]
    table["age"] = random.integers(10, 90, count)
    table.loc[3, "Edema"] = -1
    table.sample(frac=1, random_state=1).to_csv(folder / "set_truth.csv", index=False)
    for name, noise in (("set", 1.0), ("worse", 2.0)):
        frame = pd.DataFrame({"image_id": table["image_id"], "path": "x", "study_uid": "", "series_uid": ""})
        frame["sop_uid"], frame["view"] = "", "PA"
        frame.loc[::3, "view"] = "AP"
        scores = np.round(random.normal(size=(count, 2)) * noise + truth - 2, 3)
        for column, label in enumerate(labels):
            frame[f"logit:{label}"] = scores[:, column]
        frame["warnings"] = ""
        frame.to_csv(folder / f"{name}_scores.csv", index=False)
        manifest = {"weights": name, "weights_sha256": name, "prompts": {n: [f"There is {n}"] for n in labels}}
        (folder / f"{name}_scores.csv.manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _save_benchmark(folder: Path) -> None:
    """240 scored pictures of 80 patients in the layout of ChestXray14, and films with boxes in ChestX-Det10's."""
    import numpy as np
    import pandas as pd

    from tests.support.official import nih_entries, nih_list

    labels = [
        "Atelectasis",
        "Cardiomegaly",
        "Effusion",
        "Infiltration",
        "Mass",
        "Nodule",
        "Pneumonia",
        "Pneumothorax",
        "Consolidation",
        "Edema",
        "Emphysema",
        "Fibrosis",
        "Pleural_Thickening",
        "Hernia",
    ]
    random = np.random.default_rng(7)
    names = [f"{patient:08d}_{film:03d}.png" for patient in range(80) for film in range(3)]
    truth = (random.random((len(names), len(labels))) < 0.2).astype(int)
    logits = np.round(random.normal(size=truth.shape) + truth, 2)
    nih_entries(folder / "nih_entries.csv", names, labels, truth)
    nih_list(folder / "nih_list.txt", names, None)
    table = pd.DataFrame(logits, columns=[f"logit:{label}" for label in labels])
    table.insert(0, "image_id", names)
    table.sample(frac=1, random_state=1).to_csv(folder / "nih_scores.csv", index=False)
    boxed = folder / "boxed"
    boxed.mkdir()
    findings = ["Atelectasis", "Calcification", "Consolidation", "Effusion", "Emphysema", "Fibrosis", "Mass"]
    content = []
    for index in range(6):
        name = f"film_{index:03d}.png"
        shutil.copy(folder / "films" / name, boxed / name)
        boxes = [[0, 0, 48, 90], [5, 5, 20, 20]]
        content.append({"file_name": name, "syms": findings[index : index + 2], "boxes": boxes})
    (boxed / "test.json").write_text(json.dumps(content, indent=1) + "\n")


def _save_training(folder: Path) -> None:
    """A recipe of a few steps with everything random in it switched on, and its table."""
    import yaml

    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    recipe = {
        "name": "tiny",
        "model": {
            "vision": {"config": {**tower, "patch_size": 8}},
            "text": {"config": tower, "tokenizer": "vocab.txt"},
            "fields": {
                "max_text_length": 16,
                "summed_text_layers": 1,
                "decoder_layers": 1,
                "decoder_heads": 2,
                "decoder_ffn_dim": 32,
                "score_head": "linear",
                "dropout": 0.1,
            },
        },
        "pixels": {"resize_px": 40, "crop_px": 32, "flip": 0.5},
        "optimiser": {"steps": 24, "batch_size": 4, "lr": 1.0e-3, "average": 0.9},
        "evaluate_every": 6,
        "checkpoint_every": 5,
        "keep_checkpoints": 1,
        "keep": "best",
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    kinds, places = ["nodule", "opacity"], ["left lower lobe", "left upper lobe", "right lower lobe", "right lung"]
    rows = []
    for index in range(18):
        sentence = f"There is a {kinds[index % 2]} in the {places[index // 2 % 4]}."
        split = "train" if index < 12 else "val"
        row = {"image": f"films/film_{index:03d}.png", "text": f"{sentence} The heart is normal.", "split": split}
        rows.append(json.dumps({**row, "patient_id": f"p{index}"}) + "\n")
    (folder / "pairs.jsonl").write_text("".join(rows))
    reports = ["study_id,text"]
    for index in range(24):
        number = index - 1 if index % 10 == 9 else index
        side = ("left", "right")[number % 2]
        text = f"The heart is enlarged. There is a {side} pleural effusion of {number} mm. Clear lungs."
        reports.append(f's{index},"{text}"')
    (folder / "reports.csv").write_text("\n".join(reports) + "\n")
