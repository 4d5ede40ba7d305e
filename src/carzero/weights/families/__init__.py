"""Families of weights by the `model_type` of their config.json. A new one is a file here and a line in `FAMILIES`."""

from carzero.weights.families.base import Family
from carzero.weights.families.biovil import BiovilFamily
from carzero.weights.families.carzero import CARZeroFamily
from carzero.weights.families.chexzero import ChexzeroFamily
from carzero.weights.families.dual import ClipFamily, SiglipFamily

__all__ = ["CARZERO", "FAMILIES", "Family"]

CARZERO = "carzero"

FAMILIES: dict[str, Family] = {
    CARZERO: CARZeroFamily(),
    "clip": ClipFamily(),
    "siglip": SiglipFamily(),
    "chexzero": ChexzeroFamily(),
    "biovil": BiovilFamily(),
}
