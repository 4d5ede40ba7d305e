"""Runs a campaign: `python -m tests.fuzz --minutes 30 --seed 1`."""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.campaign import run_campaign
from tests.fuzz.targets import TARGETS

_AT_ONCE = 200  # inputs of a target before the next one's turn


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Reads mutated files of every kind until the time is up."
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument(
        "--seed", default=None, help="the same seed makes the same inputs  [default: a new one, which is printed]"
    )
    parser.add_argument("--only", action="append", choices=list(TARGETS), help="a kind of file; may be repeated")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"), help="folder for inputs that are faults")
    chosen = parser.parse_args()
    seed = chosen.seed or str(random.SystemRandom().randrange(10**6))
    sys.stdout.write(f"seed {seed}, {chosen.minutes:g} minutes\n")
    sys.stdout.flush()
    result = run_campaign(
        _jobs(seed, chosen.only or list(TARGETS)), chosen.keep, until=time.monotonic() + 60 * chosen.minutes
    )
    sys.stdout.write(result.table() + "\n")
    if result.faults:
        sys.stdout.write(
            f"Inputs that are faults: {chosen.keep}. What lies in tests/fuzz/faults is read by the suite.\n"
        )
    return 1 if result.faults else 0


def _jobs(seed: str, names: list[str]) -> Iterator[dict[str, object]]:
    for turn in itertools.count():
        for name in names:
            count = int(_AT_ONCE * TARGETS[name].weight)
            yield {"target": name, "seed": seed, "start": turn * count, "count": count}


if __name__ == "__main__":
    sys.exit(main())
