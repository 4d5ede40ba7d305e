"""The contract of a release: what its files are called inside, and how they become a model and a processor of ours."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from carzero.errors import CheckpointError, describe
from carzero.model.scoring_model import ScoringModel
from carzero.processing import CARZeroProcessor
from carzero.text.tokenizers import load_tokenizer
from carzero.weights.released.reader import ReleasedCheckpoint, read_tensors
from carzero.weights.weight_files import download, list_weight_files, not_found


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What became of one released tensor: `action` is "kept", "renamed", "split", "dropped" or "unknown"."""

    source: str
    action: str
    target: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ReleasedFile:
    """One file of a release.

    Attributes:
        path: where it lies.
        tensors: by released name, floating-point ones in float32.
        checkpoint: what else it says, for the record.
        paths: the files that were read: itself, or those of a folder.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    checkpoint: ReleasedCheckpoint
    paths: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Its name, without the folder."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class ConversionOptions:
    """What a user says about a release.

    Attributes:
        tokenizer: the text tower's: a folder, a file or a hub id; None where the release brings its own.
        text: the text encoder, where it is a model of its own (BioViL): a folder or a hub id.
        image_px: side of the images, where the release leaves it open (RadZero); None is its own.
        stretch: how a table of positions is stretched to it, a key of `carzero.model.vision.STRETCHES`.
        lenient: go on where tensors are unknown (left out) or missing (random).
    """

    tokenizer: str | None = None
    text: str | None = None
    image_px: int | None = None
    stretch: str = "factor"
    lenient: bool = False


@dataclass(slots=True)
class Converted:
    """A translated release.

    Attributes:
        model: with the released weights.
        processor: that belongs to it.
        records: one for each released tensor.
        missing: tensors of the model that the release lacked and that are random; empty unless lenient.
        config: content of config.json; None for a model that saves its own.
        notes: what to know about it.
    """

    model: ScoringModel
    processor: CARZeroProcessor
    records: list[KeyRecord]
    missing: list[str]
    config: dict[str, object] | None = None
    notes: list[str] = field(default_factory=list)


class Release(ABC):
    """A released model: a subclass in a file of its own, and a line in `carzero.weights.released.convert.RELEASES`.

    Attributes:
        title: what it is called.
        needs: options that it cannot be converted without, in words.
    """

    title: ClassVar[str]
    needs: ClassVar[str] = ""

    @abstractmethod
    def recognises(self, names: Sequence[str]) -> bool:
        """Whether tensors of these names are of this release."""

    @abstractmethod
    def convert(self, files: Sequence[ReleasedFile], options: ConversionOptions) -> Converted:
        """Translates the files.

        Raises:
            CheckpointError: tensors unknown, missing or of shapes that contradict each other, or an option is needed.
            WeightsError: no tokenizer could be loaded.
        """

    def require(self, option: str | None) -> str:
        """Returns an option that the release cannot be converted without.

        Raises:
            CheckpointError: it was not given.
        """
        if option is None:
            raise CheckpointError(describe(f"{self.title} needs an option to be converted", expected=self.needs))
        return option


def require_one(files: Sequence[ReleasedFile], title: str) -> ReleasedFile:
    """Returns the one file of a release that is not an ensemble.

    Raises:
        CheckpointError: there are several.
    """
    if len(files) != 1:
        raise CheckpointError(
            describe(f"{title} is one file, not an ensemble", got=[file.name for file in files], expected="one")
        )
    return files[0]


def locate(name: str | Path) -> Path:
    """A file or folder as it is; what is none, and could be a hub id, is downloaded.

    Raises:
        WeightsError: the hub has no such model, or cannot be reached.
    """
    path = Path(name).expanduser()
    is_hub_id = not path.exists() and str(name).count("/") == 1 and not str(name).startswith((".", "~", "/"))
    return download(str(name), also=(_PICKLES,)) if is_hub_id and not path.suffix[1:].isalpha() else path


def read_folder(name: str) -> tuple[Path, dict[str, Tensor]]:
    """The folder of a name (a folder, or a hub id) and all its tensors.

    Raises:
        WeightsError: there is no such folder or hub id.
        CheckpointError: it holds no weights that can be read safely.
    """
    folder = locate(name)
    if not folder.is_dir():
        raise not_found(name, "a file was given" if folder.exists() else "there is no such folder")
    return folder, join_tensors(read_tensors(path) for path in find_weights(folder))


_PICKLES = "pytorch_model*.bin"


def find_weights(folder: Path) -> list[Path]:
    """The files of a folder that hold its tensors: safetensors, or pickles, which the restricted reader reads.

    Raises:
        CheckpointError: there is none.
        WeightsError: there are several safetensors, and not those of one index.
    """
    found = sorted(folder.glob("*.safetensors"))
    found = list_weight_files(folder) if len(found) > 1 else found or sorted(folder.glob(_PICKLES))
    if not found:
        raise CheckpointError(
            describe(f"{folder} holds no weights", expected="*.safetensors or pytorch_model.bin in the folder")
        )
    return found


def join_tensors(parts: Iterable[ReleasedCheckpoint]) -> dict[str, Tensor]:
    """The tensors of all files of a model.

    Raises:
        CheckpointError: two files hold the same one.
    """
    joined: dict[str, Tensor] = {}
    for part in parts:
        if doubled := [name for name in part.state_dict if name in joined]:
            raise keys_error("holds tensors twice, in two files", doubled)
        joined |= part.state_dict
    return joined


def count_layers(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbers follow a prefix in the names of tensors."""
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})


def translate(
    tensors: Mapping[str, Tensor], title: str, dropped: Iterable[tuple[str, str]], rename: Callable[[str], str | None]
) -> tuple[dict[str, Tensor], list[KeyRecord]]:
    """The authors' names to ours, and what became of each, where no tensor is split or turned.

    Args:
        tensors: by released name.
        title: of the release.
        dropped: patterns of whole names that are never read, and why.
        rename: our name of a released one; None where the release has no such part.
    """
    patterns = [(re.compile(pattern), why) for pattern, why in dropped]
    translated: dict[str, Tensor] = {}
    records = []
    for name, tensor in tensors.items():
        reason = next((why for pattern, why in patterns if pattern.fullmatch(name)), None)
        target = None if reason else rename(name)
        if target is None:
            action = "dropped" if reason else "unknown"
            records.append(KeyRecord(name, action, reason=reason or f"no part of {title}"))
            continue
        translated[target] = tensor
        records.append(KeyRecord(name, "kept" if target == name else "renamed", target))
    return translated, records


def load_its_tokenizer(source: str | Path, rows: int, expected: str) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a release.

    Args:
        source: a folder or hub id.
        rows: of the model's table of tokens.
        expected: whose it should be, in words.

    Raises:
        CheckpointError: it has more pieces than the table has rows.
        WeightsError: nothing there that is a tokenizer.
    """
    tokenizer = load_tokenizer(source)
    if len(tokenizer) > rows:
        raise CheckpointError(
            describe(
                "The tokenizer does not belong to this checkpoint",
                got=f"{len(tokenizer):,} pieces for a table of {rows:,} rows",
                expected=expected,
            )
        )
    return tokenizer


def fill_model(model: ScoringModel, tensors: Mapping[str, Tensor], *, lenient: bool) -> list[str]:
    """Puts tensors under their final names into a model.

    Args:
        model: with random weights.
        tensors: by the model's own names.
        lenient: go on where some are missing.

    Returns:
        what is missing, and stays random.

    Raises:
        CheckpointError: a tensor has another shape than the rest asks for, is left over, or missing.
    """
    own = model.state_dict()
    misshapen = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if misshapen:
        raise keys_error("holds tensors whose shapes contradict the rest", misshapen)
    if surplus := [name for name in tensors if name not in own]:
        raise keys_error("holds tensors that the model does not have", surplus)
    missing = [name for name in own if name not in tensors]
    if missing and not lenient:
        raise keys_error("lacks tensors that the model needs", missing)
    model.load_state_dict(dict(tensors), strict=False)
    return missing


def keys_error(what: str, keys: Sequence[str]) -> CheckpointError:
    """The error for tensors that do not make a model."""
    shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
    return CheckpointError(
        describe(
            f"The checkpoint {what}: {shown}",
            expected="the tensors of a released model",
            then="check the file; to continue anyway use --lenient",
        )
    )


def refuse_unknown(records: Sequence[KeyRecord], *, lenient: bool) -> None:
    """Refuses a release with tensors that no model of it has.

    Raises:
        CheckpointError: there are some, and that is not allowed.
    """
    unknown = [record.source for record in records if record.action == "unknown"]
    if unknown and not lenient:
        raise keys_error("holds tensors that are not known", unknown)
