"""From ONNX files to OpenVINO's own, and to int8."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from carzero.backends.graphs import require_openvino
from carzero.errors import MissingExtraError, WeightsError, describe

__all__ = ["bake_openvino", "quantise", "read_onnx", "require_nncf", "save_openvino"]


def read_onnx(path: Path) -> Any:
    """Reads an ONNX file as an OpenVINO model.

    `openvino.convert_model` would do the same, and send usage statistics.
    """
    return require_openvino().Core().read_model(path)


def save_openvino(model: Any, path: Path) -> None:
    """Writes an OpenVINO model as `path` (.xml) and a .bin beside it, its numbers as they are."""
    require_openvino().save_model(model, path, compress_to_fp16=False)


def bake_openvino(model: Any, values: Mapping[str, NDArray[Any]]) -> None:
    """Turns inputs of an OpenVINO model into constants, in place."""
    constant = require_openvino().opset13.constant
    for parameter in list(model.get_parameters()):
        for name in parameter.output(0).get_names() & values.keys():
            parameter.output(0).replace(constant(values[name]).output(0))
            model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()


def quantise(model: Any, samples: Sequence[Mapping[str, NDArray[Any]]]) -> Any:
    """Returns an OpenVINO model in int8, by NNCF's post-training quantisation for transformers.

    The image tower becomes int8, and so does what else depends on pictures alone. What depends on prompts stays in
    float32: errors there go straight into the scores.

    Args:
        model: in float32, the prompts' tensors among its inputs.
        samples: inputs by name; activations take their ranges from them.

    Raises:
        WeightsError: NNCF cannot quantise this model.
    """
    nncf = require_nncf()
    try:
        with _quiet():
            return nncf.quantize(
                model,
                nncf.Dataset(samples),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(samples),
                ignored_scope=nncf.IgnoredScope(names=_behind_prompts(model), validate=False),
            )
    except Exception as error:  # NNCF raises many kinds; all mean the same to the user
        raise WeightsError(
            describe(
                "NNCF cannot quantise this model",
                got=(str(error).strip().splitlines() or [type(error).__name__])[0],
                expected="a graph whose operations it knows",
                then="export in bfloat16 or float32",
            )
        ) from error


def require_nncf() -> Any:
    """Returns the package nncf, told to send no usage statistics.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")  # it has no other switch, and it is read at import
    try:
        with _quiet():
            import nncf
            import nncf.common.logging
    except ImportError as error:
        raise MissingExtraError(
            describe("int8 needs the package nncf", then="install the extra: pip install 'carzero[fast]'")
        ) from error
    return nncf


def _behind_prompts(model: Any) -> list[str]:
    """Names of the operations that depend on a prompt: every one that an input other than the pictures reaches."""
    reached: set[str] = set()
    for operation in model.get_ordered_ops():
        if operation.get_type_name() == "Parameter":
            hit = "pixel_values" not in operation.output(0).get_names()
        else:
            sources = (value.get_source_output().get_node().get_friendly_name() for value in operation.inputs())
            hit = any(name in reached for name in sources)
        if hit:
            reached.add(operation.get_friendly_name())
    return sorted(reached)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps NNCF's bars and notes off stdout, which belongs to results."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
