"""The names that `carzero.metrics` promises: they exist, load on first use, and are those that the page names."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import carzero.metrics
from tests.support.commands import run_program

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


@pytest.mark.parametrize("name", carzero.metrics.__all__)
def test_a_public_name_is_what_its_module_defines(name: str) -> None:
    found = getattr(carzero.metrics, name)
    home = getattr(found, "__module__", "carzero.metrics.classification")
    assert home.startswith("carzero.metrics.") or name == "METRICS"
    assert name in dir(carzero.metrics)


def test_importing_metrics_loads_no_scipy() -> None:
    code = "import sys, carzero.metrics; assert not {'scipy', 'numpy', 'pandas'} & sys.modules.keys()"
    done = run_program([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_one() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = carzero.metrics.nonsense  # type: ignore[attr-defined]


def test_a_function_is_never_hidden_by_a_module() -> None:
    modules = {path.stem for path in Path(carzero.metrics.__file__).parent.glob("*.py")}
    assert not modules & {*carzero.metrics.__all__}


def test_the_page_names_what_is_there() -> None:
    named = set(re.findall(r"`carzero\.metrics\.(\w+)", PAGE.read_text(encoding="utf-8")))
    assert {"evaluate", "compare", "bootstrap", "delong_test", "exclusive_accuracy", "hits_at_k"} <= named
    assert named <= {*carzero.metrics.__all__}
