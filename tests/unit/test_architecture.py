"""The layer rule, a light import, and a public surface that is what it says."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import carzero

SOURCE = Path(carzero.__file__).parent
LAYERS = {
    "errors": 0,
    "outputs": 0,
    "text_cleaning": 0,
    "model": 1,
    "pixels": 1,
    "reports": 1,
    "evaluation": 1,
    "tokenizing": 2,
    "processing": 2,
    "prompts": 2,
    "weights": 2,
    "checkpoints": 2,
    "data": 2,
    "exported": 2,
    "precision": 2,
    "image_loading": 3,
    "prompt_bank": 3,
    "prompt_bank_files": 3,
    "backends": 3,
    "zeroshot": 3,
    "run_result": 3,
    "scoring_run": 3,
    "scoring_settings": 3,
    "parallel": 3,
    "speed": 3,
    "grounding_run": 3,
    "pipelines": 3,
    "training": 3,
    "aligning": 3,
    "calibration_run": 3,
    "evaluation_run": 3,
    "exporting": 3,
    "comparison_run": 3,
    "benchmarks": 4,
    "cli": 5,
    "__main__": 6,
}
HEAVY = {"torch", "transformers", "pandas", "numpy", "pydicom", "PIL", "scipy", "sklearn", "pyarrow"}


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem != "__init__")


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def own_imports(path: Path) -> set[str]:
    """The parts of the package that a file imports, inside functions and for type checking too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {
                f"{node.module}.{alias.name}" if node.module == "carzero" else str(node.module) for alias in node.names
            }
    return {name.split(".")[1] for name in names if name.startswith("carzero.")}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_import_points_up(path: Path) -> None:
    own = part_of(path)
    for name in own_imports(path) - {"__version__"}:
        assert LAYERS[name] <= LAYERS[own], f"{own} (layer {LAYERS[own]}) imports {name} (layer {LAYERS[name]})"


def test_parts_of_one_layer_import_each_other_without_circles() -> None:
    edges: dict[str, set[str]] = {name: set() for name in LAYERS}
    for path in modules():
        edges[part_of(path)] |= own_imports(path) - {part_of(path), "__version__"}
    ordered: list[str] = []
    while len(ordered) < len(edges):
        ready = [name for name in edges if name not in ordered and edges[name] <= set(ordered)]
        assert ready, f"circle among {sorted(set(edges) - set(ordered))}"
        ordered += ready


def test_model_opens_no_file_and_prints_nothing() -> None:
    for path in (SOURCE / "model").glob("*.py"):
        calls = [
            node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ]
        named = {call.id for call in calls if isinstance(call, ast.Name)}
        assert not named & {"open", "print"}, path


def loaded_by(code: str) -> tuple[set[str], float]:
    """Names of top-level modules loaded by `code`, and the processor seconds that a fresh interpreter spent on it."""
    program = (
        f"import json, resource, sys\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_utime\n{code}\n"
        "spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before\n"
        "print(json.dumps([sorted({m.split('.')[0] for m in sys.modules}), spent]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded, spent = json.loads(done.stdout.splitlines()[-1])
    return set(loaded), spent


def test_import_is_light() -> None:
    loaded, _ = loaded_by("import carzero")
    assert not loaded & HEAVY
    # Processor time, best of five: what else the machine does has little say in it.
    assert min(loaded_by("import carzero")[1] for _ in range(5)) < 0.3


def test_help_is_light() -> None:
    code = (
        "from typer.testing import CliRunner\nfrom carzero.cli.main import app\n"
        "assert 'predict' in CliRunner().invoke(app, ['--help']).output"
    )
    loaded, _ = loaded_by(code)
    assert not loaded & HEAVY
    assert min(loaded_by(code)[1] for _ in range(5)) < 0.5


def test_public_names_exist_and_are_listed() -> None:
    for name in carzero.__all__:
        assert getattr(carzero, name) is not None
    assert set(carzero.__all__) <= set(dir(carzero))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = carzero.nonsense


def test_no_unsafe_loading_anywhere() -> None:
    root = SOURCE.parent.parent
    for folder in ("src", "recipes", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "weights_only=False" not in text, path
            assert "pickle.load" not in text, path
