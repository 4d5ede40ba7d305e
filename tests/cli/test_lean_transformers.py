"""What a command that only scores spares while transformers is loaded, and that its scores are the same."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
import torch
import transformers

import carzero
from carzero.cli.lean_structure import look_up_later
from carzero.cli.lean_transformers import spare_imports
from tests.support.commands import in_process, run_program

PROGRAM = """
import json, sys
from carzero.__main__ import main
readers = []  # whether torch was loaded before each
def watch(event, arguments):
    if event == "subprocess.Popen":
        readers.append("torch" in sys.modules)
sys.addaudithook(watch)
try:
    main()
finally:
    told, names = [sorted(sys.modules), readers], vars(sys.modules["transformers"])
    told.append(len(names["_class_to_module"]))
    import transformers
    told.append(transformers.SiglipModel.__name__)
    told.append(names["_class_to_module"])
    sys.stderr.write(json.dumps(told) + "\\n")
"""
SPARED = {
    "accelerate",
    "pandas",
    "pyarrow",
    "pydicom",
    "requests",
    "scipy",
    "sklearn",
    "sympy",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
}


def test_a_command_that_scores_loads_no_compiler_and_gives_the_same_scores(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["predict", carzero.example_film(), "--labels", "pneumonia,edema", "--json"]
    alone = run_program([sys.executable, "-c", PROGRAM, *asked])
    assert alone.returncode == 0, alone.stderr
    modules, readers, some, name, names = json.loads(alone.stderr.splitlines()[-1])
    loaded = set(modules)
    assert {"torch", "transformers.modeling_utils", "transformers.masking_utils"} <= loaded
    assert not loaded & SPARED
    assert len(loaded) < 2100  # counted, not timed: how busy the machine is has no say in it
    assert readers == [False], "one reader for one image, which starts beside torch"
    assert name == "SiglipModel", "a model that the command did not ask for"
    assert names == vars(transformers)["_class_to_module"], "all names, once one was asked for"
    assert some < len(names) / 5
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as children have it: the last digit depends on their number
    try:
        code, here, _ = in_process(capsys, *asked)
    finally:
        torch.set_num_threads(threads)
    assert code == 0
    assert json.loads(alone.stdout)["scores"] == json.loads(here)["scores"]


@pytest.mark.parametrize("verb", ["train", "pretrain", "export", "convert", "evaluate", "--help"])
def test_other_commands_load_all_of_it(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setattr(sys, "meta_path", before := list(sys.meta_path))
    spare_imports([verb, "--help"])
    spare_imports([])
    assert sys.meta_path == before


def test_another_transformers_is_left_as_it_is() -> None:
    other = ModuleType("import_utils")
    other.define_import_structure = dict  # type: ignore[attr-defined]
    before = dict(vars(other))
    look_up_later(other)
    assert vars(other) == before


def test_what_is_taken_away_while_a_module_loads_is_there_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.masking_utils as real
    from transformers.utils import import_utils

    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    asked = [import_utils.is_scipy_available, torch.compiler.disable, vars(torch).get("_dynamo")]
    spare_imports(["predict"])
    monkeypatch.delitem(sys.modules, "transformers.masking_utils")
    import transformers.masking_utils as again

    assert again is not real
    assert again.__spec__ is not None
    assert type(again.__spec__.loader) is type(real.__loader__)
    assert asked == [import_utils.is_scipy_available, torch.compiler.disable, vars(torch).get("_dynamo")]
    assert again.TransformGetItemToIndex().__class__.__name__ == "TransformGetItemToIndex"
