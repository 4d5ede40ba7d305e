"""Results where the radiologist works: scores and maps as DICOM objects, and a node beside the PACS.

Needs the extra `clinical`, except for `import`.
"""

from carzero.clinical.content import ResultSettings
from carzero.clinical.image_header import SourceImage, load_source
from carzero.clinical.result_objects import DEFAULT_KINDS, KINDS, build_results, list_results

__all__ = [
    "DEFAULT_KINDS",
    "KINDS",
    "ResultSettings",
    "SourceImage",
    "build_results",
    "list_results",
    "load_source",
]
