"""The figures that papers print, for the column beside ours.

Zero-shot AUROC, macro over the set's classes, and hits over trials of the pointing game. All are as the papers print
them, to three decimals: KAD (Zhang et al., Nature Communications 2023) and CARZero (Lai et al., CVPR 2024) from the
latter's tables, RadZero (Park et al., 2025, at 518 px), SentZero (2026).
"""

from __future__ import annotations

SOURCE = "CARZero: Lai et al., CVPR 2024, zero-shot, as printed there"


# Task and set, label, model.
PUBLISHED: dict[tuple[str, str, str], dict[str, float]] = {
    ("auroc", "openi", "macro"): {"KAD": 0.807, "CARZero": 0.838, "RadZero": 0.847, "SentZero": 0.889},
    ("auroc", "padchest", "macro"): {"KAD": 0.750, "CARZero": 0.810, "RadZero": 0.841, "SentZero": 0.861},
    ("auroc", "padchest", "macro:tail"): {"KAD": 0.735, "CARZero": 0.837, "RadZero": 0.871},
    ("auroc", "chestxray14", "macro"): {"KAD": 0.789, "CARZero": 0.811, "RadZero": 0.804, "SentZero": 0.839},
    ("auroc", "chexpert", "macro"): {"KAD": 0.905, "CARZero": 0.923, "RadZero": 0.900, "SentZero": 0.904},
    ("auroc", "chestxdet10", "macro"): {"KAD": 0.735, "CARZero": 0.796, "RadZero": 0.787, "SentZero": 0.843},
    ("pointing", "chestxdet10", "macro"): {"KAD": 0.391, "CARZero": 0.543, "RadZero": 0.622, "SentZero": 0.732},
}


# The same game by class, CARZero. Each is a whole number of hits over the trials of the 542 test pictures, and their
# mean is the 0.543 above.
POINTING_CHESTXDET10 = {
    "Atelectasis": 0.604,
    "Calcification": 0.184,
    "Consolidation": 0.824,
    "Effusion": 0.782,
    "Emphysema": 0.846,
    "Fibrosis": 0.561,
    "Fracture": 0.184,
    "Mass": 0.700,
    "Nodule": 0.286,
    "Pneumothorax": 0.457,
}


def find_published(metric: str, dataset: str, label: str) -> float | None:
    """What the CARZero paper prints for this figure; None where it prints none, or it is not known here."""
    if (metric, dataset) == ("pointing", "chestxdet10") and label in POINTING_CHESTXDET10:
        return POINTING_CHESTXDET10[label]
    return PUBLISHED.get((metric, dataset, label), {}).get("CARZero")


def list_published(metric: str, dataset: str) -> list[tuple[str, str, float]]:
    """What papers print of this set: label, model, figure."""
    return [
        (label, model, value)
        for (task, name, label), models in PUBLISHED.items()
        if (task, name) == (metric, dataset)
        for model, value in models.items()
    ]
