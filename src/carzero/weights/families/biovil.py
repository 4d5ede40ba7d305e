"""BioViL and BioViL-T as `carzero convert` writes them.

config.json holds `text`, the configuration of CXR-BERT, `joint_size`, and `temporal`, whether it is BioViL-T.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from carzero.images import PixelTransform
from carzero.prompts.style import PromptStyle
from carzero.weights.families.base import Family, load_tensors, read_config

if TYPE_CHECKING:
    import torch

    from carzero.model.dual.biovil import BiovilEncoder

MODEL_TYPE = "biovil"

_RESIZE_PX = 512
_CROP_PX = {False: 480, True: 448}  # BioViL, BioViL-T


def build_transform(temporal: bool) -> PixelTransform:
    """BioViL's images: stretched to 8 bit, the shorter side to 512 px, the centre, in 0-1."""
    return PixelTransform(
        _RESIZE_PX,
        _CROP_PX[temporal],
        0.0,
        1.0,
        placement="shortest_edge_even",
        resampling="bilinear",
        stretch="cut",
    )


def build_encoder(text: dict[str, object], joint_size: int, *, temporal: bool) -> BiovilEncoder:
    """A model with random weights."""
    from transformers import BertConfig

    from carzero.model.dual.biovil import BiovilEncoder

    return BiovilEncoder(BertConfig.from_dict(text), joint_size, temporal=temporal)


class BiovilFamily(Family):
    """BioViL: cosine of global features; a map is the cosine with each cell of the image."""

    title = "BioViL"
    style = PromptStyle(cleaning="biovil", pool="text", stated=False)

    def load_model(self, folder: Path, dtype: torch.dtype) -> BiovilEncoder:
        """See `Family.load_model`."""
        config = read_config(folder)
        text, joint_size, temporal = config.get("text"), config.get("joint_size"), config.get("temporal")
        if not (isinstance(text, dict) and isinstance(joint_size, int) and isinstance(temporal, bool)):
            raise ValueError("config.json lacks text, joint_size or temporal")
        return load_tensors(build_encoder(text, joint_size, temporal=temporal), folder, dtype)

    def is_transformer(self, folder: Path) -> bool:
        """A ResNet is none."""
        return False
