"""From weights to a folder for another engine, compared with the torch model before it gets its name."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from carzero.core.hashing import hash_file
from carzero.core.outputs import NewFolder
from carzero.core.run_record import RunRecord
from carzero.errors import ConfigurationError, describe
from carzero.prompts import PromptSet, resolve_prompts
from carzero.prompts.training_words import FILE_NAME
from carzero.records import Failure, ImageItem
from carzero.weights.export_manifest import (
    GRAPH_SUFFIXES,
    GRAPHS,
    MANIFEST_NAME,
    Calibration,
    ExportDtype,
    ExportEngine,
    ExportManifest,
    MapRecord,
    Source,
)
from carzero.weights.families.carzero import require_carzero
from carzero.weights.source import WeightsSource

if TYPE_CHECKING:
    from carzero.export.comparison import ExportImages
    from carzero.export.writer import GraphWriter
    from carzero.inference.backends import TorchBackend
    from carzero.processing import CARZeroProcessor


DTYPES: dict[ExportEngine, tuple[ExportDtype, ...]] = {
    "onnx": ("float32",),
    "openvino": ("float32", "bfloat16", "int8"),
}

ENGINES = tuple(DTYPES)

_USUAL_PROMPTS = "chestxray14"  # asked in calibration and comparison where none are baked in

_PACKAGES = ("carzero", "torch", "transformers", "onnx", "onnxruntime", "openvino", "nncf")

_PROCESSOR_FILES = ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

_GRAPH_FILES = [graph + suffix for graph in GRAPHS for suffixes in GRAPH_SUFFIXES.values() for suffix in suffixes]

_OURS = frozenset({MANIFEST_NAME, "config.json", FILE_NAME, *_PROCESSOR_FILES, *_GRAPH_FILES})


Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote: its folder, its manifest, and the images that could not be read."""

    folder: Path
    manifest: ExportManifest
    failures: list[Failure]


@dataclass(frozen=True, slots=True)
class ExportRun:
    """The settings of one export; see `carzero export --help` for each.

    Attributes:
        weights: where they are.
        engine: one of `ENGINES`.
        out: folder to write.
        dtype: one of `DTYPES[engine]`.
        prompt_set: prompts to bake in; None leaves them to be asked.
        calibration: images that int8 is calibrated on; a part of them is what every export is compared on.
        calibration_size: how many images the calibration takes at most.
        overwrite: replace an earlier export in `out`.
    """

    weights: WeightsSource
    engine: str
    out: Path
    dtype: str = "float32"
    prompt_set: PromptSet | None = None
    calibration: list[ImageItem] = field(default_factory=list)
    calibration_size: int = 128
    overwrite: bool = False

    def execute(self, progress: Progress = lambda step: None) -> ExportResult:
        """Writes the folder: whole, or not at all.

        Args:
            progress: told what is being done.

        Raises:
            CARZeroError: settings that cannot work, packages that are not installed, or graphs that do not give the
                torch model's scores. Nothing was written.
        """
        new = self.check()
        # torch is loaded here and not above, so that misuse is refused at once.
        from carzero.export.comparison import load_images
        from carzero.inference.backends import TorchBackend

        self._require_packages()
        progress("reading weights and images")
        processor = self.weights.load_processor()
        images = load_images(self.calibration, processor, self.calibration_size if self.dtype == "int8" else 0)
        source = TorchBackend(require_carzero(self.weights.load_model()), device="cpu")
        with new.fill() as folder:
            manifest = self._fill(folder, source, processor, images, progress)
        return ExportResult(self.out, manifest, images.failures)

    def _fill(
        self,
        folder: Path,
        source: TorchBackend,
        processor: CARZeroProcessor,
        images: ExportImages,
        progress: Progress,
    ) -> ExportManifest:
        from carzero.export.comparison import compare
        from carzero.export.writer import GraphWriter

        asked = self.prompt_set or PromptSet.from_request(None, resolve_prompts(_USUAL_PROMPTS))
        engine, dtype = self._check_engine()
        model = require_carzero(source.model)
        writer = GraphWriter(model, processor, asked, engine, dtype, baked=self.prompt_set is not None)
        writer.write(folder, images.calibration, progress)
        model.config.save_pretrained(folder)
        processor.save_pretrained(folder)
        if (words := self.weights.training_words) is not None:
            words.save(folder, words.weights_sha256)
        manifest = self._manifest(folder, writer, images, asked)
        progress("comparing with the torch model")
        accuracy = compare(folder, manifest, source, processor, asked, images)
        manifest = manifest.model_copy(update={"accuracy": accuracy})
        manifest.save(folder)
        for file in folder.iterdir():  # some libraries let their files be read by their owner only
            file.chmod((folder / MANIFEST_NAME).stat().st_mode)
        return manifest

    def check(self) -> NewFolder:
        """Refuses misuse, and returns the folder to be written.

        Raises:
            CARZeroError: engine, precision, weights or folder will not do.
        """
        self._check_engine()
        if self.dtype == "int8" and not self.calibration:
            raise ConfigurationError(
                describe(
                    "int8 needs images to be calibrated on",
                    expected="a folder of some hundred images like those that will be scored",
                    then="name it with --calibration",
                )
            )
        if self.calibration_size < 1:
            raise ConfigurationError(
                describe("Calibration needs images", got=self.calibration_size, expected="at least 1")
            )
        new = NewFolder(
            self.out.resolve(), self.overwrite, _OURS.__contains__, "export", "three times the weights' size"
        )
        new.check()
        return new

    def _check_engine(self) -> tuple[ExportEngine, ExportDtype]:
        engine = next((known for known in DTYPES if known == self.engine), None)
        if engine is None:
            raise ConfigurationError(
                describe("There is no export to this engine", got=self.engine, expected=" or ".join(ENGINES))
            )
        dtype = next((known for known in DTYPES[engine] if known == self.dtype), None)
        if dtype is None:
            raise ConfigurationError(
                describe(
                    f"There is no export to {self.engine} in this precision",
                    got=self.dtype,
                    expected=" or ".join(DTYPES[engine]),
                    then="export to openvino, which has float32, bfloat16 and int8" if engine == "onnx" else "",
                )
            )
        return engine, dtype

    def _require_packages(self) -> None:
        from carzero.export.graphs import require_nncf, require_onnx
        from carzero.inference.backends.graphs import require_onnxruntime, require_openvino

        require_onnx()
        if self.engine == "onnx":
            require_onnxruntime()
        else:
            require_openvino()
        if self.dtype == "int8":
            require_nncf()

    def _manifest(self, folder: Path, writer: GraphWriter, images: ExportImages, asked: PromptSet) -> ExportManifest:
        baked = self.prompt_set
        return ExportManifest(
            engine=writer.engine,
            dtype=writer.dtype,
            source=Source(weights=self.weights.short_name, sha256=self.weights.sha256),
            prompt_tensors=writer.tensors,
            prompts=None if baked is None else {label: list(prompts) for label, prompts in baked},
            prompts_sha256=None if baked is None else baked.hash,
            maps=MapRecord(**asdict(writer.model.alignment.map_kind)),
            opset=writer.opset,
            versions=_versions(),
            date=RunRecord().date,
            calibration=Calibration(
                pictures=len(images.calibration),
                pictures_sha256=images.calibration_sha256,
                prompts_sha256=asked.hash,
            )
            if self.dtype == "int8"
            else None,
            files={file.name: hash_file(file) for file in sorted(folder.iterdir())},
        )


def _versions() -> dict[str, str]:
    """Versions of the packages that had a part in an export, where they are installed."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
