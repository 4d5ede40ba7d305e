"""Several weights on one set: one table, paired differences, and a page with the maps of one image by each."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from carzero.datasets.chestxray14 import LABELS
from carzero.errors import ConfigurationError, OutputError
from carzero.evaluation.benchmark.run import BenchmarkRun
from carzero.evaluation.benchmark.several import SeveralResult, common_prompts, remove_others, tell_apart
from carzero.evaluation.benchmark.several_report import find_row, save_several, table_rows
from carzero.evaluation.evaluate import EvaluationRun
from carzero.evaluation.joined import Joined
from carzero.metrics.normality import NORMAL_SCORE
from carzero.weights.source import WeightsSource
from tests.support.commands import in_process
from tests.support.dual import save_siglip
from tests.support.files import full_disk
from tests.support.tiny import save_images, save_tiny_weights

FILMS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    # The name of an image begins with its patient.
    films = [
        path.rename(path.with_name(f"{number:08d}_000.png"))
        for number, path in enumerate(save_images(folder / "images", FILMS, side_px=64))
    ]
    # Every fourth image has no finding.
    labelled = [[int((row + column) % 3 == 0 and row % 4 > 0) for column in range(len(LABELS))] for row in range(FILMS)]
    lines = [" ".join([film.name, *map(str, row)]) for film, row in zip(films, labelled, strict=True)]
    (folder / "test_list.txt").write_text("\n".join(lines) + "\n")
    save_tiny_weights(folder / "simr")
    save_siglip(folder / "siglip")
    return folder


def run_of(folder: Path, **changes: object) -> BenchmarkRun:
    fields = {
        "name": "chestxray14",
        "labels": [folder / "test_list.txt"],
        "images": folder / "images",
        "out": folder / "out",
        "rounds": 20,
        "device": "cpu",
        **changes,
    }
    return BenchmarkRun(**fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def result(folder: Path) -> SeveralResult:
    sources = [WeightsSource(folder / "simr"), WeightsSource(folder / "siglip")]
    return run_of(folder, normal="max").execute_several(sources)


def test_one_line_for_each_way_of_asking(result: SeveralResult) -> None:
    headings, *lines = table_rows(result)
    rows = [dict(zip(headings, line, strict=True)) for line in lines]
    # Both wordings of CARZero are the same; the authors of SigLIP state none.
    assert [(row["weights"], row["prompts"], row["maps"]) for row in rows] == [
        ("simr", "both", "yes"),
        ("siglip", "common", "yes"),
    ]
    assert rows[0]["difference to the first"] == ""
    assert "GPU peak, MB" not in headings
    assert all(float(row["ms an image"]) > 0 for row in rows)


def test_differences_are_paired(result: SeveralResult) -> None:
    values = {
        each.name: {row["label"]: row["value"] for row in each.result.rows if row["metric"] == "auroc"}
        for each in result.contenders
    }
    for label in (*LABELS, "macro", NORMAL_SCORE):
        difference = result.find(result.contenders[1], label)
        assert difference is not None
        expected = values["siglip, common"][label] - values["simr, both"][label]
        assert difference.value == pytest.approx(expected, abs=1e-9)
        assert difference.ci_low <= difference.value <= difference.ci_high


def test_the_normal_score_is_that_of_evaluate(result: SeveralResult, folder: Path) -> None:
    headings, *lines = table_rows(result)
    column = headings.index("normal images, AUROC")
    truth = pd.DataFrame(
        {"image_id": first_of(result).ids, **dict(zip(LABELS, first_of(result).truth.T, strict=False))}
    )
    for each, line in zip(result.contenders, lines, strict=True):
        scores = folder / "out" / f"{each.weights.short_name}-{each.wording}" / "scores.parquet"
        evaluated = EvaluationRun(scores=scores, truth=truth, normal="max", rounds=0).execute()
        wanted = next(row.value for row in evaluated.rows if (row.label, row.metric) == (NORMAL_SCORE, "auroc"))
        own = find_row(each, NORMAL_SCORE)["value"]
        assert own == pytest.approx(wanted, abs=1e-9)
        assert line[column].startswith(f"{own:.3f}")
        findings = [row["value"] for row in each.result.rows if row["label"] in LABELS and row["metric"] == "auroc"]
        macro = find_row(each, "macro")["value"]
        assert macro == pytest.approx(np.mean(findings[: len(LABELS)]))  # which the normal score does not enter


def first_of(result: SeveralResult) -> Joined:
    joined = result.contenders[0].result.joined
    assert joined is not None
    return joined


def test_images_of_ones_own_are_compared_as_a_public_set(
    result: SeveralResult, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joined, asked = first_of(result), ["Pleural_Thickening", "Mass"]
    columns = [LABELS.index(label) for label in asked]
    truth = pd.DataFrame(joined.truth[:, columns], columns=["pleural thickening", "mass"]).astype(object)
    truth.iloc[0, 0], truth.iloc[1, 0] = "", -1  # unknown, uncertain
    truth.insert(0, "image_id", joined.ids)
    truth.insert(1, "who", [name[:8] for name in joined.ids])
    truth.to_csv(tmp_path / "truth.csv", index=False)
    weights = ["-w", folder / "simr", "-w", folder / "siglip"]
    command = ["compare", "--images", folder / "images", "--truth", tmp_path / "truth.csv", *weights]
    code, out, err = in_process(
        capsys, *command, "--labels", ",".join(asked), "--patient", "who", "--bootstrap", 20, "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    (own, other), names = found["contenders"], ["simr, both", "siglip, common"]
    assert [own["name"], other["name"]] == names
    assert own["manifest"]["resampled"] == "patient"
    counts = {row["label"]: row["n"] for row in own["metrics"] if row["metric"] == "auroc"}
    assert (counts["Pleural_Thickening"], counts["Mass"]) == (FILMS - 2, FILMS)
    values = [
        next(row["value"] for row in each["metrics"] if (row["label"], row["metric"]) == ("Mass", "auroc"))
        for each in (own, other)
    ]
    difference = next(row for row in found["differences"] if row["label"] == "Mass")
    assert difference["group"] == " - ".join(reversed(names))
    assert difference["value"] == pytest.approx(values[1] - values[0])
    for wrong, said in (
        ([*command, "--labels", "Mass,banana"], "no column for 1 of 2 labels"),
        ([*command[:7], "--labels", "Mass"], "needs several weights"),
        ([*command, "--labels", "Mass", "--patient", "whom"], "no column of patients"),
        ([*command, "--labels", "Mass", "--resume"], "--resume needs --out"),
        (command, "what should the images be asked"),
        (["compare", "a.csv", "b.csv", "--truth", tmp_path / "truth.csv", *weights], "belongs to --images"),
    ):
        code, _, err = in_process(capsys, *wrong)
        assert (code, said in " ".join(err.replace("│", " ").split())) == (2, True), err


def test_the_files_say_the_same(result: SeveralResult, folder: Path) -> None:
    saved = json.loads((folder / "out" / "comparison.json").read_text())
    assert saved == json.loads(json.dumps(result.to_dict()))
    assert [each["family"] for each in saved["contenders"]] == ["CARZero", "SigLIP"]
    with (folder / "out" / "comparison.csv").open(newline="") as file:
        groups = {row["group"] for row in csv.DictReader(file)}
    assert groups == {"simr, both", "siglip, common", "siglip, common - simr, both"}
    page = (folder / "out" / "comparison.html").read_text()
    assert page.count("data:image/png;base64,") == 4  # an image with the finding and one without, by each
    assert "4 x 4 cells, each 16 x 16 of the image" in page
    assert "approximation" in page
    assert (folder / "out" / "siglip-common" / "scores.parquet").is_file()


def test_an_output_folder_is_refused_before_anything_is_scored(
    result: SeveralResult, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(*_: object, **__: object) -> None:
        raise AssertionError("scored")

    monkeypatch.setattr("carzero.evaluation.benchmark.several.benchmark_images", score)
    sources = [WeightsSource(folder / "simr"), WeightsSource(folder / "siglip")]
    (tmp_path / "file").write_text("a file")
    last, scored = tmp_path / "last" / "siglip-common", tmp_path / "scored" / "siglip-common"
    last.parent.mkdir()
    last.write_text("a file")
    scored.mkdir(parents=True)
    (scored / "scores.parquet").write_text("finished")
    for out, said in {
        folder / "out": r"exists already.*comparison.json.*--resume.*--overwrite",
        tmp_path / "file": "is a file",
        tmp_path / "file" / "below": "is a file",
        last.parent: r"is a file.*siglip-common",
        scored.parent: r"exists already.*siglip-common/scores.parquet.*--resume.*--overwrite",
    }.items():
        with pytest.raises(OutputError, match=said):
            run_of(folder, out=out).execute_several(sources)
    for options in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(AssertionError, match="scored"):
            run_of(folder, out=scored.parent, **options).execute_several(sources)


def test_a_full_disk_leaves_the_earlier_comparison(result: SeveralResult, folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in (folder / "out").glob("comparison.*")}
    assert len(before) == 3
    with full_disk(), pytest.raises(OutputError, match="Make room"):
        save_several(result, folder / "images", folder / "out")
    assert {path.name: path.read_bytes() for path in (folder / "out").glob("*comparison.*")} == before


def test_what_earlier_contenders_wrote_is_removed_and_nothing_else(result: SeveralResult, tmp_path: Path) -> None:
    own = result.contenders[0]
    files = {
        f"{own.short_name}-{own.wording}/scores.parquet": True,
        "earlier-common/scores.parquet": False,
        "earlier-common/scores.parquet.manifest.json": False,
        "earlier-authors-0123abcd/scores.parquet.journal": False,
        "noted-both/scores.parquet": False,
        "noted-both/notes.txt": True,
        "theirs/scores.parquet": True,
        "comparison.html": True,
    }
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    remove_others(tmp_path, result.contenders)
    assert {name: (tmp_path / name).exists() for name in files} == files
    assert not (tmp_path / "earlier-common").exists()


def test_weights_of_one_name_are_told_apart_by_the_way_to_them(folder: Path, tmp_path: Path) -> None:
    names = ("a/one/weights", "a/two/weights", "b/two/weights", "c/simr")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(folder / "simr")
    sources = [WeightsSource(tmp_path / name) for name in names]
    assert tell_apart(sources) == ["one/weights", "a/two/weights", "b/two/weights", "simr"]
    assert tell_apart([WeightsSource("demo"), sources[0]]) == ["demo", "weights"]


def test_denials_of_the_common_prompts(folder: Path) -> None:
    from carzero.datasets.catalogue import DATASETS

    source = WeightsSource(folder / "simr")
    assert common_prompts(DATASETS["chestxray14"], source).negative_prompts is None
    prompts = common_prompts(DATASETS["chestxray14"], source, "logit_difference")
    for label, affirming in prompts:
        denying = prompts.entry(label).negative
        assert len(denying) == len(affirming)
        assert all(text.startswith("There is no ") for text in denying)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"name": "all"}, "on one set"), ({"task": "pointing"}, "on one set"), ({"images": None}, "on one set")],
)
def test_what_cannot_be_compared_is_refused(folder: Path, changes: dict[str, object], said: str) -> None:
    sources = [WeightsSource(folder / "simr"), WeightsSource(folder / "siglip")]
    with pytest.raises(ConfigurationError, match=said):
        run_of(folder, **changes).execute_several(sources)
    with pytest.raises(ConfigurationError, match="named twice"):
        run_of(folder, out=None).execute_several([sources[0], WeightsSource(folder / "simr")])
