"""Exported weights as a backend: the graphs of a folder, in ONNX Runtime or OpenVINO, without the torch model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carzero.errors import PromptError, describe
from carzero.inference.backends.base import PairScores
from carzero.inference.backends.graphs import Arrays, Graph, load_onnx_graph, load_openvino_graph
from carzero.inference.prompt_bank import PromptBank, build_bank, token_batches, unmergeable
from carzero.processing import CARZeroProcessor
from carzero.prompts import PromptSet
from carzero.records import UNSTATED, MapKind
from carzero.weights.export_manifest import (
    GRAPH_SUFFIXES,
    PROMPTS_GRAPH,
    SCORING_GRAPH,
    ExportManifest,
    check_files,
    load_manifest,
)


@dataclass(frozen=True, slots=True)
class GraphTexts:
    """Encoded prompts as a prompts graph gives them and the scoring graph takes them: its inputs by name."""

    inputs: Arrays


@dataclass(frozen=True, slots=True)
class BakedTexts:
    """Prompts among those that are a part of the scoring graph: their numbers there (prompts,), int64."""

    numbers: Tensor


_PAIRS_AT_ONCE = 8192  # images x prompts; half a gigabyte at the released model's width


class ExportedBackend(ABC):
    """Scores by the graphs of an exported folder, on the CPU.

    Args:
        folder: the folder.
        manifest: what it holds.
    """

    name: str = ""  # each engine's own

    def __init__(self, folder: Path, manifest: ExportManifest) -> None:
        self.manifest = manifest
        self.dtype: str = manifest.dtype
        self._folder = folder
        # What a user waits for anyway is loaded at once, so that an unusable folder is refused before any image.
        self._scoring = self._load(SCORING_GRAPH)

    @property
    def map_kind(self) -> MapKind:
        """What the cells of the maps are, as the export's manifest states it."""
        stated = self.manifest.maps
        return UNSTATED if stated is None else MapKind(**stated.model_dump())

    @cached_property
    def _prompts(self) -> Graph:
        return self._load(PROMPTS_GRAPH)

    def merge_prompts(self, bank: PromptBank[object]) -> PromptBank[GraphTexts | BakedTexts]:
        """Refuses to; see `Backend.merge_prompts`."""
        raise unmergeable(f"exported weights ({self.name})")

    def encode_prompts(self, processor: CARZeroProcessor, prompt_set: PromptSet) -> PromptBank[GraphTexts | BakedTexts]:
        """Encodes prompts, or finds those that are baked in; see `Backend.encode_prompts`.

        Raises:
            PromptError: a prompt is longer than the model reads, or none of those that are baked in.
        """
        if self.manifest.prompts is not None:
            return build_bank(prompt_set, self._find_baked(prompt_set))
        batches = list(token_batches(processor, prompt_set))
        longest = max(int(mask.sum(dim=1).max()) for _, mask in batches)
        parts = [self._encode(ids, mask, longest) for ids, mask in batches]
        texts = {
            tensor.name: np.concatenate(arrays, axis=tensor.prompts_axis)
            for tensor, arrays in zip(self.manifest.prompt_tensors, zip(*parts, strict=True), strict=True)
        }
        return build_bank(prompt_set, GraphTexts(texts))

    def score(self, pixel_values: Tensor, bank: PromptBank[object], need_maps: bool = False) -> PairScores:
        """Scores images, so many at once that their pairs with the prompts stay few; see `Backend.score`."""
        at_once = max(1, _PAIRS_AT_ONCE // len(bank.owner))
        parts = [self._score(images, bank, need_maps) for images in pixel_values.split(at_once)]
        scores, *maps = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return PairScores(scores, maps[0] if need_maps else None)

    def _encode(self, input_ids: Tensor, attention_mask: Tensor, longest: int) -> list[NDArray[np.float32]]:
        """The prompts' tensors, their memories as long as the longest of all texts has tokens."""
        inputs = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        if any(tensor.tokens_axis is not None for tensor in self.manifest.prompt_tensors):
            inputs["positions"] = np.arange(longest)
        return self._prompts.run(inputs, [tensor.name for tensor in self.manifest.prompt_tensors])

    def _score(self, pixel_values: Tensor, bank: PromptBank[object], need_maps: bool) -> list[Tensor]:
        baked = bank.texts_as(BakedTexts).numbers if self.manifest.prompts is not None else None
        texts = bank.texts_as(GraphTexts).inputs if baked is None else {}
        names = ["logits", "maps"] if need_maps else ["logits"]
        computed = self._scoring.run({"pixel_values": pixel_values.numpy(), **texts}, names)
        tensors = [torch.from_numpy(np.array(array)) for array in computed]
        return tensors if baked is None else [tensor[:, baked] for tensor in tensors]

    @abstractmethod
    def _load(self, graph: str) -> Graph:
        """Opens a graph of the folder in the engine."""

    def _find_baked(self, prompt_set: PromptSet) -> BakedTexts:
        """Finds prompts among those that are baked in.

        Raises:
            PromptError: one is not among them.
        """
        baked = [prompt for prompts in (self.manifest.prompts or {}).values() for prompt in prompts]
        numbers = {prompt: number for number, prompt in enumerate(baked)}
        asked = [question.text for question in prompt_set.questions]
        unknown = [prompt for prompt in asked if prompt not in numbers]
        if unknown:
            raise PromptError(
                describe(
                    "These weights were exported with their prompts baked in, and this is none of them",
                    got=unknown[0],
                    expected=f"some of {baked}"[:300],
                    then="ask those, or export the weights again without --prompts",
                )
            )
        return BakedTexts(torch.tensor([numbers[prompt] for prompt in asked]))


class OnnxBackend(ExportedBackend):
    """Exported weights in ONNX Runtime."""

    name = "onnx"

    def _load(self, graph: str) -> Graph:
        return load_onnx_graph(self._folder / (graph + GRAPH_SUFFIXES[self.name][0]))


class OpenVINOBackend(ExportedBackend):
    """Exported weights in OpenVINO."""

    name = "openvino"

    def _load(self, graph: str) -> Graph:
        # Prompts are encoded once, and their errors go into every score.
        dtype = "float32" if graph == PROMPTS_GRAPH else self.dtype
        return load_openvino_graph(self._folder / (graph + GRAPH_SUFFIXES[self.name][0]), dtype)


def load_exported(folder: str | Path) -> ExportedBackend:
    """Loads an exported folder into the engine that its manifest names.

    Raises:
        WeightsError: the folder is not as `carzero export` wrote it.
        MissingExtraError: the engine is not installed.
        ConfigurationError: this machine does not compute in the folder's precision.
    """
    manifest = load_manifest(folder)
    check_files(folder, manifest)
    return open_exported(Path(folder), manifest)


def open_exported(folder: Path, manifest: ExportManifest) -> ExportedBackend:
    """Loads graphs whose files are known to be those of the manifest; raises as `load_exported`."""
    return {"onnx": OnnxBackend, "openvino": OpenVINOBackend}[manifest.engine](folder, manifest)
