"""What is read: each kind of file, small real samples of it, and the public function that users reach it by."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tests.fuzz import clinical, folders, seeds, service
from tests.fuzz.mutate import Files

Read = Callable[[Path], None]


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        seeds: gives samples, each one file or the files of a folder, by their names.
        read: reads the folder that holds the input; it returns, or raises a CARZeroError. What it must not give, such
            as a score that is not a number, is an AssertionError.
        weight: its share of a campaign.
    """

    seeds: Callable[[], list[Files]]
    read: Read
    weight: float = 1


def _file(folder: Path) -> Path:
    """The one file of an input."""
    (path,) = folder.iterdir()
    return path


@cache
def _own_folder() -> Path:
    """Weights, a bank and an image that belong together, made once in this process."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    seeds.save_world(folder)
    return folder


def _weights() -> Path:
    return _own_folder() / "weights"


@cache
def _classifier():
    from carzero.inference.classifier import ZeroShotClassifier

    return ZeroShotClassifier.from_pretrained(_weights(), device="cpu", dtype="float32")


def prepare() -> None:
    """Loads what every reading needs, so that its memory and its imports are not counted as an input's."""
    _classifier()


def _check_scores(classifier, bank) -> None:
    from carzero.records import ImageItem, ScoredImage

    image = str(_own_folder() / "image.png")
    for result in classifier.stream([ImageItem("a", image, image)], bank, need_maps=True):
        if isinstance(result, ScoredImage):
            assert np.isfinite(result.logits).all(), "a score that is not a number"
            assert np.isfinite(result.maps).all(), "a map that is not of numbers"


def read_image(folder: Path) -> None:
    from carzero.core.remarks import collected_remarks
    from carzero.images import PixelTransform, load_radiograph, to_model_input

    with collected_remarks():  # as the processes do that read images for a command
        radiograph = load_radiograph(_file(folder), force=True)
    assert np.isfinite(radiograph.pixels).all(), "pixels that are not numbers"
    levels = to_model_input(radiograph, PixelTransform())
    assert levels.dtype == np.uint8


def read_scores(folder: Path) -> None:
    from carzero.evaluation.score_matrix import load_score_manifest, load_score_matrix
    from carzero.inference.score_table import load_scores

    path = next(each for each in [*sorted(folder.iterdir()), folder / "x.csv"] if ".manifest" not in each.name)
    assert np.isfinite(load_score_matrix(path).values).all()
    load_scores(path)
    load_score_manifest(path)


def read_truth(folder: Path) -> None:
    from carzero.errors import TableError
    from carzero.evaluation.truth import to_truth

    truth = to_truth(_file(folder))
    for column in truth.frame.columns:
        try:
            values = truth.values([column])
        except TableError:
            continue
        assert np.isin(values[~np.isnan(values)], (0, 1, -1)).all()


def read_pairs(folder: Path) -> None:
    from carzero.data.pairs import inspect_pairs, load_pairs
    from carzero.images.listing import list_images

    path = _file(folder)
    list_images([path])
    inspect_pairs(path).records()
    load_pairs(path)


def read_report_table(folder: Path) -> None:
    from carzero.reports.rules import RuleAligner
    from carzero.structuring.report_table import load_labels, load_report_rows

    rows, _ = load_report_rows(_file(folder), folder)
    for row in rows[:5]:
        RuleAligner().align(row.report_id, row.text)
    load_labels(_file(folder))


def read_boxes(folder: Path) -> None:
    from carzero.images.boxes import load_chestxdet, load_coco, load_ms_cxr

    path = _file(folder)
    readers = {"coco": load_coco, "det": load_chestxdet, "cxr": load_ms_cxr}
    table = readers[path.stem.split("_")[0]](path)
    assert np.isfinite(table.to_arrays(table.images, ["Mass"])[0]).all()


def read_release(folder: Path) -> None:
    from carzero.datasets import chestxray14, chexpert, openi, padchest

    path = _file(folder)
    kinds = {"nih": chestxray14, "test": chestxray14, "padchest": padchest, "manual": padchest, "chexpert": chexpert}
    kinds["NLMCXR"] = kinds["custom"] = openi
    truth = kinds[path.name.split("_")[0].split(".")[0]].load_labels([path])
    assert np.isin(truth.matrix[~np.isnan(truth.matrix)], (0, 1, -1)).all()


def read_mimic(folder: Path) -> None:
    from carzero.datasets.mimic_cxr import import_mimic_cxr

    import_mimic_cxr(folder)


def read_prompts(folder: Path) -> None:
    from carzero.prompts import PromptSet
    from carzero.prompts.prompt_file import format_mapping

    prompts = PromptSet.load(_file(folder))
    for kind in ("json", "yaml"):
        format_mapping(prompts.to_mapping(), kind).encode()
    assert len(prompts.hash) == 64


def read_recipe(folder: Path) -> None:
    from carzero.errors import ConfigurationError
    from carzero.training.recipes import ImagePretrainRecipe, TextPretrainRecipe, load_recipe, load_schema

    path = _file(folder)
    for schema in (ImagePretrainRecipe, TextPretrainRecipe):
        try:
            load_schema(schema, path)
        except ConfigurationError:
            continue
    load_recipe(path)


def read_record(folder: Path) -> None:
    from carzero.core.run_record import RunRecord, load_manifest, recorded_setting
    from carzero.structuring.report_table import load_aligned
    from carzero.weights import export_manifest

    path = _file(folder)
    if path.name == export_manifest.MANIFEST_NAME:
        export_manifest.check_files(folder, export_manifest.load_manifest(folder))
    elif path.name.endswith(".manifest.json"):
        out = path.with_name(path.name.removesuffix(".manifest.json"))
        recorded_setting(out, "dtype")
        RunRecord.of(load_manifest(out)).same_as(RunRecord(), out)
    else:
        load_aligned(path)


def read_report(folder: Path) -> None:
    from carzero.datasets.files import decode_report
    from carzero.errors import TableError
    from carzero.reports.rules import RuleAligner
    from carzero.reports.sections import select_sections

    try:
        text = decode_report(_file(folder).read_bytes())
    except ValueError as error:  # the importers count it
        raise TableError(str(error)) from error
    aligned = RuleAligner().align("a", text)
    assert all(0 <= finding.span[0] <= finding.span[1] <= len(text) for finding in aligned.findings)
    select_sections(text)


def read_journal(folder: Path) -> None:
    from functools import partial

    from carzero.core.journal import open_run
    from carzero.core.run_record import RunRecord
    from carzero.inference.score_table import check_packed, unpack_rows
    from carzero.structuring.report_table import ALIGNED_COLUMNS, to_aligned

    path = _file(folder)
    record = RunRecord({"w": "demo"}, "0.1.0")
    out = path.with_name(path.name.rpartition(".")[0])
    if path.name.endswith(".partial"):
        with open_run(out, record, resume=True, check=to_aligned, suffix=".partial") as journal:
            list(journal.rows_in_order(ALIGNED_COLUMNS))
        return
    check = partial(check_packed, labels=["a", "b"])
    with open_run(out, record, resume=True, key="image_id", check=check) as journal:
        scored = [row for row in journal.rows.values() if "reason" not in row]
        assert np.isfinite(unpack_rows(scored, ["a", "b"]).filter(like="logit:").to_numpy()).all()


def read_bank(folder: Path) -> None:
    from carzero.inference.bank_record import load_bank_prompts

    load_bank_prompts(folder)
    _check_scores(_classifier(), _classifier().load_prompts(folder))


def read_checkpoint(folder: Path) -> None:
    from carzero.training.run_folder import load_checkpoint
    from carzero.weights.released.reader import read_released_checkpoint

    path = _file(folder)
    if path.suffix == ".pt":
        load_checkpoint(path)
        return
    for tensor in read_released_checkpoint(path).state_dict.values():
        assert tensor.isfinite().all() or not tensor.is_floating_point(), "a parameter that is not a number"


def read_weights(folder: Path) -> None:
    from carzero.inference.classifier import ZeroShotClassifier
    from carzero.prompts import PromptSet
    from carzero.weights.source import WeightsSource

    source = WeightsSource(folder)
    assert len(source.sha256) == 64
    _ = source.preprocessing, source.kind
    classifier = ZeroShotClassifier.from_pretrained(source, device="cpu", dtype="float32")
    _check_scores(classifier, classifier.encode_prompts(PromptSet.from_labels(["edema", "pleural effusion"])))


def read_calibration(folder: Path) -> None:
    from carzero.inference.calibration_file import hash_calibration, load_calibration

    calibration = load_calibration(_file(folder))
    scores = np.array([[-3.4e38], [-1.0], [0.0], [1.0], [3.4e38]]) * np.ones((1, len(calibration.labels)))
    probabilities = calibration.apply(scores, list(calibration.labels))
    assert ((probabilities >= 0) & (probabilities <= 1)).all(), "a probability that is none"
    hash_calibration(calibration)
    calibration.describe()


def read_answer(folder: Path) -> None:
    from carzero.structuring.answer_cache import AnswerCache, KeptAnswer
    from carzero.structuring.answers import InvalidAnswerError, read_claims
    from carzero.structuring.completions import find_refused_field, read_completion
    from carzero.structuring.verification import check_claims

    path = _file(folder)
    data = path.read_bytes()
    if path.suffix == ".sqlite":
        with AnswerCache(path) as cache:
            answer = cache.load("key")
    elif path.suffix == ".txt":
        answer = KeptAnswer(data.decode("utf-8", "replace"))
    else:
        find_refused_field(data)
        answer = read_completion(data)
    if answer is None:
        return
    try:
        check_claims(read_claims(answer), seeds.REPORT)
    except InvalidAnswerError:
        return


def read_maps(folder: Path) -> None:
    from carzero.inference.heatmaps import load_map, load_map_table

    path = next(each for each in [*sorted(folder.iterdir()), folder / "map.png"] if each.suffix != ".json")
    if path.stem == "table":
        table = load_map_table(path)
        assert np.isfinite(table.grids).all()
        for row in range(min(2, len(table.images))):
            table.geometry(row)
    else:
        load_map(path)


TARGETS = {
    "images": Target(seeds.images, read_image, 4),
    "dicom": Target(seeds.dicoms, read_image, 4),
    "scores": Target(seeds.scores, read_scores),
    "truth": Target(seeds.truths, read_truth),
    "pairs": Target(seeds.pairs, read_pairs),
    "report tables": Target(seeds.report_tables, read_report_table),
    "boxes": Target(seeds.boxes, read_boxes),
    "releases": Target(seeds.releases, read_release),
    "mimic": Target(seeds.mimic, read_mimic),
    "prompts": Target(seeds.prompts, read_prompts, 2),
    "recipes": Target(seeds.recipes, read_recipe, 2),
    "records": Target(seeds.records, read_record),
    "reports": Target(seeds.reports, read_report, 2),
    "journals": Target(seeds.journals, read_journal),
    "banks": Target(lambda: seeds.bank(_own_folder()), read_bank),
    "checkpoints": Target(seeds.checkpoints, read_checkpoint, 2),
    "weights": Target(lambda: seeds.weights(_own_folder()), read_weights),
    "calibrations": Target(seeds.calibrations, read_calibration),
    "answers": Target(seeds.answers, read_answer, 2),
    "maps": Target(seeds.maps, read_maps),
    "tokenizers": Target(folders.tokenizers, folders.read_tokenizer),
    "score parts": Target(folders.parts, folders.read_parts),
    "training runs": Target(folders.runs, folders.read_run),
    "reader studies": Target(folders.reader_studies, folders.read_reader_study),
    "results": Target(clinical.results, lambda folder: clinical.read_result(folder, _classifier(), _weights()), 0.2),
    "c-store": Target(clinical.sessions, clinical.read_session),
    "web services": Target(clinical.web, clinical.read_web, 0.5),
    "spools": Target(clinical.spools, clinical.read_spool),
    "service": Target(service.requests, lambda folder: service.read_request(folder, _weights()), 0.5),
}
