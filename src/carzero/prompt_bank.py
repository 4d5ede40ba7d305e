"""The prompt bank: everything that depends on the prompts alone, encoded once and asked by every image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from carzero.errors import PromptError, describe
from carzero.model import CARZeroModel, TextFeatures
from carzero.model.scoring import build_scorer, count_words
from carzero.processing import CARZeroProcessor
from carzero.prompts import PromptSet

__all__ = ["Pool", "PromptBank", "encode_prompts", "token_batches"]

Pool = Literal["mean", "max"]
_TEXTS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class PromptBank:
    """Encoded prompts.

    Attributes:
        prompt_set: labels and prompts.
        texts: what the backend that encoded them keeps of all prompts, flattened in order.
        owner: (prompts,) int64 on the CPU, the label that each prompt belongs to.
    """

    prompt_set: PromptSet
    texts: Any
    owner: torch.Tensor

    @classmethod
    def of(cls, prompt_set: PromptSet, texts: Any) -> PromptBank:
        """Joins prompts and what was made of them."""
        owner = [index for index, (_, prompts) in enumerate(prompt_set) for _ in prompts]
        return cls(prompt_set, texts, torch.tensor(owner))

    @property
    def labels(self) -> list[str]:
        """Labels in order."""
        return self.prompt_set.labels

    def pool(self, values: torch.Tensor, how: Pool) -> torch.Tensor:
        """Joins what belongs to one label: (I, prompts, ...) to (I, labels, ...).

        Raises:
            ValueError: `how` is neither "mean" nor "max".
        """
        if how not in ("mean", "max"):
            raise ValueError(f'pool must be "mean" or "max"; got {how!r}.')
        groups = [values[:, self.owner == index] for index in range(len(self.labels))]
        return torch.stack([g.mean(dim=1) if how == "mean" else g.amax(dim=1) for g in groups], dim=1)


def encode_prompts(model: CARZeroModel, processor: CARZeroProcessor, prompt_set: PromptSet) -> PromptBank:
    """Encodes a prompt set on the model's device; `texts` is what the scorer of its alignment prepares.

    Raises:
        PromptError: a prompt is longer than the model reads.
    """
    parts = [
        model.raw_text_features(ids.to(model.device), mask.to(model.device))
        for ids, mask in token_batches(processor, prompt_set)
    ]
    raw = TextFeatures.join(parts)
    prepared = build_scorer(model.alignment).prepare(model.project_texts(raw), count_words(raw.local))
    return PromptBank.of(prompt_set, prepared)


def token_batches(processor: CARZeroProcessor, prompt_set: PromptSet) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Tokenises all prompts in order, some dozens at once: `input_ids` and `attention_mask`, each (T, W).

    Raises:
        PromptError: a prompt is longer than the model reads.
    """
    texts = [prompt for _, prompts in prompt_set for prompt in prompts]
    for text in texts:
        _check_length(processor, text)
    tokens = processor.tokenize(texts)
    yield from zip(
        tokens["input_ids"].split(_TEXTS_AT_ONCE), tokens["attention_mask"].split(_TEXTS_AT_ONCE), strict=True
    )


def _check_length(processor: CARZeroProcessor, text: str) -> None:
    count = processor.count_tokens(text)
    if count > processor.max_text_length:
        raise PromptError(
            describe(
                f"A prompt has {count} tokens, more than the model reads",
                got=text,
                expected=f"at most {processor.max_text_length} tokens",
                then="ask in fewer words, or split it into several prompts",
            )
        )
