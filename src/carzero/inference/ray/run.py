"""A scoring run on Ray Data: parts of the list go to workers on one machine or many, which write Parquet parts."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from carzero.core.hashing import hash_texts
from carzero.errors import RunError, TableError, describe
from carzero.inference.ray.cluster import joined_cluster, place_workers, score_parts
from carzero.inference.ray.parts import PartJob
from carzero.inference.ray.score_folder import ScoreFolder, open_score_folder
from carzero.inference.scoring import ScoringSettings
from carzero.records import Failure, ImageItem

Advance = Callable[[int, int], None]

_SMALLEST_PART, _LARGEST_PART, _PARTS = 16, 1000, 256


@dataclass(frozen=True, slots=True)
class ParallelResult:
    """What a run produced; the scores lie in its folder.

    Attributes:
        folder: of the parts.
        scored: pictures that have a score.
        failures: every image that has none, in the order of the inputs.
        manifest: where the numbers came from.
    """

    folder: Path
    scored: int
    failures: list[Failure]
    manifest: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; the scores are in the folder."""
        return {"failures": [failure.to_dict() for failure in self.failures], "manifest": self.manifest}


def choose_part_size(images: int) -> int:
    """Pictures of one part: enough parts to share out, few enough files, little to repeat where a worker dies.

    It depends on the number of pictures alone, so that a run can be resumed with other workers.
    """
    return min(max(-(-images // _PARTS), _SMALLEST_PART), _LARGEST_PART)


@dataclass(slots=True)
class ParallelRun:
    """One run over a list of images; see `carzero predict --help` for each option.

    Attributes:
        items: pictures, each a path that every worker sees.
        workers: processes; None takes one a GPU, or one a machine where there are none.
        address: of a Ray cluster; None starts one on this machine for the time of the run.
        part_size: pictures of one part; None chooses.
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
        """Scores the parts that are not finished, and pictures that failed before.

        Args:
            advance: called with the numbers of pictures done and failed, after each part.

        Raises:
            CARZeroError: settings that cannot work, another run's folder, or a cluster that cannot do the work. Broken
                pictures and dying workers are no error here.
        """
        _check_items(self.items)
        record = self._record()
        folder = open_score_folder(
            self.out.absolute(), record, self.settings.prompts.labels, resume=self.resume, overwrite=self.overwrite
        )
        parts = _divide(self.items, record["part_size"])
        missing = {number: part for number, part in parts.items() if folder.count_rows(number) != len(part)}
        engine: dict[str, Any] = {"name": "ray", "workers": 0, "repeated": 0}
        if missing:
            job = self._job(folder, record)
            with joined_cluster(self.address, self.workers or 1) as ray:
                placement = place_workers(ray, self.workers, self.settings.device, len(missing))
                engine |= {"version": ray.__version__, "workers": placement.workers}
                done, failed = len(self.items) - sum(map(len, missing.values())), 0
                for result in score_parts(ray, missing, job, placement):
                    done, failed = done + result.scored + result.failed, failed + result.failed
                    engine["repeated"] += result.repeated
                    advance(done, failed)
        return self._finish(folder, record, len(parts), engine)

    def _record(self) -> dict[str, Any]:
        """What the scores and their division into parts depend on; parts of another run are never mixed with these."""
        return {
            **self.settings.record(self.out if self.resume else None),
            "images": len(self.items),
            "images_sha256": hash_texts(f"{item.image_id}\t{item.path}" for item in self.items),
            "part_size": self.part_size or choose_part_size(len(self.items)),
        }

    def _job(self, folder: ScoreFolder, record: dict[str, Any]) -> PartJob:
        bank = self.settings.bank
        return PartJob(
            out=folder.path,
            run=folder.run,
            settings=replace(self.settings, dtype=record["dtype"], bank=None if bank is None else bank.absolute()),
            weights_sha256=record["weights_sha256"],
            version=record["carzero_version"],
        )

    def _finish(
        self, folder: ScoreFolder, record: dict[str, Any], parts: int, engine: dict[str, Any]
    ) -> ParallelResult:
        failures = folder.load_failures(parts)
        scored = sum(folder.count_rows(number) or 0 for number in range(parts))
        if scored + len(failures) != len(self.items):
            raise RunError(
                describe(
                    f"Parts are missing in {folder.path}",
                    got=f"{scored} rows and {len(failures)} failures",
                    expected=f"{len(self.items)} pictures in {parts} parts",
                    then="check that all machines write to the same storage, and go on with --resume",
                )
            )
        manifest = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "weights": self.settings.weights.name,
            **record,
            "score_kind": "logit",
            "prompts": {label: list(prompts) for label, prompts in self.settings.prompts},
            "parts": parts,
            "scored": scored,
            "failures": failures,
            "engine": engine,
        }
        folder.finish(manifest)
        return ParallelResult(self.out, scored, [Failure(**row) for row in failures], manifest)


def _divide(items: list[ImageItem], size: int) -> dict[int, list[ImageItem]]:
    return {number: items[start : start + size] for number, start in enumerate(range(0, len(items), size))}


def _check_items(items: list[ImageItem]) -> None:
    strange = [item.image_id for item in items if not isinstance(item.image, str)]
    if strange:
        raise TableError(
            describe("Workers read pictures from files only", got=strange[:5], expected="paths that every worker sees")
        )
