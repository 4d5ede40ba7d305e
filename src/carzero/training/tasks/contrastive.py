"""The task of a training run: images against the sentences that hold for them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from carzero._version import __version__
from carzero.data.pairs import PairTable
from carzero.errors import ConfigurationError, TableError, describe
from carzero.model import CARZeroConfig, CARZeroModel
from carzero.training.batches.inputs import StepBatch, TextInputs
from carzero.training.batches.loader import BatchLoader
from carzero.training.batches.sampler import StepPlan, count_steps, plan_steps
from carzero.training.batches.selection import Selection
from carzero.training.batches.statements import FindingStatements, ReportStatements, to_sentences
from carzero.training.distributed import Engine
from carzero.training.recipes import Recipe
from carzero.training.run_folder import RunFolder
from carzero.training.start.initialise import build_start, merge_adapters
from carzero.training.tasks.objective import ContrastiveObjective
from carzero.training.tasks.preparation import load_images, prepare_towers
from carzero.training.tasks.validation import Judge
from carzero.training.weights_folder import save_folder, write_card

_ONE_WORD = 0.85  # likeness of two spellings of one finding


class ContrastiveTask:
    """Images against sentences; see `carzero.training.loop.Task`.

    Args:
        recipe: the recipe.
        table: the training table.
        engine: device and processes.
        cache: folder of read pictures and features of frozen towers.
        progress: called with pictures read, and their number.

    Raises:
        TableError: the table has nothing to learn from, too few rows, or pictures that cannot be read.
        ConfigurationError: the recipe's parts do not fit each other or the table.
    """

    things = "images"

    def __init__(
        self, recipe: Recipe, table: PairTable, engine: Engine, cache: Path, progress: Callable[[int, int], None]
    ) -> None:
        self._recipe, self._table = recipe, table
        self.train_batch_norm = recipe.model.batch_norm == "trained"
        statements = _build_statements(recipe, table)
        prompts = _prompts(recipe)
        self._selection = Selection(recipe, table, _told(statements))
        self.steps = count_steps(self._selection.pools, recipe.optimiser, processes=engine.world)
        self.is_validated = self._selection.is_validated
        self._model, self._processor = build_start(recipe, [*statements.all_sentences, *prompts.values()])
        self._objective = ContrastiveObjective(self.model, recipe.loss, recipe.optimiser, recipe.memory)
        self.all_used = uses_every_parameter(self.model.config)
        texts = TextInputs(self._processor, engine.device)
        images = load_images(recipe, table, self._selection, engine, cache, progress)
        sentences = statements.all_sentences
        plans = self.plan(after=0)
        prepare_towers(recipe, self._objective, images, texts, self._selection, plans, sentences, engine, cache)
        self._loader = BatchLoader(statements, images, texts, engine, recipe.seed)
        self._judge = Judge(recipe, table, self._selection, statements, prompts, images, texts, self._loader)

    @property
    def objective(self) -> ContrastiveObjective:
        """Turns a batch into its loss."""
        return self._objective

    @property
    def model(self) -> CARZeroModel:
        """What is trained."""
        return self._model

    def plan(self, after: int) -> Iterator[StepPlan]:
        """The steps behind the first `after`."""
        return plan_steps(self._selection.pools, self._recipe.optimiser, self._recipe.seed, after=after)

    def load(self, plan: StepPlan) -> StepBatch:
        """This process's batch of a step."""
        return self._loader.load(plan)

    def validate(self, objective: ContrastiveObjective) -> dict[str, Any]:
        """See `Judge`."""
        return self._judge.validate(objective)

    def is_better(self, validation: dict[str, Any], best: dict[str, Any]) -> bool:
        """See `Judge`."""
        return self._judge.is_better(validation, best)

    def save(self, objective: ContrastiveObjective, folder: RunFolder, record: dict[str, Any]) -> None:
        """Writes weights, processor and model card."""
        splits = np.array(self._table.splits)
        counts = {f"{split} images": int((splits == split).sum()) for split in ("train", "val", "test")}
        card = write_card(
            self._recipe.name,
            {
                "Data": {
                    **counts,
                    "patients": len(set(self._table.patients) - {""}),
                    "sources": sorted(set(self._table.sources)),
                },
                "Result on validation images": record.get("validation", "Nothing was validated."),
                "Step": {key: value for key, value in record.items() if key != "validation"},
                "Recipe": self._recipe.model_dump(mode="json"),
                "Software": {"carzero": __version__, "torch": str(torch.__version__)},
            },
        )
        parts = [merge_adapters(objective.model), self._processor]
        save_folder(parts, folder.weights, card=card, dtype=self._recipe.save_dtype)


def uses_every_parameter(config: CARZeroConfig) -> bool:
    """Whether every parameter gets a gradient at every step, so that processes need not search for those that do not.

    Other towers than ViT hold parameters that take no part, such as DINOv2's mask token; a cosine reads no local
    features, and layers behind the one that is read are computed for nothing.
    """
    is_whole = config.vision_feature_layer is None
    return config.vision_config.model_type == "vit" and config.alignment == "simr" and is_whole


def _build_statements(recipe: Recipe, table: PairTable) -> ReportStatements | FindingStatements:
    """Where the sentences come from: the recipe's findings, or the table's reports."""
    mirrors = recipe.pixels.flip > 0
    if recipe.sentences is not None:
        labelled = FindingStatements(recipe.sentences, table.present, table.absent, mirrors=mirrors)
        _check_spelling([*labelled.findings, *recipe.all_judged], table)
        if not labelled.told.any():
            raise TableError(
                describe(
                    "The table knows none of the recipe's findings",
                    got=sorted(_named(table))[:10],
                    expected=f"some of {', '.join(labelled.findings[:10])} in its columns present and absent",
                )
            )
        return labelled
    statements = ReportStatements(table.sentences, recipe.reports, mirrors=mirrors)
    if not statements.all_sentences:
        raise TableError(
            describe(
                "The table has no report to learn from",
                expected="a column text, impression, findings or sentences; or a recipe with `sentences`",
            )
        )
    return statements


def _named(table: PairTable) -> set[str]:
    """Every finding that the table names."""
    return {name for row in (*table.present, *table.absent) for name in row}


def _check_spelling(findings: Sequence[str], table: PairTable) -> None:
    """A finding that a table does not name may be left out of it on purpose, but not one that it spells otherwise.

    Raises:
        ConfigurationError: there is such a finding.
    """
    named = _named(table)
    folded = {name.casefold(): name for name in named}
    for finding in findings:
        near = (
            difflib.get_close_matches(finding.casefold(), folded, n=1, cutoff=_ONE_WORD) if finding not in named else []
        )
        if near:
            raise ConfigurationError(
                describe(
                    "The recipe names a finding that the table spells otherwise",
                    got=finding,
                    expected=folded[near[0]],
                    then="write it in the recipe as in the table's columns present and absent",
                )
            )


def _told(statements: ReportStatements | FindingStatements) -> Any:
    """(N,) bool: the rows of which the statements have something to say."""
    if isinstance(statements, ReportStatements):
        return np.array([bool(pool) for pool in statements.pools], dtype=bool)
    return statements.told


def _prompts(recipe: Recipe) -> dict[str, str]:
    """The sentence that asks for each judged finding."""
    phrases = dict(recipe.sentences or {})
    asked = {finding: phrases.get(finding, [finding]) for finding in recipe.all_judged}
    return {finding: pool[0] for finding, pool in to_sentences(asked)[0].items()}
