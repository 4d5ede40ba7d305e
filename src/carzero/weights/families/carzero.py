"""CARZero's own folders, as `carzero convert`, `carzero train` and `save_pretrained` write them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from carzero.core.documents import parse_json_object
from carzero.errors import CARZeroError, WeightsError, describe, first_line
from carzero.prompts.style import PromptStyle
from carzero.text.cleaning import CLEANINGS
from carzero.weights.families.base import Family, refuse_wrong_tensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from carzero.model import CARZeroConfig, CARZeroModel
    from carzero.model.scoring_model import ScoringModel
    from carzero.processing import CARZeroProcessor


def require_carzero(model: ScoringModel) -> CARZeroModel:
    """Returns a model as CARZero's own, for what the other families have no part in: training, export.

    Raises:
        WeightsError: it is another family's.
    """
    from carzero.model import CARZeroModel

    if isinstance(model, CARZeroModel):
        return model
    raise WeightsError(
        describe(
            "This is available for CARZero's own models only",
            got=type(model).__name__,
            expected="weights of `carzero train`, or a released CARZero or RadZero that was converted",
        )
    )


def check_pair(model: CARZeroModel, processor: CARZeroProcessor) -> None:
    """Refuses a processor that is not this model's, because its scores would be others without a word.

    Raises:
        WeightsError: text length, vocabulary or image size differ.
    """
    from carzero.model.vision import is_convolutional

    size = getattr(model.config.vision_config, "image_size", None)
    tokens_only = not is_convolutional(model.config.vision_config)
    pairs = {
        "max_text_length": (processor.max_text_length, model.config.max_text_length),
        "vocabulary": (len(processor.tokenizer), int(model.config.text_config.vocab_size)),
        "crop_px": (processor.image_processor.crop_px, size if tokens_only and isinstance(size, int) else None),
    }
    wrong = {name: pair for name, pair in pairs.items() if pair[1] is not None and pair[0] != pair[1]}
    if wrong:
        raise WeightsError(
            describe(
                "Processor and model do not belong together",
                got={name: {"processor": a, "model": b} for name, (a, b) in wrong.items()},
                expected="equal values",
                then="take the processor that was saved with the weights",
            )
        )


class CARZeroFamily(Family):
    """Two towers and an alignment."""

    title = "CARZero"

    def load_model(self, folder: Path, dtype: torch.dtype) -> CARZeroModel:
        """See `Family.load_model`."""
        import torch

        from carzero.model import CARZeroModel

        if dtype == torch.float32 and (whole := load_whole(folder)) is not None:
            return whole
        # Pickled weights are never read: they could run code, and have no hash that the manifest could state.
        # Without network every look-up at the hub retries for half a minute, so a folder is never looked up.
        model, info = CARZeroModel.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, use_safetensors=True, local_files_only=True
        )
        kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
        refuse_wrong_tensors(str(folder), {kind: sorted(map(str, info[kind])) for kind in kinds})
        loaded: CARZeroModel = model
        return loaded

    def load_config(self, folder: Path) -> CARZeroConfig:
        """The model's configuration.

        Raises:
            WeightsError: it is not a CARZero's.
        """
        from carzero.model import CARZeroConfig

        try:
            return CARZeroConfig.from_pretrained(folder, local_files_only=True)
        except CARZeroError:
            raise
        except Exception as error:  # the loader raises many kinds; all mean the same to the user
            raise WeightsError(
                describe(
                    "This is not the configuration of a CARZero model",
                    got=first_line(error),
                    expected='a config.json with model_type "carzero"',
                )
            ) from error

    def read_style(self, folder: Path) -> PromptStyle:
        """CARZero's, with the cleaning that the processor of the folder names: RadZero's has none."""
        try:
            content = parse_json_object((folder / "processor_config.json").read_bytes())
        except (OSError, ValueError):
            return self.style  # `read_preprocessing` says what is wrong with the file
        stated = content.get("cleaning")
        return replace(self.style, cleaning=stated) if isinstance(stated, str) and stated in CLEANINGS else self.style

    def is_transformer(self, folder: Path) -> bool:
        """Whether its image tower is."""
        from carzero.model.vision import is_convolutional

        return not is_convolutional(self.load_config(folder).vision_config)


# Towers that are whole once they are built: they compute no buffer while they are initialised.
_WHOLE_TOWERS = frozenset({"bert", "efficientnet", "vit"})


def load_whole(folder: Path) -> CARZeroModel | None:
    """Loads the model of a folder in float32, if its file holds exactly the model's tensors under the model's names.

    transformers' own loading first prepares for files that name tensors otherwise, are spread over machines or
    quantised, which takes longer than the loading. Where nothing of it is needed the result is the same, bit for bit.

    Args:
        folder: with config.json and model.safetensors.

    Returns:
        the model, in eval mode; None where it takes transformers to load it, or to say what is wrong.
    """
    from safetensors.torch import load_file

    from carzero.model import CARZeroConfig

    path = folder / "model.safetensors"
    if not path.is_file():
        return None
    config = CARZeroConfig.from_pretrained(folder, local_files_only=True)
    towers = {config.vision_config.model_type, config.text_config.model_type}
    if not towers <= _WHOLE_TOWERS:
        return None
    _state_precision(config, folder)
    model = _build_empty(config)
    own, found = model.state_dict(), load_file(path)
    if own.keys() != found.keys() or not all(_fits(own[name], tensor) for name, tensor in found.items()):
        return None
    # A parameter that is kept out of training stays so.
    model.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in found.items()}, assign=True)
    model.eval()
    return model


def _state_precision(config: CARZeroConfig, folder: Path) -> None:
    """Writes into a configuration what transformers' loading does."""
    import torch

    config._name_or_path = str(folder)
    for part in (config, config.vision_config, config.text_config):
        part.dtype = torch.float32


def _build_empty(config: CARZeroConfig) -> CARZeroModel:
    from transformers.initialization import no_init_weights

    from carzero.model import CARZeroModel

    with no_init_weights():
        return CARZeroModel(config)


def _fits(own: Tensor, found: Tensor) -> bool:
    return own.shape == found.shape and own.is_floating_point() == found.is_floating_point()
