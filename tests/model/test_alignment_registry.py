"""A kind of alignment is one file and one line: a toy kind, registered here alone, goes every way that kinds go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from carzero.errors import ConfigurationError, PromptError
from carzero.export.writer import GraphWriter, prompt_tensors
from carzero.inference.classifier import ZeroShotClassifier
from carzero.model import AlignmentOutput, CARZeroConfig, CARZeroModel, ImageFeatures, PreparedTexts, TextFeatures
from carzero.model.alignment import ALIGNMENTS, Alignment, AlignmentConfig, ScoringTexts, find_alignment
from carzero.model.alignment.base import check_texts
from carzero.model.alignment.cosine import CosineAlignment
from carzero.model.loss import contrastive_loss
from carzero.prompts import PromptSet
from carzero.training.batches.inputs import Tokens
from carzero.training.batches.loader import StepBatch
from carzero.training.distributed import DistributedContext
from carzero.training.recipe_sections import LossSection, MemorySection, OptimiserSection
from carzero.training.tasks.contrastive import uses_every_parameter
from carzero.training.tasks.objective import ContrastiveObjective
from tests.support.tiny import build_model, random_inputs, save_tiny_weights, tiny_config, tiny_pair

LABELS = ["edema", "pneumonia"]


@dataclass(frozen=True, slots=True)
class ToyTexts(ScoringTexts):
    """Normalised text features (T, D)."""

    directions: Tensor


class ToyAlignment(Alignment):
    """Each text pools the patches by their likeness to it; its score is its cosine with what it pooled.

    Nothing of it is an attention: one direction, no queries of images, and maps that are cosines.
    """

    scoring_texts = ToyTexts

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__(config)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.logit_scale = nn.Parameter(torch.empty(1))

    def reset_parameters(self) -> None:
        nn.init.constant_(self.logit_scale, 2.0)

    def forward(self, images: ImageFeatures, texts: PreparedTexts, need_maps: bool = False) -> AlignmentOutput:
        scores, cosines = self._compare(images.local, self._directions(texts.features.pooled))
        return AlignmentOutput.join(scores, None, cosines.unflatten(-1, images.grid) if need_maps else None)

    def score_both(
        self,
        images: ImageFeatures,
        texts: TextFeatures,
        *,
        image_queries: Tensor | None = None,
        text_queries: Tensor | None = None,
        tile_pairs: int | None = None,
    ) -> tuple[Tensor, None]:
        asking = texts.pooled if text_queries is None else text_queries
        return self._compare(images.local, self._directions(asking))[0], None

    def loss(self, output: AlignmentOutput, match: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        return contrastive_loss(output.scores, match, known)

    def prepare(self, texts: TextFeatures, words: Tensor) -> tuple[ToyTexts, ...]:
        return (ToyTexts(self._directions(texts.pooled)),)

    def score(
        self, images: ImageFeatures, texts: Sequence[ScoringTexts], need_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        directions = torch.cat([group.directions for group in check_texts(ToyTexts, texts)])
        scores, cosines = self._compare(images.local, directions)
        return scores.float(), cosines.unflatten(-1, images.grid) if need_maps else None

    def _directions(self, pooled: Tensor) -> Tensor:
        return F.normalize(self.norm(pooled), dim=-1)

    def _compare(self, local: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.norm(local)
        cosines = torch.einsum("ipd,td->itp", F.normalize(tokens, dim=-1), directions)
        shares = (self.logit_scale.exp() * cosines).softmax(dim=-1)
        pooled = torch.einsum("itp,ipd->itd", shares, tokens)
        return self.logit_scale.exp() * torch.einsum("itd,td->it", F.normalize(pooled, dim=-1), directions), cosines


class ExportableToy(CosineAlignment):
    """A kind that declares tensors."""


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ALIGNMENTS, "toy", ToyAlignment)
        patch.setitem(ALIGNMENTS, "exportable toy", ExportableToy)
        yield


def test_the_configuration_builds_the_model_and_its_own_start() -> None:
    model = CARZeroModel(tiny_config(alignment="toy"))
    assert isinstance(model.alignment, ToyAlignment)
    assert model.alignment.logit_scale.item() == 2.0
    assert CARZeroConfig(**model.config.to_dict()).alignment == "toy"


def test_both_forms_give_the_same_scores_and_maps_and_the_loss_is_its_own() -> None:
    model, batch = build_model(tiny_config(alignment="toy")), random_inputs(3, 3)
    with torch.no_grad():
        plain = model(**batch, output_attentions=True, return_loss=True)
        texts = model.encode_texts(batch["input_ids"], batch["attention_mask"])
        prepared = model.alignment.prepare(texts, torch.full((3,), 5))
        scores, maps = model.alignment.score(model.encode_images(batch["pixel_values"]), prepared, need_maps=True)
    assert plain.logits_per_image.std() > 1e-3
    assert torch.allclose(scores, plain.logits_per_image, atol=1e-5)
    assert maps is not None
    assert torch.allclose(maps, plain.attention_maps, atol=1e-5)
    assert torch.equal(plain.logits_t2i, plain.logits_i2t.T)
    assert plain.loss.item() == pytest.approx(contrastive_loss(scores).item(), abs=1e-6)


def test_weights_and_prompts_are_saved_and_loaded(films: list[Path], tmp_path: Path) -> None:
    weights = save_tiny_weights(tmp_path / "weights", alignment="toy")
    classifier = ZeroShotClassifier.from_pretrained(weights, device="cpu", dtype="float32")
    bank = classifier.encode_prompts(PromptSet.from_labels(LABELS))
    classifier.save_prompts(bank, tmp_path / "bank")
    loaded = classifier.load_prompts(tmp_path / "bank")
    pixels = classifier.processor.image_processor.preprocess(str(films[0]))["pixel_values"]
    scores = classifier.backend.score(pixels, bank).scores
    assert torch.equal(classifier.backend.score(pixels, loaded).scores, scores)
    table = classifier.predict(films[0], labels=LABELS)
    assert np.allclose(table[[f"logit:{label}" for label in LABELS]].to_numpy(float), scores.numpy(), atol=1e-6)


def test_a_training_step_moves_its_parameters() -> None:
    config = tiny_config(alignment="toy")
    options = OptimiserSection(steps=1, batch_size=4, lr=0.1)
    context = DistributedContext(options, "ddp", "cpu")
    model = build_model(config).train()
    objective = ContrastiveObjective(model, LossSection(sigmoid=0.5), options, MemorySection(tile_pairs=2))
    assert not uses_every_parameter(config)
    module = context.prepare(objective, all_used=False)
    inputs = random_inputs(4, 3)
    match = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]], dtype=torch.bool)
    batch = StepBatch(inputs["pixel_values"], Tokens(inputs["input_ids"], inputs["attention_mask"]), match, None)
    before = {name: value.clone() for name, value in model.alignment.state_dict().items()}
    context.step(module(batch), module, torch.optim.SGD(model.parameters(), lr=0.1))
    assert all(not torch.equal(value, before[name]) for name, value in model.alignment.state_dict().items())


def test_it_is_exported_if_it_declares_tensors() -> None:
    model, processor = tiny_pair(alignment="exportable toy")
    assert [tensor.name for tensor in prompt_tensors(model)] == ["pooled"]
    writer = GraphWriter(model, processor, PromptSet.from_labels(LABELS), "onnx", "float32", baked=False)
    assert writer._encode()["pooled"].shape[0] == len(LABELS)
    without, processor = tiny_pair(alignment="toy")
    with pytest.raises(
        ConfigurationError, match="cannot be exported; got 'toy'; expected simr or cosine or similarity_map"
    ):
        GraphWriter(without, processor, PromptSet.from_labels(LABELS), "onnx", "float32", baked=False)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigurationError, match="alignment is not known; got 'dot'; expected one of simr, cosine, similarity_map, toy"
    ):
        find_alignment("dot")
    config = tiny_config()
    config.alignment = "dot"
    with pytest.raises(ConfigurationError, match="alignment is not known; got 'dot'"):
        CARZeroModel(config)


@pytest.mark.parametrize("kind", list(ALIGNMENTS))
def test_texts_of_another_kind_are_refused(kind: str) -> None:
    model, batch = build_model(tiny_config(alignment=kind)), random_inputs()
    with pytest.raises(
        ValueError,
        match=f"prepared by another alignment: ToyTexts instead of {ALIGNMENTS[kind].scoring_texts.__name__}",
    ):
        model.alignment.score(model.encode_images(batch["pixel_values"]), [ToyTexts(torch.zeros(1, 16))])


def test_prompts_of_another_backend_are_refused(classifier: ZeroShotClassifier) -> None:
    bank = replace(classifier.encode_prompts(PromptSet.from_labels(LABELS)), texts={"pooled": np.zeros(3)})
    with pytest.raises(PromptError, match="encoded by another backend; got 'dict'; expected TorchTexts"):
        classifier.backend.score(torch.zeros(1, 3, 32, 32), bank)
