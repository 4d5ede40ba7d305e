"""What a radiologist sees: results of the bundled image in OHIF, in a real browser over a real Orthanc.

With CARZERO_SCREENSHOTS=FOLDER the test also writes the pictures that docs/clinical.md shows.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
from PIL import Image

from tests.support.browser import open_browser
from tests.support.commands import PATIENCE_S, in_process
from tests.support.pacs import Orthanc, free_ports, running
from tests.support.viewer import ohif

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

PATIENCE_MS = PATIENCE_S * 1000
SERIES = "[data-cy='study-browser-thumbnail']"
WITHOUT_PIXELS = "[data-cy='study-browser-thumbnail-no-image']"


@pytest.fixture
def page() -> Iterator[Page]:
    with open_browser("--use-angle=swiftshader", "--enable-unsafe-swiftshader") as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        yield page


def look(page: Page, name: str) -> np.ndarray:
    """Grey levels of the viewport, from 0 to 255; kept as a picture where the docs want one."""
    shot = page.screenshot()
    if folder := os.environ.get("CARZERO_SCREENSHOTS"):
        Image.open(io.BytesIO(shot)).convert("RGB").save(Path(folder) / f"ohif-{name}.webp", quality=80)
    return np.asarray(Image.open(io.BytesIO(shot)).convert("L"))[60:880, 300:1380]


def wait_for_picture(page: Page, name: str, least: float) -> np.ndarray:
    """The viewport, as soon as its grey levels spread by the standard deviation given."""
    for _ in range(600):
        pixels = look(page, name)
        if pixels.std() >= least:
            return pixels
        page.wait_for_timeout(1000)
    raise AssertionError(f"{name}: the viewport stays even (standard deviation {pixels.std():.1f})")


def open_series(series: Locator, shown: Locator) -> None:
    """A double click, again where a busy viewer took no notice of it; later each time, as a click begins anew."""
    for attempt in range(1, 11):
        series.dispatch_event("dblclick")
        for _ in range(15 * attempt):
            if shown.is_visible():
                return
            shown.page.wait_for_timeout(1000)
    raise AssertionError(f"{series}: a double click opens nothing")


def test_ohif_shows_the_image_the_page_of_scores_and_the_boxes(
    page: Page, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pydicom.dcmread(str(resources.files("carzero") / "assets" / "example" / "chest.dcm"))
    del image.PixelSpacing  # 0\0, for which OHIF draws the image black
    image.save_as(tmp_path / "chest.dcm")
    asked = ["--labels", "pneumonia,pleural effusion", "--out", tmp_path / "results"]
    assert in_process(capsys, "dicom", "results", tmp_path / "chest.dcm", *asked)[0] == 0
    http, dicom, unused = free_ports(3)
    pacs = Orthanc(tmp_path / "orthanc", http, dicom, unused)
    errors: list[str] = []
    requests: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    with running(pacs), ohif(pacs.url) as address:
        for file in (tmp_path / "chest.dcm", *sorted((tmp_path / "results").rglob("*.dcm"))):
            assert pacs.post("instances", file.read_bytes())["Status"] == "Success"
        page.goto(f"{address}/viewer?StudyInstanceUIDs={image.StudyInstanceUID}")
        page.get_by_text("Skip all").dispatch_event("click")
        page.get_by_text("Confirm and hide").dispatch_event("click")
        film = wait_for_picture(page, "image", 40)
        assert film.max() - film.min() > 150

        scores = page.get_by_text("CARZero scores and maps (research use)").nth(1)  # in the viewport's corner
        open_series(page.locator(SERIES).nth(1), scores)
        shown = wait_for_picture(page, "page", 40)
        assert np.abs(shown.astype(int) - film).mean() > 20, "the page of scores is not shown"

        open_series(page.locator(WITHOUT_PIXELS).first, page.locator("svg text").first)
        page.get_by_text("No", exact=True).click()  # "Do you want to continue tracking measurements?"
        page.get_by_text("continue tracking").wait_for(state="hidden")
        texts = " ".join(page.locator("svg text").all_text_contents())
        assert "Zero-shot logit, pneumonia: 4.69" in texts
        assert "Zero-shot logit, pleural effusion: -1.37" in texts
        with_boxes = wait_for_picture(page, "boxes", 40)
        assert np.abs(with_boxes.astype(int) - film).mean() < 5, "the image under the boxes is not shown"
    assert errors == []
    assert [url for url in requests if not url.startswith((address, "blob:", "data:"))] == []
