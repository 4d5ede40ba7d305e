"""Several weights on one public test set: the same images, truth and protocol, paired differences to the first."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carzero.core.outputs import make_folder, refuse_existing, to_file_name
from carzero.core.run_record import journal_path, manifest_path
from carzero.datasets.base import PublicDataset
from carzero.errors import ConfigurationError, describe
from carzero.evaluation.benchmark.classification import (
    SCORES_FILE,
    BenchmarkResult,
    Output,
    Progress,
    Terms,
    add_review,
    benchmark_images,
    no_progress,
)
from carzero.images import load_image
from carzero.inference.scoring import ScoringSettings
from carzero.inference.scoring_result import failures_path
from carzero.metrics.normality import NORMAL_SCORE
from carzero.metrics.resampling import Statistics
from carzero.metrics.rows import MetricRow
from carzero.metrics.table import Cohort, Measures, compare
from carzero.prompts import PromptSet, load_prompt_set
from carzero.records import ScoreKind
from carzero.weights.families import CARZERO, FAMILIES
from carzero.weights.source import WeightsSource

if TYPE_CHECKING:
    from carzero.inference.classifier import ZeroShotClassifier

WORDINGS = {
    "common": "the set's common prompts, the same sentences for every model (for differences: those that deny, too)",
    "authors": "as the model's authors ask, its own template for each label",
}
BOTH = "both"  # a wording where both are the same sentences

_TIMED_IMAGES = 8
_TIMED_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """What scoring takes, on the machine at hand.

    Attributes:
        seconds_an_image: median time of a pass over a batch, from pixel values to scores, for each image of it.
        weights_mb: memory of the parameters, in 10^6 bytes.
        peak_mb: largest memory of the GPU during the pass, in 10^6 bytes; None on a CPU.
    """

    seconds_an_image: float
    weights_mb: float
    peak_mb: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """One model, asked in one way.

    Attributes:
        name: of the weights and the wording.
        short_name: of the weights alone, such as their folder's; no other weights of the benchmark share it.
        weights: where they are.
        wording: a key of `WORDINGS`, or `BOTH` where both are the same sentences.
        settings: how it was scored.
        result: on the set.
        cost: what scoring takes.
        map_kind: what its maps are, in words; empty where it has none.
    """

    name: str
    short_name: str
    weights: WeightsSource
    wording: str
    settings: ScoringSettings
    result: BenchmarkResult
    cost: Cost
    map_kind: str


@dataclass(frozen=True, slots=True, eq=False)
class SeveralResult:
    """What a benchmark of several weights found.

    Attributes:
        dataset: the public data set.
        contenders: in the order of the weights.
        differences: rows of paired differences, "a - b" in `group`, a being each contender and b the first.
        statistics: of the intervals.
    """

    dataset: PublicDataset
    contenders: Sequence[Contender]
    differences: Sequence[MetricRow]
    statistics: Statistics

    def find(self, contender: Contender, label: str = "macro") -> MetricRow | None:
        """The difference of a contender's AUROC to the first's."""
        wanted = f"{contender.name} - {self.contenders[0].name}"
        rows = (row for row in self.differences if row.group == wanted and row.label == label)
        return next((row for row in rows if row.metric == "auroc_difference" and "bootstrap" in row.method), None)

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "contenders": [
                {
                    "name": each.name,
                    "weights": each.weights.name,
                    "weights_sha256": each.weights.sha256,
                    "family": each.weights.family.title,
                    "wording": each.wording,
                    "score_kind": each.settings.prompts.score_kind,
                    "pool": each.settings.pool or each.weights.style.pool,
                    "seconds_an_image": each.cost.seconds_an_image,
                    "weights_mb": each.cost.weights_mb,
                    "peak_mb": each.cost.peak_mb,
                    "maps": each.map_kind,
                    **each.result.to_dict(),
                }
                for each in self.contenders
            ],
            "differences": [row.to_record() for row in self.differences],
        }


@dataclass(frozen=True, slots=True)
class SeveralRun:
    """A benchmark of several weights; see `carzero benchmark --help`.

    Attributes:
        dataset: the public data set.
        labels: its label files.
        images: folder that holds its images, at any depth.
        weights: two or more, or one in both wordings.
        settings: of the scoring; `weights` and `prompts` of it are replaced.
        score_kind: None is each weights' own.
        wordings: keys of `WORDINGS`.
        output: a folder for each contender below it.
        terms: of the evaluation.
        common: the prompts that all are asked; None takes those of the library for this set.
    """

    dataset: PublicDataset
    labels: Sequence[Path]
    images: Path
    weights: Sequence[WeightsSource]
    settings: ScoringSettings
    score_kind: ScoreKind | None = None
    wordings: Sequence[str] = tuple(WORDINGS)
    output: Output = field(default_factory=Output)
    terms: Terms = field(default_factory=Terms)
    common: PromptSet | None = None

    def execute(self, progress: Progress = no_progress) -> SeveralResult:
        """Scores with each of the weights, and compares.

        Raises:
            CARZeroError: settings that cannot work, or images that are missing.
        """
        if len({source.sha256 for source in self.weights}) < len(self.weights):
            raise ConfigurationError(
                describe(
                    "The same weights are named twice",
                    got=[source.name for source in self.weights],
                    expected="different ones",
                )
            )
        asked = [
            (short_name, source, wording, prompts)
            for short_name, source in zip(tell_apart(self.weights), self.weights, strict=True)
            for wording, prompts in self._wordings(source).items()
        ]
        self._make_folders([self._find_folder(short_name, wording) for short_name, _, wording, _ in asked])
        contenders = [self._contend(*each, progress) for each in asked]
        return SeveralResult(self.dataset, contenders, self._compare(contenders), self.terms.statistics)

    def _wordings(self, source: WeightsSource) -> Mapping[str, PromptSet]:
        """The prompt sets that weights are asked; one where both wordings are the same, or no author states any."""
        if self.common is None:
            common = common_prompts(self.dataset, source, self.score_kind)
        else:
            common = source.style.ask(None, self.common, score_kind=self.score_kind)
        if not source.style.stated:
            return {"common": common}
        own = source.family is FAMILIES[CARZERO]  # whose authors ask as the common prompts do
        authors = common if own else source.style.ask(list(self.dataset.labels), score_kind=self.score_kind)
        known = {"common": common, "authors": authors}
        if known["common"].hash == known["authors"].hash:
            return {BOTH: common}
        return {wording: known[wording] for wording in self.wordings}

    def _find_folder(self, short_name: str, wording: str) -> Path | None:
        return None if self.output.folder is None else self.output.folder / name_folder(short_name, wording)

    def _make_folders(self, folders: Sequence[Path | None]) -> None:
        """All of them before anything is scored: a wrong one of the last would be found when the others are done."""
        keeps = self.output.overwrite or self.output.resume
        for folder in folders:
            if folder is not None:
                make_folder(folder)
                refuse_existing([folder / SCORES_FILE], overwrite=keeps, resumable=True)

    def _contend(
        self, short_name: str, source: WeightsSource, wording: str, prompts: PromptSet, progress: Progress
    ) -> Contender:
        settings = replace(self.settings, weights=source, prompts=prompts)
        name, folder = f"{short_name}, {wording}", self._find_folder(short_name, wording)
        result = benchmark_images(
            self.dataset,
            self.labels,
            self.images,
            settings,
            output=replace(self.output, folder=folder),
            terms=self.terms,
            progress=progress,
        )
        add_review(result, settings)
        classifier = settings.load_classifier()
        kind = classifier.backend.map_kind
        cost = measure_cost(classifier, settings)
        map_kind = "" if kind is None else kind.description
        return Contender(name, short_name, source, wording, settings, result, cost, map_kind)

    def _compare(self, contenders: Sequence[Contender]) -> list[MetricRow]:
        first = contenders[0].result.joined
        rows: list[MetricRow] = []
        for other in contenders[1:]:
            joined = other.result.joined
            if first is None or joined is None:
                continue
            here = {name: row for row, name in enumerate(joined.ids)}
            shared = [row for row, name in enumerate(first.ids) if name in here]  # an image may fail in one alone
            theirs = [here[first.ids[row]] for row in shared]
            groups = None if first.groups is None else [first.groups[row] for row in shared]
            rows += compare(
                (joined.scores[theirs], first.scores[shared]),
                first.truth[shared],
                first.labels,
                names=(other.name, contenders[0].name),
                cohort=Cohort(self.dataset.name, groups),
                measures=Measures(metrics=("auroc",), averages=("macro",), alone=(NORMAL_SCORE,)),
                statistics=self.terms.statistics,
            )
        return [row for row in rows if " - " in row.group and row.metric.startswith("auroc_difference")]


def name_folder(short_name: str, wording: str) -> str:
    """The folder of a contender below the output."""
    return to_file_name(f"{short_name}-{wording}")


_FOLDER = re.compile(rf".+-({'|'.join((*WORDINGS, BOTH))})(-[0-9a-f]{{8}})?")


def remove_others(out: Path, kept: Sequence[Contender]) -> None:
    """Removes what contenders of an earlier benchmark have written below its output, and nothing else.

    Args:
        out: the folder of the output.
        kept: whose scores stay.
    """
    own = {name_folder(each.short_name, each.wording) for each in kept}
    for folder in out.iterdir():
        scores = folder / SCORES_FILE
        if folder.name in own or folder.is_symlink() or not _FOLDER.fullmatch(folder.name):
            continue
        for file in (scores, manifest_path(scores), journal_path(scores), failures_path(scores)):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a file of somebody else is in it
            folder.rmdir()


def tell_apart(weights: Sequence[WeightsSource]) -> list[str]:
    """Their short names; those that share one get as much of the way to their folder as tells them apart.

    Two runs of training may well lie in `first/weights` and `second/weights`.
    """
    parts = [Path(source.name).parts if source.short_name != source.name else (source.name,) for source in weights]
    names = [source.short_name for source in weights]
    for length in range(2, max(map(len, parts)) + 1):
        names = [
            name if names.count(name) == 1 else str(Path(*own[-length:]))
            for name, own in zip(names, parts, strict=True)
        ]
    return names


def common_prompts(dataset: PublicDataset, source: WeightsSource, score_kind: ScoreKind | None = None) -> PromptSet:
    """The set's prompts of the library: those of CARZero's paper, and for differences the pairs, which deny too.

    Args:
        dataset: the public data set.
        source: the weights.
        score_kind: None is the weights' own.
    """
    variant = "paper" if (score_kind or source.style.score_kind) == "logit" else "pairs"
    return source.style.ask(None, load_prompt_set(dataset.prompts, variant), score_kind=score_kind)


def measure_cost(classifier: ZeroShotClassifier, settings: ScoringSettings) -> Cost:
    """Times a pass over a batch of the bundled radiograph, after one that is not counted."""
    import torch

    from carzero.inference.backends import TorchBackend
    from carzero.weights.source import example_film

    backend = classifier.backend
    one = classifier.processor.image_processor.to_pixel_values(load_image(str(example_film())))
    pixels = one.expand(_TIMED_IMAGES, *one.shape).contiguous()
    bank = classifier.encode_prompts(settings.prompts)
    if (settings.pool or classifier.style.pool) == "text":
        bank = backend.merge_prompts(bank)
    on_gpu = isinstance(backend, TorchBackend) and backend.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    spent = []
    for _ in range(1 + _TIMED_ROUNDS):
        begun = time.perf_counter()
        backend.score(pixels, bank)
        spent.append(time.perf_counter() - begun)
    parameters = list(backend.model.parameters()) if isinstance(backend, TorchBackend) else []
    return Cost(
        seconds_an_image=float(np.median(spent[1:])) / _TIMED_IMAGES,
        weights_mb=sum(each.numel() * each.element_size() for each in parameters) / 1e6,
        peak_mb=torch.cuda.max_memory_allocated() / 1e6 if on_gpu else None,
    )
