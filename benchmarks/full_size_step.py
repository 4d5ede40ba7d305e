"""One complete training step at full size in bounded memory: ViT-B/16, BERT-base, `simr` or another kind.

    python benchmarks/full_size_step.py [--pairs 256] [--block 8] [--tile-pairs 256] [--precision float32|bfloat16]
        [--kind simr]

Random weights and random inputs; forward, backward, clipping and Adam update of all parameters as `carzero train` does
them. Prints the seconds and the highest resident size of the process, everything included.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from carzero.model import CARZeroConfig, CARZeroModel
from carzero.model.alignment import ALIGNMENTS
from carzero.training.batches.inputs import Tokens
from carzero.training.batches.loader import StepBatch
from carzero.training.distributed import DistributedContext
from carzero.training.optimiser import build_optimiser
from carzero.training.recipe_sections import LossSection, MemorySection, OptimiserSection
from carzero.training.tasks.objective import ContrastiveObjective


def main() -> None:
    """Runs the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--tile-pairs", type=int, default=256)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--kind", choices=list(ALIGNMENTS), default="simr")
    options = parser.parse_args()
    torch.manual_seed(0)
    pairs = options.pairs
    optimising = OptimiserSection(
        kind="adam", steps=1, batch_size=pairs, lr=5e-5, betas=(0.5, 0.999), weight_decay=1e-6, clip=0.25,
        precision=options.precision,
    )  # fmt: skip
    memory = MemorySection(image_block=options.block, text_block=options.block, tile_pairs=options.tile_pairs)
    model = CARZeroModel(CARZeroConfig(freeze_position_embeddings=True, alignment=options.kind)).train()
    objective = ContrastiveObjective(model, LossSection(), optimising, memory)
    context = DistributedContext(optimising, device="cpu")
    module = context.prepare(objective)
    optimiser = build_optimiser(model, optimising)
    tokens = Tokens(torch.randint(5, 28000, (pairs, 97)), (torch.arange(97) < 24).long().expand(pairs, -1))
    batch = StepBatch(torch.randn(pairs, 3, 224, 224), tokens, torch.eye(pairs, dtype=torch.bool), None)
    started = time.perf_counter()
    loss = module(batch)
    forward = time.perf_counter() - started
    norm = context.step(loss, module, optimiser).norm
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**20
    sizes = f"towers in blocks of {options.block}, tiles of {options.tile_pairs} pairs"
    print(f"{options.kind}, {pairs} pairs, {options.precision}, {sizes}")
    print(f"loss {float(loss.detach()):.4f}, gradient norm {norm:.3f}")
    print(f"{seconds:.0f} s (forward {forward:.0f} s), highest resident size {peak:.2f} GiB")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
