"""The task of a training run: images against the sentences that hold for them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carzero.data.pairs import PairTable
from carzero.errors import ConfigurationError, TableError, describe
from carzero.model import CARZeroConfig, CARZeroModel
from carzero.model.alignment import find_alignment
from carzero.prompts import TrainingWords
from carzero.training.batches.boxes import BoxLoader
from carzero.training.batches.image_cache import share_images
from carzero.training.batches.inputs import ImageInputs, TextInputs
from carzero.training.batches.loader import BatchLoader, StepBatch
from carzero.training.batches.sampler import Selection, StepRows, count_steps, sample_steps
from carzero.training.batches.statements import FindingStatements, ReportStatements, to_sentences
from carzero.training.distributed import DistributedContext
from carzero.training.progress import RunObserver, StepRecord, Validation, check_best_can_be_chosen
from carzero.training.recipes import Recipe
from carzero.training.run_folder import RunFolder
from carzero.training.start.initialise import build_start, merge_adapters
from carzero.training.tasks.objective import ContrastiveObjective
from carzero.training.tasks.preparation import cache_image_features, cache_text_features, calibrate_projections
from carzero.training.tasks.validation import Validator
from carzero.training.weights_folder import save_folder, write_card
from carzero.weights.source import WeightsSource

_ONE_WORD = 0.85  # likeness of two spellings of one finding
_LEAST_IMAGES = 3  # whose reports must have a wording or an unknown word that is kept with the weights


class ContrastiveTask:
    """Images against sentences; see `carzero.training.loop.Task`.

    Args:
        recipe: the recipe.
        table: the training table.
        context: device and processes.
        cache: folder of read images and features of frozen towers.
        observer: told of the images that are read.

    Raises:
        TableError: the table has nothing to learn from, too few rows, or images that cannot be read.
        ConfigurationError: the recipe's parts do not fit each other or the table.
    """

    items = "images"

    def __init__(
        self, recipe: Recipe, table: PairTable, context: DistributedContext, cache: Path, observer: RunObserver
    ) -> None:
        self._recipe, self._table = recipe, table
        self.train_batch_norm, self.best_by = recipe.model.batch_norm == "trained", recipe.best_by
        statements = _build_statements(recipe, table)
        prompts = _prompts(recipe)
        selection = Selection(table, _is_known(statements), recipe.sources, recipe.judged, recipe.train_splits)
        expected = 'rows with split "val" in the table'
        check_best_can_be_chosen(recipe.keep, is_validated=selection.is_validated, expected=expected)
        self._sources, self.is_validated = selection.sources, selection.is_validated
        if isinstance(statements, ReportStatements):
            unmirrored = statements.describe_unmirrored(selection.trained)
            if unmirrored is not None and context.is_main:
                observer.say(f"note: {unmirrored}")
        self.steps = count_steps(self._sources, recipe.optimiser, processes=context.world)
        every = [*statements.all_sentences, *prompts.values()]
        self._model, self._processor = build_start(recipe.model, recipe.pixels, recipe.memory, recipe.seed, every)
        self._objective = ContrastiveObjective(self.model, recipe.loss, recipe.optimiser, recipe.memory)
        self.all_used = uses_every_parameter(self.model.config)
        rows = np.unique(np.concatenate([selection.trained, selection.validated_rows]))
        cached = share_images(table.images, rows, recipe.pixels.resize_px, cache, context, observer.count_images)
        images = ImageInputs(
            cached, recipe.pixels, seed=recipe.seed, device=context.device, mirrorable=statements.mirrorable
        )
        texts = TextInputs(self._processor, context.device)
        self._trained = selection.trained
        boxes = _build_boxes(recipe, table, self._trained, statements, images, texts)
        self._loader = BatchLoader(statements, images, texts, context, recipe.seed, boxes)
        self._validator = Validator(table, selection, self._loader, prompts, recipe.optimiser.batch_sizes[0])
        if recipe.keep == "best" or recipe.optimiser.early_stop is not None:
            self._validator.check_measurable(recipe.best_by)
        self._prepare(selection, cache, observer)

    @property
    def objective(self) -> ContrastiveObjective:
        """Turns a batch into its loss."""
        return self._objective

    @property
    def model(self) -> CARZeroModel:
        """What is trained."""
        return self._model

    def sample(self, after: int) -> Iterator[StepRows]:
        """The steps behind the first `after`."""
        return sample_steps(self._sources, self._recipe.optimiser, self._recipe.seed, after=after)

    def load(self, sampled: StepRows) -> StepBatch:
        """This process's batch of a step."""
        return self._loader.load(sampled)

    def validate(self, objective: ContrastiveObjective) -> Validation:
        """See `Validator`."""
        return self._validator.validate(objective)

    def save(self, objective: ContrastiveObjective, folder: RunFolder, record: StepRecord) -> None:
        """Writes weights, processor and model card."""
        splits = np.array(self._table.splits)
        data = {
            **{f"{split} images": int((splits == split).sum()) for split in ("train", "val", "test")},
            "patients": len(set(self._table.patients) - {""}),
            "sources": sorted(set(self._table.sources)),
        }
        card, dtype = write_card(self._recipe, data, record), self._recipe.save_dtype
        model = merge_adapters(objective.model)
        save_folder(model, self._processor, folder.weights, card=card, dtype=dtype, words=self._training_words)

    @cached_property
    def _training_words(self) -> TrainingWords | None:
        """What the run's sentences speak of; None where it starts from weights of which that is not known."""
        statements = self._loader.statements
        # What a report says once may be a name; a recipe's own phrases are not a report.
        least = _LEAST_IMAGES if isinstance(statements, ReportStatements) else 1
        words = TrainingWords.of(statements.count_sentences(self._trained), least=least)
        if self._recipe.model.start is None:
            return words
        earlier = WeightsSource(self._recipe.model.start).training_words
        return None if earlier is None else earlier.joined(words)

    def _prepare(self, selection: Selection, cache: Path, observer: RunObserver) -> None:
        """Everything that is computed once, before the first step."""
        sentences = self._loader.statements.all_sentences
        self.objective.to(self._loader.context.device).eval()
        if self._recipe.model.start is None:
            calibrate_projections(self.objective, self._loader, selection.trained, sentences)
        limit = self._recipe.memory.cached_features_gb * 2**30
        cache_text_features(self.objective, self._loader.texts, sentences, limit=limit)
        steps, precision = self.sample(after=0), self._recipe.optimiser.precision
        cache_image_features(
            self.objective,
            self._loader,
            selection,
            steps,
            cache,
            limit=limit,
            precision=precision,
            advance=observer.count_encoded,
        )


def uses_every_parameter(config: CARZeroConfig) -> bool:
    """Whether every parameter gets a gradient at every step, so that processes need not search for those that do not.

    Other towers than ViT hold parameters that take no part, such as DINOv2's mask token; an alignment may read no local
    features, and layers behind the one that is read are computed for nothing.
    """
    is_whole = not config.vision_feature_layers
    alignment = find_alignment(config.alignment)
    return config.vision_config.model_type == "vit" and alignment.uses_every_parameter and is_whole


def _build_statements(recipe: Recipe, table: PairTable) -> ReportStatements | FindingStatements:
    """Where the sentences come from: the recipe's findings, or the table's reports."""
    mirrors = recipe.pixels.flip > 0
    if recipe.sentences is not None:
        labelled = FindingStatements(
            recipe.sentences, table.present, table.absent, mirrors=mirrors, wording=recipe.wording
        )
        _check_spelling([*labelled.findings, *recipe.all_judged], table)
        if not labelled.is_known.any():
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


def _build_boxes(
    recipe: Recipe,
    table: PairTable,
    trained: NDArray[np.int64],
    statements: ReportStatements | FindingStatements,
    images: ImageInputs,
    texts: TextInputs,
) -> BoxLoader | None:
    """Where boxes are drawn from; None where no map is to be compared with any."""
    if not recipe.loss.boxes:
        return None
    if isinstance(statements, ReportStatements):
        raise ConfigurationError(
            describe(
                "Boxes belong to findings, and this run learns reports",
                got=f"loss.boxes {recipe.loss.boxes:g}",
                expected="`sentences` in the recipe that name the findings",
                then="add `sentences`, or set loss.boxes: 0",
            )
        )
    return BoxLoader(table, trained, statements, images, texts, recipe.seed)


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


def _is_known(statements: ReportStatements | FindingStatements) -> NDArray[np.bool_]:
    """(N,) the rows of which the statements have something to say."""
    if isinstance(statements, ReportStatements):
        return np.array([bool(pool) for pool in statements.pools], dtype=bool)
    return statements.is_known


def _prompts(recipe: Recipe) -> dict[str, str]:
    """The sentence that asks for each judged finding."""
    phrases = dict(recipe.sentences or {})
    asked = {finding: phrases.get(finding, [finding]) for finding in recipe.all_judged}
    return {finding: pool[0] for finding, pool in to_sentences(asked)[0].items()}
