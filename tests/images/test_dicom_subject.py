"""What a header says that the image shows: views, parts of the body and purposes in words that consoles write."""

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalIntraOralXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from carzero.errors import UnsuitableImageError
from carzero.images.dicom_subject import doubts_about_header, doubts_about_view, find_view


def header(**elements: object) -> Dataset:
    """Returns the words of a chest radiograph; elements overwrite, and None removes, the defaults."""
    words: dict[str, object] = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "Modality": "DX",
        "BodyPartExamined": "CHEST",
    }
    data = Dataset()
    for name, value in (words | elements).items():
        if value is not None:
            setattr(data, name, value)
    return data


def coded(meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeMeaning = meaning
    return [item]


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("stated", ["LEFT LATERAL", "L LAT", "RLAT", "LLAT", "LAT L", "LL", "Lateral"])
def test_spellings_of_lateral(stated: str) -> None:
    assert find_view(header(ViewPosition=stated)) == "LATERAL"


@pytest.mark.parametrize("name", ["SeriesDescription", "ProtocolName", "StudyDescription"])
@pytest.mark.parametrize(
    "text",
    ["Thorax seitl.", "Thorax profil", "TORAX PERFIL", "Torace laterale", "ChestLat", "CHEST_LLAT", "Chest 1V Lat"],
)
def test_lateral_in_descriptions(name: str, text: str) -> None:
    assert find_view(header(**{name: text})) == "LATERAL"
    assert "is lateral" in doubts_about_view(header(**{name: text}))[0]


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("name", ["ViewPosition", "SeriesDescription"])
@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("LLD", "decubitus"),
        ("RLD", "decubitus"),
        ("LAO", "oblique"),
        ("RPO", "oblique"),
        ("AP OBLIQUE", "oblique"),
        ("LORDOTIC", "lordotic"),
        ("AP LAT DECUB", "decubitus"),
    ],
)
def test_views_that_are_not_plain_frontal_are_said(name: str, text: str, view: str) -> None:
    (doubt,) = doubts_about_view(header(**{name: text}))
    assert f"not a plain frontal one ({view})" in doubt
    assert find_view(header(**{name: text})) == ""


def test_view_code_of_an_oblique_view() -> None:
    assert "oblique" in doubts_about_view(header(ViewCodeSequence=coded("left anterior oblique")))[0]


@pytest.mark.parametrize(
    "elements",
    [{"PatientOrientation": ["A", "F"]}, {"SeriesDescription": "Chest lateral"}, {"ProtocolName": "CHEST LAT"}],
)
def test_frontal_and_lateral_at_once_is_said(elements: dict[str, object]) -> None:
    (doubt,) = doubts_about_view(header(ViewPosition="PA", **elements))
    assert "the view is PA and also that it is lateral" in doubt


@pytest.mark.parametrize(
    "elements",
    [
        {"ViewPosition": "PA", "SeriesDescription": "CHEST PA"},
        {"ViewPosition": "AP", "SeriesDescription": "Chest PA", "PatientOrientation": ["L", "F"]},
        {"ViewPosition": "PA", "StudyDescription": "CHEST PA AND LATERAL"},
        {"ViewPosition": "PA", "StudyDescription": "Chest lateral"},  # of a study with several images
        {"StudyDescription": "XR CHEST 2 VIEWS PA/LAT"},
        {"SeriesDescription": "Latest protocol, flat panel", "ProtocolName": "Standard profile"},
    ],
)
def test_plain_frontal_words_are_no_doubt(elements: dict[str, object]) -> None:
    assert doubts_about_view(header(**elements)) == []


@pytest.mark.parametrize(
    "text",
    [
        "Knie links",
        "Main droite",
        "RODILLA DERECHA",
        "Becken a.p.",
        "BWS",
        "Schädel",
        "GENOU",
        "Mano izq",
        "Fuss",
        "CHEVILLE",
        "Babygram",
        "CADERA",
        "KUB",
        "Voet",
        "Schulter",
        "COLUMNA LUMBAR",
        "BACINO",
        "GINOCCHIO",
        "Handgelenk",
        "Ombro",
        "ÉPAULE",
    ],
)
def test_other_parts_in_other_languages_are_refused(text: str) -> None:
    with pytest.raises(UnsuitableImageError, match="another part of the body"):
        doubts_about_header(header(BodyPartExamined=None, StudyDescription=text), source="", force=False)


@pytest.mark.parametrize(
    "text", ["Thorax a.p. liegend", "RX TORAX DE PIE", "Poumons main service", "Röntgen p.a.", "Radiografia", "Urgence"]
)
def test_chest_and_unknown_words_in_other_languages_are_not(text: str) -> None:
    assert doubts_about_header(header(BodyPartExamined=None, StudyDescription=text), source="", force=False) == []


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"BodyPartExamined": "CHESTABDOMEN"}, "more than the chest"),
        ({"AnatomicRegionSequence": coded("Hand")}, "more than the chest"),
        ({"SOPClassUID": CTImageStorage}, "SOP class is not one of radiographs"),
        ({"SOPClassUID": DigitalMammographyXRayImageStorageForPresentation}, "SOP class is not"),
        ({"SOPClassUID": DigitalIntraOralXRayImageStorageForPresentation}, "SOP class is not"),
        ({"SOPClassUID": DigitalXRayImageStorageForProcessing}, "The image is raw"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "The image is raw"),
        ({"QualityControlImage": "YES"}, "phantom"),
    ],
)
def test_contradictions_and_purposes_are_said(elements: dict[str, object], words: str) -> None:
    assert [words in doubt for doubt in doubts_about_header(header(**elements), source="", force=False)] == [True]


@pytest.mark.parametrize(
    "elements",
    [
        {"SOPClassUID": ComputedRadiographyImageStorage},
        {"SOPClassUID": SecondaryCaptureImageStorage},  # data sets are published so
        {"SOPClassUID": None},
        {"PresentationIntentType": "FOR PRESENTATION", "AnatomicRegionSequence": coded("Chest")},
    ],
)
def test_usual_purposes_are_no_doubt(elements: dict[str, object]) -> None:
    assert doubts_about_header(header(**elements), source="", force=False) == []
