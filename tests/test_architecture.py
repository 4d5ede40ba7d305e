"""The line of packages, a light import, and a public surface that is what it says."""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

import carzero
from tests.support.commands import run_program

SOURCE = Path(carzero.__file__).parent

# Packages in one line: each imports only from those before it, and of these only what stands here.
BASE = ("errors", "records", "_version")
LINE: dict[str, tuple[str, ...]] = {
    "errors": (),
    "records": (),
    "_version": (),
    "core": BASE,
    "metrics": BASE,
    "text": (*BASE, "core"),
    "model": BASE,
    "images": (*BASE, "core"),
    "reports": BASE,
    "prompts": (*BASE, "core", "text", "reports"),
    "processing": (*BASE, "text", "model", "images"),
    "weights": (*BASE, "core", "metrics", "text", "model", "images", "prompts", "processing"),
    "datasets": (*BASE, "core", "images", "reports"),
    "data": (*BASE, "core", "text", "images", "reports"),
    "structuring": (*BASE, "core", "reports", "datasets", "data"),
    "inference": (*BASE, "core", "metrics", "text", "model", "images", "prompts", "processing", "weights"),
    "training": (
        *(*BASE, "core", "metrics", "text", "model", "images", "prompts", "processing", "weights"),
        *("reports", "datasets", "data"),
    ),
    "export": (*BASE, "core", "metrics", "text", "model", "images", "prompts", "processing", "weights", "inference"),
    "speed": (*BASE, "core", "metrics", "text", "model", "images", "prompts", "processing", "weights", "inference"),
    "evaluation": (
        *(*BASE, "core", "metrics", "text", "model", "images", "prompts", "processing", "weights"),
        *("reports", "datasets", "data", "inference"),
    ),
    "clinical": (*BASE, "core", "metrics", "images", "prompts", "weights", "inference", "evaluation"),
    "service": (*BASE, "core", "metrics", "images", "prompts", "weights", "inference", "evaluation"),
    "pipelines": (*BASE, "model", "images", "prompts", "processing", "weights", "inference"),
    "cli": (
        *(*BASE, "core", "metrics", "text", "model", "images", "prompts", "processing", "weights", "reports"),
        *(
            "datasets",
            "data",
            "structuring",
            "inference",
            "training",
            "export",
            "speed",
            "evaluation",
            "clinical",
            "service",
        ),
    ),
    "__main__": ("cli",),
}
# A file name is repeated only where the role is: here stands which role that is.
REPEATED = {
    "run": "the run of that package",
    "base": "the contract of the alternatives beside it",
    "catalogue": "the list of what a package has",
    "evaluate": "the verb, on the command line and as a run",
    "compare": "the verb, on the command line and as a run",
    "calibrate": "the verb, on the command line and as a run",
    "biovil": "one released model: its network, its folders on disk, its files as released",
    "models": "the released models that are known: the verb, and the list",
    "boxes": "boxes: how well they fit, and their files",
    "classification": "scores against labels: the metrics, and a public test set by them",
    "comparison": "two sets of scores: of models, and of a model and its export",
    "dicom": "DICOM files read, and the verbs about DICOM",
    "graphs": "graphs of other engines: written, and run",
    "readers": "radiologists: the metrics, and the study",
    "recipes": "of training runs: their fields, and the verb that shows those of the package",
    "validation": "of a training table, and of weights in training",
}
HEAVY = {"torch", "transformers", "pandas", "numpy", "pydicom", "PIL", "scipy", "sklearn", "pyarrow"}


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem != "__init__")


def name_of(path: Path) -> str:
    """Dotted name below `carzero`, of a package without `__init__`."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def own_imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, inside functions and for type checking too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {to_module(name.split(".")[1:]) for name in names if name.startswith("carzero.")}


def to_module(parts: list[str]) -> str:
    """The module in which a dotted name lies: `carzero.a.b.Name` lies in a.b."""
    found: list[str] = []
    for part in parts:
        folder = SOURCE.joinpath(*found, part)
        if not folder.is_dir() and not folder.with_suffix(".py").is_file():
            break
        found.append(part)
    return ".".join(found) or "_version"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_package_imports_only_from_those_before_it(path: Path) -> None:
    own = name_of(path).split(".")[0]
    for module in own_imports(path):
        other = module.split(".")[0]
        assert other == own or other in LINE[own], f"{own} imports {module}"


def test_the_line_is_a_line() -> None:
    before: list[str] = []
    for package, allowed in LINE.items():
        assert set(allowed) <= set(before), package
        before.append(package)
    assert {name_of(path).split(".")[0] for path in modules()} == set(LINE)


def test_no_circle_anywhere_type_checking_included() -> None:
    edges = {name_of(path): own_imports(path) - {name_of(path)} for path in modules()}
    ordered: set[str] = set()
    while len(ordered) < len(edges):
        ready = {name for name, needs in edges.items() if name not in ordered and needs <= ordered}
        assert ready, f"circle among {sorted(set(edges) - ordered)}"
        ordered |= ready


def test_a_file_name_is_repeated_only_where_the_role_is() -> None:
    counts = Counter(path.stem for path in modules() if path.stem not in ("__init__", "__main__"))
    assert {name for name, count in counts.items() if count > 1} <= set(REPEATED)


def test_public_names_stand_in_init_files_alone() -> None:
    for path in modules():
        if path.stem != "__init__":
            assert "\n__all__" not in path.read_text(encoding="utf-8"), path


def test_core_knows_no_torch_and_no_image() -> None:
    for path in (SOURCE / "core").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
                assert not {name.split(".")[0] for name in names} & {"torch", "transformers", "PIL", "pydicom"}, path


def test_model_opens_no_file_and_prints_nothing() -> None:
    for path in (SOURCE / "model").rglob("*.py"):
        calls = [
            node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ]
        named = {call.id for call in calls if isinstance(call, ast.Name)}
        assert not named & {"open", "print"}, path


def loaded_by(code: str) -> list[str]:
    """Names of the modules that `code` loads in a fresh interpreter."""
    program = (
        f"import json, sys\nbefore = set(sys.modules)\n{code}\nprint(json.dumps(sorted({{*sys.modules}} - before)))"
    )
    done = run_program([sys.executable, "-c", program])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def top_level(names: list[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_import_is_light() -> None:
    loaded = loaded_by("import carzero")
    assert not top_level(loaded) & HEAVY
    assert sum(name.startswith("carzero.") for name in loaded) <= 5
    assert len(loaded) < 100  # counted, not timed: how busy the machine is has no say in it


def test_help_is_light() -> None:
    code = (
        "from typer.testing import CliRunner\nfrom carzero.cli.main import app\n"
        "assert 'predict' in CliRunner().invoke(app, ['--help']).output"
    )
    loaded = loaded_by(code)
    assert not top_level(loaded) & HEAVY
    assert len(loaded) < 600


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


@pytest.mark.parametrize("package", ["carzero", "carzero.images", "carzero.metrics"])
def test_names_that_load_on_first_use_are_where_they_are_looked_for(package: str) -> None:
    module = importlib.import_module(package)
    assert not [name for name in module.__all__ if getattr(module, name, None) is None]


def test_the_files_that_contributing_names_exist() -> None:
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    ways = text.split("## Ways through the code")[1].split("## Adding something")[0]
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)+)(?:\.py|/)?`", ways)
    assert len(named) > 40
    assert not [name for name in named if not (SOURCE / f"{name}.py").is_file() and not (SOURCE / name).is_dir()]
