"""A scoring run on Ray Data: parts of the list go to workers on one machine or many, which write Parquet parts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from carzero.core.hashing import hash_texts
from carzero.core.run_record import RunRecord
from carzero.errors import RunError, TableError, describe
from carzero.inference.ray.cluster import joined_cluster, place_workers, score_parts
from carzero.inference.ray.parts import PartJob
from carzero.inference.ray.score_folder import (
    FAILURES_FOLDER,
    ScoreFolder,
    lock_score_folder,
    open_score_folder,
)
from carzero.inference.scoring import ScoringSettings, build_manifest
from carzero.inference.scoring_result import describe_failures
from carzero.records import Failure, ImageItem, ScoreProvenance

Advance = Callable[[int, int], None]

_SMALLEST_PART, _LARGEST_PART, _PARTS = 16, 1000, 256


@dataclass(frozen=True, slots=True)
class ParallelResult:
    """What a run produced; the scores lie in its folder.

    Attributes:
        folder: of the parts.
        parts: how many there are.
        scored: images that have a score.
        failures: every image that has none, in the order of the inputs.
        repeated: how often work on a part was cut short and repeated.
        manifest: where the numbers came from.
    """

    folder: Path
    parts: int
    scored: int
    failures: list[Failure]
    repeated: int
    manifest: dict[str, object]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON; the scores are in the folder."""
        return {"failures": [failure.to_dict() for failure in self.failures], "manifest": self.manifest}


def choose_part_size(images: int) -> int:
    """Images of one part: enough parts to share out, few enough files, little to repeat where a worker dies.

    It depends on the number of images alone, so that a run can be resumed with other workers.
    """
    return min(max(-(-images // _PARTS), _SMALLEST_PART), _LARGEST_PART)


@dataclass(slots=True)
class ParallelRun:
    """One run over a list of images; see `carzero predict --help` for each option.

    Attributes:
        items: images, each a path that every worker sees.
        workers: processes; None takes one a GPU, or one a machine where there are none.
        address: of a Ray cluster; None starts one on this machine for the time of the run.
        part_size: images of one part; None chooses.
    """

    items: list[ImageItem]
    settings: ScoringSettings
    out: Path
    workers: int | None = None
    address: str | None = None
    resume: bool = False
    overwrite: bool = False
    part_size: int | None = None

    def execute(self, advance: Advance = lambda done, failed: None) -> ParallelResult:
        """Scores the parts that are not finished, and images that failed before.

        Args:
            advance: called with the numbers of images done and failed, after each part.

        Raises:
            CARZeroError: settings that cannot work, another run's folder, or a cluster that cannot do the work. Broken
                images and dying workers are not an error here.
        """
        _check_items(self.items)
        with closing(lock_score_folder(self.out.absolute())):
            return self._execute(advance)

    def _execute(self, advance: Advance) -> ParallelResult:
        size = self.part_size or choose_part_size(len(self.items))
        provenance = self.settings.provenance(self.out if self.resume else None)
        record = self._record(provenance, size)
        review = self.settings.weights.review(self.settings.prompts)
        folder = open_score_folder(
            self.out.absolute(),
            record.identity,
            self.settings.prompts.labels,
            resume=self.resume,
            overwrite=self.overwrite,
        )
        parts = _divide(self.items, size)
        missing = {number: part for number, part in parts.items() if folder.count_rows(number) != len(part)}
        engine: dict[str, object] = {"name": "ray", "workers": 0, "repeated": 0}
        repeated = 0
        if missing:
            job = replace(self._job(folder, record, provenance), mark=review.mark)
            with joined_cluster(self.address, self.workers or 1) as ray:
                placement = place_workers(ray, self.workers, self.settings.device, len(missing))
                engine |= {"version": ray.__version__, "workers": placement.workers}
                done, failed = len(self.items) - sum(map(len, missing.values())), 0
                for result in score_parts(ray, missing, job, placement):
                    done, failed = done + result.scored + result.failed, failed + result.failed
                    repeated += result.repeated
                    advance(done, failed)
        scored, failures = self._count(folder, len(parts))
        manifest = build_manifest(
            record,
            provenance,
            parts=len(parts),
            scored=scored,
            engine={**engine, "repeated": repeated},
            **review.to_manifest(),
            **describe_failures(failures, FAILURES_FOLDER),
        )
        folder.finish(manifest)
        return ParallelResult(self.out, len(parts), scored, failures, repeated, manifest)

    def _record(self, provenance: ScoreProvenance, part_size: int) -> RunRecord:
        """What the scores and their division into parts depend on; parts of another run are never mixed with these."""
        images = {
            "images": len(self.items),
            "images_sha256": hash_texts(f"{item.image_id}\t{item.path}" for item in self.items),
            "part_size": part_size,
        }
        return RunRecord({**provenance.settings, **images})

    def _job(self, folder: ScoreFolder, record: RunRecord, provenance: ScoreProvenance) -> PartJob:
        bank = self.settings.bank
        dtype = str(provenance.dtype)
        return PartJob(
            out=folder.path,
            run=folder.run,
            settings=replace(self.settings, dtype=dtype, bank=None if bank is None else bank.absolute()),
            weights_sha256=self.settings.weights.sha256,
            version=record.version,
        )

    def _count(self, folder: ScoreFolder, parts: int) -> tuple[int, list[Failure]]:
        """Rows with scores, and the images without, of all parts."""
        failures = folder.load_failures(parts)
        scored = sum(folder.count_rows(number) or 0 for number in range(parts))
        if scored + len(failures) != len(self.items):
            raise RunError(
                describe(
                    f"Parts are missing in {folder.path}",
                    got=f"{scored} rows and {len(failures)} failures",
                    expected=f"{len(self.items)} images in {parts} parts",
                    then="check that all machines write to the same storage, and resume with --resume",
                )
            )
        return scored, [Failure(**row) for row in failures]


def _divide(items: list[ImageItem], size: int) -> dict[int, list[ImageItem]]:
    return {number: items[start : start + size] for number, start in enumerate(range(0, len(items), size))}


def _check_items(items: list[ImageItem]) -> None:
    strange = [item.image_id for item in items if not isinstance(item.image, str)]
    if strange:
        raise TableError(
            describe("Workers read images from files only", got=strange[:5], expected="paths that every worker sees")
        )
