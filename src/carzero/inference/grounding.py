"""Where the model looks, for many pictures and findings: peak, box, map and overlay in each picture's own pixels."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carzero.core.atomic import replace_when_done
from carzero.core.hashing import to_file_name
from carzero.errors import ConfigurationError, TableError, describe
from carzero.images.boxes import BoxTable, LabelledBox, save_coco
from carzero.images.loading import Readers
from carzero.inference.heatmaps import MAP_FORMATS, ScoreMap, save_map
from carzero.metrics.boxes import box_of_region, region_of_peak
from carzero.prompts import PromptSet
from carzero.records import FailedImage, Failure, ImageItem, Radiograph, ScoredImage
from carzero.weights.source import WeightsSource

if TYPE_CHECKING:
    from carzero.inference.classifier import ZeroShotClassifier


Advance = Callable[[int, int], None]

BOX_RULE = (
    "the part of the map, connected to its highest pixel, at or above lowest + {share:g} * (highest - lowest); the box "
    "is the smallest one around it"
)

DEMO_DOUBT = "Maps of the demo weights are not to be trusted; see docs/demo-weights.md."


@dataclass(frozen=True, slots=True)
class Found:
    """One finding in one picture.

    Attributes:
        image_id: the picture.
        label: the finding.
        logit: its raw score.
        peak: (x, y) of the highest cell's centre in the picture's pixels.
        inside: whether the peak lies in the picture; one in the padding does not.
        box: xyxy around the peak's region, or None for a map without one (constant within the picture).
        contrast: highest cell over the mean cell; 1 for an even map.
    """

    image_id: str
    label: str
    logit: float
    peak: tuple[float, float]
    inside: bool
    box: tuple[float, float, float, float] | None
    contrast: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "image_id": self.image_id,
            "label": self.label,
            "logit": self.logit,
            "peak": {"x": self.peak[0], "y": self.peak[1], "inside": self.inside},
            "box": None if self.box is None else dict(zip(("xmin", "ymin", "xmax", "ymax"), self.box, strict=True)),
            "contrast": self.contrast,
        }


@dataclass(frozen=True, slots=True)
class GroundingResult:
    """What a run found.

    Attributes:
        rows: one for each picture and finding: what `Found` holds, and `path`, `width`, `height`, `files`, `warnings`.
        failures: every image that could not be read.
        manifest: where the maps came from, and what is to be known about them.
    """

    rows: list[dict[str, Any]]
    failures: list[Failure]
    manifest: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "findings": self.rows,
            "failures": [failure.to_dict() for failure in self.failures],
            "manifest": self.manifest,
        }


@dataclass(frozen=True, slots=True)
class GroundingRun:
    """One run over a list of images; see `carzero ground --help` for each option."""

    items: list[ImageItem]
    prompt_set: PromptSet
    weights: WeightsSource
    out: Path | None = None
    map_format: str = "npz"
    box_share: float = 0.5
    force: bool = False
    batch_size: int = 16
    device: str | None = None

    def execute(self, advance: Advance = lambda done, failed: None) -> GroundingResult:
        """Grounds every finding in every picture, and writes maps, overlays and boxes into `out`.

        Args:
            advance: called with the numbers of pictures done and failed, after each picture.

        Raises:
            CARZeroError: settings that cannot work. Broken pictures are no error here: they are listed in the result.
        """
        self._check()
        manifest = self._manifest()
        doubts = tuple(manifest["warnings"])
        rows: list[dict[str, Any]] = []
        failures: list[Failure] = []
        with Readers(isolated=True) as readers:  # they start beside torch
            # torch is loaded here and not above, so that wrong use is refused at once.
            from carzero.inference.classifier import ZeroShotClassifier

            dtype = self.weights.own_dtype or "float32"
            classifier = ZeroShotClassifier.from_pretrained(self.weights, device=self.device, dtype=dtype)
            stream = classifier.stream(
                self.items,
                classifier.encode_prompts(self.prompt_set),
                batch_size=self.batch_size,
                force=self.force,
                need_maps=True,
                readers=readers,
            )
            for done, result in enumerate(stream, start=1):
                if isinstance(result, FailedImage):
                    failures.append(result.failure)
                else:
                    rows += self._ground(classifier, result, doubts)
                advance(done, len(failures))
        finished = GroundingResult(rows, failures, {**manifest, "images": len(self.items)})
        if self.out is not None:
            self._save(finished, self.out)
        return finished

    def _check(self) -> None:
        if self.map_format not in MAP_FORMATS:
            raise ConfigurationError(
                describe("The map's format is unknown", got=self.map_format, expected=" or ".join(MAP_FORMATS))
            )
        if not 0 < self.box_share <= 1:
            raise ConfigurationError(
                describe("The box's threshold is no share", got=self.box_share, expected="above 0, at most 1")
            )
        if self.out is not None:
            try:
                self.out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TableError(describe("The output folder cannot be made", got=str(error))) from error

    def _ground(
        self, classifier: ZeroShotClassifier, image: ScoredImage, doubts: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        if image.maps is None or image.radiograph is None:
            raise ValueError("The picture was scored without maps; score it with need_maps=True.")
        geometry = classifier.processor.image_processor.geometry(image.radiograph)
        for label, logit, grid in zip(self.prompt_set.labels, image.logits, image.maps, strict=True):
            score_map = ScoreMap.from_grid(grid, geometry)
            x, y = geometry.peak_to_original(grid)
            found = Found(
                image.item.image_id,
                label,
                float(logit),
                (x, y),
                0 <= x <= geometry.width and 0 <= y <= geometry.height,
                box_of_region(region_of_peak(score_map.heatmap, self.box_share)),
                float(grid.max() / grid.mean()),
            )
            files = {} if self.out is None else self._draw(image.radiograph, found, score_map, self.out, doubts)
            yield {
                **found.to_dict(),
                "path": image.item.path,
                "width": geometry.width,
                "height": geometry.height,
                "files": files,
                "warnings": list(image.info.warnings),
            }

    def _draw(
        self, radiograph: Radiograph, found: Found, score_map: ScoreMap, out: Path, doubts: Sequence[str]
    ) -> dict[str, str]:
        from carzero.images.overlay import save_overlay

        name = f"{to_file_name(found.image_id)}__{to_file_name(found.label)}"
        files = {"map": f"{name}.map.{self.map_format}", "overlay": f"{name}.overlay.png"}
        save_map(score_map, out / files["map"])
        save_overlay(
            out / files["overlay"],
            radiograph.pixels,
            score_map.heatmap,
            title=found.label,
            subtitle="; ".join([f"logit {found.logit:.2f}", *(doubt.split(";")[0] for doubt in doubts)]),
            peak=found.peak,
            boxes=[] if found.box is None else [found.box],
        )
        return files

    def _manifest(self) -> dict[str, Any]:
        from carzero._version import __version__

        return {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "carzero_version": __version__,
            "weights": self.weights.name,
            "weights_sha256": self.weights.sha256,
            "preprocessing": self.weights.preprocessing,
            "prompts_sha256": self.prompt_set.hash,
            "prompts": {label: list(prompts) for label, prompts in self.prompt_set},
            "map_kind": "attention of the finding's text on the picture's patches, mean over heads and layers; it says "
            "where, not whether, and peaks somewhere for an absent finding too",
            "peak_rule": "centre of the highest cell of the model's grid, of equal cells the first in row order",
            "box_rule": BOX_RULE.format(share=self.box_share),
            "box_order": "xyxy in the picture's pixels, edges at whole numbers",
            "warnings": [DEMO_DOUBT] if self.weights.is_demo else [],
        }

    def _save(self, result: GroundingResult, out: Path) -> None:
        with replace_when_done(out / "grounding.json") as target:
            target.write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
        save_coco(_to_boxes(result.rows, [item.image_id for item in self.items]), out / "boxes.coco.json")


def _to_boxes(rows: Sequence[Mapping[str, Any]], images: Sequence[str]) -> BoxTable:
    boxes = tuple(
        LabelledBox(row["image_id"], row["label"], tuple(row["box"].values()), score=row["logit"])
        for row in rows
        if row["box"] is not None
    )
    return BoxTable(tuple(images), boxes, {row["image_id"]: (row["height"], row["width"]) for row in rows})
