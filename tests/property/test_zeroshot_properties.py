"""What must hold at the one door to prediction, whatever is asked of whichever images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from carzero import Radiograph, ZeroShotClassifier, load_radiograph
from carzero.errors import ConfigurationError, PromptError, TableError, UnreadableImageError, WeightsError
from carzero.inference.score_table import KEY_COLUMNS
from carzero.model.alignment.simr_scoring import SimilarityScorer
from carzero.prompts import PromptSet
from carzero.records import FailedImage, ImageItem, ScoredImage
from tests.support.tiny import MAX_TEXT, logits_of

LABELS = ["pneumonia", "pleural effusion", "edema", "cardiomegaly", "no finding"]
TOLERANCE = 1e-5
few = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def near(a: Any, b: Any) -> bool:
    return bool(np.allclose(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64), atol=TOLERANCE, rtol=0))


def matrix(table: pd.DataFrame) -> np.ndarray:
    """(images, labels)."""
    return np.array(list(logits_of(table).values())).T


@pytest.fixture(scope="module")
def table(classifier: ZeroShotClassifier, films: list[Path]) -> pd.DataFrame:
    return classifier.predict(films, labels=LABELS)


def test_a_table_names_everything(table: pd.DataFrame, films: list[Path]) -> None:
    assert list(table.columns) == [*KEY_COLUMNS, *(f"logit:{label}" for label in LABELS), "warnings"]
    assert table["image_id"].tolist() == [film.name for film in films]
    assert table["path"].tolist() == [str(film) for film in films]
    assert table.attrs["failures"] == []
    assert np.isfinite(matrix(table)).all()
    assert (matrix(table).std(axis=0) > 1e-3).all(), "pictures that all score alike test nothing"
    assert (matrix(table).std(axis=1) > 1e-3).all(), "labels that all score alike test nothing"


@few
@given(order=st.permutations(range(7)), batch_size=st.integers(1, 8))
def test_the_order_of_images_permutes_rows_only(
    order: list[int], batch_size: int, classifier: ZeroShotClassifier, films: list[Path], table: pd.DataFrame
) -> None:
    shuffled = classifier.predict([films[i] for i in order], labels=LABELS, batch_size=batch_size)
    assert shuffled["image_id"].tolist() == [films[i].name for i in order]
    assert near(matrix(shuffled), matrix(table)[order])


def test_a_row_alone_is_its_row_in_a_batch(
    classifier: ZeroShotClassifier, films: list[Path], table: pd.DataFrame
) -> None:
    for index, film in enumerate(films):
        assert near(matrix(classifier.predict(film, labels=LABELS))[0], matrix(table)[index])


@few
@given(asked=st.lists(st.sampled_from(LABELS), min_size=1, unique=True))
def test_order_and_number_of_labels_change_no_score(
    asked: list[str], classifier: ZeroShotClassifier, films: list[Path], table: pd.DataFrame
) -> None:
    part = classifier.predict(films[:2], labels=asked)
    assert list(logits_of(part)) == asked
    for label in asked:
        assert near(logits_of(part)[label], logits_of(table)[label][:2])


def test_more_prompts_than_fit_at_once_change_no_score(
    classifier: ZeroShotClassifier, films: list[Path], table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carzero.inference.prompt_bank._TEXTS_AT_ONCE", 2)
    assert near(matrix(classifier.predict(films, labels=LABELS)), matrix(table))


@pytest.mark.parametrize(("pool", "join"), [("mean", np.mean), ("max", np.max)])
def test_several_prompts_are_joined_as_logits(
    pool: Any, join: Any, classifier: ZeroShotClassifier, films: list[Path]
) -> None:
    sentences = ["There is edema", "The lungs are congested", "There is fluid in the lungs"]
    apart = classifier.predict(films, prompts={sentence: sentence for sentence in sentences})
    together = classifier.predict(
        films, prompts={"one": "There is one", "edema": sentences, "two": ["There is two"]}, pool=pool
    )
    assert near(together["logit:edema"], join(matrix(apart), axis=1))
    assert near(together["logit:one"], classifier.predict(films, prompts={"x": "There is one"})["logit:x"])


def test_prompt_sets_and_mappings_and_labels_ask_the_same(
    classifier: ZeroShotClassifier, films: list[Path], table: pd.DataFrame
) -> None:
    by_set = classifier.predict(films, prompts=PromptSet.from_labels(LABELS))
    by_mapping = classifier.predict(films, prompts={label: f"There is {label}" for label in LABELS})
    assert near(matrix(by_set), matrix(table))
    assert near(matrix(by_mapping), matrix(table))
    one = classifier.predict(films[0], labels="edema")
    assert near(one["logit:edema"], table["logit:edema"][:1])
    asked = classifier.predict(films[0], labels=["edema"], template="The film shows {label}")
    assert not near(asked["logit:edema"], one["logit:edema"])


def test_saved_and_loaded_scores_alike(
    classifier: ZeroShotClassifier, films: list[Path], table: pd.DataFrame, tmp_path: Path, tiny_weights: Path
) -> None:
    classifier.model.save_pretrained(tmp_path)
    classifier.processor.save_pretrained(tmp_path)
    loaded = ZeroShotClassifier.from_pretrained(tmp_path, device="cpu", dtype="float32")
    assert np.array_equal(matrix(loaded.predict(films, labels=LABELS)), matrix(table))
    assert loaded.weights_hash == classifier.weights_hash != ""
    assert (loaded.weights_id, classifier.weights_id) == (str(tmp_path), str(tiny_weights))


def test_half_precision_scores_nearly_alike(tiny_weights: Path, films: list[Path], table: pd.DataFrame) -> None:
    halved = ZeroShotClassifier.from_pretrained(tiny_weights, device="cpu", dtype=torch.bfloat16)
    assert halved.model.dtype == torch.bfloat16
    scores = halved.predict(films, labels=LABELS)
    assert scores["logit:edema"].dtype == np.float32
    assert np.abs(matrix(scores) - matrix(table)).max() < 0.1


def test_every_form_of_a_picture_scores_alike(
    classifier: ZeroShotClassifier, films: list[Path], table: pd.DataFrame
) -> None:
    film = films[0]
    with Image.open(film) as picture:
        picture.load()
    forms = [film, str(film), picture, np.asarray(picture), load_radiograph(film)]
    for form in forms:
        assert near(matrix(classifier.predict(form, labels=LABELS)), matrix(table)[:1])
    mixed = classifier.predict([np.asarray(picture), films[1], load_radiograph(films[2])], labels=LABELS)
    assert mixed["image_id"].tolist() == ["image_0", films[1].name, films[2].name]
    assert near(matrix(mixed), matrix(table)[:3])


def test_what_a_radiograph_says_of_itself_is_in_its_row(classifier: ZeroShotClassifier, films: list[Path]) -> None:
    pixels = load_radiograph(films[0]).pixels
    facts = {"view": "PA", "study_uid": "1.2", "series_uid": "3.4", "sop_uid": "5.6"}
    row = classifier.predict(Radiograph(pixels, warnings=("Odd.", "Very.")), ["edema"]).iloc[0]
    assert (row["view"], row["warnings"]) == ("", "Odd. Very.")
    row = classifier.predict(Radiograph(pixels, **facts), ["edema"]).iloc[0]
    assert {name: row[name] for name in facts} == facts


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("broken") / "broken.png"
    path.write_bytes(b"no image at all")
    return path


def test_a_broken_picture_raises_or_is_listed(
    classifier: ZeroShotClassifier, films: list[Path], broken: Path, table: pd.DataFrame
) -> None:
    given = [broken, films[0], broken.with_name("nowhere.png"), films[1]]
    with pytest.raises(UnreadableImageError, match=r"broken\.png"):
        classifier.predict(given, labels=LABELS)
    for batch_size in (1, 2, 16):
        kept = classifier.predict(given, labels=LABELS, on_error="skip", batch_size=batch_size)
        assert kept["image_id"].tolist() == [films[0].name, films[1].name]
        assert near(matrix(kept), matrix(table)[:2])
        names = [(image_id, path) for image_id, path, _ in kept.attrs["failures"]]
        assert names == [("broken.png", str(broken)), ("nowhere.png", str(broken.with_name("nowhere.png")))]
        assert all(reason for *_, reason in kept.attrs["failures"])
    nothing = classifier.predict([broken], labels=LABELS, on_error="skip")
    assert len(nothing) == 0
    assert list(nothing.columns) == list(table.columns)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, PromptError, "Nothing is asked"),
        ({"labels": ["edema"], "prompts": {"edema": "There is edema"}}, PromptError, "exclude each other"),
        ({"labels": []}, PromptError, "Nothing is asked"),
        ({"prompts": {}}, PromptError, "Nothing is asked"),
        ({"labels": ["edema " * 40]}, PromptError, rf"more than the model reads.*at most {MAX_TEXT} tokens"),
        ({"labels": ["edema"], "pool": "median"}, ValueError, "pool must be one of mean, max, text; got 'median'"),
        ({"labels": ["edema"], "batch_size": 0}, ValueError, "batch_size must be at least 1; got 0"),
        ({"labels": ["edema"], "on_error": "ignore"}, ValueError, 'on_error must be "raise" or "skip"'),
    ],
)
def test_wrong_use_is_refused(
    options: dict[str, Any], error: type[Exception], message: str, classifier: ZeroShotClassifier, films: list[Path]
) -> None:
    with pytest.raises(error, match=message):
        classifier.predict(films[0], **options)


def test_wrong_places_are_refused(classifier: ZeroShotClassifier, films: list[Path], tmp_path: Path) -> None:
    with pytest.raises(TableError, match="given more than once"):
        classifier.predict([films[0], films[0]], ["edema"])
    with pytest.raises(ConfigurationError, match="This device cannot be used; got 'nonsense'"):
        ZeroShotClassifier(classifier.model, classifier.processor, device="nonsense")
    for name in (tmp_path, tmp_path / "nowhere", films[0], "nobody/no-such-weights"):
        with pytest.raises(WeightsError):
            ZeroShotClassifier.from_pretrained(name)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("model.safetensors", "could not be loaded|no .safetensors"),
        ("processor_config.json", "without a usable processor"),
        ("config.json", "holds no config.json"),
    ],
)
def test_incomplete_weights_are_refused(file: str, message: str, tiny_weights: Path, tmp_path: Path) -> None:
    for path in tiny_weights.iterdir():
        if path.name != file:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(WeightsError, match=message):
        ZeroShotClassifier.from_pretrained(tmp_path, device="cpu")


def test_weights_of_another_shape_are_refused(tiny_weights: Path, tmp_path: Path) -> None:
    for path in tiny_weights.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"decoder_layers": 2', '"decoder_layers": 3'))
    with pytest.raises(WeightsError, match=r"do not fit their configuration; got \{'missing_keys'.*layers\.2"):
        ZeroShotClassifier.from_pretrained(tmp_path, device="cpu")


def test_texts_are_encoded_once_for_all_pictures(
    classifier: ZeroShotClassifier, films: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    prepared: list[int] = []
    encode, prepare = classifier.model.raw_text_features, SimilarityScorer.prepare

    def counted(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        calls.append(len(ids))
        return encode(ids, mask)

    def counted_prepare(self: SimilarityScorer, texts: Any, words: torch.Tensor) -> Any:
        prepared.append(len(texts.pooled))
        return prepare(self, texts, words)

    monkeypatch.setattr(classifier.model, "raw_text_features", counted)
    monkeypatch.setattr(SimilarityScorer, "prepare", counted_prepare)
    classifier.predict(films, labels=LABELS, batch_size=2)
    assert calls == prepared == [len(LABELS)]
    bank = classifier.encode_prompts(PromptSet.from_labels(LABELS))
    for _ in range(3):
        list(classifier.stream([ImageItem("a", str(films[0]), str(films[0]))], bank))
    assert calls == prepared == [len(LABELS)] * 2


def test_a_stream_reads_no_further_than_it_must(classifier: ZeroShotClassifier, films: list[Path]) -> None:
    taken: list[int] = []

    def endless() -> Any:
        for index in range(10**6):
            taken.append(index)
            yield ImageItem(str(index), str(films[0]), str(films[0]))

    bank = classifier.encode_prompts(PromptSet.from_labels(["edema"]))
    stream = classifier.stream(endless(), bank, batch_size=2)
    results = [next(stream) for _ in range(5)]
    stream.close()
    assert [result.item.image_id for result in results] == ["0", "1", "2", "3", "4"]
    assert len(taken) <= 16, "memory would grow with the length of the list"


def test_a_stream_keeps_the_order_of_failures(classifier: ZeroShotClassifier, films: list[Path], broken: Path) -> None:
    paths = [films[0], broken, films[1], broken, broken, films[2]]
    items = [ImageItem(str(index), str(path), str(path)) for index, path in enumerate(paths)]
    bank = classifier.encode_prompts(PromptSet.from_labels(["edema"]))
    results = list(classifier.stream(items, bank, batch_size=2))
    assert [result.item.image_id for result in results] == ["0", "1", "2", "3", "4", "5"]
    assert [isinstance(result, FailedImage) for result in results] == [False, True, False, True, True, False]
    with pytest.raises(ValueError, match="need_maps=True"):
        classifier.to_groundings(results[0], ["edema"])


@pytest.mark.parametrize("index", range(3))
def test_grounding_is_in_the_pictures_own_pixels(
    index: int, classifier: ZeroShotClassifier, films: list[Path], table: pd.DataFrame
) -> None:
    radiograph = load_radiograph(films[index])
    height, width = radiograph.pixels.shape
    geometry = classifier.processor.image_processor.geometry(radiograph)
    found = classifier.ground(films[index], labels=LABELS)
    assert [grounding.label for grounding in found] == LABELS
    assert near([grounding.logit for grounding in found], matrix(table)[index])
    ys, xs = np.mgrid[:height, :width] + 0.5
    seen = geometry.points_to_model(np.stack([xs.ravel(), ys.ravel()], axis=1)).reshape(height, width, 2)
    inside = ((seen >= 0) & (seen <= geometry.crop_px)).all(axis=2)
    assert 0 < inside.sum() < inside.size
    for grounding in found:
        assert grounding.heatmap.shape == (height, width)
        assert grounding.heatmap.dtype == np.float32
        assert np.array_equal(np.isfinite(grounding.heatmap), inside)
        assert np.nanmin(grounding.heatmap) >= 0
        assert np.nanmax(grounding.heatmap) < 1
        x, y = geometry.points_to_model([grounding.peak])[0]
        assert 0 < x < geometry.crop_px
        assert 0 < y < geometry.crop_px
    assert len({grounding.heatmap.tobytes() for grounding in found}) == len(LABELS)


def test_the_peak_is_where_the_map_is_highest(classifier: ZeroShotClassifier) -> None:
    """On a square image no cell lies in the padding, so the highest pixel is in the peak's cell."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)
    (found,) = classifier.ground(noise, labels=["edema"])
    row, column = np.unravel_index(np.nanargmax(found.heatmap), found.heatmap.shape)
    cell = 90 / 36 * 8  # original pixels of one cell of the 4 x 4 grid
    assert abs(found.peak[0] - column) < cell
    assert abs(found.peak[1] - row) < cell


def test_maps_of_several_prompts_are_their_mean(classifier: ZeroShotClassifier, films: list[Path]) -> None:
    sentences = ["There is edema", "The lungs are congested"]
    apart = classifier.ground(films[0], prompts={sentence: sentence for sentence in sentences})
    (together,) = classifier.ground(films[0], prompts={"edema": sentences})
    mean = (apart[0].heatmap + apart[1].heatmap) / 2
    assert np.allclose(together.heatmap, mean, atol=1e-6, equal_nan=True)
    assert together.logit == pytest.approx((apart[0].logit + apart[1].logit) / 2, abs=1e-5)


def test_grounding_of_a_broken_picture_raises(classifier: ZeroShotClassifier, broken: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"broken\.png"):
        classifier.ground(broken, labels=["edema"])


def test_maps_come_with_the_picture_they_belong_to(classifier: ZeroShotClassifier, films: list[Path]) -> None:
    bank = classifier.encode_prompts(PromptSet.from_labels(LABELS))
    items = [ImageItem(film.name, str(film), str(film)) for film in films[:2]]
    for result, film in zip(classifier.stream(items, bank, need_maps=True), films[:2], strict=True):
        assert isinstance(result, ScoredImage)
        assert result.maps.shape == (len(LABELS), 4, 4)
        assert result.radiograph.source == str(film)
