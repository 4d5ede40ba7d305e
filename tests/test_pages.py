"""The documentation does what it says: commands print what stands below them, Python blocks run, pages are found."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

import carzero
from tests.support.commands import ROOT
from tests.support.pages import assert_printed, read_lines, run_lines
from tests.support.reference import MODULES, write_page

DOCS = ROOT / "docs"
GENERATED = {"reference.md"}
PAGES = sorted(path for path in DOCS.glob("*.md") if path.name not in GENERATED)


def test_command_lines_print_what_the_pages_say(tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="DICOM results need the extra clinical")
    lines = [line for path in PAGES for line in read_lines(path.read_text(encoding="utf-8"))]
    assert len(lines) > 10
    for line, printed in zip(lines, run_lines([line.command for line in lines], tmp_path), strict=True):
        assert_printed(line, printed)


def use_table(folder: Path) -> dict[str, object]:
    row = {
        "image": "chest.dcm",
        "text": "No edema.",
        "split": "train",
        "patient_id": "p",
        "study_id": "s",
        "view": "PA",
    }
    pd.DataFrame([row]).to_parquet(folder / "pairs.parquet")
    return {}


def use_aligned(folder: Path) -> dict[str, object]:
    row = {"image": "chest.dcm", "impression": "No edema. Small effusion.", "sentences": ["There is no edema"]}
    pd.DataFrame([row]).to_json(folder / "aligned.jsonl", orient="records", lines=True)
    return {}


def use_scored(folder: Path) -> dict[str, object]:
    pytest.importorskip("highdicom", reason="DICOM results need the extra clinical")
    from carzero.images.listing import list_images
    from carzero.inference.scoring import ScoringSettings
    from carzero.prompts import PromptSet
    from carzero.weights.source import WeightsSource

    classifier = carzero.ZeroShotClassifier.from_pretrained("demo", device="cpu")
    weights, prompts = WeightsSource("demo"), PromptSet.from_labels(["edema"])
    return {
        "weights": weights,
        "prompts": prompts,
        "scoring": ScoringSettings(weights, prompts),
        "classifier": classifier,
        "items": list_images([folder / "chest.dcm"]),
        "bank": classifier.encode_prompts(prompts),
    }


# What a page's blocks take for granted: files and names that its words speak of.
GRANTED: dict[str, Callable[[Path], dict[str, object]]] = {
    "clinical": use_scored,
    "data": use_table,
    "training": use_aligned,
}


@pytest.mark.parametrize(
    "page", [path for path in PAGES if "```python" in path.read_text(encoding="utf-8")], ids=lambda path: path.stem
)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sybil = pytest.importorskip("sybil", reason="sybil reads the blocks")
    from sybil.parsers.markdown import PythonCodeBlockParser

    (tmp_path / "chest.dcm").write_bytes(carzero.example_film().read_bytes())
    monkeypatch.chdir(tmp_path)
    document = sybil.Sybil(parsers=[PythonCodeBlockParser()], path=str(DOCS)).parse(page)
    document.namespace.update(GRANTED[page.stem](tmp_path) if page.stem in GRANTED else {})
    examples = list(document.examples())
    assert examples
    for example in examples:
        example.evaluate()


def test_each_page_stands_in_the_site_once() -> None:
    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        inner = entry.values() if isinstance(entry, dict) else entry
        return [page for each in inner for page in pages(each)]  # type: ignore[union-attr]

    named = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert len(named) == len(set(named))
    assert set(named) == {*(path.name for path in DOCS.glob("*.md")), *GENERATED}, "each page is found from the site"
    assert {page for page in named if page.startswith("journey-")} == {path.name for path in DOCS.glob("journey-*.md")}


def test_the_reference_has_every_public_name() -> None:
    page = write_page()
    assert all(f"## {module}\n" in page for module in MODULES)
    assert {name for name in carzero.__all__ if f"### {name}\n" not in page} == {"__version__"}
    assert "#### ZeroShotClassifier.predict\n" in page
    assert "- `on_error`:" in page


def test_one_version_is_stated() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == carzero.__version__
    assert f'version = "{carzero.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


NAMED_FILE = re.compile(r"(?<![\w/.:-])[A-Za-z_][\w.-]*(?:/[\w.-]+)*/[\w.-]+\.(?:py|md|js|css)\b")
BENCHMARK = re.compile(r"benchmarks/(\w+)\.py([^`\n]*)")


@pytest.mark.parametrize(
    "page",
    [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))],
    ids=lambda path: path.stem,
)
def test_files_and_benchmark_options_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    places = (ROOT, ROOT / "src", ROOT / "src" / "carzero", DOCS)
    assert [name for name in NAMED_FILE.findall(text) if not any((place / name).is_file() for place in places)] == []
    for script, line in BENCHMARK.findall(text):
        known = (ROOT / "benchmarks" / f"{script}.py").read_text(encoding="utf-8")
        assert [name for name in re.findall(r"(?<![\w-])--[a-z][\w-]*", line) if f'"{name}"' not in known] == []
