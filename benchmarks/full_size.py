"""The released model at its full size with weights by the test suite's formula, for the benchmarks of speed."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from convert_full_size import full_size_parameters

from carzero.model import CARZeroModel
from carzero.processing import CARZeroProcessor, build_processor
from carzero.text.tokenizers import continuation_pieces, load_tokenizer
from carzero.weights.released.paper import translate_released
from tests.support.released import FIXTURES, released_state_dict


def build_full_size() -> tuple[CARZeroModel, CARZeroProcessor]:
    """ViT-B/16, BERT-base and 4 alignment layers in float32, and a processor with the fixtures' vocabulary."""
    model = translate_released(released_state_dict(full_size_parameters(), seed=0)).model
    processor = build_processor(load_tokenizer(FIXTURES / "vocab.txt"))
    model.set_continuations(continuation_pieces(processor.tokenizer))
    return model.eval(), processor


def describe_machine() -> str:
    """Processor, threads and torch version in one line."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    flags = [name for name in ("avx512_f", "avx512_bf16", "avx512_vnni", "amx_bf16") if found.get(name)]
    name = found.get("cpu_name", "unknown processor")
    return f"{name} ({', '.join(flags)}), {torch.get_num_threads()} threads, torch {torch.__version__}"
