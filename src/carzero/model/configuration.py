"""The configuration: everything needed to rebuild the model, and nothing else."""

from __future__ import annotations

from typing import Any, Literal

from transformers import AutoConfig, BertConfig, PreTrainedConfig, ViTConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from carzero.errors import ConfigurationError, describe
from carzero.model.alignment import find_alignment
from carzero.model.image_encoder import check_encoder

# What transformers itself writes into a config.json or passes through a constructor beside declared fields.
_HOUSEKEEPING = frozenset(
    {
        "_attn_implementation",
        "_commit_hash",
        "_name_or_path",
        "attn_implementation",
        "auto_map",
        "experts_implementation",
        "model_type",
        "name_or_path",
        "num_labels",
        "output_attentions",
        "torch_dtype",
        "transformers_version",
    }
)


class CARZeroConfig(PreTrainedConfig):
    """Describes two towers and the alignment between them.

    Args:
        vision_config: configuration of the image tower, as an object or a dict with `model_type`; ViT-B/16 at 224 px by
            default. Any `AutoModel` that returns a token sequence with a leading class token (ViT, DINOv2) or a
            feature map (EfficientNet, ResNet, ConvNeXt) will do.
        text_config: configuration of the text tower, likewise; BERT-base by default (BERT, RoBERTa, MPNet types).
        vision_feature_layer: index of the image tower's hidden state that is used (0 is the embedding output), or a
            list of several, whose channels are joined on the coarsest grid among them; None: its last output (the
            released model).
        vision_feature_width: channels of that hidden state, or of all of them together; needed where the configuration
            of the tower does not tell.
        vision_feature_pool: side of the squares of a feature map that are averaged into one local feature; 1: none.
        projection_dim: common width of both towers after a linear projection, one for global and one for local
            features. None: no projection; the towers' widths must be equal (the released model).
        projection_dropout: dropout of global features before their projection, active in training only.
        max_text_length: W, tokens per text after padding or truncation. Scores depend on it: padding is not masked.
        summed_text_layers: how many of the text tower's last hidden states are summed into the text features.
        mask_padding: leave a text's padding out of its mean and of the alignment's memory, so that scores no longer
            depend on `max_text_length`. False in the released model, whose scores do.
        image_encoder_layers: layers of a small encoder behind the image tower and its projection, which attend over
            all image tokens and are trained with the alignment (DINOv2's form); 0: none (the released model).
        image_encoder_heads: its attention heads.
        image_encoder_mlp_ratio: width of its feed-forward part, as a multiple of its own.
        alignment: "simr", the paper's cross-attention similarity representation (Lai et al. 2024, section 3.2);
            "cosine", L2-normalised global features with a learned temperature (CLIP; the paper's Figure 1, left); or
            "similarity_map", the cosine of a text with what it pools by its cosines with the image's tokens.
        alignment_options: options of that kind alone, by name: see its `options_type`.
        decoder_layers: L, layers of the shared SimR decoder.
        decoder_heads: attention heads of the decoder.
        decoder_ffn_dim: width of the decoder's feed-forward part.
        decoder_layer_norm_eps: epsilon of every LayerNorm in the decoder.
        dropout: dropout probability in decoder and score head, active in training only.
        score_head: "mlp", the released model's head; or "linear", one layer as in the paper's text.
        score_head_dims: hidden widths of the "mlp" head.
        freeze_position_embeddings: keep the image tower's position embeddings out of training (fixed sine-cosine
            values in the released model).
        logit_scale_init: initial natural logarithm of the inverse temperature ("cosine" only).

    Raises:
        ConfigurationError: unknown key, unknown kind, or widths that do not fit each other.
    """

    model_type = "carzero"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012 (transformers' own form)

    # A dict or None when given; always a configuration object once the constructor is done.
    vision_config: Any = None
    text_config: Any = None
    vision_feature_layer: int | list[int] | tuple[int, ...] | None = None
    vision_feature_width: int | None = None
    vision_feature_pool: int = 1
    projection_dim: int | None = None
    projection_dropout: float = 0.0
    max_text_length: int = 97
    summed_text_layers: int = 4
    mask_padding: bool = False
    image_encoder_layers: int = 0
    image_encoder_heads: int = 12
    image_encoder_mlp_ratio: float = 4.0
    alignment: str = "simr"  # a key of `carzero.model.alignment.ALIGNMENTS`
    alignment_options: dict[str, object] | None = None  # a dict once the constructor is done
    decoder_layers: int = 4
    decoder_heads: int = 4
    decoder_ffn_dim: int = 1024
    decoder_layer_norm_eps: float = 1e-5
    dropout: float = 0.1
    score_head: Literal["mlp", "linear"] = "mlp"
    score_head_dims: list[int] | tuple[int, ...] = (1024, 512, 256)
    freeze_position_embeddings: bool = False
    logit_scale_init: float = 2.6592

    def __post_init__(self, **kwargs: object) -> None:
        unknown = sorted(set(kwargs) - _HOUSEKEEPING)
        if unknown:
            raise ConfigurationError(
                describe(
                    "A CARZero configuration holds unknown keys",
                    got=unknown,
                    expected=f"only the fields of CARZeroConfig: {', '.join(_own_fields())}",
                    then="remove the key, or load the weights with the package version that wrote them",
                )
            )
        self.vision_config = _to_config(self.vision_config, "vision_config", ViTConfig)
        self.text_config = _to_config(self.text_config, "text_config", BertConfig)
        self.score_head_dims = [int(width) for width in self.score_head_dims]
        self.alignment_options = dict(self.alignment_options or {})
        super().__post_init__(**kwargs)
        self._check()

    @property
    def hidden_size(self) -> int:
        """D, the width at which images and texts meet."""
        return self.projection_dim or self.text_width

    @property
    def vision_width(self) -> int:
        """Width of the image features in use, before any projection."""
        return self.vision_feature_width or _tower_width(self.vision_config)

    @property
    def vision_feature_layers(self) -> tuple[int, ...]:
        """Numbers of the image tower's hidden states that are used; none where its last output is."""
        layers = self.vision_feature_layer
        return () if layers is None else (layers,) if isinstance(layers, int) else tuple(layers)

    @property
    def text_width(self) -> int:
        """Width of the text tower's output, before any projection."""
        return int(self.text_config.hidden_size)

    def _check(self) -> None:
        alignment = find_alignment(self.alignment)
        _check_choice("score_head", self.score_head, ("mlp", "linear"))
        if self.projection_dim is None and self.vision_width != self.text_width:
            raise ConfigurationError(
                describe(
                    "The towers differ in width and there is no projection between them",
                    got=f"vision {self.vision_width}, text {self.text_width}",
                    expected="equal widths, or a projection_dim",
                    then="set projection_dim, for example to 256",
                )
            )
        alignment.check_config(self)
        check_encoder(
            self.image_encoder_layers, self.image_encoder_heads, self.image_encoder_mlp_ratio, self.hidden_size
        )
        positions = getattr(self.text_config, "max_position_embeddings", None)
        if positions is not None and self.max_text_length > positions:
            raise ConfigurationError(
                describe(
                    "Texts are longer than the text tower has positions",
                    got=f"max_text_length {self.max_text_length}",
                    expected=f"at most max_position_embeddings {positions}",
                    then="lower max_text_length",
                )
            )
        states = int(self.text_config.num_hidden_layers) + 1
        if not 1 <= self.summed_text_layers <= states:
            raise ConfigurationError(
                describe(
                    "More hidden states are to be summed than the text tower has",
                    got=f"summed_text_layers {self.summed_text_layers}",
                    expected=f"1 to {states} (the embedding output counts as one)",
                    then="lower summed_text_layers",
                )
            )


def _own_fields() -> list[str]:
    return [name for name in CARZeroConfig.__annotations__ if not name.startswith("_")]


def _to_config(value: object, field: str, default: type[PreTrainedConfig]) -> PreTrainedConfig:
    if isinstance(value, PreTrainedConfig):
        return value
    if value is None:
        return default()
    if not isinstance(value, dict):
        raise ConfigurationError(
            describe(f"{field} is not a configuration", got=value, expected="a dict with model_type, or an object")
        )
    kind = value.get("model_type", default.model_type)
    if kind not in CONFIG_MAPPING:
        raise ConfigurationError(
            describe(
                f"{field} names a tower that transformers does not know",
                got=kind,
                expected='a model_type such as "vit", "dinov2", "bert" or "mpnet"',
                then="correct model_type, or install a transformers version that has it",
            )
        )
    return CONFIG_MAPPING[kind](**value)


def _tower_width(config: PreTrainedConfig) -> int:
    # EfficientNet's `hidden_dim` is the width of its last feature map; convolutional stages list `hidden_sizes`.
    for field in ("hidden_dim", "hidden_size"):
        if isinstance(getattr(config, field, None), int):
            return int(getattr(config, field))
    return int(config.hidden_sizes[-1])


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(
            describe(
                f"{field} is not known",
                got=value,
                expected=f"one of {', '.join(choices)}",
                then=f"correct {field} in the configuration",
            )
        )
