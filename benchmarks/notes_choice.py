"""Chooses options of an alignment for retrieval from prose, by inner folds of patients alone, and measures the choice.

    python benchmarks/notes_choice.py DATA OUT [--alignment similarity_map] [--folds 5] [--only NAME ...]

DATA, the recipe (recipes/two-cores.yaml) and the folds are those of `notes_retrieval.py --folds`. Without
every two neighbouring folds each variant is trained on the patients of the others, and its recall@10 is measured on
either of the two by itself. The choice for a fold rests on the two runs without it, each judged on its other fold; what
is chosen is then trained on all but that fold, and measured on it. So no choice has seen what it is measured by. "All
inner" is what all of these runs would choose together: the default to recommend, whose own figure is no estimate.

The rule: the highest mean; where the difference from the recipe as it is lies within one standard error (bootstrap over
patients, paired), the recipe as it is. The variants are `VARIANTS`; all see the same features and batches.

The frozen towers are run once for all runs of a fold, so that a run takes seconds; `--folds` of `notes_retrieval.py`
leaves the same features, and its OUT can be given here. Batches, dropout, optimiser and average are those of
`carzero train`; the statistics that projections start from are taken of the features themselves, and not of a sample.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from notes_retrieval import K, Retrieval, fold_of, load_pairs
from torch.nn.functional import pad

from carzero.data.pairs import load_pairs as load_table
from carzero.metrics.retrieval import chance_at_k, hits_at_k
from carzero.model import AlignmentOutput, CARZeroModel, TextFeatures
from carzero.model.features import FeatureProjection
from carzero.processing import CARZeroProcessor
from carzero.training.batches.image_cache import share_images
from carzero.training.batches.inputs import ImageInputs, TextInputs, Tokens
from carzero.training.batches.loader import BatchLoader, StepBatch
from carzero.training.batches.sampler import Selection, Source, StepRows, sample_steps, seed_torch
from carzero.training.batches.statements import ReportStatements
from carzero.training.distributed import DistributedContext
from carzero.training.optimiser import AveragedModel, Schedule, build_optimiser, set_training_mode
from carzero.training.recipes import Recipe, load_recipe
from carzero.training.start.initialise import build_start
from carzero.training.tasks.objective import ContrastiveObjective
from carzero.training.tasks.preparation import cache_image_features

RECIPE = Path(__file__).parent.parent / "recipes" / "two-cores.yaml"
AS_IT_IS = "the recipe"
OPTIONS = "model.fields.alignment_options"
ROUNDS = 1000
DROPOUT = 9  # the purpose of random numbers from which `carzero train` draws dropout
ANY_KIND: dict[str, dict[str, object]] = {
    AS_IT_IS: {},
    "rate x 4": {"optimiser.lr": 2e-3},
    "600 steps": {"optimiser.steps": 600},
    "no dropout of global features": {"model.fields.projection_dropout": 0.0},
}
VARIANTS: dict[str, dict[str, dict[str, object]]] = {
    "simr": ANY_KIND,
    "cosine": {**ANY_KIND, "temperature 0.2": {"model.fields.logit_scale_init": float(-np.log(0.2))}},
    "similarity_map": {
        **ANY_KIND,
        "temperature 0.2": {OPTIONS: {"temperature": 0.2}},
        "weighing temperature 0.2": {OPTIONS: {"attention_temperature": 0.2}},
        "no LayerNorm": {OPTIONS: {"layer_norm": False}},
    },
}


class Texts(TextInputs):
    """Sentences whose raw features are computed once for all folds, in groups of like length.

    Args:
        objective: holds the frozen tower.
        processor: of the model.
        sentences: all that any fold has.
    """

    def __init__(self, objective: ContrastiveObjective, processor: CARZeroProcessor, sentences: Sequence[str]) -> None:
        super().__init__(processor, torch.device("cpu"))

        def encode(tokens: Tokens) -> TextFeatures:
            """The tower without the padding that all texts of a group have: masked, it changes nothing."""
            width = tokens.input_ids.shape[1]
            longest = int(tokens.attention_mask.sum(dim=1).max())
            raw = objective.raw_texts(Tokens(tokens.input_ids[:, :longest], tokens.attention_mask[:, :longest]))
            mask = None if raw.mask is None else pad(raw.mask, (0, width - longest))
            return TextFeatures(raw.pooled, pad(raw.local, (0, 0, 0, width - longest)), mask)

        counts = {sentence: processor.count_tokens(sentence) for sentence in sentences}
        with torch.no_grad():
            self.freeze(encode, sorted(sentences, key=counts.__getitem__))


class Bench:
    """All training patients but those of one fold: the features from which runs are trained and measured.

    Args:
        pairs: rows with their parts.
        fold: the one that is held out.
        alignment: kind.
        out: folder of the table and of cached images and features.
        texts: of an earlier fold; None: encoded here.
    """

    def __init__(self, pairs: pd.DataFrame, fold: int, alignment: str, out: Path, texts: Texts | None) -> None:
        self._alignment = alignment
        recipe = self.recipe(AS_IT_IS)
        pairs.to_csv(out / f"fold{fold}.csv", index=False)
        self.table = load_table(out / f"fold{fold}.csv")
        statements = ReportStatements(self.table.sentences, recipe.reports)
        self._pools, self._sentences = statements.pools, statements.all_sentences
        options, context = recipe.optimiser, DistributedContext(recipe.optimiser, device="cpu")
        model, processor = build_start(recipe.model, recipe.pixels, recipe.memory, recipe.seed, self._sentences)
        objective = ContrastiveObjective(model.eval(), recipe.loss, options, recipe.memory)
        self.texts = Texts(objective, processor, self._sentences) if texts is None else texts
        known = np.array([bool(pool) for pool in self._pools])
        selection = Selection(self.table, known, None, [], recipe.train_splits)
        rows = np.unique(np.concatenate([selection.trained, selection.validated_rows]))
        squares = share_images(
            self.table.images, rows, recipe.pixels.resize_px, out / "cache", context, lambda *_: None
        )
        images = ImageInputs(squares, recipe.pixels, seed=recipe.seed, device=context.device)
        self._loader = BatchLoader(statements, images, self.texts, context, recipe.seed)
        steps = sample_steps(selection.sources, options, recipe.seed)
        cache_image_features(
            objective, self._loader, selection, steps, out / "cache", limit=2**40, precision=options.precision
        )

    def recipe(self, variant: str) -> Recipe:
        """The recipe with a variant's change."""
        changes = {"model.fields.alignment": self._alignment, **VARIANTS[self._alignment][variant]}
        return load_recipe(RECIPE, changes)

    def train(self, variant: str, rows: np.ndarray) -> ContrastiveObjective:
        """Trains on some rows to the last step; the averaged weights."""
        recipe = self.recipe(variant)
        options = recipe.optimiser
        model, _ = build_start(recipe.model, recipe.pixels, recipe.memory, recipe.seed, self._sentences)
        self._calibrate(model, rows)
        objective = ContrastiveObjective(model, recipe.loss, options, recipe.memory)
        average, optimiser = AveragedModel(objective, options.average), build_optimiser(model, options)
        schedule = Schedule(options, options.steps or 0)
        for sampled in sample_steps({"": Source(rows)}, options, recipe.seed):
            set_training_mode(model, train_batch_norm=False)
            seed_torch(recipe.seed, DROPOUT, sampled.step, 0)
            schedule.apply(optimiser, sampled.step)
            optimiser.zero_grad()
            objective(self._load(sampled)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
            optimiser.step()
            average.update(objective)
        return average.model.eval()

    @torch.no_grad()
    def retrieve(self, objective: ContrastiveObjective, rows: np.ndarray) -> Retrieval:
        """Lets the images of some rows rank these rows' reports, by the mean over a report's sentences."""
        owners = [tuple(self._pools[row]) for row in rows]
        reports = list(dict.fromkeys(owners))
        sentences = [sentence for report in reports for sentence in report]
        images = objective.encode_images(self._loader.images.plain(rows))
        texts = objective.encode_texts(self._loader.texts.load(sentences))
        output = objective.model.alignment.score_both(images, texts, tile_pairs=4096)
        scores = AlignmentOutput.join(*output).scores.numpy()  # (rows, sentences)
        ends = np.cumsum([len(report) for report in reports])
        means = np.stack([part.mean(axis=1) for part in np.split(scores, ends[:-1], axis=1)], axis=1)
        match = np.array([[owner == report for report in reports] for owner in owners])
        patients = np.array(self.table.patients)[rows]
        return Retrieval(hits_at_k(means, match, K), chance_at_k(match, K), patients, str(len(reports)))

    def _load(self, sampled: StepRows) -> StepBatch:
        """The batch of a step, without the padding that all of its texts have: it is not read."""
        batch = self._loader.load(sampled)
        if isinstance(batch.texts, TextFeatures) and batch.texts.mask is not None:
            longest = int(batch.texts.mask.sum(dim=1).max())
            local, mask = batch.texts.local[:, :longest], batch.texts.mask[:, :longest]
            return replace(batch, texts=TextFeatures(batch.texts.pooled, local, mask))
        return batch

    @torch.no_grad()
    def _calibrate(self, model: CARZeroModel, rows: np.ndarray) -> None:
        vision, text = model.vision_projection, model.text_projection
        if not (isinstance(vision, FeatureProjection) and isinstance(text, FeatureProjection)):
            raise SystemExit("The recipe has no projections: this benchmark needs them.")
        images = self._loader.images.plain(rows)
        vision.calibrate(images.pooled, images.local)
        own = list(dict.fromkeys(sentence for row in rows for sentence in self._pools[row]))
        raw = self.texts.load(own)
        text.calibrate(raw.pooled, raw.local if raw.mask is None else raw.local[raw.mask])


class Runs:
    """Trains and measures, once each; what needs no training needs no features.

    Args:
        pairs: all rows that take part.
        folds: (rows,) the fold of each.
        out: folder of what was measured.
        alignment: kind.
    """

    def __init__(self, pairs: pd.DataFrame, folds: np.ndarray, out: Path, alignment: str) -> None:
        self._pairs, self._folds, self._out, self._alignment = pairs, folds, out, alignment
        self._texts: Texts | None = None
        self._benches: dict[int, Bench] = {}

    def measure(self, variant: str, fold: int, *others: int) -> dict[int, Retrieval]:
        """Trains without a fold, and others beside it; what each of them retrieves."""
        held_out = (fold, *others)
        place = list(VARIANTS[self._alignment]).index(variant)
        name = f"{self._alignment}-{place}-without-{'-'.join(map(str, held_out))}"
        files = {number: self._out / f"{name}.{number}.npz" for number in held_out}
        if not all(file.is_file() for file in files.values()):
            bench = self._bench(fold)
            trained = bench.train(variant, np.flatnonzero(~np.isin(self._folds, held_out)))
            for number, file in files.items():
                bench.retrieve(trained, np.flatnonzero(self._folds == number)).save(file)
        return {number: Retrieval.load(file) for number, file in files.items()}

    def _bench(self, fold: int) -> Bench:
        if fold not in self._benches:
            pairs = self._pairs.assign(split=np.where(self._folds == fold, "val", "train"))
            self._benches[fold] = Bench(pairs, fold, self._alignment, self._out, self._texts)
            self._texts = self._benches[fold].texts
        return self._benches[fold]


def standard_error(difference: np.ndarray, patients: np.ndarray) -> float:
    """Of a mean over images, by 1,000 bootstrap rounds over patients."""
    random = np.random.default_rng(0)
    names, members = np.unique(patients, return_inverse=True)
    sums = np.bincount(members, np.nan_to_num(difference))
    counts = np.bincount(members, ~np.isnan(difference))
    drawn = random.integers(0, len(names), (ROUNDS, len(names)))
    return float((sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)).std())


def choose(found: dict[str, Retrieval]) -> tuple[str, dict[str, str]]:
    """The variant by the rule, and each one's mean and difference in words."""
    base = found[AS_IT_IS]
    best, best_mean, said = AS_IT_IS, float(np.nanmean(base.hits)), {}
    for variant, retrieval in found.items():
        difference = retrieval.hits - base.hits
        mean, error = float(np.nanmean(retrieval.hits)), standard_error(difference, base.patients)
        said[variant] = f"{mean:.3f} ({np.nanmean(difference):+.3f}, {error:.3f})"
        if mean > best_mean and np.nanmean(difference) > error:
            best, best_mean = variant, mean
    return best, said


def main() -> None:
    """Prints the inner figures, the choices, and the figure of what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--alignment", choices=list(VARIANTS), default="similarity_map")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[], help="variants beside the recipe as it is; none: --only -")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pairs = load_pairs(options.data)
    pairs = pairs[pairs["split"] == "train"]
    pairs = pairs[["image", "patient_id", "text", "split", "view"]].reset_index(drop=True)
    folds = np.array([fold_of(patient, options.folds) for patient in pairs["patient_id"]])
    runs = Runs(pairs, folds, options.out, options.alignment)
    names = [name for name in VARIANTS[options.alignment] if not options.only or name in (AS_IT_IS, *options.only)]
    if len(names) == 1:
        found = Retrieval.join([runs.measure(AS_IT_IS, fold)[fold] for fold in range(options.folds)])
        print(json.dumps({"alignment": options.alignment, "recipe": "as it is", **found.describe()}))
        return
    judged: dict[tuple[str, int, int], Retrieval] = {}  # variant, the fold left out, the fold that judges
    for name in names:
        for first in range(options.folds):
            second = (first + 1) % options.folds
            measured = runs.measure(name, first, second)
            judged[name, first, second], judged[name, second, first] = measured[second], measured[first]
            recalls = {fold: round(float(np.nanmean(part.hits)), 3) for fold, part in measured.items()}
            print(json.dumps({"variant": name, "recall": recalls}), file=sys.stderr, flush=True)
    outer, rows = [], []
    others = {fold: [(fold + step) % options.folds for step in (1, -1)] for fold in range(options.folds)}
    for fold, inner in others.items():
        best, said = choose({name: Retrieval.join([judged[name, fold, by] for by in inner]) for name in names})
        outer.append(runs.measure(best, fold)[fold])
        rows.append({"fold": fold, "chosen": best, "recall@10": f"{np.nanmean(outer[-1].hits):.3f}", **said})
    every = {name: Retrieval.join([judged[name, a, b] for a, inner in others.items() for b in inner]) for name in names}
    best, said = choose(every)
    rows.append({"fold": "all inner", "chosen": best, "recall@10": "", **said})
    print(pd.DataFrame(rows).T.to_string(header=False))
    print(json.dumps({"alignment": options.alignment, "chosen by inner folds": Retrieval.join(outer).describe()}))


if __name__ == "__main__":
    main()
