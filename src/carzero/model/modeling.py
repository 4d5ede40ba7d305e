"""The model: two towers and an alignment, as a transformers model family."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import ModelOutput

from carzero.model.alignment import Alignment, ScoringTexts, find_alignment
from carzero.model.configuration import CARZeroConfig
from carzero.model.features import (
    AlignmentOutput,
    FeatureProjection,
    ImageFeatures,
    PreparedTexts,
    TextFeatures,
    TowerOutput,
    build_projection,
)
from carzero.model.image_encoder import ChannelScale, ImageEncoder
from carzero.model.scoring_model import ScoringModel
from carzero.model.text import count_words, text_features
from carzero.model.vision import (
    CONVOLVED_AT_ONCE,
    build_tower,
    freeze_position_embeddings,
    is_convolutional,
    join_layers,
    split_image_features,
    stack_memory,
)
from carzero.records import MapKind


@dataclass
class CARZeroOutput(ModelOutput):
    """Output of `CARZeroModel`. The logits are cross-attention scores, not cosines, though CLIP's names are kept.

    Attributes:
        loss: scalar, if `return_loss`.
        logits_per_image: (I, T) raw scores, mean of both directions.
        logits_per_text: (T, I) the same, transposed.
        logits_i2t: (I, T) text queries on image memories.
        logits_t2i: (T, I) image queries on text memories.
        attention_maps: (I, T, h, w) attention of each text on the image's patches, if `output_attentions`.
        image_embeds: (I, D) global image features.
        text_embeds: (T, D) global text features.
        vision_model_output: the image tower's output.
        text_model_output: the text tower's output.
    """

    loss: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    logits_i2t: Tensor | None = None
    logits_t2i: Tensor | None = None
    attention_maps: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    vision_model_output: TowerOutput | None = None
    text_model_output: TowerOutput | None = None


class CARZeroPreTrainedModel(PreTrainedModel):
    """What transformers needs to know to initialise, save and load the family."""

    config_class = CARZeroConfig
    base_model_prefix = "carzero"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialises the alignment and projections; the towers initialise themselves."""
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, FeatureProjection):
            module.reset_statistics()
        elif isinstance(module, Alignment | ChannelScale):
            module.reset_parameters()
        elif isinstance(module, CARZeroModel):
            nn.init.zeros_(module.is_continuation)


class CARZeroModel(CARZeroPreTrainedModel, ScoringModel):
    """CARZero: scores images against texts through a cross-attention similarity representation.

    Args:
        config: see `CARZeroConfig`; it alone rebuilds the model.
    """

    if TYPE_CHECKING:  # at run time transformers reads this annotation as the class itself, not as its name
        config: CARZeroConfig
    is_continuation: Tensor

    def __init__(self, config: CARZeroConfig) -> None:
        super().__init__(config)
        self.vision_model = build_tower(config.vision_config)
        self.text_model = build_tower(config.text_config)
        self.vision_projection = build_projection(config.vision_width, config.projection_dim, config.projection_dropout)
        self.image_encoder = ImageEncoder(
            config.hidden_size,
            config.image_encoder_layers,
            config.image_encoder_heads,
            config.image_encoder_mlp_ratio,
        )
        self.text_projection = build_projection(config.text_width, config.projection_dim, config.projection_dropout)
        self.alignment = find_alignment(config.alignment)(config)
        # Which vocabulary entries continue a word belongs to the weights as the vocabulary does, so it is saved.
        vocabulary = int(config.text_config.vocab_size)
        self.register_buffer("is_continuation", torch.zeros(vocabulary, dtype=torch.bool))
        self.post_init()
        self._freeze()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Loads weights as every transformers model does, then freezes what the configuration keeps out of training."""
        loaded = super().from_pretrained(*args, **kwargs)
        # Loading puts new parameters in place of those that __init__ froze.
        (loaded[0] if isinstance(loaded, tuple) else loaded)._freeze()
        return loaded

    def _freeze(self) -> None:
        if self.config.freeze_position_embeddings:
            freeze_position_embeddings(self.vision_model)

    def set_continuations(self, is_continuation: Tensor) -> None:
        """Sets which vocabulary entries continue the word before them.

        Args:
            is_continuation: (vocabulary,) bool, see `carzero.text.tokenizers.continuation_pieces`.

        Raises:
            ValueError: another length than the text tower's vocabulary.
        """
        if is_continuation.shape != self.is_continuation.shape:
            raise ValueError(
                f"The tokenizer has {len(is_continuation)} entries, the text tower {len(self.is_continuation)}; "
                "they must come from one vocabulary."
            )
        self.is_continuation.copy_(is_continuation)

    def encode_images(self, pixel_values: Tensor) -> ImageFeatures:
        """Encodes images.

        Args:
            pixel_values: (I, 3, height, width), normalised as the processor does.
        """
        return self.project_images(self.raw_image_features(pixel_values))

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor, **tower_inputs: Tensor | None) -> TextFeatures:
        """Encodes texts.

        Args:
            input_ids: (T, W) token ids, padded to `config.max_text_length` as the scores demand.
            attention_mask: (T, W), 0 for padding.
            tower_inputs: further inputs of the text tower, such as `token_type_ids`.
        """
        return self.project_texts(self.raw_text_features(input_ids, attention_mask, **tower_inputs))

    def raw_image_features(self, pixel_values: Tensor) -> ImageFeatures:
        """Image features before any projection: the tower's own width."""
        return self._split_images(self._run_vision_tower(pixel_values), pixel_values)

    def raw_text_features(
        self, input_ids: Tensor, attention_mask: Tensor, **tower_inputs: Tensor | None
    ) -> TextFeatures:
        """Text features before any projection: the tower's own width."""
        return self._sum_texts(
            self._run_text_tower(input_ids, attention_mask, **tower_inputs), input_ids, attention_mask
        )

    def project_images(self, raw: ImageFeatures) -> ImageFeatures:
        """Takes raw image features to the width where images and texts meet, and through the small encoder if any."""
        pooled, local = self.image_encoder(*self.vision_projection(raw.pooled, raw.local))  # (I, D), (I, P, D)
        return ImageFeatures(pooled, local, raw.grid)

    def project_texts(self, raw: TextFeatures) -> TextFeatures:
        """Takes raw text features to the width where images and texts meet."""
        pooled, local = self.text_projection(raw.pooled, raw.local)  # (T, D), (T, W, D)
        return TextFeatures(pooled, local, raw.mask)

    @property
    def map_kind(self) -> MapKind:
        """That of the alignment."""
        return self.alignment.map_kind

    @property
    def images_at_once(self) -> int | None:
        """See `ScoringModel.images_at_once`."""
        return CONVOLVED_AT_ONCE if is_convolutional(self.config.vision_config) else None

    def encode_raw_images(self, pixel_values: Tensor) -> ImageFeatures:
        """See `ScoringModel.encode_raw_images`."""
        return self.raw_image_features(pixel_values)

    def prepare_prompts(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[ScoringTexts, ...]:
        """See `ScoringModel.prepare_prompts`."""
        raw = TextFeatures.join([self.raw_text_features(ids, mask) for ids, mask in batches])
        prepared: tuple[ScoringTexts, ...] = self.alignment.prepare(self.project_texts(raw), count_words(raw.local))
        return prepared

    def score_prompts(
        self, images: ImageFeatures, texts: Sequence[ScoringTexts], need_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See `ScoringModel.score_prompts`."""
        scored: tuple[Tensor, Tensor | None] = self.alignment.score(images, texts, need_maps)
        return scored

    def prepare_texts(self, texts: TextFeatures) -> PreparedTexts:
        """Computes everything that depends on the texts alone, to be kept for all images."""
        return self.alignment.prepare_texts(texts)

    def align(
        self, images: ImageFeatures, texts: TextFeatures | PreparedTexts, need_maps: bool = False
    ) -> AlignmentOutput:
        """Scores every image against every text.

        Args:
            images: features of I images.
            texts: features of T texts, or what `prepare_texts` makes of them, which saves work for many images.
            need_maps: also return attention maps (I, T, h, w).
        """
        prepared = texts if isinstance(texts, PreparedTexts) else self.prepare_texts(texts)
        output: AlignmentOutput = self.alignment(images, prepared, need_maps)
        return output

    def compute_loss(self, output: AlignmentOutput, match: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """The training loss of the configured alignment; see `carzero.model.loss`."""
        return self.alignment.loss(output, match, known)

    def get_image_features(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """Returns global features (I, D) as `pooler_output`, [global; local] (I, 1 + P, D) as `last_hidden_state`."""
        features = self.encode_images(pixel_values)
        return BaseModelOutputWithPooling(
            last_hidden_state=stack_memory(features.pooled, features.local), pooler_output=features.pooled
        )

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        """Returns global features (T, D) as `pooler_output` and word features (T, W, D) as `last_hidden_state`."""
        features = self.encode_texts(input_ids, attention_mask, token_type_ids=token_type_ids)
        return BaseModelOutputWithPooling(last_hidden_state=features.local, pooler_output=features.pooled)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        return_loss: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> CARZeroOutput | tuple[object, ...]:
        """Scores every image of the batch against every text of the batch.

        Args:
            pixel_values: (I, 3, height, width), normalised as the processor does.
            input_ids: (T, W) token ids.
            attention_mask: (T, W), 0 for padding.
            token_type_ids: (T, W) or None.
            return_loss: also compute the released loss; text i must belong to image i.
            output_attentions: also return the attention of texts on patches (I, T, h, w).
            return_dict: False returns a tuple of the fields that are set.
        """
        vision_output = self._run_vision_tower(pixel_values)
        text_output = self._run_text_tower(input_ids, attention_mask, token_type_ids=token_type_ids)
        images = self.project_images(self._split_images(vision_output, pixel_values))
        texts = self.project_texts(self._sum_texts(text_output, input_ids, attention_mask))
        aligned = self.align(images, texts, need_maps=bool(output_attentions))
        output = CARZeroOutput(
            loss=self.compute_loss(aligned) if return_loss else None,
            logits_per_image=aligned.scores,
            logits_per_text=aligned.scores.T,  # (T, I)
            logits_i2t=aligned.logits_i2t,
            logits_t2i=aligned.logits_t2i,
            attention_maps=aligned.maps,
            image_embeds=images.pooled,
            text_embeds=texts.pooled,
            vision_model_output=vision_output,
            text_model_output=text_output,
        )
        return output if return_dict is not False else output.to_tuple()

    def _run_vision_tower(self, pixel_values: Tensor) -> TowerOutput:
        if is_convolutional(self.config.vision_config):
            # Convolutions on a CPU are several times faster with the channels last; values differ by rounding only.
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        every_layer = bool(self.config.vision_feature_layers)
        output: TowerOutput = self.vision_model(pixel_values=pixel_values, output_hidden_states=every_layer)
        return output

    def _run_text_tower(self, input_ids: Tensor, attention_mask: Tensor, **tower_inputs: Tensor | None) -> TowerOutput:
        given = {name: value for name, value in tower_inputs.items() if value is not None}
        given |= {"input_ids": input_ids, "attention_mask": attention_mask}
        output: TowerOutput = self.text_model(output_hidden_states=True, **given)
        return output

    def _split_images(self, tower_output: TowerOutput, pixel_values: Tensor) -> ImageFeatures:
        layers = self.config.vision_feature_layers
        # (I, 1 + R + P, D) tokens, or (I, D, h, w) a feature map
        hidden = join_layers([tower_output.hidden_states[n] for n in layers] or [tower_output.last_hidden_state])
        size = (int(pixel_values.shape[-2]), int(pixel_values.shape[-1]))
        return ImageFeatures(
            *split_image_features(hidden, self.config.vision_config, size, self.config.vision_feature_pool)
        )

    def _sum_texts(self, tower_output: TowerOutput, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        features = text_features(
            tower_output.hidden_states,
            input_ids,
            attention_mask,
            self.is_continuation,
            layers=self.config.summed_text_layers,
            mask_padding=self.config.mask_padding,
        )
        return TextFeatures(*features)
