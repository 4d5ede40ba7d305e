"""Readers that a file brings down: what a decoder does with a codestream that overruns its memory."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from carzero.data.image_checks import ImageCheck, check_image
from carzero.images import PixelTransform
from carzero.images.loading import load_item
from carzero.records import ImageItem, LoadedImage

DEADLY = b"kills its reader"


def load_or_crash(item: ImageItem, transform: PixelTransform, *options: Any) -> LoadedImage:
    """Stands for `load_item`."""
    _crash_on(str(item.image))
    return load_item(item, transform, *options)


def check_or_crash(path: str) -> ImageCheck:
    """Stands for `check_image`."""
    _crash_on(path)
    return check_image(path)


def _crash_on(path: str) -> None:
    if Path(path).read_bytes() == DEADLY:
        os.kill(os.getpid(), signal.SIGSEGV)
