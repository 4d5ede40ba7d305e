"""The graphs of an export: made from the torch model, baked, converted for the engine, quantised."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from carzero.errors import ConfigurationError, describe
from carzero.export.graphs import OPSET, bake_onnx, bake_openvino, quantise, read_onnx, save_onnx, save_openvino
from carzero.inference.backends.graphs import Arrays
from carzero.inference.prompt_bank import token_batches
from carzero.model import CARZeroModel
from carzero.model.alignment import ALIGNMENTS, ExportableAlignment
from carzero.model.text import count_words
from carzero.processing import CARZeroProcessor
from carzero.prompts import PromptSet
from carzero.weights.export_manifest import (
    GRAPH_SUFFIXES,
    PROMPTS_GRAPH,
    SCORING_GRAPH,
    ExportDtype,
    ExportEngine,
    TensorSpec,
)


def exportable(model: CARZeroModel) -> ExportableAlignment:
    """The model's alignment, which must be one that can be written as graphs.

    Raises:
        ConfigurationError: it is not.
    """
    if isinstance(model.alignment, ExportableAlignment):
        return model.alignment
    known = [name for name, kind in ALIGNMENTS.items() if issubclass(kind, ExportableAlignment)]
    raise ConfigurationError(
        describe(
            "Weights with this alignment cannot be exported",
            got=model.config.alignment,
            expected=" or ".join(known),
            then="score with the weights themselves, in torch",
        )
    )


def prompt_tensors(model: CARZeroModel) -> list[TensorSpec]:
    """What the model's alignment keeps of T prompts, in order."""
    return [TensorSpec(**asdict(tensor)) for tensor in exportable(model).export_tensors]


class PromptsModule(nn.Module):
    """Text tower and what follows it: tokens to the tensors of `prompt_tensors`."""

    def __init__(self, model: CARZeroModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None) -> tuple[Tensor, ...]:
        """Encodes texts.

        Args:
            input_ids: (T, W).
            attention_mask: (T, W).
            positions: (N - 2,) where tokens are counted, see `ExportableAlignment.to_tensors`.
        """
        raw = self.model.raw_text_features(input_ids, attention_mask)
        texts = self.model.project_texts(raw)
        return exportable(self.model).to_tensors(texts, count_words(raw.local), positions)


class ScoringModule(nn.Module):
    """Image tower and alignment: pixel values and the tensors of `prompt_tensors` to logits and maps.

    Args:
        model: the model.
        asked: how many prompts the graph is for, by which the cheaper way to read the images is chosen.
    """

    def __init__(self, model: CARZeroModel, asked: int) -> None:
        super().__init__()
        self.model = model
        self.asked = asked

    def forward(self, pixel_values: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits (I, T) and maps (I, T, h, w)."""
        images, alignment = self.model.encode_images(pixel_values), exportable(self.model)
        return alignment.score_whole(images, alignment.from_tensors(tensors), self.asked)


# So many that keys and values of images are projected by plain layers: only those become int8.
_MANY = 1 << 30

_TOKENS = {"input_ids": {0: "prompts"}, "attention_mask": {0: "prompts"}, "positions": {0: "words"}}


class GraphWriter:
    """Writes the graphs of one model.

    Args:
        model: in eval mode, float32, on the CPU.
        processor: the processor that belongs to it.
        prompt_set: what is baked in, or asked in calibration.
        engine: "onnx" or "openvino".
        dtype: precision; "int8" quantises, "bfloat16" is a matter of loading.
        baked: make the prompts a part of the scoring graph.
    """

    opset = OPSET

    def __init__(
        self,
        model: CARZeroModel,
        processor: CARZeroProcessor,
        prompt_set: PromptSet,
        engine: ExportEngine,
        dtype: ExportDtype,
        *,
        baked: bool,
    ) -> None:
        self.model = model
        self.processor = processor
        self.prompt_set = prompt_set
        self.engine = engine
        self.dtype = dtype
        self.baked = baked
        self.tensors = prompt_tensors(model)

    def write(self, folder: Path, calibration: Tensor, progress: Callable[[str], None]) -> None:
        """Writes the graphs into a folder.

        Args:
            folder: where.
            calibration: (C, 3, h, w) pixel values for int8; else not read.
            progress: told what is being done.
        """
        encoded = self._encode()
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            work = folder if self.engine == "onnx" else Path(temporary)
            progress("writing the scoring graph")
            self._save_scoring(_onnx_path(work, SCORING_GRAPH), encoded)
            if not self.baked:
                progress("writing the prompts graph")
                self._save_prompts(_onnx_path(work, PROMPTS_GRAPH))
            if self.engine == "openvino":
                self._carry_over(work, folder, calibration, encoded, progress)
            elif self.baked:
                bake_onnx(_onnx_path(work, SCORING_GRAPH), encoded)

    def _carry_over(
        self, work: Path, folder: Path, calibration: Tensor, encoded: Arrays, progress: Callable[[str], None]
    ) -> None:
        """From ONNX files to OpenVINO's own."""
        scoring = read_onnx(_onnx_path(work, SCORING_GRAPH))
        if self.dtype == "int8":
            progress(f"quantising on {len(calibration)} images")
            samples = [{"pixel_values": one[None].numpy(), **encoded} for one in calibration]
            scoring = quantise(scoring, samples)
        if self.baked:
            bake_openvino(scoring, encoded)
        save_openvino(scoring, folder / (SCORING_GRAPH + GRAPH_SUFFIXES["openvino"][0]))
        if not self.baked:
            prompts = read_onnx(_onnx_path(work, PROMPTS_GRAPH))
            save_openvino(prompts, folder / (PROMPTS_GRAPH + GRAPH_SUFFIXES["openvino"][0]))

    @torch.inference_mode()
    def _encode(self) -> Arrays:
        """The prompt set as the scoring graph takes it."""
        module = PromptsModule(self.model)
        parts = [module(*tokens.values()) for tokens in self._tokens()]
        joined = [
            torch.cat(part, dim=spec.prompts_axis)
            for spec, part in zip(self.tensors, zip(*parts, strict=True), strict=True)
        ]
        return {spec.name: value.numpy() for spec, value in zip(self.tensors, joined, strict=True)}

    def _tokens(self) -> list[dict[str, Tensor]]:
        """Inputs of the prompts graph, some dozens of prompts at once, their memories of one length."""
        batches = list(token_batches(self.processor, self.prompt_set))
        positions = torch.arange(max(int(mask.sum(dim=1).max()) for _, mask in batches))
        more = {"positions": positions} if any(spec.tokens_axis is not None for spec in self.tensors) else {}
        return [{"input_ids": ids, "attention_mask": mask, **more} for ids, mask in batches]

    def _save_scoring(self, path: Path, encoded: Arrays) -> None:
        side = self.processor.image_processor.crop_px
        example = {"pixel_values": torch.zeros(2, 3, side, side)}
        dynamic = {"pixel_values": {0: "images"}}
        for spec in self.tensors:
            example[spec.name] = _at_least_two(torch.from_numpy(encoded[spec.name]), spec.prompts_axis)
            dynamic[spec.name] = {spec.prompts_axis: "prompts"}
            if spec.tokens_axis is not None:
                dynamic[spec.name][spec.tokens_axis] = "tokens"
        save_onnx(ScoringModule(self.model, self._asked(encoded)), example, ["logits", "maps"], dynamic, path)

    def _asked(self, encoded: Arrays) -> int:
        """How many prompts the scoring graph is for, by which it reads images in the cheaper way."""
        if self.dtype == "int8":
            return _MANY
        return len(next(iter(encoded.values()))) if self.baked else 1

    def _save_prompts(self, path: Path) -> None:
        example = {
            name: value if name == "positions" else _at_least_two(value, 0) for name, value in self._tokens()[0].items()
        }
        outputs = [spec.name for spec in self.tensors]
        save_onnx(PromptsModule(self.model), example, outputs, _TOKENS, path)


def _onnx_path(folder: Path, graph: str) -> Path:
    return folder / (graph + GRAPH_SUFFIXES["onnx"][0])


def _at_least_two(value: Tensor, axis: int) -> Tensor:
    """The exporter takes a size of 1 in an example for a constant."""
    return torch.cat([value, value], dim=axis) if value.shape[axis] == 1 else value
