"""The parts of pretraining: recipes, hidden pieces and patches, towers taken out, vocabularies, tables."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, BertConfig, BertForMaskedLM, ViTConfig, ViTMAEConfig, ViTMAEForPreTraining, ViTModel

from carzero.data.pairs import load_pairs, load_sentences
from carzero.errors import ConfigurationError, TableError, WeightsError
from carzero.model.vision import sine_cosine_positions
from carzero.text.tokenizers import learn_wordpieces, load_tokenizer
from carzero.training.distributed import DistributedContext
from carzero.training.recipes import ImagePretrainRecipe, RunSection, TextPretrainRecipe, load_schema
from carzero.training.start.towers import load_tower, to_vit
from carzero.training.tasks.masked import MaskedObjective
from carzero.training.tasks.masked_image import MaskedImages, build_autoencoder, measure_reconstruction
from carzero.training.tasks.masked_text import (
    IGNORED,
    MaskedTexts,
    build_language_model,
    mask_pieces,
    measure_predictions,
    pretrain_text,
)
from tests.support.pretraining import IMAGE, RECIPES, SENTENCES, TEXT, TOWER
from tests.support.released import FIXTURES

SCHEMAS: dict[str, type[RunSection]] = {"image": ImagePretrainRecipe, "text": TextPretrainRecipe}
STEPS = {"optimiser.steps": 3}


def image_recipe(**changes: Any) -> ImagePretrainRecipe:
    return load_schema(ImagePretrainRecipe, RECIPES / "pretrain-image.yaml", {**IMAGE, **STEPS, **changes})


def text_recipe(**changes: Any) -> TextPretrainRecipe:
    return load_schema(TextPretrainRecipe, RECIPES / "pretrain-text.yaml", {**TEXT, **STEPS, **changes})


def context(rank: int = 0, world: int = 1) -> DistributedContext:
    """What data ask an context for, without processes."""
    made = DistributedContext.__new__(DistributedContext)
    made.rank, made.world, made.device = rank, world, torch.device("cpu")
    return made


def test_shipped_recipes_are_the_papers_towers() -> None:
    image = load_schema(ImagePretrainRecipe, RECIPES / "pretrain-image.yaml")
    assert (image.mask_ratio, image.pixels.crop_px, image.decoder.num_hidden_layers) == (0.75, 224, 8)
    assert load_schema(TextPretrainRecipe, RECIPES / "pretrain-text.yaml").mask_probability == 0.15


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("image", {"mask_ratio": 1.0}, r"mask_ratio.*less than 1"),
        ("image", {"vision.start": "efficientnet-lite0"}, "no patches to mask"),
        ("image", {"vision": {"start": "weights", "config": {"hidden_size": 8}}}, "brings its own"),
        ("image", {"optimiser.lr_text": 1e-3}, r"optimiser\.lr_text means nothing here"),
        ("image", {"memory": {"text_block": 4}}, r"memory\.text_block means nothing here"),
        ("text", {"memory": {"image_block": 4}}, r"memory\.image_block means nothing here"),
        ("text", {"text": {"tokenizer": "a", "vocabulary": 100}}, "either a tokenizer, or a vocabulary"),
        ("text", {"text": {"start": "weights", "vocabulary": 100}}, r"set text\.tokenizer, not vocabulary"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(kind: str, changes: dict[str, Any], message: str) -> None:
    toy = {"image": IMAGE, "text": TEXT}[kind]
    with pytest.raises(ConfigurationError, match=message):
        load_schema(SCHEMAS[kind], RECIPES / f"pretrain-{kind}.yaml", {**toy, **STEPS, **changes})


def hide(shape: tuple[int, int], seed: int = 0, probability: float = 0.15) -> tuple[torch.Tensor, ...]:
    ids = torch.randint(10, 1000, shape, generator=torch.Generator().manual_seed(9))
    special = torch.zeros(shape, dtype=torch.bool)
    special[:, 0] = special[:, -1] = True
    random = torch.Generator().manual_seed(seed)
    hidden, labels = mask_pieces(ids, special, mask_id=4, vocabulary=1000, probability=probability, random=random)
    return ids, special, hidden, labels


def test_hidden_pieces_have_berts_shares() -> None:
    ids, special, hidden, labels = hide((1000, 102))
    chosen = labels != IGNORED
    assert not (chosen & special).any()
    assert chosen[~special].float().mean().item() == pytest.approx(0.15, abs=0.005)
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(hidden[~chosen], ids[~chosen])
    masked, kept = hidden[chosen] == 4, hidden[chosen] == ids[chosen]
    assert masked.float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert kept.float().mean().item() == pytest.approx(0.1, abs=0.02)


def test_hidden_pieces_follow_from_the_generator_and_are_never_none() -> None:
    first, same, other = hide((4, 12), 1), hide((4, 12), 1), hide((4, 12), 2)
    assert torch.equal(first[2], same[2])
    assert not torch.equal(first[3], other[3])
    assert (hide((2, 5), probability=1e-9)[3] != IGNORED).sum() == 1


def test_positions_are_the_released_sines_and_cosines() -> None:
    made = sine_cosine_positions(3, 8)[0].numpy()
    assert made.shape == (10, 8)
    np.testing.assert_array_equal(made[0], 0)
    for row in range(3):
        for column in range(3):
            angles = [np.array([place, place / 100.0]) for place in (column, row)]
            expected = np.concatenate([[*np.sin(angle), *np.cos(angle)] for angle in angles])
            np.testing.assert_allclose(made[1 + 3 * row + column], expected, atol=1e-6)


def test_a_new_autoencoder_knows_where_its_patches_are() -> None:
    """transformers 5.23 leaves every position at zero, and paints all hidden patches alike."""
    torch.manual_seed(0)
    model: Any = build_autoencoder(image_recipe()).eval()
    with torch.no_grad():
        painted = model(torch.randn(1, 3, 32, 32), noise=torch.rand(1, 16))
    hidden = painted.logits[0][painted.mask[0] == 1]
    assert len(hidden) == 12
    assert hidden.std(dim=0).max() > 1e-3
    assert not model.vit.embeddings.position_embeddings.requires_grad
    torch.testing.assert_close(model.vit.embeddings.position_embeddings, sine_cosine_positions(4, 32))


def test_the_tower_taken_out_sees_what_the_autoencoder_sees() -> None:
    model: Any = build_autoencoder(image_recipe()).eval()
    model.vit.config.mask_ratio = 0.0
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        inside = model.vit(pixels, noise=torch.arange(16.0).expand(2, -1)).last_hidden_state
        outside = to_vit(model.vit).eval()(pixels).last_hidden_state
    torch.testing.assert_close(outside, inside)


def test_the_loss_of_images_is_a_mean_over_them() -> None:
    model = build_autoencoder(image_recipe()).eval()
    pixels, noise = torch.randn(3, 3, 32, 32), torch.rand(3, 16)
    with torch.no_grad():
        each = torch.stack([measure_reconstruction(model, pixels[i : i + 1], noise[i : i + 1])[0] for i in range(3)])
        together = measure_reconstruction(model, pixels, noise)
    assert together.shape == (3,)
    assert together.mean().item() == pytest.approx(each.mean().item(), rel=1e-5)


def test_a_masked_autoencoders_folder_is_a_tower_that_sees_everything(tmp_path: Path) -> None:
    config = ViTMAEConfig(**TOWER, image_size=16, patch_size=8, decoder_hidden_size=16, decoder_num_attention_heads=2)
    ViTMAEForPreTraining(config).save_pretrained(tmp_path / "mae")
    tower: Any = load_tower(str(tmp_path / "mae"))
    assert isinstance(tower, ViTModel)
    assert tower(torch.zeros(1, 3, 16, 16)).last_hidden_state.shape == (1, 5, 32)
    again: Any = build_autoencoder(image_recipe(**{"vision": {"start": str(tmp_path / "mae")}}))
    assert again.config.image_size == 32, "positions are interpolated to the recipe's pixels"
    name = "patch_embeddings.projection.weight"
    torch.testing.assert_close(again.vit.embeddings.state_dict()[name], tower.embeddings.state_dict()[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision.config": {**TOWER, "patch_size": 5}}, "patch_size"),
        ({"vision.config": {**TOWER, "hidden_size": 34, "patch_size": 8}}, "'hidden_size': 34"),
        ({"vision.config": {**TOWER, "image_size": 64, "patch_size": 8}}, "'image_size': 64"),
        ({"decoder": {**TOWER, "num_attention_heads": 3}}, "decoder_hidden_size"),
        ({"vision.config": {"model_type": "dinov2"}}, "no patches to mask"),
        ({"vision.config": {"model_type": "vitt"}}, "no such tower"),
        ({"vision.config": {"hiden_size": 32}}, "hiden_size"),
        ({"vision.config": {"hidden_size": "wide"}}, "cannot be made"),
    ],
)
def test_an_image_tower_that_cannot_be_built_says_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_autoencoder(image_recipe(**changes))


def test_a_start_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="No tower could be loaded"):
        load_tower(str(tmp_path / "empty"))
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "vit", "hidden_size": 32}')
    (tmp_path / "empty" / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0no json.")
    with pytest.raises(WeightsError, match="No tower could be loaded"):
        load_tower(str(tmp_path / "empty"))


class FilmStub:
    """Pixel values that are the row's number."""

    def choose(self, rows: np.ndarray, step: int) -> Any:
        return type("Views", (), {"select": lambda _, part: rows[part]})()

    def varied_pixels(self, rows: np.ndarray) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 3, 32, 32)

    plain_pixels = varied_pixels


def test_two_processes_hide_what_one_hides() -> None:
    rows = np.array([5, 1, 3, 8, 2])
    stub: Any = FilmStub()

    def images(rank: int, world: int) -> MaskedImages:
        return MaskedImages(stub, image_recipe(), 16, context(rank, world))

    tokenizer = learn_wordpieces(["there is an opacity"] * 3, 100)

    def texts(rank: int, world: int) -> MaskedTexts:
        return MaskedTexts(SENTENCES, tokenizer, text_recipe(), context(rank, world))

    for make in (images, texts):
        for load in ("load", "load_plain"):
            whole = getattr(make(0, 1), load)(rows, 7)
            parts = [getattr(make(rank, 2), load)(rows, 7) for rank in (0, 1)]
            assert [len(part.inputs[0]) for part in parts] == [2, 3]
            assert {part.total for part in parts} == {whole.total}
            for number, tensor in enumerate(whole.inputs):
                assert torch.equal(torch.cat([part.inputs[number] for part in parts]), tensor)
        assert not torch.equal(make(0, 1).load(rows, 8).inputs[-1], make(0, 1).load(rows, 7).inputs[-1])


@pytest.mark.parametrize("block", [None, 2])
def test_the_loss_of_words_is_a_mean_over_hidden_pieces(block: int | None) -> None:
    torch.manual_seed(0)
    model: Any = BertForMaskedLM(BertConfig(**TOWER, vocab_size=100)).eval()
    tokenizer = learn_wordpieces([sentence.lower() for sentence in SENTENCES], 100)
    recipe = text_recipe()
    batch = MaskedTexts(SENTENCES, tokenizer, recipe, context()).load(np.arange(5), 1)
    ours = MaskedObjective(model, measure_predictions, recipe, block)(batch)
    ids, mask, labels = batch.inputs
    theirs = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    assert batch.total == int((labels != IGNORED).sum())
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_equal_sentences_give_an_equal_vocabulary() -> None:
    counts = Counter(word for sentence in SENTENCES for word in sentence.lower().strip(".").split())
    texts = [sentence.lower().strip(".") for sentence in SENTENCES]
    made = [learn_wordpieces(texts, 90) for _ in range(3)]
    assert len({json.dumps(tokenizer.get_vocab(), sort_keys=True) for tokenizer in made}) == 1
    tokenizer = made[0]
    assert [tokenizer.convert_ids_to_tokens(number) for number in range(5)] == [
        *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    ]
    assert counts.most_common(1)[0][0] in tokenizer.get_vocab()
    assert tokenizer.decode(tokenizer(texts[0])["input_ids"], skip_special_tokens=True) == texts[0]
    with pytest.raises(ConfigurationError, match="too small for the characters"):
        learn_wordpieces(texts, 20)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_text_length": 25}, "max_text_length 25 for max_position_embeddings 24"),
        (
            {"text": {"tokenizer": str(FIXTURES / "vocab.txt"), "config": {"vocab_size": 60}}},
            "pieces for vocab_size 60",
        ),
        ({"text": {"vocabulary": 100, "config": {"model_type": "vit"}}}, "does not know|No language model"),
    ],
)
def test_a_text_tower_that_does_not_fit_says_why(changes: dict[str, Any], message: str) -> None:
    recipe = text_recipe(**changes)
    tokenizer = load_tokenizer(recipe.text.tokenizer or FIXTURES / "vocab.txt")
    with pytest.raises(ConfigurationError, match=message):
        build_language_model(recipe, tokenizer)


def test_sentences_come_from_lines_or_tables(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("\ufeffThere is edema.\n\n  No effusion. \n", encoding="utf-8")
    assert load_sentences(lines) == {"train": ["There is edema.", "No effusion."]}
    table = tmp_path / "reports.csv"
    table.write_text("report,split,image\nEdema is seen. No mass.,train,a.png\n,train,\nA mass is seen.,dev,a.png\n")
    assert load_sentences(table, columns={"text": "report"}) == {
        "train": ["Edema is seen", "No mass"],
        "val": ["A mass is seen"],
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "no sentence"),
        ("a.txt", b"\xff\xfe\x00", "UTF-8"),
        ("a.csv", b"image,present\na.png,edema\n", "lacks columns.*at least one of sentences, text"),
        ("a.csv", b"text\n\n", "no row to train on"),
        ("a.csv", b"text,split,patient_id\nNo edema,train,7\nNo mass,val,7\n", "more than one split"),
        ("a.pdf", b"", "not a table"),
    ],
)
def test_sentences_that_cannot_be_read_are_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=message):
        load_sentences(tmp_path / name)


def test_pictures_alone_need_no_words(tmp_path: Path) -> None:
    path = tmp_path / "films.csv"
    path.write_text("image,split,sentences\na.png,train,no list\n,train,\nb.png,val,\n")
    table = load_pairs(path, needs="images")
    assert [Path(image).name for image in table.images] == ["a.png", "b.png"]
    assert table.sentences == [[], []]
    path.write_text("image,patient_id,split\na.png,7,train\nb.png,7,val\n")
    with pytest.raises(TableError, match="more than one split"):
        load_pairs(path, needs="images")
    path.write_text("text\nNo edema\n")
    with pytest.raises(TableError, match=r"lacks columns.*expected image \(or path\)\. "):
        load_pairs(path, needs="images")


def test_nothing_to_judge_by_is_said_before_a_run(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(SENTENCES))
    with pytest.raises(ConfigurationError, match='sentences of split "val" that are not also trained on'):
        pretrain_text(text_recipe(keep="best"), lines, tmp_path / "run")
    lines.write_text("One.\nTwo.\n")
    with pytest.raises(TableError, match="2 training sentences, none left by cleaning"):
        pretrain_text(text_recipe(), lines, tmp_path / "other")
    assert not (tmp_path / "other").exists(), "a wrong table leaves no folder behind"


def test_a_vit_folder_is_a_start(tmp_path: Path) -> None:
    ViTModel(ViTConfig(**TOWER, image_size=32, patch_size=8)).save_pretrained(tmp_path / "vit")
    model: Any = build_autoencoder(image_recipe(**{"vision": {"start": str(tmp_path / "vit")}}))
    start = AutoModel.from_pretrained(tmp_path / "vit").state_dict()
    for name, value in model.vit.state_dict().items():
        assert torch.equal(value, start[name]), name
