"""The transformers pipeline `zero-shot-cxr-classification`. Importing this module registers it.

from carzero.pipelines import pipeline
pipeline(model="demo")("chest.dcm", candidate_labels=["pneumonia"])

or, with transformers' own function, whose names of models are folders and hub ids alone:

import carzero.pipelines
from transformers import pipeline
pipeline("zero-shot-cxr-classification", model=folder)("chest.dcm", candidate_labels=["pneumonia"])
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from transformers import Pipeline
from transformers import pipeline as transformers_pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import logging

from carzero.images import load_image
from carzero.inference.backends import TorchBackend
from carzero.inference.prompt_bank import PromptBank
from carzero.model import CARZeroModel
from carzero.prompts import DEFAULT_TEMPLATE, PromptReview, PromptSet
from carzero.prompts.review import review_prompts
from carzero.records import ImageSource
from carzero.weights.precision import to_torch_dtype
from carzero.weights.source import DEMO, WeightsSource

TASK = "zero-shot-cxr-classification"


class ImageWarning(UserWarning):
    """A doubt about an image, such as a lateral view; `carzero predict` has them in the column `warnings`."""


class LabelScore(TypedDict):
    """One label of one image, and its raw logit."""

    label: str
    score: float


class _Scores(TypedDict):
    labels: list[str]
    scores: torch.Tensor


class ZeroShotCXRPipeline(Pipeline):
    """Scores radiographs against labels: a list of `{"label", "score"}` an image, in the order asked.

    Scores are raw logits, the numbers of `carzero predict`. They are not sorted: between findings they mean nothing.

    Unlike the general zero-shot image pipeline it reads clinical files with CARZero's own pixel handling, asks the
    paper's "There is ..." and takes no softmax over labels, which are not exclusive. It computes in float32, as
    `carzero predict` does, whatever precision the file holds; `compute_dtype="bfloat16"` asks for another.
    """

    _load_processor: Any = True
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False
    model: Any

    def __init__(self, *arguments: Any, compute_dtype: str = "float32", **options: Any) -> None:
        super().__init__(*arguments, **options)
        # transformers keeps the precision of the file, float16 for small weights: other numbers than `predict`.
        self.model = self.model.to(to_torch_dtype(compute_dtype))

    def _sanitize_parameters(
        self,
        candidate_labels: Sequence[str] | None = None,
        template: str | None = None,
        force: bool = False,
        **_: object,
    ) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
        forward: dict[str, object] = {}
        if candidate_labels is not None:
            forward["prompt_set"] = PromptSet.from_labels(list(candidate_labels), template or DEFAULT_TEMPLATE)
        return {"force": force}, forward, {}

    def preprocess(self, input_: ImageSource, force: bool = False, **_: object) -> dict[str, torch.Tensor]:  # type: ignore[override]
        """Reads one image, in any form that `carzero.images.load_image` takes."""
        radiograph = load_image(input_, force=force)
        for doubt in radiograph.warnings:  # a label and its score leave no room for them
            warnings.warn(doubt, ImageWarning, stacklevel=2)
        return {"pixel_values": self.processor.image_processor.to_pixel_values(radiograph).unsqueeze(0)}  # type: ignore[union-attr]

    def _forward(  # type: ignore[override]
        self, input_tensors: dict[str, torch.Tensor], prompt_set: PromptSet | None = None, **_: object
    ) -> _Scores:
        if prompt_set is None:
            raise ValueError("Nothing is asked; expected candidate_labels=[...].")
        backend = TorchBackend(self.model, device=self.model.device)
        bank = self._bank(backend, prompt_set)
        return {
            "labels": prompt_set.labels,
            "scores": backend.score(input_tensors["pixel_values"].cpu(), bank).scores[0],
        }

    def postprocess(self, model_outputs: _Scores, **_: object) -> list[LabelScore]:  # type: ignore[override]
        """Pairs labels with their scores, in the order asked."""
        pairs = zip(model_outputs["labels"], model_outputs["scores"].tolist(), strict=True)
        return [{"label": label, "score": score} for label, score in pairs]

    def _bank(self, backend: TorchBackend, prompt_set: PromptSet) -> PromptBank[object]:
        """The encoded prompts; kept until other labels are asked, so that a loop over images encodes them once."""
        kept: PromptBank[object] | None = getattr(self, "_kept_bank", None)
        if kept is None or kept.prompt_set.hash != prompt_set.hash:
            self._review(prompt_set).warn()
            kept = backend.encode_prompts(self.processor, prompt_set)  # type: ignore[arg-type]
            self._kept_bank = kept
        return kept

    def _review(self, prompt_set: PromptSet) -> PromptReview:
        """What is to be known of the prompts; of weights on the hub without what they were trained on."""
        if Path(self.model.name_or_path).is_dir():
            return WeightsSource(self.model.name_or_path).review(prompt_set)
        processor: Any = self.processor
        return review_prompts(prompt_set, processor.tokenizer, processor.max_text_length, None)


PIPELINE_REGISTRY.register_pipeline(TASK, pipeline_class=ZeroShotCXRPipeline, pt_model=CARZeroModel, type="multimodal")


def pipeline(model: str | Path = DEMO, **options: Any) -> ZeroShotCXRPipeline:
    """Makes the pipeline for weights as the whole package names them.

    Args:
        model: "demo", a folder or a hub id.
        options: of `transformers.pipeline`, such as `device`.

    Raises:
        WeightsError: not found.
    """
    make: Any = transformers_pipeline  # whose annotations know the tasks of transformers alone
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar of some hundred tensors that takes no time
    try:
        made: ZeroShotCXRPipeline = make(TASK, model=str(WeightsSource(model).folder), **options)
    finally:
        if shown:
            logging.enable_progress_bar()
    return made
