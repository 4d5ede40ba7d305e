"""From torch modules to ONNX files, and prompts baked into one."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carzero.core.optional import require_extra
from carzero.errors import WeightsError, describe, first_line
from carzero.inference.backends.graphs import require_openvino

OPSET = 20
_ALIGNMENT = 4096  # of numbers in a data file, so that they can be mapped into memory


def require_onnx() -> Any:
    """Returns the package onnx, once everything that writes ONNX files is there.

    Raises:
        MissingExtraError: it is not installed.
    """
    with require_extra("Exporting needs the packages onnx and onnxscript", "onnx"):
        import onnx
        import onnxscript  # noqa: F401 (torch's exporter asks for it)
    return onnx


def save_onnx(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
    path: Path,
) -> None:
    """Writes a module as an ONNX file, its numbers beside it as `PATH.data`.

    Args:
        module: in eval mode; takes the inputs in order and returns the outputs in order.
        inputs: examples by name, every dynamic size of at least 2 in them.
        outputs: names of the outputs.
        dynamic: names of the sizes that may change: input to axis to name; equal names are equal sizes.
        path: file to write.
    """
    require_onnx()
    names = {name for axes in dynamic.values() for name in axes.values()}
    sizes = {name: torch.export.Dim(name, min=1) for name in names}
    shapes = tuple({axis: sizes[name] for axis, name in dynamic.get(given, {}).items()} for given in inputs)
    with _quiet_exporter(), torch.no_grad():
        program = torch.export.export(_Positional(module).eval(), tuple(inputs.values()), dynamic_shapes=(shapes,))
        onnx_program = torch.onnx.export(
            program,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        onnx_program.save(path, external_data=True)  # type: ignore[union-attr]


def bake_onnx(path: Path, values: Mapping[str, NDArray[Any]]) -> None:
    """Turns inputs of an ONNX file into constants of the graph, in place; their numbers go to its data file."""
    onnx = require_onnx()
    model = onnx.load(path, load_external_data=False)
    kept = [given for given in model.graph.input if given.name not in values]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    data = path.with_name(f"{path.name}.data")
    with data.open("ab") as file:
        for name, value in values.items():
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            content = np.ascontiguousarray(value).tobytes()
            tensor = onnx.numpy_helper.from_array(value[:0], name)
            tensor.dims[:] = value.shape
            tensor.raw_data = content
            onnx.external_data_helper.set_external_data(tensor, data.name, file.tell(), len(content))
            tensor.ClearField("raw_data")
            file.write(content)
            model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())


class _Positional(nn.Module):
    """Gives every module one signature, because torch wants the sizes nested as the parameters are."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Any:
        """Hands the inputs on."""
        return self.module(*inputs)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keeps the exporter's notes, meant for its developers, off the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


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

    The image tower becomes int8, and so does what else depends on images alone. What depends on prompts stays in
    float32: errors there go straight into the scores.

    Args:
        model: in float32, the prompts' tensors among its inputs.
        samples: inputs by name; activations take their ranges from them.

    Raises:
        WeightsError: NNCF cannot quantise this model.
    """
    nncf = require_nncf()
    try:
        with _quiet_nncf():
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
                got=first_line(error),
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
    with require_extra("int8 needs the package nncf", "fast"), _quiet_nncf():
        import nncf
        import nncf.common.logging
    return nncf


def _behind_prompts(model: Any) -> list[str]:
    """Names of the operations that depend on a prompt: every one that an input other than the images reaches."""
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
def _quiet_nncf() -> Iterator[None]:
    """Keeps NNCF's bars and notes off stdout, which belongs to results."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
