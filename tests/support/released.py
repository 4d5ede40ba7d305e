"""Rebuilds the released model's weights by the fixtures' formula, and the checkpoint files that hold them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
CASES = ("mlp_head", "linear_head")


def load_meta(case: str) -> dict:
    """The case's description: parameters, seed, prompts, gradient norms, words."""
    return json.loads((FIXTURES / case / "meta.json").read_text())


def load_expected(case: str) -> dict[str, np.ndarray]:
    """The arrays that the authors' code produced."""
    with np.load(FIXTURES / case / "expected.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def fill(name: str, shape: Sequence[int], seed: int) -> torch.Tensor:
    """One tensor by the formula."""
    random = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    x = random.standard_normal(int(np.prod(shape))).astype(np.float32).reshape(shape)
    if len(shape) >= 2 and not name.endswith(("pos_embed", "cls_token")):
        x = 0.5 * x if "embeddings" in name else x / np.sqrt(np.prod(shape[1:]))
    elif "norm" in name.lower() and name.endswith("weight"):
        x = 1 + 0.1 * x
    else:
        x = 0.1 * x if len(shape) < 2 else 0.5 * x
    return torch.from_numpy(np.asarray(x, dtype=np.float32))


def released_state_dict(parameters: Mapping[str, Sequence[int]], seed: int) -> dict[str, torch.Tensor]:
    """All tensors by the formula, in order; the shared LayerNorm's two names hold one value."""
    filled = {name: fill(name, shape, seed) for name, shape in parameters.items()}
    for part in ("weight", "bias"):
        filled[f"fusion_module.decoder_norm.{part}"] = filled[f"fusion_module.decoder.norm.{part}"]
    return filled
