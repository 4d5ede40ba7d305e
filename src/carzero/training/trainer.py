"""The training loop: from a recipe and a table to a folder of weights."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from carzero.errors import TableError, describe
from carzero.model import AlignmentOutput, CARZeroModel
from carzero.model.loss import sigmoid_loss
from carzero.training.averaging import AveragedModel
from carzero.training.inputs import TrainingInputs
from carzero.training.optimiser import build_optimiser, set_training_mode
from carzero.training.recipe import Recipe
from carzero.training.starting import build_start
from carzero.training.statements import SentenceBatch, Statements
from carzero.training.table import TrainingTable, load_training_table
from carzero.training.validation import mean_auroc

__all__ = ["Trainer"]

_EVALUATION_BATCH = 32


class Trainer:
    """Trains a CARZero from labelled findings.

    Every step takes images of one source and contrasts them with sentences on all findings, so that the difference
    between sources teaches nothing.

    Args:
        recipe: the recipe.
        table_path: the training table, see `load_training_table`.
        out: folder for log and weights; created.
        report: called with each log record, a dict.

    Raises:
        TableError: the table is wrong, or a source has fewer training images than a batch.
        ConfigurationError: the recipe's parts do not fit each other.
    """

    def __init__(
        self, recipe: Recipe, table_path: Path, out: Path, report: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> None:
        self.recipe = recipe
        self.out = out
        self.report = report
        self.statements = Statements(recipe.sentences)
        self.table: TrainingTable = load_training_table(table_path, self.statements.findings)
        self.rows = {source: self._training_rows(source) for source in recipe.sources}
        self.model: CARZeroModel
        self.model, self.processor = build_start(recipe, self.statements.all_sentences)
        self.average = AveragedModel(self.model, recipe.optimiser.average)
        self.inputs = TrainingInputs(
            self.model, self.processor, recipe.pixels, seed=recipe.seed, precision=recipe.optimiser.precision
        )
        self._random = np.random.default_rng(recipe.seed)

    def run(self) -> dict[str, Any]:
        """Trains, saves weights into `out`, and returns the log record of the step that was kept."""
        self.out.mkdir(parents=True, exist_ok=True)
        self._prepare()
        options = self.recipe.optimiser
        optimiser, schedule = build_optimiser(self.model, options)
        kept: dict[str, Any] = {}
        started = time.perf_counter()
        for step, (rows, labels) in enumerate(self._batches(), start=1):
            record: dict[str, Any] = {"step": step, "lr": schedule.get_last_lr()[0]}
            record["loss"] = round(self._step(rows, labels, optimiser), 5)
            schedule.step()
            self.average.update(self.model)
            record["images_per_s"] = round(step * options.batch_size / (time.perf_counter() - started), 1)
            if self._is_better(record, kept):
                kept = record
                self._save(record)
            self._log(record)
        return kept

    def evaluate(self, split: str) -> dict[str, Any]:
        """AUROC of "There is ..." per source and judged finding, and the mean over sources."""
        results: dict[str, Any] = {}
        for source, section in self.recipe.sources.items():
            rows = self.table.rows(split, source)
            if section.judged and len(rows):
                prompts = [self.statements.prompt(finding) for finding in section.judged]
                columns = [self.table.findings.index(finding) for finding in section.judged]
                truth = self.table.labels[rows][:, columns]
                results[source] = mean_auroc(truth, self._score(rows, prompts), section.judged)
        if results:
            results["mean"] = float(np.mean([value["macro"] for value in results.values()]))
        return results

    def _prepare(self) -> None:
        trained = np.concatenate(list(self.rows.values()))
        validated = np.empty(0, np.int64)
        if "val" not in self.recipe.train_splits:
            validated = np.concatenate([self.table.rows("val", source) for source in self.recipe.sources])
        self.inputs.read([str(path) for path in self.table.paths], np.concatenate([trained, validated]))
        self.inputs.prepare(trained, validated, self.statements.all_sentences)

    def _is_better(self, record: dict[str, Any], kept: dict[str, Any]) -> bool:
        """Validates where it is time to, and says whether this step's weights are to be kept."""
        last = record["step"] == self.recipe.optimiser.steps
        if "val" not in self.recipe.train_splits and (last or record["step"] % self.recipe.evaluate_every == 0):
            record["validation"] = self.evaluate("val")
        if self.recipe.keep == "last":
            return bool(last)
        if "validation" not in record:
            return False
        return not kept or bool(record["validation"]["mean"] > kept["validation"]["mean"])

    @torch.inference_mode()
    def _score(self, rows: NDArray[np.int64], prompts: list[str]) -> NDArray[np.float32]:
        model = self.average.model
        tokens = self.processor.tokenize(prompts)
        scores = []
        bank = model.prepare_texts(model.encode_texts(tokens["input_ids"], tokens["attention_mask"]))
        for chunk in np.array_split(rows, max(1, len(rows) // _EVALUATION_BATCH)):
            images = model.project_images(self.inputs.plain(chunk, model))
            scores.append(model.align(images, bank).scores)
        return torch.cat(scores).numpy()

    def _step(self, rows: NDArray[np.int64], labels: NDArray[np.float32], optimiser: torch.optim.Optimizer) -> float:
        set_training_mode(self.model, train_batch_norm=self.recipe.model.batch_norm == "trained")
        batch = self.statements.draw(labels, self._random)
        images = self.model.project_images(self.inputs.draw(rows, self._random))
        texts = self.model.project_texts(self.inputs.texts(batch.texts))
        loss = self._loss(self.model.align(images, texts), batch)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimiser.clip)
        optimiser.step()
        return float(loss.detach())

    def _loss(self, aligned: AlignmentOutput, batch: SentenceBatch) -> Tensor:
        options = self.recipe.loss
        loss = options.contrastive * self.model.compute_loss(aligned, batch.match, batch.known)
        if options.sigmoid:
            for direction in (aligned.logits_i2t, aligned.logits_t2i.T):
                part = sigmoid_loss(direction, batch.match, batch.known, smoothing=options.smoothing)
                loss = loss + options.sigmoid * part
        return loss

    def _batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Batches of one source each, sources by share, every image of a source once before any twice."""
        names = list(self.recipe.sources)
        shares = np.array([self.recipe.sources[name].share for name in names])
        size = self.recipe.optimiser.batch_size
        queues: dict[str, NDArray[np.int64]] = {name: np.empty(0, np.int64) for name in names}
        for _ in range(self.recipe.optimiser.steps):
            name = names[int(self._random.choice(len(names), p=shares / shares.sum()))]
            if len(queues[name]) < size:
                queues[name] = np.concatenate([queues[name], self._random.permutation(self.rows[name])])
            rows, queues[name] = queues[name][:size], queues[name][size:]
            yield rows, self.table.labels[rows]

    def _training_rows(self, source: str) -> NDArray[np.int64]:
        rows = np.concatenate([self.table.rows(split, source) for split in self.recipe.train_splits])
        if len(rows) < self.recipe.optimiser.batch_size:
            raise TableError(
                describe(
                    f'The source "{source}" has too few training images',
                    got=len(rows),
                    expected=f"at least one batch of {self.recipe.optimiser.batch_size}",
                    then="correct the table or the recipe's sources",
                )
            )
        return rows

    def _save(self, record: dict[str, Any]) -> None:
        weights = self.out / "weights"
        model = CARZeroModel(self.model.config)
        model.load_state_dict(self.average.model.state_dict())
        model.to(getattr(torch, self.recipe.save_dtype)).save_pretrained(weights)
        self.processor.save_pretrained(weights)
        for file in weights.iterdir():  # the weights' writer keeps its file from other users
            file.chmod(0o644)
        recipe = {"recipe": self.recipe.model_dump(mode="json"), "kept": record}
        (self.out / "run.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")

    def _log(self, record: dict[str, Any]) -> None:
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.report(record)
