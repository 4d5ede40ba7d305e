"""Where a radiograph lies in the square that a model sees: one rule for each way that models were trained with.

A rule takes (height, width) of an image, `resize_px` and `crop_px`, and returns a `Placement`. A new way is a function
here and a line in `PLACEMENTS`.

Sources: the released code of CARZero and CheXzero; `get_resize_output_image_size` and `center_crop` of transformers 5;
`Resize` and `CenterCrop` of torchvision. All checked on their own outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Placement(NamedTuple):
    """How an image is scaled, and where it is put.

    Attributes:
        resized: (height, width) in whole pixels after scaling, margins included.
        origin: (x, y) of the scaled image's top left corner in the square of `crop_px`, in whole pixels; negative where
            the crop cuts into the image.
        margins: (top, bottom, left, right) zeros put around the image before it is scaled, in its own pixels.
    """

    resized: tuple[int, int]
    origin: tuple[int, int]
    margins: tuple[int, int, int, int] = (0, 0, 0, 0)


def letterbox(height: int, width: int, resize_px: int, crop_px: int) -> Placement:
    """CARZero: the longer side to `resize_px`, zeros to a square, its centre.

    The shorter side is cut to whole pixels, but never to 0. The factor is rounded before it multiplies, as in the
    released code, so that a few sizes lose one more pixel than exact arithmetic would take (a square of 206 becomes 256
    by 255).
    """
    if height >= width:
        resized = resize_px, max(1, int(width * (resize_px / height)))
    else:
        resized = max(1, int(height * (resize_px / width))), resize_px
    return Placement(resized, _in_square(resized, resize_px, crop_px))


def letterbox_cut(height: int, width: int, resize_px: int, crop_px: int) -> Placement:
    """CheXzero: as `letterbox`, but the longer side is cut too.

    Where the rounded factor times the longer side falls below `resize_px` (77, 154, 303 and 110 more sides below 6,000
    with 320), the longer side is one pixel shorter.
    """
    factor = resize_px / max(height, width)
    resized = max(1, int(height * factor)), max(1, int(width * factor))
    return Placement(resized, _in_square(resized, resize_px, crop_px))


def squash(height: int, width: int, resize_px: int, crop_px: int) -> Placement:
    """Both sides to `resize_px`, the aspect ratio is lost; then transformers' centre crop."""
    return Placement((resize_px, resize_px), (_centre(resize_px, crop_px), _centre(resize_px, crop_px)))


def pad_squash(height: int, width: int, resize_px: int, crop_px: int) -> Placement:
    """Zeros to a square first, the floor of the half above and left; then as `squash`, with the aspect ratio kept."""
    side = max(height, width)
    spare_y, spare_x = side - height, side - width
    margins = (spare_y // 2, spare_y - spare_y // 2, spare_x // 2, spare_x - spare_x // 2)
    return squash(side, side, resize_px, crop_px)._replace(margins=margins)


def shortest_edge(height: int, width: int, resize_px: int, crop_px: int) -> Placement:
    """transformers: the shorter side to `resize_px`, the longer in proportion, cut to whole pixels; centre crop."""
    resized = _by_shorter(height, width, resize_px)
    return Placement(resized, (_centre(resized[1], crop_px), _centre(resized[0], crop_px)))


def shortest_edge_even(height: int, width: int, resize_px: int, crop_px: int) -> Placement:
    """torchvision: as `shortest_edge`, but half a pixel of the crop's offset goes to the even side."""
    resized = _by_shorter(height, width, resize_px)
    return Placement(resized, (-round((resized[1] - crop_px) / 2), -round((resized[0] - crop_px) / 2)))


PLACEMENTS: dict[str, Callable[[int, int, int, int], Placement]] = {
    "letterbox": letterbox,
    "letterbox_cut": letterbox_cut,
    "squash": squash,
    "pad_squash": pad_squash,
    "shortest_edge": shortest_edge,
    "shortest_edge_even": shortest_edge_even,
}


def _in_square(resized: tuple[int, int], resize_px: int, crop_px: int) -> tuple[int, int]:
    """(x, y) of a scaled image in the middle of a square of `resize_px`, of which the centre is cut out."""
    crop_origin = round((resize_px - crop_px) / 2)
    return (resize_px - resized[1]) // 2 - crop_origin, (resize_px - resized[0]) // 2 - crop_origin


def _by_shorter(height: int, width: int, resize_px: int) -> tuple[int, int]:
    """(height, width) with the shorter side at `resize_px`; the longer is multiplied before it is divided."""
    if height <= width:
        return resize_px, int(resize_px * width / height)
    return int(resize_px * height / width), resize_px


def _centre(side: int, crop_px: int) -> int:
    """Where a side begins in transformers' centre crop, which puts zeros around what is smaller than itself."""
    return -((side - crop_px) // 2)
