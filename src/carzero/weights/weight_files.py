"""The files of a folder of weights: which of them are loaded, their hash, and how they come from the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from carzero.core.documents import load_json_object
from carzero.core.hub import HubError, fetch_repository
from carzero.errors import WeightsError, describe

# What is downloaded of a hub id. Weights of other formats and of other libraries, which lie beside them, are not.
_HUB_FILES = ("model*.safetensors", "*.json", "*.txt", "*.model")

_WHOLE, _INDEX, _ADAPTERS = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"


def download(name: str, also: Sequence[str] = ()) -> Path:
    """The folder of a hub id, downloaded if need be.

    Args:
        name: such as "user/model".
        also: patterns of files beside those of weights that are loaded as they are: pickled weights for conversion.

    Raises:
        WeightsError: the hub has no such model, or cannot be reached.
    """
    try:
        return fetch_repository(name, [*_HUB_FILES, *also])
    except HubError as error:
        raise not_found(name, f"the hub says: {error.reason}") from error


def hash_files(files: Sequence[Path]) -> str:
    """SHA-256 of files' bytes, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def list_weight_files(folder: Path) -> list[Path]:
    """The safetensors files that a torch model is loaded from, sorted by name; all that `sha256` is of.

    Raises:
        WeightsError: there is none; or the folder holds what the loader might take besides or instead: an index beside
            a whole file, shards outside of the folder, files that no index names, adapters.
    """
    found = sorted(folder.glob("*.safetensors"))
    index = folder / _INDEX
    if not index.exists():
        named = [folder / _WHOLE]
    elif (folder / _WHOLE).exists():
        raise _unclear(folder, f"both {_WHOLE} and {_INDEX}")
    else:
        content = load_json_object(index, error=WeightsError, expected="an index as save_pretrained writes it")
        shards = content.get("weight_map")
        names = set(shards.values()) if isinstance(shards, dict) and all(map(_is_text, shards.values())) else set()
        if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
            raise _unclear(folder, f"an index of {sorted(names) or 'no files'}")
        named = sorted(folder / name for name in names)
    if not found:
        raise not_found(folder, "there is no .safetensors file")
    if found != named:
        raise _unclear(folder, f"{[path.name for path in found]} where {[path.name for path in named]} are loaded")
    if (folder / _ADAPTERS).exists():
        raise _unclear(folder, _ADAPTERS)
    if strange := [path.name for path in found if not path.is_file()]:  # a link is followed, and hashed as it is loaded
        raise _unclear(folder, f"{strange}, which are not files")
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _unclear(folder: Path, got: str) -> WeightsError:
    return WeightsError(
        describe(
            f"The folder {folder} does not say clearly which weights are in it",
            got=got,
            expected=f"{_WHOLE} alone, or {_INDEX} and the files in this folder that it names",
            then="remove what does not belong to the weights",
        )
    )


def not_found(name: str | Path, why: str) -> WeightsError:
    """The error for a name under which no weights are."""
    return WeightsError(
        describe(
            f"No weights are found under this name: {why}",
            got=str(name),
            expected='"demo", a folder written by `carzero convert` or save_pretrained, or a hub id like "user/model"',
            then="check the path",
        )
    )
