"""The notebooks run from top to bottom, in one process each time, and leave a picture where they promise one."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests.support.commands import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_is_a_notebook(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jupytext = pytest.importorskip("jupytext", reason="jupytext reads notebooks that are text")
    pytest.importorskip("matplotlib", reason="needs the extra eval").use("agg")
    cells = jupytext.read(notebook).cells
    assert [cell.cell_type for cell in cells[:2]] == ["markdown", "code"]
    assert all(not cell.source.startswith("# %%") for cell in cells)
    monkeypatch.chdir(tmp_path)
    shown = runpy.run_path(str(notebook))
    assert capsys.readouterr().out
    if notebook.stem == "score_and_look":
        assert shown["found"].to_image().size[0] > 300
    if notebook.stem == "evaluate_with_intervals":
        assert shown["axes"].lines
