"""Scores join labels by image, never by row; what does not fit is refused with counts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from carzero.datasets.base import build_truth
from carzero.datasets.catalogue import DATASETS
from carzero.datasets.files import find_images, find_label_files
from carzero.errors import MissingExtraError, TableError
from carzero.evaluation.benchmark.classification import BenchmarkResult, Terms, benchmark_scores
from carzero.evaluation.benchmark.manifest import to_rows
from carzero.evaluation.benchmark.plots import check_drawing, draw_figures, to_png, to_svg
from carzero.evaluation.benchmark.report import build_report, save_result
from carzero.evaluation.benchmark.scores import join_set, load_image_list, load_set_scores
from carzero.evaluation.controls import Controls
from carzero.evaluation.score_matrix import ScoreMatrix, to_score_matrix
from carzero.metrics.resampling import Statistics
from carzero.records import Failure
from tests.support.browser import open_browser, violations

NIH, PADCHEST, DET = DATASETS["chestxray14"], DATASETS["padchest"], DATASETS["chestxdet10"]
FEW = Statistics(rounds=50)
N = 240


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with test_list.txt, images.csv, logits.csv and table.csv of 240 images of 80 patients."""
    folder = tmp_path_factory.mktemp("nih")
    random = np.random.default_rng(7)
    names = [f"{patient:08d}_{film:03d}.png" for patient in range(80) for film in range(3)]
    truth = (random.random((N, 14)) < 0.2).astype(int)
    logits = np.round(random.normal(size=(N, 14)) + truth, 2)
    listed = [f"images_001/{name}" for name in names]
    (folder / "test_list.txt").write_text(
        "".join(f"{name} {' '.join(map(str, row))}\n" for name, row in zip(listed, truth, strict=True))
    )
    pd.DataFrame({"image": listed}).to_csv(folder / "images.csv", index=False)
    pd.DataFrame(logits, columns=[str(c) for c in range(14)]).to_csv(folder / "logits.csv", index=False)
    table = pd.DataFrame(logits, columns=[f"logit:{label}" for label in NIH.labels])
    table.insert(0, "image_id", names)
    table.sample(frac=1, random_state=1).to_csv(folder / "table.csv", index=False)
    np.savez(folder / "arrays.npz", truth=truth, logits=logits)
    return folder


def run(folder: Path, **changes: object) -> BenchmarkResult:
    options = {"image_list": folder / "images.csv", "terms": Terms(statistics=FEW), **changes}
    scores = options.pop("scores", folder / "logits.csv")
    return benchmark_scores(NIH, [folder / "test_list.txt"], scores, **options)  # type: ignore[arg-type]


def values(result: BenchmarkResult, metric: str) -> dict[str, float]:
    """The first row of each label."""
    found: dict[str, float] = {}
    for row in result.rows:
        if row["metric"] == metric:
            found.setdefault(row["label"], row["value"])
    return found


def test_figures_are_scikit_learns_in_whatever_form_and_order_scores_come(nih: Path) -> None:
    arrays = np.load(nih / "arrays.npz")
    result = run(nih)
    expected = roc_auc_score(arrays["truth"], arrays["logits"], average=None)
    found = values(result, "auroc")
    assert [found[label] for label in NIH.labels] == pytest.approx(list(expected), abs=1e-12)
    assert found["macro"] == pytest.approx(expected.mean(), abs=1e-12)
    precision = average_precision_score(arrays["truth"], arrays["logits"], average=None)
    assert [values(result, "average_precision")[label] for label in NIH.labels] == pytest.approx(
        list(precision), abs=1e-12
    )

    shuffled = run(nih, scores=nih / "table.csv", image_list=None)
    assert shuffled.rows == result.rows
    named = pd.read_csv(nih / "logits.csv")
    named.columns = list(NIH.labels)
    named[list(NIH.labels)[::-1]].to_csv(nih / "named.csv", index=False)
    assert run(nih, scores=nih / "named.csv").rows == result.rows
    order = np.random.default_rng(0).permutation(N)
    named.iloc[order].to_parquet(nih / "permuted.parquet")
    pd.read_csv(nih / "images.csv").iloc[order].to_csv(nih / "permuted.csv", index=False)
    assert run(nih, scores=nih / "permuted.parquet", image_list=nih / "permuted.csv").rows == result.rows
    assert run(nih, image_list=nih / "test_list.txt").rows == result.rows, "a list with labels behind names"


def test_rows_have_both_intervals_and_counts(nih: Path) -> None:
    rows = [row for row in run(nih).rows if row["metric"] == "auroc" and row["label"] == "macro"]
    bootstrap, delong, newcombe = rows
    assert "80 patients" in bootstrap["method"]
    assert "DeLong" in delong["method"]
    assert "Newcombe" in newcombe["method"], "fewer than 50 patients have each class"
    assert bootstrap["value"] == newcombe["value"] == pytest.approx(delong["value"], abs=1e-12)
    for row in rows:
        assert row["ci_low"] < row["value"] < row["ci_high"]
        assert (row["dataset"], row["group"], row["n"]) == ("chestxray14", "all", N)
        assert row["published"] == 0.811
    assert {row["label"]: row["published"] for row in run(nih).rows if row["metric"] == "auprc"}["macro"] is None


def test_the_manifest_says_what_was_evaluated_and_two_runs_differ_by_the_date_alone(nih: Path) -> None:
    first, second = run(nih), run(nih)
    assert first.rows == second.rows
    assert {**first.manifest, "date": ""} == {**second.manifest, "date": ""}
    manifest = first.manifest
    assert manifest["images"] == N
    assert manifest["labels"][0]["file"] == "test_list.txt"
    assert manifest["scores"]["form"] == "released logits"
    assert manifest["weights_sha256"] is None, "a released score file does not state its weights"
    assert manifest["notes"][0].startswith("The published figures rest on 22433 images, these on 240")
    hashes = [manifest["image_list_sha256"], manifest["truth_sha256"], manifest["scores"]["sha256"]]
    assert all(len(value) == 64 for value in hashes)

    (nih / "table.csv.manifest.json").write_text(json.dumps({"weights_sha256": "abc", "date": "x", "pool": "mean"}))
    table = run(nih, scores=nih / "table.csv", image_list=None)
    (nih / "table.csv.manifest.json").unlink()
    assert table.manifest["weights_sha256"] == "abc"
    assert table.manifest["image_list_sha256"] == manifest["image_list_sha256"]


def test_scores_that_do_not_fit_are_refused_with_counts(nih: Path, tmp_path: Path) -> None:
    logits, images = pd.read_csv(nih / "logits.csv"), pd.read_csv(nih / "images.csv")
    with pytest.raises(TableError, match=r"240 rows without a column image_id.*--image-list"):
        run(nih, image_list=None)
    images[:-3].to_csv(tmp_path / "short.csv", index=False)
    with pytest.raises(TableError, match="got '240 rows of scores and 237 images'"):
        run(nih, image_list=tmp_path / "short.csv")
    pd.concat([images[:-1], images[:1]]).to_csv(tmp_path / "twice.csv", index=False)
    with pytest.raises(TableError, match="names images more than once"):
        run(nih, image_list=tmp_path / "twice.csv")
    logits.drop(columns="13").to_csv(tmp_path / "narrow.csv", index=False)
    with pytest.raises(TableError, match=r"not the classes of ChestXray14.*13 columns"):
        run(nih, scores=tmp_path / "narrow.csv")
    logits.rename(columns={"0": "1", "1": "0"}).to_csv(tmp_path / "swapped.csv", index=False)
    with pytest.raises(TableError, match="not the classes"):
        run(nih, scores=tmp_path / "swapped.csv")
    logits.assign(**{"3": [np.nan, np.inf] + [0.0] * (N - 2)}).to_csv(tmp_path / "nan.csv", index=False)
    with pytest.raises(TableError, match="2 scores that are missing, infinite, or not numbers"):
        run(nih, scores=tmp_path / "nan.csv")
    logits.assign(**{"3": "high"}).to_csv(tmp_path / "text.csv", index=False)
    with pytest.raises(TableError, match=r"or not numbers; got .*cell"):
        run(nih, scores=tmp_path / "text.csv")
    with pytest.raises(TableError, match="names its images itself"):
        run(nih, scores=nih / "table.csv")
    (tmp_path / "other.csv").write_text("name\nx\n")
    with pytest.raises(TableError, match="names no images"):
        run(nih, image_list=tmp_path / "other.csv")


def test_a_table_without_all_pictures_or_classes(nih: Path, tmp_path: Path) -> None:
    table = pd.read_csv(nih / "table.csv")
    table[: N - 40].to_csv(tmp_path / "part.csv", index=False)
    with pytest.raises(TableError, match=r"40 of 240 labelled images have no score.*--allow-missing"):
        run(nih, scores=tmp_path / "part.csv", image_list=None)
    part = run(nih, scores=tmp_path / "part.csv", image_list=None, terms=Terms(True, FEW))
    assert part.manifest["images"] == N - 40
    assert len(part.manifest["missing"]) == 40
    assert "(40 of the set have no score)" in part.manifest["notes"][0]

    extra = pd.concat([table, table[:2].assign(image_id=["99999999_000.png", "99999999_001.png"])])
    extra.to_csv(tmp_path / "extra.csv", index=False)
    result = run(nih, scores=tmp_path / "extra.csv", image_list=None)
    assert result.manifest["unused_scores"] == 2
    assert result.rows == run(nih).rows

    table.assign(image_id=[f"x{name}" for name in table["image_id"]]).to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(TableError, match=r"240 of 240.*Check that these scores are of this set"):
        run(nih, scores=tmp_path / "none.csv", image_list=None, terms=Terms(True, FEW))
    table.drop(columns="logit:Hernia").to_csv(tmp_path / "lacking.csv", index=False)
    with pytest.raises(TableError, match=r"1 of 14 classes; got \['Hernia'\].*--prompts chestxray14"):
        run(nih, scores=tmp_path / "lacking.csv", image_list=None)
    for label in NIH.labels:
        table[f"prob:{label}"] = 2.0
    table.to_csv(tmp_path / "prob.csv", index=False)
    with pytest.raises(TableError, match="outside 0 to 1"):
        run(nih, scores=tmp_path / "prob.csv", image_list=None)


def test_other_suffixes_are_matched_unless_ambiguous(nih: Path, tmp_path: Path) -> None:
    table = pd.read_csv(nih / "table.csv")
    table["image_id"] = [f"converted/{name.replace('.png', '.jpg')}" for name in table["image_id"]]
    table.to_csv(tmp_path / "jpg.csv", index=False)
    assert run(nih, scores=tmp_path / "jpg.csv", image_list=None).rows == run(nih).rows
    both = pd.concat([table, table[:1].assign(image_id=[table["image_id"][0].replace(".jpg", ".tif")])])
    both.to_csv(tmp_path / "both.csv", index=False)
    with pytest.raises(TableError, match="1 of 240 labelled images have no score"):
        run(nih, scores=tmp_path / "both.csv", image_list=None)


def test_padchests_other_column_order_leaves_out_normal(tmp_path: Path) -> None:
    labels = [*PADCHEST.labels]
    labels.insert(labels.index("obesity"), "normal")
    frame = pd.DataFrame([np.arange(193.0), np.arange(193.0)], columns=[str(c) for c in range(193)])
    frame.to_csv(tmp_path / "logits.csv", index=False)
    pd.DataFrame({"image": ["1_a.png", "1_b.png"]}).to_csv(tmp_path / "images.csv", index=False)
    scored = load_set_scores(tmp_path / "logits.csv", PADCHEST, tmp_path / "images.csv")
    assert scored.values[0].tolist() == [labels.index(label) for label in PADCHEST.labels]


def test_long_tail_and_the_mean_without_classes_of_no_finding(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    counts = np.minimum(np.arange(1, 193), 150)
    truth = np.stack([random.permutation(300) < count for count in counts], axis=1)
    names = [f"{index}_a.png" for index in range(300)]
    (tmp_path / "manual_image.json").write_text(
        json.dumps(
            {name: [PADCHEST.labels[c] for c in np.flatnonzero(row)] for name, row in zip(names, truth, strict=True)}
        )
    )
    logits = random.normal(size=truth.shape) + truth
    pd.DataFrame(logits, columns=list(PADCHEST.labels)).to_csv(tmp_path / "logits.csv", index=False)
    pd.DataFrame({"Path": names}).to_csv(tmp_path / "images.csv", index=False)
    result = benchmark_scores(
        PADCHEST,
        [tmp_path / "manual_image.json"],
        tmp_path / "logits.csv",
        image_list=tmp_path / "images.csv",
        terms=Terms(statistics=Statistics(rounds=5)),
    )
    found = values(result, "auroc")
    each = np.array([roc_auc_score(truth[:, c], logits[:, c]) for c in range(192)])
    finding = np.array([label not in PADCHEST.no_findings for label in PADCHEST.labels])
    assert finding.sum() == 189
    assert found["macro:findings"] == pytest.approx(each[finding].mean(), abs=1e-12)
    assert found["macro:tail"] == pytest.approx(each[counts <= 10].mean(), abs=1e-12)
    assert found["macro:head"] == pytest.approx(each[counts > np.percentile(counts, 65)].mean(), abs=1e-12)
    assert found["macro:rarest100"] == pytest.approx(each[:100].mean(), abs=1e-12)
    published = {row["label"]: row["published"] for row in result.rows if row["metric"] == "auroc"}
    assert (published["macro"], published["macro:tail"], published["macro:head"]) == (0.81, 0.837, None)


# Finding files


def test_pictures_are_found_by_name_at_any_depth(tmp_path: Path) -> None:
    for name in ("images_001/images/a_0.png", "images_012/b_0.PNG", "c_0.jpeg", "c_0.txt", "d.png", "._a_0.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = find_images(tmp_path, ["c_0.png", "a_0.png", "b_0.png", "e_0.png"], NIH.to_id)
    assert [(item.image_id, Path(item.path).name) for item in found.items] == [
        ("c_0.png", "c_0.jpeg"),
        ("a_0.png", "a_0.png"),
        ("b_0.png", "b_0.PNG"),
    ]
    assert found.missing == ["e_0.png"]
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "a_0.png").write_bytes(b"")
    with pytest.raises(TableError, match=r"2 files could be the image a_0\.png"):
        find_images(tmp_path, ["a_0.png"], NIH.to_id)
    with pytest.raises(TableError, match="no such folder"):
        find_images(tmp_path / "nowhere", ["a_0.png"], NIH.to_id)


def test_chexperts_films_are_told_apart_by_patient_and_study(tmp_path: Path) -> None:
    protocol = DATASETS["chexpert"]
    for patient in ("patient1", "patient2"):
        folder = tmp_path / "CheXpert" / "test" / patient / "study1"
        folder.mkdir(parents=True)
        (folder / "view1_frontal.jpg").write_bytes(b"")
    ids = ["patient2/study1/view1_frontal.jpg", "patient1/study1/view1_frontal.jpg"]
    found = find_images(tmp_path, ids, protocol.to_id)
    assert [Path(item.path).parts[-3] for item in found.items] == ["patient2", "patient1"]


def test_label_files_are_found_beside_the_pictures(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"not found.*test_list\.txt or Data_Entry_2017\*\.csv.*--labels"):
        find_label_files(tmp_path, NIH)
    (tmp_path / "labels").mkdir()
    for name in ("test_list.txt", "labels/Data_Entry_2017_v2020.csv", "other.csv"):
        (tmp_path / name).write_text("")
    assert [path.name for path in find_label_files(tmp_path, NIH)] == ["test_list.txt", "Data_Entry_2017_v2020.csv"]
    (tmp_path / "labels" / "test_list.txt").write_text("")
    with pytest.raises(TableError, match="Several files could be the labels"):
        find_label_files(tmp_path, NIH)


# Curves and the report


@pytest.fixture(scope="module")
def saved(nih: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[BenchmarkResult, list[Path]]:
    """A result, and the files that it was saved to."""
    result = run(nih)
    return result, save_result(result, tmp_path_factory.mktemp("saved"))


def test_the_folder_holds_table_record_pictures_and_a_report_of_its_own(
    saved: tuple[BenchmarkResult, list[Path]],
) -> None:
    result, paths = saved
    tmp_path, names = paths[0].parent, [path.name for path in paths]
    expected = [
        "metrics.csv",
        "metrics.json",
        "manifest.json",
        "forest.png",
        "roc.png",
        "precision_recall.png",
        "report.html",
    ]
    assert names == expected
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert len(table) == len(result.rows)
    assert table["value"].iloc[0] == result.rows[0]["value"]
    assert json.loads((tmp_path / "metrics.json").read_text()) == result.to_dict()
    assert json.loads((tmp_path / "manifest.json").read_text()) == result.manifest
    html = (tmp_path / "report.html").read_text()
    for outside in ("http://", "https://", 'src="/', "<script", "<link", "@import", "url("):
        assert outside not in html, outside
    macro = values(result, "auroc")["macro"]
    for text in (f"{macro:.4f}", "0.811", "Pleural_Thickening", "CARZero 0.811", result.manifest["truth_sha256"]):
        assert text in html
    first, second = (to_svg(draw_figures(NIH.labels, result.rows, None, "auroc")["forest"]) for _ in range(2))
    assert first == second, "the same bytes each time"
    assert b"Date" not in first


def test_the_report_has_no_cut_column_in_either_theme(saved: tuple[BenchmarkResult, list[Path]]) -> None:
    with open_browser() as browser:
        for theme, is_dark in (("light", False), ("dark", True)):
            page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
            page.goto(saved[1][-1].as_uri())
            cut = "[...document.querySelectorAll('.wide')].filter((each) => each.scrollWidth > each.clientWidth).length"
            assert page.evaluate(cut) == 0
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (int(colour.removeprefix("rgb(").split(",")[0]) < 64) == is_dark
        assert violations(page) == []


def test_the_report_says_what_the_figures_hide(nih: Path) -> None:
    result = run(nih, terms=Terms(statistics=FEW, controls=Controls(among_abnormal=True)))
    html = build_report(result, {})
    assert "What the figures hide" in html
    assert "among abnormal" in html
    assert "logistic regression" not in html
    assert "What the figures hide" not in build_report(run(nih), {})
    assert all(row["published"] is None for row in result.rows if row["group"] != "all")
    assert {row.group for row in to_rows(result.rows)} == {"all", "abnormal=yes"}
    with pytest.raises(TableError, match="does not say where"):
        run(nih, terms=Terms(statistics=FEW, controls=Controls(baseline=True)))


def test_text_in_the_report_is_escaped(nih: Path) -> None:
    result = run(nih)
    hostile = "<script>alert(1)</script>"
    result.manifest["weights"] = hostile
    result.manifest["notes"].append(hostile)
    result.failures.append(Failure(hostile, "", hostile))
    html = build_report(result, {"roc": b"<svg/>"})
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 6


def test_reliability_is_drawn_where_there_are_probabilities(nih: Path, tmp_path: Path) -> None:
    table = pd.read_csv(nih / "table.csv")
    for label in NIH.labels:
        table[f"prob:{label}"] = 1 / (1 + np.exp(-table[f"logit:{label}"]))
    table.to_csv(tmp_path / "calibrated.csv", index=False)
    result = run(nih, scores=tmp_path / "calibrated.csv", image_list=None)
    assert {"brier", "expected_calibration_error"} <= {row["metric"] for row in result.rows}
    figures = draw_figures(NIH.labels, result.rows, result.joined, "auroc")
    assert list(figures) == ["forest", "roc", "precision_recall", "reliability"]
    assert to_png(figures["reliability"]).startswith(b"\x89PNG")


def test_a_report_without_matplotlib_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"-m pip install '\.\[eval\]'"):
        check_drawing()


def test_what_is_resampled_has_its_name(tmp_path: Path) -> None:
    """Images without known patients are called images, Open-i's reports reports."""
    random = np.random.default_rng(0)
    names = [f"{index}.png" for index in range(60)]
    truth = random.random((60, 10)) < 0.4
    content = [
        {
            "file_name": name,
            "syms": [DET.labels[c] for c in np.flatnonzero(row)],
            "boxes": [[0, 0, 1, 1]] * int(row.sum()),
        }
        for name, row in zip(names, truth, strict=True)
    ]
    (tmp_path / "test.json").write_text(json.dumps(content))
    pd.DataFrame(random.normal(size=(60, 10)), columns=list(DET.labels)).to_csv(tmp_path / "scores.csv", index=False)
    pd.DataFrame({"image": names}).to_csv(tmp_path / "images.csv", index=False)
    result = benchmark_scores(
        DET,
        [tmp_path / "test.json"],
        tmp_path / "scores.csv",
        image_list=tmp_path / "images.csv",
        terms=Terms(statistics=FEW),
    )
    assert "rounds of 60 images" in result.rows[0]["method"]
    assert result.manifest["intervals"].endswith("over whole images, 60 of them")


def test_lists_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("images_001/1.png 0 1\n\nimages_002/2.png\n")
    assert load_image_list(tmp_path / "list.txt", DET) == ("1.png", "2.png")
    with pytest.raises(TableError, match="cannot be read"):
        load_image_list(tmp_path / "nowhere.txt", DET)


def test_rows_of_labels_must_agree() -> None:
    with pytest.raises(ValueError, match="rows differ"):
        build_truth("xyz", ["a"], np.zeros((2, 3), np.float32), groups=["a"], unit="image", files=())
    truth = build_truth("xy", ["a", "b"], np.eye(2, dtype=np.float32), groups=["a", "b"], unit="image", files=())
    with pytest.raises(TableError, match="2 of 2"):
        join_set(truth, load_nothing())


def load_nothing() -> ScoreMatrix:
    return to_score_matrix(pd.DataFrame({"image_id": [], "logit:x": [], "logit:y": []}))
