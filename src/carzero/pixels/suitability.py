"""Whether a DICOM header describes a chest radiograph.

Stated facts decide: the modality, then the body part, and only where no body part is stated the free texts that name
one. A header that says nothing against a chest is let pass in silence, for many archives send no more.

Source: DICOM PS3.3 C.7.3.1.1.1 (modality), C.7.6.3 and C.8.11 (view and body part), PS3.16 CID 4031.
"""

from __future__ import annotations

import re
from typing import Any

from pydicom.dataset import Dataset

from carzero.pixels.checks import refuse_unless_forced

__all__ = ["doubts_about_header", "find_view"]

_RADIOGRAPHY = {"CR", "DX", "RG"}
_UNCERTAIN_MODALITY = {"", "OT", "SC", "XR"}
_CHEST = re.compile(r"CHEST|THORA|TORAX|TÓRAX|LUNG|PULMO|PECHO|POITRINE|\bCXR\b|^RIB|\bRIBS?\b|HEART|STERNUM", re.I)
_ELSEWHERE = re.compile(
    r"ABDOM|ANKLE|\bARM\b|BLADDER|BRAIN|BREAST|CALCAN|CLAVIC|COCCYX|COLON|DENTAL|ELBOW|EXTREMIT|\bFACE\b|FACIAL|FEMUR"
    r"|FIBULA|FINGER|\bFOOT|\bFEET|FOREARM|\bHANDS?\b|\bHEAD\b|\bHEEL|\bHIPS?\b|HUMERUS|\bJAW\b|KIDNEY|KNEE|\bLEGS?\b"
    r"|LIVER|LUMBAR|MANDIB|MAXILL|MAMMO|NASAL|\bNECK\b|\bNOSE\b|ORBIT|PATELL|PELVI|RADIUS|SACR|SCAPUL|SHOULDER|SINUS"
    r"|SKULL|[CLTS]-?SPINE|\bSPINE\b|STOMACH|THIGH|THUMB|TIBIA|\bTOES?\b|TOOTH|TEETH|ULNA|WRIST|ZYGOMA",
    re.I,
)
_TEXTS = (
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
)
_LATERAL = re.compile(r"\bLAT(ERAL)?\b", re.I)
_FRONTAL = {"PA": re.compile(r"\bPA\b|POSTERO-?ANTERIOR", re.I), "AP": re.compile(r"\bAP\b|ANTERO-?POSTERIOR", re.I)}
_VIEWS = {"PA": "PA", "AP": "AP", "LL": "LATERAL", "RL": "LATERAL", "LAT": "LATERAL", "LATERAL": "LATERAL"}


def doubts_about_header(header: Dataset, *, source: str, force: bool) -> list[str]:
    """Returns sentences about what makes the picture doubtful as a frontal chest radiograph.

    Raises:
        UnsuitableImageError: another modality or another part of the body, not forced.
    """
    return [
        *_modality_doubts(_text(header, "Modality").upper(), source=source, force=force),
        *_body_part_doubts(header, source=source, force=force),
    ]


def find_view(header: Dataset) -> str:
    """Returns "PA", "AP", "LATERAL" or "", from the view position, the view code, the orientation or the description.

    The orientation tells lateral from frontal only; a description counts only if it names a single view.
    """
    stated = _VIEWS.get(_text(header, "ViewPosition").upper(), "")
    stated = stated or _view_in(_meaning(header, "ViewCodeSequence"))
    if stated:
        return stated
    orientation = _text(header, "PatientOrientation").upper()
    if re.match(r"\W*[AP]\W+F", orientation):
        return "LATERAL"
    return _view_in(_text(header, "SeriesDescription"))


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


def _body_part_doubts(header: Dataset, *, source: str, force: bool) -> list[str]:
    """Returns a doubt where the header names something else than the chest."""
    stated = _text(header, "BodyPartExamined")
    texts = [stated] if stated else [_meaning(header, "AnatomicRegionSequence"), *(_text(header, t) for t in _TEXTS)]
    if any(_CHEST.search(text) for text in texts):
        return []
    elsewhere = next((text for text in texts if _ELSEWHERE.search(text.replace("_", " "))), "")
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


def _view_in(text: str) -> str:
    """Returns the one view that a text names, or ""."""
    named = [view for view, pattern in _FRONTAL.items() if pattern.search(text.replace("_", " "))]
    named += ["LATERAL"] if _LATERAL.search(text.replace("_", " ")) else []
    return named[0] if len(named) == 1 else ""


def _meaning(header: Dataset, sequence: str) -> str:
    """Returns the code meaning of a sequence's first item, or ""."""
    items: Any = header.get(sequence) or []
    return _text(items[0], "CodeMeaning") if len(items) else ""


def _text(header: Dataset, name: str) -> str:
    """Returns an element as text without surrounding blanks, or ""."""
    value = header.get(name)
    return "" if value is None else str(value).strip()
