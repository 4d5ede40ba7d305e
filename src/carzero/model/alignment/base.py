"""The contract of the alignments: features of images and texts in, scores of every pair and maps out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from carzero.errors import ConfigurationError, describe
from carzero.model.features import AlignmentOutput, ImageFeatures, PreparedTexts, TextFeatures
from carzero.records import UNSTATED, MapKind


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
        positions = torch.arange(int(words.max()), device=words.device)  # (N - 2,)
    # The last position is padding wherever there is any.
    memory = torch.cat([pooled.unsqueeze(1), local.index_select(1, positions), local[:, -1:]], dim=1)  # (T, N, D)
    padding = (local.shape[1] - words if with_padding else torch.zeros_like(words)).unsqueeze(1)  # (T, 1)
    is_word = positions < words.unsqueeze(1)  # (T, N - 2)
    counts = torch.cat([torch.ones_like(padding), is_word, padding], dim=1)  # (T, N)
    return memory.float(), counts.float().log()


def in_float32(module: nn.Linear | nn.LayerNorm, x: Tensor) -> Tensor:
    """Applies a linear layer or LayerNorm in float32, whatever the precision of its weights."""
    weight, bias = module.weight.float(), module.bias.float()
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(x.float(), module.normalized_shape, weight, bias, module.eps)
    return F.linear(x.float(), weight, bias)


class AlignmentConfig(Protocol):
    """What alignments read of `carzero.model.CARZeroConfig`, which documents it."""

    alignment: str
    mask_padding: bool
    decoder_layers: int
    decoder_heads: int
    decoder_ffn_dim: int
    decoder_layer_norm_eps: float
    dropout: float
    logit_scale_init: float

    @property
    def alignment_options(self) -> Mapping[str, object] | None:
        """Options of the kind alone."""

    @property
    def hidden_size(self) -> int:
        """D, the width at which images and texts meet."""

    @property
    def score_head(self) -> str:
        """Kind of the score head."""

    @property
    def score_head_dims(self) -> Sequence[int]:
        """Hidden widths of the score head."""


class AlignmentOptions(BaseModel):
    """What a kind can be told beside the fields that all share; a kind's subclass has its options as fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


OptionsT = TypeVar("OptionsT", bound=AlignmentOptions)


def read_options(options_type: type[OptionsT], config: AlignmentConfig) -> OptionsT:
    """Reads a kind's options from a configuration.

    Raises:
        ConfigurationError: an option is not known to the kind, or has another type or range.
    """
    try:
        return options_type.model_validate(dict(config.alignment_options or {}))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "alignment_options"
        known = ", ".join(options_type.model_fields) or "no options"
        raise ConfigurationError(
            describe(
                f'An option of the alignment "{config.alignment}" is wrong at {place}: {first["msg"]}',
                got=first["input"],
                expected=f"options of this kind: {known}",
                then="correct alignment_options in the configuration",
            )
        ) from error


@dataclass(frozen=True, slots=True)
class ScoringTexts:
    """What an alignment keeps of T texts to score images without training.

    A kind's subclass has tensors as its fields, and nothing else. Saved prompt banks name the class and its fields, so
    renaming either makes them unreadable.
    """

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by field, in order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


TextsT = TypeVar("TextsT", bound=ScoringTexts)


def check_texts(kind: type[TextsT], texts: Sequence[ScoringTexts]) -> list[TextsT]:
    """Returns the texts as those of one kind; raises ValueError where an alignment of another kind prepared them."""
    own = [group for group in texts if isinstance(group, kind)]
    if len(own) < len(texts):
        found = ", ".join(sorted({type(group).__name__ for group in texts}))
        raise ValueError(f"These texts were prepared by another alignment: {found} instead of {kind.__name__}.")
    return own


class Alignment(nn.Module, ABC):
    """Scores images against texts.

    A kind is a subclass in a file of its own and a line in `carzero.model.alignment.ALIGNMENTS`. It has two forms: the
    plain one (`forward`, `score_both`), which can be trained, and the scoring one (`prepare`, `score`), which gives the
    same numbers and may rearrange the computation.

    Args:
        config: of the model.

    Attributes:
        options_type: class of the kind's own options; a kind without any keeps the empty one.
        scoring_texts: class of what `prepare` returns.
        uses_every_parameter: each step of training gives every parameter of the alignment, and every output of both
            towers, a gradient; where it is False, data-parallel training searches for those without.
    """

    options_type: ClassVar[type[AlignmentOptions]] = AlignmentOptions
    scoring_texts: ClassVar[type[ScoringTexts]]
    uses_every_parameter: ClassVar[bool] = False

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()

    @classmethod
    def check_config(cls, config: AlignmentConfig) -> None:
        """Refuses a configuration that this kind cannot be built from; a kind with more to check calls this one too.

        Raises:
            ConfigurationError: what does not fit, and how to repair it.
        """
        read_options(cls.options_type, config)

    @property
    def map_kind(self) -> MapKind:
        """What the cells of this kind's maps are; asked for with the weights in place, as a scale may be learned."""
        return UNSTATED

    def to_shares(self, maps: Tensor) -> Tensor:
        """Maps (..., h, w) as shares of sum 1, where each text looks; what boxes teach."""
        return maps.float().flatten(-2).softmax(dim=-1).view_as(maps)

    def map_pairs(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """The map of each of K images for the text of its own number, as `forward` makes it; it can be trained.

        A kind that can do so computes no other pair's.

        Returns:
            (K, h, w).
        """
        maps = self.forward(images, self.prepare_texts(texts), need_maps=True).maps  # (K, K, h, w)
        if maps is None:
            raise ValueError("Maps were asked for and none were made.")
        return maps[range(len(maps)), range(len(maps))]  # (K, h, w)

    def reset_parameters(self) -> None:
        """Initialises the parameters that belong to no linear layer or LayerNorm; those start as everywhere."""

    def prepare_texts(self, texts: TextFeatures) -> PreparedTexts:
        """Computes what depends on the texts alone, for `forward`."""
        return PreparedTexts(texts, None)

    @abstractmethod
    def forward(self, images: ImageFeatures, texts: PreparedTexts, need_maps: bool = False) -> AlignmentOutput:
        """Scores every image against every text; see `AlignmentOutput`."""

    @abstractmethod
    def score_both(
        self,
        images: ImageFeatures,
        texts: TextFeatures,
        *,
        image_queries: Tensor | None = None,
        text_queries: Tensor | None = None,
        tile_pairs: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Scores both directions in training.

        Where several processes share a batch, only queries travel: each process scores all texts on its own images,
        and all images on its own texts.

        Args:
            images: features of I images.
            texts: features of T texts.
            image_queries: (J, D) global features of the images that read the texts; None: of `images`.
            text_queries: (S, D) global features of the texts that read the images; None: of `texts`.
            tile_pairs: pairs whose inner values are kept at once; the rest is computed again when its gradient is due,
                and memory grows with I + T instead of I x T. None: everything is kept.

        Returns:
            Raw logits (I, S) of text queries on images and (T, J) of image queries on texts; None instead of the
            latter where a pair has one score whatever is asked of what.
        """

    @abstractmethod
    def loss(self, output: AlignmentOutput, match: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """The scalar training loss of raw logits; `match` and `known` as in `carzero.model.loss.pairwise_loss`."""

    @abstractmethod
    def prepare(self, texts: TextFeatures, words: Tensor) -> tuple[ScoringTexts, ...]:
        """Computes what depends on the texts alone, for `score`.

        Args:
            texts: features of T texts.
            words: (T,) how many positions of each text are words, from `carzero.model.text.count_words`.

        Returns:
            groups of texts in order.
        """

    @abstractmethod
    def score(
        self, images: ImageFeatures, texts: Sequence[ScoringTexts], need_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Scores every image against every text, in bounded memory.

        Args:
            images: features of I images.
            texts: from `prepare`, of T texts in all.
            need_maps: also return maps.

        Returns:
            (I, T) float32 raw logits; maps (I, T, h, w) as in `AlignmentOutput`, or None.

        Raises:
            ValueError: the texts were prepared by an alignment of another kind.
        """


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """A tensor that an exported prompts graph gives and the scoring graph takes; fields as in the export's manifest."""

    name: str
    prompts_axis: int
    tokens_axis: int | None = None


class ExportableAlignment(Alignment):
    """An alignment that can be written as graphs for other engines; all methods but `map_kind` are traced."""

    @property
    @abstractmethod
    def export_tensors(self) -> tuple[GraphTensor, ...]:
        """What passes from the prompts graph to the scoring graph, in order."""

    @abstractmethod
    def to_tensors(self, texts: TextFeatures, words: Tensor, positions: Tensor | None) -> tuple[Tensor, ...]:
        """Prepares T texts as one group, and returns the tensors of `export_tensors`; `words` as in `prepare`.

        `positions` is 0, 1, 2, ... for at least as many positions as the longest text has tokens, if any of
        `export_tensors` counts tokens; else None.
        """

    @abstractmethod
    def from_tensors(self, tensors: Sequence[Tensor]) -> ScoringTexts:
        """The group of texts that `to_tensors` made tensors of."""

    @abstractmethod
    def score_whole(self, images: ImageFeatures, texts: ScoringTexts, asked: int) -> tuple[Tensor, Tensor]:
        """Scores all images against one group of texts at once: (I, T) raw logits; maps (I, T, h, w).

        `asked` is how many texts the graph is meant for, where a cheaper way of computing depends on it.
        """
