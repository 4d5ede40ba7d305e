"""The page's files: no build and no other place, one idea a module, the same texts in every language."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest

PACKAGE = Path(str(resources.files("carzero")))
PAGE = PACKAGE / "service" / "page"
STYLES = sorted((PACKAGE / "assets" / "styles").glob("*.css"))  # what reports share with the page
SCRIPTS = sorted((PAGE / "scripts").glob("*.js"))
KINDS = (".js", ".css", ".html", ".json", ".svg")
FILES = [*sorted(path for path in PAGE.rglob("*") if path.suffix in KINDS), *STYLES]
IMPORT = re.compile(r'^import .*? from "\./([a-z]+\.js)";$', re.MULTILINE | re.DOTALL)
TEXT = re.compile(r'\btext\(\s*(?:[^"`()]*\? )?"([a-zA-Z.-]+)"(?: : "([a-zA-Z.-]+)")?')
FAMILIES = re.compile(r"text\(`([a-z]+)\.\$\{")


def texts(language: str) -> dict[str, str | dict[str, str]]:
    found: dict[str, str | dict[str, str]] = json.loads((PAGE / "texts" / f"{language}.json").read_text("utf-8"))
    return found


def flat(value: str | dict[str, str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value.values())


class Markup(HTMLParser):
    """Tags with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def markup() -> Markup:
    parser = Markup()
    parser.feed((PAGE / "index.html").read_text("utf-8"))
    return parser


def test_nothing_is_asked_of_another_place() -> None:
    for path in FILES:
        found = re.findall(r"(?:https?:)?//[a-z0-9][a-z0-9.-]*\.[a-z]+", path.read_text("utf-8"))
        assert set(found) <= {"http://www.w3.org", "//www.w3.org"}, path.name  # a namespace, never fetched


def test_no_script_or_style_stands_in_the_markup(markup: Markup) -> None:
    for tag, attributes in markup.tags:
        assert tag != "style"
        assert tag != "script" or attributes.keys() >= {"src", "type"}
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
    for path in SCRIPTS:
        source = path.read_text("utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", source)


def test_addresses_are_relative_and_their_files_are_there(markup: Markup) -> None:
    named = [a[name] for tag, a in markup.tags if tag in ("link", "script") for name in ("href", "src") if name in a]
    assert len(named) > 5
    for address in named:
        assert address is not None
        assert address.startswith("page/")
        assert address == "page/styles/theme.css" or (PAGE / address.removeprefix("page/")).is_file()


def test_all_modules_are_fetched_at_once(markup: Markup) -> None:
    early = {str(a["href"]) for tag, a in markup.tags if tag == "link" and a["rel"] == "modulepreload"}
    assert early == {f"page/scripts/{path.name}" for path in SCRIPTS} - {"page/scripts/main.js"}


def test_a_module_is_one_short_file_and_no_two_need_each_other() -> None:
    needs = {path.name: set(IMPORT.findall(path.read_text("utf-8"))) for path in SCRIPTS}
    assert all(found <= needs.keys() for found in needs.values())
    ready: set[str] = set()
    while ready != needs.keys():
        free = {name for name, needed in needs.items() if needed <= ready} - ready
        assert free, f"a circle among {sorted(needs.keys() - ready)}"
        ready |= free
    assert {path.name: n for path in FILES if (n := len(path.read_text("utf-8").splitlines())) > 260} == {}
    assert all(path.read_text("utf-8").startswith("// ") for path in SCRIPTS), "a module begins with its idea"


def test_each_import_is_used() -> None:
    for path in SCRIPTS:
        source = path.read_text("utf-8")
        for names in re.findall(r"^import \{([^}]*)\}", source, re.MULTILINE):
            for name in (each.split(" as ")[-1].strip() for each in names.split(",") if each.strip()):
                assert len(re.findall(rf"\b{name}\b", source)) > 1, f"{path.name} imports {name} and does not use it"


def test_languages_have_the_same_texts_with_the_same_places() -> None:
    english, german = texts("en"), texts("de")
    assert english.keys() == german.keys()
    for key, value in english.items():
        assert isinstance(value, str) == isinstance(german[key], str), key
        places = [{*re.findall(r"\{\w+\}", " ".join(flat(each)))} for each in (value, german[key])]
        assert places[0] == places[1], key
        assert all(flat(each) and all(flat(each)) for each in (value, german[key])), key
    words = {key: re.sub(r"\{\w+\}|\W", "", "".join(flat(value))) for key, value in english.items()}
    assert [key for key in english if english[key] == german[key] and len(words[key]) > 4] == [], "not translated"


def test_each_text_that_is_asked_for_is_there_and_each_that_is_there_is_asked_for(markup: Markup) -> None:
    source = "\n".join(path.read_text("utf-8") for path in SCRIPTS)
    named = [(name, key) for _, attributes in markup.tags for name, key in attributes.items()]
    asked = {key for name, key in named if name in ("data-text", "data-label")}
    asked |= {key for found in TEXT.findall(source) for key in found if key}
    asked |= set(re.findall(r'(?:about: |text: |label: |message: )"([a-z]+\.[a-z.-]+)"', source))
    known = texts("en").keys()
    assert asked - known == set()
    families = {*FAMILIES.findall(source), "lint", "problem"}
    assert {key for key in known - asked if key.split(".")[0] not in families} == set()


def test_each_rule_of_the_linter_has_a_text() -> None:
    from carzero.prompts.lint_finding import RULES

    assert {f"lint.{rule}" for rule in RULES} <= texts("en").keys()


def test_headings_do_not_skip_a_level(markup: Markup) -> None:
    levels = [int(tag[1]) for tag, _ in markup.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
