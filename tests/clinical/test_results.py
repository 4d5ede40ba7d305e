"""Result objects: valid beside their image, the numbers of `predict` and `ground`, the same again the same."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from highdicom.sr import Comprehensive3DSR
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from carzero._version import __version__
from carzero.clinical import KINDS, ResultSettings, build_results, list_results, load_source
from carzero.clinical import codes as own_codes
from carzero.clinical.codes import SCHEME, Concept, find_concept
from carzero.clinical.run import ResultMaker
from carzero.clinical.structured_report import find_places
from carzero.errors import ConfigurationError, ImageError, MissingExtraError, TableError
from carzero.images.listing import list_images
from carzero.inference.classifier import ZeroShotClassifier
from carzero.inference.scoring import ScoringSettings
from carzero.metrics.calibration import Calibration
from carzero.metrics.calibrators import LabelCalibration
from carzero.prompts import Code, LabelEntry, PromptReview, PromptSet
from carzero.records import ScoredImage
from carzero.weights.source import WeightsSource
from tests.support.commands import in_process, run_program
from tests.support.studies import chest, errors_of, find_program, save

LABELS = ["pneumonia", "pleural effusion", "плевральный выпот"]
JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"
# What differs from a plain image of the modality; None takes an attribute away.
SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "CR": ("CR", {}),
    "DX, MONOCHROME1": ("DX", {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}),
    "CR, MONOCHROME1, Japanese, spacing 0": (
        "CR",
        {
            **{"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": JAPANESE, "PixelSpacing": ["0", "0"]},
            "PhotometricInterpretation": "MONOCHROME1",
        },
    ),
    "DX, Cyrillic, no spacing, no orientation": (
        "DX",
        {
            **{"SpecificCharacterSet": "ISO_IR 144", "PatientName": "Иванова^Анна", "PatientOrientation": None},
            **{"PixelSpacing": None, "ImagerPixelSpacing": None},
        },
    ),
    "CR, nameless, no body part": (
        "CR",
        {
            **{"PatientName": None, "PatientID": None, "PatientSex": None, "StudyTime": None},
            **{"BodyPartExamined": None, "ViewPosition": None, "PatientOrientation": None},
        },
    ),
    "CR, one side, odd values": (
        "CR",
        {
            **{"BodyPartExamined": "RIB", "Laterality": "R", "PatientSex": "X", "PatientBirthDate": "1950"},
            **{"StudyDate": "", "PatientID": ""},
        },
    ),
}


@pytest.fixture(scope="module")
def settings(tiny_weights: Path) -> ResultSettings:
    return make_settings(tiny_weights)


def make_settings(weights: Path, labels: list[str] = LABELS, **options: Any) -> ResultSettings:
    source, prompts = WeightsSource(weights), PromptSet.from_labels(labels)
    scoring = ScoringSettings(weights=source, prompts=prompts, device="cpu", force=True)
    return ResultSettings.of(source, scoring.provenance(None), prompts, **options)


@pytest.fixture(scope="module")
def score(classifier: ZeroShotClassifier) -> Callable[[Path], ScoredImage]:
    bank = classifier.encode_prompts(PromptSet.from_labels(LABELS))

    def run(path: Path) -> ScoredImage:
        result = next(classifier.stream(list_images([path]), bank, need_maps=True, force=True))
        assert isinstance(result, ScoredImage), result
        return result

    return run


def test_the_report_says_how_boxes_of_its_kind_of_maps_are_found(
    settings: ResultSettings, score: Callable[[Path], ScoredImage], tmp_path: Path
) -> None:
    image = score(save(chest(1, "CR"), tmp_path / "image.dcm"))
    own = build_results(image, settings, kinds=("sr",))[0].to_json()
    assert "lowest + 0.5 * (highest - lowest)" in own
    fixed = replace(image, map_kind=replace(image.map_kind, scale=(0.0, 6.0)))
    scaled = build_results(fixed, settings, kinds=("sr",))[0].to_json()
    assert "at or above 3, which is 0.5 of the maps' fixed scale from 0 to 6" in scaled
    assert "lowest + 0.5" not in scaled


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom.*")
@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_is_valid_beside_its_image(
    name: str, settings: ResultSettings, score: Callable[[Path], ScoredImage], tmp_path: Path
) -> None:
    modality, changes = SOURCES[name]
    path = save(chest(1, modality, **changes), tmp_path / "image.dcm")
    source, known = pydicom.dcmread(path), errors_of(path)
    results = build_results(score(path), settings, kinds=KINDS)
    assert [str(result.Modality) for result in results] == ["SR", "OT", "DOC", "PR", "KO", "SEG"]
    for result in results:
        written = tmp_path / f"{result.Modality}.dcm"
        result.save_as(written, enforce_file_format=True)
        assert errors_of(written) <= known, result.Modality
        again = pydicom.dcmread(written)
        for attribute in ("PatientName", "PatientID", "PatientSex", "StudyInstanceUID", "AccessionNumber", "StudyDate"):
            assert str(again[attribute].value or "") == str(source.get(attribute) or ""), attribute
        assert again.SeriesInstanceUID != source.SeriesInstanceUID
        assert not again.get("PixelSpacing")
        assert "research use" in again.SeriesDescription
    report = results[0]
    assert report.VerificationFlag == "UNVERIFIED"
    read = Comprehensive3DSR.from_dataset(pydicom.dcmread(tmp_path / "SR.dcm")).content  # by another's templates
    assert [group.tracking_identifier for group in read.get_planar_roi_measurement_groups()] == LABELS
    shown = run_program([find_program("dsrdump", "dcmtk"), "+Pl", tmp_path / "SR.dcm"]).stdout
    for label, logit in zip(LABELS, score(path).logits, strict=True):
        assert label in shown
        assert '"' + str(np.float32(logit)) + '"' in shown
    assert f'"{__version__}"' in shown
    assert "not a diagnosis" in shown
    assert "are deleted; the model reads" in shown, "what is to be known of the Russian prompt stands in every report"


def test_scores_and_boxes_are_those_of_predict_and_ground(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = save(chest(3, "DX", ViewPosition="LL"), tmp_path / "image.dcm")
    asked = [image, "--labels", "pneumonia,pleural effusion,mass", "--weights", tiny_weights, "--force"]
    code, stdout, told = in_process(capsys, "predict", *asked, "--json")
    assert code == 0
    scores = json.loads(stdout)["scores"][0]
    doubts = [line for line in told.splitlines() if line.startswith("warning: image.dcm: ")]
    assert doubts, "a lateral view is doubtful"
    code, stdout, _ = in_process(capsys, "ground", *asked, "--json")
    boxes = {row["label"]: row["box"] for row in json.loads(stdout)["findings"]}
    out = tmp_path / "out"
    code, stdout, stderr = in_process(capsys, "dicom", "results", *asked, "--out", out, "--json")
    assert (code, json.loads(stdout)["files"]) == (0, {"image.dcm": ["image.sr.dcm", "image.sc.dcm"]})
    assert [line for line in stderr.splitlines() if line.startswith("warning: image.dcm: ")] == doubts
    assert [f"warning: {each['image_id']}: {each['doubt']}" for each in json.loads(stdout)["doubts"]] == doubts
    found = read_groups(pydicom.dcmread(out / "image.sr.dcm"))
    assert [*found] == ["pneumonia", "pleural effusion", "mass"]
    for label, (logit, written, outline) in found.items():
        assert logit == scores[f"logit:{label}"]
        assert np.float32(written) == np.float32(logit)
        left, top, right, bottom = (boxes[label][edge] for edge in ("xmin", "ymin", "xmax", "ymax"))
        assert outline == [left, top, right, top, right, bottom, left, bottom, left, top]
    before = {path: path.read_bytes() for path in out.iterdir()}
    code, _, stderr = in_process(capsys, "dicom", "results", *asked, "--out", out)
    assert code == 0
    assert "Left as they were: the objects of 1 image," in stderr
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    other = [*asked, "--out", out, "--box-share", "0.7"]
    code, _, stderr = in_process(capsys, "dicom", "results", *other)
    assert (code, "exists already" in stderr) == (2, True)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert in_process(capsys, "dicom", "results", *other, "--overwrite")[0] == 0
    assert (out / "image.sr.dcm").read_bytes() != before[out / "image.sr.dcm"]


def read_groups(report: Dataset) -> dict[str, tuple[float, str, list[float]]]:
    """Score (as double, as text) and outline of each finding in a report."""
    groups = next(item for item in report.ContentSequence if meaning(item) == "Imaging Measurements").ContentSequence
    found = {}
    for group in groups:
        items = {meaning(item): item for item in group.ContentSequence}
        [number] = [item for item in items.values() if item.ConceptNameCodeSequence[0].CodeValue == "LOGIT"]
        label = items["Tracking Identifier"].TextValue
        assert meaning(number) == f"Zero-shot logit, {label}"
        value = number.MeasuredValueSequence[0]
        region = items.get("Image Region")
        outline = [] if region is None else [float(each) for each in region.GraphicData]
        found[label] = (value.FloatingPointValue, str(value.NumericValue), outline)
    return found


def texts(report: Dataset) -> list[str]:
    """All texts of a report's content."""
    return [str(element.value) for element in report.iterall() if element.keyword == "TextValue"]


def meaning(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def to_bytes(result: Dataset) -> bytes:
    buffer = io.BytesIO()
    result.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_the_same_again_is_the_same_instance(
    settings: ResultSettings, score: Callable[[Path], ScoredImage], tmp_path: Path
) -> None:
    image = score(save(chest(4), tmp_path / "image.dcm"))
    moment = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
    kinds = [kind for kind in KINDS if kind != "pdf"]  # whose library numbers its objects as it likes
    first, second = (build_results(image, settings, kinds=kinds, when=moment) for _ in range(2))
    assert [to_bytes(each) for each in first] == [to_bytes(each) for each in second]
    expected = list_results(load_source(image.item.path), settings, kinds)
    assert [each.SOPInstanceUID for each in first] == [uid for uids in expected.values() for uid in uids]
    assert len({each.SOPInstanceUID for each in first} | {each.SeriesInstanceUID for each in first}) == 2 * len(first)


def test_another_question_or_another_image_has_other_identifiers(tiny_weights: Path, tmp_path: Path) -> None:
    one, two = (load_source(save(chest(n), tmp_path / f"{n}.dcm")) for n in (1, 2))
    settings = make_settings(tiny_weights)
    seen = [
        (one, settings),
        (two, settings),
        (one, make_settings(tiny_weights, ["pneumonia"])),
        (one, make_settings(tiny_weights, box_share=0.6)),
        (one, make_settings(tiny_weights, calibration=calibration_of(settings, "pneumonia"))),
    ]
    uids = [list_results(source, each, ["sr"])["sr"][0] for source, each in seen]
    assert len({*uids}) == len(seen)
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)
    assert settings.device_uid != make_settings_of_other_weights(settings).device_uid


def make_settings_of_other_weights(settings: ResultSettings) -> ResultSettings:
    return replace(settings, provenance=replace(settings.provenance, weights_sha256="0" * 64))


def calibration_of(settings: ResultSettings, *labels: str, **provenance: object) -> Calibration:
    fitted = LabelCalibration("platt", {"slope": 1.5, "intercept": -0.25}, 40, 20, -3.0, 3.0)
    stated = {"fitted_on": "a set of ours", **settings.provenance.to_dict("weights_sha256", "preprocessing", "pool")}
    return Calibration(dict.fromkeys(labels, fitted), provenance={**stated, **provenance})


def test_a_probability_needs_a_calibration_of_these_weights(
    settings: ResultSettings, tiny_weights: Path, score: Callable[[Path], ScoredImage], tmp_path: Path
) -> None:
    image = score(save(chest(5), tmp_path / "image.dcm"))
    fitted = calibration_of(settings, "pneumonia")
    [report] = build_results(image, make_settings(tiny_weights, calibration=fitted), kinds=["sr"])
    text = str(report)
    assert text.count("Probability") == 1
    assert repr(float(fitted.apply(image.logits[None, :1].astype(float), ["pneumonia"])[0, 0])) in text
    assert any("probability calibrated by platt on a set of ours" in each for each in texts(report))
    assert "Probability" not in str(build_results(image, settings, kinds=["sr"])[0])
    with pytest.raises(ConfigurationError, match="fitted on other scores"):
        make_settings(tiny_weights, calibration=calibration_of(settings, "pneumonia", weights_sha256="0" * 64))


def test_an_even_map_has_no_box_and_a_doubt_stands_in_report_and_page(
    settings: ResultSettings, score: Callable[[Path], ScoredImage], tmp_path: Path
) -> None:
    image = score(save(chest(6, ViewPosition="LL"), tmp_path / "image.dcm"))
    assert image.maps is not None
    even = replace(image, maps=np.full_like(image.maps, 0.25))
    report, page = build_results(even, settings, kinds=["sr", "sc"])
    groups = read_groups(report)
    assert [*groups] == LABELS  # in their own letters, before the report was ever written
    assert [outline for _, _, outline in groups.values()] == [[], [], []]
    assert any("The view is lateral" in each for each in texts(report))
    assert page.pixel_array.shape[2] == 3
    assert build_results(even, settings, kinds=["seg"]) == []


def test_what_is_to_be_known_of_prompts_and_probabilities_stands_in_the_report(
    tiny_weights: Path, score: Callable[[Path], ScoredImage], tmp_path: Path
) -> None:
    image = score(save(chest(5), tmp_path / "image.dcm"))
    plain = make_settings(tiny_weights, ["pneumonia", "effusion", "no edema"])
    asked = replace(plain, review=PromptReview(plain.review.findings, ("effusion",)) if plain.review else None)
    known = replace(asked, calibration=calibration_of(asked, "pneumonia", prompts=None))
    [report] = build_results(replace(image, logits=np.float32([9, 0, 0])), known, kinds=["sr"])
    said = texts(report)
    assert [each for each in said if each in known.doubts] == [*known.doubts]
    for doubt in ('negated-label: "no edema"', "No probability for effusion, no edema", "Beyond the scores", "unknown"):
        assert any(doubt in each for each in said), doubt
    assert sum(each.startswith("No sentence that these weights") for each in said) == 1, "beside the finding it is of"
    assert asked.parameters != make_settings(tiny_weights, ["pneumonia", "effusion", "edema"]).parameters
    with pytest.raises(TableError, match="None of the calibration's labels"):
        replace(asked, calibration=calibration_of(asked, "mass"))


def test_a_difference_of_scores_is_named_so_and_takes_no_calibration_of_logits(
    tiny_weights: Path, score: Callable[[Path], ScoredImage], tmp_path: Path
) -> None:
    source = WeightsSource(tiny_weights)
    prompts = source.style.ask(LABELS, None, None, "logit_difference")
    scoring = ScoringSettings(weights=source, prompts=prompts, device="cpu", force=True)
    settings = ResultSettings.of(source, scoring.provenance(None), prompts)
    image = score(save(chest(5), tmp_path / "image.dcm"))
    [report] = build_results(image, settings, kinds=["sr"])
    assert "Zero-shot logit difference, pneumonia" in str(report)
    assert "Zero-shot logit, " not in str(report)
    with pytest.raises(ConfigurationError, match="another score_kind"):
        replace(settings, calibration=calibration_of(settings, "pneumonia"))


def test_findings_in_one_place_share_what_is_tracked(
    settings: ResultSettings, score: Callable[[Path], ScoredImage], tmp_path: Path
) -> None:
    """Viewers draw one region for it, and the scores below each other: they would print them over each other."""
    image = score(save(chest(5), tmp_path / "image.dcm"))
    maps = np.zeros((3, 4, 4), dtype=np.float32)
    maps[0, 0, 0] = maps[1, 0, 0] = maps[2, 3, 3] = 1
    maps[1, 0, 1] = 0.01
    report, state = build_results(replace(image, maps=maps), settings, kinds=["sr", "gsps"])
    groups = next(item for item in report.ContentSequence if meaning(item) == "Imaging Measurements").ContentSequence
    tracked = [next(item.UID for item in group.ContentSequence if "UID" in item) for group in groups]
    assert tracked[0] == tracked[1] != tracked[2]
    assert [*read_groups(report)] == LABELS
    assert all(outline for _, _, outline in read_groups(report).values()), "each finding keeps a box of its own"
    written = [
        each.TextObjectSequence[0].UnformattedTextValue
        for each in state.GraphicAnnotationSequence
        if "TextObjectSequence" in each
    ]
    assert [text.count("logit") for text in written] == [2, 1]
    assert find_places([]) == []


def test_many_findings_take_several_pages(classifier: ZeroShotClassifier, tiny_weights: Path, tmp_path: Path) -> None:
    labels = [f"finding number {n}" for n in range(1, 8)]
    settings = make_settings(tiny_weights, labels)
    path = save(chest(7), tmp_path / "image.dcm")
    bank = classifier.encode_prompts(settings.prompts)
    image = next(classifier.stream(list_images([path]), bank, need_maps=True, force=True))
    assert isinstance(image, ScoredImage)
    pages = build_results(image, settings, kinds=["sc"])
    assert [page.InstanceNumber for page in pages] == [701, 702]
    assert len({page.SOPInstanceUID for page in pages}) == 2
    assert len({page.SeriesInstanceUID for page in pages}) == 1


def test_a_presentation_state_is_rendered_over_its_image(
    settings: ResultSettings, score: Callable[[Path], ScoredImage], tmp_path: Path
) -> None:
    path = save(chest(8, PhotometricInterpretation="MONOCHROME1"), tmp_path / "image.dcm")
    [state] = build_results(score(path), settings, kinds=["gsps"])
    state.save_as(tmp_path / "state.dcm", enforce_file_format=True)
    program = find_program("dcmp2pgm", "dcmtk")
    done = run_program([program, "-p", tmp_path / "state.dcm", path, tmp_path / "out.pgm"])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.pgm").stat().st_size > 240 * 220


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SOPInstanceUID", "SeriesInstanceUID"])
def test_an_image_that_cannot_be_referred_to_is_refused(name: str, tmp_path: Path) -> None:
    image = chest(9)
    path = save(image, tmp_path / "image.dcm")
    image = pydicom.dcmread(path)
    setattr(image, name, "")
    image.save_as(path)
    with pytest.raises(ImageError, match=f"its {name} is not a DICOM identifier"):
        load_source(path)


def test_images_without_results_are_listed(
    tiny_weights: Path, films: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(to_bytes(chest(1))[:4000])
    asked = [films[0], broken, save(chest(2), tmp_path / "good.dcm")]
    code, stdout, stderr = in_process(
        capsys, "dicom", "results", *asked, "-l", "pneumonia,肺炎", "-w", tiny_weights, "-o", tmp_path / "out", "--json"
    )
    assert code == 1
    assert [*json.loads(stdout)["files"]] == ["good.dcm"]
    assert "film_000.png: the file is not DICOM" in stderr
    assert "broken.dcm: " in stderr
    assert 'warning: lost-character: "肺炎"' in stderr, "what is to be known of the words, as predict says it"


def test_codes_are_those_of_the_dictionary() -> None:
    for name, concept in vars(own_codes).items():
        if isinstance(concept, Concept) and concept.scheme in ("SCT", "DCM"):
            terms = getattr(codes, concept.scheme)
            known = [
                getattr(terms, each) for each in terms.dir() if each.lower() == concept.meaning.replace(" ", "").lower()
            ]
            assert [code.value for code in known] == [concept.value], name


def test_a_code_is_never_guessed() -> None:
    assert find_concept("pleural effusion", LabelEntry()) == Concept("60046008", "SCT", "Pleural effusion")
    assert find_concept("Pneumothorax", LabelEntry()).value == "36118008"
    private = find_concept("a very odd shadow", LabelEntry())
    assert (private.scheme, private.meaning) == (SCHEME, "a very odd shadow")
    assert find_concept("another odd shadow", LabelEntry()).value != private.value
    # In the library's table, but not in DICOM's dictionary: not sent.
    assert find_concept("cardiomegaly", LabelEntry(code=Code("SCT", "8186001"))).scheme == SCHEME
    # A prompt file's own code is its author's word.
    assert find_concept("my finding", LabelEntry(code=Code("RADLEX", "RID1"))) == Concept(
        "RID1", "RADLEX", "my finding"
    )
    long = find_concept("x" * 200, LabelEntry())
    assert (len(long.meaning), len(long.value)) == (64, 16)


def test_wrong_settings_are_refused(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scoring = ScoringSettings(weights=WeightsSource(tiny_weights), prompts=PromptSet.from_labels(["mass"]))
    with pytest.raises(ConfigurationError, match=r"kind of result is unknown.*'tiff'"):
        ResultMaker(scoring, kinds=("sr", "tiff"))
    with pytest.raises(ConfigurationError, match="share"):
        ResultMaker(scoring, box_share=0)
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(MissingExtraError, match=r"'\.\[clinical\]'"):
        ResultMaker(scoring, kinds=("sr", "seg"))
