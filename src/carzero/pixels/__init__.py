"""Files to grey arrays, and the one transform to and from original pixels."""

from carzero.pixels.geometry import Geometry
from carzero.pixels.overlay import draw_overlay, save_overlay
from carzero.pixels.reading import load_radiograph, read_radiograph, to_radiograph
from carzero.pixels.resize import resize_area

__all__ = [
    "Geometry",
    "draw_overlay",
    "load_radiograph",
    "read_radiograph",
    "resize_area",
    "save_overlay",
    "to_radiograph",
]
