"""Files to grey arrays, and the one transform to and from original pixels."""

from carzero.images.area_resize import resize_area
from carzero.images.geometry import Geometry, PixelTransform
from carzero.images.overlay import OverlayMarks, draw_overlay, save_overlay
from carzero.images.reading import load_image, load_radiograph, to_model_input

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
