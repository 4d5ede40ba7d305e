"""What prediction asks of an engine: prompts encoded once, then images scored against them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from carzero.errors import CARZeroError, PromptError, WeightsError, refuse_broken
from carzero.inference.prompt_bank import PromptBank
from carzero.processing import CARZeroProcessor
from carzero.prompts import PromptSet
from carzero.prompts.style import PromptStyle
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


@dataclass(frozen=True, slots=True)
class Trial:
    """Whether weights give scores at all, asked once something has gone wrong.

    The loader lets pass what is none of a model's: a tensor of NaN, a number in the configuration that fits no tensor.
    To score an image at every load would take longer than the loading itself, as weights are mapped and not read. So a
    plain image is scored when an image gets no score: it tells weights that give none from an image that gets none.

    Attributes:
        backend: with the weights.
        processor: of the weights.
        style: how the weights are asked.
        name: of the weights.
    """

    backend: Backend
    processor: CARZeroProcessor
    style: PromptStyle
    name: str

    def check(self) -> None:
        """Scores a plain image.

        Raises:
            WeightsError: it cannot be scored, or its score or map is not a number.
        """
        what, then = f"The weights {self.name} give no scores", "take other weights, or compute in float32"
        with refuse_broken(what, error=WeightsError, expected="a finite logit of any image", then=then):
            try:
                bank = self.backend.encode_prompts(self.processor, self.style.ask(["finding"]))
            except PromptError:  # prompts are baked in, and this is none of them
                return
            side = self.processor.image_processor.pixels.model_px
            pairs = self.backend.score(torch.zeros(1, 3, side, side), bank, need_maps=self.backend.map_kind is not None)
            if not pairs.scores.isfinite().all() or (pairs.maps is not None and not pairs.maps.isfinite().all()):
                raise ValueError("a score that is not a number")

    @contextmanager
    def blaming_weights(self) -> Iterator[None]:
        """Says of what fails inside that the weights are to blame, where they give no score of a plain image either.

        Raises:
            WeightsError: as `check`.
        """
        try:
            yield
        except CARZeroError:
            raise
        except Exception:
            self.check()
            raise
