"""Measures scoring beside the bare image tower and beside the released way, at full size, tensors already in memory.

    python benchmarks/scoring_speed.py [--dtype float32] [--rounds 5] [--images 16] [--crossover] [--profile]
    python benchmarks/scoring_speed.py --kinds simr similarity_map cosine [--rounds 7] [--images 8]

ViT-B/16, BERT-base and 4 alignment layers with the test suite's formula weights; the prompts of ChestX-ray14 (14) and
PadChest (192). Everything is timed in turn within every round, and medians over rounds are printed, so that the
machine's drift meets all alike. The tower is the model's own, with the same batch and precision. The released way
aligns every image alike, so it is timed on `--baseline-images` of the batch and scaled; its texts cost their encoding
once per 1,024 images. Runs where nothing else computes, or not at all.

`--crossover` times both ways of reading an image over numbers of prompts; `--profile` prints where the time goes.
`--kinds` times kinds of alignment on one and the same tower, the bare tower beside them, in an order that is drawn anew
in each round. Weights are random, and so are the features of the prompts, which have as many words as theirs. It takes
processor time of all threads, and prints medians of the rounds' own ratios, with the lowest and highest: these hold
also where the machine does other work.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from full_size import build_full_size, describe_machine
from released_scoring import IMAGES_PER_ENCODING, align_one_by_one, encode_texts
from torch import Tensor

from carzero.inference.backends import TorchBackend
from carzero.model import CARZeroConfig, CARZeroModel, TextFeatures
from carzero.model.alignment import ALIGNMENTS, find_alignment
from carzero.model.alignment.simr_scoring import SimilarityScorer
from carzero.prompts import PromptSet, load_prompt_set

SETS = ("chestxray14", "padchest192")
# Floors: share of the bare tower's images/s, and times the released way's (the latter in float32).
FLOORS = {"chestxray14": (0.85, 1.25), "padchest192": (0.65, 4.5)}


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each piece of work, all in turn within every round, after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            spent = seconds(work)
            if number:
                taken[name].append(spent)
    return {name: statistics.median(spent) for name, spent in taken.items()}


def texts_of(prompt_set: PromptSet) -> list[str]:
    """Prompts in order."""
    return [prompt for _, prompts in prompt_set for prompt in prompts]


@torch.inference_mode()
def measure(dtype: torch.dtype, options: argparse.Namespace) -> None:
    """Times one precision and prints its lines."""
    model, processor = build_full_size()
    backend = TorchBackend(model, device="cpu", dtype=dtype)
    pixels = torch.randn(options.images, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    ready = pixels.to(dtype)
    features = backend.model.encode_images(ready)
    few = type(features)(
        features.pooled[: options.baseline_images], features.local[: options.baseline_images], features.grid
    )
    works: dict[str, Callable[[], object]] = {"tower": lambda: backend.model.vision_model(pixel_values=ready)}
    encoding = {}
    for name in SETS:
        prompt_set = load_prompt_set(name, "paper")
        bank = backend.encode_prompts(processor, prompt_set)
        texts = encode_texts(backend.model, processor, texts_of(prompt_set))
        encoding[name] = seconds(functools.partial(encode_texts, backend.model, processor, texts_of(prompt_set)))
        works[f"ours {name}"] = functools.partial(backend.score, pixels, bank)
        works[f"released {name}"] = functools.partial(align_one_by_one, backend.model, few, texts)
    if options.profile:
        profile(works[f"ours {SETS[-1]}"])
    spent = medians(works, options.rounds)
    tower = options.images / spent["tower"]
    print(f"{backend.dtype}, batches of {options.images}, medians of {options.rounds}: tower {tower:.2f} images/s")
    for name in SETS:
        ours = options.images / spent[f"ours {name}"]
        one = spent["tower"] / options.images + spent[f"released {name}"] / len(few.pooled)
        released = 1 / (one + encoding[name] / IMAGES_PER_ENCODING)
        share, times = FLOORS[name]
        print(
            f"  {len(load_prompt_set(name, 'paper')):>3} prompts ({name}): ours {ours:.2f} images/s, "
            f"{ours / tower:.3f} of the tower (wanted {share}); the released way {released:.3f}, "
            f"{released / tower:.3f} of the tower; ours / released {ours / released:.2f} (wanted {times} in float32)"
        )


@torch.inference_mode()
def measure_crossover(dtype: torch.dtype, options: argparse.Namespace) -> None:
    """Times the alignment alone, with projected and with moved keys, over numbers of prompts."""
    model, processor = build_full_size()
    backend = TorchBackend(model, device="cpu", dtype=dtype)
    features = backend.model.encode_images(torch.randn(options.images, 3, 224, 224, dtype=dtype))
    findings = texts_of(load_prompt_set("padchest192", "paper"))
    for count in (14, 40, 64, 96, 128, 160, 192):
        bank = backend.encode_prompts(processor, PromptSet.from_mapping({text: text for text in findings[:count]}))
        ways, alignment = {"projected": False, "moved": True}, backend.model.alignment
        scorers = {way: SimilarityScorer(alignment.decoder, alignment.head, moved) for way, moved in ways.items()}
        works = {way: functools.partial(scorer.score, features, bank.texts.groups) for way, scorer in scorers.items()}
        spent = {way: 1000 * taken / options.images for way, taken in medians(works, options.rounds).items()}
        print(f"  {count:>3} prompts: projected {spent['projected']:.2f} ms an image, moved {spent['moved']:.2f}")


def random_texts(name: str) -> tuple[TextFeatures, Tensor]:
    """Features of a set's prompts, random where there are words and zero behind, and how many words each has."""
    texts = texts_of(load_prompt_set(name, "paper"))
    words = torch.tensor([len(text.split()) + 2 for text in texts])  # with start and end
    random = torch.Generator().manual_seed(1)
    local = torch.randn(len(texts), 97, 768, generator=random) * (torch.arange(97) < words.unsqueeze(1)).unsqueeze(-1)
    return TextFeatures(local.mean(dim=1), local), words


def in_drawn_orders(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each piece of work in each round, after a round that is not counted."""
    orders = np.random.default_rng(0)
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name in orders.permutation(list(works)):
            started = time.process_time()
            works[name]()
            if number:
                taken[name].append(time.process_time() - started)
    return taken


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


@torch.inference_mode()
def measure_kinds(dtype: torch.dtype, options: argparse.Namespace) -> None:
    """Times kinds of alignment and the bare tower, one after the other; scoring is both."""
    model = CARZeroModel(CARZeroConfig()).eval().to(dtype)
    ready = torch.randn(options.images, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(dtype)
    works: dict[str, Callable[[], object]] = {"tower": lambda: model.vision_model(pixel_values=ready)}
    features = model.encode_images(ready)
    for kind in options.kinds:
        alignment = find_alignment(kind)(CARZeroConfig(alignment=kind)).eval().to(dtype)
        alignment.reset_parameters()
        for name in SETS:
            groups = alignment.prepare(*random_texts(name))
            works[f"{kind} {name}"] = functools.partial(alignment.score, features, groups)
            works[f"{kind} {name} maps"] = functools.partial(alignment.score, features, groups, need_maps=True)
    taken = in_drawn_orders(works, options.rounds)
    tower = taken["tower"]
    print(f"{dtype}, batches of {options.images}, {options.rounds} rounds, processor time")
    print(f"the tower alone {spread(tower, 2)} s; median of the rounds (lowest-highest):")
    for name, kind in ((name, kind) for name in SETS for kind in options.kinds):
        alone, maps = taken[f"{kind} {name}"], taken[f"{kind} {name} maps"]
        share = [bare / (bare + spent) for bare, spent in zip(tower, alone, strict=True)]
        cost = [100 * spent / bare for bare, spent in zip(tower, alone, strict=True)]
        drawn = [100 * spent / bare for bare, spent in zip(tower, maps, strict=True)]
        print(
            f"  {len(load_prompt_set(name, 'paper')):>3} prompts, {kind}: {spread(share)} of the tower's images/s; "
            f"the alignment alone {spread(cost, 2)} % of the tower's time, with maps {spread(drawn, 2)} %"
        )


def profile(work: Callable[[], object]) -> None:
    """Prints where one call spends its time."""
    from torch.profiler import profile as record

    work()  # the first call also reserves memory
    with record() as found:
        work()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=36))


def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--baseline-images", type=int, default=4)
    parser.add_argument("--crossover", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--kinds", nargs="+", choices=list(ALIGNMENTS))
    options = parser.parse_args()
    print(describe_machine())
    dtype = getattr(torch, options.dtype)
    if options.kinds:
        measure_kinds(dtype, options)
    else:
        (measure_crossover if options.crossover else measure)(dtype, options)


if __name__ == "__main__":
    main()
