"""In which precision to compute, and where: chosen by what the machine has, checked and not assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carzero.errors import ConfigurationError, describe, first_line

if TYPE_CHECKING:
    import torch

    from carzero.weights.source import WeightsSource


DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")


def check_dtype(dtype: str) -> str:
    """Returns the name of a precision.

    Raises:
        ConfigurationError: it is none of `DTYPES`.
    """
    if dtype not in DTYPES:
        raise ConfigurationError(
            describe("This precision is not known", got=dtype, expected=f"one of {', '.join(DTYPES)}")
        )
    return dtype


def resolve_dtype(
    dtype: str | torch.dtype | None, weights: WeightsSource, device: str | torch.device | None = None
) -> str:
    """Names the precision that weights are computed in.

    Args:
        dtype: one of `DTYPES`, or a torch dtype. None is float32, which gives the same numbers on every machine.
            "auto" is bfloat16 where the device computes it in hardware and the image tower is a transformer, and
            float32 otherwise: a convolutional tower gains nothing by it. Exported weights have one precision, which
            both of these take.
        weights: where they are.
        device: where to compute; None takes a GPU if there is one.

    Raises:
        ConfigurationError: an unknown precision, or device; exported weights in another precision.
        WeightsError: the weights cannot be downloaded, or were not exported by this version.
    """
    if dtype is None:
        return weights.own_dtype or "float32"
    name = check_dtype(dtype) if isinstance(dtype, str) else dtype_name(dtype)
    if weights.own_dtype is not None:
        return _exported_dtype(name, weights.own_dtype)
    if name != "auto":
        return name
    return "bfloat16" if gains_by_bfloat16(weights, device) else "float32"


def gains_by_bfloat16(weights: WeightsSource, device: str | torch.device | None = None) -> bool:
    """Whether weights are scored faster in bfloat16 on a device: what "auto" asks."""
    return weights.own_dtype is None and has_fast_bfloat16(device) and weights.is_transformer


def _exported_dtype(asked: str, own: str) -> str:
    if asked not in ("auto", own):
        raise ConfigurationError(
            describe(
                "Exported weights are computed in the precision that they were exported in",
                got=asked,
                expected=f"auto or {own}",
                then=f"export the weights again with --dtype {asked}, or leave the precision to them with --dtype auto",
            )
        )
    return own


def has_fast_bfloat16(device: str | torch.device | None = None) -> bool:
    """Whether a device multiplies bfloat16 in hardware: AMX or AVX-512 BF16 on x86, Ampere or later among GPUs."""
    import torch

    kind = choose_device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    return any(_asks_cpu(name) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))


def choose_device(device: str | torch.device | None) -> torch.device:
    """Returns the device to compute on; None takes a GPU if there is one.

    Raises:
        ConfigurationError: torch cannot use it here.
    """
    import torch

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=chosen).device
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise ConfigurationError(
            describe(
                "This device cannot be used",
                got=str(chosen),
                expected='"cpu", "cuda", or another device that torch finds here',
                then=f"choose another (torch said: {first_line(error)})",
            )
        ) from error


def to_torch_dtype(dtype: str) -> torch.dtype:
    """The torch dtype of a resolved precision.

    Raises:
        ConfigurationError: torch weights are not computed in it.
    """
    import torch

    if dtype == "int8":
        raise ConfigurationError(
            describe(
                "These weights are computed by torch, which has no maintained int8 path for them",
                got=dtype,
                expected="auto, float32, bfloat16 or float16",
                then="quantise them once with `carzero export --to openvino --dtype int8`, and use the exported folder",
            )
        )
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a torch dtype, such as "float32"."""
    return str(dtype).removeprefix("torch.")


def _asks_cpu(name: str) -> bool:
    """Asks torch for a CPU capability; the functions are private, so a torch without one counts as a no."""
    import torch

    question = getattr(torch.cpu, name, None)
    return bool(question()) if question is not None else False
