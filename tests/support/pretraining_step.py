"""Steps of pretraining under torchrun, written to files: run by test_pretraining_distributed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from transformers import BertConfig, BertForMaskedLM

from carzero.text.tokenizers import learn_wordpieces
from carzero.training.distributed import DistributedContext
from carzero.training.recipes import ImagePretrainRecipe, RunSection, TextPretrainRecipe, load_schema
from carzero.training.tasks.masked import MaskedBatch, MaskedObjective
from carzero.training.tasks.masked_image import MaskedImages, build_autoencoder, measure_reconstruction
from carzero.training.tasks.masked_text import MaskedTexts, measure_predictions
from tests.support.pretraining import IMAGE, RECIPES, SENTENCES, TEXT, TOWER

ROWS = 7  # not divided by two
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
RUN = {"optimiser.steps": 1, "optimiser.clip": 1e9}


class Films:
    """Random pixel values, the same in every process."""

    def __init__(self) -> None:
        self._pixels = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def plain_pixels(self, rows: np.ndarray) -> torch.Tensor:
        return self._pixels[rows]


def image_step(context: DistributedContext, memory: dict[str, Any]) -> tuple[MaskedObjective, MaskedBatch]:
    changes = {**IMAGE, **RUN, "memory": {**memory, "image_block": 2}}
    recipe = load_schema(ImagePretrainRecipe, RECIPES / "pretrain-image.yaml", changes)
    films: Any = Films()
    objective = MaskedObjective(build_autoencoder(recipe).double(), measure_reconstruction, recipe, 2)
    return objective, MaskedImages(films, recipe, 16, context).load_plain(np.arange(ROWS), 1)


def text_step(context: DistributedContext, memory: dict[str, Any]) -> tuple[MaskedObjective, MaskedBatch]:
    changes = {**TEXT, **RUN, "memory": {**memory, "text_block": 2}}
    recipe = load_schema(TextPretrainRecipe, RECIPES / "pretrain-text.yaml", changes)
    texts = [sentence.lower().strip(".") for sentence in SENTENCES]
    tokenizer = learn_wordpieces(texts, 100)
    model: Any = BertForMaskedLM(BertConfig(**TOWER, **STILL, vocab_size=100)).double()
    objective = MaskedObjective(model, measure_predictions, recipe, 2)
    return objective, MaskedTexts(texts, tokenizer, recipe, context).load(np.arange(ROWS), 1)


def take(build: Any, sharding: str) -> dict[str, Any]:
    recipe: RunSection = load_schema(ImagePretrainRecipe, RECIPES / "pretrain-image.yaml", {**IMAGE, **RUN})
    context = DistributedContext(recipe.optimiser, sharding, "cpu")
    torch.manual_seed(0)
    objective, batch = build(context, {"sharding": sharding})
    module = context.prepare(objective.train())
    optimiser = torch.optim.SGD(objective.model.parameters(), lr=1.0)  # the update is the gradient
    loss = module(batch)
    norm = context.step(loss, module, optimiser).norm
    whole = {name: value.clone() for name, value in context.full_state(module).items()}
    return {"loss": loss.detach(), "norm": norm, "updated": whole}


def main(out: str) -> None:
    """Takes a step of each kind with each sharding, and writes what came of it."""
    for sharding in ("ddp", "fsdp2"):
        for kind, build in (("image", image_step), ("text", text_step)):
            found = take(build, sharding)
            if dist.get_rank() == 0:
                torch.save(found, Path(out) / f"{kind}-{sharding}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
