"""The models that are timed: weights by their name, or the paper's size with random numbers."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from carzero.backends import TorchBackend
from carzero.errors import PromptError, describe
from carzero.model import CARZeroConfig, CARZeroModel
from carzero.precision import choose_device, has_fast_bfloat16, to_torch_dtype
from carzero.processing import build_processor, continuation_pieces
from carzero.prompts import PromptSet, load_prompt_set
from carzero.weights import DEMO, load_processor
from carzero.zeroshot import ZeroShotClassifier

__all__ = ["FULL_SIZE", "build_prompts", "list_dtypes", "load_classifiers"]

FULL_SIZE = "random weights of the paper's size"
_PLACES = ("", " in the left lung", " in the right lung", " in both lungs")


def list_dtypes(device: str | None) -> list[str]:
    """The precisions that are worth timing with torch: float32, and those that the device has in hardware."""
    kind = choose_device(device).type
    return [
        "float32",
        *(["bfloat16"] if has_fast_bfloat16(device) else []),
        *(["float16"] if kind == "cuda" else []),
    ]


def load_classifiers(weights: str | None, dtypes: Sequence[str], device: str | None) -> list[ZeroShotClassifier]:
    """Loads the weights once for each precision.

    Args:
        weights: their name; None makes a ViT-B/16, a BERT-base and four alignment layers of random numbers in memory.
        dtypes: precisions, or none to time what there is: all of `list_dtypes`, or the one of exported weights.
        device: where to compute; None takes a GPU if there is one.
    """
    if weights is None:
        return _build_full_size(dtypes or list_dtypes(device), device)
    if dtypes:
        return [ZeroShotClassifier.from_pretrained(weights, device=device, dtype=dtype) for dtype in dtypes]
    first = ZeroShotClassifier.from_pretrained(weights, device=device)
    if not isinstance(first.backend, TorchBackend):
        return [first]
    others = {
        dtype: ZeroShotClassifier.from_pretrained(weights, device=device, dtype=dtype)
        for dtype in list_dtypes(device)
        if dtype != first.dtype
    }
    return [(others | {first.dtype: first})[dtype] for dtype in list_dtypes(device)]


def build_prompts(count: int) -> PromptSet:
    """So many prompts of usual length, one a label: PadChest's labels, then the same at places of the chest.

    Raises:
        PromptError: fewer than one, or more than there are.
    """
    labels = [f"{label}{place}" for place in _PLACES for label in load_prompt_set("padchest192").labels]
    if not 1 <= count <= len(labels):
        raise PromptError(
            describe("So many prompts cannot be timed", got=count, expected=f"a number from 1 to {len(labels)}")
        )
    return PromptSet.from_labels(labels[:count])


def _build_full_size(dtypes: Sequence[str], device: str | None) -> list[ZeroShotClassifier]:
    tokenizer = load_processor(DEMO).tokenizer
    config = CARZeroConfig(text_config={"model_type": "bert", "vocab_size": len(tokenizer)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CARZeroModel(config)
    model.set_continuations(continuation_pieces(tokenizer))
    processor = build_processor(tokenizer, max_text_length=config.max_text_length)
    return [
        ZeroShotClassifier(TorchBackend(copy.deepcopy(model), device=device, dtype=to_torch_dtype(dtype)), processor)
        for dtype in dtypes
    ]
