"""Kinds of sentences that must never be read as their opposite: public cases, 668 with gold, and more of each."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import pytest

from carzero.reports.agreement import report_presence
from carzero.reports.rules import NOT_ENGLISH, RuleAligner, find_findings, is_english

FIXTURES = Path(__file__).parent / "fixtures"
SETS = {"kinds.jsonl": 400, "kinds_second.jsonl": 128, "kinds_third.jsonl": 80, "kinds_ordinary.jsonl": 60}
CASES = list(csv.DictReader((FIXTURES / "field" / "reports.csv").open(encoding="utf-8", newline="")))
PRESENCES = {"+": "present", "-": "absent", "?": "uncertain"}
NAMES = {
    "eff": "pleural effusion",
    "ptx": "pneumothorax",
    "cm": "cardiomegaly",
    "pna": "pneumonia",
    "ed": "pulmonary edema",
    "atl": "atelectasis",
    "con": "consolidation",
    "frx": "fracture",
    "nod": "lung nodule",
    "emp": "emphysema",
    "op": "lung opacity",
    "pm": "pacemaker",
    "rfx": "rib fracture",
    "cfx": "clavicle fracture",
}


def parts(joined: str) -> set[str]:
    return {part.strip() for part in joined.split(";") if part.strip()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["report_id"])
def test_public_cases(case: dict[str, str]) -> None:
    sentences = set(RuleAligner().align("r", case["text"]).sentences)
    assert parts(case["must_say"]) <= sentences
    assert parts(case["must_not_say"]).isdisjoint(sentences)


def read(sentence: dict[str, object], name: str) -> str:
    finding, _, side = name.partition("@")
    found = find_findings(str(sentence["text"]))
    chosen = [one for one in found if one.finding == finding and (not side or one.laterality in (side, "bilateral"))]
    return report_presence(chosen).get(finding, "missed")


@pytest.mark.parametrize(("file", "count"), SETS.items(), ids=SETS)
def test_hardly_a_sentence_of_sixteen_kinds_is_read_as_its_opposite(file: str, count: int) -> None:
    sentences = [json.loads(line) for line in (FIXTURES / file).read_text(encoding="utf-8").splitlines()]
    rows = [
        (each["text"], name, said, read(each, name)) for each in sentences for name, said in each["findings"].items()
    ]
    opposite = [row for row in rows if {row[2], row[3]} == {"present", "absent"}]
    assert len(sentences) == count
    assert len(opposite) <= 0.005 * len(rows), opposite
    assert sum(said == got for _, _, said, got in rows if got != "missed") >= 0.95 * sum(
        got != "missed" for _, _, _, got in rows
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # answers and lists
        ("Atelectasis: none. Cardiomegaly: yes, mild.", "atl- cm+"),
        ("Effusion? None. Pneumothorax? No.", "eff- ptx-"),
        ("Consolidation (absent), effusion (present).", "con- eff+"),
        ("Fracture: No", "frx-"),
        ("Edema: 0. Effusion: 0.", "ed- eff-"),
        ("Pneumonia: negative", "pna-"),
        ("Pneumothorax = no; effusion = yes", "ptx- eff+"),
        ("Pneumothorax (-), edema (+), fracture (-)", "ptx- ed+ frx-"),
        ("Edema and effusion are both absent.", "ed- eff-"),
        ("Effusion: not seen. Edema: not identified.", "eff- ed-"),
        ("Nodule, fracture and edema: none.", "nod- frx- ed-"),
        # where a denial ends
        ("No effusion\nCardiomegaly\nNo pneumothorax", "eff- cm+ ptx-"),
        ("1)No pneumonia 2)Emphysema 3)No effusion", "pna- emp+ eff-"),
        ("<p>No effusion</p><p>Pneumonia</p>", "eff- pna+"),
        ("No edema<br><br>Cardiomegaly", "ed- cm+"),
        ("No effusion\\nPneumonia", "eff- pna+"),
        ("No pneumothorax；cardiomegaly。", "ptx- cm+"),
        ("No effusion, dual chamber pacemaker in place.", "eff- pm+"),
        ("No effusion, heart is moderately enlarged.", "eff- cm+"),
        ("No focal consolidation, pleural\neffusion or pneumothorax.", "con- eff- ptx-"),
        ("No edema, pneumothorax, or effusion.", "ed- ptx- eff-"),
        # a denial of something else than presence
        ("The edema has not worsened.", "ed+"),
        ("No interval growth of the nodule.", "nod+"),
        ("No enlargement of the nodule.", "nod+"),
        ("No enlargement of the cardiac silhouette.", "cm-"),
        ("Effusion is not large.", "eff+"),
        ("Nonspecific opacity in the right lung.", "op+"),
        ("An effusion not seen on the prior study is present.", "eff+"),
        ("Pacemaker lead tip not visualized.", "pm+"),
        ("A pneumothorax cannot be seen.", "ptx-"),
        # hedges and alternatives
        ("Opacity not consistent with pneumonia.", "op+ pna-"),
        ("Inconsistent with edema.", "ed-"),
        ("Unlikely to be pneumonia.", "pna?"),
        ("Scarring rather than a nodule.", "nod-"),
        ("Cannot confidently exclude pneumonia.", "pna?"),
        ("Pneumonia has not been excluded.", "pna?"),
        ("R/O fracture.", "frx?"),
        ("Unclear whether there is edema.", "ed?"),
        ("Effusion cannot be assessed.", "eff?"),
        ("Nodule?", "nod?"),
        # characters and short forms
        ("No ate\u00adlectasis.", "atl-"),
        ("No pleural e\ufb00usion.", "eff-"),
        ("No\u00a0pneumo\u200bthorax.", "ptx-"),
        ("There isn\u2019t any edema.", "ed-"),
        ("Pneumothorax \u2013 none.", "ptx-"),
        ("No edema\u2028Cardiomegaly", "ed- cm+"),
        ("s/p fall, no PTX, no PNA.", "ptx- pna-"),
        ("Pneumothorax\nNo", "ptx-"),
        ("Pneumonia, resolved. Effusion -ve.", "pna- eff-"),
        ("LUNGS: Clear PLEURA: No effusion HEART: Enlarged", "eff- cm+"),
        ("No acute disease, emphysema.", "emp+"),
        ("Can pneumonia be excluded?", "pna?"),
        ("No effusion on the right, effusion on the left.", "eff+"),
        ("No edema\\par Cardiomegaly", "ed- cm+"),
        ("Nodule of 3 CM.", "nod+ cm~"),
        # the second of two items with its own verb, and a list whose verb belongs to all
        ("No effusion, cardiomegaly present.", "eff- cm+"),
        ("No pneumonia, small effusion present on the left", "pna- eff+"),
        ("No consolidation, effusion, pneumothorax present.", "con- eff- ptx-"),
        ("No pneumonia, edema, effusion noted.", "pna- ed- eff-"),
        ("No effusion or pneumothorax present.", "eff- ptx-"),
        ("No effusion, multiple nodules.", "eff- nod+"),
        # a wider finding that is denied beside a narrower one that is not
        ("No acute fracture, old rib fractures.", "frx- rfx+"),
        ("No displaced fracture, several healed left rib fractures.", "frx- rfx+"),
        ("No fracture, prior clavicle fracture.", "frx- cfx+"),
        ("No fracture of the left ribs.", "rfx- frx~"),
        # boxes, leaders, signs and arrows of forms
        ("[x] Effusion [ ] Pneumothorax", "eff+ ptx-"),
        ("Effusion [ ] Pneumothorax [x]", "eff- ptx+"),
        ("Edema [ ] yes [x] no", "ed-"),
        ("☐ Pneumothorax\n☑ Effusion", "ptx- eff+"),
        ("Pneumothorax ..... none\nEffusion ..... small", "ptx- eff+"),
        ("-ptx, +eff", "ptx- eff+"),
        ("+ptx -edema", "ptx+ ed-"),
        ("No edema -> cardiomegaly", "ed- cm+"),
        ("No pneumothorax >> cardiomegaly", "ptx- cm+"),
        # what points back
        ("Effusion, which has since resolved.", "eff-"),
        ("Effusion, which has not resolved.", "eff+"),
        ("Mass that was not seen before is present beside a nodule.", "nod+"),
        ("Nodule, which is not seen on the lateral view.", "nod+"),
        ("Unclear whether there is pneumonia; there is none.", "pna-"),
        ("Is there an effusion? It is not visible.", "eff-"),
        ("Is there an effusion? Not sure.", "eff?"),
        ("Edema, pneumonia: neither is present.", "ed- pna-"),
        ("Cardiomegaly is present; edema and nodule are not.", "cm+ ed- nod-"),
        ("No effusion other than a trace of edema.", "eff- ed+"),
        ("Emphysema limits the detection of nodules, but none is seen.", "emp+"),
        ("Emphysema is present, pneumonia is possible; there is none.", "emp+ pna-"),
        ("Either pneumonia or atelectasis at the base.", "pna? atl?"),
        ("Reticulonodular pattern in both lungs, mostly in the right one.", "nod~"),
        ("Mass-like consolidation, hypo-expanded lungs.", "con+"),
        ("No effusion on either side, pneumonia or edema.", "eff- pna- ed-"),
        ("Emphysema in either lung or an old fracture.", "emp+ frx+"),
        # a question mark belongs to its own sentence
        ("Could this be pneumonia? Left effusion.", "pna? eff+"),
        ("Heart is enlarged.\n?pneumonia", "cm+ pna?"),
        ("Effusion? ?Nodule", "eff? nod?"),
    ],
)
def test_more_of_each_kind(text: str, expected: str) -> None:
    found = report_presence(find_findings(text))
    wanted = {NAMES[word[:-1]]: PRESENCES.get(word[-1]) for word in expected.split()}
    assert {name: found.get(name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("Effusion on the right, none on the left.", {"right": "present", "left": "absent"}),
        ("No left effusion, right effusion unchanged.", {"left": "absent", "right": "present"}),
        ("Effusion: right yes, left no.", {"right": "present", "left": "absent"}),
        ("Small left effusion but none on the right.", {"left": "present", "right": "absent"}),
        ("Left effusion and a smaller one on the right.", {"left": "present", "right": "present"}),
        ("Effusion on the left. None on the right.", {"left": "present", "right": "absent"}),
        ("Bilateral effusions, the left has resolved.", {"right": "present", "left": "absent"}),
        ("Effusion: L no R yes", {"left": "absent", "right": "present"}),
        ("Effusion: left large, right none.", {"left": "present", "right": "absent"}),
        ("No longer any right effusion, left effusion persists.", {"right": "absent", "left": "present"}),
        ("Left pneumothorax gone, right unchanged.", {"left": "absent", "right": "present"}),
        ("The right effusion has resolved, the left persists.", {"right": "absent", "left": "present"}),
        ("Right effusion resolved while the left one is stable", {"right": "absent", "left": "present"}),
        ("Pneumothorax on the right gone, left same as before.", {"right": "absent", "left": "present"}),
        ("Left effusion gone, right remains small.", {"left": "absent", "right": "present"}),
        ("Left effusion gone, the right has not resolved.", {"left": "absent", "right": "present"}),
        ("Left effusion gone, right too.", {"left": "absent", "right": "absent"}),
        ("Left effusion gone, the right decreased and now gone.", {"left": "absent", "right": "absent"}),
        ("Pneumothorax, right unchanged.", {"right": "present"}),
        ("Heart not enlarged, left unchanged.", {"": "absent"}),
        ("Left effusion gone; right lung unchanged.", {"left": "absent"}),
    ],
)
def test_one_side_is_denied(text: str, sides: dict[str, str]) -> None:
    assert {one.laterality: one.presence for one in find_findings(text)} == sides


GONE = (
    "has resolved/resolved/is gone/has cleared/is no longer seen/has disappeared/no longer present/completely resolved"
)
STANDS = (
    "unchanged/persists/is stable/is the same/has increased/remains/is larger/has not changed/is still there"
    "/still visible/is worse/continues to be seen/has not resolved/is not smaller/remains moderate/has grown"
)


@pytest.mark.parametrize("join", [", ", " but ", " while ", "; ", " and ", ", whereas "])
def test_sides_that_fare_differently(join: str) -> None:
    wrong = {}
    for gone, stands in itertools.product(GONE.split("/"), STANDS.split("/")):
        text = f"Left pneumothorax {gone}{join}the right {stands}."
        found = {one.laterality: one.presence for one in find_findings(text)}
        if found != {"left": "absent", "right": "present"}:
            wrong[text] = found
    assert wrong == {}


@pytest.mark.parametrize(
    "text",
    [
        "Kein Nachweis eines Pneumothorax.",
        "Keine Fraktur, kein Ödem.",
        "Absence d'épanchement et de pneumothorax.",
        "Sans pneumothorax.",
        "Sin edema ni consolidation.",
        "No se observa edema pulmonar.",
        "Geen pneumothorax, geen edema.",
        "Ingen pneumothorax eller edema.",
        "Nessuna evidenza di pneumothorax.",
        "Ausência de edema.",
        "Без pneumothorax.",
        "未见 pneumothorax",
    ],
)
def test_other_languages_are_not_read_and_the_reason_is_given(text: str) -> None:
    report = RuleAligner().align("r", text)
    assert (report.findings, report.sentences, report.skipped) == ((), (), NOT_ENGLISH)


def test_one_foreign_sentence_in_an_english_report_is_left_out() -> None:
    report = RuleAligner().align("r", "The heart is enlarged. No effusion. Kein Pneumothorax.")
    assert report.sentences == ("There is cardiomegaly", "There is no pleural effusion")
    assert not report.skipped


@pytest.mark.parametrize(
    "text",
    [
        "No PTX.",
        "Dr. van der Berg was told.",
        "Heart size WNL.",
        "De novo effusion.",
        "En face nodule",
        "s/p CABG",
        "ET tube",
    ],
)
def test_english_is_english(text: str) -> None:
    assert is_english(text)
    assert RuleAligner().align("r", text).skipped == ""


HOSTILE = [
    *[
        "<a ",
        "<a",
        "&lt;",
        "&#",
        "\\n",
        "-\na",
        "(-",
        "no: ",
        "ptx: no, ",
        "ptx (",
        "[",
        "? ",
        "no ptx? ",
        "(1) ",
        "1)",
    ],
    *["1)", "a\n", "\v", "none on the right, ", "kein ", "\ufb00", "\u3002", "\u00ad", "\u2014 ", "r/", "CM ", "No. "],
    "Nodule: left yes, right no, ",
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", HOSTILE)
def test_hostile_characters_take_time_in_proportion(part: str) -> None:
    text = part * (50_000 // len(part))
    assert RuleAligner().align("hostile", text).text == text
