"""The parts of training: statements, tables, recipes, variation, averaging, reduced vocabularies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from carzero.errors import ConfigurationError, TableError
from carzero.text_cleaning import clean_text
from carzero.tokenizing import build_wordpiece_tokenizer
from carzero.training.augment import augment, normalise
from carzero.training.averaging import AveragedModel
from carzero.training.minilm import shrink_vocabulary
from carzero.training.recipe import PixelSection, load_recipe
from carzero.training.starting import build_start
from carzero.training.statements import Statements
from carzero.training.table import load_training_table
from carzero.training.validation import auroc, mean_auroc
from tests.released import FIXTURES

RECIPES = Path(__file__).parents[2] / "recipes"
SENTENCES = {"edema": ["edema", "oedema"], "normal": {"present": ["There is no finding"], "absent": []}}


def table_file(tmp_path: Path, rows: str, header: str = "image,source,split,patient_id,present,absent") -> Path:
    path = tmp_path / "table.csv"
    path.write_text(f"{header}\n{rows}\n")
    return path


def test_statements_make_both_sentences_and_mark_what_is_unknown() -> None:
    statements = Statements(SENTENCES)
    labels = np.array([[1, 0], [0, np.nan], [np.nan, 1]], dtype=np.float32)
    batch = statements.draw(labels, np.random.default_rng(0))
    assert batch.texts[0] in {"There is edema", "There is oedema"}
    assert batch.texts[1] in {"There is no edema", "There is no oedema"}
    assert batch.texts[2:] == ["There is no finding"]
    assert batch.match.tolist() == [[True, False, False], [False, True, False], [False, False, True]]
    assert batch.known.tolist() == [[True, True, True], [True, True, False], [False, False, True]]


def test_statements_leave_out_findings_that_a_batch_says_nothing_of() -> None:
    labels = np.array([[np.nan, 1], [np.nan, 0]], dtype=np.float32)
    assert Statements(SENTENCES).draw(labels, np.random.default_rng(0)).texts == ["There is no finding"]


def test_a_finding_without_sentence_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="edema"):
        Statements({"edema": []})


def test_table_reads_present_absent_and_unknown(tmp_path: Path) -> None:
    path = table_file(tmp_path, "a.png,nih,train,7,edema|mass,normal\nb.png,nih,test,8,,edema")
    table = load_training_table(path, ["edema", "normal", "mass"])
    np.testing.assert_array_equal(table.labels, [[1, 0, 1], [0, np.nan, np.nan]])
    assert table.paths[0] == str(tmp_path / "a.png")
    assert table.rows("test", "nih").tolist() == [1]
    assert table.patients.tolist() == ["7", "8"]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ("a.png,nih,train,7,edema,edema", None, "present and absent"),
        ("a.png,nih,train,7,,\nb.png,nih,test,7,,", None, "more than one split.*nih/7"),
        ("a.png,nih,training,7,,", None, "unknown splits.*training"),
        ("a.png,nih", "image,source", "lacks columns.*split"),
    ],
)
def test_table_refuses_what_would_spoil_a_run(tmp_path: Path, rows: str, header: str | None, message: str) -> None:
    path = table_file(tmp_path, rows, header) if header else table_file(tmp_path, rows)
    with pytest.raises(TableError, match=message):
        load_training_table(path, ["edema"])


def test_one_patient_number_in_two_sources_is_two_patients(tmp_path: Path) -> None:
    path = table_file(tmp_path, "a.png,nih,train,7,,\nb.png,hannover,test,7,,")
    assert len(load_training_table(path, ["edema"]).splits) == 2


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.parent.name)
def test_every_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path, {"optimiser.steps": 3})
    assert recipe.optimiser.steps == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimiser.lr": -1}, r"optimiser\.lr.*greater than 0"),
        ({"optimiser.learning_rate": 1}, r"optimiser\.learning_rate.*not permitted"),
        ({"name.first": 1}, "plain value"),
    ],
)
def test_a_wrong_recipe_names_the_field(changes: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_recipe(RECIPES / "demo" / "recipe.yaml", changes)


def test_a_recipe_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("- 1\n")
    with pytest.raises(ConfigurationError, match="no mapping"):
        load_recipe(tmp_path / "r.yaml")


def still(**changes: object) -> PixelSection:
    fields = {"resize_px": 32, "crop_px": 32, "rotation_degrees": 0, "shift": 0, "scale": (1, 1)}
    return PixelSection(**{**fields, "contrast": (1, 1), "brightness": (1, 1), **changes})


def test_augment_without_variation_is_the_picture() -> None:
    grey = torch.rand(3, 32, 32) * 254 + 1
    torch.testing.assert_close(augment(grey, still(), torch.Generator().manual_seed(0)), grey, atol=1e-3, rtol=0)


def test_augment_varies_and_keeps_range_and_black_padding() -> None:
    grey = torch.rand(4, 32, 32) * 200 + 50
    grey[:, :, :8] = 0
    pixels = still(crop_px=24, contrast=(0.8, 1.2), brightness=(0.9, 1.1))
    varied = augment(grey, pixels, torch.Generator().manual_seed(0))
    assert varied.shape == (4, 24, 24)
    assert varied.min() >= 0
    assert varied.max() <= 255
    same_seed = augment(grey, pixels, torch.Generator().manual_seed(0))
    assert torch.equal(varied, same_seed)
    assert not torch.equal(varied, augment(grey, pixels, torch.Generator().manual_seed(1)))


def test_augment_never_mirrors() -> None:
    grey = torch.full((64, 32, 32), 50.0)
    grey[:, :, :16] = 200  # bright on the left
    varied = augment(grey, still(rotation_degrees=15, shift=0.1, scale=(0.9, 1.1)), torch.Generator().manual_seed(0))
    assert (varied[:, 8:24, :10].mean((1, 2)) > varied[:, 8:24, 22:].mean((1, 2))).all()


def test_normalise_is_the_processors() -> None:
    values = normalise(torch.full((1, 2, 2), 127.5), 0.5, 0.25)
    assert values.shape == (1, 3, 2, 2)
    assert values.abs().max() == 0


def test_average_follows_and_forgets_the_start() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = AveragedModel(model, 0.9)
    torch.nn.init.ones_(model.weight)
    for _ in range(200):
        average.update(model)
    assert average.model.weight.item() == pytest.approx(1, abs=1e-6)


def test_auroc_is_scikit_learns_definition() -> None:
    truth = np.array([1, 0, 1, 0, np.nan])
    assert auroc(truth, np.array([0.9, 0.1, 0.5, 0.5, 7])) == pytest.approx(3.5 / 4)
    assert np.isnan(auroc(np.array([1.0, 1.0]), np.array([1.0, 2.0])))
    two = mean_auroc(np.array([[1, 1], [0, 1]]), np.array([[2, 0], [1, 0]]), ["a", "b"])
    assert two["a"] == 1
    assert np.isnan(two["b"])
    assert two["macro"] == 1


def test_a_shrunk_vocabulary_spells_with_what_is_left() -> None:
    full = build_wordpiece_tokenizer(FIXTURES / "vocab.txt")
    text = clean_text("There is a pneumothorax")
    letters = [
        index for index in range(len(full)) if len(str(full.convert_ids_to_tokens(index)).removeprefix("##")) == 1
    ]
    kept = sorted({*full.all_special_ids, *letters, *full("there is effusion")["input_ids"]})
    small = shrink_vocabulary(full, kept)
    assert len(small) == len(kept)
    pieces = small.convert_ids_to_tokens(small(text)["input_ids"])
    assert pieces[:3] == ["[CLS]", "there", "is"]
    assert "".join(piece.removeprefix("##") for piece in pieces[3:-1]) == "apneumothorax"
    assert "[UNK]" not in pieces
    assert small.decode(small("there is effusion")["input_ids"], skip_special_tokens=True) == "there is effusion"


def test_a_misspelt_tower_field_is_refused(tmp_path: Path) -> None:
    recipe = load_recipe(
        RECIPES / "demo" / "recipe.yaml",
        {
            "model.vision": {"config": {"hiden_size": 32}},
            "model.text": {"config": {"hidden_size": 32}, "tokenizer": str(FIXTURES / "vocab.txt")},
        },
    )
    with pytest.raises(ConfigurationError, match="hiden_size"):
        build_start(recipe, [])
