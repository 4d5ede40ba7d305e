"""One classifier in many threads: the same answers as alone, to the last bit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from carzero.inference.classifier import ZeroShotClassifier
from carzero.prompts import PromptSet

THREADS, CALLS = 8, 2000
TEXTS = [
    "There is edema",
    "There is no pleural effusion in the left lung",
    "There is pneumonia " * 40,  # longer than the model reads
    "There is a nodule in the right upper lobe, and there is atelectasis",
]


def test_tokens_are_the_same_in_every_thread(classifier: ZeroShotClassifier) -> None:
    processor = classifier.processor
    alone = [processor.tokenize([text]) for text in TEXTS]
    counts = [processor.count_tokens(text) for text in TEXTS]

    def ask(number: int) -> bool:
        which = number % len(TEXTS)
        if number % 3 == 0:
            return processor.count_tokens(TEXTS[which]) == counts[which]
        found = processor.tokenize([TEXTS[which]])
        return all(torch.equal(found[name], alone[which][name]) for name in found)

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(ask, range(THREADS * CALLS)))


def test_somebody_else_may_use_the_tokenizer_meanwhile(classifier: ZeroShotClassifier) -> None:
    processor = classifier.processor
    alone = processor.tokenize(TEXTS)

    def ask(number: int) -> bool:
        if number % 2:
            processor.tokenizer(TEXTS[:2], padding="longest", truncation=True, max_length=6 + number % 5)
            return True
        found = processor.tokenize(TEXTS)
        return all(torch.equal(found[name], alone[name]) for name in found)

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(ask, range(THREADS * 50)))


def test_prompts_scores_and_maps_are_the_same_in_every_thread(
    classifier: ZeroShotClassifier, films: list[Path]
) -> None:
    sets = [PromptSet.from_request([label], None) for label in ("edema", "pleural effusion", "nodule of the left lung")]
    tables = [classifier.predict(films[:2], prompts=prompts) for prompts in sets]
    peaks = [classifier.ground(films[0], prompts=prompts)[0].peak for prompts in sets]

    def ask(number: int) -> bool:
        which = number % len(sets)
        if number % 4 == 0:
            return classifier.ground(films[0], prompts=sets[which])[0].peak == peaks[which]
        return classifier.predict(films[:2], prompts=sets[which]).equals(tables[which])

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(ask, range(THREADS * 4)))


def test_a_slow_tokenizer_is_refused(classifier: ZeroShotClassifier) -> None:
    from carzero.errors import WeightsError
    from carzero.text.tokenizers import FixedLengthEncoder

    with pytest.raises(WeightsError, match="a fast tokenizer"):
        FixedLengthEncoder(object(), 8)  # type: ignore[arg-type]
