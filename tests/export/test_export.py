"""Exported weights: the torch model's scores, from a folder that is whole, its own, and refuses to be anything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from carzero.errors import ConfigurationError, MissingExtraError, OutputError, PromptError, WeightsError
from carzero.export import ExportRun
from carzero.inference.backends import ExportedBackend, OnnxBackend, OpenVINOBackend, load_backend
from carzero.inference.classifier import ZeroShotClassifier
from carzero.model.alignment import ALIGNMENTS, ExportableAlignment
from carzero.weights.export_manifest import load_manifest
from carzero.weights.source import WeightsSource
from tests.support.exports import BAKED, export, remember_graphs
from tests.support.tiny import KINDS, VIT, save_tiny_weights

for package in ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"):
    pytest.importorskip(package, reason=f"needs the package {package} (extra test)")

LABELS = ["pneumonia", "pleural effusion", "edema"]


@pytest.fixture(scope="module", autouse=True)
def _graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        remember_graphs(tmp_path_factory.mktemp("graphs"), patch)
        yield


@pytest.fixture(scope="module")
def onnx_folder(tiny_weights: Path, films: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tiny_weights, tmp_path_factory.mktemp("exports") / "onnx", "onnx", films).folder


@pytest.fixture(scope="module")
def openvino_folder(tiny_weights: Path, films: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tiny_weights, tmp_path_factory.mktemp("exports") / "openvino", "openvino", films).folder


@pytest.fixture(params=["onnx", "openvino"])
def exported(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(f"{request.param}_folder")
    return folder


def logits(classifier: ZeroShotClassifier, films: list[Path], **options: object) -> np.ndarray:
    table = classifier.predict(films, **({"labels": LABELS} | options))  # type: ignore[arg-type]
    return table[[name for name in table.columns if name.startswith("logit:")]].to_numpy(float)


def test_scores_are_the_torch_models(exported: Path, classifier: ZeroShotClassifier, films: list[Path]) -> None:
    loaded = ZeroShotClassifier.from_pretrained(exported)
    assert isinstance(loaded.backend, {"onnx": OnnxBackend, "openvino": OpenVINOBackend}[exported.name])
    wanted = logits(classifier, films)
    assert wanted.std(axis=0).min() > 0.01, "films must differ, or equal scores prove nothing"
    np.testing.assert_allclose(logits(loaded, films), wanted, atol=1e-5)


def test_maps_and_peaks_are_the_torch_models(exported: Path, classifier: ZeroShotClassifier, films: list[Path]) -> None:
    loaded = ZeroShotClassifier.from_pretrained(exported)
    for ours, theirs in zip(
        loaded.ground(films[0], labels=LABELS), classifier.ground(films[0], labels=LABELS), strict=True
    ):
        np.testing.assert_allclose(ours.heatmap, theirs.heatmap, atol=1e-6)
        assert ours.peak == theirs.peak


def test_rows_do_not_depend_on_the_batch(exported: Path, films: list[Path]) -> None:
    loaded = ZeroShotClassifier.from_pretrained(exported)
    together = logits(loaded, films, batch_size=7)
    np.testing.assert_allclose(logits(loaded, films, batch_size=1), together, atol=1e-5)
    np.testing.assert_allclose(logits(loaded, films, batch_size=3), together, atol=1e-5)


def test_one_prompt_many_prompts_and_long_ones(
    exported: Path, classifier: ZeroShotClassifier, films: list[Path]
) -> None:
    loaded = ZeroShotClassifier.from_pretrained(exported)
    # Fills every position the text tower has, so that there is no padding to collapse.
    long = "There is a " + " ".join(["small"] * 16) + " effusion"
    for asked in ({"one": ["There is edema"]}, {"a": [long, "No effusion"], "b": ["There is edema"]}):
        np.testing.assert_allclose(
            logits(loaded, films, labels=None, prompts=asked),
            logits(classifier, films, labels=None, prompts=asked),
            atol=1e-5,
        )
    many = [f"finding number {word}" for word in range(70)]  # more than are encoded at once
    np.testing.assert_allclose(
        logits(loaded, films[:2], labels=many), logits(classifier, films[:2], labels=many), atol=1e-5
    )


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_baked_prompts_score_as_asked_ones(
    engine: str, tiny_weights: Path, classifier: ZeroShotClassifier, films: list[Path], tmp_path: Path
) -> None:
    result = export(tiny_weights, tmp_path / "baked", engine, films, prompt_set=BAKED)
    assert result.manifest.prompts == {"edema": ["There is edema"], "pneumonia": ["There is pneumonia"]}
    assert result.manifest.prompts_sha256 == BAKED.hash
    assert not list((tmp_path / "baked").glob("prompts.*")), "no text tower is left"
    loaded = ZeroShotClassifier.from_pretrained(tmp_path / "baked")
    for labels in (["edema", "pneumonia"], ["pneumonia"], ["pneumonia", "edema"]):
        np.testing.assert_allclose(
            logits(loaded, films, labels=labels), logits(classifier, films, labels=labels), atol=1e-5
        )
    with pytest.raises(PromptError, match=r"baked in.*'There is effusion'.*without --prompts"):
        loaded.predict(films, labels=["effusion"])


def is_exportable(kind: dict[str, Any]) -> bool:
    return issubclass(ALIGNMENTS[kind["alignment"]], ExportableAlignment)


@pytest.mark.parametrize(
    "changes",
    [
        {"mask_padding": True, "decoder_layers": 1},  # SimR; the tests above export it as it is
        *(kind for name, kind in KINDS.items() if name != "simr" and is_exportable(kind)),
    ],
    ids=str,
)
def test_padding_left_out_and_every_alignment_too(changes: dict[str, Any], films: list[Path], tmp_path: Path) -> None:
    weights = save_tiny_weights(
        tmp_path / "weights", vision_config={"model_type": "vit", **VIT, "num_hidden_layers": 1}, **changes
    )
    ours = ZeroShotClassifier.from_pretrained(export(weights, tmp_path / "out", "onnx", films).folder)
    theirs = ZeroShotClassifier.from_pretrained(weights, dtype="float32", device="cpu")
    np.testing.assert_allclose(logits(ours, films), logits(theirs, films), atol=1e-5)
    np.testing.assert_allclose(
        ours.ground(films[0], labels=LABELS)[0].heatmap,
        theirs.ground(films[0], labels=LABELS)[0].heatmap,
        atol=1e-6 if theirs.backend.map_kind.scale is None else 1e-5,  # on a fixed scale they are as large as logits
    )
    assert ours.backend.map_kind == theirs.backend.map_kind


def test_int8_is_small_near_and_measured_on_other_films(
    tiny_weights: Path, classifier: ZeroShotClassifier, films: list[Path], tmp_path: Path
) -> None:
    result = export(tiny_weights, tmp_path / "int8", "openvino", films, dtype="int8")
    accuracy, calibration = result.manifest.accuracy, result.manifest.calibration
    assert accuracy is not None
    assert calibration is not None
    assert (accuracy.pictures, calibration.pictures) == (2, 5)
    assert 0 < accuracy.largest_logit_difference < 0.3
    graph = (tmp_path / "int8" / "scoring.xml").read_text()
    assert "FakeQuantize" in graph
    loaded = ZeroShotClassifier.from_pretrained(tmp_path / "int8")
    assert loaded.dtype == "int8"
    assert np.corrcoef(logits(loaded, films).ravel(), logits(classifier, films).ravel())[0, 1] > 0.9


def test_manifest_says_what_the_folder_is(openvino_folder: Path, tiny_weights: Path) -> None:
    manifest = load_manifest(openvino_folder)
    assert (manifest.engine, manifest.dtype, manifest.prompts) == ("openvino", "float32", None)
    assert manifest.source.sha256 == WeightsSource(tiny_weights).sha256 != WeightsSource(openvino_folder).sha256
    assert manifest.source.weights == "tiny"
    assert manifest.accuracy is not None
    assert manifest.accuracy.largest_logit_difference < 1e-5
    assert {"torch", "openvino", "onnx"} <= manifest.versions.keys()
    assert {path.name for path in openvino_folder.iterdir()} == {*manifest.files, "export.json"}
    assert not list(openvino_folder.glob("*.safetensors"))
    assert len({path.stat().st_mode for path in openvino_folder.iterdir()}) == 1


@pytest.mark.parametrize("name", ["scoring.xml", "scoring.bin", "prompts.bin", "tokenizer.json"])
def test_changed_files_are_refused(name: str, openvino_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(openvino_folder, tmp_path / "copy")
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(WeightsError, match=rf"{name}.*SHA-256.*export the weights again|{name}.*SHA-256"):
        load_backend(WeightsSource(folder))


def test_missing_files_and_links_are_refused(openvino_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(openvino_folder, tmp_path / "copy")
    (folder / "scoring.bin").rename(tmp_path / "elsewhere.bin")
    with pytest.raises(WeightsError, match=r"scoring\.bin.*no such file"):
        load_backend(WeightsSource(folder))
    (folder / "scoring.bin").symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(WeightsError, match=r"scoring\.bin.*a link"):
        load_backend(WeightsSource(folder))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "format"),
        ({"engine": "pickle"}, "engine"),
        ({"surprise": 1}, "surprise"),
        ({"files": {}}, "not listed"),
        ({"files": {"../scoring.onnx": "0"}}, "not listed|outside"),
    ],
)
def test_other_manifests_are_refused(change: dict[str, object], reason: str, onnx_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(onnx_folder, tmp_path / "copy")
    manifest = json.loads((folder / "export.json").read_bytes())
    (folder / "export.json").write_text(json.dumps(manifest | change))
    with pytest.raises(WeightsError, match=reason):
        load_backend(WeightsSource(folder))
    (folder / "export.json").write_text("{" * 10)
    with pytest.raises(WeightsError, match=r"export\.json"):
        load_backend(WeightsSource(folder))


def test_graph_that_asks_for_files_outside_is_refused(onnx_folder: Path, tmp_path: Path) -> None:
    import onnx

    folder = shutil.copytree(onnx_folder, tmp_path / "copy")
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1 << 20))
    graph = onnx.load(folder / "scoring.onnx", load_external_data=False)
    tensor = next(tensor for tensor in graph.graph.initializer if tensor.external_data)
    next(entry for entry in tensor.external_data if entry.key == "location").value = "../secret"
    (folder / "scoring.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(WeightsError, match=r"another file.*secret.*Do not use"):
        OnnxBackend(folder, load_manifest(folder))


def test_graph_that_is_none_is_refused(onnx_folder: Path, openvino_folder: Path, tmp_path: Path) -> None:
    for source, name, backend in (
        (onnx_folder, "scoring.onnx", OnnxBackend),
        (openvino_folder, "scoring.xml", OpenVINOBackend),
    ):
        folder = shutil.copytree(source, tmp_path / source.name)
        (folder / name).write_bytes(b"no graph")
        with pytest.raises(WeightsError, match=f"{name} cannot be loaded"):
            backend(folder, load_manifest(folder))


def test_other_precision_or_device_is_refused(openvino_folder: Path) -> None:
    assert ZeroShotClassifier.from_pretrained(openvino_folder, dtype="float32").dtype == "float32"
    with pytest.raises(ConfigurationError, match=r"'int8'; expected auto or float32.*--dtype int8"):
        ZeroShotClassifier.from_pretrained(openvino_folder, dtype="int8")
    with pytest.raises(ConfigurationError, match="on the CPU"):
        load_backend(WeightsSource(openvino_folder), device="meta")


def test_machine_without_bfloat16_is_told(openvino_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    class OldMachine:
        def get_property(self, device: str, name: str) -> object:
            return ["FP32", "INT8"] if name == "OPTIMIZATION_CAPABILITIES" else "An old machine"

    manifest = load_manifest(openvino_folder).model_copy(update={"dtype": "bfloat16"})
    monkeypatch.setattr(openvino, "Core", OldMachine)
    with pytest.raises(ConfigurationError, match=r"does not compute bfloat16.*An old machine.*float32 or int8"):
        OpenVINOBackend(openvino_folder, manifest)


def test_exported_weights_are_no_torch_model(openvino_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no torch model"):
        WeightsSource(openvino_folder).load_model()
    with pytest.raises(WeightsError, match="no torch model"):
        ExportRun(WeightsSource(openvino_folder), "onnx", tmp_path / "again").execute()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"engine": "tflite"}, "onnx or openvino"),
        ({"engine": "onnx", "dtype": "int8"}, "expected float32.*openvino"),
        ({"engine": "openvino", "dtype": "float16"}, "float32 or bfloat16 or int8"),
        ({"engine": "openvino", "dtype": "int8"}, "--calibration"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, str], reason: str, tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        ExportRun(WeightsSource(tiny_weights), out=tmp_path / "out", **settings).execute()
    assert not list(tmp_path.iterdir())


def test_folders_of_others_stay(tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        ExportRun(WeightsSource(tiny_weights), "onnx", tmp_path).execute()
    with pytest.raises(OutputError, match=r"notes\.txt"):
        ExportRun(WeightsSource(tiny_weights), "onnx", tmp_path, overwrite=True).execute()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_broken_off_export_leaves_nothing(
    error: type[BaseException], tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("carzero.export.writer.save_onnx", break_off)
    with pytest.raises((KeyboardInterrupt, OutputError)):
        ExportRun(WeightsSource(tiny_weights), "openvino", tmp_path / "out").execute()
    assert not list(tmp_path.iterdir())


def test_wrong_scores_stop_the_export(
    tiny_weights: Path, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = ExportedBackend.score

    def wrong(self: ExportedBackend, *arguments: object) -> object:
        right = score(self, *arguments)  # type: ignore[arg-type]
        return right._replace(scores=right.scores + 0.01)

    monkeypatch.setattr(ExportedBackend, "score", wrong)
    with pytest.raises(WeightsError, match=r"does not give the torch model's scores.*0\.01"):
        export(tiny_weights, tmp_path / "out", "onnx", films[:2], prompt_set=BAKED)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "settings", "extra"),
    [
        ("onnx", {"engine": "onnx"}, "onnx"),
        ("onnxruntime", {"engine": "onnx"}, "onnx"),
        ("openvino", {"engine": "openvino"}, "fast"),
    ],
)
def test_missing_package_names_its_extra(
    package: str,
    settings: dict[str, str],
    extra: str,
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'\.\[{extra}\]'"):
        ExportRun(WeightsSource(tiny_weights), out=tmp_path / "out", **settings).execute()
    assert not list(tmp_path.iterdir())


def test_encoded_prompts_of_exported_weights_are_not_saved(openvino_folder: Path, tmp_path: Path) -> None:
    loaded = ZeroShotClassifier.from_pretrained(openvino_folder)
    with pytest.raises(PromptError, match="carzero export --prompts"):
        loaded.save_prompts(loaded.encode_prompts(BAKED), tmp_path / "bank")


def test_seeds_and_threads_stay_as_they_were(openvino_folder: Path) -> None:
    before = torch.random.get_rng_state(), torch.get_num_threads()
    load_backend(WeightsSource(openvino_folder))
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == torch.get_num_threads()
