"""Whether weights tell findings apart, on NIH's test images: what an AUROC against all other images does not show.

    python benchmarks/demo_apart.py DATA [--weights demo] [--boxes BBox_List_2017.csv] [--out docs/demo-benchmark]

DATA holds nih/ as in recipes/demo/build_table.py, whose split is used. `--boxes` is the file of boxes of NIH's release,
plain or gzipped; the wheel of torchxrayvision holds it as well. Written is `nih-apart.json`, from which
`demo_benchmark.py` makes a section of its page:

- a probe: logistic regressions on the image tower's own mean features, fitted on the development patients (the penalty
  by folds of them), on all images or on the abnormal ones alone: what the tower tells apart without words;
- the effective rank of the findings' scores: the exponential of the entropy of the eigenvalues of their correlation
  matrix (Roy and Vetterli 2007), from 1, where all ask the same, to the number of findings; the labels' beside it;
- ten wordings of each finding: lowest and highest AUROC, and the mean score's;
- prompts that deny a finding: AUROC of the denial turned round, and of the difference;
- findings whose words the weights were trained on beside findings whose words they were not;
- pointing: whether a map's peak lies in a box of the finding, beside the image's centre and a random place.

Intervals are of 95 %: bootstrap over patients; Wilson's for pointing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from full_size import describe_machine

from carzero.images import load_radiograph
from carzero.inference.prompt_bank import encode_prompts
from carzero.metrics import Cohort, Measures, Statistics, evaluate
from carzero.metrics.localisation import wilson
from carzero.prompts import PromptSet
from carzero.weights.source import WeightsSource

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes" / "demo"))
from build_table import BOXES_PX, Boxes, load_boxes, split_of

FINDINGS = ("pneumonia", "infiltration", "atelectasis", "edema", "effusion")
OTHERS = ("cardiomegaly", "consolidation", "emphysema", "fibrosis", "hernia", "mass", "nodule", "pneumothorax")
WORDINGS = (
    *("There is {}", "{} is present", "Findings consistent with {}", "The radiograph shows {}", "Evidence of {}"),
    *("Signs of {} are seen", "The patient has {}", "Chest radiograph with {}", "{} is seen in the lungs"),
    "Appearances are those of {}",
)
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
BATCH = 16
FILE = "nih-apart.json"


@dataclass(frozen=True, slots=True)
class Measured:
    """What is measured of N images.

    Attributes:
        features: (N, D) the tower's mean features, before any projection.
        logits: (N, prompts).
        peaks: (N, findings, 2) of the findings' maps, in the image's pixels.
        sizes: (N, 2) height and width in pixels.
    """

    features: np.ndarray
    logits: np.ndarray
    peaks: np.ndarray
    sizes: np.ndarray


def list_questions() -> dict[str, str]:
    """Every prompt by a name: wordings, denials, and findings beyond the weights' own."""
    asked = {
        f"{finding} {number}": form.format(finding) for finding in FINDINGS for number, form in enumerate(WORDINGS)
    }
    denied = {f"no {finding}": f"There is no {finding}" for finding in FINDINGS}
    return {**asked, **denied, **{name: f"There is {name}" for name in OTHERS}}


def load_rows(data: Path) -> pd.DataFrame:
    """NIH's images with their part: "test", or "train" for the development patients."""
    rows = pd.read_csv(data / "nih" / "labels.csv", dtype=str)
    parts = ["test" if r.split == "valid" else split_of(r.patient_id) for r in rows.itertuples()]
    named = [set(text.lower().split("|")) for text in rows["labels"]]
    truth = {name: [float(name in row) for row in named] for name in (*FINDINGS, *OTHERS)}
    test = ["test" if part == "test" else "train" for part in parts]
    return rows.assign(part=test, path=[str(data / "nih" / name) for name in rows["image"]], **truth)


@torch.inference_mode()
def measure(weights: str, rows: pd.DataFrame) -> Measured:
    """Reads and encodes every image once."""
    source = WeightsSource(weights)
    model, processor = source.load_model().eval(), source.load_processor()
    questions = list_questions()
    bank = encode_prompts(model, processor, PromptSet.from_mapping({name: [text] for name, text in questions.items()}))
    shown = [list(questions).index(f"{finding} 0") for finding in FINDINGS]
    parts: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(rows), BATCH):
        films = [load_radiograph(path) for path in rows["path"][start : start + BATCH]]
        pixels = torch.stack([processor.image_processor.to_pixel_values(film) for film in films])
        raw = model.raw_image_features(pixels)
        logits, maps = model.alignment.score(model.project_images(raw), bank.texts.groups, need_maps=True)
        sizes = np.array([film.pixels.shape for film in films])
        geometries = [processor.image_processor.pixels.geometry(height, width) for height, width in sizes.tolist()]
        peaks = [[g.peak_to_original(m[q].numpy()) for q in shown] for g, m in zip(geometries, maps, strict=True)]
        parts.append((raw.pooled.numpy(), logits.numpy(), np.array(peaks), sizes))
        print(f"{start + len(films)} of {len(rows)} images", file=sys.stderr, flush=True)
    return Measured(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def auroc(scores: np.ndarray, truth: np.ndarray, patients: np.ndarray, labels: Sequence[str]) -> dict[str, list[float]]:
    """AUROC of each finding that can be measured, and "macro", each with its interval."""
    both = (truth.min(axis=0) == 0) & (truth.max(axis=0) == 1) & ~np.isnan(scores).any(axis=0)
    names = [label for label, can in zip(labels, both, strict=True) if can]
    rows = evaluate(
        scores[:, both],
        truth[:, both],
        names,
        cohort=Cohort("nih", patients),
        measures=Measures(("auroc",), ("macro",)),
        statistics=Statistics(delong=False),
    )
    # JSON has no NaN, which is what an interval of too few positives is.
    ends = {row.label: (row.value, row.ci_low, row.ci_high) for row in rows}
    return {label: [round(float(v), 3) for v in values if not np.isnan(v)] for label, values in ends.items()}


def effective_rank(values: np.ndarray) -> float:
    """Of the columns of (N, C); see the module."""
    shares = np.linalg.eigvalsh(np.corrcoef(values.T)).clip(min=0) / values.shape[1]
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def probe(features: np.ndarray, truth: np.ndarray, patients: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Scores (M, C) of new features by regressions on features with truth, one a finding; NaN where all are alike."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = list(GroupKFold(5).split(features, groups=patients))
    scores = []
    for labels in truth.T:
        if labels.min() == labels.max():
            scores.append(np.full(len(asked), np.nan))
            continue
        fitted = make_pipeline(
            StandardScaler(), LogisticRegressionCV(Cs=PENALTIES, cv=folds, scoring="roc_auc", max_iter=2000)
        ).fit(features, labels)
        scores.append(fitted.decision_function(asked))
    return np.stack(scores, axis=1)


def point(measured: Measured, rows: pd.DataFrame, boxes: Boxes) -> dict[str, object]:
    """Hits of the peaks, of the centre, and what a random place of the image hits on average, by part."""
    trials: dict[str, list[tuple[bool, bool, float]]] = {"test": [], "train": []}
    for number, (image, part) in enumerate(zip(rows["image"], rows["part"], strict=True)):
        height, width = measured.sizes[number]
        for column, finding in enumerate(FINDINGS):
            own = np.array(boxes.get((Path(image).stem, finding), []))
            if not len(own):
                continue
            own = own * max(height, width) / BOXES_PX
            covered = np.zeros((height, width), dtype=bool)
            for x1, y1, x2, y2 in own.round().astype(int):
                covered[y1:y2, x1:x2] = True

            def hits(x: float, y: float, own: np.ndarray = own) -> bool:
                return bool(((own[:, :2] <= (x, y)) & ((x, y) <= own[:, 2:])).all(axis=1).any())

            trials[part].append((hits(*measured.peaks[number, column]), hits(width / 2, height / 2), covered.mean()))
    found: dict[str, object] = {}
    for part, own_trials in trials.items():
        peaks, centres, shares = np.array(own_trials, dtype=float).reshape(-1, 3).T
        spans = [[round(float(end), 3) for end in wilson(hit.sum(), len(hit))] for hit in (peaks, centres)]
        found[part] = {
            "trials": len(peaks),
            "peak": [int(peaks.sum()), *spans[0]],
            "centre": [int(centres.sum()), *spans[1]],
            "random": round(float(shares.mean()), 3) if len(shares) else None,
        }
    return found


def report(measured: Measured, rows: pd.DataFrame, weights: str, boxes: Path | None) -> dict[str, object]:
    """Everything, as plain values."""
    names = list(list_questions())
    test = (rows["part"] == "test").to_numpy()
    truth, patients = rows[list(FINDINGS)].to_numpy(float), rows["patient_id"].to_numpy()
    abnormal = truth.any(axis=1)
    logits = {name: measured.logits[:, number] for number, name in enumerate(names)}
    wordings = np.stack([np.stack([logits[f"{f} {n}"] for f in FINDINGS], 1) for n in range(len(WORDINGS))])
    scores, denials = wordings[0], np.stack([logits[f"no {finding}"] for finding in FINDINGS], axis=1)

    def figure(values: np.ndarray, chosen: np.ndarray) -> dict[str, list[float]]:
        return auroc(values[chosen], truth[chosen], patients[chosen], FINDINGS)

    by_wording = [figure(values, test) for values in wordings]
    probed = {}
    for name, fitted_on in (("all", ~test), ("abnormal", ~test & abnormal)):
        values = np.full_like(scores, np.nan)
        values[test] = probe(
            measured.features[fitted_on], truth[fitted_on], patients[fitted_on], measured.features[test]
        )
        probed[f"fitted on {name}"] = {"all": figure(values, test), "abnormal": figure(values, test & abnormal)}
    source = WeightsSource(weights)
    words = source.training_words
    other = np.stack([logits[name] for name in OTHERS], axis=1)[test]
    return {
        "weights": source.name,
        "weights_sha256": source.sha256,
        "machine": describe_machine(),
        "images": int(test.sum()),
        "abnormal": int((test & abnormal).sum()),
        "patients": len(set(patients[test])),
        "auroc": {"all": figure(scores, test), "abnormal": figure(scores, test & abnormal)},
        "probe": probed,
        "effective rank": {"scores": effective_rank(scores[test]), "labels": effective_rank(truth[test])},
        "wordings": {
            "forms": list(WORDINGS),
            "each": {label: [row[label][0] for row in by_wording] for label in (*FINDINGS, "macro")},
            "mean": figure(wordings.mean(axis=0), test),
        },
        "negation": {"denial turned round": figure(-denials, test), "difference": figure(scores - denials, test)},
        "unfamiliar": {
            "marked": [n for n in OTHERS if words is not None and words.find_unfamiliar(f"There is {n}")],
            "auroc": auroc(other, rows[list(OTHERS)].to_numpy(float)[test], patients[test], OTHERS),
            "positives": {name: int(rows[name][test].sum()) for name in OTHERS},
        },
        "pointing": None if boxes is None else point(measured, rows, load_boxes(boxes)),
    }


def show(found: dict[str, Any]) -> Iterator[str]:
    """The section of the page."""

    def cell(values: dict[str, list[float]], label: str) -> str:
        value, *ends = values.get(label, [None])
        span = f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
        return "-" if value is None else f"{value:.3f}{span}"

    def line(*cells: object) -> str:
        return f"| {' | '.join(map(str, cells))} |"

    own, probed, rank = found["auroc"], found["probe"], found["effective rank"]
    yield "### Does it tell findings apart?\n"
    yield (
        f"`python benchmarks/demo_apart.py DATA`: {found['images']} test images of {found['patients']} patients, "
        f"{found['abnormal']} with any of these findings. A probe is a logistic regression on the image tower's own "
        "mean features, fitted on the development patients; what it has above the scores, the tower knows and the "
        "words do not ask for.\n"
    )
    yield line("finding", "AUROC", "probe", "among abnormal", "probe", "probe fitted on abnormal")
    yield "|---" * 6 + "|"
    for label in (*FINDINGS, "macro"):
        of_all, of_abnormal = probed["fitted on all"], probed["fitted on abnormal"]
        columns = (own["all"], of_all["all"], own["abnormal"], of_all["abnormal"], of_abnormal["abnormal"])
        yield line(label, *(cell(values, label) for values in columns))
    yield (
        f"\nEffective rank of the {len(FINDINGS)} findings' scores: **{rank['scores']:.2f}**; of their labels "
        f"{rank['labels']:.2f} (1: every prompt asks the same). Ten wordings of each finding, and negation:\n"
    )
    words, denied, other = found["wordings"], found["negation"], found["unfamiliar"]
    yield line("finding", "AUROC by wording, lowest to highest", "mean of ten", "denial turned round", "difference")
    yield "|---" * 5 + "|"
    for label in (*FINDINGS, "macro"):
        span = f"{min(words['each'][label]):.3f} to {max(words['each'][label]):.3f}"
        cells = (cell(values, label) for values in (words["mean"], denied["denial turned round"], denied["difference"]))
        yield line(label, span, *cells)
    yield ""
    yield line("finding that was not trained on", "marked as unfamiliar", "positives", "AUROC")
    yield "|---" * 4 + "|"
    for label in (*OTHERS, "macro"):
        marked = "" if label == "macro" else "yes" if label in other["marked"] else "no"
        yield line(label, marked, other["positives"].get(label, ""), cell(other["auroc"], label))
    yield f"\nThe findings that it was trained on reach {cell(own['all'], 'macro')} in the mean, as above.\n"
    if found["pointing"] is None:
        yield "Pointing was not measured: `--boxes` was not given.\n"
        return
    yield "Pointing: trials are an image and a finding with boxes of NIH's; the development images were trained on.\n"
    yield line("images", "trials", "peak in a box", "centre of the image in a box", "random place")
    yield "|---" * 5 + "|"
    for part, name in (("test", "test"), ("train", "development")):
        one = found["pointing"][part]
        hits = [f"{n} ({low:.3f} to {high:.3f})" for n, low, high in (one["peak"], one["centre"])]
        yield line(name, one["trials"], *hits, "-" if one["random"] is None else f"{one['random']:.3f}")
    yield ""


def save(data: Path, weights: str, boxes: Path | None, folder: Path) -> None:
    """Measures, and writes the file."""
    rows = load_rows(data)
    found = report(measure(weights, rows), rows, weights, boxes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def load(folder: Path) -> dict[str, Any] | None:
    """What was measured; None where nothing was."""
    file = folder / FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def main() -> None:
    """Writes the file and prints the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--boxes", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs") / "demo-benchmark")
    options = parser.parse_args()
    save(options.data, options.weights, options.boxes, options.out)
    print("\n".join(show(load(options.out) or {})))


if __name__ == "__main__":
    main()
