"""The page in a real browser, against the real service with the demo weights: a reader's whole way through it.

With CARZERO_SCREENSHOTS=FOLDER the tests also write the pictures that docs/page.md shows.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import carzero
from tests.support.browser import Visit, open_browser, serve, violations
from tests.support.commands import wait_until
from tests.support.dual import save_chexzero, save_siglip
from tests.support.image_files import dicom

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

# What sticks out of the window; the table scrolls in its own frame.
BEYOND = """[...document.querySelectorAll("body *")]
  .filter((each) => !each.closest(".table-frame, .unseen, .symbols, select"))
  .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
  .map((each) => each.outerHTML.slice(0, 80))"""
PLACE = """Promise.all(["viewport", "commands", "store"].map((name) => import(`./page/scripts/${name}.js`)))
  .then(([{ transformOf }, { paneSize }, { state, currentImage }]) =>
    ({ ...transformOf(state.view, currentImage().facts, paneSize()), unit: paneSize().unit }))"""
MOST_RED = """() => [...document.querySelectorAll(".stage canvas")].map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let most = 0;
  for (let at = 0; at < data.length; at += 4) most = Math.max(most, data[at] - data[at + 2]);
  return most;
})"""  # of the colours in each pane
CALIBRATED = "calibrated"  # the demo weights once more, with a calibration
SIGLIP, CHEXZERO = "siglip", "chexzero"  # tiny ones of other families, the second without maps


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        address: of its page.
        folder: of images: the example, two of its kind, one that is broken, and a note.
        weights: folders by the name that the service has for them.
        levels: (rows, columns) of the example, as the service sends them.
        facts: what it says of the example.
    """

    address: str
    folder: Path
    weights: dict[str, Path]
    levels: np.ndarray[Any, np.dtype[np.uint16]]
    facts: dict[str, Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    httpx = pytest.importorskip("httpx", reason="needs the package httpx")
    pytest.importorskip("fastapi", reason="needs the package fastapi")
    from carzero.metrics.calibration import Calibration
    from carzero.metrics.calibrators import LabelCalibration
    from carzero.service import ServiceSettings, create_app
    from carzero.service.telemetry import Telemetry
    from carzero.weights.source import WeightsSource

    half = LabelCalibration("platt", {"slope": 0.0, "intercept": 0.0}, 40, 20, -9.0, 9.0)
    demo = WeightsSource("demo")
    others = {name: tmp_path_factory.mktemp("weights") / name for name in (SIGLIP, CHEXZERO)}
    save_siglip(others[SIGLIP])
    save_chexzero(others[CHEXZERO])
    settings = ServiceSettings(
        weights={"demo": demo, CALIBRATED: demo, **{name: WeightsSource(path) for name, path in others.items()}},
        calibrations={CALIBRATED: Calibration({"pneumonia": half})},
        readers=1,
    )
    folder = tmp_path_factory.mktemp("page") / "chests"
    folder.mkdir()
    shutil.copy(carzero.example_film(), folder / "chest.dcm")
    with serve(create_app(settings, telemetry=Telemetry(io.StringIO()))) as address:
        with httpx.Client(base_url=address, timeout=None) as client:
            wait_until(lambda: client.get("readyz").status_code == httpx.codes.OK, every_s=0.2)
            with (folder / "chest.dcm").open("rb") as file:
                answer = client.post("v1/pixels", files={"image": file})
        facts = json.loads(answer.headers["CARZero-Image"])
        levels = np.frombuffer(answer.content, dtype="<u2").reshape(facts["rows"], facts["columns"])
        quarter = 2 * levels[::4, ::4]  # 15 bit to 16
        Image.fromarray(quarter[:, ::-1].copy()).save(folder / "mirrored.png")
        Image.fromarray((quarter >> 8).astype(np.uint8)).save(folder / "=1+1.jpg", quality=95)
        (folder / "broken.dcm").write_bytes(b"no image" * 40)
        (folder / "notes.txt").write_text("not an image", encoding="utf-8")
        yield Service(address, folder, others, levels, facts)


def visit(browser: Browser, service: Service, **options: Any) -> Visit:
    """A tab with nothing kept from others."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
    made = Visit(context.new_page())
    made.open(service.address)
    return made


def leave(visit: Visit) -> None:
    """Ends a visit, in which nothing may have left the machine or gone against the page's own policy."""
    assert visit.strangers == []
    assert visit.complaints == []
    visit.page.context.close()


def test_drop_an_image_and_set_its_window(browser: Browser, service: Service) -> None:
    here = visit(browser, service)
    assert violations(here.page) == []  # empty
    here.drop([service.folder / "chest.dcm"])
    here.shown()
    assert here.page.locator(".image-label").inner_text() == "chest.dcm"
    assert here.state("state.window") == service.facts["window"]

    here.page.keyboard.press("1")  # one pixel of the image on one of the screen
    stage = here.page.locator(".stage").bounding_box()
    assert stage is not None
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    before = here.state("state.window")
    here.page.mouse.move(x, y)
    here.page.mouse.down()
    here.page.mouse.move(x - 60, y + 35, steps=5)
    here.page.mouse.up()
    window = here.state("state.window")
    step = (service.facts["largest"] + 1) / 1024
    assert window["width"] == pytest.approx(before["width"] - 60 * step)
    assert window["centre"] == pytest.approx(min(service.facts["largest"], before["centre"] + 35 * step))
    here.shown()

    place = here.page.evaluate(PLACE)
    assert place["scale"] == 1
    for column, row in ((900, 700), (1000, 950), (850, 1200)):
        level = float(service.levels[row, column])
        share = min(1.0, max(0.0, (level - window["centre"]) / window["width"] + 0.5))
        grey = int(np.floor(255 * share + 0.5))
        assert here.pixel(place["left"] + column, place["top"] + row) == [grey, grey, grey, 255]

    here.page.mouse.move(stage["x"] + place["left"] + 900.5, stage["y"] + place["top"] + 700.5)
    stored = service.facts["intercept"] + service.facts["slope"] * float(service.levels[700, 900])
    assert f"x 900, y 700: {stored:,.0f}" in here.page.locator(".status-value").inner_text()
    here.page.keyboard.press("i")
    here.shown()
    assert here.pixel(place["left"] + column, place["top"] + row) == [255 - grey, 255 - grey, 255 - grey, 255]
    here.page.click("#reset")
    assert here.state("state.window.width") == service.facts["window"]["width"]
    here.page.mouse.move(x, y)
    here.page.mouse.wheel(0, -300)
    assert here.state("state.view.scale") > 1
    here.page.click("#zoom-fit")
    assert here.state("state.view.fit") is True
    here.page.select_option("#preset", "full")
    assert here.state("state.window.width") == service.facts["largest"]
    leave(here)


def test_ask_sort_open_a_map_compare_and_save(browser: Browser, service: Service, tmp_path: Path) -> None:
    here = visit(browser, service)
    here.drop([service.folder])  # a whole folder, as one drags it
    here.shown()
    assert "notes.txt" in here.page.locator(".message").inner_text()
    here.page.fill("#ask-input", "no pneumoth")
    here.wait_for(here.page.locator("#ask-remarks .remark", has_text="negated"))
    here.ask("pneumonia, banana")
    here.scores(6)
    assert violations(here.page) == []  # scored, one image of four failed
    assert here.page.locator(".finding", has_text="banana").locator(".tag").is_visible()
    assert "No scores." in here.page.locator("tr", has_text="broken.dcm").inner_text()
    in_row = here.page.locator("tr.current .score-button")
    assert here.page.locator(".finding-score").all_inner_texts() == in_row.all_inner_texts()
    assert "%" not in here.page.locator(".scores").inner_text()  # no calibration, no probability

    heading = here.page.locator("th.score").first
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    column = here.page.locator("td:nth-child(2) .score-button").all_inner_texts()
    ranked = [float(text.replace("\u2212", "-")) for text in column]
    assert ranked == sorted(ranked, reverse=True)
    assert len(ranked) == 3
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert "broken.dcm" in here.page.locator("tbody tr").last.inner_text()

    table = here.save("#save-table", tmp_path)
    check_table(table, here)
    manifest = json.loads(here.save("#save-manifest", tmp_path).read_text("utf-8"))
    assert [each["image_id"] for each in manifest["failures"]] == ["broken.dcm"]
    assert manifest["weights_sha256"].startswith("efdc7b658820")
    assert manifest["service"][0]["weights_sha256"] == manifest["weights_sha256"]

    here.page.locator("tr", has_text="chest.dcm").locator(".score-button").first.click()
    here.wait_for(here.page.locator(".legend:not([hidden])"))
    found = carzero.ZeroShotClassifier.from_pretrained("demo").ground(carzero.example_film(), labels=["pneumonia"])
    legend = here.page.locator(".legend").inner_text()
    assert f"Peak x {found[0].peak[0]:,.0f}, y {found[0].peak[1]:,.0f}" in legend
    assert "One cell" in legend
    assert legend.startswith("0\n")  # an end that is nothing beside the scale
    assert "miss about as often as they hit" in legend
    here.shown()
    assert violations(here.page) == []  # with a map
    picture = here.save("#save-picture", tmp_path)
    assert picture.name == "chest__pneumonia.png"
    with Image.open(picture) as saved:
        assert saved.width == service.facts["columns"]
        assert saved.height > service.facts["rows"]
        peak = np.asarray(saved.convert("RGB"))[int(found[0].peak[1]) + 40, int(found[0].peak[0]) + 40]
    assert peak[0] != peak[2], "the map is in the picture"

    here.page.get_by_role("button", name="Compare pneumonia with no pneumonia").click()
    here.wait_for(here.page.locator(".legend:not([hidden])"), 2)
    assert violations(here.page) == []  # compared
    sizes = [here.page.locator(".stage").nth(index).bounding_box() for index in (0, 1)]
    assert sizes[0] is not None
    assert sizes[1] is not None
    assert (sizes[0]["width"], sizes[0]["height"]) == (sizes[1]["width"], sizes[1]["height"])
    here.page.locator(".stage").first.hover()
    here.page.mouse.wheel(0, -400)
    here.shown()
    here.page.evaluate("document.querySelector('#opacity').value = 0")
    here.page.locator("#opacity").dispatch_event("input")
    here.shown()
    corners = [here.pixel(12, 12, index) for index in (0, 1)]
    assert corners[0] == corners[1], "both panes show the same part of the image"
    leave(here)


def check_table(path: Path, here: Visit) -> None:
    """A saved table: read by the package itself, equal to the service's scores, and nothing in it runs as a formula."""
    from carzero.evaluation.score_matrix import load_score_matrix

    matrix = load_score_matrix(path)
    assert sorted(matrix.labels) == ["banana", "pneumonia"]
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["image_id"] for row in rows) == ["'=1+1.jpg", "chest.dcm", "mirrored.png"]
    assert {row["unfamiliar"] for row in rows} == {"banana"}
    chest = next(row for row in rows if row["image_id"] == "chest.dcm")
    known = carzero.ZeroShotClassifier.from_pretrained("demo").predict([carzero.example_film()], labels=["pneumonia"])
    assert float(chest["logit:pneumonia"]) == pytest.approx(float(known["logit:pneumonia"][0]), abs=1e-4)
    assert here.state("state.sort.by") == "finding:pneumonia"
    assert [float(row["logit:pneumonia"]) for row in rows] == sorted(float(row["logit:pneumonia"]) for row in rows)


def test_begin_with_the_example(browser: Browser, service: Service) -> None:
    here = visit(browser, service)
    here.page.click("#start-example")
    here.shown()
    assert here.page.locator(".image-label").inner_text() == "example.dcm"
    assert here.state("state.images[0].facts.columns") == service.facts["columns"]
    leave(here)


def test_by_keyboard_alone(browser: Browser, service: Service) -> None:
    here = visit(browser, service)
    keyboard = here.page.keyboard
    here.page.evaluate("document.querySelector('#files').addEventListener('click', () => { document.title = 'asked' })")
    keyboard.press("o")
    assert here.page.title() == "asked"  # the system's own dialog is not shown to a test
    here.page.set_input_files("#files", [service.folder / "chest.dcm", service.folder / "mirrored.png"])
    here.shown()
    keyboard.press("f")
    keyboard.type("pneumo", delay=5)
    here.wait_for(here.page.locator("#ask-list:not([hidden])"))
    keyboard.press("ArrowDown")
    chosen = here.page.locator("#ask-list [aria-selected=true] span").first.inner_text()
    assert here.page.locator("#ask-input").get_attribute("aria-activedescendant") == "ask-option-0"
    keyboard.press("Enter")
    here.scores(2)
    assert here.state("state.findings[0].label") == chosen

    keyboard.press("Tab")
    keyboard.press("Tab")
    keyboard.press("v")
    assert here.page.evaluate("document.activeElement.className") == "stage"
    before = here.state("state.window")
    keyboard.press("ArrowLeft")
    keyboard.press("ArrowUp")
    after = here.state("state.window")
    assert after["width"] < before["width"]
    assert after["centre"] < before["centre"]
    keyboard.press("+")
    keyboard.press("Shift+ArrowRight")
    assert here.state("state.view.x") != service.facts["columns"] / 2
    here.wait_for(here.page.locator("#live", has_text="W "))
    keyboard.press("m")
    here.wait_for(here.page.locator(".legend:not([hidden])"))
    keyboard.press("n")
    here.wait_for(here.page.locator(".status-name", has_text="mirrored.png"))
    keyboard.press("c")
    here.wait_for(here.page.locator(".stage"), 2)
    keyboard.press("c")
    keyboard.press("?")
    assert here.page.locator("dialog h2").inner_text() == "Mouse, touch and keys"
    assert violations(here.page) == []  # help
    keyboard.press("Escape")
    assert here.page.evaluate("document.activeElement.className") == "stage"

    here.page.locator(".score-button").first.focus()
    keyboard.press("ArrowDown")
    keyboard.press("ArrowUp")
    keyboard.press("ArrowUp")
    assert here.page.evaluate("document.activeElement.className") == "sort"
    keyboard.press("Enter")
    assert here.state("state.sort.by") == f"finding:{chosen}"
    leave(here)


def test_in_german_and_dark(browser: Browser, service: Service) -> None:
    here = visit(browser, service, locale="de-DE", color_scheme="dark")
    assert here.page.locator("html").get_attribute("lang") == "de"
    here.page.set_input_files("#files", service.folder / "chest.dcm")
    here.ask("pneumonia, banana")
    here.scores(2)
    assert "," in here.page.locator(".finding-score").first.inner_text()
    assert here.page.locator(".notice").inner_text() == "Nur für die Forschung. Keine Diagnose."
    here.page.locator(".map-button").first.click()
    here.wait_for(here.page.locator(".legend:not([hidden])"))
    assert violations(here.page) == []
    ground = here.page.evaluate("getComputedStyle(document.querySelector('.panel')).backgroundColor")
    assert max(int(part) for part in ground.removeprefix("rgb(").removesuffix(")").split(",")) < 64

    here.page.click("#open-settings")
    here.page.check("dialog [value=en]")
    here.wait_for(here.page.locator(".notice", has_text="Not a diagnosis"))
    here.page.check("dialog [value=light]")
    assert violations(here.page) == []  # settings
    here.page.keyboard.press("Escape")
    here.shown()
    assert here.page.locator(".finding-score").first.inner_text().count(".") == 1  # images and scores are still there
    here.page.reload()
    here.page.wait_for_selector("body[data-state=ready]")
    assert here.page.locator("html").get_attribute("lang") == "en"
    assert here.page.locator("html").get_attribute("data-theme") == "light"
    leave(here)


def test_two_weights_and_a_calibration(browser: Browser, service: Service, tmp_path: Path) -> None:
    from carzero.evaluation.score_matrix import load_score_matrix

    here = visit(browser, service)
    here.page.set_input_files("#files", service.folder / "chest.dcm")
    here.ask("pneumonia, edema")
    here.scores(2)
    here.page.locator(".map-button").first.click()
    here.page.keyboard.press("c")
    here.wait_for(here.page.locator(".pane-score", has_text="probability"))
    assert [pane["finding"] for pane in here.state("state.panes")] == ["pneumonia", "pneumonia"]
    assert [pane["model"] for pane in here.state("state.panes")] == [None, CALIBRATED]
    assert "probability" not in here.page.locator(".pane-score").first.inner_text()
    here.wait_for(here.page.locator(".legend:not([hidden])"), 2)
    legends = here.page.locator(".legend").all_inner_texts()
    assert "where, not whether" in legends[0]
    assert "as strong as the finding is probable: 50%" in legends[1]
    here.shown()
    plain, faded = here.page.evaluate(MOST_RED)
    assert 0 < faded < 0.75 * plain
    here.page.select_option("#weights", CALIBRATED)
    here.wait_for(here.page.locator(".finding-score", has_text="50"))
    assert "%" in here.page.locator(".finding-score").first.inner_text()
    assert "%" not in here.page.locator(".finding-score").last.inner_text()  # edema was not calibrated
    saved = load_score_matrix(here.save("#save-table", tmp_path))
    assert saved.probabilities is not None
    assert dict(zip(saved.labels, np.isfinite(saved.probabilities[0]), strict=True)) == {
        "pneumonia": True,
        "edema": False,
    }
    leave(here)


def test_weights_of_other_families_beside_each_other(browser: Browser, service: Service, tmp_path: Path) -> None:
    here = visit(browser, service)
    here.page.set_input_files("#files", service.folder / "chest.dcm")
    here.ask("pneumonia, edema")
    here.scores(2)
    here.page.locator(".map-button").first.click()
    here.page.keyboard.press("c")
    here.page.select_option("#pane-model-1", SIGLIP)
    here.wait_for(here.page.locator(".legend:not([hidden])", has_text="approximation"))
    here.wait_for(here.page.locator(".pane-score", has_text="logit"), 2)
    assert len(set(here.page.locator(".pane-score").all_inner_texts())) == 2
    here.page.select_option("#pane-model-1", CHEXZERO)
    here.wait_for(here.page.locator(".stage-message", has_text="no maps"))
    here.wait_for(here.page.locator(".pane-score", has_text="difference of logits"))
    here.wait_for(here.page.locator(".legend:not([hidden])"))  # the first pane keeps its own
    assert violations(here.page) == []  # one with a map, one that has none

    here.page.select_option("#weights", CHEXZERO)
    here.wait_for(here.page.locator(".prompt", has_text="pneumonia \u2212 no pneumonia"))
    here.scores(2)
    assert "do not say where" in here.page.locator("#weights-note").inner_text()
    for button in (here.page.locator(".map-button").first, here.page.locator(".negate").first):
        assert button.is_disabled()
        assert "have no maps" in str(button.get_attribute("title"))
    rows = list(csv.DictReader(io.StringIO(here.save("#save-table", tmp_path).read_text("utf-8-sig"))))
    own = carzero.ZeroShotClassifier.from_pretrained(service.weights[CHEXZERO]).predict(
        [service.folder / "chest.dcm"], ["pneumonia", "edema"]
    )
    assert float(rows[0]["logit:pneumonia"]) == pytest.approx(float(own["logit:pneumonia"][0]), abs=1e-5)
    assert json.loads(here.save("#save-manifest", tmp_path).read_text("utf-8"))["score_kind"] == "logit_difference"
    assert here.page.request.get(f"{service.address}v1/models").ok
    assert not any(each.endswith("/v1/ground") for each in here.requests[-3:])
    leave(here)


def test_what_is_no_chest_radiograph_is_scored_where_one_says_so(
    browser: Browser, service: Service, tmp_path: Path
) -> None:
    hand = tmp_path / "hand.dcm"
    values = np.random.default_rng(4).integers(0, 4096, (300, 260)).astype(np.uint16)
    hand.write_bytes(dicom(values, BodyPartExamined="HAND", BitsStored=12))
    here = visit(browser, service)
    here.page.set_input_files("#files", [service.folder / "chest.dcm", hand])
    here.ask("pneumonia")
    here.wait_for(here.page.locator("td.failed", has_text="HAND"))
    here.scores(1)
    marks = here.page.locator("tr .doubted:visible")
    here.wait_for(marks, 0)
    for width in (390, 1280):
        here.page.set_viewport_size({"width": width, "height": 860})
        frame, reason = (here.page.locator(each).bounding_box() for each in ("#table-frame", ".reason"))
        assert frame is not None
        assert reason is not None
        assert frame["x"] < reason["x"]
        assert reason["x"] + reason["width"] < frame["x"] + frame["width"], "the reason can be read without scrolling"
    here.page.emulate_media(media="print")
    assert not here.page.locator("#ask, .toolbar, .map-button").locator("visible=true").count()
    grows = "['.panel', '.table-frame'].map((each) => getComputedStyle(document.querySelector(each)).overflowY)"
    assert here.page.evaluate(grows) == ["visible", "visible"], "all of it goes on paper"
    here.page.emulate_media(media="screen")
    assert here.page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "the panel scrolls, not the page"
    here.page.locator("tr", has_text="hand.dcm").locator(".image-name").click()
    here.wait_for(here.page.locator(".stage-message.failed"))
    assert violations(here.page) == []
    here.page.locator(".stage-message button", has_text="Score it anyway").click()
    here.scores(2)
    here.wait_for(here.page.locator("#image-remarks p", has_text="Scored by force"))
    here.wait_for(marks, 1)
    assert "Scored by force" in str(here.page.locator("button:has(.doubted:not([hidden]))").get_attribute("aria-label"))
    assert here.state("[...new Set([...state.manifests.values()].map(({ force }) => force))]") == [False, True]
    leave(here)


class Fingers:
    """Fingers on a screen that feels them."""

    def __init__(self, page: Page) -> None:
        self._session = page.context.new_cdp_session(page)

    def move(self, kind: str, *places: tuple[float, float], first: int = 0) -> None:
        """Fingers, numbered from `first`, touch down (Start), move, or leave (End; without any, all that are down)."""
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places, first)]
        self._session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})


def test_by_touch(browser: Browser, service: Service) -> None:
    here = visit(browser, service, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    here.page.set_input_files("#files", service.folder / "chest.dcm")
    here.ask("pneumonia")
    here.scores(1)
    here.page.evaluate("scrollTo(0, 0)")
    here.shown()
    stage = here.page.locator(".stage").bounding_box()
    assert stage is not None
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    fingers, before = Fingers(here.page), here.state("state.window")
    fingers.move("Start", (x, y))
    fingers.move("Move", (x + 30, y - 20))
    fingers.move("End")
    dragged = here.state("state.window")
    assert dragged["width"] > before["width"]
    assert dragged["centre"] < before["centre"]

    here.shown()
    fit = here.page.evaluate(PLACE)
    fingers.move("Start", (x - 40, y))
    fingers.move("Start", (x - 40, y), (x + 40, y))
    for spread in (60, 80, 100, 120):
        fingers.move("Move", (x - spread, y), (x + spread, y))
    here.shown()
    zoomed = here.page.evaluate(PLACE)
    assert zoomed["scale"] == pytest.approx(3 * fit["scale"], rel=0.05)
    middle = [(0.5 * stage["width"] * zoomed["unit"] - each["left"]) / each["scale"] for each in (fit, zoomed)]
    assert middle[0] == pytest.approx(middle[1], abs=3 / fit["scale"])  # what lay between the fingers stays there
    fingers.move("Move", (x - 120, y + 50), (x + 120, y + 50))
    here.shown()
    moved = here.page.evaluate(PLACE)
    assert moved["top"] - zoomed["top"] == pytest.approx(50 * zoomed["unit"], abs=3)
    fingers.move("End", (x + 120, y + 50), first=1)
    fingers.move("Move", (x - 60, y + 10))
    fingers.move("End")
    assert here.state("state.window") == dragged, "the finger that is left does not change the window"
    assert here.page.evaluate("visualViewport.scale") == 1, "the page itself is not magnified"

    here.page.locator("[data-mode=pan]").tap()
    before = here.state("state.view")
    fingers.move("Start", (x, y))
    fingers.move("Move", (x + 30, y))
    fingers.move("End")
    assert here.state("state.view.x") < before["x"]
    here.page.locator("#zoom-fit").tap()
    here.page.locator(".map-button").tap()
    here.wait_for(here.page.locator(".legend:not([hidden])"))
    assert here.page.evaluate(BEYOND) == []
    leave(here)


def test_more_findings_than_the_page_takes(browser: Browser, service: Service) -> None:
    here = visit(browser, service, viewport={"width": 390, "height": 844}, has_touch=True)
    names = [f"opacity in segment {number}" for number in range(1, 52)]
    here.page.evaluate(
        """(text) => {
          const clipboardData = new DataTransfer();
          clipboardData.setData("text", text);
          const event = new ClipboardEvent("paste", { clipboardData, cancelable: true });
          document.querySelector("#ask-input").dispatchEvent(event);
        }""",
        "\n".join(names) + "\n",
    )
    here.page.press("#ask-input", "Enter")
    here.wait_for(here.page.locator("#ask-remarks .error"))
    here.page.locator("#ask-remarks summary").click()
    assert "No more than 50 findings" in here.page.locator("#ask-remarks").inner_text()
    assert here.state("state.findings") == []
    assert here.page.input_value("#ask-input") == ", ".join(names), "nothing typed is lost"
    here.ask(", ".join(names[:50]))
    here.wait_for(here.page.locator(".finding"), 50)
    here.page.set_input_files("#files", service.folder / "chest.dcm")
    here.scores(50)
    assert here.page.evaluate(BEYOND) == []
    here.ask("edema")
    here.wait_for(here.page.locator("#ask-remarks .error"))
    here.page.locator(".finding").first.get_by_role("button", name="Remove").click()
    here.ask("edema")
    here.scores(50)
    assert here.state("state.findings.at(-1).label") == "edema"
    leave(here)


def test_what_cannot_be_done_is_said(browser: Browser, service: Service) -> None:
    here = visit(browser, service)
    many = [{"name": f"{number}.png", "mimeType": "image/png", "buffer": b"x"} for number in range(301)]
    packed = {"name": "study.zip", "mimeType": "application/zip", "buffer": b"PK"}
    here.page.set_input_files("#files", [*many, packed])
    here.wait_for(here.page.locator(".message.error", has_text="301"))
    assert "Unpack archives first" in here.page.locator(".message", has_text="study.zip").inner_text()
    assert here.state("state.images") == []
    assert violations(here.page) == []  # too many
    here.page.locator(".message button", has_text="Open the first 300").click()
    assert len(here.state("state.images")) == 300
    leave(here)

    there = visit(browser, service)
    there.page.set_input_files("#files", service.folder / "broken.dcm")
    there.wait_for(there.page.locator(".stage-message.failed"))
    assert "broken.dcm cannot be shown" in there.page.locator(".stage-message").inner_text()
    assert violations(there.page) == []  # failed
    leave(there)


def test_a_service_that_still_loads_its_weights(browser: Browser, service: Service) -> None:
    here = Visit(browser.new_context().new_page())
    seen: list[str] = []

    def not_yet(route: Route) -> None:
        seen.append(here.page.locator(".message").inner_text() if seen else "")
        if len(seen) < 3:
            route.fulfill(status=503, headers={"Retry-After": "60"}, json={"title": "The weights are being loaded"})
        else:
            route.continue_()

    here.page.route("**/v1/models", not_yet)
    here.open(service.address)
    assert "loading its weights" in seen[1]
    here.wait_for(here.page.locator(".message"), 0)
    leave(here)


def test_a_service_that_is_busy_wants_a_key_or_is_gone(browser: Browser, service: Service) -> None:
    here = visit(browser, service)
    given: list[str | None] = []

    def refuse_first(route: Route) -> None:
        given.append(route.request.headers.get("authorization"))
        if len(given) == 1:
            route.fulfill(status=401, json={"title": "No key", "detail": "A key is needed."})
        elif len(given) == 2:
            route.fulfill(status=503, headers={"Retry-After": "0.01"}, json={"title": "Busy"})
        else:
            route.continue_()

    here.page.route("**/v1/predict", refuse_first)
    here.page.set_input_files("#files", service.folder / "chest.dcm")
    here.ask("pneumonia")
    here.wait_for(here.page.locator("dialog"))
    assert violations(here.page) == []  # the key is asked for
    here.page.fill("#service-key", "secret")
    here.page.keyboard.press("Enter")
    here.scores(1)
    assert given == [None, "Bearer secret", "Bearer secret"]

    here.page.route("**/v1/ground", lambda route: route.abort())
    here.page.locator(".map-button").click()
    here.wait_for(here.page.locator(".stage-message.failed"))
    here.page.unroute("**/v1/ground")
    here.page.locator(".stage-message button").click()
    here.wait_for(here.page.locator(".legend:not([hidden])"))
    here.complaints[:] = [each for each in here.complaints if "net::ERR_FAILED" not in each]  # the one we made
    leave(here)


@pytest.mark.parametrize(("width", "theme"), [(390, "light"), (900, "dark"), (1440, "light")])
def test_at_no_width_is_anything_cut_off(browser: Browser, service: Service, width: int, theme: str) -> None:
    here = visit(browser, service, viewport={"width": width, "height": 900}, color_scheme=theme, has_touch=width < 500)
    here.page.set_input_files("#files", [service.folder / "chest.dcm", service.folder / "mirrored.png"])
    here.ask("pneumonia, pleural effusion")
    here.scores(4)
    panes = 2 if width > 1000 else 1
    if panes == 1:
        here.page.locator(".map-button").first.click()
    else:
        here.page.get_by_role("button", name="Compare pneumonia with no pneumonia").click()
        here.scores(6)
    here.wait_for(here.page.locator(".legend:not([hidden])"), panes)
    if width > 500:  # else the rows may be out of view, and only those in view have their pictures fetched
        here.wait_for(here.page.locator(".thumb"), 2)
    here.shown()
    assert here.page.evaluate(BEYOND) == []
    stage = here.page.locator(".stage").first.bounding_box()
    assert stage is not None
    assert stage["height"] > 400
    notice = here.page.locator(".notice").bounding_box()
    assert notice is not None
    assert 0 <= notice["y"] < 900 - notice["height"] + 1, "it is in view wherever one has scrolled to"
    keep_picture(here, f"page-{width}.webp")
    leave(here)


def keep_picture(here: Visit, name: str) -> None:
    """Writes what the docs show, where they want it."""
    if folder := os.environ.get("CARZERO_SCREENSHOTS"):
        with Image.open(io.BytesIO(here.page.screenshot())) as shot:
            shot.convert("RGB").save(Path(folder) / name, quality=80)
