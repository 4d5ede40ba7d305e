"""From a sentence to words: cleaning, tokens, which pieces continue a word, and sums over pieces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from carzero.errors import WeightsError
from carzero.model.text import aggregate_words, word_positions
from carzero.processing import CARZeroProcessor, build_processor
from carzero.text.cleaning import clean_text
from carzero.text.tokenizers import build_wordpiece_tokenizer, continuation_pieces, load_tokenizer
from tests.support.released import CASES, load_expected, load_meta
from tests.support.tiny import VOCABULARY, tiny_processor

GOLDEN_LENGTH = 97


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("There is pneumonia", "there is pneumonia"),
        ("THERE IS Pneumonia", "there is pneumonia"),
        ("There is\npneumonia", "there is pneumonia"),
        ("no\nacute\ndisease", "no acute disease"),
        ("There is  pneumonia, left; (mild)!", "there is pneumonia left mild"),
        ("No effusion. No edema", "no effusion no edema"),
        ("No effusion.No edema", "no effusion no edema"),
        ("1. No effusion 2. No edema", "no effusion no edema"),
        ("Findings 12. Heart is normal", "heart is normal"),  # the number is cut, and "findings" is one word
        ("There is a 3.5 cm nodule", "there is a 5 cm nodule"),  # "3." is taken for a list number
        ("a nodule of 3 cm", "a nodule of 3 cm"),
        ("see image no 4", "see image no 4"),
        ("Pneumonia", ""),
        ("Pneumonia.", ""),
        ("Pneumonia. There is edema", "there is edema"),
        ("Normal. Clear. Stable", ""),
        ("", ""),
        ("  \n ", ""),
        ("...", ""),
        ("12.", ""),
        ("x-ray", "x ray"),  # two tokens make a sentence
        ("non_small cell", "non_small cell"),  # the underscore belongs to \w
        ("there is mäss", "there is mss"),
        ("there is β blockade", "there is blockade"),
        ("β γ", ""),  # two tokens when counted, none afterwards
        ("β blockers", "blockers"),  # counted before letters are deleted, so one word remains
        ("β. there is edema", "there is edema"),
        ("a 3×4 cm mass", "a 3 4 cm mass"),
        ("there is µ٣", "there is"),
    ],
)
def test_cleaning_rule(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


def test_cleaning_again_changes_nothing_more() -> None:
    for prompts in load_meta("mlp_head")["prompts"].values():
        once = clean_text(prompts[0])
        assert clean_text(once) == once


@pytest.fixture(scope="module")
def golden_processor() -> CARZeroProcessor:
    return build_processor(load_tokenizer(VOCABULARY), max_text_length=GOLDEN_LENGTH)


@pytest.mark.parametrize("case", CASES)
def test_tokens_are_the_authors(case: str, golden_processor: CARZeroProcessor) -> None:
    expected, prompts = load_expected(case), [text for texts in load_meta(case)["prompts"].values() for text in texts]
    tokens = golden_processor.tokenize(prompts)
    assert tokens.keys() == {"input_ids", "attention_mask"}
    assert tokens["input_ids"].tolist() == expected["input_ids"].tolist()
    assert tokens["attention_mask"].tolist() == expected["attention_mask"].tolist()
    assert tokens["input_ids"].dtype == torch.int64
    called = golden_processor(text=prompts)
    assert torch.equal(called["input_ids"], tokens["input_ids"])
    assert golden_processor(text=prompts[0])["input_ids"].shape == (1, GOLDEN_LENGTH)


@pytest.mark.parametrize("case", CASES)
def test_words_are_the_authors(case: str, golden_processor: CARZeroProcessor) -> None:
    """The fixture lists the words behind each text, as the authors' code joined them."""
    meta = load_meta(case)
    tokens = golden_processor.tokenize([text for texts in meta["prompts"].values() for text in texts])
    table = continuation_pieces(golden_processor.tokenizer)
    positions = word_positions(tokens["input_ids"], tokens["attention_mask"], table)
    for ids, numbers, words in zip(tokens["input_ids"], positions, meta["words"], strict=True):
        joined: dict[int, str] = {}
        for piece, number in zip(golden_processor.tokenizer.convert_ids_to_tokens(ids), numbers.tolist(), strict=True):
            joined[number] = joined.get(number, "") + piece.removeprefix("##")
        joined.pop(GOLDEN_LENGTH, None)
        assert list(joined) == list(range(len(joined)))
        assert list(joined.values()) == [word for word in words if word != "[PAD]"]


def test_aggregation_by_hand() -> None:
    #        [CLS]  lung   ##s  [SEP]  [PAD]
    ids = torch.tensor([[0, 1, 2, 3, 4]])
    table = torch.tensor([False, False, True, False, False])
    words = word_positions(ids, torch.tensor([[1, 1, 1, 1, 0]]), table)
    assert words.tolist() == [[0, 1, 1, 2, 5]]
    hidden = torch.tensor([[[1.0], [10.0], [100.0], [1000.0], [1e6]]])
    assert aggregate_words(hidden, words).flatten().tolist() == [1, 110, 1000, 0, 0]


def test_word_sums_keep_the_total_of_real_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 10, (6, 9), generator=generator)
    mask = (torch.arange(9) < torch.tensor([2, 3, 5, 7, 8, 9])[:, None]).long()
    hidden = torch.randn(6, 9, 4, generator=generator)
    words = word_positions(ids, mask, torch.arange(10) > 4)
    summed = aggregate_words(hidden, words)
    assert torch.allclose(summed.sum(dim=1), (hidden * mask.unsqueeze(-1)).sum(dim=1), atol=1e-5)
    assert torch.equal(words[:, 0], torch.zeros(6, dtype=torch.long))


def test_counting_includes_start_and_end_before_truncation() -> None:
    processor = tiny_processor()
    assert processor.count_tokens("There is edema") == len(["[CLS]", "there", "is", "ed", "##ema", "[SEP]"])
    long = "there is edema " * 20
    assert processor.count_tokens(long) > processor.max_text_length
    tokens = processor.tokenize([long])
    assert tokens["attention_mask"].all()
    assert processor.tokenizer.convert_ids_to_tokens(tokens["input_ids"][0])[-1] == "[SEP]"


def write_vocabulary(folder: Path) -> Path:
    folder.mkdir()
    (folder / "vocab.txt").write_bytes(VOCABULARY.read_bytes())
    return folder


@pytest.mark.parametrize("with_config", [False, True])
def test_a_folder_with_only_a_vocabulary_knows_its_words(with_config: bool, tmp_path: Path) -> None:
    """transformers 5 has refused such folders, or turned every word into [UNK], depending on version and content."""
    folder = write_vocabulary(tmp_path / "tokenizer")
    if with_config:
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for source in (folder, str(folder), folder / "vocab.txt"):
        tokens = load_tokenizer(source).tokenize("there is pneumothorax")
        assert "".join(token.removeprefix("##") for token in tokens) == "thereispneumothorax"


def test_a_saved_tokenizer_comes_back(tmp_path: Path) -> None:
    first = load_tokenizer(VOCABULARY)
    first.save_pretrained(tmp_path)
    second = load_tokenizer(tmp_path)
    text = "there is cardiomegaly of the heart"
    assert second(text)["input_ids"] == first(text)["input_ids"]
    assert torch.equal(continuation_pieces(second), continuation_pieces(first))


def test_upper_case_is_kept_only_on_request() -> None:
    assert build_wordpiece_tokenizer(VOCABULARY).tokenize("There") == ["there"]
    assert build_wordpiece_tokenizer(VOCABULARY, lowercase=False).tokenize("There") == ["[UNK]"]


def test_wordpiece_continuations_are_marked_by_hashes() -> None:
    pieces = VOCABULARY.read_text(encoding="utf-8").splitlines()
    table = continuation_pieces(load_tokenizer(VOCABULARY))
    assert table.dtype == torch.bool
    assert table.tolist() == [piece.startswith("##") for piece in pieces]
    assert 5000 < table.sum() < 6000


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer as RoBERTa's: <s> words </s>, a word's first piece marked by its blank."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("l", "u"), ("n", "g"), ("lu", "ng"), ("Ġ", "lung"), ("i", "s")]
    pieces = special + letters + ["".join(pair) for pair in merges]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    names |= {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def test_byte_pair_continuations_are_all_that_is_unmarked() -> None:
    tokenizer = byte_level_tokenizer()
    table = continuation_pieces(tokenizer)
    assert len(table) == len(tokenizer)
    by_piece = {piece: bool(table[index]) for piece, index in tokenizer.get_vocab().items()}
    assert not any(by_piece[piece] for piece in ("<s>", "<pad>", "</s>", "<mask>", "Ġlung", "Ġ"))
    assert all(by_piece[piece] for piece in ("lung", "is", "s", "l"))


def test_the_first_word_of_a_byte_pair_text_is_a_word_of_its_own() -> None:
    """It has no blank before it and so no mark; it must not be summed into the start token."""
    tokenizer = byte_level_tokenizer()
    encoded = tokenizer("lungs is lung", padding="max_length", max_length=12, return_tensors="pt")
    pieces = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    words = word_positions(encoded["input_ids"], encoded["attention_mask"], continuation_pieces(tokenizer))
    assert pieces[:7] == ["<s>", "lung", "s", "Ġ", "is", "Ġlung", "</s>"]
    assert words[0].tolist() == [0, 1, 1, 2, 2, 3, 4, 12, 12, 12, 12, 12]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[PAD]\n[UNK]\n[CLS]\nthere\n", r"a file without \[SEP\], \[MASK\].*Give the vocab.txt"),
        (b"", r"is not a BERT vocabulary; got 'a file without \[PAD\]"),
        (b"\xff\xfe\x00bad", "cannot be read as text"),
    ],
)
def test_files_that_are_no_vocabulary(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_tokenizer(path)
    with pytest.raises(WeightsError, match=message):
        load_tokenizer(tmp_path)


def test_a_hub_that_cannot_be_reached_is_asked_once_and_the_way_without_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    asked: list[str] = []

    class Session:
        def head(self, url: str, **options: object) -> None:
            asked.append(url)
            raise ConnectionError("no route")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_session", Session)
    with pytest.raises(WeightsError, match=r"cannot be reached: no route.*huggingface\.co/nobody/no-such/tree/main"):
        load_tokenizer("nobody/no-such")
    assert asked == [constants.ENDPOINT]


def test_folders_and_names_without_a_tokenizer(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "tokenizer.json").write_text("{")
    for source in (tmp_path, tmp_path / "nowhere", "nobody/no-such-tokenizer", broken):
        with pytest.raises(
            WeightsError, match=r"(could be loaded.*; got .*Check the path or the net)|(cannot be read as JSON)"
        ):
            load_tokenizer(source)
