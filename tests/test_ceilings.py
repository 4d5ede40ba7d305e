"""Ceilings of what makes a package hard to change; they may only fall."""

from __future__ import annotations

import pytest

from tests.support.figures import measure, source_files

CEILINGS = {
    "share of files under 100 lines, %": 20.0,  # a third of these only mark a package
    "lines of the longest file": 400,
    "Any per 1,000 lines": 3.8,
    "dict[str, Any]": 29,
    "functions with more than 8 parameters": 1,  # ZeroShotClassifier.predict, whose signature users rely on
    "files that name Recipe": 3,  # the class, its run, its task, and the verb that says which kind of recipe it reads
}


@pytest.mark.parametrize("figure", CEILINGS)
def test_no_figure_is_above_its_ceiling(figure: str) -> None:
    assert measure()[figure] <= CEILINGS[figure]


def test_long_parameter_lists_are_found() -> None:
    assert [name for file in source_files("inference") for name in file.long_lists()] == [
        "inference/classifier.py:predict"
    ]
