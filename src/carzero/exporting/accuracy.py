"""An exported folder beside the torch model in float32, on pictures that served no calibration."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from carzero.backends import Backend, TorchBackend
from carzero.backends.exported_backend import open_exported
from carzero.errors import WeightsError, describe
from carzero.exported import Accuracy, ExportManifest
from carzero.exporting.pictures import ExportPictures
from carzero.processing import CARZeroProcessor
from carzero.prompts import PromptSet

__all__ = ["compare"]

_PICTURES_AT_ONCE = 8
# A right graph in float32 stays below a tenth of it.
_LARGEST_FLOAT32_DIFFERENCE = 1e-3


def compare(
    folder: Path,
    manifest: ExportManifest,
    source: TorchBackend,
    processor: CARZeroProcessor,
    prompt_set: PromptSet,
    pictures: ExportPictures,
) -> Accuracy:
    """Scores the check pictures by both.

    Raises:
        WeightsError: a float32 export does not give the torch model's scores.
    """
    ours = _score(open_exported(folder, manifest), processor, prompt_set, pictures.check)
    theirs = _score(source, processor, prompt_set, pictures.check)
    difference = (ours - theirs).abs()
    largest = float(difference.max())
    if not torch.isfinite(ours).all() or (manifest.dtype == "float32" and largest > _LARGEST_FLOAT32_DIFFERENCE):
        raise WeightsError(
            describe(
                "The exported graph does not give the torch model's scores",
                got=f"a logit that differs by {largest:g}",
                expected=f"at most {_LARGEST_FLOAT32_DIFFERENCE:g}",
                then="report this with the versions of torch and of the engine; nothing was left behind",
            )
        )
    return Accuracy(
        pictures=len(pictures.check),
        of=pictures.of,
        prompts=theirs.shape[1],
        largest_logit_difference=largest,
        mean_logit_difference=float(difference.mean()),
        logit_deviation=float(theirs.std(dim=0).mean()) if len(theirs) > 1 else 0.0,
    )


def _score(backend: Backend, processor: CARZeroProcessor, prompt_set: PromptSet, pictures: Tensor) -> Tensor:
    """Raw logits (I, prompts)."""
    bank = backend.encode_prompts(processor, prompt_set)
    return torch.cat([backend.score(some, bank).scores for some in pictures.split(_PICTURES_AT_ONCE)])
