"""CARZero: zero-shot classification of chest radiographs.

    import carzero
    classifier = carzero.ZeroShotClassifier.from_pretrained("demo")
    classifier.predict(["chest.dcm"], labels=["pneumonia", "pleural effusion"])

Importing this package loads nothing but itself; the names below load what they need on first use.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from carzero._version import __version__

_HOMES = {
    "CARZeroConfig": "carzero.model",
    "CARZeroError": "carzero.errors",
    "CARZeroImageProcessor": "carzero.processing",
    "CARZeroModel": "carzero.model",
    "CARZeroProcessor": "carzero.processing",
    "Geometry": "carzero.images",
    "PromptSet": "carzero.prompts",
    "Radiograph": "carzero.records",
    "ZeroShotClassifier": "carzero.inference.classifier",
    "example_film": "carzero.weights.source",
    "load_radiograph": "carzero.images",
}

if TYPE_CHECKING:
    from carzero.errors import CARZeroError
    from carzero.images import Geometry, load_radiograph
    from carzero.inference.classifier import ZeroShotClassifier
    from carzero.model import CARZeroConfig, CARZeroModel
    from carzero.processing import CARZeroImageProcessor, CARZeroProcessor
    from carzero.prompts import PromptSet
    from carzero.records import Radiograph
    from carzero.weights.source import example_film

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
    with warnings.catch_warnings():
        # In a notebook without ipywidgets, of bars that other packages would draw.
        warnings.filterwarnings("ignore", message="IProgress not found")
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
