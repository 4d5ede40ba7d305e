"""Files to grey arrays, and the one transform to and from original pixels.

The names below load what they need on first use: who lists images, or has them read elsewhere, needs no decoder.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from carzero.images.area_resize import resize_area
    from carzero.images.geometry import Geometry, PixelTransform
    from carzero.images.overlay import OverlayMarks, draw_overlay, save_overlay
    from carzero.images.reading import load_image, load_radiograph, to_model_input

_HOMES = {
    "area_resize": ("resize_area",),
    "geometry": ("Geometry", "PixelTransform"),
    "overlay": ("OverlayMarks", "draw_overlay", "save_overlay"),
    "reading": ("load_image", "load_radiograph", "to_model_input"),
}

__all__ = [
    "Geometry",
    "OverlayMarks",
    "PixelTransform",
    "draw_overlay",
    "load_image",
    "load_radiograph",
    "resize_area",
    "save_overlay",
    "to_model_input",
]


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
