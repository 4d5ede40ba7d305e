"""The contract of a family of weights: what a folder on disk holds, and how its model and processor are loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from carzero.core.documents import parse_json_object
from carzero.errors import WeightsError, describe
from carzero.images import PixelTransform
from carzero.prompts.style import CARZERO_STYLE, PromptStyle

if TYPE_CHECKING:
    import torch

    from carzero.model.scoring_model import ScoringModel
    from carzero.processing import CARZeroProcessor

    ModelT = TypeVar("ModelT", bound=torch.nn.Module)


class Family(ABC):
    """How weights of one kind are read; torch is imported where a model is built, and not before.

    A family is a subclass in a file of its own and a line in `carzero.weights.families.FAMILIES`, under the
    `model_type` of its config.json. Methods take the folder and may raise anything; `WeightsSource` makes a message of
    it.

    Attributes:
        title: what its models are called.
        style: how its models want to be asked.
    """

    title: ClassVar[str]
    style: ClassVar[PromptStyle] = CARZERO_STYLE

    @abstractmethod
    def load_model(self, folder: Path, dtype: torch.dtype) -> ScoringModel:
        """Builds the model; WeightsError where tensors are missing, left over or of other shapes than configured."""

    def read_preprocessing(self, folder: Path) -> tuple[PixelTransform, int]:
        """What is done to images, and the tokens of a text; the file of a saved processor of ours."""
        content = parse_json_object((folder / "processor_config.json").read_bytes())
        images = content["image_processor"]
        if not isinstance(images, dict):
            raise ValueError("image_processor is not an object")
        return PixelTransform.from_mapping(images), int(str(content["max_text_length"]))

    def read_style(self, folder: Path) -> PromptStyle:
        """How the folder's weights want to be asked."""
        return self.style

    def load_processor(self, folder: Path) -> CARZeroProcessor:
        """The processor of the folder; one of ours."""
        from carzero.processing import CARZeroProcessor

        processor: CARZeroProcessor = CARZeroProcessor.from_pretrained(folder, local_files_only=True)
        return processor

    def is_transformer(self, folder: Path) -> bool:
        """Whether the image tower works on tokens and not on feature maps."""
        return True


def read_config(folder: Path) -> dict[str, object]:
    """The content of config.json.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a JSON object, or one that asks for layers without end.
    """
    config = parse_json_object((folder / "config.json").read_bytes())
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for name, value in part.items():
            if name.endswith("layers") and isinstance(value, int) and value > _MOST_LAYERS:
                raise ValueError(f"{name} is {value}, of {_MOST_LAYERS} at most")
    return config


_MOST_LAYERS = 1000  # a model is built layer by layer before its tensors are seen


def refuse_wrong_tensors(name: str, wrong: dict[str, list[str]]) -> None:
    """Refuses weights that do not fit their configuration.

    Args:
        name: of the weights.
        wrong: names of tensors by what is wrong with them.

    Raises:
        WeightsError: any is wrong.
    """
    if any(wrong.values()):
        raise WeightsError(
            describe(
                f"The weights in {name} do not fit their configuration",
                got={kind: keys[:4] for kind, keys in wrong.items() if keys},
                expected="every tensor of the model, and no other",
                then="take the config.json that was saved with these weights",
            )
        )


def load_tensors(model: ModelT, folder: Path, dtype: torch.dtype) -> ModelT:
    """Puts the tensors of model.safetensors into a model, which must be exactly its own.

    Raises:
        WeightsError: tensors are missing, left over or of other shapes.
    """
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    own = model.state_dict()
    refuse_wrong_tensors(
        str(folder),
        {
            "missing_keys": sorted(own.keys() - tensors.keys()),
            "unexpected_keys": sorted(tensors.keys() - own.keys()),
            "mismatched_keys": sorted(
                name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape
            ),
        },
    )
    model.load_state_dict(tensors)
    return model.to(dtype)
