"""BioViL and BioViL-T (Boecking et al. 2022, Bannur et al. 2023): ResNet-50 with a projector, and CXR-BERT.

The ResNet is transformers' (torchvision's form: the stride in the 3x3 convolution). Projected cells and texts share one
space, so a map is the cosine of a text with each cell: the model was trained on them, by a local loss.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's own name for it)
from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel

from carzero.model.features import ImageFeatures
from carzero.model.scoring_model import DualEncoder
from carzero.model.vision import CONVOLVED_AT_ONCE
from carzero.records import CELL_COSINE

RESNET_WIDTH = 2048
_SMOOTHING_CELLS = 1.5  # deviation of the Gaussian
_TEMPORAL_WIDTH, _TEMPORAL_HEADS, _TEMPORAL_BLOCKS = 256, 8, 3
_TEMPORAL_EPS = 1e-6


class BiovilEncoder(DualEncoder):
    """Cosine of global features, without a scale; the global image feature is the mean of the projected cells.

    Args:
        text_config: of CXR-BERT.
        joint_size: width at which images and texts meet.
        temporal: BioViL-T, whose cells can be compared with those of an earlier image.
    """

    text_mean = "raw"
    map_kind = CELL_COSINE
    images_at_once = CONVOLVED_AT_ONCE

    def __init__(self, text_config: BertConfig, joint_size: int = 128, *, temporal: bool = False) -> None:
        super().__init__()
        self.resnet = ResNetModel(ResNetConfig(layer_type="bottleneck"))
        self.temporal = TemporalPooler() if temporal else None
        width = 2 * _TEMPORAL_WIDTH if temporal else RESNET_WIDTH
        self.projector = Projector(width, joint_size)
        self.bert = BertModel(text_config, add_pooling_layer=False)
        self.text_head = TextHead(text_config.hidden_size, joint_size)

    def encode_images(self, pixel_values: Tensor, prior: Tensor | None = None) -> ImageFeatures:
        """See `ScoringModel.encode_images`.

        Args:
            pixel_values: (I, 3, height, width) in 0-1.
            prior: likewise, an earlier image of each patient (BioViL-T); None: there is none.
        """
        return self.project_cells(self.encode_cells(pixel_values), None if prior is None else self.encode_cells(prior))

    def project_cells(self, cells: Tensor, prior: Tensor | None = None) -> ImageFeatures:
        """Image features of the ResNet's cells (I, 2048, h, w), and of those of an earlier image.

        Raises:
            ValueError: an earlier image is given to BioViL, which reads none.
        """
        if self.temporal is not None:
            cells = self.temporal(cells, prior)  # (I, 512, h, w)
        elif prior is not None:
            raise ValueError("BioViL reads no earlier image; BioViL-T does.")
        projected = self.projector(cells)  # (I, D, h, w)
        grid = (int(projected.shape[2]), int(projected.shape[3]))
        local = projected.flatten(2).transpose(1, 2)  # (I, P, D)
        return ImageFeatures(local.mean(dim=1), local, grid)  # (I, D), (I, P, D)

    def encode_cells(self, pixel_values: Tensor) -> Tensor:
        """The ResNet's feature map (I, 2048, h, w)."""
        output = self.resnet(pixel_values.contiguous(memory_format=torch.channels_last))
        cells: Tensor = output.last_hidden_state  # (I, 2048, h, w)
        return cells

    def encode_patches(self, images: ImageFeatures) -> Tensor:
        """The projected cells."""
        return images.local

    def finish_maps(self, maps: Tensor) -> Tensor:
        """Smooths maps (I, T, h, w) as the authors do, by a Gaussian with its border reflected."""
        down, across = (_smoothing(side).to(maps) for side in maps.shape[-2:])  # (h, h), (w, w)
        return down @ maps @ across.T

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See `DualEncoder.encode_texts`."""
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (T, W, width)
        projected: Tensor = self.text_head(hidden[:, 0])  # (T, D)
        return projected

    def to_logits(self, cosines: Tensor) -> Tensor:
        """The cosines as they are."""
        return cosines


def _smoothing(side: int) -> Tensor:
    """(side, side): the weights of scipy's Gaussian filter."""
    return torch.from_numpy(gaussian_filter1d(np.eye(side), _SMOOTHING_CELLS, axis=0)).float()


class Projector(nn.Module):
    """Two 1x1 convolutions, BatchNorm and ReLU between them."""

    def __init__(self, width: int, joint_size: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(width, joint_size, 1, bias=False)
        self.norm = nn.BatchNorm2d(joint_size)
        self.out = nn.Conv2d(joint_size, joint_size, 1)

    def forward(self, cells: Tensor) -> Tensor:
        """Projects (I, width, h, w) to (I, D, h, w)."""
        projected: Tensor = self.out(F.relu(self.norm(self.hidden(cells))))
        return projected


class TextHead(nn.Module):
    """CXR-BERT's projection of the first token."""

    def __init__(self, width: int, joint_size: int) -> None:
        super().__init__()
        self.dense_to_hidden = nn.Linear(width, joint_size)
        self.norm = nn.LayerNorm(joint_size, eps=1e-12)
        self.dense_to_output = nn.Linear(joint_size, joint_size)

    def forward(self, first: Tensor) -> Tensor:
        """Projects (T, width) to (T, D)."""
        projected: Tensor = self.dense_to_output(self.norm(F.gelu(self.dense_to_hidden(first))))
        return projected


class TemporalPooler(nn.Module):
    """BioViL-T's comparison with an earlier image: cells of both read each other, those of the new one are kept."""

    def __init__(self) -> None:
        super().__init__()
        width = _TEMPORAL_WIDTH
        self.reduce = nn.Conv2d(RESNET_WIDTH, width, 1, bias=False)
        self.no_prior = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.type_embed = nn.Parameter(torch.zeros(2, 1, width))
        self.blocks = nn.ModuleList(TemporalBlock(width) for _ in range(_TEMPORAL_BLOCKS))
        self.norm_post = nn.LayerNorm(width, eps=_TEMPORAL_EPS)

    def forward(self, cells: Tensor, prior: Tensor | None) -> Tensor:
        """Joins cells (I, 2048, h, w) with their change since `prior`, or with a vector that says there is none.

        Returns:
            (I, 512, h, w)
        """
        current = self.reduce(cells)  # (I, 256, h, w)
        if prior is None:
            return torch.cat([current, self.no_prior.expand_as(current)], dim=1)  # (I, 512, h, w)
        height, width = current.shape[2:]
        tokens = [part.flatten(2).transpose(1, 2) for part in (current, self.reduce(prior))]  # (I, h * w, 256) each
        place = positions(height, width, _TEMPORAL_WIDTH).to(current)  # (h * w, 256)
        added = torch.cat([place + kind for kind in self.type_embed])  # (2 * h * w, 256)
        x = torch.cat(tokens, dim=1)  # (I, 2 * h * w, 256)
        for block in self.blocks:
            x = block(x, added)
        change = self.norm_post(x)[:, : height * width]  # (I, h * w, 256)
        return torch.cat([current, change.transpose(1, 2).unflatten(2, (height, width))], dim=1)  # (I, 512, h, w)


class TemporalBlock(nn.Module):
    """Self-attention that sees where and of which image a token is, and a feed-forward part."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_TEMPORAL_EPS)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=_TEMPORAL_EPS)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: Tensor, added: Tensor) -> Tensor:
        """Returns (I, N, width) of tokens (I, N, width) and their places (N, width), which values carry too."""
        h = self.norm1(x) + added
        q, k, v = (
            project(h).unflatten(-1, (_TEMPORAL_HEADS, -1)).transpose(1, 2)  # (I, heads, N, width / heads)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (I, N, width)
        x = x + self.o_proj(attended)
        added_up: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return added_up


def positions(height: int, width: int, channels: int) -> Tensor:
    """Sine-cosine positions (height * width, channels) in row order: half for the row, half for the column.

    A place is `(i + 1) / (side + 1e-6) * 2 pi` over `10000 ** (2 * floor(k / 2) / half)`, its sine at even channels k
    and its cosine at odd ones (DETR's form, Carion et al. 2020).
    """
    half = channels // 2
    period = 10000.0 ** (2 * (torch.arange(half) // 2) / half)  # (half,)
    rows, columns = (
        (torch.arange(side, dtype=torch.float32) + 1).unsqueeze(1) / (side + _TEMPORAL_EPS) * 2 * math.pi / period
        for side in (height, width)
    )
    waves = [
        torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1)  # (side, half)
        for angles in (rows, columns)
    ]
    grid = torch.cat(
        [waves[0].unsqueeze(1).expand(-1, width, -1), waves[1].unsqueeze(0).expand(height, -1, -1)], dim=-1
    )  # (height, width, channels)
    return grid.flatten(0, 1)  # (height * width, channels)
