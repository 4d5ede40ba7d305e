"""The alignment without training: the same scores in a fraction of the multiply-adds.

Three rearrangements, each exact up to the rounding of floats:

- A text's padding is one and the same vector after LayerNorm, so one key stands for all of it, the logarithm of its
  count added to the attention logit: about ten memory tokens a prompt instead of 98.
- Keys and values of the texts take in the query and output projections, for `(W x + b) k = x (W^T k) + b k`: with so
  few tokens, reading a text costs two products with 40 rows instead of two projections. They are kept with the prompts.
- Where few texts ask an image, its 197 tokens are not projected: the key projection moves to the query, and the value
  projection behind the attention.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from carzero.model.alignment.image_memory import ImageMemory, MovedMemory, ProjectedMemory, is_cheaper_moved
from carzero.model.alignment.simr import CrossAttention, DecoderLayer, ScoreHead, SimilarityAlignment
from carzero.model.features import ImageFeatures, TextFeatures
from carzero.model.vision import stack_memory

_TEXTS_IN_A_GROUP = 32

_IMAGES_IN_A_TILE = 16


class SimilarityTexts(NamedTuple):
    """What no image changes about T texts of at most N memory tokens, for `simr`.

    Attributes:
        queries: (T, D) what enters the decoder as text queries.
        first_queries: (T, D) the first layer's projected text queries.
        keys: (L, T, heads * N, D) keys of every layer with the query projection and the scale in them.
        values: (L, T, heads * N, D) values with the output projection in them.
        bias: (L, T, heads * N) what is added to the attention logits: minus infinity where a text has no such token.
    """

    queries: Tensor
    first_queries: Tensor
    keys: Tensor
    values: Tensor
    bias: Tensor


class SimilarityScorer:
    """Scores by `simr`; gives the numbers of `SimilarityAlignment.forward`.

    Args:
        alignment: whose weights to use; they are read when they are needed, and never copied.
        moved: whether the projections of images are moved; None asks `is_cheaper_moved`.
    """

    def __init__(self, alignment: SimilarityAlignment, moved: bool | None = None) -> None:
        self._moved = moved
        self._norm = alignment.decoder.norm
        self._layers = [cast("DecoderLayer", layer) for layer in alignment.decoder.layers]
        self._head = alignment.head

    def prepare(self, texts: TextFeatures, words: Tensor) -> tuple[SimilarityTexts, ...]:
        """Computes what depends on the texts alone, in float32, and keeps it in the weights' precision.

        Args:
            texts: features of T texts.
            words: (T,) how many positions of each text are words, from `count_words`.

        Returns:
            groups of texts in order, so that one long text makes its own group long and no other.
        """
        groups = torch.arange(len(words), device=words.device).split(_TEXTS_IN_A_GROUP)
        return tuple(self.prepare_group(texts.select(numbers), words[numbers]) for numbers in groups)

    def score(
        self, images: ImageFeatures, texts: tuple[SimilarityTexts, ...], need_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Scores every image against every text, in tiles of bounded memory.

        Returns:
            (I, T) float32 raw logits; maps (I, T, h, w) as in `AlignmentOutput`, or None.
        """
        asked = sum(len(group.queries) for group in texts)
        tiles = zip(images.pooled.split(_IMAGES_IN_A_TILE), images.local.split(_IMAGES_IN_A_TILE), strict=True)
        rows = [self.score_tile(pooled, local, texts, asked, need_maps) for pooled, local in tiles]
        scores = torch.cat([row[0] for row in rows])
        if not need_maps:
            return scores, None
        return scores, torch.cat([cast("Tensor", row[1]) for row in rows]).unflatten(-1, images.grid)

    def prepare_group(self, texts: TextFeatures, words: Tensor, positions: Tensor | None = None) -> SimilarityTexts:
        """Prepares texts whose memories get one length; see `prepare` and `collapse_padding`."""
        dtype = self._norm.weight.dtype
        memory, bias = collapse_padding(texts.pooled, texts.local, words, texts.mask is None, positions)
        normed = _in_float32(self._norm, memory)
        folded = [fold_projections(layer.attention, normed, bias) for layer in self._layers]
        first = self._layers[0]
        queries = _in_float32(self._norm, texts.pooled)
        asked = _in_float32(first.attention.q_proj, _in_float32(first.attention_norm, queries))
        stacked = (torch.stack(part).to(dtype) for part in zip(*folded, strict=True))
        return SimilarityTexts(queries.to(dtype), asked.to(dtype), *stacked)

    def score_tile(
        self, pooled: Tensor, local: Tensor, texts: tuple[SimilarityTexts, ...], asked: int, need_maps: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Scores a tile of images; see `score`.

        Args:
            pooled: (I, D) global features.
            local: (I, P, D) local features.
            texts: from `prepare`.
            asked: how many texts there are, by which the cheaper way to read the images is chosen.
            need_maps: also return maps (I, T, P).
        """
        memory = self._remember(self._norm(stack_memory(pooled, local)), asked)
        tiles = [self._score_group(memory, group, need_maps) for group in texts]
        scores = torch.cat([tile[0] for tile in tiles], dim=1)
        maps = torch.cat([cast("Tensor", tile[1]) for tile in tiles], dim=1) if need_maps else None
        return scores, maps

    def _remember(self, tokens: Tensor, asked: int) -> ImageMemory:
        attentions = [layer.attention for layer in self._layers]
        moved = self._moved
        if moved is None:
            moved = is_cheaper_moved(asked, tokens.shape[1], tokens.shape[2], attentions[0].heads)
        return MovedMemory(attentions, tokens) if moved else ProjectedMemory(attentions, tokens)

    def _score_group(
        self, memory: ImageMemory, texts: SimilarityTexts, need_maps: bool
    ) -> tuple[Tensor, Tensor | None]:
        images, (count, width) = memory.tokens.shape[0], texts.queries.shape  # len() would be a constant in an export
        pairs = images * count
        # Both directions go through the same layers, so their rows are one matrix: text queries (I, T) first, then
        # image queries (T, I). The image's global token is its query, behind the same LayerNorm.
        rows = torch.cat(
            [
                texts.queries.expand(images, -1, -1).reshape(pairs, width),
                memory.tokens[:, 0].expand(count, -1, -1).reshape(pairs, width),
            ]
        )
        seen = []
        for index, layer in enumerate(self._layers):
            normed = layer.attention_norm(rows)
            asking = texts.first_queries.expand(images, -1, -1)
            if index > 0:
                asking = layer.attention.q_proj(normed[:pairs]).view(images, count, width)
            attended, weights = memory.read(index, asking, need_maps)
            from_images = layer.attention.o_proj(attended.reshape(pairs, width))
            from_texts = read_texts(layer.attention.heads, normed[pairs:].view(count, images, width), texts, index)
            rows = rows + torch.cat([from_images, from_texts.reshape(pairs, width)])
            rows = rows + layer.fc2(F.relu_(layer.fc1(layer.ffn_norm(rows))))
            seen.append(weights)
        logits = read_scores(self._head, self._norm(rows))
        scores = (logits[:pairs].view(images, count) + logits[pairs:].view(count, images).T) / 2
        return scores, torch.stack([cast("Tensor", w) for w in seen]).mean(dim=0)[..., 1:] if need_maps else None


def count_words(local: Tensor) -> Tensor:
    """Counts the positions up to the last word of each text: (T, W, D) before any projection to (T,) int64.

    Behind the last word all vectors are zero; a text that fills all positions has W words.
    """
    position = torch.arange(1, local.shape[1] + 1, device=local.device)
    return (local.ne(0).any(dim=-1) * position).amax(dim=1)


def collapse_padding(
    pooled: Tensor, local: Tensor, words: Tensor, with_padding: bool, positions: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Builds text memories in which one token stands for all padding.

    Args:
        pooled: (T, D) global features.
        local: (T, W, D) local features, all alike behind a text's last word.
        words: (T,) number of words.
        with_padding: whether the padding is part of the memory.
        positions: 0, 1, 2, ... for each position that gets a token, words in all of them; None: as many as there are
            words in the longest text.

    Returns:
        memories (T, N, D), N = 2 + the number of positions: the global token, the words, the padding; and the
        logarithm of how often each token counts (T, N), minus infinity where a text has none.
    """
    if positions is None:
        positions = torch.arange(int(words.max()), device=words.device)
    # The last position is padding wherever there is any.
    memory = torch.cat([pooled.unsqueeze(1), local.index_select(1, positions), local[:, -1:]], dim=1).float()
    padding = (local.shape[1] - words if with_padding else torch.zeros_like(words)).unsqueeze(1)
    is_word = positions < words.unsqueeze(1)
    return memory, torch.cat([torch.ones_like(padding), is_word, padding], dim=1).float().log()


def fold_projections(attention: CrossAttention, memory: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Computes keys and values of memories with the query and output projections in them, in float32.

    Args:
        attention: of one layer.
        memory: (T, N, D), normalised.
        bias: (T, N) what is added to the attention logits.

    Returns:
        keys (T, heads * N, D), values (T, heads * N, D), and bias (T, heads * N): the attention of a normalised query x
        on head h is the softmax of `keys x + bias` over that head's tokens, and what it adds is `values` weighed by it.
    """
    heads, width = attention.heads, memory.shape[-1]
    keys = attention.split_heads(_in_float32(attention.k_proj, memory))
    values = attention.split_heads(_in_float32(attention.v_proj, memory))
    scale = keys.shape[-1] ** -0.5
    asking = attention.q_proj.weight.float().view(heads, -1, width)
    giving = attention.o_proj.weight.float().view(width, heads, -1)
    folded_keys = torch.einsum("thnd,hdw->thnw", keys, asking) * scale
    folded_values = torch.einsum("thnd,whd->thnw", values, giving)
    asked = torch.einsum("thnd,hd->thn", keys, attention.q_proj.bias.float().view(heads, -1)) * scale
    # Each head's weights sum to one, so a share of the output bias in every value is the whole of it in the end.
    folded_values = folded_values + attention.o_proj.bias.float() / heads
    return folded_keys.flatten(1, 2), folded_values.flatten(1, 2), (asked + bias.unsqueeze(1)).flatten(1, 2)


def read_texts(heads: int, queries: Tensor, texts: SimilarityTexts, layer: int) -> Tensor:
    """Image queries (T, I, D), normalised, read texts: (T, I, D), the output projection included."""
    logits = torch.baddbmm(texts.bias[layer].unsqueeze(1), queries, texts.keys[layer].transpose(1, 2))
    weights = logits.unflatten(-1, (heads, -1)).softmax(dim=-1).flatten(-2)
    return torch.bmm(weights, texts.values[layer])


def read_scores(head: ScoreHead, representation: Tensor) -> Tensor:
    """Raw logits (...) of similarity representations (..., D); the last sum in float32, whatever came before.

    A logit rounded to bfloat16 has three digits, and ties where the ranking needs none.
    """
    x = representation
    for layer in itertools.islice(head.layers, len(head.layers) - 1):
        x = F.relu_(layer(x))
    return _in_float32(head.layers[-1], x).squeeze(-1)


def _in_float32(module: nn.Module, x: Tensor) -> Tensor:
    """Applies a linear layer or LayerNorm in float32, whatever the precision of its weights."""
    weight, bias = cast("Tensor", module.weight).float(), cast("Tensor", module.bias).float()
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(x.float(), module.normalized_shape, weight, bias, module.eps)
    return F.linear(x.float(), weight, bias)
