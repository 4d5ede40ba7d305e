"""Which precision is chosen, and that a resumed run keeps its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from carzero.core.run_record import recorded_setting
from carzero.errors import ConfigurationError, WeightsError
from carzero.inference.classifier import ZeroShotClassifier
from carzero.inference.scoring import ScoringSettings
from carzero.prompts import PromptSet
from carzero.weights.precision import choose_device, gains_by_bfloat16, has_fast_bfloat16, resolve_dtype, to_torch_dtype
from carzero.weights.source import WeightsSource


@pytest.mark.parametrize(("fast", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_auto_asks_the_machine_and_the_tower(
    fast: bool, chosen: str, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carzero.weights.precision.has_fast_bfloat16", lambda device: fast)
    assert resolve_dtype("auto", WeightsSource(tiny_weights)) == chosen
    assert resolve_dtype("auto", WeightsSource("demo")) == "float32", "its tower is convolutional"
    assert ZeroShotClassifier.from_pretrained(tiny_weights, device="cpu", dtype="auto").dtype == chosen
    assert gains_by_bfloat16(WeightsSource(tiny_weights)) is fast
    assert not gains_by_bfloat16(WeightsSource("demo"))
    assert resolve_dtype(None, WeightsSource(tiny_weights)) == "float32", "the default asks no machine"
    assert ZeroShotClassifier.from_pretrained(tiny_weights, device="cpu").dtype == "float32"
    for given in ("float32", "bfloat16", "float16", "int8"):
        assert resolve_dtype(given, WeightsSource(tiny_weights)) == given
    assert resolve_dtype(torch.float16, WeightsSource(tiny_weights)) == "float16"


@pytest.mark.parametrize("capability", ["_is_amx_tile_supported", "_is_avx512_bf16_supported"])
def test_the_processor_is_asked(capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == capability, raising=False)
    assert has_fast_bfloat16("cpu")
    monkeypatch.setattr(torch.cpu, capability, lambda: False)
    assert not has_fast_bfloat16("cpu")
    monkeypatch.delattr(torch.cpu, capability)
    assert not has_fast_bfloat16("cpu"), "a torch that cannot tell counts as a no"


def test_what_cannot_be_had_is_refused(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carzero.weights.precision.has_fast_bfloat16", lambda device: True)
    with pytest.raises(ConfigurationError, match="precision is not known; got 'half'"):
        resolve_dtype("half", WeightsSource(tiny_weights))
    with pytest.raises(ConfigurationError, match="carzero export --to openvino --dtype int8"):
        to_torch_dtype("int8")
    with pytest.raises(WeightsError, match="No weights are found"):
        resolve_dtype("auto", WeightsSource(tiny_weights / "nowhere"))


def test_a_resumed_run_keeps_its_precision(tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    asked = PromptSet.from_labels(["edema"])

    def dtype(wish: str | None, resumed: Path | None) -> str:
        settings = ScoringSettings(WeightsSource(tiny_weights), asked, dtype=wish, device="cpu")
        return str(settings.provenance(resumed).dtype)

    out.with_name("scores.csv.journal").write_text(json.dumps({"run": {"dtype": "float16"}}) + "\n")
    assert dtype("auto", out) == dtype(None, out) == "float16"
    assert dtype("float32", out) == "float32", "which the journal then refuses"
    assert dtype("auto", None) in ("float32", "bfloat16")
    out.with_name("scores.csv.journal").write_text("no journal")
    assert recorded_setting(out, "dtype") is None
    out.with_name("scores.csv.journal").unlink()
    assert recorded_setting(out, "dtype") is None


def test_a_device_that_fails_without_a_word_is_refused_by_its_errors_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(ConfigurationError, match="torch said: AssertionError"):
        choose_device("cuda")
