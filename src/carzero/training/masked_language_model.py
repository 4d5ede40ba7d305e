"""The text tower with a head that guesses hidden word pieces (Devlin et al. 2019)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

from carzero.errors import ConfigurationError, describe
from carzero.training.masking import IGNORED
from carzero.training.pretrain_recipes import TextPretrainRecipe
from carzero.training.towers import build_config, load_tower

__all__ = ["build_language_model", "measure_guesses"]


def build_language_model(recipe: TextPretrainRecipe, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Builds tower and head; random numbers come from torch's global generator.

    Raises:
        ConfigurationError: the tokenizer and the tower do not fit, or the kind guesses no words.
        WeightsError: the start cannot be loaded.
    """
    if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
        raise ConfigurationError(
            describe("The tokenizer has no token to hide words behind, or none for padding", got=recipe.text.tokenizer)
        )
    if recipe.text.start == "random":
        fields = {"vocab_size": len(tokenizer), **recipe.text.config}
        config = build_config(fields, "bert", pad_token_id=tokenizer.pad_token_id)
        _check_sizes(config, recipe, tokenizer)
        try:
            return AutoModelForMaskedLM.from_config(config)
        except ValueError as error:
            raise ConfigurationError(
                describe("No language model can be built so", got=str(error).splitlines()[0])
            ) from error
    model = load_tower(recipe.text.start, AutoModelForMaskedLM)
    _check_sizes(model.config, recipe, tokenizer)
    return model


def measure_guesses(model: Any, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each text's hidden pieces, summed: (T,); arguments (T, W), as `mask_pieces` makes them."""
    logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
    chosen = labels != IGNORED
    losses = F.cross_entropy(logits[chosen].to(model.dtype), labels[chosen], reduction="none")
    return losses.new_zeros(len(labels)).index_add(0, chosen.nonzero()[:, 0], losses)


def _check_sizes(config: Any, recipe: TextPretrainRecipe, tokenizer: PreTrainedTokenizerBase) -> None:
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
