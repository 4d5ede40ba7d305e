"""The library of label sets: names, order and sentences as released, and the wordings of our own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from pydicom.sr._concepts_dict import concepts

from carzero.errors import PromptError
from carzero.prompts import LabelEntry, PromptSet, list_prompt_sets, load_prompt_set, resolve_prompts

COUNTS = {
    "chestxray14": 14,
    "chexpert14": 14,
    "chexpert5": 5,
    "padchest192": 192,
    "padchest20": 20,
    "chestxdet10": 10,
    "openi18": 18,
    "vindr28": 28,
}
RELEASED = {"chestxray14": "chestxray14", "chexpert5": "chexpert", "padchest192": "padchest"} | {
    "chestxdet10": "chestxdet10",
    "openi18": "openi",
}
ORDERS = {
    "chestxray14": "Atelectasis, Cardiomegaly, Effusion, Infiltration, Mass, Nodule, Pneumonia, Pneumothorax, "
    "Consolidation, Edema, Emphysema, Fibrosis, Pleural_Thickening, Hernia",
    "chexpert5": "Atelectasis, Cardiomegaly, Consolidation, Edema, Pleural Effusion",
    "chexpert14": "No Finding, Enlarged Cardiomediastinum, Cardiomegaly, Lung Opacity, Lung Lesion, Edema, "
    "Consolidation, Pneumonia, Atelectasis, Pneumothorax, Pleural Effusion, Pleural Other, Fracture, Support Devices",
    "chestxdet10": "Atelectasis, Calcification, Consolidation, Effusion, Emphysema, Fibrosis, Fracture, Mass, Nodule, "
    "Pneumothorax",
    "openi18": "Atelectasis, Cardiomegaly, Effusion, Infiltration, Mass, Nodule, Pneumonia, Pneumothorax, Edema, "
    "Emphysema, Fibrosis, Pleural_Thickening, Hernia, Fracture, Opacity, Lesion, Calcified Granuloma, Granuloma",
    "vindr28": "Aortic enlargement, Atelectasis, Calcification, Cardiomegaly, Clavicle fracture, Consolidation, Edema, "
    "Emphysema, Enlarged PA, ILD, Infiltration, Lung Opacity, Lung cavity, Lung cyst, Mediastinal shift, Nodule/Mass, "
    "Pleural effusion, Pleural thickening, Pneumothorax, Pulmonary fibrosis, Rib fracture, Other lesion, "
    "COPD, Lung tumor, Pneumonia, Tuberculosis, Other disease, No finding",
}
EVERY = [(record.name, variant) for record in list_prompt_sets() for variant in record.variants]


def test_the_library_has_these_sets() -> None:
    assert {record.name: record.labels for record in list_prompt_sets()} == COUNTS
    for record in list_prompt_sets():
        paper = ("paper",) if record.name in {*RELEASED, "padchest20"} else ()
        assert record.variants == (*paper, "pairs", "synonyms")
        assert record.version
        assert record.source
        assert record.to_dict()["title"] == record.title


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_every_set_loads_in_every_wording(name: str, variant: str) -> None:
    asked = load_prompt_set(name, variant)
    assert len(asked) == COUNTS[name]
    assert asked.version
    assert f"carzero {name}, variant {variant}." in asked.source
    assert PromptSet.from_mapping(asked.to_mapping()) == asked, "what is shown can be read"
    for label, prompts in asked:
        entry = asked.entry(label)
        assert bool(entry.negative) == (variant != "paper")
        assert len(prompts) == 1 or variant == "synonyms"
        if variant == "synonyms" and entry.synonyms:
            assert len(prompts) == len(entry.negative) == 1 + len(entry.synonyms)
            assert prompts[1:] == tuple(f"There is {name}" for name in entry.synonyms)


@pytest.mark.parametrize("name", ORDERS)
def test_labels_are_spelled_and_ordered_as_released(name: str) -> None:
    assert load_prompt_set(name).labels == ORDERS[name].split(", ")


def test_padchest_keeps_released_spellings_and_the_papers_sentences() -> None:
    asked = load_prompt_set("padchest192")
    assert asked.labels == sorted(asked.labels), "capitals first, as released"
    assert asked.labels[:4] == ["COPD signs", "Chilaiditi sign", "NSG tube", "abnormal foreign body"]
    assert "normal" not in asked.labels
    assert asked.prompts["dai"] == ("There is DAI (Diffuse Axonal Injury)",), "wrong, and as released"
    corrected = load_prompt_set("padchest192", "pairs")
    assert corrected.prompts["dai"] == ("There is implantable cardioverter defibrillator",)
    rarest = load_prompt_set("padchest20")
    assert {label: asked.prompts[label] for label in rarest.labels} == dict(rarest)


def test_the_default_is_the_paper_where_it_asked() -> None:
    assert load_prompt_set("chexpert5") == load_prompt_set("chexpert5", "paper")
    assert load_prompt_set("chexpert14") == load_prompt_set("chexpert14", "pairs")
    with pytest.raises(PromptError, match=r"chexpert14 has no such variant; got 'paper'; expected one of pairs, syn"):
        load_prompt_set("chexpert14", "paper")


def test_one_label_in_three_wordings() -> None:
    paper, pairs, synonyms = (load_prompt_set("chestxray14", v) for v in ("paper", "pairs", "synonyms"))
    assert paper.prompts["Effusion"] == ("There is Pleural Effusion",)
    assert paper.entry("Effusion").negative == ()
    assert pairs.prompts["Effusion"] == ("There is pleural effusion",)
    assert pairs.entry("Effusion").negative == ("There is no pleural effusion",)
    assert synonyms.prompts["Effusion"][:2] == ("There is pleural effusion", "There is pleural fluid")
    code = paper.entry("Effusion").code
    assert code is not None
    assert (code.scheme, code.value) == ("SCT", "60046008")
    assert load_prompt_set("chexpert14").entry("Pleural Effusion").code == code, "one finding, one code in every set"
    assert load_prompt_set("chexpert14").prompts["No Finding"] == ("The heart and lungs are normal",)


@pytest.mark.parametrize("name", RELEASED)
def test_paper_prompts_equal_the_released_files(name: str, shared: Path) -> None:
    released = json.loads((shared / "benchmarks" / RELEASED[name] / "prompts.json").read_text())
    asked = load_prompt_set(name, "paper")
    assert [list(prompts) for _, prompts in asked] == [released[str(index)] for index in range(len(released))]


def test_labels_equal_the_released_tables(shared: Path) -> None:
    tables = shared / "benchmarks"
    header = (tables / "chexpert" / "test_labels.csv").read_text().splitlines()[0].split(",")
    assert load_prompt_set("chexpert14").labels == header[1:]
    boxes = json.loads((tables / "chestxdet10" / "test.json").read_text())
    assert load_prompt_set("chestxdet10").labels == sorted({label for image in boxes for label in image["syms"]})
    images = json.loads((tables / "padchest" / "manual_image.json").read_text())
    counts = Counter(label for labels in images.values() for label in set(labels))
    assert load_prompt_set("padchest192").labels == sorted(counts.keys() - {"normal"})
    rarest = sorted(label for label, count in counts.items() if count <= 10)
    assert load_prompt_set("padchest20").labels == rarest


def test_codes_are_well_formed_and_known_to_dicom_where_it_has_them() -> None:
    known = {
        (scheme, code): meaning
        for scheme in ("SCT", "DCM")
        for meanings in concepts[scheme].values()
        for code, (meaning, *_) in meanings.items()
    }
    codes = {code for name in COUNTS for entry in load_prompt_set(name).entries.values() if (code := entry.code)}
    assert len(codes) == 64
    assert {code.scheme for code in codes} == {"SCT", "DCM"}
    assert all(has_check_digit(code.value) for code in codes if code.scheme == "SCT")
    assert all((code.scheme, code.value) in known for code in codes if code.scheme == "DCM")
    assert sum((code.scheme, code.value) in known for code in codes) == 40
    assert known["SCT", "36118008"] == "Pneumothorax"


def has_check_digit(value: str) -> bool:
    """Whether the last digit is the Verhoeff check digit that every SNOMED CT identifier carries."""
    turn = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    check = 0
    for place, digit in enumerate(reversed(value)):
        turned = int(digit)
        for _ in range(place % 8):
            turned = turn[turned]
        check = multiply_in_d5(check, turned)
    return check == 0


def multiply_in_d5(one: int, other: int) -> int:
    """The product in the dihedral group of the pentagon: 0-4 are turns, 5-9 are reflections."""
    if one < 5:
        return (one + other) % 5 if other < 5 else 5 + (one + other) % 5
    return 5 + (one - other) % 5 if other < 5 else (one - other) % 5


def test_a_name_means_the_library_and_a_path_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("chestxray14").write_text("edema: There is edema\n")
    Path("mine").write_text("edema: There is edema\n")
    assert resolve_prompts("chestxray14") == load_prompt_set("chestxray14")
    assert resolve_prompts("chestxray14:synonyms") == load_prompt_set("chestxray14", "synonyms")
    assert resolve_prompts("./chestxray14").labels == ["edema"]
    assert resolve_prompts("mine").labels == resolve_prompts(tmp_path / "mine").labels == ["edema"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chestxray", r"no such prompt set and no such file; got 'chestxray'.*Perhaps you mean \"chestxray14\""),
        ("zzz", "one of chestxray14, chexpert14.*`carzero prompts list` shows the sets"),
        ("chestxray14:mine", "no such variant; got 'mine'; expected one of paper, pairs, syn"),
        ("nowhere.yaml", "nowhere.yaml cannot be read"),
        ("./chestxray14", r"\./chestxray14 cannot be read"),
    ],
)
def test_names_that_are_nothing(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PromptError, match=message):
        resolve_prompts(name)


def test_no_label_has_an_empty_entry_by_name_only() -> None:
    asked = load_prompt_set("padchest192")
    assert LabelEntry() not in asked.entries.values()
    assert set(asked.entries) < set(asked.labels)
    assert asked.entry("nephrostomy tube") == LabelEntry()
