"""Export: weights in, a folder of graphs for another engine out."""

from carzero.export.run import DTYPES, ENGINES, ExportResult, ExportRun

__all__ = ["DTYPES", "ENGINES", "ExportResult", "ExportRun"]
