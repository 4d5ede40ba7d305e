"""PNG, JPEG, TIFF, BMP and JPEG 2000 files as grey levels.

Pillow reads them; where it would throw depth away (more than 8 bits in more than one channel, 12-bit JPEG, JPEG 2000)
the decoders of imagecodecs do.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carzero.errors import UnreadableImageError, describe
from carzero.pixels.checks import check_size, refuse_unless_forced
from carzero.pixels.greylevels import grey_from_colour, grey_from_samples

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["decode_raster", "grey_from_image", "sniff_raster"]

_Grey = NDArray[np.float32]
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"BM": "BMP",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
}
_TIFF_BITS, _TIFF_PHOTOMETRIC, _MIN_IS_WHITE = 258, 262, 0
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")


def sniff_raster(data: bytes) -> str:
    """Returns the Pillow name of the format the first bytes announce, or "" for none that is read here."""
    return next((name for signature, name in _SIGNATURES.items() if data.startswith(signature)), "")


def decode_raster(data: bytes, *, source: str, force: bool) -> tuple[_Grey, str, list[str]]:
    """Returns grey levels, the encoding in words, and doubts, for the bytes of a picture file.

    Raises:
        UnreadableImageError: the file is broken, truncated or larger than any radiograph.
        UnsuitableImageError: a colour photograph or several pages, not forced.
    """
    name = sniff_raster(data)
    try:
        image, doubts = _open(data, name, source=source, force=force)
        samples, bits = _deep_samples(data, image, name)
        if samples is None:
            image.load()
    except (UnreadableImageError, ImageRefusal):
        raise
    except Exception as error:  # the readers raise whatever their C code reports
        raise _broken(name, source, error) from error
    if samples is None:
        grey, more = grey_from_image(image, source=source, force=force)
        bits = 8 if bits is None else bits
    else:
        grey, more = _grey(samples, bits, source=source, force=force)
    return grey, f"{name.replace('JPEG2000', 'JPEG 2000')} {bits}-bit", doubts + more
