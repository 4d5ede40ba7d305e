"""A training recipe: everything that decides a run, as one checked file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import Field, ValidationError, model_validator

from carzero.core.documents import load_yaml
from carzero.errors import ConfigurationError, RunError, describe, refuse_broken
from carzero.training.recipe_sections import (
    LossSection,
    MemorySection,
    ModelSection,
    OptimiserSection,
    PixelSection,
    ReportSection,
    Section,
    SourceSection,
    VisionStart,
    WordingSection,
)

Schema = TypeVar("Schema", bound=Section)


class RunSection(Section):
    """What every run has, whatever it trains.

    Attributes:
        name: name of the weights.
        seed: of every random choice.
        optimiser: see `OptimiserSection`.
        memory: see `MemorySection`.
        evaluate_every: steps between validations; None: at the end of every epoch.
        checkpoint_every: steps between checkpoints to resume from; None: with every validation.
        keep_checkpoints: how many checkpoints stay.
        keep: keep the weights of the best validation, or of the last step.
        log: where the curves go beside the run's own log.
        save_dtype: precision of the saved weights.
    """

    name: str
    seed: int = Field(default=0, ge=0)
    optimiser: OptimiserSection
    memory: MemorySection = MemorySection()
    evaluate_every: int | None = Field(default=None, ge=1)
    checkpoint_every: int | None = Field(default=None, ge=1)
    keep_checkpoints: int = Field(default=1, ge=1)
    keep: Literal["best", "last"] = "best"
    log: list[Literal["tensorboard", "wandb"]] = Field(default_factory=list)
    save_dtype: Literal["float32", "float16", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _check_length(self) -> RunSection:
        options = self.optimiser
        if (options.steps is None) == (options.epochs is None):
            raise ValueError("optimiser needs either steps or epochs")
        sizes = options.batch_sizes
        if self.memory.sharding == "fsdp2" and 1 in (self.memory.image_block, self.memory.text_block):
            raise ValueError("fsdp2 needs blocks of 2 or more, so that every process has as many")
        if self.memory.sharding == "fsdp2" and options.average:
            raise ValueError("an average of sharded weights is not kept: set optimiser.average: 0, or sharding: ddp")
        if 0 not in sizes or min(sizes) < 0 or min(sizes.values()) < 2:
            raise ValueError("optimiser.batch_size needs a size for epoch 0, and sizes of 2 or more")
        return self


class Recipe(RunSection):
    """A run from a table of images with reports or findings to weights; see `RunSection` for what it shares.

    Attributes:
        model: see `ModelSection`.
        pixels: see `PixelSection`.
        sentences: finding to its phrases, or to whole sentences for `present` and `absent`; see `FindingStatements`.
            None: the reports' own sentences are learned, see `reports`.
        wording: see `WordingSection`.
        reports: see `ReportSection`.
        sources: the table's sources that take part, each step being drawn from one; None: all, mixed.
        judged: findings whose zero-shot AUROC is judged on validation rows, where `sources` is None.
        loss: see `LossSection`.
        train_splits: parts of the table that are trained on. With "val" among them nothing is validated, so that no
            figure comes from images that were trained on: for the last run of a recipe that is settled.
        best_by: what makes a validation the best one: the findings' mean AUROC, the loss, or recall@10 of reports.
    """

    _younger = frozenset({"wording"})

    model: ModelSection = ModelSection()
    pixels: PixelSection = PixelSection()
    sentences: Mapping[str, list[str] | Mapping[str, list[str]]] | None = None
    wording: WordingSection = WordingSection()
    reports: ReportSection = ReportSection()
    sources: dict[str, SourceSection] | None = None
    judged: list[str] = Field(default_factory=list)
    loss: LossSection = LossSection()
    train_splits: tuple[Literal["train", "val"], ...] = ("train",)
    best_by: Literal["auroc", "loss", "recall"] = "loss"

    @model_validator(mode="after")
    def _check_parts(self) -> Recipe:
        if "val" in self.train_splits and self.keep == "best":
            raise ValueError(
                "it trains on the validation part and would choose the best weights by it; "
                'set keep: last, or train_splits: ["train"]'
            )
        if self.sources is not None and not any(section.share for section in self.sources.values()):
            raise ValueError("every source has share 0, so nothing is trained on")
        if self.model.batch_norm == "trained" and self.memory.image_block is not None:
            raise ValueError("batch statistics cannot be trained in blocks: set model.batch_norm: frozen")
        if self.best_by == "auroc" and not self.all_judged:
            raise ValueError("best_by: auroc needs judged findings")
        if self.best_by == "recall" and self.sentences is not None:
            raise ValueError("best_by: recall needs reports, not findings")
        return self

    @property
    def all_judged(self) -> list[str]:
        """Every judged finding, each once."""
        pools = [self.judged] if self.sources is None else [section.judged for section in self.sources.values()]
        return list(dict.fromkeys(finding for pool in pools for finding in pool))


def load_recipe(path: str | Path, overrides: dict[str, Any] | None = None) -> Recipe:
    """Reads the recipe of a training; see `load_schema`."""
    return load_schema(Recipe, path, overrides)


def load_schema(schema: type[Schema], path: str | Path, overrides: dict[str, Any] | None = None) -> Schema:
    """Reads a recipe of some kind.

    Args:
        schema: the recipe's class.
        path: a YAML file.
        overrides: dotted name to value, such as `{"optimiser.lr": 1e-4}`; each must name an existing field's place.

    Raises:
        ConfigurationError: the file cannot be read, or a field is unknown or out of its range.
    """
    content = load_yaml(path, "The recipe", error=ConfigurationError, expected="a YAML file")
    if not isinstance(content, dict):
        raise ConfigurationError(describe(f"The recipe {path} is not a mapping", got=type(content).__name__))
    for name, value in (overrides or {}).items():
        _set(content, name, value)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise _describe_wrong(schema, path, error) from error


def load_recorded(schema: type[Schema], run: Path, given: Schema) -> tuple[Schema, list[str]]:
    """The recipe that a run began with, for who resumes it without repeating its changes.

    Args:
        schema: the recipe's class.
        run: the run's folder.
        given: the recipe as it is now.

    Returns:
        the recorded recipe, and the dotted names of fields in which `given` differs; `given` where no run has begun.

    Raises:
        RunError: the record cannot be read.
    """
    path = run / "run.yaml"
    if not path.is_file():
        return given, []
    then = "restore it, or start anew with --overwrite"
    content = load_yaml(path, "The description of the run", error=RunError, then=then)
    with refuse_broken(f"{path} describes no such run", error=RunError, then=then):
        recorded = schema.model_validate(content["recipe"] if isinstance(content, dict) else content)
    before, now = (_flatten(recipe.model_dump(mode="json")) for recipe in (recorded, given))
    return recorded, sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _flatten(value: object, place: str = "") -> dict[str, object]:
    if not isinstance(value, dict) or not value:
        return {place: value}
    inner = (_flatten(each, f"{place}.{name}" if place else str(name)) for name, each in value.items())
    return {name: each for part in inner for name, each in part.items()}


def _describe_wrong(schema: type[Section], path: str | Path, wrong: ValidationError) -> ConfigurationError:
    """The first error; one of a field that there is not comes before one of a field that is missing in its place."""
    errors = wrong.errors()
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        *parents, leaf = map(str, first["loc"])
        known = _list_fields(schema, parents)
        near = get_close_matches(leaf, known, n=1, cutoff=_ALIKE)
        return ConfigurationError(
            describe(
                f"The recipe {path} has no field {place}",
                got=first.get("input"),
                expected=f"one of {', '.join(known)}" if known else "",
                then=f"did you mean {'.'.join([*parents, *near])}? `carzero docs training` lists all fields"
                if near
                else "correct the field; `carzero docs training` lists all of them",
            )
        )
    return ConfigurationError(
        describe(
            f"The recipe {path} is wrong{f' at {place}' if place else ''}: {first['msg']}",
            got=first.get("input") if place else None,
            then="correct the field; `carzero docs training` lists all of them",
        )
    )


_ALIKE = 0.7  # of 1: "optimizer" and "optimiser" are 0.89


def _list_fields(schema: type[Section], parents: Sequence[str]) -> list[str]:
    """Names of the fields of the section at a place; none where a place holds anything."""
    found: type[Section] | None = schema
    for name in parents:
        field = None if found is None else found.model_fields.get(name)
        found = None if field is None else _find_section(field.annotation)
    return [] if found is None else list(found.model_fields)


def _find_section(annotation: object) -> type[Section] | None:
    """The section that a field holds, also one that may be None."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def _set(content: dict[str, Any], name: str, value: Any) -> None:
    *parents, leaf = name.split(".")
    place = content
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise ConfigurationError(describe("An override reaches into a plain value", got=name))
    place[leaf] = value


class DecoderSection(Section):
    """The decoder that paints masked patches, thrown away afterwards; MAE's by default (He et al. 2022, section 4)."""

    hidden_size: int = Field(default=512, ge=4)
    num_hidden_layers: int = Field(default=8, ge=1)
    num_attention_heads: int = Field(default=16, ge=1)
    intermediate_size: int = Field(default=2048, ge=1)


class MaskedTextStart(Section):
    """The text tower at the start.

    `start` is "random", or a folder or hub id of a language model. `config` holds fields of the configuration of a
    random one, BERT-base's by default. `tokenizer` is a folder, a vocab.txt or a hub id. `vocabulary` learns so many
    word pieces from the training sentences instead.
    """

    start: str = "random"
    config: dict[str, Any] = Field(default_factory=dict)
    tokenizer: str | None = None
    vocabulary: int | None = Field(default=None, ge=50)


class ImagePretrainRecipe(RunSection):
    """Masked autoencoding of the image tower (He et al. 2022); see `RunSection` for what all runs share.

    Attributes:
        vision: the tower: "random" with fields of `ViTConfig`, or a folder or hub id of a ViT, also of a whole
            masked autoencoder, whose encoder is taken.
        decoder: see `DecoderSection`.
        mask_ratio: part of the patches that is hidden.
        norm_pix_loss: patches are normalised, each by itself, before they are compared.
        pixels: see `PixelSection`.
    """

    vision: VisionStart = VisionStart()
    decoder: DecoderSection = DecoderSection()
    mask_ratio: float = Field(default=0.75, gt=0, lt=1)
    norm_pix_loss: bool = True
    pixels: PixelSection = PixelSection()

    @model_validator(mode="after")
    def _check_parts(self) -> ImagePretrainRecipe:
        if self.vision.start != "random":
            from carzero.training.start.towers import VISION_STARTS

            if self.vision.start in VISION_STARTS:
                raise ValueError(f"{self.vision.start} has no patches to mask: vision.start is random, or a ViT")
        _refuse_config_of_weights(self.vision)
        _refuse_idle(self, memory=("text_block", "tile_pairs"), pixels=("versions",))
        return self


class TextPretrainRecipe(RunSection):
    """Masked language modelling of the text tower (Devlin et al. 2019); see `RunSection` for what all runs share.

    Attributes:
        text: see `MaskedTextStart`.
        max_text_length: tokens of a sentence, start and end included; longer ones are cut.
        mask_probability: part of the word pieces that is to be guessed.
    """

    text: MaskedTextStart = MaskedTextStart()
    max_text_length: int = Field(default=97, ge=3)
    mask_probability: float = Field(default=0.15, gt=0, lt=1)

    @model_validator(mode="after")
    def _check_parts(self) -> TextPretrainRecipe:
        _refuse_config_of_weights(self.text)
        if (self.text.tokenizer is None) == (self.text.vocabulary is None):
            raise ValueError("text needs either a tokenizer, or a vocabulary to learn")
        if self.text.vocabulary is not None and self.text.start != "random":
            raise ValueError("pretrained weights know their own vocabulary only: set text.tokenizer, not vocabulary")
        _refuse_idle(self, memory=("image_block", "tile_pairs"))
        return self


def _refuse_config_of_weights(tower: VisionStart | MaskedTextStart) -> None:
    if tower.start != "random" and tower.config:
        raise ValueError(f"config describes a random tower; {tower.start} brings its own")


def _refuse_idle(recipe: RunSection, **fields: tuple[str, ...]) -> None:
    """Refuses fields that mean nothing to one tower alone, where they are not at their defaults."""
    idle = {"optimiser": ("lr_vision", "lr_text", "alignment_precision"), **fields}
    for name, unread in idle.items():
        section = getattr(recipe, name)
        changed = [field for field in unread if getattr(section, field) != type(section).model_fields[field].default]
        if changed:
            raise ValueError(f"{name}.{changed[0]} means nothing here, where one tower is trained alone")
