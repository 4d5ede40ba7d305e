"""Where weights live: the bundled demo, a folder, or a hub id; loaded only if they fit their configuration exactly."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carzero.errors import WeightsError, describe
from carzero.weights.export_manifest import hash_graphs, is_exported

if TYPE_CHECKING:
    import torch

    from carzero.model import CARZeroConfig, CARZeroModel
    from carzero.processing import CARZeroProcessor


DEMO = "demo"

_PIXEL_FIELDS = ("resize_px", "crop_px", "image_mean", "image_std")

_ASSETS = Path(__file__).parents[1] / "assets"


def resolve_weights(name: str | Path) -> str:
    """Returns the folder of the named weights, or the hub id if it is none.

    Args:
        name: "demo" (the bundled ones), a folder written by `save_pretrained`, `carzero convert` or `carzero export`,
            or a hub id such as "user/model".

    Raises:
        WeightsError: the name looks like a path, and there is no such folder, or it holds no weights.
    """
    path = Path(name).expanduser()
    if str(name) == DEMO:  # always the bundled ones; a folder of that name is "./demo"
        return str(_ASSETS / DEMO)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise _not_found(name, "this folder holds no config.json")
        return str(path)
    if path.exists() or path.is_absolute() or str(name).startswith((".", "~")) or str(name).count("/") != 1:
        raise _not_found(name, "a file was given" if path.exists() else "there is no such folder")
    return str(name)


def example_film() -> Path:
    """Path of the bundled chest radiograph: RG1 of the package pydicom-data (MIT), a CR film as lossy JPEG 2000."""
    return _ASSETS / "example" / "chest.dcm"


def load_model(name: str | Path, *, dtype: torch.dtype | None = None) -> CARZeroModel:
    """Loads a model in eval mode.

    Args:
        name: see `resolve_weights`.
        dtype: precision to compute in; None is float32, whatever the file holds.

    Raises:
        WeightsError: not found, not a CARZero, or tensors missing, left over or of other shapes than configured.
    """
    import torch

    from carzero.model import CARZeroModel

    folder = resolve_weights(name)
    if is_exported(folder):
        raise WeightsError(
            describe(
                "These weights were exported for another engine, and there is no torch model in them",
                got=str(name),
                expected='"demo", a folder with config.json and model.safetensors, or a hub id',
                then="name the weights that were exported",
            )
        )
    try:
        # Pickled weights are never read: they could run code, and have no hash that the manifest could state.
        # Without network every look-up at the hub retries for half a minute, so a folder is never looked up.
        model, info = CARZeroModel.from_pretrained(
            folder,
            dtype=dtype or torch.float32,
            output_loading_info=True,
            use_safetensors=True,
            local_files_only=Path(folder).is_dir(),
        )
    except WeightsError:
        raise
    except Exception as error:  # the loader raises many kinds; all mean the same to the user
        raise WeightsError(
            describe(
                "The weights could not be loaded",
                got=str(name),
                expected='"demo", a folder with config.json and model.safetensors, or a hub id that can be reached',
                then=f"check the name or the network (the loader said: {_first_line(error)})",
            )
        ) from error
    wrong = {kind: sorted(map(str, info[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(wrong.values()):
        raise WeightsError(
            describe(
                f"The weights in {name} do not fit their configuration",
                got={kind: keys[:4] for kind, keys in wrong.items() if keys},
                expected="every tensor of the model, and no other",
                then="take the config.json that was saved with these weights",
            )
        )
    return model.eval()  # type: ignore[no-any-return]


def load_config(name: str | Path) -> CARZeroConfig:
    """Loads the configuration alone; see `resolve_weights`.

    Raises:
        WeightsError: not found, or not a CARZero's.
    """
    from carzero.model import CARZeroConfig

    folder = resolve_weights(name)
    try:
        return CARZeroConfig.from_pretrained(folder, local_files_only=Path(folder).is_dir())
    except WeightsError:
        raise
    except Exception as error:  # the loader raises many kinds; all mean the same to the user
        raise _not_found(name, f"the loader says: {_first_line(error)}") from error


def load_processor(name: str | Path) -> CARZeroProcessor:
    """Loads the processor that belongs to the weights; see `resolve_weights`.

    Raises:
        WeightsError: the folder holds no processor.
    """
    from carzero.processing import CARZeroProcessor

    folder = resolve_weights(name)
    try:
        return CARZeroProcessor.from_pretrained(folder, local_files_only=Path(folder).is_dir())
    except Exception as error:  # as above
        raise _no_processor(name, error) from error


def hash_weights(name: str | Path) -> str:
    """SHA-256 of the weights' safetensors files as they lie on disk, the hash that `sha256sum` prints for one file.

    Several shards are hashed one after another in the order of their names; so are the graphs of an exported folder.
    A hub id is downloaded first.

    Raises:
        WeightsError: not found, or without safetensors.
    """
    folder = _local_folder(name)
    if is_exported(folder):
        return hash_graphs(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise _not_found(name, "there is no .safetensors file")
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def load_preprocessing(name: str | Path) -> dict[str, Any]:
    """Reads what is done to pictures and texts before the model sees them, from the saved processor's file alone.

    Returns:
        `resize_px`, `crop_px`, `image_mean`, `image_std` and `max_text_length`.

    Raises:
        WeightsError: the folder holds no processor.
    """
    try:
        content = json.loads((_local_folder(name) / "processor_config.json").read_bytes())
        image = {field: content["image_processor"][field] for field in _PIXEL_FIELDS}
        return {**image, "max_text_length": content["max_text_length"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _no_processor(name, error) from error


def _local_folder(name: str | Path) -> Path:
    """The folder of the weights on this machine; a hub id is downloaded first."""
    folder = Path(resolve_weights(name))
    return folder if folder.is_dir() else _download(str(name))


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json"]))
    except Exception as error:  # as above
        raise _not_found(name, f"the hub says: {_first_line(error)}") from error


def _no_processor(name: str | Path, error: Exception) -> WeightsError:
    return WeightsError(
        describe(
            "The weights come without a usable processor",
            got=str(name),
            expected="processor_config.json and tokenizer.json beside the weights",
            then=f"save the processor into the folder (the loader said: {_first_line(error)})",
        )
    )


def _not_found(name: str | Path, why: str) -> WeightsError:
    return WeightsError(
        describe(
            f"No weights are found under this name: {why}",
            got=str(name),
            expected='"demo", a folder written by `carzero convert` or save_pretrained, or a hub id like "user/model"',
            then="check the path",
        )
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
