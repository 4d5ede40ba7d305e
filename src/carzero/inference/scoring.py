"""A scoring run over many images: with a journal, so that it can be killed and resumed, then saved whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from carzero.core.atomic import AGAIN, RESUME, remove_leftovers, room_for
from carzero.core.journal import Journal, open_run
from carzero.core.outputs import PairNames, check_resumable, make_folder, refuse_existing_in
from carzero.core.run_record import RunRecord, recorded_setting, save_manifest
from carzero.images.loading import LIMIT_S, Readers
from carzero.inference.places import describe_score
from carzero.inference.score_calibration import CALIBRATION, ScoreCalibration, find_origin
from carzero.inference.score_table import (
    check_packed,
    check_score_path,
    load_score_pieces,
    pack_frame,
    pack_result,
    save_score_pieces,
)
from carzero.inference.scoring_result import RunResult, ScoredRows, describe_failures, failures_path, save_failures
from carzero.prompts import PromptSet
from carzero.records import FailedImage, ImageItem, Pool, ScoredImage, ScoreProvenance
from carzero.weights.precision import resolve_dtype
from carzero.weights.source import WeightsSource

if TYPE_CHECKING:
    from carzero.inference.classifier import ZeroShotClassifier


@dataclass(frozen=True, slots=True)
class ScoringSettings:
    """Weights, prompts, and how scores are computed; the same for every way of running it.

    Attributes:
        weights: where they are.
        prompts: labels and their sentences.
        pool: how the prompts of a label become one; None is the weights' own.
        force: whether readable images that are not chest radiographs are scored too.
        batch_size: images in one pass; changes speed and memory, not scores.
        device: where to compute; None takes a GPU if there is one.
        dtype: precision to compute in, see `carzero.weights.precision.DTYPES`; None is float32.
        bank: folder of the prompts already encoded; None encodes them.
    """

    weights: WeightsSource
    prompts: PromptSet
    pool: Pool | None = None
    force: bool = False
    batch_size: int = 16
    device: str | None = None
    dtype: str | None = None
    bank: Path | None = None

    def load_classifier(self) -> ZeroShotClassifier:
        """The weights, in the precision asked for."""
        from carzero.inference.classifier import ZeroShotClassifier

        return ZeroShotClassifier.from_pretrained(self.weights, device=self.device, dtype=self.dtype)

    def provenance(self, resumed: Path | None) -> ScoreProvenance:
        """Where scores come from that are computed so.

        Args:
            resumed: output of the run that is resumed, or None. Where no precision is asked for, or "auto", it keeps
                its own.

        Raises:
            WeightsError: the weights are not whole.
            ConfigurationError: an unknown precision or device.
        """
        recorded = recorded_setting(resumed, "dtype") if resumed is not None and self.dtype in (None, "auto") else None
        return replace(
            self.origin,
            weights=self.weights.name,
            prompts_sha256=self.prompts.hash,
            dtype=str(recorded or resolve_dtype(self.dtype, self.weights, self.device)),
            force=self.force,
        )

    @property
    def origin(self) -> ScoreProvenance:
        """The part of it that a calibration must agree with; see `find_origin`."""
        return find_origin(self.weights, self.prompts, self.pool)


def build_manifest(record: RunRecord, provenance: ScoreProvenance, **results: object) -> dict[str, object]:
    """The manifest of scores: when and how they were made, from what, and what came of the run."""
    dated = record.dated()
    return {
        "date": dated.date,
        "weights": provenance.weights,
        **dated.identity,
        "score_kind": provenance.score_kind or "logit",
        "prompts": _to_lists(provenance.prompts or {}),
        **({} if provenance.negative_prompts is None else {"negative_prompts": _to_lists(provenance.negative_prompts)}),
        **results,
    }


def _to_lists(prompts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {label: list(texts) for label, texts in prompts.items()}


class _Overlays:
    """The images that a run draws into a folder: one for each image and finding."""

    def __init__(
        self, folder: Path, asked: Sequence[str], labels: Sequence[str], calibration: ScoreCalibration | None
    ) -> None:
        self.folder = folder
        self._calibration = calibration
        self.drawn: list[Path] = []
        self._asked, self._labels = list(asked), list(labels)
        self._name = PairNames(labels)
        self._replace = False

    def prepare(self, items: Sequence[ImageItem], *, replace: bool) -> None:
        """Makes the folder, and refuses to draw over what another run has drawn there unless it may be replaced."""
        make_folder(self.folder)
        self._replace = replace
        pairs = ((item.image_id, label) for item in items for label in self._labels)
        refuse_existing_in(self.folder, (f"{self._name(*pair)}.png" for pair in pairs), overwrite=replace)
        remove_leftovers(self.folder)

    def draw(self, classifier: ZeroShotClassifier, image: ScoredImage) -> None:
        from carzero.images.overlay import OverlayMarks, save_overlay

        for grounding in classifier.to_groundings(image, self._asked, self._calibration):
            if grounding.label not in self._labels:
                continue
            path = self.folder / f"{self._name(image.item.image_id, grounding.label)}.png"
            marks = OverlayMarks(
                grounding.label,
                describe_score(grounding.logit, grounding.probability),
                grounding.peak,
                image=image.item.image_id,
                caution=grounding.doubt,
                probability=grounding.probability,
            )
            pixels = image.radiograph.pixels  # type: ignore[union-attr]
            save_overlay(path, pixels, grounding.heatmap, marks, kind=image.map_kind, overwrite=self._replace)
            self.drawn.append(path)


Advance = Callable[[int, int], None]
NORMAL_BY = "normal_score_by"  # what may follow a run beside probabilities, by the name that its record has for it


@dataclass(slots=True)
class ScoringRun:
    """One run over a list of images; see `carzero predict --help` for each option.

    Attributes:
        drawn: labels of which overlays are drawn; None: all.
        following: what is to be added to the scores afterwards, by `CALIBRATION` (`ScoreCalibration.record`) or
            `NORMAL_BY`, so that no other run, with another one or with none, takes up the output and drops its columns.
        calibration: of these scores; overlays are as strong as its probabilities.
    """

    items: Sequence[ImageItem]
    settings: ScoringSettings
    out: Path | None = None
    overlay: Path | None = None
    drawn: Sequence[str] | None = None
    resume: bool = False
    overwrite: bool = False
    readers: int | None = None
    read_limit_s: float = LIMIT_S
    following: Mapping[str, str] = field(default_factory=dict)
    calibration: ScoreCalibration | None = None
    _overlays: _Overlays | None = field(default=None, init=False)

    def execute(self, advance: Advance = lambda done, failed: None) -> RunResult:
        """Scores what is not scored yet, and saves the whole.

        Rows wait in a file, in the order in which they are finished; the result has the order of the inputs.

        Args:
            advance: called with the numbers of images done and failed, after each batch.

        Raises:
            CARZeroError: settings that cannot work, or another run's journal in the way. Broken images are no
                error here: they are listed in the result.
        """
        if self.out is not None:
            check_score_path(self.out)
        check_resumable(self.out, resume=self.resume)
        if self.overlay is not None:
            asked = self.settings.prompts.labels
            self._overlays = _Overlays(self.overlay, asked, self.drawn or asked, self.calibration)
            self._overlays.prepare(self.items, replace=self.overwrite or self.resume)
        provenance = self.settings.provenance(self.out if self.resume else None)
        record = RunRecord({**provenance.settings, **self.following})
        journal = self._open_journal(record)
        try:
            self._score(journal, str(provenance.dtype), advance)
            return self._finish(journal, record, provenance)
        finally:
            if self.out is not None:  # rows of a run without a table are read from the journal
                journal.close()

    def _score(self, journal: Journal, dtype: str, advance: Advance) -> None:
        known = {item.image_id for item in self.items if _is_scored(journal, item)}
        if len(known) == len(self.items):
            return
        remaining = [item for item in self.items if item.image_id not in known]
        failed, done = 0, len(known)
        with closing(self._batches(remaining, dtype)) as batches:
            for batch in batches:
                journal.append([pack_result(result) for result in batch])
                failed += sum(isinstance(result, FailedImage) for result in batch)
                done += len(batch)
                advance(done, failed)

    def _batches(self, items: list[ImageItem], dtype: str) -> Generator[list[ScoredImage | FailedImage], None, None]:
        with Readers(
            self.readers, images=len(items), isolated=True, limit_s=self.read_limit_s
        ) as readers:  # they start beside torch
            # torch is loaded here and not above, so that a run with nothing left to do ends at once.
            from carzero.inference.classifier import ZeroShotClassifier

            asked = self.settings
            classifier = ZeroShotClassifier.from_pretrained(asked.weights, device=asked.device, dtype=dtype)
            bank = classifier.load_prompts(asked.bank) if asked.bank else classifier.encode_prompts(asked.prompts)
            results = classifier.stream(
                items,
                bank,
                pool=asked.pool,
                batch_size=asked.batch_size,
                force=asked.force,
                need_maps=self.overlay is not None,
                readers=readers,
                in_order=False,
            )
            drawn = self._drawn(classifier, results)
            while batch := list(itertools.islice(drawn, asked.batch_size)):
                yield batch

    def _drawn(
        self, classifier: ZeroShotClassifier, results: Iterator[ScoredImage | FailedImage]
    ) -> Iterator[ScoredImage | FailedImage]:
        """Passes results on, with their overlays drawn where they are wanted."""
        for result in results:
            if self._overlays is not None and isinstance(result, ScoredImage):
                with room_for("The overlays", self._overlays.folder, RESUME if self.out else AGAIN):
                    self._overlays.draw(classifier, result)
            yield result

    def _open_journal(self, record: RunRecord) -> Journal:
        out, labels = self.out, self.settings.prompts.labels
        return open_run(
            out,
            record,
            resume=self.resume,
            overwrite=self.overwrite,
            key="image_id",
            check=partial(check_packed, labels=labels),
            restore=None if out is None else partial(_restore, out, record, len(labels)),
        )

    def _finish(self, journal: Journal, record: RunRecord, provenance: ScoreProvenance) -> RunResult:
        review = self.settings.weights.review(self.settings.prompts)
        rows = ScoredRows(self.items, journal, self.settings.prompts.labels, review.mark)
        if self.out is not None:
            with room_for(str(self.out), self.out.parent, f"{RESUME}; what is finished is kept"):
                save_score_pieces(rows.pieces(), self.out)
                save_failures(rows.failures, self.out)
        else:
            for _ in rows.plain_rows():
                pass
        manifest = build_manifest(
            record,
            provenance,
            images=len(self.items),
            scored=rows.scored,
            **review.to_manifest(),
            **describe_failures(rows.failures, "" if self.out is None else failures_path(self.out).name),
        )
        if self.out is not None:
            with room_for(str(self.out), self.out.parent, f"{RESUME}; what is finished is kept"):
                save_manifest(manifest, self.out)
            journal.remove()
        return RunResult(rows, self.out, manifest, [] if self._overlays is None else self._overlays.drawn)


def _is_scored(journal: Journal, item: ImageItem) -> bool:
    """Whether a journal holds this image's scores. Failures are retried.

    A key alone is not enough: another folder may hold other images under the same names.
    """
    row = journal.rows.get(item.image_id)
    return row is not None and "reason" not in row and row["path"] == item.path


def _restore(out: Path, record: RunRecord, labels: int) -> tuple[RunRecord, Iterator[dict[str, object]]]:
    """Record and rows of a finished table, so that only failures and new images are scored."""
    rows = (row for piece in load_score_pieces(out, labels) for row in pack_frame(piece))
    return RunRecord.load(out, {*record.settings, CALIBRATION, NORMAL_BY}), rows
