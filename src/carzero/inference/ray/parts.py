"""Scoring one part: fast, and image by image where a worker has died on it before; and the worker around it."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carzero.core.documents import parse_json_object
from carzero.errors import CARZeroError, RunError, describe
from carzero.images.loading import Readers
from carzero.inference.ray.score_folder import ScoreFolder, find_score_folder
from carzero.inference.score_table import score_row
from carzero.inference.scoring import ScoringSettings
from carzero.records import FailedImage, ImageItem, ScoredImage

if TYPE_CHECKING:
    from carzero.inference.classifier import ZeroShotClassifier

_DEATHS = 2  # of workers on one image by itself, after which the image counts as a failure


@dataclass(frozen=True, slots=True)
class PartJob:
    """What every worker is told.

    Attributes:
        out: folder of the run, an absolute path that every worker sees.
        run: hash of the run.
        settings: what to compute, in a precision that every worker is to use; a bank's path is an absolute one that
            every worker sees.
        weights_sha256: hash of the weights where the run was started; a worker with others refuses to work.
        version: of CARZero where the run was started, likewise.
        mark: labels that are unfamiliar, for the column of that name.
    """

    out: Path
    run: str
    settings: ScoringSettings
    weights_sha256: str
    version: str
    mark: str = ""


@dataclass(frozen=True, slots=True)
class PartResult:
    """How a part went: images scored, images failed, and how often work on it was cut short before."""

    number: int
    scored: int
    failed: int
    repeated: int


class PartNotes:
    """What has happened to a part so far, one JSON object a line; a line torn by a kill is passed over.

    It tells the next worker what the last one died of. It is no `Journal`: it is written by one worker after another,
    the last of which may still be dying, so it has no lock, and a torn line may stand anywhere.

    Args:
        path: the file; it need not exist.

    Attributes:
        attempts: how often a worker has begun this part.
        rows: finished rows by image_id, scored or with a `reason`.
        deaths: how often a worker has begun an image by itself and ended before the image was done, by image_id.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attempts = 0
        self.rows: dict[str, dict[str, object]] = {}
        self.deaths: Counter[str] = Counter()
        if path.exists():
            for line in path.read_bytes().split(b"\n"):
                self._take(line)

    def begin_part(self) -> None:
        """Says who works on the part."""
        self.attempts += 1
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n")  # closes a line that was torn, or nothing
        self._write({"host": platform.node(), "pid": os.getpid()})

    def begin_image(self, image_id: str) -> None:
        """Says which image is on; whoever finds this without a row after it knows that it was the last."""
        self._write({"begun": image_id})

    def finish_image(self, row: Mapping[str, object]) -> None:
        """Keeps a finished row."""
        self._write({"row": dict(row)})
        self.rows[str(row["image_id"])] = dict(row)

    def remove(self) -> None:
        """Deletes the notes, once the part is safe."""
        self.path.unlink(missing_ok=True)

    def _take(self, line: bytes) -> None:
        try:
            note = parse_json_object(line)
        except ValueError:
            return
        row, begun = note.get("row"), note.get("begun")
        if "pid" in note:
            self.attempts += 1
        elif isinstance(begun, str):
            self.deaths[begun] += 1
        elif isinstance(row, dict) and isinstance(image_id := row.get("image_id"), str):
            self.rows[image_id] = row
            del self.deaths[image_id]

    def _write(self, note: Mapping[str, object]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")
            file.flush()
            os.fsync(file.fileno())


class PartScorer:
    """A worker's state: weights loaded once, prompts encoded once, then part after part.

    Args:
        job: what to do.
        classifier: with the job's weights; None loads them.
        readers: read the images; None reads them in threads.

    Raises:
        RunError: this worker has other weights or another version than the run.
        TableError: this worker does not see the run's folder.
    """

    def __init__(
        self, job: PartJob, classifier: ZeroShotClassifier | None = None, readers: Readers | None = None
    ) -> None:
        _check_equal(job)
        self.job = job
        self.readers = readers
        self.folder: ScoreFolder = find_score_folder(job.out, job.run, job.settings.prompts.labels, job.mark)
        self.classifier = classifier or job.settings.load_classifier()
        if job.settings.bank is None:
            self.bank = self.classifier.encode_prompts(job.settings.prompts)
        else:
            self.bank = self.classifier.load_prompts(job.settings.bank)

    def score(self, number: int, items: Sequence[ImageItem]) -> PartResult:
        """Scores what a part lacks, and writes it.

        Args:
            number: of the part.
            items: all its images.
        """
        notes = PartNotes(self.folder.attempts_path(number))
        has_died = notes.attempts > 0
        known = {row["image_id"]: row for row in self.folder.load_rows(number)} | notes.rows
        notes.begin_part()
        missing = [item for item in items if item.image_id not in known]
        rows = self._score_singly(missing, notes) if has_died else self._score_together(missing)
        known.update({row["image_id"]: row for row in rows})
        ordered = [known[item.image_id] for item in items]
        scored = [row for row in ordered if "reason" not in row]
        failed = [row for row in ordered if "reason" in row]
        self.folder.save_part(number, scored, failed)
        notes.remove()
        return PartResult(number, len(scored), len(failed), notes.attempts - 1)

    def _score_together(self, items: Sequence[ImageItem]) -> Iterator[dict[str, object]]:
        results = self.classifier.stream(
            items,
            self.bank,
            pool=self.job.settings.pool,
            batch_size=self.job.settings.batch_size,
            force=self.job.settings.force,
            readers=self.readers,
            in_order=False,
        )
        return (self._to_row(result) for result in results)

    def _score_singly(self, items: Sequence[ImageItem], notes: PartNotes) -> Iterator[dict[str, object]]:
        """Says before each image that it is on, so that an image that ends the process is found, and given up."""
        for item in items:
            deaths = notes.deaths[item.image_id]
            if deaths < _DEATHS:
                notes.begin_image(item.image_id)
                row = next(self._score_together([item]))
            else:
                row = _give_up(item, deaths)
            notes.finish_image(row)
            yield row

    def _to_row(self, result: ScoredImage | FailedImage) -> dict[str, object]:
        if isinstance(result, FailedImage):
            return {**result.failure.to_dict()}
        return score_row(result, self.job.settings.prompts.labels)


def _give_up(item: ImageItem, deaths: int) -> dict[str, object]:
    reason = describe(
        f"{item.path}: the worker's process ended each time it scored this image",
        got=f"{deaths} processes",
        then="look at the file, or score it by itself; --resume tries it again",
    )
    return {"image_id": item.image_id, "path": item.path, "reason": reason}


def _check_equal(job: PartJob) -> None:
    from carzero._version import __version__

    found = {"version": __version__, "weights_sha256": job.settings.weights.sha256}
    wanted = {"version": job.version, "weights_sha256": job.weights_sha256}
    if found != wanted:
        raise RunError(
            describe(
                "A worker would compute other scores than the machine that started the run",
                got=found,
                expected=str(wanted),
                then="install the same version and copy the same weights everywhere",
            )
        )


class RayWorker:
    """A worker's process: weights and prompts in memory, one part at a time.

    Errors are handed back as text: one that is raised here comes out of Ray wrapped many times, behind pages of traces.

    Args:
        job: what to do.
        folder: where the run was started, so that relative paths mean the same here.
        threads: processors that this worker may use.
    """

    def __init__(self, job: PartJob, folder: str, threads: int) -> None:
        import torch

        if Path(folder).is_dir():
            os.chdir(folder)
        torch.set_num_threads(threads)
        self._refusal = ""
        try:
            self._scorer = PartScorer(job, readers=Readers(threads, isolated=True))
        except Exception as error:  # whatever it is, the run must hear of it
            self._refusal = _tell(error)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Scores one part: columns `number`, `image_ids` and `paths` of one row.

        Returns:
            one row: the fields of `PartResult`, and `refusal`, why this worker does not work, or "".
        """
        number = int(batch["number"][0])
        result = PartResult(number, 0, 0, 0)
        if not self._refusal:
            try:
                result = self._scorer.score(number, _to_items(batch))
            except Exception as error:  # as above
                self._refusal = _tell(error)
        return {**{name: [value] for name, value in asdict(result).items()}, "refusal": [self._refusal]}


def _to_items(batch: Mapping[str, Any]) -> list[ImageItem]:
    pairs = zip(batch["image_ids"][0], batch["paths"][0], strict=True)
    return [ImageItem(str(image_id), str(path), str(path)) for image_id, path in pairs]


def _tell(error: Exception) -> str:
    if isinstance(error, CARZeroError):
        return str(error)
    return describe(
        f"A worker on {platform.node()} cannot go on",
        got=f"{type(error).__name__}: {error}",
        then="correct what it names, and continue with --resume",
    )
