"""Where the model looks, for many images and findings: peak, box, map and overlay in each image's own pixels."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from carzero.core.atomic import RESUME, remove_leftovers, replace_when_done, room_for
from carzero.core.documents import load_json_object
from carzero.core.journal import Journal, open_run
from carzero.core.outputs import PairNames, check_resumable, make_folder, refuse_existing_in
from carzero.core.run_record import RunRecord, journal_path
from carzero.errors import ConfigurationError, TableError, describe, refuse_broken
from carzero.images import PixelTransform
from carzero.images.boxes import BoxTable, LabelledBox, save_coco
from carzero.images.loading import Readers
from carzero.inference.heatmaps import MAP_FORMATS, save_map, to_map_kind
from carzero.inference.placed_map import PlacedMap
from carzero.inference.places import (
    DEMO_DOUBT,
    GroundingRow,
    MapsRecord,
    check_box_share,
    describe_maps,
    describe_score,
    ground_image,
    mark_place,
    to_corners,
)
from carzero.inference.score_calibration import CALIBRATION, ScoreCalibration
from carzero.prompts import PromptSet
from carzero.records import UNSTATED, FailedImage, Failure, ImageItem, ScoredImage, ScoreKind
from carzero.weights.source import WeightsSource

Advance = Callable[[int, int], None]

RESULT_FILE, BOXES_FILE = "grounding.json", "boxes.coco.json"
_OURS = re.compile(r".+__.+\.(overlay\.png|map\.(npz|png|json))", re.DOTALL)
_LATER = {"probability"}  # of a row: results of before lack it
_SETTINGS = ("weights_sha256", "preprocessing", "prompts_sha256", "map_format", "box_share", "force", CALIBRATION)


class CalibrationRecord(TypedDict, total=False):
    """What probabilities are made by, where there are some."""

    calibration: dict[str, object]
    calibration_sha256_but_date: str


class GroundingManifest(MapsRecord, CalibrationRecord):
    """Where maps came from, and what is to be known about them."""

    date: str
    carzero_version: str
    weights: str
    weights_sha256: str
    preprocessing: dict[str, object]
    prompts_sha256: str
    prompts: dict[str, list[str]]
    score_kind: ScoreKind
    peak_rule: str
    box_order: str
    map_format: str
    box_share: float
    force: bool
    warnings: list[str]
    unfamiliar: list[str] | str
    prompt_warnings: list[dict[str, object]]
    images: int


class GroundingJSON(TypedDict):
    """A result as plain values."""

    findings: list[GroundingRow]
    failures: list[dict[str, str]]
    manifest: GroundingManifest


class _ImageRows(TypedDict):
    """What a journal holds of an image."""

    image_id: str
    path: str
    rows: list[dict[str, object]]
    maps: object


@dataclass(frozen=True, slots=True)
class GroundingResult:
    """What a run found.

    Attributes:
        rows: one for each image and finding.
        failures: every image that could not be read.
        manifest: where the maps came from, and what is to be known about them.
    """

    rows: list[GroundingRow]
    failures: list[Failure]
    manifest: GroundingManifest

    def to_dict(self) -> GroundingJSON:
        """Plain values, ready for JSON."""
        return {
            "findings": self.rows,
            "failures": [failure.to_dict() for failure in self.failures],
            "manifest": self.manifest,
        }


@dataclass(frozen=True, slots=True)
class GroundingRun:
    """One run over a list of images; see `carzero ground --help` for each option.

    Attributes:
        calibration: of the scores; overlays are as strong as its probabilities.
    """

    items: list[ImageItem]
    prompt_set: PromptSet
    weights: WeightsSource
    out: Path | None = None
    map_format: str = "npz"
    box_share: float = 0.5
    force: bool = False
    batch_size: int = 16
    device: str | None = None
    resume: bool = False
    overwrite: bool = False
    calibration: ScoreCalibration | None = None

    def execute(self, advance: Advance = lambda done, failed: None) -> GroundingResult:
        """Grounds every finding in every image, and writes maps, overlays and boxes into `out`.

        Rows of finished images wait in a journal there, so that the run can be killed at any moment and resumed.

        Args:
            advance: called with the numbers of images done and failed, after each image.

        Raises:
            CARZeroError: settings that cannot work, or what another run has left in `out`. Broken images are not an
                error here: they are listed in the result.
        """
        self._check()
        manifest = self._manifest()
        about = dict(manifest)
        with self._open_journal(RunRecord({name: about[name] for name in _SETTINGS if name in about})) as journal:
            self._ground_missing(journal, manifest, advance)
            finished = self._collect(journal, manifest)
            if self.out is not None:
                with self._room():
                    self._save(finished, self.out)
                journal.remove()
        return finished

    def _room(self) -> AbstractContextManager[None]:
        return room_for("Maps and overlays", self.out or Path(), f"{RESUME}; what is finished is kept")

    def _open_journal(self, record: RunRecord) -> Journal:
        if self.out is None:
            return open_run(None, record, key="image_id")
        result = self.out / RESULT_FILE
        make_folder(self.out)
        if not result.exists() and not journal_path(result).exists():
            name = PairNames(self.prompt_set.labels)
            pairs = itertools.product((item.image_id for item in self.items), self.prompt_set.labels)
            names = (f"{name(*pair)}.overlay.png" for pair in pairs)
            refuse_existing_in(self.out, names, overwrite=self.overwrite or self.resume)
        journal = open_run(
            result,
            record,
            resume=self.resume,
            overwrite=self.overwrite,
            key="image_id",
            check=_check_row,
            restore=partial(_restore, result, record),
        )
        remove_leftovers(self.out)
        if self.overwrite:
            _clear(self.out)
        return journal

    def _ground_missing(self, journal: Journal, manifest: GroundingManifest, advance: Advance) -> None:
        remaining = [item for item in self.items if not self._is_done(journal, item)]
        if not remaining:
            return
        done, failed = len(self.items) - len(remaining), 0
        with Readers(images=len(remaining), isolated=True) as readers:  # they start beside torch
            # torch is loaded here and not above, so that misuse is refused at once.
            from carzero.inference.classifier import ZeroShotClassifier

            classifier = ZeroShotClassifier.from_pretrained(self.weights, device=self.device)
            transform, name = classifier.processor.image_processor.pixels, PairNames(self.prompt_set.labels)
            stream = classifier.stream(
                remaining,
                classifier.encode_prompts(self.prompt_set),
                batch_size=self.batch_size,
                force=self.force,
                need_maps=True,
                readers=readers,
            )
            for result in stream:
                if isinstance(result, FailedImage):
                    failed += 1
                    journal.append([result.failure.to_dict()])
                else:
                    with self._room():
                        rows = list(self._ground(result, transform, name, manifest))
                    about = {"image_id": result.item.image_id, "path": result.item.path}
                    journal.append([{**about, "rows": rows, "maps": asdict(result.map_kind)}])
                done += 1
                advance(done, failed)

    def _is_done(self, journal: Journal, item: ImageItem) -> bool:
        """Whether a journal holds this image's rows, and their files are there. Failures are tried again."""
        row = journal.rows.get(item.image_id)
        if row is None or "reason" in row or row["path"] != item.path:
            return False
        out = self.out
        return out is None or all((out / name).exists() for each in row["rows"] for name in each["files"].values())

    def _collect(self, journal: Journal, manifest: GroundingManifest) -> GroundingResult:
        """The rows of a journal in the order of the images, and in the manifest what their maps are."""
        rows: list[GroundingRow] = []
        kind = UNSTATED
        failures: list[Failure] = []
        for item in self.items:
            row = journal.rows[item.image_id]
            if "reason" in row:
                failures.append(Failure(row["image_id"], row["path"], row["reason"]))
            else:
                rows += row["rows"]
                kind = to_map_kind(row.get("maps"))  # one for all images, as the weights are the same
        told: GroundingManifest = {**manifest, **describe_maps(self.box_share, kind)}
        return GroundingResult(rows, failures, told)

    def _check(self) -> None:
        if self.map_format not in MAP_FORMATS:
            raise ConfigurationError(
                describe("The map's format is unknown", got=self.map_format, expected=" or ".join(MAP_FORMATS))
            )
        check_box_share(self.box_share)
        check_resumable(self.out, resume=self.resume)

    def _ground(
        self, image: ScoredImage, transform: PixelTransform, name: PairNames, manifest: GroundingManifest
    ) -> Iterator[GroundingRow]:
        for row, placed in ground_image(image, self.prompt_set.labels, transform, self.box_share, self.calibration):
            if self.out is not None and image.radiograph is not None:
                stem = self.out / name(row["image_id"], row["label"])
                row["files"] = self._draw(image, row, placed, stem, manifest)
            yield row

    def _draw(
        self, image: ScoredImage, row: GroundingRow, placed: PlacedMap, stem: Path, manifest: GroundingManifest
    ) -> dict[str, str]:
        from carzero.images.overlay import save_overlay

        if image.radiograph is None:
            raise ValueError("The image was scored without maps; score it with need_maps=True.")

        files = {"map": f"{stem.name}.map.{self.map_format}", "overlay": f"{stem.name}.overlay.png"}
        save_map(placed.to_score_map(), stem.with_name(files["map"]))
        save_overlay(
            stem.with_name(files["overlay"]),
            image.radiograph.pixels,
            placed.heatmap,
            mark_place(
                row,
                row["label"],
                _subtitle(row, manifest),
                image=row["image_id"],
                is_demo=self.weights.is_demo,
            ),
            kind=image.map_kind,
        )
        return files

    def _manifest(self) -> GroundingManifest:
        record = RunRecord()
        return {
            "date": record.date,
            "carzero_version": record.version,
            "weights": self.weights.name,
            "weights_sha256": self.weights.sha256,
            "preprocessing": self.weights.preprocessing,
            "prompts_sha256": self.prompt_set.hash,
            "prompts": {label: list(prompts) for label, prompts in self.prompt_set},
            "score_kind": self.prompt_set.score_kind,
            **describe_maps(self.box_share, UNSTATED),  # known once the weights are loaded
            "peak_rule": "centre of the highest cell of the model's grid, of equal cells the first in row order",
            "box_order": "xyxy in the image's pixels, edges at whole numbers",
            "map_format": self.map_format,
            "box_share": self.box_share,
            "force": self.force,
            "warnings": [DEMO_DOUBT] if self.weights.is_demo else [],
            **self.weights.review(self.prompt_set).to_manifest(),
            "images": len(self.items),
            **self._describe_calibration(),
        }

    def _describe_calibration(self) -> CalibrationRecord:
        if self.calibration is None:
            return {}
        own = self.calibration
        return {"calibration": own.to_manifest(), "calibration_sha256_but_date": own.sha256}

    def _save(self, result: GroundingResult, out: Path) -> None:
        save_coco(_to_boxes(result.rows, [item.image_id for item in self.items]), out / BOXES_FILE)
        with replace_when_done(out / RESULT_FILE) as target:  # last: it says that the run is finished
            target.write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")


def _subtitle(row: GroundingRow, manifest: GroundingManifest) -> str:
    """Score of an overlay, and what is to be known of it."""
    unfamiliar = manifest["unfamiliar"]
    is_unfamiliar = isinstance(unfamiliar, list) and row["label"] in unfamiliar
    said = describe_score(row["logit"], row.get("probability"))
    return said + ("; unfamiliar to these weights" if is_unfamiliar else "")


def _restore(path: Path, record: RunRecord) -> tuple[RunRecord, Iterable[Mapping[str, object]]]:
    """Record and rows of a finished run, so that only failures and new images are read."""
    what, expected = f"{path} is not the result of a run", "a file that `carzero ground` wrote"
    then = "start anew with --overwrite, or name another output"
    content: Any = load_json_object(path, what, expected=expected, then=then)
    images: dict[str, _ImageRows] = {}
    with refuse_broken(what, error=TableError, expected=expected, then=then):
        manifest = dict(content["manifest"])
        found, maps = RunRecord.of(manifest, {*record.settings, CALIBRATION}), manifest.get("maps")
        for row in content["findings"]:
            image_id, place = str(row["image_id"]), str(row["path"])
            images.setdefault(image_id, {"image_id": image_id, "path": place, "rows": [], "maps": maps})["rows"].append(
                {name: row.get(name) if name in _LATER else row[name] for name in GroundingRow.__annotations__}
            )
    return found, images.values()


def _check_row(row: Mapping[str, object]) -> None:
    """Refuses what a run does not keep of an image, with a ValueError or whatever a missing part raises."""
    texts, found = (row["image_id"], row["path"], row.get("reason", "")), row.get("rows", [])
    if not all(isinstance(text, str) for text in texts) or not isinstance(found, list):
        raise ValueError("expected texts, and a list of findings")
    for each in found:
        if not each.keys() >= GroundingRow.__annotations__.keys() - _LATER or not math.isfinite(each["logit"]):
            raise ValueError("expected all that a run writes of a finding")


def _clear(out: Path) -> None:
    """Deletes what runs have written, and nothing else; the result first, which describes the rest."""
    for name in (RESULT_FILE, BOXES_FILE):
        (out / name).unlink(missing_ok=True)
    for entry in out.iterdir():
        if _OURS.fullmatch(entry.name):
            entry.unlink()


def _to_boxes(rows: Sequence[GroundingRow], images: Sequence[str]) -> BoxTable:
    boxes = tuple(
        LabelledBox(row["image_id"], row["label"], to_corners(row["box"]), score=row["logit"])
        for row in rows
        if row["box"] is not None
    )
    return BoxTable(tuple(images), boxes, {row["image_id"]: (row["height"], row["width"]) for row in rows})
