"""Export: weights in, a folder of graphs for another engine out."""

from carzero.exporting.export_run import DTYPES, ENGINES, ExportResult, ExportRun

__all__ = ["DTYPES", "ENGINES", "ExportResult", "ExportRun"]
