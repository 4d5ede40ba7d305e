"""Pretraining of the text tower: word pieces are hidden and guessed from the sentence (Devlin et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from carzero.data.sentences import load_sentences
from carzero.errors import TableError, describe
from carzero.text_cleaning import clean_text
from carzero.tokenizing import load_tokenizer
from carzero.training.engine import Engine
from carzero.training.masked_language_model import build_language_model, measure_guesses
from carzero.training.masking import IGNORED, mask_pieces
from carzero.training.pretrain_recipes import TextPretrainRecipe
from carzero.training.pretraining import MaskedBatch, MaskedObjective, PretrainingTask
from carzero.training.randomness import seed_torch, torch_generator_for
from carzero.training.run import run_task
from carzero.training.wordpieces import learn_wordpieces

__all__ = ["MaskedTexts", "pretrain_text"]

_MASKS, _VALIDATION_MASKS = 6, 7  # purposes of random numbers


def pretrain_text(
    recipe: TextPretrainRecipe,
    table_path: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    columns: Mapping[str, str] | None = None,
    device: str | None = None,
    report: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Pretrains a text tower, and returns the log record of the weights that were kept.

    They are in `out`/weights: an ordinary BERT with its tokenizer, for `model.text.start` and `model.text.tokenizer`.
    Sentences are cleaned as CARZero cleans them; each distinct one is seen once an epoch. Validation sentences that
    are also trained on are left out of the validation.

    Args:
        recipe: what is trained, and how.
        table_path: a table or a text file, see `load_sentences`.
        out: see `run_task`.
        resume: see `run_task`.
        columns: names that the table uses for our columns.
        device: see `Engine`.
        report: see `run_task`.

    Raises:
        TableError: the table is wrong, or has fewer training sentences than a batch.
        ConfigurationError: the recipe's parts do not fit each other.
        WeightsError: the start or the tokenizer cannot be loaded.
        RunError: the run cannot start, go on or be resumed; `InterruptedRunError` if it was asked to stop.
    """
    found = load_sentences(table_path, columns=columns)
    trained = _clean(found.get("train", []))
    known = set(trained)
    validated = [sentence for sentence in _clean(found.get("val", [])) if sentence not in known]
    if not trained:
        raise TableError(
            describe(
                f"{table_path} has nothing to learn from",
                got=f"{len(found.get('train', []))} training sentences, none left by cleaning",
                expected="sentences of two words or more in split train",
            )
        )

    def build(engine: Engine) -> PretrainingTask:
        return _build_task(recipe, trained, validated, engine)

    return run_task(build, recipe, table_path, out, columns=columns, resume=resume, device=device, report=report)


class MaskedTexts:
    """Sentences with hidden word pieces; see `MaskedData`.

    Args:
        sentences: cleaned.
        tokenizer: of the model.
        recipe: the recipe.
        engine: device and processes.
    """

    things = "sentences"
    what = "A text tower for reports of chest radiographs, pretrained by masked language modelling."

    def __init__(
        self,
        sentences: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        recipe: TextPretrainRecipe,
        engine: Engine,
    ) -> None:
        self._sentences, self._tokenizer, self._recipe, self._engine = sentences, tokenizer, recipe, engine
        self._special = torch.tensor(tokenizer.all_special_ids)

    def load(self, rows: NDArray[np.int64], step: int) -> MaskedBatch:
        """Pieces hidden by seed and step."""
        return self._hide(rows, _MASKS, step)

    def load_plain(self, rows: NDArray[np.int64], number: int) -> MaskedBatch:
        """Pieces hidden by seed and number."""
        return self._hide(rows, _VALIDATION_MASKS, number)

    def to_parts(self, model: Any) -> list[Any]:
        """The tower without what guesses, and its tokenizer."""
        return [model.base_model, self._tokenizer]

    def _hide(self, rows: NDArray[np.int64], purpose: int, place: int) -> MaskedBatch:
        encoded = self._tokenizer(
            [self._sentences[row] for row in rows],
            padding="longest",
            truncation=True,
            max_length=self._recipe.max_text_length,
            return_tensors="pt",
        )
        # Of all processes, so that hidden pieces and their number do not depend on who reads them.
        hidden, labels = mask_pieces(
            encoded["input_ids"],
            torch.isin(encoded["input_ids"], self._special),
            mask_id=int(self._tokenizer.mask_token_id),
            vocabulary=len(self._tokenizer),
            probability=self._recipe.mask_probability,
            random=torch_generator_for(self._recipe.seed, purpose, place),
        )
        own, device = self._engine.share(len(rows)), self._engine.device
        inputs = tuple(tensor[own].to(device) for tensor in (hidden, encoded["attention_mask"], labels))
        total = int((labels != IGNORED).sum())
        return MaskedBatch(inputs, max(1, total), -(-len(rows) // self._engine.world))


def _build_task(
    recipe: TextPretrainRecipe, trained: list[str], validated: list[str], engine: Engine
) -> PretrainingTask:
    seed_torch(recipe.seed)
    if recipe.text.vocabulary is not None:
        tokenizer: PreTrainedTokenizerBase = learn_wordpieces(trained, recipe.text.vocabulary)
    else:
        tokenizer = load_tokenizer(str(recipe.text.tokenizer))
    model = build_language_model(recipe, tokenizer)
    data = MaskedTexts([*trained, *validated], tokenizer, recipe, engine)
    objective = MaskedObjective(model, measure_guesses, recipe, recipe.memory.text_block)
    rows = np.arange(len(trained) + len(validated))
    return PretrainingTask(recipe, engine, objective, data, rows[: len(trained)], rows[len(trained) :])


def _clean(sentences: Sequence[str]) -> list[str]:
    """Distinct sentences as the tower reads them; those that cleaning empties are left out."""
    return list(dict.fromkeys(filter(None, map(clean_text, sentences))))
