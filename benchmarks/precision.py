"""Measures what each precision does to logits and AUROC.

    python benchmarks/precision.py DATA [--dtypes bfloat16 float16] [--full-size] [--films 781]

DATA holds nih/labels.csv and its images (781 ChestX-ray14 images). The 14 findings are asked in the paper's words. By
default with the demo weights; `--full-size` takes ViT-B/16, BERT-base and 4 alignment layers with the test suite's
formula weights, whose AUROC says nothing about images, but whose change does about the precision. Printed are the
largest difference of a logit from float32 (and the logits' standard deviation over images, for scale), the largest
difference of a finding's AUROC, and both macro AUROC.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from full_size import build_full_size, describe_machine

from carzero.images import load_radiograph
from carzero.inference.backends import TorchBackend
from carzero.metrics.classification import auroc
from carzero.model import CARZeroModel
from carzero.processing import CARZeroProcessor
from carzero.prompts import load_prompt_set
from carzero.weights.source import WeightsSource

BATCH = 16


def load_films(data: Path, count: int, processor: CARZeroProcessor) -> tuple[torch.Tensor, pd.DataFrame]:
    """Pixel values (N, 3, side, side) of images spread over the table, and their rows."""
    table = pd.read_csv(data / "nih" / "labels.csv")
    table = table.iloc[np.linspace(0, len(table) - 1, min(count, len(table))).round().astype(int)]
    films = [
        processor.image_processor.to_pixel_values(load_radiograph(data / "nih" / path, force=True))
        for path in table["image"]
    ]
    return torch.stack(films), table


def score(model: CARZeroModel, processor: CARZeroProcessor, pixels: torch.Tensor, dtype: torch.dtype) -> np.ndarray:
    """Raw logits (N, 14)."""
    backend = TorchBackend(model, device="cpu", dtype=dtype)
    bank = backend.encode_prompts(processor, load_prompt_set("chestxray14", "paper"))
    return torch.cat([backend.score(batch, bank).scores for batch in pixels.split(BATCH)]).numpy()


def build(full_size: bool) -> tuple[CARZeroModel, CARZeroProcessor]:
    """Weights in float32, and their processor; built anew for every precision, because conversion rounds them."""
    if full_size:
        return build_full_size()
    demo = WeightsSource("demo")
    return demo.load_model(), demo.load_processor()


def areas(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """AUROC of each finding that has positives and negatives."""
    return np.array([auroc(truth[:, c], logits[:, c]) for c in range(truth.shape[1]) if truth[:, c].any()])


def main() -> None:
    """Measures each precision against float32."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float16"])
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--films", type=int, default=781)
    options = parser.parse_args()
    model, processor = build(options.full_size)
    pixels, table = load_films(options.data, options.films, processor)
    findings = load_prompt_set("chestxray14", "paper").labels
    truth = np.array([[float(label in row.split("|")) for label in findings] for row in table["labels"]])
    exact = score(model, processor, pixels, torch.float32)
    base = areas(exact, truth)
    print(describe_machine())
    print(
        f"{'full size' if options.full_size else 'demo'} weights, {len(table)} images, {len(base)} findings with both"
    )
    print(f"  float32: macro AUROC {base.mean():.4f}; a finding's logits spread by {exact.std(axis=0).mean():.3f}")
    for name in options.dtypes:
        logits = score(*build(options.full_size), pixels, getattr(torch, name))
        found = areas(logits, truth)
        print(
            f"  {name}: largest difference of a logit {np.abs(logits - exact).max():.4f} "
            f"(mean {np.abs(logits - exact).mean():.4f}), of a finding's AUROC {np.abs(found - base).max():.4f}; "
            f"macro AUROC {found.mean():.4f} ({found.mean() - base.mean():+.4f})"
        )


if __name__ == "__main__":
    main()
