"""Times `carzero predict` from the shell to the first score of one image with the demo weights, and says where it goes.

    python benchmarks/first_score.py [--turns 5]

Each turn runs the command as it is, and with all of transformers loaded, one after the other. The stages are of a
process of its own, in the order in which the command passes through them: seconds of wall-clock time, and their share.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import carzero

ARGUMENTS = ["predict", str(carzero.example_film()), "--labels", "pneumonia"]
AS_IT_IS = [sys.executable, "-m", "carzero", *ARGUMENTS]
WITH_ALL = [sys.executable, "-c", f"import sys; sys.argv[1:] = {ARGUMENTS!r}; from carzero.cli.main import run; run()"]
# Each stage begins where the one before it has ended.
STAGES = {
    "the command line": "import carzero.cli.main",
    "images": "import carzero.images.listing",
    "prompts, runs": "import carzero.inference.scoring",
    "torch": "import torch",
    "transformers": "import transformers.modeling_utils",
    "the model's modules": "import carzero.inference.classifier",
    "review of the prompts": (
        "source = carzero.weights.source.WeightsSource('demo'); "
        "asked = carzero.prompts.PromptSet.from_labels(['pneumonia']); source.review(asked)"
    ),
    "weights": "classifier = carzero.ZeroShotClassifier.from_pretrained(source)",
    "the score": (
        "bank = classifier.encode_prompts(asked); "
        "items = carzero.images.listing.list_arrays([carzero.example_film()]); list(classifier.stream(items, bank))"
    ),
    "the table": "import rich.table",
}
PROGRAM = """
import json, time
import carzero
from carzero.cli.lean_transformers import spare_imports
spare_imports(["predict"])
seconds = {}
for name, code in json.loads(%r).items():
    start = time.perf_counter()
    exec(code)
    seconds[name] = time.perf_counter() - start
print(json.dumps(seconds))
"""


def time_command(command: list[str]) -> float:
    """Seconds of wall-clock time."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return time.perf_counter() - start


def time_stages() -> dict[str, float]:
    """Seconds of each stage, in a process of its own."""
    program = PROGRAM % json.dumps(STAGES)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return {name: float(value) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}


def main() -> None:
    """Prints medians over the turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="how often each is run")
    turns = parser.parse_args().turns
    time_command(AS_IT_IS)  # files into memory
    pairs = [(time_command(AS_IT_IS), time_command(WITH_ALL)) for _ in range(turns)]
    is_now, with_all = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"first score {is_now:.2f} s; with all of transformers {with_all:.2f} s; ratio {is_now / with_all:.2f}")
    runs = [time_stages() for _ in range(turns)]
    whole = sum(statistics.median(run[name] for run in runs) for name in STAGES)
    for name in STAGES:
        seconds = statistics.median(run[name] for run in runs)
        print(f"{name:<24}{seconds:6.2f} s{seconds / whole:7.0%}")


if __name__ == "__main__":
    main()
