"""Alignments: how an image and a text become a score. A new kind is a file here and a line in `ALIGNMENTS`."""

from carzero.errors import ConfigurationError, describe
from carzero.model.alignment.base import (
    Alignment,
    AlignmentConfig,
    AlignmentOptions,
    ExportableAlignment,
    GraphTensor,
    ScoringTexts,
)
from carzero.model.alignment.cosine import CosineAlignment
from carzero.model.alignment.similarity_map import SimilarityMapAlignment
from carzero.model.alignment.simr import SimilarityAlignment

__all__ = [
    "ALIGNMENTS",
    "Alignment",
    "AlignmentConfig",
    "AlignmentOptions",
    "ExportableAlignment",
    "GraphTensor",
    "ScoringTexts",
    "find_alignment",
]

ALIGNMENTS: dict[str, type[Alignment]] = {
    "simr": SimilarityAlignment,
    "cosine": CosineAlignment,
    "similarity_map": SimilarityMapAlignment,
}


def find_alignment(kind: str) -> type[Alignment]:
    """Finds the class of an alignment by the name that configurations give it.

    Raises:
        ConfigurationError: there is no such kind.
    """
    if kind not in ALIGNMENTS:
        raise ConfigurationError(
            describe(
                "alignment is not known",
                got=kind,
                expected=f"one of {', '.join(ALIGNMENTS)}",
                then="correct alignment in the configuration",
            )
        )
    return ALIGNMENTS[kind]
