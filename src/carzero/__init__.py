"""CARZero: zero-shot classification of chest radiographs.

    import carzero
    classifier = carzero.ZeroShotClassifier.from_pretrained("demo")
    classifier.predict(["chest.dcm"], labels=["pneumonia", "pleural effusion"])

Importing this package loads nothing but itself; the names below load what they need on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "CARZeroConfig": "carzero.model",
    "CARZeroError": "carzero.errors",
    "CARZeroImageProcessor": "carzero.processing",
    "CARZeroModel": "carzero.model",
    "CARZeroProcessor": "carzero.processing",
    "Geometry": "carzero.pixels",
    "PromptSet": "carzero.prompts",
    "Radiograph": "carzero.outputs",
    "ZeroShotClassifier": "carzero.zeroshot",
    "example_film": "carzero.weights",
    "load_radiograph": "carzero.pixels",
}

if TYPE_CHECKING:
    from carzero.errors import CARZeroError
    from carzero.model import CARZeroConfig, CARZeroModel
    from carzero.outputs import Radiograph
    from carzero.pixels import Geometry, load_radiograph
    from carzero.processing import CARZeroImageProcessor, CARZeroProcessor
    from carzero.prompts import PromptSet
    from carzero.weights import example_film
    from carzero.zeroshot import ZeroShotClassifier

__all__ = [
    "CARZeroConfig",
    "CARZeroError",
    "CARZeroImageProcessor",
    "CARZeroModel",
    "CARZeroProcessor",
    "Geometry",
    "PromptSet",
    "Radiograph",
    "ZeroShotClassifier",
    "__version__",
    "example_film",
    "load_radiograph",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
