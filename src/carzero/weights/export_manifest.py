"""An exported folder: graphs for an engine other than torch, and the manifest that says what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from carzero.core.documents import parse_json
from carzero.core.hashing import hash_file
from carzero.errors import WeightsError, describe, first_line

MANIFEST_NAME = "export.json"

ExportEngine = Literal["onnx", "openvino"]

ExportDtype = Literal["float32", "bfloat16", "int8"]

GRAPHS = SCORING_GRAPH, PROMPTS_GRAPH = "scoring", "prompts"

# The files of one graph, by engine; the second holds the numbers, and the first is loaded.
GRAPH_SUFFIXES: Mapping[str, tuple[str, str]] = {"onnx": (".onnx", ".onnx.data"), "openvino": (".xml", ".bin")}

_LIMIT_BYTES = 1 << 24


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Record):
    """The weights that were exported: their name as given, and the SHA-256 of their files."""

    weights: str
    sha256: str


class TensorSpec(_Record):
    """A tensor that the prompts graph gives and the scoring graph takes.

    Attributes:
        name: of the graphs' output and input.
        prompts_axis: the axis that counts prompts.
        tokens_axis: the axis that counts a prompt's memory tokens, or None.
    """

    name: str
    prompts_axis: int = Field(ge=0, le=8)
    tokens_axis: int | None = Field(default=None, ge=0, le=8)


class Calibration(_Record):
    """What an int8 graph's ranges were read from.

    Attributes:
        images: how many images.
        pictures_sha256: SHA-256 of their pixel values as the model sees them.
        prompts_sha256: of the prompt set that was asked meanwhile.
    """

    pictures: int
    pictures_sha256: str
    prompts_sha256: str


class Accuracy(_Record):
    """The exported graph beside the torch model in float32, measured when it was exported.

    Attributes:
        images: how many images both scored, and none of them served the calibration.
        of: what the images were.
        prompts: how many prompts were asked.
        largest_logit_difference: largest absolute difference of a raw logit.
        mean_logit_difference: mean absolute difference.
        logit_deviation: standard deviation of the torch model's logits over images, mean over prompts; 0 for one
            image. What the differences are to be compared with.
    """

    pictures: int
    of: str
    prompts: int
    largest_logit_difference: float
    mean_logit_difference: float
    logit_deviation: float


class MapRecord(_Record):
    """What the cells of the graph's maps are; fields as in `carzero.records.MapKind`."""

    name: str
    description: str
    scale: tuple[float, float] | None
    scale_text: str
    is_share: bool


class ExportManifest(_Record):
    """What an exported folder holds.

    Attributes:
        format: of the folder.
        engine: which computes the graphs.
        dtype: precision they are computed in.
        source: the weights they were made of.
        prompt_tensors: what passes from the prompts graph to the scoring graph.
        prompts: label to prompts where they are baked in, else None.
        prompts_sha256: hash of that prompt set, or None.
        maps: what the maps are; None in folders that an earlier version wrote.
        opset: version of the ONNX operators that the graphs were written in.
        versions: of the packages that wrote the folder.
        date: when, UTC.
        calibration: of an int8 graph, else None.
        accuracy: beside the torch model; None only while the export is being written.
        files: SHA-256 of every file of the folder but this one.
    """

    format: Literal[1] = 1
    engine: ExportEngine
    dtype: ExportDtype
    source: Source
    prompt_tensors: list[TensorSpec]
    prompts: dict[str, list[str]] | None
    prompts_sha256: str | None
    maps: MapRecord | None = None
    opset: int
    versions: dict[str, str]
    date: str
    calibration: Calibration | None
    accuracy: Accuracy | None = None
    files: dict[str, str]

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of the graphs that the folder must hold."""
        return (SCORING_GRAPH,) if self.prompts is not None else GRAPHS

    @property
    def graph_files(self) -> list[str]:
        """Names of the graphs' files, in order of their names."""
        return sorted(graph + suffix for graph in self.graphs for suffix in GRAPH_SUFFIXES[self.engine])

    def save(self, folder: Path) -> None:
        """Writes the manifest into its folder."""
        text = json.dumps(self.model_dump(), indent=1, allow_nan=False)
        (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


def is_exported(folder: str | Path) -> bool:
    """Whether a folder was written by `carzero export`."""
    return (Path(folder) / MANIFEST_NAME).is_file()


def load_manifest(folder: str | Path) -> ExportManifest:
    """Reads the manifest of an exported folder; `check_files` compares the files with it.

    Raises:
        WeightsError: it is missing, or not what this version writes.
    """
    path = Path(folder) / MANIFEST_NAME
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise ValueError(f"a manifest of more than {_LIMIT_BYTES:,} bytes")
        manifest = ExportManifest.model_validate(parse_json(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise _refuse(path, first_line(error)) from error
    missing = [name for name in manifest.graph_files if name not in manifest.files]
    strange = [name for name in manifest.files if Path(name).name != name or name.startswith(".")]
    if missing or strange:
        raise _refuse(path, f"files {missing or strange} {'not listed' if missing else 'outside the folder'}")
    return manifest


def check_files(folder: str | Path, manifest: ExportManifest) -> None:
    """Compares every file of an exported folder with its manifest.

    Raises:
        WeightsError: a file is missing, a link, or another than the manifest was written for.
    """
    for name, expected in manifest.files.items():
        path = Path(folder) / name
        if path.is_symlink() or not path.is_file():
            raise _refuse(path, "a link" if path.is_symlink() else "no such file")
        found = hash_file(path)
        if found != expected:
            raise _refuse(path, f"SHA-256 {found[:12]}..., the manifest says {expected[:12]}...")


def hash_graphs(folder: str | Path) -> str:
    """SHA-256 of the graphs' files one after another in the order of their names: all that scores depend on.

    Raises:
        WeightsError: the folder is not a whole export.
    """
    digest = hashlib.sha256()
    for name in load_manifest(folder).graph_files:
        path = Path(folder) / name
        if path.is_symlink() or not path.is_file():
            raise _refuse(path, "a link" if path.is_symlink() else "no such file")
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _refuse(path: Path, got: str) -> WeightsError:
    return WeightsError(
        describe(
            f"{path} is not as `carzero export` wrote it",
            got=got,
            expected="a whole folder with its own manifest",
            then="export the weights again with this version of the package",
        )
    )
