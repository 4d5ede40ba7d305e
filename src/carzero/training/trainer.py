"""The training loop: from a recipe and a table to a folder of weights."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carzero.errors import TableError, describe
from carzero.model import CARZeroModel
from carzero.pixels import Geometry, load_radiograph
from carzero.processing import CARZeroProcessor
from carzero.training.augment import augment, normalise
from carzero.training.averaging import AveragedModel
from carzero.training.recipe import OptimiserSection, PixelSection, Recipe
from carzero.training.starting import build_start
from carzero.training.statements import SentenceBatch, Statements
from carzero.training.table import TrainingTable, load_training_table
from carzero.training.validation import mean_auroc

__all__ = ["Trainer"]

_EVALUATION_BATCH = 32
_CALIBRATION_IMAGES = 128  # of each source


class Trainer:
    """Trains a CARZero from labelled findings.

    Every step takes images of one source and contrasts them with sentences on all findings, so that the difference
    between sources teaches nothing.

    Args:
        recipe: the recipe.
        table_path: the training table, see `load_training_table`.
        out: folder for log and weights; created.
        report: called with each log record, a dict.
    """

    def __init__(
        self, recipe: Recipe, table_path: Path, out: Path, report: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> None:
        self.recipe = recipe
        self.out = out
        self.report = report
        self.statements = Statements(recipe.sentences)
        self.table: TrainingTable = load_training_table(table_path, self.statements.findings)
        self.rows = {source: self._rows("train", source) for source in recipe.sources}
        self.model: CARZeroModel
        self.processor: CARZeroProcessor
        self.model, self.processor = build_start(recipe, self.statements.all_sentences)
        self.average = AveragedModel(self.model, recipe.optimiser.average)
        self._random = np.random.default_rng(recipe.seed)
        self._torch_random = torch.Generator().manual_seed(recipe.seed)
        self._grey: dict[int, Tensor] = {}

    def run(self) -> dict[str, Any]:
        """Trains, keeps the best validated weights in `out`, and returns the best validation record."""
        self.out.mkdir(parents=True, exist_ok=True)
        self._read_images()
        calibrate(self.model, self.processor, self._squares(self._sample()), self.statements.all_sentences)
        self.average = AveragedModel(self.model, self.recipe.optimiser.average)
        options = self.recipe.optimiser
        optimiser, schedule = build_optimiser(self.model, options)
        best: dict[str, Any] = {}
        started = time.perf_counter()
        for step, (rows, labels) in enumerate(self._batches(), start=1):
            loss = self._step(rows, labels, optimiser)
            schedule.step()
            self.average.update(self.model)
            record: dict[str, Any] = {"step": step, "loss": round(loss, 5), "lr": schedule.get_last_lr()[0]}
            record["images_per_s"] = round(step * options.batch_size / (time.perf_counter() - started), 2)
            if step % self.recipe.evaluate_every == 0 or step == options.steps:
                record["validation"] = self.evaluate("val")
                if not best or record["validation"]["mean"] > best["validation"]["mean"]:
                    best = record
                    self._save()
            self._log(record)
        return best

    def evaluate(self, split: str) -> dict[str, Any]:
        """AUROC of "There is ..." per source and judged finding, and their mean over sources."""
        results: dict[str, Any] = {}
        for source, section in self.recipe.sources.items():
            rows = self.table.rows(split, source)
            if section.judged and len(rows):
                prompts = [self.statements.prompt(finding) for finding in section.judged]
                columns = [self.table.findings.index(finding) for finding in section.judged]
                results[source] = mean_auroc(
                    self.table.labels[rows][:, columns], self._score(rows, prompts), section.judged
                )
        results["mean"] = float(np.mean([value["macro"] for value in results.values()])) if results else math.nan
        return results

    @torch.inference_mode()
    def _score(self, rows: NDArray[np.int64], prompts: list[str]) -> NDArray[np.float32]:
        model, image = self.average.model, self.processor.image_processor
        tokens = self.processor.tokenize(prompts)
        with self._autocast():
            bank = model.prepare_texts(model.encode_texts(tokens["input_ids"], tokens["attention_mask"]))
            scores = []
            for chunk in np.array_split(rows, max(1, len(rows) // _EVALUATION_BATCH)):
                pixels = normalise(self._centre(chunk), image.image_mean, image.image_std)
                scores.append(model.align(model.encode_images(pixels), bank).scores.float())
        return torch.cat(scores).numpy()

    def _step(self, rows: NDArray[np.int64], labels: NDArray[np.float32], optimiser: torch.optim.Optimizer) -> float:
        set_training_mode(self.model, train_batch_norm=self.recipe.model.batch_norm == "trained")
        batch: SentenceBatch = self.statements.draw(labels, self._random)
        image = self.processor.image_processor
        grey = augment(self._squares(rows), self.recipe.pixels, self._torch_random)
        pixels = normalise(grey, image.image_mean, image.image_std)
        tokens = self.processor.tokenize(batch.texts)
        with self._autocast():
            images = self.model.encode_images(pixels)
            texts = self.model.encode_texts(tokens["input_ids"], tokens["attention_mask"])
            loss = self.model.compute_loss(self.model.align(images, texts), batch.match, batch.known)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimiser.clip)
        optimiser.step()
        return float(loss.detach())

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

    def _rows(self, split: str, source: str) -> NDArray[np.int64]:
        rows = self.table.rows(split, source)
        if len(rows) < self.recipe.optimiser.batch_size:
            raise TableError(
                describe(
                    f'The source "{source}" has too few {split} images',
                    got=len(rows),
                    expected=f"at least one batch of {self.recipe.optimiser.batch_size}",
                    then="correct the table or the recipe's sources",
                )
            )
        return rows

    def _read_images(self) -> None:
        """Reads every image once; held as 8-bit squares they take resize_px^2 bytes each."""
        used = np.flatnonzero(np.isin(self.table.sources, list(self.recipe.sources)) & (self.table.splits != "test"))
        with ThreadPoolExecutor(2) as readers:
            squares = readers.map(lambda row: read_square(str(self.table.paths[row]), self.recipe.pixels), used)
            self._grey = dict(zip((int(row) for row in used), squares, strict=True))

    def _sample(self) -> NDArray[np.int64]:
        """Some training images of every source, for statistics."""
        return np.concatenate([rows[:_CALIBRATION_IMAGES] for rows in self.rows.values()])

    def _squares(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.stack([self._grey[int(row)] for row in rows]).float()

    def _centre(self, rows: NDArray[np.int64]) -> Tensor:
        pixels = self.recipe.pixels
        start = round((pixels.resize_px - pixels.crop_px) / 2)
        return self._squares(rows)[:, start : start + pixels.crop_px, start : start + pixels.crop_px]

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.optimiser.precision == "bfloat16")

    def _save(self) -> None:
        weights = self.out / "weights"
        # A copy in the saved precision; on-disk tensors must not depend on the memory layout used in training.
        model = CARZeroModel(self.model.config)
        model.load_state_dict(self.average.model.state_dict())
        model.to(getattr(torch, self.recipe.save_dtype)).save_pretrained(weights)
        self.processor.save_pretrained(weights)

    def _log(self, record: dict[str, Any]) -> None:
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.report(record)


def read_square(path: str, pixels: PixelSection) -> Tensor:
    """Reads a picture as the model's padded square before the crop: (resize_px, resize_px) uint8."""
    radiograph = load_radiograph(path)
    height, width = radiograph.pixels.shape
    geometry = Geometry.fit(height, width, resize_px=pixels.resize_px, crop_px=pixels.resize_px)
    return torch.from_numpy(geometry.apply(radiograph.pixels)).to(torch.uint8)


def set_training_mode(model: CARZeroModel, *, train_batch_norm: bool) -> None:
    """Switches dropout on where something is trained, and batch statistics only if they are to be trained."""
    model.train()
    for tower in (model.vision_model, model.text_model):
        if not any(parameter.requires_grad for parameter in tower.parameters()):
            tower.eval()
    if not train_batch_norm:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


@torch.no_grad()
def calibrate(model: CARZeroModel, processor: CARZeroProcessor, squares: Tensor, sentences: list[str]) -> None:
    """Sets the statistics of the projections from a sample of images and all sentences.

    Args:
        model: the model at its start; one without projections is left as it is.
        processor: its processor.
        squares: (I, resize_px, resize_px) grey levels in [0, 255].
        sentences: texts.
    """
    if model.config.projection_dim is None:
        return
    model.eval()
    image = processor.image_processor
    margin = (image.resize_px - image.crop_px) // 2
    centre = squares[:, margin : margin + image.crop_px, margin : margin + image.crop_px]
    pixels = normalise(centre, image.image_mean, image.image_std)
    parts = [model.raw_image_features(chunk) for chunk in pixels.split(_EVALUATION_BATCH)]
    model.vision_projection.calibrate(torch.cat([p.pooled for p in parts]), torch.cat([p.local for p in parts]))
    tokens = processor.tokenize(sentences)
    texts = model.raw_text_features(tokens["input_ids"], tokens["attention_mask"])
    model.text_projection.calibrate(texts.pooled, texts.local)


def build_optimiser(
    model: CARZeroModel, options: OptimiserSection
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW, without decay on norms and biases, and its schedule: linear warm-up, then cosine to zero."""
    rates = {"vision_model.": options.lr_vision or options.lr, "text_model.": options.lr_text or options.lr}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = next((value for prefix, value in rates.items() if name.startswith(prefix)), options.lr)
            decay = options.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    optimiser = torch.optim.AdamW(
        [{"params": chosen, "lr": rate, "weight_decay": decay} for (rate, decay), chosen in groups.items()],
        betas=options.betas,
    )
    warmup = max(1, round(options.warmup * options.steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, options.steps - warmup)))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
