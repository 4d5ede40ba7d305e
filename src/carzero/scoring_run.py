"""A scoring run over many pictures: journalled as it goes, so that it can be killed and resumed, then saved whole."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carzero.data.file_names import to_file_name
from carzero.data.images import ImageItem
from carzero.data.journal import Journal, check_same_run
from carzero.data.scores import check_score_path, load_scores, manifest_path, save_scores, score_row, to_frame, to_rows
from carzero.errors import TableError, describe
from carzero.outputs import FailedImage, ScoredImage
from carzero.prompts import PromptSet
from carzero.scoring_settings import scoring_settings

if TYPE_CHECKING:
    import pandas as pd

    from carzero.zeroshot import ZeroShotClassifier

__all__ = ["RunResult", "ScoringRun"]

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run produced.

    Attributes:
        table: one row a scored picture, in the order of the inputs; see `ZeroShotClassifier.predict`.
        failures: `image_id`, `path` and `reason` of every picture that was not scored.
        manifest: where the numbers came from.
        overlays: pictures drawn.
    """

    table: pd.DataFrame
    failures: list[dict[str, str]]
    manifest: dict[str, Any]
    overlays: list[Path]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "scores": to_rows(self.table),
            "failures": self.failures,
            "manifest": self.manifest,
        }


@dataclass(slots=True)
class ScoringRun:
    """The settings of one run; see `carzero predict --help` for each."""

    items: list[ImageItem]
    prompt_set: PromptSet
    weights: str = "demo"
    out: Path | None = None
    overlay: Path | None = None
    resume: bool = False
    overwrite: bool = False
    force: bool = False
    pool: Any = "mean"
    batch_size: int = 16
    device: str | None = None
    dtype: str = "auto"
    _overlays: list[Path] = field(default_factory=list)

    def execute(self, advance: Advance = lambda done, failed: None) -> RunResult:
        """Scores what is not scored yet, and saves the whole.

        Args:
            advance: called with the numbers of pictures done and failed, after each batch.

        Raises:
            CARZeroError: settings that cannot work, or another run's journal in the way. Broken pictures are no
                error here: they are listed in the result.
        """
        if self.out is not None:
            check_score_path(self.out)
        if self.resume and self.out is None:
            raise TableError(describe("--resume needs --out", then="name the output of the interrupted run"))
        if self.overlay is not None:
            _make_folder(self.overlay)
        settings = scoring_settings(
            self.weights,
            self.prompt_set,
            dtype=self.dtype,
            device=self.device,
            pool=self.pool,
            force=self.force,
            resumed=self.out if self.resume else None,
        )
        rows, journal = self._open_journal(settings)
        # A key alone is not enough: another folder may hold other pictures under the same names. Failures are retried.
        known = {(image_id, row["path"]) for image_id, row in rows.items() if "reason" not in row}
        rows = {item.image_id: rows[item.image_id] for item in self.items if (item.image_id, item.path) in known}
        self._score(rows, journal, settings, advance)
        return self._finish(rows, journal, settings)

    def _score(
        self,
        rows: dict[str, dict[str, Any]],
        journal: Journal | None,
        settings: dict[str, Any],
        advance: Advance,
    ) -> None:
        remaining = [item for item in self.items if item.image_id not in rows]
        if not remaining:
            return
        failed = 0
        done = len(self.items) - len(remaining)
        for batch in self._batches(remaining, settings["dtype"]):
            finished = [self._to_row(result) for result in batch]
            if journal is not None:
                journal.append(finished)
            rows.update({row["image_id"]: row for row in finished})
            failed += sum("reason" in row for row in finished)
            done += len(finished)
            advance(done, failed)

    def _batches(self, items: list[ImageItem], dtype: str) -> Iterator[list[ScoredImage | FailedImage]]:
        # torch is loaded here and not above, so that a run with nothing left to do ends at once.
        from carzero.zeroshot import ZeroShotClassifier

        classifier = ZeroShotClassifier.from_pretrained(self.weights, device=self.device, dtype=dtype)
        bank = classifier.encode_prompts(self.prompt_set)
        batch: list[ScoredImage | FailedImage] = []
        stream = classifier.stream(
            items,
            bank,
            pool=self.pool,
            batch_size=self.batch_size,
            force=self.force,
            need_maps=self.overlay is not None,
        )
        for result in stream:
            if self.overlay is not None and isinstance(result, ScoredImage):
                self._overlays += _draw(classifier, result, self.prompt_set.labels, self.overlay)
            batch.append(result)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _to_row(self, result: ScoredImage | FailedImage) -> dict[str, Any]:
        if isinstance(result, FailedImage):
            return {"image_id": result.image_id, "path": result.path, "reason": result.reason}
        return score_row(result, self.prompt_set.labels)

    def _open_journal(self, settings: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], Journal | None]:
        if self.out is None:
            return {}, None
        path = self.out.with_name(self.out.name + ".journal")
        if self.resume and not self.overwrite:
            if path.exists():
                journal = Journal.resume(path, settings)
                return dict(journal.rows), journal
            finished = _load_finished(self.out, settings)
            journal = Journal.start(path, settings)
            journal.append(finished.values())
            return finished, journal
        if path.exists() and not self.overwrite:
            raise TableError(
                describe(
                    f"An interrupted run of {self.out} is waiting in {path.name}",
                    then="go on with --resume, or start anew with --overwrite",
                )
            )
        journal = Journal.start(path, settings)
        return {}, journal

    def _finish(self, rows: dict[str, dict[str, Any]], journal: Journal | None, settings: dict[str, Any]) -> RunResult:
        ordered = [rows[item.image_id] for item in self.items if item.image_id in rows]
        failures = [row for row in ordered if "reason" in row]
        table = to_frame([row for row in ordered if "reason" not in row], self.prompt_set.labels)
        manifest = self._manifest(settings, len(table), failures)
        if self.out is not None:
            save_scores(table, self.out, manifest)
        if journal is not None:
            journal.remove()
        return RunResult(table, failures, manifest, self._overlays)

    def _manifest(self, settings: dict[str, Any], scored: int, failures: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "weights": self.weights,
            **settings,
            "score_kind": "logit",
            "prompts": {label: list(prompts) for label, prompts in self.prompt_set},
            "images": len(self.items),
            "scored": scored,
            "failures": failures,
        }


def _load_finished(out: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows of the finished table of the same run by image_id; none where there is no table.

    Raises:
        TableError: the table is of a run with other settings, or it or its manifest cannot be read.
    """
    side_car = manifest_path(out)
    if not out.exists() or not side_car.exists():
        return {}
    try:
        manifest = dict(json.loads(side_car.read_bytes()))
    except (ValueError, TypeError) as error:
        raise TableError(
            describe(f"{side_car} is no manifest of a run", then="delete it, or choose another output")
        ) from error
    check_same_run(out, {key: manifest.get(key) for key in settings}, settings)
    return {row["image_id"]: row for row in to_rows(load_scores(out))}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TableError(describe("The folder for overlays cannot be made", got=str(error))) from error


def _draw(classifier: ZeroShotClassifier, image: ScoredImage, labels: list[str], folder: Path) -> list[Path]:
    from carzero.pixels.overlay import save_overlay

    paths = []
    for grounding in classifier.to_groundings(image, labels):
        path = folder / f"{to_file_name(image.image_id)}__{to_file_name(grounding.label)}.png"
        save_overlay(
            path,
            image.radiograph.pixels,  # type: ignore[union-attr]
            grounding.heatmap,
            title=grounding.label,
            subtitle=f"logit {grounding.logit:.2f}",
            peak=grounding.peak,
        )
        paths.append(path)
    return paths
