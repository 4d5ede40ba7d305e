"""Results of many images, as files: each image is scored, and its objects are written as they are made."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from pydicom.dataset import Dataset

from carzero.clinical.content import THUMBNAIL_PX, ResultSettings
from carzero.clinical.image_header import load_source
from carzero.clinical.result_objects import DEFAULT_KINDS, build_by_kind, check_kinds, list_results, load_libraries
from carzero.core.atomic import remove_leftovers, replace_together
from carzero.core.lookahead import ahead
from carzero.core.outputs import make_folder, refuse_existing, to_file_name
from carzero.core.run_record import RunRecord
from carzero.errors import ImageError
from carzero.images.loading import Readers
from carzero.inference.scoring import ScoringSettings, build_manifest
from carzero.metrics.calibration import Calibration
from carzero.records import FailedImage, Failure, ImageItem, ScoredImage

if TYPE_CHECKING:
    from carzero.inference.classifier import ZeroShotClassifier
    from carzero.inference.prompt_bank import PromptBank

Advance = Callable[[int, int], None]
MadeResults = list[tuple[str, list[Dataset]]]  # kind, and its objects
Kept = TypeVar("Kept")


@dataclass(slots=True)
class ResultMaker:
    """Weights and prompts in memory and readers beside them: images in, their results out.

    Used as a context: reading starts in processes of their own, where a decoder that dies costs one image.

    Attributes:
        scoring: weights, prompts, and how scores are computed.
        kinds: of result.
        box_share: the box's threshold as a share of the map's range.
        calibration: turns scores into probabilities; None gives none.
    """

    scoring: ScoringSettings
    kinds: tuple[str, ...] = DEFAULT_KINDS
    box_share: float = 0.5
    calibration: Calibration | None = None
    settings: ResultSettings = field(init=False)
    _stack: ExitStack = field(init=False, default_factory=ExitStack)
    _readers: Readers | None = field(init=False, default=None)
    _loaded: tuple[ZeroShotClassifier, PromptBank[object]] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.kinds = check_kinds(self.kinds)
        load_libraries(self.kinds)
        self.settings = ResultSettings.of(
            self.scoring.weights,
            self.scoring.provenance(None),
            self.scoring.prompts,
            box_share=self.box_share,
            calibration=self.calibration,
        )

    def __enter__(self) -> ResultMaker:
        self._readers = self._stack.enter_context(
            Readers(isolated=True, thumbnail_px=THUMBNAIL_PX)
        )  # they start beside torch
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def load(self) -> tuple[ZeroShotClassifier, PromptBank[object]]:
        """Loads weights and encodes prompts, once.

        Raises:
            WeightsError: the weights are not found, or do not fit.
            PromptError: a prompt is longer than the model reads.
        """
        if self._loaded is None:
            # torch is loaded here and not above, so that misuse is refused at once.
            from carzero.inference.classifier import ZeroShotClassifier

            asked = self.scoring
            classifier = ZeroShotClassifier.from_pretrained(
                asked.weights, device=asked.device, dtype=self.settings.provenance.dtype
            )
            self._loaded = classifier, classifier.encode_prompts(asked.prompts)
        return self._loaded

    def make(
        self, items: Iterable[ImageItem], keep: Callable[[ScoredImage, MadeResults], Kept]
    ) -> Generator[tuple[ImageItem, Kept] | FailedImage, None, None]:
        """Yields what became of the results of each image, or why it has none, in the order of their scores.

        Args:
            items: the images.
            keep: takes an image's results by kind as they are made. It is called in a thread of its own, so that the
                next images are scored meanwhile; what it raises is raised here.
        """
        classifier, bank = self.load()

        def build(image: ScoredImage | FailedImage) -> tuple[ImageItem, Kept] | FailedImage:
            if isinstance(image, FailedImage):
                return image
            try:
                results = build_by_kind(image, self.settings, self.kinds)
            except ImageError as error:
                return FailedImage(image.item, error)
            return image.item, keep(image, results)

        stream = classifier.stream(
            items,
            bank,
            pool=self.scoring.pool,
            batch_size=self.scoring.batch_size,
            force=self.scoring.force,
            need_maps=True,
            readers=self._readers,
            in_order=False,
        )
        with (
            ThreadPoolExecutor(1) as builder,
            closing(ahead(stream, lambda image: builder.submit(build, image), 2 * self.scoring.batch_size)) as made,
        ):
            for _, future in made:
                yield future.result()


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """What a run wrote.

    Attributes:
        files: names in the output folder by image; those of a run before that were found whole are among them.
        kept: images whose results were there already.
        failures: images without results, and why.
        doubts: image and what is doubtful about it, a sentence each; of images in `kept` they stand in their results.
        manifest: where the scores came from.
    """

    files: dict[str, list[str]]
    kept: list[str]
    failures: list[Failure]
    doubts: list[tuple[str, str]]
    manifest: dict[str, object]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "files": self.files,
            "kept": self.kept,
            "failures": [failure.to_dict() for failure in self.failures],
            "doubts": [{"image_id": image_id, "doubt": doubt} for image_id, doubt in self.doubts],
            "manifest": self.manifest,
        }


@dataclass(frozen=True, slots=True)
class ResultRun:
    """One run over a list of images; see `carzero dicom results --help` for each option."""

    items: list[ImageItem]
    maker: ResultMaker
    out: Path
    overwrite: bool = False

    def execute(self, advance: Advance = lambda done, failed: None) -> ResultFiles:
        """Writes the results of every image into the folder; an image whose results are there whole is left as it is.

        Args:
            advance: called with the numbers of images done and failed, after each image.

        Raises:
            OutputError: other files have the names of the results, or the folder cannot be written.
            CARZeroError: settings that cannot work. Images without results are listed, and not an error.
        """
        make_folder(self.out)
        remove_leftovers(self.out)
        written: dict[str, list[str]] = {}
        failures: list[Failure] = []
        doubts: list[tuple[str, str]] = []
        remaining = []
        for item in self.items:
            try:
                expected = list_results(load_source(item.path), self.maker.settings, self.maker.kinds)
            except ImageError as error:  # before it is scored for nothing
                failures.append(FailedImage(item, error).failure)
                continue
            if names := self._find_whole(item, expected):
                written[item.image_id] = names
            else:
                remaining.append(item)
        kept = list(written)
        if remaining:
            with self.maker:
                for result in self.maker.make(remaining, self._save):
                    if isinstance(result, FailedImage):
                        failures.append(result.failure)
                    else:
                        item, (written[item.image_id], said) = result
                        doubts += [(item.image_id, doubt) for doubt in said]
                    advance(len(written) + len(failures), len(failures))
        provenance = self.maker.settings.provenance
        record = RunRecord(self.maker.settings.parameters)
        about = self.maker.settings.to_manifest()
        manifest = build_manifest(record, provenance, images=len(self.items), kinds=list(self.maker.kinds), **about)
        ordered = {item.image_id: written[item.image_id] for item in self.items if item.image_id in written}
        return ResultFiles(ordered, kept, failures, doubts, manifest)

    def _find_whole(self, item: ImageItem, expected: Mapping[str, list[str]]) -> list[str]:
        """Names of an image's results, if all that it will have are there with their identifiers.

        Raises:
            OutputError: other files have these names, and `overwrite` is not set.
        """
        names = {
            _name(item, kind, number, len(uids)): uid
            for kind, uids in expected.items()
            for number, uid in enumerate(uids, start=1)
        }
        found = {name: _read_uid(self.out / name) for name in names}
        others = (self.out / name for name, uid in found.items() if uid != names[name])
        refuse_existing(others, overwrite=self.overwrite)
        return [*names] if found == names else []

    def _save(self, image: ScoredImage, results: MadeResults) -> tuple[list[str], tuple[str, ...]]:
        """Writes the objects of one image; returns their names, and the doubts about the image."""
        names = []
        for kind, objects in results:
            for number, each in enumerate(objects, start=1):
                names.append(_name(image.item, kind, number, len(objects)))
                save_result(each, self.out / names[-1], overwrite=self.overwrite)
        return names, image.info.warnings


def save_result(result: Dataset, path: Path, *, overwrite: bool = True) -> None:
    """Writes a result as a DICOM file, whole or not at all.

    Args:
        result: the object.
        path: of the file.
        overwrite: whether another object that is there is replaced; the same one always is.

    Raises:
        OutputError: it cannot be written, or another one is there and must stay.
    """

    def check() -> None:
        if _read_uid(path) != str(result.SOPInstanceUID):
            refuse_existing([path], overwrite=overwrite)

    with replace_together([path], check) as (target,):
        result.save_as(target, enforce_file_format=True)


def _name(item: ImageItem, kind: str, number: int, count: int) -> str:
    stem = to_file_name(item.image_id.removesuffix(".dcm"))
    return f"{stem}.{kind}{f'-{number}' if count > 1 else ''}.dcm"


def _read_uid(path: Path) -> str:
    """SOP Instance UID in a file's meta information; "" where there is none."""
    from pydicom.filereader import read_file_meta_info

    try:
        return str(read_file_meta_info(path).get("MediaStorageSOPInstanceUID", ""))
    except Exception:  # pydicom raises many kinds over a file that is none of its own
        return ""
