"""Statements: which sentences a batch of images meets, and which of them hold for which image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from carzero.errors import ConfigurationError, describe
from carzero.text.cleaning import clean_text
from carzero.text.laterality import find_without_mirror, is_lateral, mirror_sides
from carzero.training.recipe_sections import ReportSection, WordingSection


@dataclass(frozen=True, slots=True)
class SentenceBatch:
    """Sentences of one step and what they say of its images.

    Attributes:
        texts: T sentences.
        match: (I, T) bool, the sentence holds for the image.
        known: (I, T) bool, False where nobody knows; such pairs are left out of the loss. None: all are known.
    """

    texts: list[str]
    match: torch.Tensor
    known: torch.Tensor | None = None

    def fill(self, least: int) -> SentenceBatch:
        """The same with at least so many texts, one for every process; what is added is left out of the loss."""
        lacking = least - len(self.texts)
        if lacking <= 0:
            return self
        none = torch.zeros(len(self.match), lacking, dtype=torch.bool)
        known = torch.ones_like(self.match) if self.known is None else self.known
        texts = [*self.texts, *self.texts[:1] * lacking]
        return SentenceBatch(texts, torch.cat([self.match, none], dim=1), torch.cat([known, none], dim=1))


class Statements(Protocol):
    """Where a run's sentences come from: findings (`FindingStatements`) or reports (`ReportStatements`)."""

    @property
    def all_sentences(self) -> list[str]:
        """Every sentence that can occur, each once."""

    @property
    def mirrorable(self) -> NDArray[np.bool_]:
        """(N,) the rows whose image may be mirrored, as their sentences can be; all False where none is to be."""

    def count_sentences(self, rows: NDArray[np.int64]) -> Counter[str]:
        """The sentences that hold for some rows, each with the number of rows.

        Args:
            rows: (I,) rows of the table, each once.
        """

    def draw(self, rows: NDArray[np.int64], mirrored: NDArray[np.bool_], random: np.random.Generator) -> SentenceBatch:
        """Draws the sentences of one step.

        Args:
            rows: (I,) rows of the table.
            mirrored: (I,) images whose left and right are exchanged; only such as are `mirrorable`.
            random: source of every choice.
        """


def to_label_matrix(
    present: Sequence[Sequence[str]], absent: Sequence[Sequence[str]], findings: Sequence[str]
) -> NDArray[np.float32]:
    """Findings named row by row as a matrix (N, findings): 1 present, 0 absent, NaN unknown; others are left aside."""
    position = {finding: column for column, finding in enumerate(findings)}
    labels = np.full((len(present), len(findings)), np.nan, dtype=np.float32)
    for row, pools in enumerate(zip(present, absent, strict=True)):
        for names, value in zip(pools, (1.0, 0.0), strict=True):
            for name in names:
                if name in position:
                    labels[row, position[name]] = value
    return labels


class ReportStatements:
    """Sentences of each image's report.

    Sentences are compared as the model reads them, cleaned: "No effusion." and "no effusion" are one. A row with a
    sentence that cannot be mirrored, such as one on the lingula, keeps its image as it is.

    Attributes:
        pools: of each row, the cleaned sentences.
        mirrorable: (N,) see `Statements`.

    Args:
        sentences: of each row's report, as written; those that cleaning empties are left out.
        options: see `ReportSection`.
        mirrors: whether images may be mirrored.
    """

    def __init__(self, sentences: Sequence[Sequence[str]], options: ReportSection, *, mirrors: bool = False) -> None:
        self._options = options
        self.pools = [list(dict.fromkeys(filter(None, map(clean_text, pool)))) for pool in sentences]
        every = dict.fromkeys(sentence for pool in sentences for sentence in pool) if mirrors else {}
        obstacles = {sentence: _find_obstacle(sentence) for sentence in every}
        self._obstacles = [next(filter(None, map(obstacles.get, pool)), None) for pool in sentences]
        self.mirrorable = np.array([mirrors and obstacle is None for obstacle in self._obstacles], dtype=bool)

    @property
    def all_sentences(self) -> list[str]:
        """Every sentence that can occur, each once."""
        every = dict.fromkeys(sentence for pool in self.pools for sentence in pool)
        turned = dict.fromkeys(s for pool, can in zip(self.pools, self.mirrorable, strict=True) if can for s in pool)
        every |= dict.fromkeys(mirror_sides(sentence) for sentence in turned if is_lateral(sentence))
        return list(every)

    def count_sentences(self, rows: NDArray[np.int64]) -> Counter[str]:
        """See `Statements`."""
        return Counter(sentence for row in rows for sentence in self.pools[int(row)])

    def describe_unmirrored(self, rows: NDArray[np.int64]) -> str | None:
        """How many of some rows are never mirrored and what stands in the way, in a sentence; None where all may be."""
        found = Counter(obstacle for row in rows if (obstacle := self._obstacles[int(row)]))
        if not found:
            return None
        named = ", ".join(f"{obstacle} {count}" for obstacle, count in found.most_common(_NAMED))
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        return (
            f"{found.total()} of {len(rows)} images are never mirrored, as their sentences name what the other side "
            f"does not have: {named}{more}"
        )

    def draw(self, rows: NDArray[np.int64], mirrored: NDArray[np.bool_], random: np.random.Generator) -> SentenceBatch:
        """Draws sentences; a mirrored image's have left and right exchanged.

        Raises:
            ValueError: a row is mirrored that cannot be.
        """
        if (wrong := rows[mirrored & ~self.mirrorable[rows]]).size:
            raise ValueError(f"Rows {wrong[:5].tolist()} are mirrored, and their sentences cannot be: ask mirrorable.")
        pools = [
            [mirror_sides(sentence) for sentence in self.pools[row]] if flip else self.pools[row]
            for row, flip in zip(rows, mirrored, strict=True)
        ]
        if self._options.per_image == "all":
            texts = [sentence for pool in pools for sentence in pool]
            owners = [owner for owner, pool in enumerate(pools) for _ in pool]
        else:
            texts = [pool[int(random.integers(len(pool)))] for pool in pools]
            owners = list(range(len(pools)))
        if not self._options.multi_positive:
            match = np.zeros((len(pools), len(texts)), dtype=bool)
            match[owners, np.arange(len(texts))] = True
            return SentenceBatch(texts, torch.from_numpy(match))
        texts = list(dict.fromkeys(texts))
        held = [set(pool) for pool in pools]
        holds = [[text in pool for text in texts] for pool in held]
        return SentenceBatch(texts, torch.tensor(holds, dtype=torch.bool).reshape(len(pools), len(texts)))


_NAMED = 8  # obstacles, in a note
_UNCLEAR = "a side that cleaning changes"


def _find_obstacle(sentence: str) -> str | None:
    """What keeps a sentence of a report from being mirrored; None where nothing does.

    It is read as written and as cleaned: "D-TGA" is known by its hyphen, and a side must be the same one in both.
    """
    cleaned = clean_text(sentence)
    if not cleaned:
        return None
    if (found := find_without_mirror(sentence) or find_without_mirror(cleaned)) is not None:
        return found
    return None if clean_text(mirror_sides(sentence)) == mirror_sides(cleaned) else _UNCLEAR


def to_sentences(
    phrases: Mapping[str, Sequence[str] | Mapping[str, Sequence[str]]],
    wording: WordingSection | None = None,
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Sentences for the presence and for the absence of each finding.

    Args:
        phrases: finding to a list of phrases, put into every form of `wording`; or to whole sentences,
            `{"present": [...], "absent": [...]}`, for findings that read otherwise.
        wording: None: "There is {phrase}" and "There is no {phrase}".

    Raises:
        ConfigurationError: a finding has no sentence for presence.
    """
    forms = wording or WordingSection()
    present: dict[str, list[str]] = {}
    absent: dict[str, list[str]] = {}
    for finding, pool in phrases.items():
        if isinstance(pool, Mapping):
            present[finding], absent[finding] = list(pool.get("present", ())), list(pool.get("absent", ()))
        else:
            present[finding] = [form.format(phrase) for form in forms.present for phrase in pool]
            absent[finding] = [form.format(phrase) for form in forms.absent for phrase in pool]
        if not present[finding]:
            raise ConfigurationError(
                describe(f'The finding "{finding}" has no sentence', expected="at least one phrase or sentence")
            )
    return present, absent


class FindingStatements:
    """Sentences on what is labelled of each image.

    Args:
        phrases: see `to_sentences`.
        present: findings that hold, row by row of the table.
        absent: findings that are denied.
        mirrors: whether images may be mirrored; sentences are shared between images, so none may then name a side.
        wording: see `to_sentences`.

    Raises:
        ConfigurationError: a finding without a sentence, or a sentence with a side among mirrored images.
    """

    def __init__(
        self,
        phrases: Mapping[str, Sequence[str] | Mapping[str, Sequence[str]]],
        present: Sequence[Sequence[str]],
        absent: Sequence[Sequence[str]],
        *,
        mirrors: bool = False,
        wording: WordingSection | None = None,
    ) -> None:
        self._mirrors = mirrors
        self.present, self.absent = to_sentences(phrases, wording)
        self.findings = list(phrases)
        self.labels = to_label_matrix(present, absent, self.findings)
        lateral = [sentence for sentence in self.all_sentences if is_lateral(sentence)]
        if mirrors and lateral:
            raise ConfigurationError(
                describe(
                    "Mirrored images are to meet sentences that name a side",
                    got=lateral[:3],
                    expected="pixels.flip: 0, or findings without a side",
                )
            )

    @property
    def mirrorable(self) -> NDArray[np.bool_]:
        """(N,) see `Statements`: sentences without a side are true of any mirrored image."""
        return np.full(len(self.labels), self._mirrors)

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """(N,) the rows of which some finding is known."""
        return np.asarray((~np.isnan(self.labels)).any(axis=1))

    @property
    def all_sentences(self) -> list[str]:
        """Every sentence that can occur, each once."""
        every = [s for pool in (self.present, self.absent) for sentences in pool.values() for s in sentences]
        return list(dict.fromkeys(every))

    def count_sentences(self, rows: NDArray[np.int64]) -> Counter[str]:
        """See `Statements`."""
        counted: Counter[str] = Counter()
        for index, finding in enumerate(self.findings):
            column = self.labels[rows, index]
            for pool, holds in ((self.present, 1.0), (self.absent, 0.0)):
                if images := int((column == holds).sum()):
                    counted.update(dict.fromkeys(pool[finding], images))
        return counted

    def draw(
        self,
        rows: NDArray[np.int64],
        mirrored: NDArray[np.bool_],
        random: np.random.Generator,
    ) -> SentenceBatch:
        """Draws, for every finding that the batch knows of, one sentence for its presence and one for its absence."""
        texts: list[str] = []
        columns: list[NDArray[np.float32]] = []
        for index, finding in enumerate(self.findings):
            column = self.labels[rows, index]
            if np.isnan(column).all():
                continue
            for pool, holds in ((self.present, 1.0), (self.absent, 0.0)):
                if sentences := pool[finding]:
                    texts.append(sentences[int(random.integers(len(sentences)))])
                    columns.append(np.where(np.isnan(column), np.nan, column == holds))
        verdicts = np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))
        known = ~np.isnan(verdicts)
        return SentenceBatch(texts, torch.from_numpy(np.nan_to_num(verdicts) == 1), torch.from_numpy(known))
