"""What commands have written, as plain values without dates and speeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

__all__ = ["arrays_of", "json_of", "rows_of", "tensors_of", "without"]

CHANGING = ("date", "images_per_s", "versions", "version", "base_url", "elapsed_s")


def without(value: Any, names: Collection[str] = CHANGING) -> Any:
    """Leaves out entries of mappings by name, at any depth."""
    if isinstance(value, Mapping):
        return {name: without(entry, names) for name, entry in value.items() if name not in names}
    return [without(entry, names) for entry in value] if isinstance(value, list) else value


def json_of(path: Path) -> Any:
    """Content of a JSON file, or of a file with a JSON object a line."""
    text = path.read_text(encoding="utf-8")
    return without([json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Rows of a score table or of a folder of parts, behind the types of a Parquet file's columns."""
    import pandas as pd
    import pyarrow.parquet as pq

    types: dict[str, str] = {}
    if path.suffix == ".json":
        frame = pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
    elif path.suffix == ".csv":
        frame = pd.read_csv(path, keep_default_na=False)
    else:
        frame = pd.read_parquet(path)
        schema = pq.read_schema(path if path.is_file() else min(path.glob("*.parquet")))
        types = {field.name: str(field.type) for field in schema}
    return [types, *json.loads(frame.to_json(orient="records", double_precision=15))]


def arrays_of(path: Path) -> dict[str, Any]:
    """Arrays of an .npz file: form, SHA-256 of the bytes, a few values; text as it is."""
    import numpy as np

    found: dict[str, Any] = {}
    with np.load(path) as arrays:
        for name in arrays.files:
            array = arrays[name]
            entry: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
            if array.dtype.kind in "fiub":
                entry["sha256"] = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
                entry["few"] = [float(v).hex() for v in array.ravel()[:: max(1, array.size // 40)]]
            else:
                entry["values"] = json.loads(json.dumps(array.tolist()))
            found[name] = entry
    return found


def tensors_of(path: Path) -> dict[str, Any]:
    """Tensors of a .safetensors file: the file's SHA-256, and of each tensor its form and mean size."""
    import numpy as np
    from safetensors.numpy import load_file

    tensors = load_file(path)
    described = {
        name: {
            "shape": list(tensor.shape),
            "mean": float(tensor.mean(dtype=np.float64)).hex(),
            "mean size": float(np.abs(tensor).mean(dtype=np.float64)).hex(),
        }
        for name, tensor in sorted(tensors.items())
    }
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "tensors": described}
