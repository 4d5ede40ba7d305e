"""One entry a frozen thing: how its sample was written, and what the commands of today make of it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.frozen.compare import machine
from tests.frozen.read import arrays_of, json_of, rows_of, tensors_of, without
from tests.frozen.work import ROOT, Samples, Work, environment
from tests.support.commands import run_program

__all__ = ["ITEMS", "Item", "make_material"]

CPU = ("--device", "cpu")
ASK = ("-l", "edema,pneumonia", "-w", "weights", "--dtype", "float32", *CPU)
PREDICT = ("predict", "films", *ASK, "--batch-size", 1)
POINT = ("benchmark", "chestxdet10", "--task", "pointing", "--rounds", 20, "--json")
POINT_IMAGES = (*POINT, "--images", "boxed", "--labels", "boxed/test.json", "-w", "weights", "--batch-size", 1, *CPU)
TRAIN = ("train", "recipe.yaml", "--table", "pairs.jsonl", "-o", "train_run", *CPU)
MODEL = ("--backend", "openai", "--model", "tiny", "--concurrency", 1, "--json")
NOBODY = ("--base-url", "http://127.0.0.1:9/v1")  # the port of a server that is not there
ROUNDS = ("--bootstrap", 30)
RAY = ("predict", "films", *ASK, "--engine", "ray", "--workers", 1)
BROKEN = (1,)  # the exit code where a picture could not be read: films/ holds one
MANY = 2000


@dataclass(frozen=True, slots=True)
class Item:
    """A frozen thing.

    Attributes:
        name: of the item, and of its files.
        outcome: what the commands of today make of the sample; plain values.
        make: writes the sample; None where there is none beside the shared material.
        loose: compared within the tolerance on every machine.
        tolerance: on other machines than the samples'.
        needs: optional packages.
        takes: other items whose samples are used too.
    """

    name: str
    outcome: Callable[[Work], Any]
    make: Callable[[Work, Path], None] | None = None
    loose: bool = False
    tolerance: float = 1e-5
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()

    @property
    def lacking(self) -> list[str]:
        """Optional packages that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def make_material(samples: Samples) -> None:
    """Writes what samples are made from."""
    from tests.frozen.material import save_material

    save_material(samples.folder("shared"))


# Score tables: read as finished tables by --resume and by evaluate, and scored anew.


def _make_scores(suffix: str) -> Callable[[Work, Path], None]:
    def make(work: Work, sample: Path) -> None:
        work.run(*PREDICT, "-o", f"scores.{suffix}", codes=BROKEN)
        sample.mkdir(parents=True)
        for name in (f"scores.{suffix}", f"scores.{suffix}.manifest.json"):
            shutil.copy(work / name, sample)

    return make


def _read_scores(suffix: str) -> Callable[[Work], Any]:
    def outcome(work: Work) -> Any:
        folder = f"score_table_{suffix}"
        table = f"{folder}/scores.{suffix}"
        kept = rows_of(work / table)
        figures = work.json("evaluate", table, "--truth", "films_truth.csv", *ROUNDS, "--json")
        _swap(work, "films/film_000.png", "films/film_011.png")  # a row that is taken over keeps its score
        work.run(*PREDICT, "-o", table, "--resume", codes=BROKEN)
        return {
            "rows": kept,
            "resumed": rows_of(work / table),
            "manifest": json_of(work / f"{table}.manifest.json"),
            "evaluate": without(figures),
        }

    return outcome


def _score_anew(work: Work) -> Any:
    printed = work.json(*PREDICT, "--json", codes=BROKEN)
    pooled = ("predict", "films", "--prompts", "prompts.json", *ASK[2:], "--pool", "max", "--json")
    (work / "prompts.json").write_text('{"edema": ["There is edema", "The lung is congested"]}')
    return {"single": without(printed), "pooled": without(work.json(*pooled, codes=BROKEN))["scores"]}


# Interrupted runs.


def _make_predict_journal(work: Work, sample: Path) -> None:
    journal = work / "scores.csv.journal"
    work.stop(lambda: _lines(journal) > 6, signal.SIGKILL, *PREDICT, "-o", "scores.csv")
    _keep_torn(journal, sample)


def _resume_predict(work: Work) -> Any:
    out = "predict_journal/scores.csv"
    _swap(work, "films/film_000.png", "films/film_011.png")
    refused = work.run(*PREDICT, "-o", out, codes=(2,)).stderr
    work.run(*PREDICT, "-o", out, "--resume", codes=BROKEN)
    return {
        "refused without --resume": "--resume" in refused,
        "rows": rows_of(work / out),
        "manifest": json_of(work / f"{out}.manifest.json"),
        "left": _names(work / "predict_journal"),
    }


def _make_pointing_journal(work: Work, sample: Path) -> None:
    journal = work / "pointed/maps.npz.journal"
    work.stop(lambda: _lines(journal) > 3, signal.SIGKILL, *POINT_IMAGES, "-o", "pointed")
    _keep_torn(journal, sample)


def _resume_pointing(work: Work) -> Any:
    _swap(work, "boxed/film_000.png", "boxed/film_001.png")
    printed = work.json(*POINT_IMAGES, "-o", "pointing_journal", "--resume")
    return {
        "printed": without(printed),
        "maps": arrays_of(work / "pointing_journal/maps.npz"),
        "left": _names(work / "pointing_journal"),
    }


def _make_map_table(work: Work, sample: Path) -> None:
    work.run(*POINT_IMAGES, "-o", "pointed")
    sample.mkdir(parents=True)
    shutil.copy(work / "pointed/maps.npz", sample)


def _read_map_table(work: Work) -> Any:
    printed = work.json(*POINT, "boxed/test.json", "--scores", "map_table/maps.npz")
    return {"arrays": arrays_of(work / "map_table/maps.npz"), "printed": without(printed)}


def _save_many_reports(work: Work) -> None:
    text = "The heart is enlarged. There is a small left pleural effusion. No pneumothorax. Lungs are clear. "
    rows = "".join(f'{index},"{text}Film {index}."\n' for index in range(MANY))
    (work / "many.csv").write_text(f"study_id,text\n{rows}")


def _make_rules_partial(work: Work, sample: Path) -> None:
    _save_many_reports(work)
    partial = work / "out.jsonl.partial"
    work.stop(lambda: _lines(partial) > 1, signal.SIGKILL, "reports", "align", "many.csv", "-o", "out.jsonl")
    _keep_torn(partial, sample, lines=30)  # an earlier kill would have left so much


def _resume_rules(work: Work) -> Any:
    _save_many_reports(work)
    align = ("reports", "align", "many.csv", "-o", "reports_partial/out.jsonl", "--json")
    refused = work.run(*align, codes=(2,)).stderr
    printed = work.json(*align, "--resume")
    return {
        "refused without --resume": "--resume" in refused,
        "printed": without(printed),
        "first rows": json_of(work / "reports_partial/out.jsonl")[:40],
        "sha256": hashlib.sha256((work / "reports_partial/out.jsonl").read_bytes()).hexdigest(),
        "left": _names(work / "reports_partial"),
    }


# A language model's run: its partial output, and its answers, which spare a server.


@contextlib.contextmanager
def _stub() -> Iterator[tuple[str, str]]:
    from tests.support.stub_server import Fault, Request, completion, faithful_answer, running_stub

    def reply(request: Request, earlier: int) -> Fault:
        return Fault(body=completion(faithful_answer(request.report)), wait_s=0.03)

    with running_stub(reply) as stub:
        yield "--base-url", stub.base_url


def _make_answer_cache(work: Work, sample: Path) -> None:
    with _stub() as server:
        work.run("reports", "align", "reports.csv", "-o", "out.jsonl", *MODEL, *server, "--cache", "answers.sqlite")
    sample.mkdir(parents=True)
    shutil.copy(work / "answers.sqlite", sample)


def _make_model_partial(work: Work, sample: Path) -> None:
    partial, align = work / "out.jsonl.partial", ("reports", "align", "reports.csv", "-o", "out.jsonl", *MODEL)
    with _stub() as server:
        work.stop(lambda: _lines(partial) > 6, signal.SIGKILL, *align, *server, "--cache", "some.sqlite")
    _keep_torn(partial, sample)


def _align_from(folder: str, *more: str) -> Callable[[Work], Any]:
    def outcome(work: Work) -> Any:
        (work / folder).mkdir(exist_ok=True)
        options = (*MODEL, *NOBODY, "--cache", "answer_cache/answers.sqlite", *more)
        printed = work.json("reports", "align", "reports.csv", "-o", f"{folder}/out.jsonl", *options)
        return {"printed": without(printed), "rows": json_of(work / folder / "out.jsonl")}

    return outcome


# Folders of scores, as Ray's workers fill them.


def _make_score_folder(work: Work, sample: Path) -> None:
    work.run(*RAY, "-o", "scores", codes=BROKEN)
    shutil.copytree(work / "scores", sample)


def _make_score_part(work: Work, sample: Path) -> None:
    """Killed when one part was done and another begun, and again in the middle of that one."""
    folder, notes = work / "scores", work / "scores/_attempts/part-00001.jsonl"

    def begun() -> bool:
        return (folder / "part-00000.parquet").exists() and notes.exists()

    def midway() -> bool:
        return notes.exists() and notes.read_text().count('"row"') > 1 and not (folder / "part-00001.parquet").exists()

    for ready, more in ((begun, ()), (midway, ("--resume",))):
        kept = work / f"kept{len(more)}"

        def copy(ready: Callable[[], bool] = ready, kept: Path = kept) -> bool:
            if not ready():
                return False
            shutil.copytree(folder, kept, dirs_exist_ok=True)
            return True

        work.stop(copy, signal.SIGINT, *RAY, "-o", "scores", *more)
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
    lines = [json.loads(line) for line in notes.read_text().splitlines() if line.strip()]
    notes.write_text(
        "\n" + "".join(json.dumps(line | ({"host": "host"} if "host" in line else {})) + "\n" for line in lines)
    )
    shutil.copytree(folder, sample)


def _describe_folder(work: Work, folder: str) -> Any:
    path = work / folder
    left = _names(path)
    figures = work.json("evaluate", folder, "--truth", "films_truth.csv", *ROUNDS, "--json")
    manifest = without(json_of(path / "_manifest.json"), ("engine",))
    return {"rows": rows_of(path), "manifest": manifest, "evaluate": without(figures), "left": left}


def _read_score_folder(work: Work) -> Any:
    return _describe_folder(work, "score_folder")


def _resume_score_folder(work: Work) -> Any:
    notes = (work / "score_folder_part/_attempts/part-00001.jsonl").read_text()
    _swap(work, "films/film_000.png", "films/film_011.png")
    _swap(work, "films/film_015.png", "films/film_011.png")
    work.run(*RAY, "-o", "score_folder_part", "--resume", codes=BROKEN)
    return {"noted before": notes.count('"row"'), **_describe_folder(work, "score_folder_part")}


# Prompt banks, exports, calibrations, maps.


def _make_prompt_bank(work: Work, sample: Path) -> None:
    (work / "asked.yaml").write_text("edema: [There is edema, The lung is congested]\nmass: There is a mass\n")
    work.run("prompts", "encode", "asked.yaml", "-o", "bank", "-w", "weights", "--dtype", "float32", *CPU)
    shutil.copytree(work / "bank", sample)


def _use_prompt_bank(work: Work) -> Any:
    ask = ("--prompts", "prompt_bank", "-w", "weights", "--dtype", "float32", *CPU, "--batch-size", 1, "--json")
    return without(work.json("predict", "films", *ask, codes=BROKEN))


def _make_export(work: Work, sample: Path) -> None:
    work.run("export", "weights", "--to", "onnx", "-o", "exported")
    _strip_traces(work / "exported")
    shutil.copytree(work / "exported", sample)


def _use_export(work: Work) -> Any:
    printed = work.json("predict", "films", "-l", "edema,pneumonia", "-w", "export_onnx", "--json", codes=BROKEN)
    return {"printed": without(printed), "manifest": without(json_of(work / "export_onnx/export.json"), ())}


def _strip_traces(folder: Path) -> None:
    """Takes out of the graphs where torch's source lay on the machine that exported them, and hashes them anew."""
    import onnx

    manifest = json.loads((folder / "export.json").read_text())
    for path in folder.glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        for holder in (model.graph, *model.functions):
            for node in (holder, *holder.node, *getattr(holder, "value_info", ())):
                node.ClearField("metadata_props")
        path.write_bytes(model.SerializeToString())
        manifest["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "export.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _make_calibration(work: Work, sample: Path) -> None:
    fit = ("calibrate", "fit", "set_scores.csv", "--truth", "set_truth.csv", "--abnormal", "--name", "our set")
    sample.mkdir(parents=True)
    work.run(*fit, "--out", "calibration.json")
    shutil.copy(work / "calibration.json", sample)


def _use_calibration(work: Work) -> Any:
    calibration = ("--calibration", "calibration/calibration.json")
    work.run("calibrate", "apply", "set_scores.csv", *calibration, "--out", "calibrated.csv")
    ask = ("--threshold-from", "calibration/calibration.json", *ROUNDS, "--json")
    figures = work.json("evaluate", "calibrated.csv", "--truth", "set_truth.csv", *ask)
    fit = ("calibrate", "fit", "set_scores.csv", "--truth", "set_truth.csv", "--abnormal", "--name", "our set")
    work.run(*fit, "--out", "again.json")
    return {
        "rows": rows_of(work / "calibrated.csv"),
        "evaluate": without(figures),
        "kept file": json_of(work / "calibration/calibration.json"),
        "fitted again": json_of(work / "again.json"),
    }


GROUND = ("ground", "films/film_000.png", "films/film_003.png", "-l", "edema,mass", "-w", "weights", *CPU)


def _make_ground(work: Work, sample: Path) -> None:
    work.run(*GROUND, "--out", "grounded")
    sample.mkdir(parents=True)
    for path in sorted((work / "grounded").rglob("*")):
        if path.suffix in (".json", ".npz"):
            target = sample / path.relative_to(work / "grounded")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def _ground_anew(work: Work) -> Any:
    """The kept files beside those written now."""
    work.run(*GROUND, "--out", "now")
    png = work.json(*GROUND, "--out", "now_png", "--map-format", "png", "--json")
    described = {"names": _names(work / "now"), "names with png": _names(work / "now_png"), "printed": without(png)}
    for folder in ("ground_output", "now"):
        files = sorted(path for path in (work / folder).rglob("*") if path.suffix in (".json", ".npz"))
        described[folder] = {
            str(path.relative_to(work / folder)): json_of(path) if path.suffix == ".json" else arrays_of(path)
            for path in files
        }
    return described


# Training.


def _make_training_run(work: Work, sample: Path) -> None:
    checkpoints = work / "train_run/checkpoints"
    work.stop((checkpoints / "step-00000010.pt").exists, signal.SIGKILL, *TRAIN)
    shutil.copytree(work / "train_run", sample, ignore=shutil.ignore_patterns("cache", ".*"))


def _resume_training(work: Work) -> Any:
    run = work / "train_run" / "run.yaml"
    torch = [line for line in run.read_text().splitlines() if line.startswith("  torch: ")]
    run.write_text(run.read_text().replace(torch[0], f"  torch: {machine()['torch']}"))  # else it is refused, rightly
    done = work.run(*TRAIN, "--resume")
    return {"goes on": "Resumes from step 10." in done.stderr, **_describe_training(work, done.stdout)}


def _train_anew(work: Work) -> Any:
    return _describe_training(work, work.run(*TRAIN).stdout)


def _describe_training(work: Work, stdout: str) -> Any:
    return {
        "kept": without(json.loads(stdout)),
        "log": json_of(work / "train_run/log.jsonl"),
        "weights": tensors_of(work / "train_run/weights/model.safetensors"),
        "names": [name for name in _names(work / "train_run") if "cache" not in name],
    }


# Figures, prompts and the demo.


def _benchmark(work: Work) -> Any:
    labels = ("--labels", "nih_list.txt", "--labels", "nih_entries.csv")
    command = ("benchmark", "chestxray14", *labels, "--scores", "nih_scores.csv", "--rounds", 50, "--json", "-o", "out")
    printed = work.json(*command)
    return {"printed": without(printed), "csv": (work / "out/metrics.csv").read_text(), "names": _names(work / "out")}


def _evaluate(work: Work) -> Any:
    ask = ("--groups", "view,age", "--bands", "age=40,60", "--threshold-same", *ROUNDS)
    command = ("evaluate", "set_scores.csv", "--truth", "set_truth.csv", *ask)
    printed = work.json(*command, "--json")
    work.run(*command, "--out", "out")
    return {"printed": without(printed), "csv": (work / "out/metrics.csv").read_text(), "names": _names(work / "out")}


def _compare(work: Work) -> Any:
    command = ("compare", "set_scores.csv", "worse_scores.csv", "--truth", "set_truth.csv", "--names", "ours,theirs")
    return without(work.json(*command, *ROUNDS, "--json"))


def _prompt_sets(work: Work) -> Any:
    """Every set of the library in every wording: what lies in the package is found wherever its modules are."""
    listed = work.json("prompts", "list", "--json")
    sets = {
        f"{record['name']}:{variant}": work.json("prompts", "show", record["name"], "--variant", variant, "--json")
        for record in listed[:2]
        for variant in record["variants"]
    }
    for record in listed[2:]:
        sets[record["name"]] = work.json("prompts", "show", record["name"], "--json")
    return {"listed": listed, "sets": sets}


def _demo(work: Work) -> Any:
    films = sorted(str(path) for path in (work / "films").glob("film_*.png"))
    done = run_program([sys.executable, "-m", "tests.frozen.public", *films], folder=ROOT, env=environment())
    if done.returncode:
        raise RuntimeError(f"tests.frozen.public: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def _data(work: Work) -> Any:
    return without(work.json("data", "validate", "pairs.jsonl", "--json"))


# Helpers.


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _keep_torn(path: Path, sample: Path, lines: int | None = None) -> None:
    """Keeps the first lines of a file that a kill has left, and the beginning of one that was being written."""
    whole = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in whole if line.endswith(b"\n")][:lines]
    sample.mkdir(parents=True)
    (sample / path.name).write_bytes(b"".join(kept) + kept[-1][:15])


def _swap(work: Work, name: str, other: str) -> None:
    """Puts another picture under a name: a score that is taken over does not change by it, one made anew does."""
    shutil.copy(work / other, work / name)


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


ONNX = ("onnxruntime",)
ITEMS = (
    Item("score table csv", _read_scores("csv"), _make_scores("csv")),
    Item("score table parquet", _read_scores("parquet"), _make_scores("parquet")),
    Item("score table json", _read_scores("json"), _make_scores("json")),
    Item("scores of tiny weights", _score_anew, loose=True),
    Item("predict journal", _resume_predict, _make_predict_journal),
    Item("pointing journal", _resume_pointing, _make_pointing_journal),
    Item("map table", _read_map_table, _make_map_table),
    Item("reports partial", _resume_rules, _make_rules_partial),
    Item("answer cache", _align_from("from_cache"), _make_answer_cache, needs=("httpx",)),
    Item(
        "model partial",
        _align_from("model_partial", "--resume"),
        _make_model_partial,
        needs=("httpx",),
        takes=("answer cache",),
    ),
    Item("score folder", _read_score_folder, _make_score_folder),
    Item("score folder part", _resume_score_folder, _make_score_part, loose=True, needs=("ray",)),
    Item("prompt bank", _use_prompt_bank, _make_prompt_bank),
    Item("export onnx", _use_export, _make_export, loose=True, needs=ONNX),
    Item("calibration", _use_calibration, _make_calibration),
    Item("ground output", _ground_anew, _make_ground),
    Item("train run", _resume_training, _make_training_run, tolerance=1e-3),
    Item("training anew", _train_anew, tolerance=1e-3),
    Item("demo scores and maps", _demo),
    Item("benchmark table", _benchmark),
    Item("evaluate with groups", _evaluate),
    Item("compare", _compare),
    Item("prompt library", _prompt_sets),
    Item("data validate", _data),
)
