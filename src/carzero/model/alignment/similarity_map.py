"""The alignment `similarity_map`: a text pools image tokens by their cosines with it, and is compared with the pool.

Nothing is learned but one LayerNorm and a temperature. There is no decoder and no head, so a pair costs two products of
a vector with the tokens of the image (RadZero). The map is the cosine of the text with every patch before any softmax,
over the temperature: on one scale for all findings and images, that of the score, so that a finding that is absent has
a low map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from carzero.errors import ConfigurationError, describe
from carzero.model.alignment.base import (
    AlignmentConfig,
    AlignmentOptions,
    ExportableAlignment,
    GraphTensor,
    ScoringTexts,
    check_texts,
    collapse_padding,
    in_float32,
    read_options,
)
from carzero.model.features import AlignmentOutput, ImageFeatures, PreparedTexts, TextFeatures
from carzero.model.loss import multi_positive_loss
from carzero.model.recompute import Grid, score_in_tiles
from carzero.model.vision import stack_memory
from carzero.records import MapKind

_TEXTS_IN_A_GROUP = 64

_IMAGES_IN_A_TILE = 16


class SimilarityMapOptions(AlignmentOptions):
    """What `similarity_map` can be told; the defaults are the released RadZero.

    Attributes:
        operation: how a text weighs the tokens: "cosine", divided by the temperature; or "dot", the product divided by
            the root of the width, where the tokens are pooled with their lengths. The score is a cosine in either case.
        directions: "text": texts read images; "both": images read the words of texts as well, and a score is the mean.
        global_token: whether the global feature (class token, mean of a text) is among the tokens that are read.
        layer_norm: whether texts and tokens go through one shared LayerNorm first.
        layer_norm_eps: its epsilon.
        normalise_texts: whether texts are scaled to length 1 before the LayerNorm.
        temperature: at the start; its logarithm is learned. Scores are cosines divided by it.
        attention_temperature: at the start, of a second one that divides the cosines that weigh the tokens (and the
            maps) in the first one's place; None: there is one for both.
        map_high: upper end of the scale that maps are drawn over and cut into boxes by; the lower one is 0, where text
            and patch have nothing in common. Read as a logit, as RadZero does, 6 is a probability of 0.998.
        rows: how the loss joins a sentence's contrast over the images: "each" positive pair has its own, or an image's
            positives are summed ("sum").
        columns: likewise an image's contrast over the sentences.
    """

    operation: Literal["cosine", "dot"] = "cosine"
    directions: Literal["text", "both"] = "text"
    global_token: bool = True
    layer_norm: bool = True
    layer_norm_eps: float = Field(default=1e-5, gt=0)
    normalise_texts: bool = False
    temperature: float = Field(default=0.07, gt=0)
    attention_temperature: float | None = Field(default=None, gt=0)
    map_high: float = Field(default=6.0, gt=0)
    rows: Literal["each", "sum"] = "each"
    columns: Literal["each", "sum"] = "each"


@dataclass(frozen=True, slots=True)
class SimilarityMapTexts(ScoringTexts):
    """What no image changes about T texts, for `similarity_map`, in float32.

    Attributes:
        queries: (T, D) behind the LayerNorm.
        tokens: (T, N, D) what images read of a text, behind the LayerNorm; N is 0 where they read none.
        bias: (T, N) what is added to the logits of the softmax: the logarithm of how often a token counts.
    """

    queries: Tensor
    tokens: Tensor
    bias: Tensor


class Reading(NamedTuple):
    """Q queries on M memories of N tokens: `scores` (M, Q), and `similarity` (M, Q, N), before the softmax."""

    scores: Tensor
    similarity: Tensor


class SimilarityMapAlignment(ExportableAlignment):
    """Texts pool image tokens by cosine, and score by the cosine with what they pooled, over a learned temperature."""

    options_type = SimilarityMapOptions
    scoring_texts = SimilarityMapTexts

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__(config)
        self.options = read_options(SimilarityMapOptions, config)
        width = config.hidden_size
        self.norm = nn.LayerNorm(width, eps=self.options.layer_norm_eps) if self.options.layer_norm else None
        self.log_temperature = nn.Parameter(torch.zeros(1))  # sharding refuses a scalar
        second = self.options.attention_temperature is not None
        self.log_attention_temperature = nn.Parameter(torch.zeros(1)) if second else None
        self.reset_parameters()

    @classmethod
    def check_config(cls, config: AlignmentConfig) -> None:
        """Refuses options that contradict each other; see `Alignment.check_config`."""
        options = read_options(SimilarityMapOptions, config)
        if options.operation == "dot" and options.attention_temperature is not None:
            raise ConfigurationError(
                describe(
                    "A second temperature has nothing to divide",
                    got=f"operation: dot, attention_temperature: {options.attention_temperature}",
                    expected="operation: cosine beside it",
                    then="remove attention_temperature from alignment_options",
                )
            )
        if options.directions == "both" and not config.mask_padding:
            raise ConfigurationError(
                describe(
                    "Images would read the padding of texts",
                    got="directions: both, mask_padding: false",
                    expected="mask_padding: true beside it",
                    then="set mask_padding, or directions: text",
                )
            )

    @property
    def map_kind(self) -> MapKind:
        """Similarities before the softmax, on a scale that is the same for all findings and images."""
        high = self.options.map_high
        if self.options.operation == "dot":
            cells, of = "product of the finding's text with every patch over the root of the width", ""
        else:
            temperature = float(self._temperatures(self.log_temperature.detach().float())[1].detach())
            cells = f"cosine of the finding's text with every patch, divided by the temperature {temperature:.4g}"
            of = f" (cosine {high * temperature:.2f})"
        return MapKind(
            "similarity",
            f"{cells}; on one scale for all findings and images, so a map that is low throughout says that the finding "
            "is not seen",
            scale=(0.0, high),
            scale_text=f"fixed scale for all findings and images: similarity 0 to {high:g}{of}",
        )

    @property
    def export_tensors(self) -> tuple[GraphTensor, ...]:
        """The texts' queries; and what images read of them, where they do."""
        queries = (GraphTensor("queries", prompts_axis=0),)
        if self.options.directions == "text":
            return queries
        return (*queries, GraphTensor("tokens", 0, tokens_axis=1), GraphTensor("bias", 0, tokens_axis=1))

    def reset_parameters(self) -> None:
        """Sets the temperatures to their configured starts."""
        nn.init.constant_(self.log_temperature, math.log(self.options.temperature))
        if self.log_attention_temperature is not None and self.options.attention_temperature is not None:
            nn.init.constant_(self.log_attention_temperature, math.log(self.options.attention_temperature))

    def forward(self, images: ImageFeatures, texts: PreparedTexts, need_maps: bool = False) -> AlignmentOutput:
        """Scores every image against every text; see `AlignmentOutput`."""
        features = texts.features
        seen = self.read(self._ask(features.pooled), self._remember(images.pooled, images.local))  # (I, T), (I, T, N)
        t2i = None
        if self.options.directions == "both":
            queries = self._norm(images.pooled)  # (I, D)
            t2i = self.read(queries, self._remember(features.pooled, features.local), self._bias(features.mask)).scores
        return AlignmentOutput.join(seen.scores, t2i, self._to_maps(seen, images.grid) if need_maps else None)

    def map_pairs(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """Compares each text with its own image; see `Alignment.map_pairs`."""
        queries = self._ask(texts.pooled).unsqueeze(1)  # (K, 1, D)
        seen = self.read(queries, self._remember(images.pooled, images.local))  # (K, 1), (K, 1, N)
        return self._to_maps(seen, images.grid)[:, 0]  # (K, h, w)

    def score_both(
        self,
        images: ImageFeatures,
        texts: TextFeatures,
        *,
        image_queries: Tensor | None = None,
        text_queries: Tensor | None = None,
        tile_pairs: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Scores in training, in tiles; see `Alignment.score_both`."""
        asked = texts.pooled if text_queries is None else text_queries
        grids = [Grid(self._ask(asked), images.pooled, images.local, None)]
        if self.options.directions == "both":
            asked = images.pooled if image_queries is None else image_queries
            grids.append(Grid(self._norm(asked), texts.pooled, texts.local, texts.mask))
        i2t, *t2i = score_in_tiles(_PairScorer(self), grids, tile_pairs)  # (I, S), (T, J)
        return i2t, t2i[0] if t2i else None

    def loss(self, output: AlignmentOutput, match: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """The contrast of every sentence with all images and of every image with all sentences, in each direction."""
        ways = [output.logits_i2t] if self.options.directions == "text" else [output.logits_i2t, output.logits_t2i.T]
        rows, columns = self.options.rows, self.options.columns
        losses = [multi_positive_loss(way, match, known, rows=rows, columns=columns) for way in ways]
        return torch.stack(losses).mean()

    def prepare(self, texts: TextFeatures, words: Tensor) -> tuple[SimilarityMapTexts, ...]:
        """Puts texts through the LayerNorm, in float32; see `Alignment.prepare`."""
        numbers = torch.arange(len(words), device=words.device)
        return tuple(
            self._prepare_group(texts.select(group), words[group], None) for group in numbers.split(_TEXTS_IN_A_GROUP)
        )

    def score(
        self, images: ImageFeatures, texts: Sequence[ScoringTexts], need_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Scores every image against every text, in float32 and in tiles of bounded memory; see `Alignment.score`."""
        groups = check_texts(SimilarityMapTexts, texts)
        rows: list[list[Tensor]] = []
        maps: list[Tensor] = []
        for pooled, local in zip(
            images.pooled.split(_IMAGES_IN_A_TILE), images.local.split(_IMAGES_IN_A_TILE), strict=True
        ):
            tile = ImageFeatures(pooled, local, images.grid)
            found = [self._score_group(tile, group, need_maps) for group in groups]
            rows.append([scores for scores, _ in found])
            if need_maps:
                maps.append(torch.cat([cells for _, cells in found if cells is not None], dim=1))  # (I, T, h, w)
        return torch.cat([torch.cat(row, dim=1) for row in rows]), torch.cat(maps) if need_maps else None

    def to_tensors(self, texts: TextFeatures, words: Tensor, positions: Tensor | None) -> tuple[Tensor, ...]:
        """See `ExportableAlignment.to_tensors`."""
        group = self._prepare_group(texts, words, positions)
        return (group.queries,) if self.options.directions == "text" else tuple(group.tensors().values())

    def from_tensors(self, tensors: Sequence[Tensor]) -> SimilarityMapTexts:
        """See `ExportableAlignment.from_tensors`."""
        if self.options.directions == "both":
            return SimilarityMapTexts(*tensors)
        (queries,) = tensors
        return SimilarityMapTexts(queries, *_no_tokens(queries))

    def score_whole(self, images: ImageFeatures, texts: ScoringTexts, asked: int) -> tuple[Tensor, Tensor]:
        """See `ExportableAlignment.score_whole`."""
        (group,) = check_texts(SimilarityMapTexts, [texts])
        scores, maps = self._score_group(images, group, need_maps=True)
        if maps is None:
            raise ValueError("Maps were asked for and none were made.")
        return scores, maps

    def read(self, queries: Tensor, tokens: Tensor, bias: Tensor | None = None) -> Reading:
        """Lets every query pool every memory, and compares it with what it pooled.

        Args:
            queries: (Q, D) behind the LayerNorm; or (M, Q, D), where each memory has queries of its own.
            tokens: (M, N, D) behind the LayerNorm.
            bias: (M, N) added before the softmax; None: nothing.
        """
        temperature, dividing = self._temperatures(queries)
        directions = F.normalize(queries, dim=-1)  # (Q, D)
        if self.options.operation == "cosine":
            tokens = F.normalize(tokens, dim=-1)
            similarity = directions @ tokens.transpose(1, 2) / dividing  # (M, Q, N)
        else:
            similarity = queries @ tokens.transpose(1, 2) * queries.shape[-1] ** -0.5  # (M, Q, N)
        logits = similarity if bias is None else similarity + bias.unsqueeze(1)
        pooled = logits.softmax(dim=-1) @ tokens  # (M, Q, D)
        scores = (F.normalize(pooled, dim=-1) * directions).sum(dim=-1) / temperature  # (M, Q)
        return Reading(scores, similarity)

    def read_features(self, queries: Tensor, pooled: Tensor, local: Tensor, mask: Tensor | None) -> Tensor:
        """Queries (Q, D) behind the LayerNorm on features of M memories: scores (M, Q)."""
        return self.read(queries, self._remember(pooled, local), self._bias(mask)).scores

    def _score_group(
        self, images: ImageFeatures, texts: SimilarityMapTexts, need_maps: bool
    ) -> tuple[Tensor, Tensor | None]:
        tokens = self._remember(images.pooled.float(), images.local.float())  # (I, N, D)
        seen = self.read(texts.queries, tokens)
        t2i = None
        if self.options.directions == "both":
            t2i = self.read(self._norm(images.pooled.float()), texts.tokens, texts.bias).scores  # (T, I)
        scores = AlignmentOutput.join(seen.scores, t2i).scores
        return scores, self._to_maps(seen, images.grid) if need_maps else None

    def _prepare_group(self, texts: TextFeatures, words: Tensor, positions: Tensor | None) -> SimilarityMapTexts:
        queries = self._ask(texts.pooled.float())
        if self.options.directions == "text":
            return SimilarityMapTexts(queries, *_no_tokens(queries))
        memory, bias = collapse_padding(texts.pooled, texts.local, words, texts.mask is None, positions)
        first = 0 if self.options.global_token else 1
        return SimilarityMapTexts(queries, self._norm(memory[:, first:]), bias[:, first:])

    def _norm(self, x: Tensor) -> Tensor:
        """Texts and tokens behind the shared LayerNorm, if there is one; float32 in reduced precision."""
        if self.norm is None:
            return x
        normed: Tensor = in_float32(self.norm, x) if self.norm.weight.dtype.itemsize < 4 else self.norm(x)
        return normed

    def _ask(self, pooled: Tensor) -> Tensor:
        """Texts (T, D) as queries (T, D)."""
        return self._norm(F.normalize(pooled, dim=-1) if self.options.normalise_texts else pooled)

    def _remember(self, pooled: Tensor, local: Tensor) -> Tensor:
        """Global (M, D) and local features (M, P, D) as the tokens (M, N, D) that are read."""
        return self._norm(stack_memory(pooled, local) if self.options.global_token else local)

    def _bias(self, mask: Tensor | None) -> Tensor | None:
        """(M, P) True for words to (M, N), minus infinity for what is not read; None where all is."""
        if mask is None:
            return None
        if self.options.global_token:
            mask = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)  # (M, 1 + P)
        return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))

    def _to_maps(self, seen: Reading, grid: tuple[int, int]) -> Tensor:
        patches = seen.similarity[..., 1:] if self.options.global_token else seen.similarity  # (I, T, P)
        maps: Tensor = patches.unflatten(-1, grid)  # (I, T, h, w)
        return maps

    def _temperatures(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The temperature of the scores, and that of the cosines that weigh the tokens, in the precision of `like`."""
        temperature = self.log_temperature.to(like.dtype).exp()
        if self.log_attention_temperature is None:
            return temperature, temperature
        return temperature, self.log_attention_temperature.to(like.dtype).exp()


class _PairScorer(nn.Module):
    """Queries and memories in, scores out: what `score_in_tiles` calls. Made for a call, not part of a model."""

    def __init__(self, alignment: SimilarityMapAlignment) -> None:
        super().__init__()
        self.alignment = alignment

    def forward(self, queries: Tensor, pooled: Tensor, local: Tensor, mask: Tensor | None) -> Tensor:
        """Queries (Q, D) on memories (M, ...): (M, Q) scores."""
        return self.alignment.read_features(queries, pooled, local, mask)


def _no_tokens(queries: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (T, 0, D) and bias (T, 0) of texts that no image reads."""
    texts, width = queries.shape  # len() would be a constant in an export
    return queries.new_zeros(texts, 0, width), queries.new_zeros(texts, 0)
