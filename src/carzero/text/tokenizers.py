"""Tokenizers: loading them from what people have, and which of their pieces continue a word."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from carzero.core.documents import check_folder_files, load_json_object
from carzero.core.hub import HubError, fetch_repository
from carzero.core.optional import require_extra
from carzero.errors import ConfigurationError, WeightsError, describe, refuse_broken

# What a tokenizer consists of, and the model's type, by which transformers chooses its class.
_HUB_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "config.json")


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Loads a tokenizer.

    Args:
        source: a folder with `tokenizer.json`; a folder with only a BERT `vocab.txt`; such a file itself; or a hub id.

    Raises:
        WeightsError: nothing there, or nothing that is a tokenizer.
    """
    path = Path(source)
    if path.is_file():
        return build_wordpiece_tokenizer(path)
    if path.is_dir():
        check_folder_files(path, error=WeightsError)
        # transformers 5 ignores a bare vocab.txt and turns every word into [UNK], without an error.
        if not (path / "tokenizer.json").is_file() and (path / "vocab.txt").is_file():
            return build_wordpiece_tokenizer(path / "vocab.txt")
        if (path / _SENTENCEPIECE).is_file():
            return _load_sentencepiece(path)
        return _load_pretrained(path)
    return _load_pretrained(_fetch(str(source)))


def _fetch(name: str) -> Path:
    """The folder of a hub id's tokenizer on this machine.

    Raises:
        WeightsError: it is neither on this machine nor available from the hub.
    """
    try:
        if name.count("/") != 1:
            raise _no_tokenizer(name, "check the path or the network (there is no such folder or file)")
        return fetch_repository(name, _HUB_FILES)
    except HubError as error:
        raise _no_tokenizer(
            name,
            f"check the path or the network ({error.reason}); without network, download tokenizer.json or vocab.txt "
            f"from {error.address}/tree/main on another machine and give the folder that holds it",
        ) from error


def _no_tokenizer(source: str, then: str) -> WeightsError:
    return WeightsError(
        describe(
            "No tokenizer could be loaded",
            got=source,
            expected=_A_TOKENIZER,
            then=then,
        )
    )


_SENTENCEPIECE = "spiece.model"
_A_TOKENIZER = "a folder with tokenizer.json or vocab.txt, a vocab.txt, or a hub id that can be reached"


def _load_sentencepiece(folder: Path) -> PreTrainedTokenizerBase:
    """Loads a tokenizer of SentencePiece (SigLIP): from its tokenizer.json where there is one, which needs no package.

    Raises:
        WeightsError: nothing that is a tokenizer.
        MissingExtraError: there is no tokenizer.json, and the package sentencepiece is not installed.
    """
    if (folder / "tokenizer.json").is_file():
        with _loading(folder):
            fast: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
            return fast
    with require_extra("This tokenizer needs the package sentencepiece", "siglip", "get the weights' tokenizer.json"):
        import sentencepiece  # noqa: F401 (transformers imports it)
    return _load_pretrained(folder)


def _load_pretrained(folder: Path) -> PreTrainedTokenizerBase:
    with _loading(folder):
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """The border around what transformers makes of a folder."""
    what, then = f"No tokenizer could be loaded from {folder}", "check the path or the network"
    with refuse_broken(what, error=WeightsError, expected=_A_TOKENIZER, then=then):
        check_added_tokens(folder / "tokenizer.json")
        yield


_TOKEN_KEYS = {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}


def check_added_tokens(path: Path) -> None:
    """Refuses keys of added tokens that the tokenizer's library would print, whatever they are, and pass over.

    Raises:
        WeightsError: the file is not JSON.
        ValueError: there are such keys.
    """
    content: Any = load_json_object(path, error=WeightsError) if path.exists() else {}
    if strange := {key for token in content.get("added_tokens") or () for key in token} - _TOKEN_KEYS:
        raise ValueError(f"unknown keys of added tokens: {sorted(strange)[:3]!r}")


def build_wordpiece_tokenizer(vocabulary: Path, *, lowercase: bool = True) -> PreTrainedTokenizerFast:
    """Builds a BERT tokenizer from a vocabulary file, one piece per line.

    Args:
        vocabulary: the file; it must hold [PAD], [UNK], [CLS], [SEP] and [MASK].
        lowercase: lower-case words first. CARZero's cleaning already did, so it matters to other callers only.

    Raises:
        WeightsError: the file is not such a vocabulary.
    """
    try:
        pieces = vocabulary.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"The vocabulary {vocabulary} cannot be read as text: {error}.") from error
    lacking = [piece for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if piece not in pieces]
    if lacking:
        raise WeightsError(
            describe(
                f"{vocabulary} is not a BERT vocabulary",
                got=f"a file without {', '.join(lacking)}",
                expected="one word piece per line, special tokens included",
                then="give the vocab.txt or tokenizer.json that belongs to the weights",
            )
        )
    return to_wordpiece_tokenizer(pieces, lowercase=lowercase)


def to_wordpiece_tokenizer(pieces: Sequence[str], *, lowercase: bool = True) -> PreTrainedTokenizerFast:
    """Makes a BERT tokenizer of word pieces in the order of their ids, BERT's special tokens among them."""
    from tokenizers import BertWordPieceTokenizer

    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return wrap_wordpiece(
        BertWordPieceTokenizer(vocab=vocabulary, lowercase=lowercase, strip_accents=lowercase)._tokenizer
    )


def wrap_wordpiece(backend: Any) -> PreTrainedTokenizerFast:
    """Wraps a tokenizer of the `tokenizers` library with BERT's special tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",  # noqa: S106 (a token of a vocabulary, not a password)
        unk_token="[UNK]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
        model_input_names=["input_ids", "attention_mask"],
    )


class Encoder(Protocol):
    """Encodes texts to W tokens; one object serves any number of threads."""

    def encode(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask of texts, (T, W) int64 each; the mask is 1 for tokens, 0 for padding."""

    def count(self, text: str) -> int:
        """Tokens of a text, start and end token included, before truncation."""


def build_encoder(tokenizer: PreTrainedTokenizerBase, length: int) -> Encoder:
    """The encoder of a tokenizer to W = `length` tokens."""
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        return FixedLengthEncoder(tokenizer, length)
    return LockedEncoder(tokenizer, length)


class LockedEncoder:
    """Encodes texts to exactly W tokens by a tokenizer that is not one of the `tokenizers` library, a thread at a time.

    Args:
        tokenizer: the tokenizer.
        length: W, tokens of a text after padding or truncation.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, length: int) -> None:
        self._tokenizer, self._length, self._lock = tokenizer, length, threading.Lock()

    def encode(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Encoder.encode`."""
        with self._lock:
            encoded = self._tokenizer(list(texts), padding="max_length", truncation=True, max_length=self._length)
            counts = [min(len(self._tokenizer(text)["input_ids"]), self._length) for text in texts]
        ids = torch.tensor(encoded["input_ids"], dtype=torch.int64).reshape(len(texts), self._length)
        return ids, (torch.arange(self._length) < torch.tensor(counts).unsqueeze(1)).long()

    def count(self, text: str) -> int:
        """See `Encoder.count`."""
        with self._lock:
            return len(self._tokenizer(text)["input_ids"])


class FixedLengthEncoder:
    """Encodes texts to exactly W tokens; one object serves any number of threads.

    A transformers tokenizer keeps padding and truncation as a state that each call rewrites, so that two calls at once
    can give one another's lengths. This one is a copy whose state is set once and never changes.

    Args:
        tokenizer: the tokenizer to copy; it must be one of the `tokenizers` library.
        length: W, tokens of a text after padding or truncation.

    Raises:
        WeightsError: the tokenizer is not one of the `tokenizers` library.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, length: int) -> None:
        from tokenizers import Tokenizer

        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise WeightsError(
                describe(
                    "The tokenizer cannot be used from several threads",
                    got=type(tokenizer).__name__,
                    expected="a fast tokenizer, one with tokenizer.json",
                    then="save the fast tokenizer next to the weights",
                )
            )
        if tokenizer.pad_token_id is None:
            raise WeightsError(
                describe(
                    "The tokenizer cannot fill texts up to one length",
                    got="no token for padding",
                    expected="a pad_token, which CARZero's models do not look at",
                    then="name one in tokenizer_config.json",
                )
            )
        written = tokenizer.backend_tokenizer.to_str()
        self._fixed, self._whole = Tokenizer.from_str(written), Tokenizer.from_str(written)
        self._whole.no_truncation()
        self._whole.no_padding()
        self._fixed.enable_truncation(length, direction=tokenizer.truncation_side)
        self._fixed.enable_padding(
            direction=tokenizer.padding_side,
            pad_id=int(tokenizer.pad_token_id),
            pad_type_id=tokenizer.pad_token_type_id,
            pad_token=str(tokenizer.pad_token),
            length=length,
        )

    def encode(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask of texts, (T, W) int64 each; the mask is 1 for tokens, 0 for padding."""
        encoded = self._fixed.encode_batch(list(texts))
        ids, mask = [each.ids for each in encoded], [each.attention_mask for each in encoded]
        return torch.tensor(ids, dtype=torch.int64), torch.tensor(mask, dtype=torch.int64)

    def count(self, text: str) -> int:
        """Tokens of a text, start and end token included, before truncation."""
        return len(self._whole.encode(text).ids)


def continuation_pieces(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Says which vocabulary entries continue the word before them.

    Returns:
        (vocabulary,) bool. WordPiece marks continuations ("##ing"); byte-pair and SentencePiece vocabularies mark
        beginnings instead ("Ġword", "▁word"), and every unmarked piece that is not a special token continues.
    """
    pieces = [str(tokenizer.convert_ids_to_tokens(index)) for index in range(len(tokenizer))]
    special = set(tokenizer.all_special_tokens)
    marker = next((mark for mark in ("Ġ", "▁") if any(piece.startswith(mark) for piece in pieces)), None)
    if marker is None:
        return torch.tensor([piece.startswith("##") for piece in pieces])
    return torch.tensor([not piece.startswith(marker) and piece not in special for piece in pieces])


_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # BERT's order: padding is 0
_RAREST = 2  # a pair of pieces seen less often is not joined


def learn_wordpieces(sentences: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """Learns a BERT vocabulary; equal sentences give equal ids in every process.

    Args:
        sentences: cleaned.
        size: most pieces; fewer come of few sentences.

    Raises:
        ConfigurationError: `size` does not even hold the single characters.
    """
    from tokenizers import BertWordPieceTokenizer

    characters = sorted({character for sentence in sentences for character in sentence if not character.isspace()})
    # The library numbers characters in the order of a hash that differs from run to run, unless they are given to it.
    given = [*_SPECIAL, *characters, *(f"##{character}" for character in characters)]
    if size < len(given):
        raise ConfigurationError(
            describe(
                "The vocabulary is too small for the characters of its texts",
                got=size,
                expected=f"{len(given)} or more",
                then="raise text.vocabulary",
            )
        )
    learner = BertWordPieceTokenizer(lowercase=True)
    learner.train_from_iterator(
        sentences, vocab_size=size, min_frequency=_RAREST, special_tokens=given, show_progress=False
    )
    found = learner.get_vocab()
    return to_wordpiece_tokenizer(sorted(found, key=found.__getitem__))
