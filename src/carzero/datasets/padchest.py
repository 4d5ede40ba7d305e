"""PadChest: 192 classes on the 39,053 images whose reports physicians labelled manually.

Files, one or both of these:

    manual_image.json                   the released table: image to list of labels
    PADCHEST_chest_x_ray_images_labels_160K*.csv   the official table; rows with MethodLabel "Physician" are taken. With
                                        both, the official one adds patients, and must agree on the labels
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from carzero.core.documents import load_json
from carzero.core.tables import load_table
from carzero.datasets.base import PublicDataset, Truth, build_truth, file_name, to_matrix
from carzero.errors import TableError, describe

# In the order of the released score columns: sorted with capitals first, "normal" left out.
_NAMES = """
COPD signs; Chilaiditi sign; NSG tube; abnormal foreign body; abscess; adenopathy; air bronchogram; air fluid level;
air trapping; alveolar pattern; aortic aneurysm; aortic atheromatosis; aortic button enlargement; aortic elongation;
aortic endoprosthesis; apical pleural thickening; artificial aortic heart valve; artificial heart valve; artificial
mitral heart valve; asbestosis signs; ascendent aortic elongation; atelectasis; atelectasis basal; atypical
pneumonia; axial hyperostosis; azygoesophageal recess shift; azygos lobe; blastic bone lesion; bone cement; bone
metastasis; breast mass; bronchiectasis; bronchovascular markings; bullas; calcified adenopathy; calcified
densities; calcified fibroadenoma; calcified granuloma; calcified mediastinal adenopathy; calcified pleural plaques;
calcified pleural thickening; callus rib fracture; cardiomegaly; catheter; cavitation; central vascular
redistribution; central venous catheter; central venous catheter via jugular vein; central venous catheter via
subclavian vein; central venous catheter via umbilical vein; cervical rib; chest drain tube; chronic changes;
clavicle fracture; consolidation; costochondral junction hypertrophy; costophrenic angle blunting; cyst; dai;
descendent aortic elongation; dextrocardia; diaphragmatic eventration; double J stent; dual chamber device;
electrical device; emphysema; empyema; end on vessel; endoprosthesis; endotracheal tube; esophagic dilatation;
exclude; external foreign body; fibrotic band; fissure thickening; flattened diaphragm; fracture; gastrostomy tube;
goiter; granuloma; ground glass pattern; gynecomastia; heart insufficiency; heart valve calcified; hemidiaphragm
elevation; hiatal hernia; hilar congestion; hilar enlargement; humeral fracture; humeral prosthesis;
hydropneumothorax; hyperinflated lung; hypoexpansion; hypoexpansion basal; increased density; infiltrates;
interstitial pattern; kerley lines; kyphosis; laminar atelectasis; lepidic adenocarcinoma; lipomatosis; lobar
atelectasis; loculated fissural effusion; loculated pleural effusion; lung metastasis; lung vascular paucity;
lymphangitis carcinomatosa; lytic bone lesion; major fissure thickening; mammary prosthesis; mass; mastectomy;
mediastinal enlargement; mediastinal mass; mediastinal shift; mediastinic lipomatosis; metal; miliary opacities;
minor fissure thickening; multiple nodules; nephrostomy tube; nipple shadow; nodule; non axial articular
degenerative changes; obesity; osteopenia; osteoporosis; osteosynthesis material; pacemaker; pectum carinatum;
pectum excavatum; pericardial effusion; pleural effusion; pleural mass; pleural plaques; pleural thickening;
pneumomediastinum; pneumonia; pneumoperitoneo; pneumothorax; post radiotherapy changes; prosthesis; pseudonodule;
pulmonary artery enlargement; pulmonary artery hypertension; pulmonary edema; pulmonary fibrosis; pulmonary
hypertension; pulmonary mass; pulmonary venous hypertension; reservoir central venous catheter; respiratory
distress; reticular interstitial pattern; reticulonodular interstitial pattern; rib fracture; right sided aortic
arch; round atelectasis; sclerotic bone lesion; scoliosis; segmental atelectasis; single chamber device; soft tissue
mass; sternoclavicular junction hypertrophy; sternotomy; subacromial space narrowing; subcutaneous emphysema;
suboptimal study; superior mediastinal enlargement; supra aortic elongation; surgery; surgery breast; surgery heart;
surgery humeral; surgery lung; surgery neck; suture material; thoracic cage deformation; total atelectasis; tracheal
shift; tracheostomy tube; tuberculosis; tuberculosis sequelae; unchanged; vascular hilar enlargement; vascular
redistribution; ventriculoperitoneal drain tube; vertebral anterior compression; vertebral compression; vertebral
degenerative changes; vertebral fracture; volume loss
"""

LABELS = tuple(name.strip() for name in _NAMES.replace("\n", " ").split(";"))

_NORMAL = "normal"

_ITEM = r"""(?:'[^']*'|"[^"]*")"""

_LIST = re.compile(rf"^\s*+\[\s*+(?:{_ITEM}\s*+(?:,\s*+{_ITEM}\s*+)*+)?,?\s*+\]\s*$")


def load_labels(files: Sequence[Path]) -> Truth:
    """Reads the label matrix.

    Raises:
        TableError: other files, another form, a label that PadChest does not have, or two files that disagree.
    """
    tables = [path for path in files if path.suffix.lower() in (".csv", ".parquet")]
    released = [path for path in files if path.suffix.lower() == ".json"]
    if len(tables) > 1 or len(released) > 1 or not files or len(tables) + len(released) < len(files):
        raise TableError(
            describe(
                "PadChest needs its table of labels",
                got=[path.name for path in files],
                expected="manual_image.json, PADCHEST_chest_x_ray_images_labels_160K*.csv, or both",
            )
        )
    patients: Mapping[str, str] = {}
    found: Mapping[str, set[str]] = {}
    if tables:
        found, patients = _load_official(tables[0])
    if released:
        official, found = found, _load_released(released[0])
        _check_agreement(found, official)
    if strange := sorted({label for labels in found.values() for label in labels} - {*LABELS, _NORMAL}):
        raise TableError(describe(f"{files[0]} names {len(strange)} labels that PadChest does not", got=strange[:5]))
    return build_truth(
        LABELS,
        list(found),
        to_matrix(LABELS, list(found.values())),
        groups=[patients.get(name) or name.rsplit("_", 1)[0] for name in found],
        unit="patient" if tables else "study",
        files=files,
    )


def _load_released(path: Path) -> dict[str, set[str]]:
    content = load_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(labels, list) and all(isinstance(label, str) for label in labels) for labels in content.values()
    ):
        raise TableError(describe(f"{path} has another form", expected="images to lists of labels"))
    found = {file_name(name): set(labels) for name, labels in content.items()}
    if len(found) < len(content):
        raise TableError(
            describe(f"{path} lists images more than once", got=f"{len(content)} paths, {len(found)} names")
        )
    return found


def _load_official(path: Path) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Reads labels and patients of the images that physicians labelled; a row without labels is left out.

    An image without a patient has none in the second, so that such images are not taken for one patient's.
    """
    frame = load_table(path, keys=("ImageID", "PatientID"))
    needed = ("ImageID", "PatientID", "MethodLabel", "Labels")
    if lacking := [name for name in needed if name not in frame.columns]:
        raise TableError(describe(f"{path} lacks columns", got=lacking, expected=", ".join(needed)))
    manual = frame[(frame["MethodLabel"] == "Physician") & frame["Labels"].notna()]
    if manual["ImageID"].duplicated().any():
        doubled = manual["ImageID"][manual["ImageID"].duplicated()].tolist()
        raise TableError(describe(f"{path} lists images more than once", got=doubled[:5], expected="each once"))
    names = [str(name) for name in manual["ImageID"]]
    labels = {name: _read_list(str(text), path) for name, text in zip(names, manual["Labels"], strict=True)}
    known = manual[manual["PatientID"].notna()]
    return labels, dict(zip(map(str, known["ImageID"]), map(str, known["PatientID"]), strict=True))


def _read_list(text: str, path: Path) -> set[str]:
    """Reads "['kyphosis', ' nodule']", which is data and never evaluated; the table's stray blanks are dropped."""
    if len(text) > 10_000 or not _LIST.match(text):
        raise TableError(describe(f"{path} has labels of another form", got=text, expected="['label', 'label']"))
    labels = {item[1:-1].strip() for item in re.findall(_ITEM, text)}
    return labels - {""}


def _check_agreement(released: Mapping[str, set[str]], official: Mapping[str, set[str]]) -> None:
    """Refuses two tables that say different things; nothing is checked where there is only one."""
    differing = [name for name, labels in released.items() if official and official.get(name) != labels]
    if differing:
        raise TableError(
            describe(
                f"The released and the official table disagree on {len(differing)} of {len(released)} images",
                got=differing[0],
                expected="the same labels in both",
                then="give only one of them, and say which",
            )
        )


DATASET = PublicDataset(
    name="padchest",
    title="PadChest",
    prompts="padchest192",
    labels=LABELS,
    images=39053,
    load=load_labels,
    label_files=("manual_image.json", "PADCHEST_chest_x_ray_images_labels_160K*.csv"),
    to_id=file_name,
    quirks=(
        "Classes are all labels that occur, sorted; some describe no finding of the chest: exclude, suboptimal study, "
        "unchanged. They count in the published mean; a mean without them stands beside it.",
        "Labels are not closed upwards: an image labelled laminar atelectasis is a negative of atelectasis unless it "
        "is labelled so too.",
        "No view is left out: laterals take part.",
        "Twenty classes have ten positives or fewer; each weighs as much in the macro mean as any other.",
        "Several labels are misspelt in the set (bullas, pectum carinatum, ascendent aortic elongation); the prompts "
        "spell them rightly.",
        "Without the official table patients are not known and intervals resample studies, as file names tell them.",
    ),
    orders={193: (*LABELS[: LABELS.index("obesity")], None, *LABELS[LABELS.index("obesity") :])},
    no_findings=frozenset({"exclude", "suboptimal study", "unchanged"}),
    published={
        ("auroc", "macro"): {"KAD": 0.750, "CARZero": 0.810, "RadZero": 0.841, "SentZero": 0.861},
        ("auroc", "macro:tail"): {"KAD": 0.735, "CARZero": 0.837, "RadZero": 0.871},
    },
)
