"""Official releases as training tables: one file a release, each from its own layout to rows for `load_pairs`."""

from carzero.data.sources.folder import import_folder
from carzero.data.sources.mimic_cxr import import_mimic_cxr
from carzero.data.sources.openi import import_openi
from carzero.data.sources.records import ImportReport

__all__ = ["ImportReport", "import_folder", "import_mimic_cxr", "import_openi"]
