"""The model family: tensors in, tensors out. Importing this package registers it with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel

from carzero.model.configuration import CARZeroConfig
from carzero.model.features import AlignmentOutput, ImageFeatures, PreparedTexts, TextFeatures
from carzero.model.modeling import CARZeroModel, CARZeroOutput

__all__ = [
    "AlignmentOutput",
    "CARZeroConfig",
    "CARZeroModel",
    "CARZeroOutput",
    "ImageFeatures",
    "PreparedTexts",
    "TextFeatures",
]

AutoConfig.register(CARZeroConfig.model_type, CARZeroConfig, exist_ok=True)
AutoModel.register(CARZeroConfig, CARZeroModel, exist_ok=True)
