"""Misspelled findings are read as meant, other words stay; why an image was made is no finding."""

import pytest

from carzero.reports.agreement import report_presence
from carzero.reports.rules import find_findings
from carzero.reports.spelling import respell


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("pneumothroax", "pneumothorax"),
        ("pneumohtorax", "pneumothorax"),
        ("effussions", "effusions"),
        ("atelectesis", "atelectasis"),
        ("consoldation", "consolidation"),
        ("emphysemma", "emphysema"),
    ],
)
def test_one_slip_is_put_right(written: str, meant: str) -> None:
    assert respell([written]) == [meant]
    said = dict.fromkeys(report_presence(find_findings(f"There is no {meant}.")), "absent")
    assert said
    assert report_presence(find_findings(f"There is no {written}.")) == said


@pytest.mark.parametrize(
    "word", ["confusion", "lobulated", "pleuritic", "degenerated", "accentuates", "osteogenic", "effusive", "infusion"]
)
def test_other_words_stay(word: str) -> None:
    assert respell([word]) == [word]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Follow up pneumonia.", {}),
        ("Follow-up of known left effusion. No effusion.", {"pleural effusion": "absent"}),
        ("F/u right pneumothorax.", {}),
        ("Follow up film shows effusion.", {"pleural effusion": "present"}),
        ("Follow up: small effusion.", {"pleural effusion": "present"}),
        ("Follow up pneumonia has cleared.", {"pneumonia": "absent"}),
    ],
)
def test_why_an_image_was_made_is_no_finding(text: str, said: dict[str, str]) -> None:
    assert report_presence(find_findings(text)) == said
