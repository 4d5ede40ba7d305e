"""Random numbers as a function of seed and step, so that a run resumed anywhere goes on as if it had not stopped.

No generator lives longer than a step: nothing has to be saved, and every process draws the same for the whole batch.
"""

from __future__ import annotations

import numpy as np
import torch

_BITS = 63


def generator_for(seed: int, *place: int) -> np.random.Generator:
    """A numpy generator for one purpose at one place of the run, such as (purpose, step)."""
    return np.random.default_rng([seed, *place])


def torch_generator_for(seed: int, *place: int) -> torch.Generator:
    """The same for torch, on the CPU."""
    return torch.Generator().manual_seed(_mix(seed, *place))


def seed_torch(seed: int, *place: int) -> None:
    """Seeds torch's global generators, from which dropout draws."""
    torch.manual_seed(_mix(seed, *place))


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> (64 - _BITS)
