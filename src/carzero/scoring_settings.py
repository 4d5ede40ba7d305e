"""What scores depend on, as it stands in every run's record, so that rows of different runs are never mixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from carzero.data.recorded import recorded_setting
from carzero.precision import resolve_dtype
from carzero.prompts import PromptSet
from carzero.weights import hash_weights, load_preprocessing

__all__ = ["scoring_settings"]


def scoring_settings(
    weights: str,
    prompt_set: PromptSet,
    *,
    dtype: str,
    device: str | None,
    pool: str,
    force: bool,
    resumed: Path | None,
) -> dict[str, Any]:
    """What the scores of a run depend on, beside the pictures.

    Args:
        weights: their name.
        prompt_set: what is asked.
        dtype: precision asked for, see `carzero.precision.DTYPES`.
        device: where to compute; None takes a GPU if there is one.
        pool: how the logits of a label's prompts become one.
        force: whether pictures that are no chest radiographs are scored too.
        resumed: output of the run that goes on, or None. Without a wish it keeps its precision, whatever this machine
            would choose.

    Returns:
        plain values.

    Raises:
        WeightsError: the weights are not found.
        ConfigurationError: an unknown precision or device.
    """
    from carzero import __version__

    recorded = recorded_setting(resumed, "dtype") if resumed is not None and dtype == "auto" else None
    return {
        "carzero_version": __version__,
        "weights_sha256": hash_weights(weights),
        "preprocessing": load_preprocessing(weights),
        "prompts_sha256": prompt_set.hash,
        "dtype": str(recorded or resolve_dtype(dtype, weights, device)),
        "pool": pool,
        "force": force,
    }
