"""Weights of other released models by the formula of their fixtures, and what their code made of them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from tests.support.released import FIXTURES


def fill_peer(name: str, shape: Sequence[int], seed: int) -> torch.Tensor:
    """One tensor by the formula of the peers' fixtures, by its released name."""
    random = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    x = random.standard_normal(math.prod(shape)).astype(np.float32).reshape(shape)
    low = name.lower()
    if low.endswith("temperature"):
        x = math.log(0.07) + 0.1 * x
    elif low.endswith("logit_scale"):
        x = math.log(1 / 0.07) + 0.1 * x
    elif low.endswith("num_batches_tracked"):
        return torch.zeros(tuple(shape), dtype=torch.int64)
    elif low.endswith("running_var"):
        x = 1 + np.abs(0.1 * x)
    elif len(shape) >= 2:
        table = ("embedding" in low and "projection" not in low) or "relative_attention_bias" in low
        root = math.sqrt((2 if len(shape) == 4 else 1) / math.prod(shape[1:]))
        x = 0.5 * x if table or low.endswith("token") else x * root
    elif low.endswith("lambda1") or (low.endswith("weight") and any(part in low for part in ("norm", "ln_", "bn"))):
        x = 1 + 0.1 * x
    else:
        x = 0.1 * x
    return torch.from_numpy(np.asarray(x, dtype=np.float32))


def peer_cases(model: str) -> list[str]:
    """The fixtures of a model: folders whose names begin with its own, so that a further case is one more folder."""
    return sorted(path.parent.name for path in FIXTURES.glob(f"{model}*/meta.json"))


def check_weights(tensors: Mapping[str, torch.Tensor], total: float) -> None:
    """The sum of absolute values that the fixture states, over all tensors."""
    found = sum(tensor.double().abs().sum().item() for tensor in tensors.values())
    assert abs(found - total) <= 1e-9 * total


def peer_state_dict(
    parameters: Mapping[str, Sequence[int]], seed: int, total: float | None = None
) -> dict[str, torch.Tensor]:
    """All tensors by the formula, in order, under their released names; checked against their sum where it is known."""
    state = {name: fill_peer(name, shape, seed) for name, shape in parameters.items()}
    if total is not None:
        check_weights(state, total)
    return state
