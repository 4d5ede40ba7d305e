"""Measures what an export costs in accuracy: each engine and precision beside the torch model in float32.

    python benchmarks/exported_accuracy.py WEIGHTS FILMS [--limit N] [--keep DIR]

WEIGHTS are exported to ONNX (float32) and OpenVINO (float32, bfloat16, int8), and each export scores images against the
14 prompts of chestxray14. FILMS is a folder, or a table with the column `image`; every sixth image calibrates int8 and
is not scored. Printed is, for each export, the largest and the mean absolute difference of a logit, the smallest rank
correlation of a label's logits with the torch model's. If the table also has a column `labels` (findings joined by "|",
as in the NIH sample), so are the macro AUROC, its difference, and the largest difference of one label's AUROC.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from carzero.export import DTYPES, ExportRun
from carzero.images.listing import list_images
from carzero.inference.classifier import ZeroShotClassifier
from carzero.metrics.classification import auroc
from carzero.prompts import PromptSet, resolve_prompts
from carzero.records import ImageItem, ScoredImage
from carzero.weights.source import WeightsSource


def score(weights: str | Path, items: list[ImageItem], prompts: PromptSet, dtype: str) -> pd.DataFrame:
    """Logits by image and label; images that cannot be read are left out."""
    classifier = ZeroShotClassifier.from_pretrained(weights, device="cpu", dtype=dtype)
    results = classifier.stream(items, classifier.encode_prompts(prompts), batch_size=8)
    scored = {result.item.image_id: result.logits for result in results if isinstance(result, ScoredImage)}
    return pd.DataFrame.from_dict(scored, orient="index", columns=prompts.labels)


def aurocs(logits: pd.DataFrame, labels: pd.DataFrame) -> np.ndarray:
    """AUROC by label; NaN where all images are alike."""
    found = labels.set_index("image")["labels"].loc[logits.index]
    truth = {label: found.str.split("|").map(lambda names, label=label: label in names) for label in logits.columns}
    return np.array([auroc(truth[label].to_numpy(float), logits[label].to_numpy()) for label in logits.columns])


def compare(exported: pd.DataFrame, torch: pd.DataFrame, labels: pd.DataFrame | None) -> dict[str, object]:
    """One row of the table."""
    difference = (exported - torch).abs().to_numpy()
    ranks = [spearmanr(exported[label], torch[label]).statistic for label in torch.columns]
    row = {
        "largest": f"{difference.max():.2g}",
        "mean": f"{difference.mean():.2g}",
        "rank correlation": f"{min(ranks):.4f}",
    }
    if labels is not None:
        ours, theirs = aurocs(exported, labels), aurocs(torch, labels)
        row["macro AUROC"] = f"{np.nanmean(ours):.4f}"
        row["difference"] = f"{np.nanmean(ours) - np.nanmean(theirs):+.4f}"
        row["largest of a label"] = f"{np.nanmax(np.abs(ours - theirs)):.4f}"
    return row


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("films", type=Path)
    parser.add_argument("--limit", type=int, help="take so many images, spread over all")
    parser.add_argument("--keep", type=Path, help="folder for the exports (and reuses them)")
    options = parser.parse_args()
    films = list_images([options.films])
    wanted = min(options.limit or len(films), len(films))
    films = [films[number * len(films) // wanted] for number in range(wanted)]
    scored = [film for number, film in enumerate(films) if number % 6]
    prompts = PromptSet.from_request(None, resolve_prompts("chestxray14"))
    labels = pd.read_csv(options.films) if options.films.suffix == ".csv" else None
    torch = score(options.weights, scored, prompts, "float32")
    print(f"{len(torch)} images; the logits' standard deviation over images is {torch.std().mean():.3g}")
    halved = score(options.weights, scored, prompts, "bfloat16")
    rows = [{"engine": "torch", "dtype": "bfloat16"} | compare(halved, torch, labels)]
    print(rows[-1], flush=True)
    for engine, dtype in ((engine, dtype) for engine, dtypes in DTYPES.items() for dtype in dtypes):
        with tempfile.TemporaryDirectory() as temporary:
            folder = (options.keep or Path(temporary)) / f"{engine}-{dtype}"
            if not folder.exists():
                calibration = films[::6] if dtype == "int8" else []
                ExportRun(WeightsSource(options.weights), engine, folder, dtype, calibration=calibration).execute()
            exported = score(folder, scored, prompts, "auto")
        rows.append({"engine": engine, "dtype": dtype} | compare(exported, torch, labels))
        print(rows[-1], flush=True)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
