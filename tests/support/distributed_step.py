"""Training steps under torchrun, their losses and gradients written to files: run by test_distributed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from carzero.model import CARZeroConfig
from carzero.training.batches.inputs import Tokens
from carzero.training.batches.loader import StepBatch
from carzero.training.distributed import DistributedContext
from carzero.training.recipe_sections import LossSection, MemorySection, OptimiserSection
from carzero.training.tasks.contrastive import uses_every_parameter
from carzero.training.tasks.objective import ContrastiveObjective
from tests.support.tiny import BERT, KINDS, build_model, random_inputs, tiny_config

IMAGES, TEXTS = 7, 5  # neither divides by two


def take(sharding: str, kind: str) -> dict[str, Any]:
    """Loss, gradient norm, gradients and updated weights of a step of SGD."""
    options = OptimiserSection(steps=1, batch_size=IMAGES, lr=0.1, clip=1e9)
    memory = MemorySection(image_block=2, text_block=2, tile_pairs=6, sharding=sharding)  # type: ignore[arg-type]
    context = DistributedContext(options, sharding, "cpu")
    text = {"model_type": "bert", **BERT, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config: CARZeroConfig = tiny_config(dropout=0.0, text_config=text, **KINDS[kind])
    model = build_model(config).double().train()
    objective = ContrastiveObjective(model, LossSection(sigmoid=0.5), options, memory)
    module = context.prepare(objective, all_used=uses_every_parameter(config))
    inputs = random_inputs(IMAGES, TEXTS)
    own_images = slice(context.rank * 4, 4 + context.rank * 4) if context.world > 1 else slice(None)
    own_texts = slice(context.rank * 2, 2 + context.rank * 4) if context.world > 1 else slice(None)
    batch = StepBatch(
        inputs["pixel_values"][own_images].double(),
        Tokens(inputs["input_ids"][own_texts], inputs["attention_mask"][own_texts]),
        torch.rand(IMAGES, TEXTS, generator=torch.Generator().manual_seed(1)) < 0.4,
        torch.rand(IMAGES, TEXTS, generator=torch.Generator().manual_seed(2)) < 0.8,
    )
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = module(batch)
    norm = context.step(loss, module, optimiser).norm
    gradients: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            grad: Any = parameter.grad
            gradients[name] = (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).clone()
    updated = {name: value.clone() for name, value in context.full_state(module).items()}
    return {"loss": loss.detach(), "norm": norm, "gradients": gradients, "updated": updated}


def main(out: str) -> None:
    """Takes a step of each kind of alignment with each sharding, and writes what came of it."""
    for sharding in ("ddp", "fsdp2"):
        for kind in KINDS:
            found = take(sharding, kind)
            if dist.get_rank() == 0:
                torch.save(found, Path(out) / f"{sharding}-{kind}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
