"""Terse sentences and short reports: the half that was tuned on, and wordings near it that must not tip over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from carzero.prompts.lint_labels import lint_denials
from carzero.prompts.prompt_set import PromptSet
from carzero.reports.agreement import report_presence
from carzero.reports.rules import find_findings

SENTENCES = [
    json.loads(line)
    for line in (Path(__file__).parent / "fixtures" / "kinds_terse.jsonl").read_text(encoding="utf-8").splitlines()
]
TUNED_ON = [each for each in SENTENCES if not each["held_out"]]
LEFT_WRONG = 12  # sentences: names of other words ("extubated"), sides said elsewhere, what is followed up


def presence(text: str, name: str) -> str:
    finding, _, side = name.partition("@")
    chosen = [
        one
        for one in find_findings(text)
        if one.finding == finding and (not side or one.laterality in (side, "bilateral"))
    ]
    return report_presence(chosen).get(finding, "not said")


def test_the_half_tuned_on_is_read_as_labelled() -> None:
    wrong = [
        (each["text"], name, said, read)
        for each in TUNED_ON
        for name, said in each["findings"].items()
        if (read := presence(each["text"], name)) != said
    ]
    assert len(SENTENCES) == 281
    assert len({text for text, *_ in wrong}) <= LEFT_WRONG, wrong
    assert [row for row in wrong if row[2:] == ("present", "absent")] == []
    assert [row for row in wrong if row[2:] == ("absent", "present")] == [
        ("No more than physiologic pleural fluid", "pleural effusion", "absent", "present")
    ]


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        # a denial of change leaves the finding, one of the finding does not
        ("The pneumonia has still not fully cleared", "pneumonia", "present"),
        ("Lack of any further improvement in edema", "pulmonary edema", "present"),
        ("No obvious improvement in edema", "pulmonary edema", "present"),
        ("Failure of resolution of the pneumonia", "pneumonia", "present"),
        ("Chest tube has not yet been removed", "chest tube", "present"),
        ("No clear evidence of pneumonia", "pneumonia", "absent"),
        ("No resolving pneumonia", "pneumonia", "absent"),
        ("No interval development of effusion", "pleural effusion", "absent"),
        ("No effusion, no interval increase in edema", "pulmonary edema", "present"),
        ("No effusion, no interval increase in edema", "pleural effusion", "absent"),
        # a denial of a denial, of an exclusion, of a doubt
        ("Lungs are not free of infiltrates", "infiltrate", "present"),
        ("not free air", "pneumoperitoneum", "absent"),
        ("No pneumonia can be ruled out", "pneumonia", "uncertain"),
        ("Pneumonia can be ruled out", "pneumonia", "absent"),
        ("No pneumonia, fracture excluded", "fracture", "absent"),
        ("Without doubt a pneumonia", "pneumonia", "present"),
        # a denial that is doubted; once more at first sight of the held-out half
        ("Absence of effusion can not be confirmed", "pleural effusion", "uncertain"),
        ("We cannot state that there is no fracture", "fracture", "uncertain"),
        ("Cannot exclude pneumonia, no effusion", "pleural effusion", "absent"),
        ("No effusion, pneumonia cannot be excluded", "pneumonia", "uncertain"),
        ("No effusion, pneumonia cannot be excluded", "pleural effusion", "absent"),
        ("No pneumothorax is suspected", "pneumothorax", "absent"),
        ("No consolidation could explain this", "consolidation", "absent"),
        ("No evidence of:\n* edema\n* effusion\nCardiomegaly.", "pleural effusion", "absent"),
        ("No evidence of:\n* edema\n* effusion\nCardiomegaly.", "cardiomegaly", "present"),
        ("Lungs:\n- no effusion\n- edema", "pulmonary edema", "present"),
        ("ETT not visualized below the clavicles", "endotracheal tube", "present"),
        # what a denial denies besides findings
        ("No priors, cardiomegaly", "cardiomegaly", "present"),
        ("In the absence of fever the opacity is old", "lung opacity", "present"),
        ("Nothing new, effusion", "pleural effusion", "present"),
        ("No fever or pneumonia", "pneumonia", "absent"),
        ("No trauma related fracture", "fracture", "absent"),
        ("No symptoms, effusion or fracture", "fracture", "absent"),
        # a new item without a comma, or behind one
        ("NO PTX SMALL EFFUSION", "pleural effusion", "present"),
        ("no edema heart large", "cardiomegaly", "present"),
        ("no consolidation effusion pneumothorax", "pneumothorax", "absent"),
        ("No pneumothorax large effusion", "pleural effusion", "absent"),
        ("No effusion small or large", "pleural effusion", "absent"),
        ("No edema, likely pneumonia", "pneumonia", "present"),
        ("No edema, ?pneumonia", "pneumonia", "uncertain"),
        ("No evidence of possible pneumonia", "pneumonia", "absent"),
        ("No consolidation, developing infiltrate or effusion", "infiltrate", "absent"),
        # what "not" reaches
        ("Minimal, not moderate, effusion", "pleural effusion", "present"),
        ("Lungs are not clear, consolidation at the base", "consolidation", "present"),
        ("Heart is not large or tortuous", "cardiomegaly", "absent"),
        ("Heart is not markedly enlarged", "cardiomegaly", "absent"),
        # forms, lines and answers
        ("Heart: normal\nEffusion: small\nPneumothorax: no", "pneumothorax", "absent"),
        ("Heart: normal\nEffusion: small\nPneumothorax: no", "pleural effusion", "present"),
        ("Pneumothorax: __no__", "pneumothorax", "absent"),
        ("Effusion: ____", "pleural effusion", "not said"),
        ("Edema no, effusion yes", "pulmonary edema", "absent"),
        ("small effusion no edema", "pleural effusion", "present"),
        ("Fractures of two ribs. No accompanying\neffusion", "pleural effusion", "absent"),
        ("No acute change\nsmall effusion", "pleural effusion", "present"),
        ("No prior study\neffusion small", "pleural effusion", "present"),
        ("tube out of position, effusion", "pleural effusion", "present"),
        ("Infectious process in the setting of fever", "infection", "present"),
    ],
)
def test_a_denial_reaches_what_it_denies_and_no_more(text: str, name: str, said: str) -> None:
    assert presence(text, name) == said


@pytest.mark.parametrize(
    ("prompt", "denies"),
    [
        ("Pneumothorax without tension", False),
        ("Not only pneumothorax", False),
        ("Effusion without pneumothorax", True),
        ("Pneumothorax has resolved and is not seen", True),
    ],
)
def test_a_prompt_that_affirms_its_label_is_no_denial(prompt: str, denies: bool) -> None:
    rules = [found.rule for found in lint_denials(PromptSet({"pneumothorax": (prompt,)}))]
    assert rules == ["denied-prompt"] * denies
