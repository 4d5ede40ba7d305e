"""The wheel is whole: installed away from the repository it walks the README's first hour without network."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.commands import ENVIRONMENT, ROOT, run_program
from tests.support.pages import assert_printed, read_lines, run_lines

README = (ROOT / "README.md").read_text(encoding="utf-8")
OUTSIDE = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel alone; the packages that it needs are the suite's own."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    built = run_program([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], folder=ROOT)
    assert built.returncode == 0, built.stderr
    made = run_program([sys.executable, "-m", "venv", "--without-pip", folder / "env"])
    assert made.returncode == 0, made.stderr
    python = folder / "env" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    to = ["--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel]
    installed = run_program([sys.executable, "-m", "pip", *to])
    assert installed.returncode == 0, installed.stderr
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    # Folders that a .pth names are not searched for .pth files in turn, so no editable install is seen through them.
    shared = [path for path in sys.path if path.endswith("-packages")]
    (packages / "suite.pth").write_text("".join(f"{path}\n" for path in shared), encoding="utf-8")
    return python


def test_the_first_hour_of_the_readme_line_by_line(python: Path, tmp_path: Path) -> None:
    lines = read_lines(README)
    assert len(lines) > 6
    code = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", README, re.DOTALL)
    assert len(code) == 1
    source = 'python -c "import carzero; print(carzero.__file__)"'
    script = "python -c " + "'" + code[0][0].replace("'", '"') + "'"
    where, shown, *printed = run_lines([source, script, *(line.command for line in lines)], tmp_path, python=python)
    assert Path(where.strip()).is_relative_to(python.parents[1])
    assert shown == code[0][1]
    for line, text in zip(lines, printed, strict=True):
        assert_printed(line, text)


def test_what_messages_and_pages_name_is_installed(python: Path) -> None:
    program = "from carzero.cli.recipes import shipped_folder as f; print(f('recipes'), f('docs'), sep='\\n')"
    done = run_program([python, "-P", "-c", program], env=OUTSIDE)
    recipes, docs = map(Path, done.stdout.split())
    assert recipes.is_relative_to(python.parents[1])
    assert {path.stem for path in recipes.glob("*.yaml")} == {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert {path.name for path in docs.glob("*.md")} == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_messages_name_no_file_of_the_checkout() -> None:
    """A page is named by the command that shows it, a recipe by its name."""
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for line in text.splitlines():
            code = line.partition("  # ")[0]
            if '"' in code and not code.lstrip().startswith(("#", '"""')):
                assert not re.search(r"\b(docs/[\w-]+\.md|recipes/)", code), f"{path}: {line.strip()}"
        assert set(re.findall(r"`carzero docs ([\w-]+)`", text)) <= pages, path
