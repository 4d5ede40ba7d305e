"""`carzero predict`, the real command: exit codes, stdout and stderr, files, and runs that are killed and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from carzero.core.run_record import manifest_path
from carzero.inference.calibration_file import load_calibration
from carzero.inference.score_table import KEY_COLUMNS, load_scores
from carzero.weights.source import DEMO, WeightsSource, example_film
from tests.support.commands import Stalled, carzero_command, in_process, run_program
from tests.support.tiny import save_images

LABELS = "pneumonia,pleural effusion"
MANY = 120
STEP = MANY // 20  # a progress line each
Start = Callable[[Path], Stalled]


def command(*arguments: object) -> list[str]:
    return carzero_command("predict", *arguments)


def carzero(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_program(command(*arguments))


def refused(*arguments: object, capsys: pytest.CaptureFixture[str] | None = None) -> str:
    """The one message of a command that must end as a usage error: in a process of its own, or here with `capsys`."""
    if capsys is None:
        done = carzero(*arguments)
        code, stdout, stderr = done.returncode, done.stdout, done.stderr
    else:
        code, stdout, stderr = in_process(capsys, "predict", *arguments)
    assert code == 2, stderr
    assert not stdout
    assert "Traceback" not in stderr
    return stderr


@pytest.fixture(scope="module")
def mixed(films: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two images, a file that is not an image, an image cut in half, and a CT."""
    folder = tmp_path_factory.mktemp("mixed")
    for film in films[:2]:
        (folder / film.name).write_bytes(film.read_bytes())
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "cut.png").write_bytes(films[2].read_bytes()[:2000])
    (folder / "ct.dcm").write_bytes(Path(get_testdata_file("CT_small.dcm")).read_bytes())
    return folder


def test_a_table_on_stdout_and_failures_on_stderr(mixed: Path, tiny_weights: Path, tmp_path: Path) -> None:
    done = carzero(mixed, "--labels", LABELS, "--weights", tiny_weights, "--overlay", tmp_path / "new" / "overlays")
    assert done.returncode == 1, done.stderr
    table = done.stdout.splitlines()
    assert [word for word in ("image", "pneumonia", "pleural effusion") if word not in table[0]] == []
    rows = [line.split() for line in table if line.strip().startswith("film_")]
    assert [row[0] for row in rows] == ["film_000.png", "film_001.png"]
    assert all(len([float(value) for value in row[1:]]) == 2 for row in rows)
    assert "raw logits; not probabilities" in done.stdout
    assert "broken" not in done.stdout
    assert "3 of 5 images were not scored:" in done.stderr
    for name in ("broken.png", "cut.png", "ct.dcm"):
        (line,) = [line for line in done.stderr.splitlines() if line.startswith(f"  {name}: ")]
        assert "got" in line
        assert "expected" in line
    assert "not radiography; got 'CT'" in done.stderr
    names = [f"film_{i:03d}.png__{label}.png" for i in range(2) for label in ("pleural_effusion", "pneumonia")]
    assert sorted(path.name for path in (tmp_path / "new" / "overlays").iterdir()) == names
    for name in names:
        with Image.open(tmp_path / "new" / "overlays" / name) as picture:
            assert picture.mode == "RGB"
            assert np.asarray(picture).std() > 1
        assert f"Wrote {tmp_path / 'new' / 'overlays' / name}" in done.stderr


def test_json_on_stdout_prompts_from_a_file_and_a_forced_picture(
    films: list[Path], tiny_weights: Path, tmp_path: Path
) -> None:
    prompts = {"version": 1, "edema": ["There is edema", "The lungs are congested"], "normal": "There is no finding"}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    scan = Path(get_testdata_file("CT_small.dcm"))
    (tmp_path / "ct.dcm").write_bytes(scan.read_bytes())
    done = carzero(
        *(films[0], tmp_path / "ct.dcm", "--prompts", tmp_path / "prompts.json", "--weights", tiny_weights),
        *("--json", "--force", "--out", tmp_path / "scores.CSV", "--pool", "max", "--batch-size", "1"),
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed.keys() == {"scores", "failures", "manifest"}
    assert printed["failures"] == []
    rows = printed["scores"]
    assert [row["image_id"] for row in rows] == [films[0].name, "ct.dcm"]
    assert rows[1]["sop_uid"] == pydicom.dcmread(scan).SOPInstanceUID
    assert "Scored by force" in rows[1]["warnings"]
    assert "warning: ct.dcm: Scored by force" in done.stderr
    assert f"Wrote 2 rows to {tmp_path / 'scores.CSV'}." in done.stderr

    manifest = printed["manifest"]
    assert json.loads((tmp_path / "scores.CSV.manifest.json").read_text()) == manifest
    assert manifest["prompts"] == {"edema": prompts["edema"], "normal": ["There is no finding"]}
    assert (manifest["images"], manifest["scored"], manifest["pool"], manifest["force"]) == (2, 2, "max", True)
    assert manifest["weights"] == str(tiny_weights)
    assert len(manifest["weights_sha256"]) == len(manifest["prompts_sha256"]) == 64
    assert manifest["preprocessing"]["crop_px"] == 32
    assert load_scores(tmp_path / "scores.CSV").to_dict("records") == rows


def test_wrong_use_is_one_message_and_exit_2(
    films: list[Path], tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film, weights = films[0], ("--weights", tiny_weights)
    (tmp_path / "prompts.yaml").write_text("- There is edema\n")
    (tmp_path / "asked.yaml").write_text("edema: [There is edema]\n")
    (tmp_path / "file").write_text("")
    cases = {
        "There is no such file or folder": (tmp_path / "nowhere.png", "-l", "edema"),
        "No images are found": (tmp_path / "empty", "-l", "edema"),
        "Nothing is asked; expected labels": (film,),
        "exclude each other": (film, "-l", "edema", "--prompts", tmp_path / "asked.yaml"),
        "is not a mapping; got 'list'": (film, "--prompts", tmp_path / "prompts.yaml"),
        "Labels are repeated; got ['edema']": (film, "-l", "edema,edema"),
        "no place for the label": (film, "-l", "edema", "--template", "There is edema"),
        "No weights are found": (film, "-l", "edema", "--weights", tmp_path / "nowhere"),
        "this folder holds no config.json": (film, "-l", "edema", "--weights", tmp_path),
        "nobody/no-such-weights": (film, "-l", "edema", "--weights", "nobody/no-such-weights"),
        "format is unknown": (film, "-l", "edema", *weights, "--out", tmp_path / "scores.xlsx"),
        "folder does not exist": (film, "-l", "edema", *weights, "--out", tmp_path / "no" / "scores.csv"),
        "--resume needs --out": (film, "-l", "edema", *weights, "--resume"),
        "The output folder is a file": (film, "-l", "edema", *weights, "--overlay", tmp_path / "file"),
    }
    (tmp_path / "empty").mkdir()
    for message, arguments in cases.items():
        stderr = refused(*arguments, capsys=capsys)
        assert stderr.startswith("error: "), stderr
        assert message in stderr
        assert len(stderr.splitlines()) == 1, stderr
    assert "--pool" in refused(film, "-l", "edema", "--pool", "median", capsys=capsys)
    assert "--batch-size" in refused(film, "-l", "edema", "--batch-size", "0", capsys=capsys)
    assert "No such option" in refused(film, "--label", "edema")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of many images and one file that is none."""
    folder = tmp_path_factory.mktemp("many")
    save_images(folder, MANY, side_px=160)
    (folder / "film_060.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def whole(many: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "scores.parquet"
    done = carzero(many, "-l", LABELS, "-w", tiny_weights, "-o", out)
    assert done.returncode == 1, done.stderr
    assert not done.stdout
    assert f"scored {MANY} of {MANY}, 1 failed" in done.stderr
    return out


def rows_in(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0


@pytest.fixture
def start(many: Path, tiny_weights: Path) -> Iterator[Start]:
    """Starts a run on many images, one at a time, which stands still at its first progress line."""
    started: list[Stalled] = []

    def run(out: Path) -> Stalled:
        started.append(Stalled(command(many, "-l", LABELS, "-w", tiny_weights, "-o", out, "--batch-size", "1")))
        started[-1].wait_until(lambda: rows_in(Path(f"{out}.journal")) >= STEP)
        return started[-1]

    yield run
    for running in started:
        running.process.kill()
        running.process.wait()


def same_scores(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Equal keys in equal order; scores up to the rounding of another batch."""
    keys = list(KEY_COLUMNS)
    logits = [name for name in one.columns if name.startswith("logit:")]
    return (
        list(one.columns) == list(other.columns)
        and one[keys].to_dict("records") == other[keys].to_dict("records")
        and bool(np.allclose(one[logits], other[logits], atol=1e-5, rtol=0))
    )


def test_killed_refused_resumed_and_whole(
    start: Start, many: Path, tiny_weights: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.parquet"
    journal = tmp_path / "scores.parquet.journal"
    running = start(out)
    running.end(running.process.kill)
    assert running.process.returncode == -signal.SIGKILL
    assert not out.exists()
    assert rows_in(journal) == STEP
    with journal.open("ab") as file:
        file.write(b'{"image_id": "torn')
    before = journal.read_bytes()

    arguments = (many, "-l", LABELS, "-w", tiny_weights, "-o", out)
    assert "An interrupted run of" in (stderr := refused(*arguments))
    assert "--resume" in stderr
    assert "--overwrite" in stderr
    others = refused(many, "-l", "edema", "-w", tiny_weights, "-o", out, "--resume")
    assert "belongs to a run with other settings" in others
    assert "prompts_sha256" in others
    assert journal.read_bytes() == before, "a refused run touches nothing"

    resumed = carzero(*arguments, "--resume")
    assert resumed.returncode == 1, resumed.stderr
    assert f"scored {MANY} of {MANY}" in resumed.stderr
    table, expected = load_scores(out), load_scores(whole)
    assert len(table) == MANY - 1
    assert table["image_id"].is_unique
    assert same_scores(table, expected)
    assert not journal.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scores.parquet", "scores.parquet.manifest.json"]
    first, second = (json.loads(Path(f"{path}.manifest.json").read_text()) for path in (whole, out))
    assert {**first, "date": ""} == {**second, "date": ""}


def test_an_interrupt_keeps_the_journal(start: Start, tmp_path: Path) -> None:
    out, journal = tmp_path / "scores.csv", tmp_path / "scores.csv.journal"
    running = start(out)
    stderr = running.end(lambda: running.process.send_signal(signal.SIGINT))
    assert running.process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert not out.exists()
    assert STEP <= rows_in(journal) <= STEP + 1, "a row may be finished while the signal is on its way"


def changed_calibration(source: Path, path: Path) -> Path:
    record = json.loads(source.read_text())
    record["labels"]["edema"]["parameters"]["slope"] *= 2
    path.write_text(json.dumps(record))
    return path


def test_probabilities(tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = WeightsSource(DEMO).folder / "calibration.json"
    out = tmp_path / "scores.parquet"
    asked = ("predict", example_film(), "-l", "edema,hernia,effusion", "--device", "cpu")
    code, _, stderr = in_process(capsys, *asked, "--probabilities", "--out", out)
    assert code == 0, stderr
    scores = load_scores(out)
    names = [name for name in scores if name.startswith(("logit:", "prob:"))]
    assert names == ["logit:edema", "logit:hernia", "logit:effusion", "prob:edema", "prob:effusion"]
    for label, fitted in load_calibration(own).labels.items():
        if f"prob:{label}" in names:
            np.testing.assert_allclose(scores[f"prob:{label}"], fitted.apply(scores[f"logit:{label}"].astype(float)))
    assert json.loads(manifest_path(out).read_text())["calibration"]["labels"] == ["edema", "effusion"]
    assert "which these weights were not trained on" in stderr
    assert "No probability for hernia" in stderr
    assert "atelectasis" not in stderr.split("note:", 1)[1], "nobody has asked for it"

    code, stdout, stderr = in_process(capsys, *asked, "--calibration", own, "--json")
    (row,) = json.loads(stdout)["scores"]
    assert row["prob:edema"] == pytest.approx(scores["prob:edema"][0])

    before = out.read_bytes()
    for options in ((), ("--calibration", changed_calibration(own, tmp_path / "other.json"))):
        code, _, stderr = in_process(capsys, *asked, *options, "--out", out, "--resume")
        assert (code, "calibration_sha256_but_date" in stderr, "--overwrite" in stderr) == (2, True, True), stderr
    assert out.read_bytes() == before, "no run without its calibration drops the probabilities"
    assert in_process(capsys, *asked, "--probabilities", "--out", out, "--resume")[0] == 0
    assert out.read_bytes() == before

    film, tiny = (example_film(), "-l", "edema"), ("--weights", tiny_weights)
    for told, options in {
        "weights come without a calibration": (*film, *tiny, "--probabilities"),
        "fitted on other scores": (*film, *tiny, "--calibration", own),
        "None of the calibration's labels is scored": (example_film(), "-l", "mass", "--probabilities"),
        "--calibration names another": (*film, "--calibration", own, "--probabilities"),
    }.items():
        assert told in " ".join(refused(*options, capsys=capsys).replace("│", " ").split())
