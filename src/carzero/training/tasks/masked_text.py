"""Pretraining of the text tower: word pieces are masked and predicted from the sentence (Devlin et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from carzero.data.pairs import load_sentences
from carzero.errors import ConfigurationError, TableError, describe, first_line
from carzero.text.cleaning import clean_text
from carzero.text.tokenizers import learn_wordpieces, load_tokenizer
from carzero.training.batches.sampler import seed_torch, torch_generator_for
from carzero.training.distributed import DistributedContext
from carzero.training.progress import UNOBSERVED, RunObserver, StepRecord
from carzero.training.recipes import TextPretrainRecipe
from carzero.training.run import run_task
from carzero.training.start.towers import build_config, load_tower
from carzero.training.tasks.masked import MaskedBatch, MaskedObjective, PretrainingTask

IGNORED = -100  # label of a piece that is not to be predicted
_MASKED, _EXCHANGED = 0.8, 0.1  # of the pieces to be predicted; the others stay as they are


def mask_pieces(
    input_ids: Tensor, special: Tensor, *, mask_id: int, vocabulary: int, probability: float, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Chooses pieces to be predicted: 80 % become the mask, 10 % another piece, 10 % stay.

    Args:
        input_ids: (T, W).
        special: (T, W) bool, True where nothing is to be predicted: start, end, padding.
        mask_id: of the mask.
        vocabulary: number of pieces, all of which may take a piece's place, as in BERT.
        probability: of a piece to be chosen. At least one of the batch is, so that there is a loss.
        random: draws everything.

    Returns:
        ids with masked pieces, (T, W); labels (T, W): the id of a chosen piece, `IGNORED` elsewhere.
    """
    draw = torch.rand(input_ids.shape, generator=random).masked_fill(special, 2.0)
    chosen = ((draw < probability) | (draw == draw.min())) & ~special
    fate = torch.rand(input_ids.shape, generator=random)
    others = torch.randint(vocabulary, input_ids.shape, generator=random)
    masked = input_ids.masked_fill(chosen & (fate < _MASKED), mask_id)
    masked = torch.where(chosen & (fate >= 1 - _EXCHANGED), others, masked)
    return masked, input_ids.masked_fill(~chosen, IGNORED)


def build_language_model(recipe: TextPretrainRecipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Builds tower and head; random numbers come from torch's global generator.

    Raises:
        ConfigurationError: the tokenizer and the tower do not fit, or the kind predicts no words.
        WeightsError: the start cannot be loaded.
    """
    if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
        raise ConfigurationError(
            describe("The tokenizer has no token to mask words with, or none for padding", got=recipe.text.tokenizer)
        )
    if recipe.text.start == "random":
        fields = {"vocab_size": len(tokenizer), **recipe.text.config}
        config = build_config(fields, "bert", pad_token_id=tokenizer.pad_token_id)
        _check_sizes(config, recipe, tokenizer)
        try:
            built: PreTrainedModel = AutoModelForMaskedLM.from_config(config)
        except ValueError as error:
            raise ConfigurationError(
                describe("No language model can be built with these settings", got=first_line(error))
            ) from error
        return built
    model = load_tower(recipe.text.start, AutoModelForMaskedLM)
    _check_sizes(model.config, recipe, tokenizer)
    return model


def measure_predictions(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each text's masked pieces, summed: (T,); arguments (T, W), as `mask_pieces` makes them."""
    logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
    chosen = labels != IGNORED
    losses = F.cross_entropy(logits[chosen].to(model.dtype), labels[chosen], reduction="none")
    return losses.new_zeros(len(labels)).index_add(0, chosen.nonzero()[:, 0], losses)


def _check_sizes(config: PreTrainedConfig, recipe: TextPretrainRecipe, tokenizer: PreTrainedTokenizerBase) -> None:
    positions = getattr(config, "max_position_embeddings", recipe.max_text_length)
    if len(tokenizer) > config.vocab_size or recipe.max_text_length > positions:
        raise ConfigurationError(
            describe(
                "The text tower does not fit its texts",
                got=f"{len(tokenizer)} pieces for vocab_size {config.vocab_size}, max_text_length "
                f"{recipe.max_text_length} for max_position_embeddings {positions}",
                expected="pieces and lengths within the tower's",
                then="take the tokenizer that belongs to the tower, and a max_text_length that it has positions for",
            )
        )


_MASKS, _VALIDATION_MASKS = 6, 7  # purposes of random numbers


def pretrain_text(
    recipe: TextPretrainRecipe,
    table_path: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    columns: Mapping[str, str] | None = None,
    device: str | None = None,
    observer: RunObserver = UNOBSERVED,
) -> StepRecord:
    """Pretrains a text tower, and returns the record of the step whose weights were kept.

    They are in `out`/weights: an ordinary BERT with its tokenizer, for `model.text.start` and `model.text.tokenizer`.
    Sentences are cleaned as CARZero cleans them; each distinct one is seen once an epoch. Validation sentences that
    are also trained on are left out of the validation.

    `table_path` is a table or a text file, see `load_sentences`. What else it takes is that of
    `carzero.training.run.train`.

    Raises:
        WeightsError: the start or the tokenizer cannot be loaded. For the other errors see `train`.
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

    def build(context: DistributedContext) -> PretrainingTask[PreTrainedModel]:
        seed_torch(recipe.seed)
        tokenizer = (
            load_tokenizer(str(recipe.text.tokenizer))
            if recipe.text.vocabulary is None
            else learn_wordpieces(trained, recipe.text.vocabulary)
        )
        model = build_language_model(recipe, tokenizer)
        data = MaskedTexts([*trained, *validated], tokenizer, recipe, context)
        objective = MaskedObjective(model, measure_predictions, recipe, recipe.memory.text_block)
        rows = np.arange(len(trained) + len(validated))
        return PretrainingTask(recipe, context, objective, data, rows[: len(trained)], rows[len(trained) :])

    return run_task(build, recipe, table_path, out, columns=columns, resume=resume, device=device, observer=observer)


class MaskedTexts:
    """Sentences with masked word pieces; see `MaskedData`.

    Args:
        sentences: cleaned.
        tokenizer: of the model.
        recipe: the recipe.
        context: device and processes.
    """

    items = "sentences"
    what = "A text tower for reports of chest radiographs, pretrained by masked language modelling."

    def __init__(
        self,
        sentences: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        recipe: TextPretrainRecipe,
        context: DistributedContext,
    ) -> None:
        self._sentences, self._tokenizer, self._recipe, self._context = sentences, tokenizer, recipe, context
        self._special = torch.tensor(tokenizer.all_special_ids)

    def load(self, rows: NDArray[np.int64], step: int) -> MaskedBatch:
        """Pieces masked by seed and step."""
        return self._mask(rows, _MASKS, step)

    def load_plain(self, rows: NDArray[np.int64], number: int) -> MaskedBatch:
        """Pieces masked by seed and number."""
        return self._mask(rows, _VALIDATION_MASKS, number)

    def to_parts(self, model: PreTrainedModel) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The tower without its prediction head, and its tokenizer."""
        tower: PreTrainedModel = getattr(model, model.base_model_prefix)
        return tower, self._tokenizer

    def _mask(self, rows: NDArray[np.int64], purpose: int, place: int) -> MaskedBatch:
        encoded = self._tokenizer(
            [self._sentences[row] for row in rows],
            padding="longest",
            truncation=True,
            max_length=self._recipe.max_text_length,
            return_tensors="pt",
        )
        # Of all processes, so that masked pieces and their number do not depend on who reads them.
        masked, labels = mask_pieces(
            encoded["input_ids"],
            torch.isin(encoded["input_ids"], self._special),
            mask_id=int(self._tokenizer.mask_token_id),
            vocabulary=len(self._tokenizer),
            probability=self._recipe.mask_probability,
            random=torch_generator_for(self._recipe.seed, purpose, place),
        )
        own, device = self._context.share(len(rows)), self._context.device
        inputs = tuple(tensor[own].to(device) for tensor in (masked, encoded["attention_mask"], labels))
        total = int((labels != IGNORED).sum())
        return MaskedBatch(inputs, max(1, total), -(-len(rows) // self._context.world))


def _clean(sentences: Sequence[str]) -> list[str]:
    """Distinct sentences as the tower reads them; those that cleaning empties are left out."""
    return list(dict.fromkeys(filter(None, map(clean_text, sentences))))
