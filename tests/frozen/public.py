"""Scores and maps of the demo weights through the public names alone; prints them as JSON.

    python -m tests.frozen.public IMAGE...

Logits are written in hexadecimal, a map as the SHA-256 of its bytes with a few of its values beside it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

LABELS = ["pneumonia", "pleural effusion", "atelectasis", "edema", "infiltration"]


def main(images: list[str]) -> None:
    import numpy as np
    import torch

    import carzero

    torch.set_num_threads(1)
    classifier = carzero.ZeroShotClassifier.from_pretrained("demo", device="cpu", dtype="float32")
    film = carzero.example_film()
    table = classifier.predict([film, *images], LABELS)
    paired = classifier.predict(
        images[:3], prompts={"edema": ["There is edema", "The lungs are congested"]}, pool="max", batch_size=1
    )

    def rows(frame: Any) -> list[dict[str, str]]:
        named = [name for name in frame.columns if name.startswith("logit:")]
        return [
            {"image": Path(row["path"]).name, **{name: float(np.float32(row[name])).hex() for name in named}}
            for row in frame.to_dict("records")
        ]

    def maps(path: Any) -> list[dict[str, Any]]:
        return [
            {
                "image": Path(path).name,
                "label": grounding.label,
                "logit": float(grounding.logit).hex(),
                "shape": list(grounding.heatmap.shape),
                "sha256": hashlib.sha256(np.ascontiguousarray(grounding.heatmap).tobytes()).hexdigest(),
                "few": [float(value).hex() for value in grounding.heatmap.ravel()[:: grounding.heatmap.size // 40]],
                "peak": [float(value).hex() for value in grounding.peak],
            }
            for grounding in classifier.ground(path, LABELS)
        ]

    radiograph = carzero.load_radiograph(film)
    printed = {
        "columns": list(table.columns),
        "scores": rows(table),
        "scores of two prompts": rows(paired),
        "maps": [entry for path in (film, *images[:2]) for entry in maps(path)],
        "film": {
            "shape": list(radiograph.pixels.shape),
            "sha256": hashlib.sha256(np.ascontiguousarray(radiograph.pixels).tobytes()).hexdigest(),
            "view": radiograph.view,
            "warnings": list(radiograph.warnings),
        },
    }
    sys.stdout.write(json.dumps(printed, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
