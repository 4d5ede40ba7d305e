"""A vocabulary of word pieces learned from the sentences of a run."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from carzero.errors import ConfigurationError, describe
from carzero.tokenizing import to_wordpiece_tokenizer

__all__ = ["learn_wordpieces"]

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
