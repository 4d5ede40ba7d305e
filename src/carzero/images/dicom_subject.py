"""What a DICOM header says that its image shows: modality, purpose, part of the body, view and orientation.

Writers use words of their own language and their own abbreviations, in whatever element the console fills. Words that
surely name something else than a frontal chest radiograph refuse the image or are said; words that nobody here knows
change nothing.

Source: DICOM PS3.3 C.8.11.1 (DX series and purpose), C.8.11.5 (view), C.7.6.1.1.1 (orientation); PS3.16 CID 4010, 4011.
"""

from __future__ import annotations

import re
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, DigitalXRayImageStorageForProcessing

from carzero.errors import printable
from carzero.images.checks import refuse_unless_forced

_RADIOGRAPHY = {"CR", "DX", "RG"}
_UNCERTAIN_MODALITY = {"", "OT", "SC", "XR"}
_CHEST = re.compile(r"CHEST|THORA|TORAX|TÓRAX|LUNG|PULMO|PECHO|POITRINE|\bCXR\b|^RIB|\bRIBS?\b|HEART|STERNUM", re.I)

_ELSEWHERE = re.compile(
    r"ABDOM|ANKLE|\bARM\b|BLADDER|BRAIN|BREAST|CALCAN|CLAVIC|COCCYX|COLON|DENTAL|ELBOW|EXTREMIT|\bFACE\b|FACIAL|FEMUR"
    r"|FIBULA|FINGER|\bFOOT|\bFEET|FOREARM|\bHANDS?\b|\bHEAD\b|\bHEEL|\bHIPS?\b|HUMERUS|\bJAW\b|KIDNEY|KNEE|\bLEGS?\b"
    r"|LIVER|LUMBAR|MANDIB|MAXILL|MAMMO|NASAL|\bNECK\b|\bNOSE\b|ORBIT|PATELL|PELVI|RADIUS|SACR|SCAPUL|SHOULDER|SINUS"
    r"|BABYGRAM|\bKUB\b|SKULL|[CLTS]-?SPINE|\bSPINE\b|STOMACH|THIGH|THUMB|TIBIA|\bTOES?\b|TOOTH|TEETH|ULNA|WRIST|ZYGOMA"
    # German
    r"|KNIE\b|FUSS\b|FUß|BECKEN|WIRBEL|\b[BHL]WS\b|SCH(?:Ä|AE)DEL|SCHULTER|ELLE?N?BOGEN|H(?:Ü|UE)FT|GELENK|UNTERARM"
    r"|OBERARM|SCHENKEL|\bZEHE"
    # French
    r"|GENOU|\bMAINS? (?:DROITE?|GAUCHE)|\bPIEDS?\b|CHEVILLE|POIGNET|COUDE\b|[EÉ]PAULE|BASSIN\b|RACHIS"
    r"|CR[AÂ]NE\b|HANCHE"
    # Spanish, Portuguese, Italian
    r"|RODILLA|\bMANOS?\b|TOBILLO|\bCODOS?\b|HOMBRO|COLUMNA|COLUNA|CADERA|CR[AÁ]N[EI]O|MUÑECA|JOELHO|\bOMBRO|QUADRIL"
    r"|TORNOZELO|GINOCCHI|BACINO|SPALLA|CAVIGLIA|POLSO|GOMITO|\bPIEDE|RACHIDE"
    # Dutch
    r"|\bVOET|SCHOUDER|BEKKEN|ENKEL\b|\bPOLS\b|\bHEUP",
    re.I,
)

_TEXTS = (
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
)

_VIEW_WORDS = {
    "PA": r"P\.?A\.?|POSTERO-?ANTERIOR",
    "AP": r"A\.?P\.?|ANTERO-?POSTERIOR",
    "LATERAL": r"[LR]? ?LAT|LATERAL(?:E|ES)?|LATÉRALE?|SEITL(?:ICH)?|PROFIL|PERFIL|PROFILO|ZIJDELINGS",
    "OBLIQUE": r"[LR][AP]O|OBL|OBLIQ(?:UES?|UA|UO)?|OBLICUA|SCHRÄG|SCHRAEG",
    "DECUBITUS": r"[LR]LD|D[EÉ]CUB(?:ITUS|ITO)?",
    "LORDOTIC": r"LORD[OÓ]TI(?:C|CA)",
}
_VIEWS = {view: re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.I) for view, words in _VIEW_WORDS.items()}
_STATED_VIEWS = {"LL": "LATERAL", "RL": "LATERAL"}  # ViewPosition's own terms, too short to be looked for in texts
_FRONTAL = ("PA", "AP")
_PARTS_OF_WORDS = re.compile(r"_|(?<=[a-z])(?=[A-Z])")  # CHEST_LAT and ChestLat are two words
_IMAGE_TEXTS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
_STUDY_TEXTS = ("PerformedProcedureStepDescription", "StudyDescription")  # may speak of several images


def doubts_about_header(header: Dataset, *, source: str, force: bool) -> list[str]:
    """Returns sentences about what makes the image doubtful as a frontal chest radiograph.

    Raises:
        UnsuitableImageError: another modality or another part of the body, not forced.
    """
    return [
        *_modality_doubts(_text(header, "Modality").upper(), source=source, force=force),
        *_purpose_doubts(header),
        *_body_part_doubts(header, source=source, force=force),
    ]


def find_view(header: Dataset) -> str:
    """Returns "PA", "AP", "LATERAL" or "", from the view position, the view code, the orientation or the description.

    The orientation tells lateral from frontal only; a description counts only if it names a single view.
    """
    view = _find_any_view(header)
    return view if view in (*_FRONTAL, "LATERAL") else ""


def doubts_about_view(header: Dataset) -> list[str]:
    """Returns sentences where the header says that the view is not frontal, or says both."""
    view = _find_any_view(header)
    if view == "LATERAL":
        return ["The view is lateral; the model was trained on frontal views."]
    if view and view not in _FRONTAL:
        return [f"The view is not a plain frontal one ({view.lower()}); the model was trained on frontal views."]
    others = [_view_in(_text(header, name)) for name in _IMAGE_TEXTS]
    others += ["LATERAL"] if _lies_sideways(header) else []
    other = next((other for other in others if other and other not in _FRONTAL), "")
    if view and other:
        return [f"The header says that the view is {view} and also that it is {other.lower()}; it may not be frontal."]
    return []


def _find_any_view(header: Dataset) -> str:
    """Returns the view, one of `_VIEW_WORDS`, or ""."""
    stated = _text(header, "ViewPosition")
    view = _STATED_VIEWS.get(stated.upper()) or _view_in(stated) or _view_in(_meaning(header, "ViewCodeSequence"))
    if view or _lies_sideways(header):
        return view or "LATERAL"
    view = next((view for name in _IMAGE_TEXTS if (view := _view_in(_text(header, name)))), "")
    spoken_of = (_view_in(_text(header, name)) for name in _STUDY_TEXTS)
    return view or next((view for view in spoken_of if view and view not in _FRONTAL), "")


def _lies_sideways(header: Dataset) -> bool:
    """Whether the rows run to the patient's front or back."""
    return bool(re.match(r"\W*[AP]\W+F", _text(header, "PatientOrientation").upper()))


def doubts_about_orientation(header: Dataset) -> list[str]:
    """Returns a sentence where the header says that the image does not lie as a reader hangs it; empty if it does.

    The pixels are left as they are stored: a heatmap, a box and an overlay in the image's own pixels stay in those of
    the file. Patient Orientation gives the direction of the rows and of the columns; of a frontal image they run to the
    patient's left and feet, of a lateral one to front or back and feet (DICOM PS3.3 C.7.6.1.1.1).
    """
    stated = header.get("PatientOrientation")
    parts = [str(part).strip().upper() for part in (stated.split("\\") if isinstance(stated, str) else stated or [])]
    if not any(parts):
        return []
    said = f"patient orientation {printable('/'.join(parts))[:40]}"
    rows, columns = parts[0][:1], parts[-1][:1]
    if len(parts) != 2 or not all(part and set(part) <= set("LRAPHF") for part in parts):
        return [f"The {said} cannot be read; the image may lie turned or mirrored."]
    if rows in "HF" and columns not in "HF":
        return [f"The image lies on its side ({said}); it is scored as it is stored, not turned."]
    if columns not in "HF" or rows in "HF":
        return [f"The {said} is not that of a frontal or lateral image; it may lie turned or mirrored."]
    exchanged = "left and right are exchanged in it"
    return {
        (True, True): [
            f"The image lies turned by 180 degrees ({said}); it is scored as it is stored, and {exchanged}."
        ],
        (True, False): [f"The image is mirrored ({said}); it is scored as it is stored, and {exchanged}."],
        (False, True): [f"The image is upside down ({said}); it is scored as it is stored, not turned."],
    }.get((rows == "R", columns == "H"), [])


def _modality_doubts(modality: str, *, source: str, force: bool) -> list[str]:
    """Returns a doubt where the modality leaves open whether this is a radiograph."""
    if modality in _RADIOGRAPHY:
        return []
    if modality in _UNCERTAIN_MODALITY:
        return [f"The modality {modality or '(none stated)'} does not say that this is a radiograph."]
    return [
        refuse_unless_forced(
            "The modality is not radiography",
            got=modality,
            expected="CR, DX or RG",
            source=source,
            force=force,
        )
    ]


_IMAGE_CLASSES = "1.2.840.10008.5.1.4.1.1."
_CLASSES = re.compile(r"1(\.1(\.1)?)?|7(\..*)?|12\..*")  # CR, DX, secondary capture, fluoroscopy


def _purpose_doubts(header: Dataset) -> list[str]:
    """Returns doubts where the image was not made to be looked at as a radiograph of a patient."""
    doubts = []
    sop_class = _text(header, "SOPClassUID")
    kind = sop_class.removeprefix(_IMAGE_CLASSES)
    if kind != sop_class and not _CLASSES.fullmatch(kind) and _text(header, "Modality").upper() in _RADIOGRAPHY:
        doubts.append(f"The SOP class is not one of radiographs ({printable(UID(sop_class).name)[:60]}).")
    if _text(header, "PresentationIntentType").upper() == "FOR PROCESSING" or sop_class == _RAW_CLASS:
        doubts.append(
            "The image is raw (Presentation Intent Type FOR PROCESSING): its grey levels are the detector's, not those "
            "of a finished radiograph, and may be inverted."
        )
    if localizer := next((word for word in _words(header, "ImageType") if word.upper() in _LOCALIZERS), ""):
        doubts.append(f"The image type is {printable(localizer)}: it was made to plan others, not to be read.")
    if _text(header, "QualityControlImage").upper() == "YES":
        doubts.append("The header says that this is a quality control image, perhaps of a phantom.")
    return doubts


_LOCALIZERS = {"LOCALIZER", "LOCALISER", "SCOUT", "TOPOGRAM", "SCANOGRAM", "SCOUT VIEW"}
_RAW_CLASS = str(DigitalXRayImageStorageForProcessing)


def _body_part_doubts(header: Dataset, *, source: str, force: bool) -> list[str]:
    """Returns a doubt where the header names something else than the chest."""
    stated, region = _text(header, "BodyPartExamined"), _meaning(header, "AnatomicRegionSequence")
    texts = [stated] if stated else [region, *(_text(header, name) for name in _TEXTS)]
    elsewhere = next((text for text in texts if _is_elsewhere(text)), "")
    if any(_CHEST.search(text) for text in texts):
        if stated and (elsewhere or (_is_elsewhere(region) and not _CHEST.search(region))):
            return [f"The header names more than the chest ({printable(elsewhere or region)[:40]})."]
        return []
    if elsewhere:
        return [
            refuse_unless_forced(
                "The header names another part of the body than the chest",
                got=elsewhere,
                expected="CHEST",
                source=source,
                force=force,
            )
        ]
    return [f"The body part {stated!r} is not known to be the chest."] if stated else []


def _is_elsewhere(text: str) -> bool:
    """Whether a text names a part of the body other than the chest."""
    return _ELSEWHERE.search(text.replace("_", " ")) is not None


def _view_in(text: str) -> str:
    """Returns the one view that a text names, or ""; a decubitus or oblique view may be called frontal or lateral."""
    words = _PARTS_OF_WORDS.sub(" ", text)
    named = [view for view, pattern in _VIEWS.items() if pattern.search(words)]
    unusual = [view for view in named if view not in (*_FRONTAL, "LATERAL")]
    return (unusual or named)[0] if unusual or len(named) == 1 else ""


def _meaning(header: Dataset, sequence: str) -> str:
    """Returns the code meaning of a sequence's first item, or ""."""
    items: Any = header.get(sequence) or []
    return _text(items[0], "CodeMeaning") if len(items) else ""


def _words(header: Dataset, name: str) -> list[str]:
    """Returns the values of an element as texts."""
    value = header.get(name) or []
    return [str(part).strip() for part in ([value] if isinstance(value, str) else value)]


def _text(header: Dataset, name: str) -> str:
    """Returns an element as text without surrounding blanks, or ""."""
    value = header.get(name)
    return "" if value is None else str(value).strip()
