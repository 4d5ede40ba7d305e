"""CheXzero (Tiu et al. 2022) as `carzero convert` writes it: one or more OpenAI CLIP models that vote.

config.json holds `members`, how many there are, and `clip`, the configuration they share.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from carzero.images import PixelTransform
from carzero.prompts.style import PromptStyle
from carzero.weights.families.base import Family, load_tensors, read_config

if TYPE_CHECKING:
    import torch

    from carzero.model.dual.clip import ClipEnsemble

MODEL_TYPE = "chexzero"

_STORED_PX = 320
_LEVEL_MEAN, _LEVEL_STD = 101.48761, 83.43944  # of levels 0-255, the black margin included


def build_transform(image_px: int) -> PixelTransform:
    """CheXzero's images: to 320 px with a black margin, normalised, then to the model's size without antialias."""
    return PixelTransform(
        _STORED_PX,
        _STORED_PX,
        _LEVEL_MEAN / 255,
        _LEVEL_STD / 255,
        placement="letterbox_cut",
        resampling="lanczos",
        input_px=None if image_px == _STORED_PX else image_px,
    )


def build_ensemble(members: int, clip: dict[str, object]) -> ClipEnsemble:
    """An ensemble with random weights.

    Raises:
        ValueError: it has no member, or a configuration that no CLIP can be built from.
    """
    from transformers import CLIPConfig, CLIPModel

    from carzero.model.dual.clip import ClipEnsemble

    if not 1 <= members <= 100:
        raise ValueError(f"members must be from 1 to 100; got {members}")
    config = CLIPConfig.from_dict(clip)
    return ClipEnsemble([CLIPModel(config) for _ in range(members)])


class ChexzeroFamily(Family):
    """CheXzero: scored as the affirming prompt against the denying one, averaged over the members; no maps."""

    title = "CheXzero"
    style = PromptStyle("{label}", "no {label}", cleaning="clip", pool="text", score_kind="logit_difference")

    def load_model(self, folder: Path, dtype: torch.dtype) -> ClipEnsemble:
        """See `Family.load_model`."""
        config = read_config(folder)
        members, clip = config.get("members"), config.get("clip")
        if not isinstance(members, int) or not isinstance(clip, dict):
            raise ValueError("config.json lacks members or clip")
        return load_tensors(build_ensemble(members, clip), folder, dtype)
