"""CLIP and SigLIP as transformers saves them: a folder or hub id as it is, without conversion.

The family is chosen by the `model_type` of config.json and never by a name: "XraySigLIP ... laion2b" is a CLIP
architecture, "XrayCLIP ... webli" has a SigLIP tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from carzero.core.documents import parse_json_object
from carzero.errors import WeightsError, describe
from carzero.images import PixelTransform
from carzero.prompts.style import PromptStyle
from carzero.weights.families.base import Family, read_config, refuse_wrong_tensors
from carzero.weights.families.preprocessor import (
    CLIP_DEFAULTS,
    SIGLIP_DEFAULTS,
    complete,
    read_image_processor,
    to_transform,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from carzero.model.scoring_model import ScoringModel
    from carzero.processing import CARZeroProcessor

    ModelT = TypeVar("ModelT", bound=PreTrainedModel)


_SENTENCEPIECE = "spiece.model"  # the vocabulary of SigLIP's own tokenizer
_TEXT_PARTS = ("text_config_dict", "text_config")  # the first, of early versions, overrides the second


class PretrainedDual(Family):
    """What both have in common.

    Attributes:
        defaults: what a preprocessor_config.json that leaves a field out means.
        text_length: tokens of a text where config.json does not say.
        padding: "fixed" pads texts to the model's length, "longest" to the longest of a batch.
    """

    style = PromptStyle(cleaning="none", pool="text", stated=False)
    defaults: ClassVar[Mapping[str, object]]
    padding: ClassVar[str]
    text_length: ClassVar[int]

    def read_preprocessing(self, folder: Path) -> tuple[PixelTransform, int]:
        """From preprocessor_config.json (or the image processor of processor_config.json) and config.json."""
        return to_transform(complete(read_image_processor(folder), self.defaults)), self._text_length(folder)

    def load_processor(self, folder: Path) -> CARZeroProcessor:
        """Our processor, with the pixels and the tokenizer of the folder."""
        from carzero.processing import build_processor
        from carzero.text.tokenizers import load_tokenizer

        pixels, length = self.read_preprocessing(folder)
        tokenizer = load_tokenizer(folder)
        _check_sizes(folder, pixels, len(tokenizer))
        cleaning = self.read_style(folder).cleaning
        return build_processor(tokenizer, pixels, max_text_length=length, cleaning=cleaning, padding=self.padding)

    def read_style(self, folder: Path) -> PromptStyle:
        """With the cleaning that is part of SigLIP's own tokenizer, where that is the folder's."""
        try:
            stated = parse_json_object((folder / "tokenizer_config.json").read_bytes())
        except (OSError, ValueError):
            stated = {}
        usual = "SiglipTokenizer" if (folder / _SENTENCEPIECE).is_file() else None
        if not str(stated.get("tokenizer_class", usual)).startswith("SiglipTokenizer"):
            return self.style
        return replace(self.style, cleaning="siglip" if stated.get("do_lower_case", True) else "siglip_cased")

    def _text_length(self, folder: Path) -> int:
        config = read_config(folder)
        text = next((part for name in _TEXT_PARTS if isinstance(part := config.get(name), dict)), {})
        given = text.get("max_position_embeddings", self.text_length)
        if type(given) is not int or given < 1:
            raise ValueError(f"max_position_embeddings is {given!r}")
        return given


class ClipFamily(PretrainedDual):
    """transformers' `CLIPModel`."""

    title = "CLIP"
    padding = "longest"  # causal: what follows the end token changes nothing
    text_length = 77
    defaults = CLIP_DEFAULTS

    def load_model(self, folder: Path, dtype: torch.dtype) -> ScoringModel:
        """See `Family.load_model`."""
        from transformers import CLIPModel

        from carzero.model.dual.clip import ClipEncoder

        return ClipEncoder(_load(CLIPModel, folder, dtype))


class SiglipFamily(PretrainedDual):
    """transformers' `SiglipModel`."""

    title = "SigLIP"
    padding = "fixed"  # the text feature is read at the last position
    text_length = 64
    defaults = SIGLIP_DEFAULTS

    def load_model(self, folder: Path, dtype: torch.dtype) -> ScoringModel:
        """See `Family.load_model`."""
        from transformers import SiglipModel

        from carzero.model.dual.clip import SiglipEncoder

        return SiglipEncoder(_load(SiglipModel, folder, dtype))


def _load(kind: type[ModelT], folder: Path, dtype: torch.dtype) -> ModelT:
    loaded: Any = kind.from_pretrained(  # a pair, which the annotation does not say
        folder,
        dtype=dtype,
        output_loading_info=True,
        use_safetensors=True,
        local_files_only=True,
        ignore_mismatched_sizes=True,  # so that they are named; they are refused below
    )
    model, info = loaded
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    refuse_wrong_tensors(str(folder), {each: sorted(map(str, info[each])) for each in kinds})
    return model  # type: ignore[no-any-return]


def _check_sizes(folder: Path, pixels: PixelTransform, vocabulary: int) -> None:
    """Refuses images or a tokenizer that are not this model's, because its scores would be others without a word."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    image_px, rows = config.vision_config.image_size, config.text_config.vocab_size
    if (pixels.model_px, vocabulary) != (image_px, min(vocabulary, rows)):
        raise WeightsError(
            describe(
                "Processor and model do not belong together",
                got=f"images of {pixels.model_px} px and {vocabulary} pieces of text",
                expected=f"{image_px} px, and at most {rows} pieces, as config.json says",
                then="take the preprocessor_config.json and the tokenizer that were saved with the weights",
            )
        )
