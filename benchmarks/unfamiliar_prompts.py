"""Measures how many prompts are marked as unfamiliar to weights: findings and words beyond them, and their own.

    python benchmarks/unfamiliar_prompts.py [--weights demo] [--json OUT]

The words lie in benchmarks/unfamiliar_prompts/, each list with the day on which it was written and what it was used
for. They are about the bundled demo weights; of other weights only "nothing" says anything. No image is read, nothing
is scored.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from carzero.prompts import TrainingWords, list_prompt_sets, load_prompt_set
from carzero.weights.source import WeightsSource

FOLDER = Path(__file__).with_suffix("")
LISTS = ("first", "second", "third")
KINDS = {"findings": True, "nothing": True, "own": False}  # whether a prompt of the kind is to be marked
_SENTENCES = ("There ", "The lungs ")


@dataclass(frozen=True)
class Count:
    """How many prompts of a kind in one list are marked, and which of them wrongly or wrongly not."""

    words: str
    kind: str
    prompts: int
    marked: int
    wrong: list[str]


def load_words(name: str) -> dict[str, list[str]]:
    """The phrases of a list by kind; the first one's findings are those of the library without the demo's own."""
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    if "own_in_library" in content:
        left_out = {*content["own_in_library"], *content["remarks_in_library"]}
        content["findings"] = [phrase for phrase in list_library() if phrase not in left_out]
    return {kind: content[kind] for kind in KINDS}


def list_library() -> list[str]:
    """What the library's sets ask for in the wording `pairs`, each once, in alphabetical order."""
    sets = (load_prompt_set(record.name, "pairs") for record in list_prompt_sets())
    return sorted({prompts[0].removeprefix("There is ") for prompt_set in sets for _, prompts in prompt_set})


def count_marks(words: TrainingWords) -> list[Count]:
    """Marks every prompt of every list."""
    counts = []
    for name in LISTS:
        for kind, phrases in load_words(name).items():
            marked = {phrase: bool(words.find_unfamiliar(to_prompt(phrase))) for phrase in phrases}
            wrong = [phrase for phrase, is_marked in marked.items() if is_marked != KINDS[kind]]
            counts.append(Count(name, kind, len(marked), sum(marked.values()), wrong))
    return counts


def to_prompt(phrase: str) -> str:
    """A phrase as it is asked."""
    return phrase if phrase.startswith(_SENTENCES) else f"There is {phrase}"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    source = WeightsSource(arguments.weights)
    if source.training_words is None:
        sys.exit(f"{arguments.weights} does not say what it was trained on.")
    counts = count_marks(source.training_words)
    print(f"weights {arguments.weights}, SHA-256 {source.sha256[:12]}")
    print("| words | kind | prompts | marked | wrong |\n|---|---|---|---|---|")
    for count in counts:
        marked = f"{count.marked} ({100 * count.marked / count.prompts:.1f} %)"
        print(f"| {count.words} | {count.kind} | {count.prompts} | {marked} | {', '.join(count.wrong)} |")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(count) for count in counts], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
