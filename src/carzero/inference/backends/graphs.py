"""The graphs of an exported folder, loaded into the engine that they were written for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from carzero.core.optional import require_extra
from carzero.errors import ConfigurationError, WeightsError, describe, first_line
from carzero.weights.export_manifest import GRAPH_SUFFIXES

Arrays = Mapping[str, NDArray[np.generic]]

# What OpenVINO calls our precisions. An int8 graph computes in float32 what is not quantised.
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


class Graph(Protocol):
    """A loaded graph."""

    def run(self, inputs: Arrays, outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """Computes some of the outputs, and nothing that they do not need."""


class OnnxGraph:
    """A graph in ONNX Runtime, on the CPU."""

    def __init__(self, session: Any, options: Any) -> None:
        self._session = session
        self._options = options

    def run(self, inputs: Arrays, outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """See `Graph.run`."""
        computed: list[NDArray[np.float32]] = self._session.run(list(outputs), dict(inputs), self._options)
        return computed


class OpenVINOGraph:
    """A graph in OpenVINO, on the CPU; compiled once for each set of outputs."""

    def __init__(self, core: Any, path: Path, settings: Mapping[str, Any]) -> None:
        self._core = core
        self._path = path
        self._settings = dict(settings)
        self._compiled: dict[tuple[str, ...], Any] = {}

    def run(self, inputs: Arrays, outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """See `Graph.run`."""
        wanted = tuple(outputs)
        if wanted not in self._compiled:
            self._compiled[wanted] = self._compile(wanted)
        computed = self._compiled[wanted](dict(inputs), share_inputs=True)
        return [computed[name] for name in wanted]

    def _compile(self, outputs: Sequence[str]) -> Any:
        model = self._core.read_model(self._path)
        for result in list(model.get_results()):
            if not result.input(0).get_source_output().get_names() & set(outputs):
                model.remove_result(result)
        return self._core.compile_model(model, "CPU", self._settings).create_infer_request().infer


def load_onnx_graph(path: Path) -> OnnxGraph:
    """Loads an ONNX file into ONNX Runtime.

    Args:
        path: the file; its numbers lie in `PATH.data` and nowhere else.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        WeightsError: the file is not such a graph, or asks for data outside its own data file.
    """
    onnx, onnxruntime = require_onnxruntime()
    try:
        _check_locations(onnx.load(path, load_external_data=False), path)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        settings.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    except WeightsError:
        raise
    except Exception as error:  # both packages raise many kinds; all mean the same to the user
        raise _no_graph(path, error) from error
    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    return OnnxGraph(session, options)


def load_openvino_graph(path: Path, dtype: str) -> OpenVINOGraph:
    """Loads a graph into OpenVINO.

    Args:
        path: the .xml file; its numbers lie beside it in a .bin of the same name.
        dtype: "float32", "bfloat16" or "int8".

    Raises:
        MissingExtraError: OpenVINO is not installed.
        ConfigurationError: this machine does not compute bfloat16.
        WeightsError: the file is not such a graph.
    """
    core = require_openvino().Core()
    if dtype == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ConfigurationError(
            describe(
                "This machine does not compute bfloat16 in hardware",
                got=core.get_property("CPU", "FULL_DEVICE_NAME"),
                expected="AVX-512 BF16 or AMX",
                then="use weights exported in float32 or int8",
            )
        )
    settings = {"INFERENCE_PRECISION_HINT": _HINTS[dtype], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    try:
        core.read_model(path)
    except Exception as error:  # as above
        raise _no_graph(path, error) from error
    return OpenVINOGraph(core, path, settings)


def require_onnxruntime() -> tuple[Any, Any]:
    """Returns the packages onnx and onnxruntime.

    Raises:
        MissingExtraError: one is not installed.
    """
    with require_extra("This needs the packages onnx and onnxruntime", "onnx"):
        import onnx
        import onnxruntime
    return onnx, onnxruntime


def require_openvino() -> Any:
    """Returns the package openvino.

    Raises:
        MissingExtraError: it is not installed.
    """
    with require_extra("This needs the package openvino", "fast"):
        import openvino
    return openvino


def _check_locations(model: Any, path: Path) -> None:
    """Refuses a graph whose tensors point to anything but its own data file.

    Raises:
        WeightsError: one does.
    """
    allowed = path.name.removesuffix(GRAPH_SUFFIXES["onnx"][0]) + GRAPH_SUFFIXES["onnx"][1]
    for location in _locations(model):
        if location != allowed:
            raise WeightsError(
                describe(
                    f"{path} asks for numbers from another file",
                    got=location,
                    expected=allowed,
                    then="do not use this folder; export the weights again",
                )
            )


def _locations(message: Any) -> Iterator[str]:
    """Every external location in an ONNX message: of any tensor, wherever it hides (subgraphs, functions, sparse)."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield from (entry.value for entry in message.external_data if entry.key == "location")
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            inner = value if _is_repeated(value) else (value,)
            yield from itertools.chain.from_iterable(map(_locations, inner))


def _is_repeated(value: Any) -> bool:
    return not hasattr(value, "DESCRIPTOR")


def _no_graph(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        describe(
            f"{path} cannot be loaded",
            got=first_line(error),
            expected="a graph that `carzero export` wrote",
            then="export the weights again with this version of the package",
        )
    )
