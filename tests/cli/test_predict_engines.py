"""`carzero predict --engine ray`, as far as it goes without a cluster, and what reads its folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from carzero.inference.ray.score_folder import open_score_folder
from carzero.inference.score_table import KEY_COLUMNS
from tests.support.commands import in_process, rows_of

ASK = ["--labels", "edema"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "spark"], "'spark' is not one of 'local', 'ray'"),
        (["--engine", "ray"], "is needed with --engine ray"),
        (["--engine", "ray", "--out", "scores", "--overlay", "maps"], "cannot be used with --engine ray"),
        (["--workers", "2"], "belongs to --engine ray"),
        (["--address", "auto"], "belongs to --engine ray"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str], message: str, films: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, stdout, stderr = in_process(capsys, "predict", films[0], *ASK, *options)
    assert (code, stdout) == (2, "")
    assert message in stderr


def test_a_missing_ray_is_named(
    films: list[Path],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "scores"
    options = ["--weights", tiny_weights, "--engine", "ray", "--out", out]
    for _ in range(2):  # the run that could not begin is not in the way of the next
        code, stdout, stderr = in_process(capsys, "predict", films[0], *ASK, *options)
        assert (code, stdout) == (2, "")
        assert "-m pip install '.[ray]'" in stderr


def test_a_folder_of_parts_is_evaluated_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = open_score_folder(tmp_path / "scores", {"weights": "demo"}, ["edema"], resume=False, overwrite=False)
    rows = [
        {**dict.fromkeys(KEY_COLUMNS, ""), "image_id": str(n), "logit:edema": float(n % 3), "warnings": ""}
        for n in range(12)
    ]
    folder.save_part(0, rows[:7], [])
    folder.save_part(1, rows[7:], [])
    truth = tmp_path / "truth.csv"
    truth.write_text("image_id,edema\n" + "".join(f"{n},{int(n % 3 == 2)}\n" for n in range(12)))
    command = ["evaluate", folder.path, "--truth", truth, "--json"]
    code, _, stderr = in_process(capsys, *command)
    assert code == 2
    assert "holds an unfinished run" in stderr
    folder.finish({"weights": "demo"})
    code, stdout, stderr = in_process(capsys, *command)
    assert code == 0, stderr
    row = rows_of(stdout)["all", "edema", "auroc"]
    assert (row["value"], row["n"], row["n_pos"]) == (1.0, 12, 4)
    assert json.loads(stdout)["manifest"]["scores"][0]["weights"] == "demo"
