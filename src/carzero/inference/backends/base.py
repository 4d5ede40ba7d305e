"""What prediction asks of an engine: prompts encoded once, then images scored against them."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from carzero.inference.prompt_bank import PromptBank
from carzero.processing import CARZeroProcessor
from carzero.prompts import PromptSet
from carzero.records import MapKind


class PairScores(NamedTuple):
    """Scores of a batch of images.

    Attributes:
        scores: (I, prompts) float32 on the CPU, raw logits; (I, prompts, M) of the M members of an ensemble.
        maps: (I, prompts, h, w) float32 on the CPU, where each prompt looks; None unless asked for.
    """

    scores: Tensor
    maps: Tensor | None


@runtime_checkable
class Backend(Protocol):
    """An engine with the weights in it.

    Attributes:
        name: of the engine, such as "torch".
        dtype: precision it computes in: "float32", "bfloat16", "float16" or "int8".
        map_kind: what the cells of its maps are; None where the weights have no maps.
    """

    name: str
    dtype: str

    @property
    def map_kind(self) -> MapKind | None:
        """See the class."""

    def encode_prompts(self, processor: CARZeroProcessor, prompt_set: PromptSet) -> PromptBank[object]:
        """Encodes prompts, once for all images; only this backend need understand the bank's `texts`.

        Raises:
            PromptError: a prompt is longer than the model reads.
        """

    def merge_prompts(self, bank: PromptBank[object]) -> PromptBank[object]:
        """Makes one text of all prompts of a label: the pool "text".

        Raises:
            PromptError: texts of this model cannot be merged.
        """

    def score(self, pixel_values: Tensor, bank: PromptBank[object], need_maps: bool = False) -> PairScores:
        """Scores images.

        Args:
            pixel_values: (I, 3, h, w) float32 on the CPU, as the processor makes them.
            bank: from `encode_prompts` of a backend with the same weights.
            need_maps: also return maps.
        """
