"""The model cut in two: what depends on prompts alone, and what scores pictures with it."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from carzero.exported import TensorSpec
from carzero.model import CARZeroModel
from carzero.model.scoring import CosineTexts, SimilarityScorer, SimilarityTexts, build_scorer, count_words

__all__ = ["PromptsModule", "ScoringModule", "prompt_tensors"]


def prompt_tensors(model: CARZeroModel) -> list[TensorSpec]:
    """What the model's alignment keeps of T prompts, in order.

    For `simr` the fields of `SimilarityTexts`, with heads and tokens as axes of their own: queries and first_queries
    (T, D), keys and values (L, T, heads, N, D), bias (L, T, heads, N). For `cosine` the global features (T, D).
    """
    if model.config.alignment == "cosine":
        return [TensorSpec(name="pooled", prompts_axis=0)]
    queries = [TensorSpec(name=name, prompts_axis=0) for name in ("queries", "first_queries")]
    memory = [TensorSpec(name=name, prompts_axis=1, tokens_axis=3) for name in ("keys", "values", "bias")]
    return queries + memory


class PromptsModule(nn.Module):
    """Text tower and what follows it: tokens to the tensors of `prompt_tensors`."""

    def __init__(self, model: CARZeroModel) -> None:
        super().__init__()
        self.model = model
        self._scorer = build_scorer(model.alignment)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None) -> tuple[Tensor, ...]:
        """Encodes texts.

        Args:
            input_ids: (T, W).
            attention_mask: (T, W).
            positions: (N - 2,) for `simr`: 0, 1, 2, ... for at least as many positions as the longest text has tokens.
        """
        raw = self.model.raw_text_features(input_ids, attention_mask)
        texts = self.model.project_texts(raw)
        if not isinstance(self._scorer, SimilarityScorer):
            return (texts.pooled,)
        group = self._scorer.prepare_group(texts, count_words(raw.local), positions)
        by_head = (tensor.unflatten(2, (self.model.config.decoder_heads, -1)) for tensor in group[2:])
        return (group.queries, group.first_queries, *by_head)


class ScoringModule(nn.Module):
    """Image tower and alignment: pixel values and the tensors of `prompt_tensors` to logits and maps.

    Args:
        model: the model.
        asked: how many prompts the graph is for, by which the cheaper way to read the pictures is chosen.
    """

    def __init__(self, model: CARZeroModel, asked: int) -> None:
        super().__init__()
        self.model = model
        self.asked = asked
        self._scorer = build_scorer(model.alignment)

    def forward(self, pixel_values: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits (I, T) and maps (I, T, h, w)."""
        images = self.model.encode_images(pixel_values)
        if not isinstance(self._scorer, SimilarityScorer):
            scores, maps = self._scorer.score(images, (CosineTexts(*tensors),), need_maps=True)
            return scores, cast("Tensor", maps)
        queries, first_queries, *by_head = tensors
        texts = SimilarityTexts(queries, first_queries, *(tensor.flatten(2, 3) for tensor in by_head))
        scores, maps = self._scorer.score_tile(images.pooled, images.local, (texts,), self.asked, need_maps=True)
        return scores, cast("Tensor", maps).unflatten(-1, images.grid)
