"""Official releases as training tables: one file a release, each from its own layout to rows for `load_pairs`."""

from carzero.datasets.base import ImportReport
from carzero.datasets.folder import import_folder
from carzero.datasets.mimic_cxr import import_mimic_cxr
from carzero.datasets.openi import import_openi

__all__ = ["ImportReport", "import_folder", "import_mimic_cxr", "import_openi"]
