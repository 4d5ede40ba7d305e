"""A real browser at a real service: what a user sees, every request recorded, every complaint kept."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.support.commands import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

PATIENCE_MS = 1000.0 * PATIENCE_S
# What Chromium prints of what a test has asked for: a refusal, or a look at single pixels.
_ASKED_FOR = re.compile(r"Failed to load resource: the server responded with a status of [45]\d\d|.*willReadFrequently")


def find_chromium() -> str:
    """Chromium's program; the test is skipped where its package is absent."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs the Debian package chromium")
    return program


@contextmanager
def open_browser(*options: str) -> Iterator[Browser]:
    """Headless Chromium as Debian packages it, with more of its options; nothing is downloaded."""
    program = find_chromium()
    api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", *options])
        yield browser
        browser.close()


@contextmanager
def serve(app: object) -> Iterator[str]:
    """An application on a free port of loopback, in a thread; its address, with a slash at the end."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))  # type: ignore[arg-type]
    thread = Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


@dataclass
class Visit:
    """One user at the page.

    Attributes:
        page: the tab.
        requests: addresses asked for, in order.
        complaints: what the console says in anger: errors of scripts, violations of the content security policy.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning") and not _ASKED_FOR.match(message.text):
            self.complaints.append(message.text)

    def open(self, address: str) -> None:
        """Goes to the page and waits until it knows its weights."""
        self.page.goto(address)
        self.page.wait_for_selector("body[data-state=ready]")

    @property
    def strangers(self) -> list[str]:
        """Addresses beyond loopback that were asked for; what the page makes itself is none."""
        return [
            each
            for each in self.requests
            if urlsplit(each).scheme not in ("blob", "data") and urlsplit(each).hostname != "127.0.0.1"
        ]

    def drop(self, paths: Sequence[Path]) -> None:
        """Drags files or folders from the desktop onto the page, as the browser gets them from the system."""
        session = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
        session.detach()

    def ask(self, words: str) -> None:
        """Types findings and adds them."""
        self.page.fill("#ask-input", words)
        self.page.press("#ask-input", "Enter")

    def scores(self, count: int) -> None:
        """Waits for so many scores in the table."""
        self.wait_for(self.page.locator(".score-button:not(:disabled)"), count)

    def wait_for(self, found: Locator, count: int = 1) -> None:
        """Waits until an element occurs so often."""
        from playwright.sync_api import expect

        expect(found).to_have_count(count, timeout=PATIENCE_MS)

    def shown(self) -> None:
        """Waits until the image that is looked at has been drawn."""
        self.wait_for(self.page.locator(".status-name"))
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def state(self, expression: str) -> Any:
        """A value of what the page knows, such as `state.window`."""
        return self.page.evaluate(
            f"import('./page/scripts/store.js').then(({{ state }}) => JSON.parse(JSON.stringify({expression})))"
        )

    def pixel(self, x: float, y: float, index: int = 0) -> list[int]:
        """Red, green, blue and opacity that a pane's canvas has at a point of its own pixels."""
        found = self.page.evaluate(
            "([x, y, index]) => [...document.querySelectorAll('.stage canvas')[index].getContext('2d')"
            ".getImageData(x, y, 1, 1).data]",
            [x, y, index],
        )
        return [int(value) for value in found]

    def save(self, selector: str, folder: Path) -> Path:
        """Presses a button that saves a file, and keeps the file."""
        with self.page.expect_download() as waiting:
            self.page.click(selector)
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path


def violations(page: Page) -> list[str]:
    """What axe finds wrong for those who do not see or do not use a mouse."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    found = axe.Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found]
