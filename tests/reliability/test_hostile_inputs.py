"""Every input that once got through: a result, or one refusal for that file alone, in bounded time and memory.

Images lie in `tests/images/fixtures/field`, the rest in `inputs`; large ones are made. Each was reduced from a campaign
of `python -m tests.fuzz`, or from one like it.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from carzero.core.run_record import RunRecord
from carzero.data.image_checks import check_image
from carzero.data.pairs import inspect_pairs
from carzero.errors import CARZeroError, CheckpointError, ConfigurationError, PromptError, TableError
from carzero.evaluation.evaluate import EvaluationRun
from carzero.evaluation.score_matrix import load_score_matrix
from carzero.evaluation.truth import to_truth
from carzero.images.boxes import load_ms_cxr
from carzero.images.listing import list_images
from carzero.prompts import PromptSet
from carzero.structuring.answer_cache import KeptAnswer
from carzero.structuring.answers import InvalidAnswerError, read_claims
from carzero.structuring.report_table import load_labels, load_report_rows
from carzero.training.batches.image_cache import save_images
from carzero.training.recipes import load_recipe
from carzero.weights.released.reader import read_released_checkpoint
from tests.fuzz.campaign import Child
from tests.support.commands import in_process
from tests.support.hostile_files import IMAGES, deflated_dicom, gzipped_metadata
from tests.support.image_files import encode, film

INPUTS = Path(__file__).parent / "inputs"
FIELD = Path(__file__).parents[1] / "images" / "fixtures" / "field"
SMALL = (
    *("colour_jpeg_broken_exif.jpg", "rescale_overflow.dcm", "exif_overlapping_tags.jpg"),
    "formula_in_study_uid.dcm",
)
YAML = sorted(path.name for path in (INPUTS / "yaml").iterdir())
TABLES = sorted(path.name for path in (INPUTS / "tables").iterdir())
FORMULA = ("=", "+", "@", "\t", "\r")  # a minus begins numbers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    (folder / "whole.png").write_bytes(encode(film(), "PNG"))
    for name in SMALL:
        shutil.copy(FIELD / name, folder / name)
    return folder


def options(weights: Path) -> tuple[object, ...]:
    return "--labels", "edema", "--weights", weights, "--device", "cpu", "--force"


def test_predict_scores_all_but_the_one_without_pixels(
    folder: Path, tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.csv"
    for more in ([], ["--resume"]):
        code, _, err = in_process(capsys, "predict", folder, *options(tiny_weights), "--out", out, *more)
        assert code == 1, err
        assert "Traceback" not in err
        assert "rescale_overflow.dcm" in err
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["image_id"] for row in rows} == {"whole.png", *SMALL} - {"rescale_overflow.dcm"}
        assert not [cell for row in rows for cell in row.values() if cell.startswith(FORMULA)]


def test_ground_validation_and_the_training_cache_refuse_the_same_one(
    folder: Path, tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = in_process(capsys, "ground", folder, *options(tiny_weights), "--json")
    assert code == 1, err
    assert [each["image_id"] for each in json.loads(out)["failures"]] == ["rescale_overflow.dcm"]
    unreadable = "unreadable-picture"
    assert [name for name in SMALL if check_image(str(folder / name)).kind == unreadable] == ["rescale_overflow.dcm"]
    with pytest.raises(TableError, match=r"1 of 2 images cannot be trained on: .*rescale_overflow\.dcm"):
        save_images([str(folder / name) for name in ("whole.png", "rescale_overflow.dcm")], 64, tmp_path / "cache")


@pytest.mark.parametrize("name", YAML)
def test_yaml_is_refused_as_prompts_and_as_a_recipe(name: str) -> None:
    with pytest.raises(PromptError, match=name):
        PromptSet.load(INPUTS / "yaml" / name)
    with pytest.raises(ConfigurationError, match=name):
        load_recipe(INPUTS / "yaml" / name)


READERS: dict[str, Callable[[Path], object]] = {
    "scores": load_score_matrix,
    "truth": lambda path: EvaluationRun(FIELD.parents[2] / "evaluation/fixtures/field/f17_scores.csv", path).execute(),
    "truth by itself": lambda path: to_truth(path).values(["x"]),
    "training table": lambda path: inspect_pairs(path).records(),
    "reports": lambda path: load_report_rows(path, path.parent),
    "labels of reports": load_labels,
    "boxes": load_ms_cxr,
    "images": lambda path: list_images([path]),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("reader", READERS)
def test_tables_are_refused_whoever_reads_them(name: str, reader: str) -> None:
    if (name, reader) == ("mixed.json", "images"):
        pytest.skip("images are not listed in JSON: the file itself counts as an image, and is refused as none")
    with pytest.raises(CARZeroError, match=name.replace(".", r"\.") if "digits" not in name else "."):
        READERS[reader](INPUTS / "tables" / name)


def test_an_answer_of_newlines_is_no_json_at_once() -> None:
    answer = (INPUTS / "model_answer_newlines.txt").read_text()
    for text in (answer, answer * 10, "```" + "\n" * 50_000, "{" * 50_000, "<think>" * 7_000):
        with pytest.raises(InvalidAnswerError) as refused:
            read_claims(KeptAnswer(text))
        assert refused.value.reason == "not_json"


def test_an_offset_beyond_any_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = INPUTS / "storage_offset_1e30.ckpt"
    with pytest.raises(CheckpointError, match="whole numbers"):
        read_released_checkpoint(file)
    code, _, err = in_process(capsys, "convert", file, tmp_path / "weights", "--tokenizer", tmp_path)
    assert code == 2
    assert "Traceback" not in err
    assert not (tmp_path / "weights").exists()


def test_a_row_without_its_key_is_refused_with_its_line(
    folder: Path, tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from carzero.core.journal import open_run
    from carzero.inference.score_table import check_packed

    content = (INPUTS / "journal_row_without_path.journal").read_bytes()
    out = tmp_path / "scores.csv"
    journal = tmp_path / "scores.csv.journal"
    journal.write_bytes(content)
    code, _, err = in_process(capsys, "predict", folder, *options(tiny_weights), "--out", out, "--resume")
    assert code == 2
    assert "Traceback" not in err
    record = RunRecord({"w": "demo"}, "0.1.0")
    journal.write_bytes(json.dumps({"run": record.identity}).encode() + b"\n" + content.split(b"\n", 1)[1] + b"{}\n")
    with (
        pytest.raises(TableError, match=r"Line 2 of .*is damaged"),
        open_run(out, record, resume=True, key="image_id", check=lambda row: check_packed(row, labels=["edema"])),
    ):
        pass


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """How the large inputs went in a child whose memory and time are limited: outcome and words, by name."""
    files = {"images": {name: make() for name, make in IMAGES.items()}, "dicom": deflated_dicom()}
    files["dicom"]["rescale_overflow.dcm"] = (FIELD / "rescale_overflow.dcm").read_bytes()
    files["images"] |= {name: (FIELD / name).read_bytes() for name in SMALL if name.endswith("jpg")}
    files["mimic"] = {"mimic-cxr-2.0.0-metadata.csv.gz": gzipped_metadata()}
    found = {}
    folder = tmp_path_factory.mktemp("made")
    child = Child(folder / "work")
    (folder / "work").mkdir()
    try:
        for target, contents in files.items():
            for name, content in contents.items():
                (folder / name).write_bytes(content)
            paths = [str(folder / name) for name in contents]
            for event in child.run({"target": target, "start": 0, "folders": paths, "keep": None}):
                if "begins" not in event:
                    found[[*contents][event.get("number", 0)]] = event.get("kind", f"ended {event}"), event["said"]
    finally:
        child.close()
    return found


EXPECTED = {
    "many_pages.tif": ("read", ""),  # forced: the first
    "overlapping_tags.tif": ("read", ""),
    "png_rgba16_79MP.png": ("refused", "too large"),
    "deflate_plain.dcm": ("refused", "unpacks to more than any radiograph"),
    "deflate_late_syntax.dcm": ("refused", "unpacks to more than any radiograph"),
    "deflate_no_preamble.dcm": ("refused", "unpacks to more than any radiograph"),
    "rescale_overflow.dcm": ("refused", "no finite numbers"),
    "colour_jpeg_broken_exif.jpg": ("read", ""),
    "exif_overlapping_tags.jpg": ("read", ""),
    "mimic-cxr-2.0.0-metadata.csv.gz": ("refused", "no ids of MIMIC-CXR"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_limits_hold_whatever_a_file_claims(name: str, made: dict[str, tuple[str, str]]) -> None:
    kind, said = made[name]
    assert kind == EXPECTED[name][0], said
    assert EXPECTED[name][1] in said


@pytest.fixture
def odd_names(tmp_path: Path) -> Iterator[Path]:
    """A folder of names and kinds of files that no camera makes."""
    folder = tmp_path / "odd"
    folder.mkdir()
    content = encode(film(), "PNG")
    for name in (b"\xff\xfe.png", b"film 1.png", b"film_1.png", b"a\x1b[31mred.png", b"new\nline.png", b"-l.png"):
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(content)
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "nowhere.png").symlink_to("gone")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(folder)  # the address of a socket has a limit
        try:
            server.bind("socket.png")
        finally:
            os.chdir(before)
        yield folder


def test_odd_names_are_scored_or_listed_and_never_printed_raw(
    odd_names: Path, tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlays, out = tmp_path / "overlays", tmp_path / "sc\x1b[31mores.csv"
    labels = ["edema", "胸" * 80, "胸" * 79 + "水", "../../escape"]
    asked = [part for label in labels for part in ("--labels", label)]
    command = ["predict", odd_names, *asked, "--weights", tiny_weights, "--overlay", overlays, "--out", out]
    code, _, err = in_process(capsys, *command)
    assert code == 1, err
    assert all(character.isprintable() or character == "\n" for character in err)
    for name in ("loop.png", "nowhere.png", "pipe.png", "socket.png"):
        assert name in err
    with out.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 6
    drawn = [path for path in overlays.iterdir() if path.suffix == ".png"]
    assert len(drawn) == 6 * len(labels)
    for path in drawn:
        with Image.open(path) as image:
            image.verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("odd", "overlays", out.name, f"{out.name}.manifest.json")
    ]
