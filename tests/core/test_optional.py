"""Optional packages: a missing one is reported with the extra that installs it."""

from __future__ import annotations

import sys

import pytest

from carzero.core.optional import require_extra
from carzero.errors import MissingExtraError


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "json", None)
    with (
        pytest.raises(MissingExtraError) as caught,
        require_extra("Curves need wandb", "train", "take it out of the recipe"),
    ):
        import json  # noqa: F401
    assert str(caught.value) == (
        "Curves need wandb. Install it in a checkout of carzero: "
        f"{sys.executable} -m pip install '.[train]', or take it out of the recipe."
    )


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), require_extra("This needs nothing", "train"):
        raise KeyError
