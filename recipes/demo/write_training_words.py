"""Writes what the sentences of the demo weights spoke of beside the weights, without training them again.

    python recipes/demo/write_training_words.py TABLE.csv WEIGHTS

TABLE.csv is what `build_table.py` writes; of its rows only the labels are read. The result is the file that
`carzero train recipes/demo/recipe.yaml` writes with the weights.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from carzero.prompts import TrainingWords
from carzero.training.batches.statements import FindingStatements
from carzero.training.recipes import load_recipe
from carzero.weights.source import WeightsSource


def read_training_words(table: Path) -> TrainingWords:
    """What the recipe's sentences say of the table's training rows."""
    recipe = load_recipe(Path(__file__).with_name("recipe.yaml"))
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] in recipe.sources]
    named = [[row[name].split("|") if row[name] else [] for row in rows] for name in ("present", "absent")]
    statements = FindingStatements(recipe.sentences or {}, *named, wording=recipe.wording)
    trained = [at for at, row in enumerate(rows) if row["split"] in recipe.train_splits and statements.is_known[at]]
    return TrainingWords.of(statements.count_sentences(np.array(trained, dtype=np.int64)))


def main(table: Path, weights: Path) -> None:
    """Writes the file."""
    words = read_training_words(table)
    words.save(weights, WeightsSource(weights).sha256)
    print(f"{words.sentences} sentences on {', '.join(words.findings)}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
