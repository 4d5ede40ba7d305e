"""imagecodecs as a decoder for pydicom, without a trace in pydicom's own tables.

pydicom and Pillow decode uncompressed, RLE and baseline JPEG pixel data by themselves. The other syntaxes are decoded
by imagecodecs through a decoder object of our own, which pydicom's documented plugin interface allows, so that reading
a radiograph here does not change how the rest of a program reads DICOM files.

Source: pydicom 3 "Decoder plugins" (guides/decoding/decoder_plugins).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import Decoder, DecodeRunner, get_decoder
from pydicom.uid import UID

__all__ = ["DECODER_DEPENDENCIES", "decode_frame", "is_available", "to_decoder"]

_JPEG = ("1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
DECODER_DEPENDENCIES = dict.fromkeys((*_JPEG, *_JPEG_LS, *_JPEG_2000, *_HTJ2K), ("imagecodecs",))


def is_available(uid: str) -> bool:
    """Whether this plugin decodes the transfer syntax; part of pydicom's plugin interface."""
    return uid in DECODER_DEPENDENCIES


@cache
def to_decoder(uid: str) -> Decoder:
    """Returns the decoder for a transfer syntax.

    Raises:
        NotImplementedError: neither pydicom nor imagecodecs decodes the transfer syntax.
    """
    if not is_available(uid):
        return get_decoder(uid)
    decoder = Decoder(UID(uid))
    decoder.add_plugin("imagecodecs", (__name__, "decode_frame"))
    return decoder


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """Returns the samples of one frame as bytes, and tells the runner how they are laid out.

    Samples are returned as the stream holds them; pydicom then settles sign, unused bits and colour space, for which
    it needs the truth about depth, plane order and colour transform.
    """
    samples = _samples(source, runner)
    runner.set_option("bits_allocated", 8 * samples.dtype.itemsize)
    if samples.ndim == 3:
        in_planes = samples.shape[0] == runner.samples_per_pixel and samples.shape[-1] != runner.samples_per_pixel
        runner.set_option("planar_configuration", int(in_planes))
    return samples.tobytes()


def _samples(source: bytes, runner: DecodeRunner) -> NDArray[Any]:
    """Returns one frame's samples, with any JPEG 2000 colour transform undone."""
    uid = str(runner.transfer_syntax)
    if uid in _JPEG_LS:
        return np.asarray(imagecodecs.jpegls_decode(source))
    if uid in _JPEG:
        as_stored = "YCBCR" if runner.samples_per_pixel == 3 else None  # the same space in and out: no conversion
        return np.asarray(imagecodecs.jpeg8_decode(source, colorspace=as_stored, outcolorspace=as_stored))
    if str(runner.photometric_interpretation) in ("YBR_ICT", "YBR_RCT"):
        runner.set_option("photometric_interpretation", "RGB")
    return np.asarray(imagecodecs.jpeg2k_decode(source))
