"""Where weights are: the bundled demo, a folder, or a hub id; loaded only if they fit their configuration exactly."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from carzero.core.documents import check_folder_files
from carzero.errors import CARZeroError, WeightsError, describe, first_line, refuse_broken
from carzero.images import PixelTransform
from carzero.prompts import PromptSet
from carzero.prompts.lint_wording import WordPieces
from carzero.prompts.review import PromptReview, review_prompts
from carzero.prompts.style import PromptStyle
from carzero.prompts.training_words import FILE_NAME, TrainingWords, load_training_words
from carzero.weights.export_manifest import ExportManifest, hash_graphs, is_exported, load_manifest
from carzero.weights.families import CARZERO, FAMILIES, Family
from carzero.weights.families.base import read_config
from carzero.weights.weight_files import download, hash_files, list_weight_files, not_found

if TYPE_CHECKING:
    import torch

    from carzero.model import CARZeroConfig
    from carzero.model.scoring_model import ScoringModel
    from carzero.processing import CARZeroProcessor


DEMO = "demo"

_CHECKPOINTS = (".ckpt", ".pt", ".pth", ".bin", ".tar")  # pickled weights, by the usual suffixes

_ASSETS = Path(__file__).parents[1] / "assets"


class WeightsSource:
    """Weights by their name, looked up once; everything that belongs to them is read on first use and kept.

    A source that was sent to another process, perhaps on another machine, looks its name up there on first use.

    Args:
        name: "demo" (the bundled ones), a folder written by `save_pretrained`, `carzero convert` or `carzero export`,
            the folder of a training run, whose weights are taken, or a hub id such as "user/model".

    Attributes:
        name: as given.

    Raises:
        WeightsError: the name looks like a path, and there is no such folder, or it holds no weights.
    """

    def __init__(self, name: str | Path) -> None:
        self.name = str(name)
        _ = self._found  # a wrong name is refused here

    def __getstate__(self) -> dict[str, str]:
        return {"name": self.name}

    @cached_property
    def _found(self) -> Path | None:
        return _find_folder(self.name)

    @property
    def short_name(self) -> str:
        """The name without the way to the folder, for records that outlive it: folders get moved."""
        return Path(self.name).name if Path(self.name).is_dir() else self.name

    @cached_property
    def folder(self) -> Path:
        """The folder of the weights on this machine; a hub id is downloaded first.

        Raises:
            WeightsError: a hub id that cannot be downloaded.
        """
        return self._found or download(self.name)

    @property
    def kind(self) -> Literal["torch", "graphs"]:
        """Whether the weights are a torch model's, or were exported as graphs for another engine."""
        return "torch" if self.manifest is None else "graphs"

    @cached_property
    def manifest(self) -> ExportManifest | None:
        """What an exported folder says about itself; None for the weights of a torch model.

        Raises:
            WeightsError: the manifest is not what this version writes.
        """
        return load_manifest(self.folder) if is_exported(self.folder) else None

    @property
    def own_dtype(self) -> str | None:
        """The one precision that exported weights are computed in; None for weights that can be computed in several."""
        return None if self.manifest is None else self.manifest.dtype

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the safetensors files as they lie on disk, the hash that `sha256sum` prints for one file.

        Several shards are hashed one after another in the order of their names; so are the graphs of an exported
        folder.

        Raises:
            WeightsError: there is no safetensors file.
        """
        return _hash_demo() if self._found == _ASSETS / DEMO else _hash_folder(self.folder)

    @cached_property
    def training_words(self) -> TrainingWords | None:
        """What the sentences spoke of that these weights were trained on; None where they do not say.

        A file that was written for other weights says nothing of these.

        Raises:
            WeightsError: the file is not what this version writes.
        """
        words = self._stated_words
        return words if words is not None and self._are_own(words) else None

    @cached_property
    def _stated_words(self) -> TrainingWords | None:
        return load_training_words(self.folder)

    def _are_own(self, words: TrainingWords) -> bool:
        return words.weights_sha256 == (self.sha256 if self.manifest is None else self.manifest.source.sha256)

    def review(self, prompt_set: PromptSet) -> PromptReview:
        """What is to be known of prompts before these weights' scores for them are trusted.

        Raises:
            WeightsError: the folder holds no tokenizer.
        """
        if not self.style.is_linted:
            return PromptReview((), None)
        strange = self._stated_words is not None and self.training_words is None
        doubt = (
            f"{FILE_NAME} was written for other weights: which words are unfamiliar is not known." if strange else ""
        )
        return review_prompts(prompt_set, self.pieces, self.max_text_length, self.training_words, doubt)

    @cached_property
    def pieces(self) -> WordPieces:
        """How the tokenizer parts words, for the linter.

        Raises:
            WeightsError: the folder holds no tokenizer.
        """
        return WordPieces(self.folder / "tokenizer.json")

    @property
    def is_demo(self) -> bool:
        """Whether these are the bundled demo weights, by whatever name."""
        return is_demo(self.sha256)

    @cached_property
    def config(self) -> CARZeroConfig:
        """The configuration of a CARZero model.

        Raises:
            WeightsError: it is not a CARZero's.
        """
        from carzero.model import CARZeroConfig

        try:
            return CARZeroConfig.from_pretrained(self.folder, local_files_only=True)
        except WeightsError:
            raise
        except Exception as error:  # the loader raises many kinds; all mean the same to the user
            raise not_found(self.name, f"the loader says: {first_line(error)}") from error

    @cached_property
    def is_transformer(self) -> bool:
        """Whether the image tower works on tokens and not on feature maps; raises as `family`."""
        return self.family.is_transformer(self.folder)

    @cached_property
    def family(self) -> Family:
        """What kind of model they are: chosen by the `model_type` of config.json, never by their name.

        Raises:
            WeightsError: config.json cannot be read, or is another kind's.
        """
        try:
            kind = read_config(self.folder).get("model_type", CARZERO)
        except (OSError, ValueError) as error:
            raise not_found(self.name, f"config.json cannot be read: {first_line(error)}") from error
        if str(kind) in FAMILIES:
            return FAMILIES[str(kind)]
        raise WeightsError(
            describe(
                "These weights are of a kind that is not known",
                got=f'{self.name}: model_type "{kind}"'[:200],
                expected=f"one of {', '.join(FAMILIES)}",
                then="convert them with `carzero convert` if `carzero models list` has them",
            )
        )

    @cached_property
    def style(self) -> PromptStyle:
        """How they want to be asked; raises as `family`."""
        return self.family.read_style(self.folder)

    @property
    def pixels(self) -> PixelTransform:
        """What is done to images before the model sees them.

        Raises:
            WeightsError: the folder holds no processor.
        """
        return self._preprocessing[0]

    @property
    def max_text_length(self) -> int:
        """Tokens of a text, after padding or truncation; raises as `pixels`."""
        return self._preprocessing[1]

    @property
    def preprocessing(self) -> dict[str, object]:
        """`pixels` and `max_text_length` as plain values, for the record; raises as `pixels`."""
        return {**self.pixels.to_dict(), "max_text_length": self.max_text_length}

    @cached_property
    def _preprocessing(self) -> tuple[PixelTransform, int]:
        """Read from the saved processor's file alone: torch is not needed for it."""
        family = self.family
        with self._usable_processor():
            return family.read_preprocessing(self.folder)

    def load_model(self, *, dtype: torch.dtype | None = None) -> ScoringModel:
        """Loads the model in eval mode.

        Args:
            dtype: precision to compute in; None is float32, whatever the file holds.

        Raises:
            WeightsError: of an unknown kind, or tensors missing, left over or of other shapes than configured.
        """
        import torch

        if self.kind == "graphs":
            raise WeightsError(
                describe(
                    "These weights were exported for another engine, and there is no torch model in them",
                    got=self.name,
                    expected='"demo", a folder with config.json and model.safetensors, or a hub id',
                    then="name the weights that were exported",
                )
            )
        family = self.family
        list_weight_files(self.folder)
        try:
            return family.load_model(self.folder, dtype or torch.float32).eval()
        except CARZeroError:
            raise
        except Exception as error:  # the loader raises many kinds; all mean the same to the user
            raise WeightsError(
                describe(
                    "The weights could not be loaded",
                    got=self.name,
                    expected='"demo", a folder with config.json and model.safetensors, or a hub id',
                    then=f"check the files (the loader said: {first_line(error)})",
                )
            ) from error

    def load_processor(self) -> CARZeroProcessor:
        """Loads the processor that belongs to the weights.

        Raises:
            WeightsError: the folder holds no processor.
        """
        from carzero.text.tokenizers import check_added_tokens

        family = self.family
        with self._usable_processor():
            check_added_tokens(self.folder / "tokenizer.json")
            processor = family.load_processor(self.folder)
            _ = processor.image_processor.pixels  # refuses sizes and levels that no image can have
            return processor

    def _usable_processor(self) -> AbstractContextManager[None]:
        return refuse_broken(
            f"The weights {self.name} come without a usable processor",
            error=WeightsError,
            expected="processor_config.json and tokenizer.json beside the weights",
            then="save the processor into the folder",
        )


def to_source(weights: str | Path | WeightsSource) -> WeightsSource:
    """The source of weights that a caller names, or has looked up already."""
    return weights if isinstance(weights, WeightsSource) else WeightsSource(weights)


def is_demo(sha256: str) -> bool:
    """Whether a hash of weights is that of the bundled demo weights."""
    return sha256 == _hash_demo()


def example_film() -> Path:
    """Path of the bundled chest radiograph: RG1 of the package pydicom-data (MIT), a CR image as lossy JPEG 2000."""
    return _ASSETS / "example" / "chest.dcm"


def _checked(folder: Path) -> Path:
    check_folder_files(folder, error=WeightsError)
    return folder


def _find_folder(name: str | Path) -> Path | None:
    """The folder of the named weights, or None for a hub id."""
    path = Path(name).expanduser()
    if str(name) == DEMO:  # always the bundled ones; a folder of that name is "./demo"
        return _ASSETS / DEMO
    if path.is_dir():
        if (path / "config.json").is_file():
            return _checked(path)
        if (path / "run.yaml").is_file():  # the folder of a training run
            if (path / "weights" / "config.json").is_file():
                return _checked(path / "weights")
            raise not_found(name, "this training run has not saved any weights yet")
        raise not_found(name, "this folder holds no config.json")
    if path.is_file() and path.suffix.lower() in _CHECKPOINTS:
        raise WeightsError(
            describe(
                "A checkpoint is not read as it is",
                got=str(name),
                expected="a folder of weights",
                then=f"convert it once: carzero convert {path} FOLDER, then name the FOLDER",
            )
        )
    if path.exists() or path.is_absolute() or str(name).startswith((".", "~")) or str(name).count("/") != 1:
        raise not_found(name, "a file was given" if path.exists() else "there is no such folder")
    return None


@cache
def _hash_demo() -> str:
    return _hash_folder(_ASSETS / DEMO)


def _hash_folder(folder: Path) -> str:
    if is_exported(folder):
        return hash_graphs(folder)
    return hash_files(list_weight_files(folder))
