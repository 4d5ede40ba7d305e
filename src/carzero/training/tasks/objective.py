"""The training objective: a batch in, its loss out, in bounded memory and over any number of processes."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from carzero.model import AlignmentOutput, CARZeroModel, ImageFeatures, TextFeatures
from carzero.model.loss import box_loss, sigmoid_loss
from carzero.model.recompute import compute_in_blocks
from carzero.training.batches.boxes import BoxBatch
from carzero.training.batches.inputs import Tokens
from carzero.training.batches.loader import StepBatch
from carzero.training.distributed import count_processes, gather
from carzero.training.recipe_sections import LossSection, MemorySection, OptimiserSection, Precision


class ContrastiveObjective(nn.Module):
    """CARZero's loss over the images and texts of all processes (paper section 3.2).

    Every process encodes its own images and texts and lets all texts read its own images, and all images read its own
    texts: only global features and scores travel. Towers work in blocks of the batch and the alignment in tiles of the
    image x text grid, both computed again in the backward pass, so that memory grows with images plus texts.

    Args:
        model: the model in training.
        loss: weights of the loss's parts.
        options: precisions.
        memory: blocks and tiles.
    """

    def __init__(
        self, model: CARZeroModel, loss: LossSection, options: OptimiserSection, memory: MemorySection
    ) -> None:
        super().__init__()
        self.model = model
        self._loss, self._options, self._memory = loss, options, memory
        self._sharded = memory.sharding == "fsdp2"

    def forward(self, batch: StepBatch) -> Tensor:
        """The loss of the whole batch; in every process the same number."""
        loss = self.compute_loss(self.align(batch), batch.match, batch.known)
        return loss if batch.boxes is None else loss + self._loss.boxes * self.compare_with_boxes(batch.boxes)

    def compare_with_boxes(self, batch: BoxBatch) -> Tensor:
        """The loss of maps beside boxes; see `box_loss`."""
        images, texts = self.encode_images(batch.images), self.encode_texts(batch.texts)
        own = self.model.alignment.map_pairs(images, texts)  # (K, h, w)
        cover = F.adaptive_avg_pool2d(batch.cover.unsqueeze(1), images.grid).squeeze(1)  # (K, h, w)
        return box_loss(self.model.alignment.to_shares(own), cover)

    def align(self, batch: StepBatch) -> AlignmentOutput:
        """Scores of all processes' images against all processes' texts."""
        # Where parameters are sharded, all processes must compute as many blocks.
        most = [-(-count // count_processes()) if self._sharded else 0 for count in batch.match.shape]
        images, texts = self.encode_images(batch.images, most[0]), self.encode_texts(batch.texts, most[1])
        alignment, tile = self.model.alignment, self._memory.tile_pairs
        with self._autocast(images.pooled.device, self._options.alignment_precision):
            text_queries, image_queries = gather(texts.pooled), gather(images.pooled)
            i2t, t2i = alignment.score_both(
                images, texts, image_queries=image_queries, text_queries=text_queries, tile_pairs=tile
            )
        dtype = images.pooled.dtype  # scores rounded to a lower precision would stay so
        return AlignmentOutput.join(gather(i2t.to(dtype)), None if t2i is None else gather(t2i.to(dtype)))

    def compute_loss(self, aligned: AlignmentOutput, match: Tensor, known: Tensor | None) -> Tensor:
        """The loss of scores."""
        loss = self._loss.contrastive * self.model.compute_loss(aligned, match, known)
        if self._loss.sigmoid:
            for direction in (aligned.logits_i2t, aligned.logits_t2i.T):
                part = sigmoid_loss(direction, match, known, smoothing=self._loss.smoothing)
                loss = loss + self._loss.sigmoid * part
        return loss

    def encode_images(self, images: Tensor | ImageFeatures, rows_elsewhere: int = 0) -> ImageFeatures:
        """Projected features of pixel values, or of raw features of a frozen tower; a small encoder works in blocks."""
        raw = images if isinstance(images, ImageFeatures) else self.raw_images(images, rows_elsewhere)
        if not self.model.config.image_encoder_layers:
            return self.model.project_images(raw)

        def encode(pooled: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
            with self._autocast(pooled.device, self._options.precision):
                encoded = self.model.project_images(ImageFeatures(pooled, local, raw.grid))
            return encoded.pooled.to(pooled.dtype), encoded.local.to(pooled.dtype)

        block = self._memory.image_block
        pooled, local = compute_in_blocks(encode, (raw.pooled, raw.local), block, rows_elsewhere=rows_elsewhere)
        return ImageFeatures(pooled, local, raw.grid)

    def encode_texts(self, texts: Tokens | TextFeatures, rows_elsewhere: int = 0) -> TextFeatures:
        """Projected features of tokens, or of raw features of a frozen tower."""
        raw = texts if isinstance(texts, TextFeatures) else self.raw_texts(texts, rows_elsewhere)
        return self.model.project_texts(raw)

    def raw_images(self, pixel_values: Tensor, rows_elsewhere: int = 0) -> ImageFeatures:
        """The image tower's features, in the model's own precision, block by block."""
        grid = (0, 0)

        def encode(pixels: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal grid
            with self._autocast(pixels.device, self._options.precision):
                raw = self.model.raw_image_features(pixels)
            grid = raw.grid
            return raw.pooled.to(pixels.dtype), raw.local.to(pixels.dtype)

        block = self._memory.image_block
        pooled, local = compute_in_blocks(encode, (pixel_values,), block, rows_elsewhere=rows_elsewhere)
        return ImageFeatures(pooled, local, grid)

    def raw_texts(self, tokens: Tokens, rows_elsewhere: int = 0) -> TextFeatures:
        """The text tower's features, in the model's own precision, block by block."""
        dtype = self.model.dtype

        def encode(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
            with self._autocast(input_ids.device, self._options.precision):
                raw = self.model.raw_text_features(input_ids, attention_mask)
            read = () if raw.mask is None else (raw.mask,)
            return raw.pooled.to(dtype), raw.local.to(dtype), *read

        inputs, block = (tokens.input_ids, tokens.attention_mask), self._memory.text_block
        pooled, local, *read = compute_in_blocks(encode, inputs, block, rows_elsewhere=rows_elsewhere)
        return TextFeatures(pooled, local, read[0] if read else None)

    @staticmethod
    def _autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
        return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")
