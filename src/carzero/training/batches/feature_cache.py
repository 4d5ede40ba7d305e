"""Features of frozen towers, computed once: what does not learn need not be run again at every step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carzero.core.atomic import replace_when_done, room_for
from carzero.model import ImageFeatures, TextFeatures

_BATCH = 8  # convolutions over more images at once leave the caches of a CPU, and take twice as long


def is_frozen(tower: nn.Module) -> bool:
    """Whether nothing of the tower is trained."""
    return not any(parameter.requires_grad for parameter in tower.parameters())


def hash_module(module: nn.Module) -> str:
    """SHA-256 over names and values of a module's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class ImageFeatureCache:
    """Raw features of one view of every image: as it is, or in one random variation. Held in bfloat16.

    Args:
        pooled: (N, D).
        local: (N, P, D).
        grid: (h, w).
        rows: (N,) table rows.
        mirrored: (N,) bool.
    """

    def __init__(
        self,
        pooled: Tensor,
        local: Tensor,
        grid: tuple[int, int],
        rows: NDArray[np.int64],
        mirrored: NDArray[np.bool_],
    ) -> None:
        self._pooled, self._local, self._mirrored = pooled, local, mirrored
        self.grid = grid
        self._place = {int(row): index for index, row in enumerate(rows)}

    @classmethod
    def load_or_encode(
        cls,
        file: Path,
        encode: Callable[[slice], ImageFeatures],
        rows: NDArray[np.int64],
        mirrored: NDArray[np.bool_],
    ) -> ImageFeatureCache:
        """Takes the features from the file of an earlier run, or encodes them and writes it.

        Args:
            file: its name says everything that the features depend on.
            encode: a part of `rows` to its raw features.
            rows: table rows.
            mirrored: which of them the view mirrors.

        Raises:
            OutputError: the file cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file, save_file

        if not file.is_file():
            chunks = [encode(slice(start, start + _BATCH)) for start in range(0, len(rows), _BATCH)]
            held = {
                name: torch.cat([getattr(each, name).bfloat16() for each in chunks]) for name in ("pooled", "local")
            }
            writing = room_for("Features of a frozen tower", file.parent, also=(SafetensorError,))
            with writing, replace_when_done(file) as temporary:
                save_file({**held, "grid": torch.tensor(chunks[0].grid)}, temporary)
        tensors = load_file(file)
        height, width = tensors["grid"].tolist()
        return cls(tensors["pooled"], tensors["local"], (height, width), rows, mirrored)

    def load(self, rows: NDArray[np.int64]) -> ImageFeatures:
        """Features of some rows, in float32."""
        places = self._places(rows)
        return ImageFeatures(self._pooled[places].float(), self._local[places].float(), self.grid)

    def is_mirrored(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some rows are mirrored in this view."""
        found: NDArray[np.bool_] = self._mirrored[self._places(rows).numpy()]
        return found

    def _places(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.tensor([self._place[int(row)] for row in rows], dtype=torch.long)


class TextFeatureCache:
    """Raw features of every sentence of a run.

    Args:
        encode: texts to raw features.
        sentences: all sentences.
    """

    def __init__(self, encode: Callable[[Sequence[str]], TextFeatures], sentences: Sequence[str]) -> None:
        self._number = {sentence: index for index, sentence in enumerate(sentences)}
        chunks = [sentences[start : start + _BATCH] for start in range(0, len(sentences), _BATCH)]
        self._features = TextFeatures.join([encode(chunk) for chunk in chunks])

    def load(self, texts: Sequence[str]) -> TextFeatures:
        """Raw features of some of the sentences."""
        return self._features.select(torch.tensor([self._number[text] for text in texts], dtype=torch.long))
