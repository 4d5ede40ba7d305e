"""Measures the demo weights on patients kept out of their training, beside a linear probe on ImageNet features.

    python benchmarks/demo_weights.py DATA [--weights demo] [--probe]

DATA holds nih/ and pneumonia/ as in recipes/demo/build_table.py, whose splits are used. Every figure is an AUROC of the
raw logit of "There is <finding>", with a 95 % interval from 1,000 bootstrap rounds over patients (over images where no
patients are known). `--probe` needs the extra demo-training: it fits logistic regressions on the training and
validation patients and tests them on the same test patients: on pooled features of EfficientNet-Lite0 (ImageNet
weights; its last layer and its best inner one), and on an 8x8 thumbnail, which shows how much exposure and framing give
away.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from carzero.data.pairs import PairTable, load_pairs
from carzero.images import Geometry, load_radiograph
from carzero.inference.classifier import ZeroShotClassifier
from carzero.metrics.classification import auroc
from carzero.training.batches.statements import to_label_matrix

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes" / "demo"))
from build_table import main as build_table

NIH = ["pneumonia", "infiltration", "atelectasis", "edema", "effusion"]
ROUNDS = 1000
# Inverse regularisation, chosen by cross-validation within the training and validation patients.
_PROBES = {"last": 1e-3, "block 11": 1e-2, "8x8 thumbnail": 1e-2}


def interval(truth: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the mean AUROC over columns, resampling whole groups."""
    random = np.random.default_rng(0)
    names, members = np.unique(groups, return_inverse=True)
    rows = [np.flatnonzero(members == index) for index in range(len(names))]
    values = []
    for _ in range(ROUNDS):
        drawn = np.concatenate([rows[i] for i in random.integers(0, len(rows), len(rows))])
        values.append(np.nanmean([auroc(truth[drawn, c], scores[drawn, c]) for c in range(truth.shape[1])]))
    return float(np.nanquantile(values, 0.025)), float(np.nanquantile(values, 0.975))


def report(name: str, truth: np.ndarray, scores: np.ndarray, findings: list[str], groups: np.ndarray) -> list[dict]:
    """Rows of the result table: each finding, then their mean."""
    lines = []
    for label, columns in [
        *((finding, [i]) for i, finding in enumerate(findings)),
        ("macro", list(range(len(findings)))),
    ]:
        value = float(np.mean([auroc(truth[:, c], scores[:, c]) for c in columns]))
        low, high = interval(truth[:, columns], scores[:, columns], groups)
        positives = int(np.nansum(truth[:, columns[0]])) if len(columns) == 1 else ""
        lines.append(
            {
                "set": name,
                "label": label,
                "auroc": f"{value:.3f}",
                "95 % interval": f"{low:.3f}-{high:.3f}",
                "n": len(truth),
                "n_pos": positives,
            }
        )
    return lines


def columns(table: PairTable, rows: np.ndarray, findings: list[str]) -> np.ndarray:
    """Labels (rows, findings)."""
    return to_label_matrix(table.present, table.absent, findings)[rows]


def rows_of(table: PairTable, split: str, source: str) -> np.ndarray:
    """Numbers of the rows of one part and one source."""
    return np.flatnonzero((np.array(table.splits) == split) & (np.array(table.sources) == source))


def zero_shot(weights: str, table: PairTable) -> list[dict]:
    """The weights, asked by words alone."""
    classifier = ZeroShotClassifier.from_pretrained(weights)
    lines = []
    for source, findings in (("nih", NIH), ("paediatric", ["pneumonia", "bacterial pneumonia", "viral pneumonia"])):
        rows = rows_of(table, "test", source)
        scores = classifier.predict([table.images[row] for row in rows], labels=findings, batch_size=32)
        logits = scores[[f"logit:{finding}" for finding in findings]].to_numpy(float)
        groups = np.array(table.patients)[rows] if source == "nih" else np.arange(len(rows)).astype(str)
        lines += report(f"{source}, demo", columns(table, rows, findings), logits, findings, groups)
    return lines


def probe(table: PairTable, side: int = 224) -> list[dict]:
    """Logistic regressions on pooled ImageNet features: the last convolution, and the best inner layer."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from carzero.training.start.efficientnet_lite import load_efficientnet_lite0

    tower = load_efficientnet_lite0()
    fitted = np.concatenate([rows_of(table, "train", "nih"), rows_of(table, "val", "nih")])
    tested = rows_of(table, "test", "nih")
    features = {layer: {} for layer in _PROBES}
    for row in [*fitted, *tested]:
        grey = load_radiograph(table.images[row]).pixels
        square = Geometry.fit(*grey.shape, resize_px=side, crop_px=side).apply(grey)
        pixels = ((torch.from_numpy(square) / 255 - 0.5) / 0.5).expand(1, 3, -1, -1)
        with torch.inference_mode():
            output = tower(pixels.contiguous(memory_format=torch.channels_last), output_hidden_states=True)
        features["8x8 thumbnail"][row] = Geometry.fit(*grey.shape, resize_px=8, crop_px=8).apply(grey).ravel()
        features["last"][row] = output.last_hidden_state.mean((2, 3))[0].numpy()
        features["block 11"][row] = output.hidden_states[11].mean((2, 3))[0].numpy()
    truth = columns(table, tested, NIH)
    lines = []
    for layer, penalty in _PROBES.items():
        x, x_test = (np.stack([features[layer][row] for row in rows]) for rows in (fitted, tested))
        y = columns(table, fitted, NIH)
        scores = np.stack(
            [
                make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=5000))
                .fit(x, y[:, c])
                .decision_function(x_test)
                for c in range(len(NIH))
            ],
            axis=1,
        )
        lines += report(f"nih, probe on {layer}", truth, scores, NIH, np.array(table.patients)[tested])
    return lines


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--probe", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        build_table(options.data, path)
        table = load_pairs(path)
    lines = zero_shot(options.weights, table) + (probe(table) if options.probe else [])
    print(pd.DataFrame(lines).to_string(index=False))


if __name__ == "__main__":
    main()
