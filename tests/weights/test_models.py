"""The catalogue of released models: whole, and in agreement with what the package can convert and load."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from carzero.cli.models import app
from carzero.errors import ConfigurationError
from carzero.weights.families import FAMILIES
from carzero.weights.models import find_model, list_models
from carzero.weights.released.convert import RELEASES


def test_every_entry_is_whole() -> None:
    models = list_models()
    assert len({model.name for model in models}) == len(models)
    for model in models:
        assert all(str(value).strip() for name, value in model.to_dict().items() if name != "published"), model.name
        for figure in model.published:
            assert 0.3 < figure.value < 1
            assert figure.source
            assert figure.metric in ("auroc", "pointing")


def test_what_can_be_converted_or_loaded_is_listed() -> None:
    text = " ".join(model.title for model in list_models())
    for name in (*(release.title for release in RELEASES), *(family.title for family in FAMILIES.values())):
        assert name in text


def test_the_command() -> None:
    listed = json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)
    assert [model["name"] for model in listed] == [model.name for model in list_models()]
    shown = CliRunner().invoke(app, ["show", "chexzero"]).stdout
    for part in ("MIT", "carzero convert", "0.670", "MAVL's protocol"):
        assert part in shown
    assert "medsiglip" in CliRunner().invoke(app, ["list"]).stdout


def test_a_name_that_is_not_known() -> None:
    with pytest.raises(ConfigurationError, match=r'Did you mean "chexzero"\?'):
        find_model("chexzer")
