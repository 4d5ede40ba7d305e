"""Seconds from a drop on the page to the first visible image, and to its scores, in a real browser.

    python benchmarks/page_first_image.py --times 10

`carzero serve` runs as a user starts it, with the demo weights; a headless Chromium (Debian's) opens its page. Each
time a fresh tab asks for two findings and then has the bundled radiograph (CR, JPEG 2000, 1955 x 1841) dropped on it.
The page marks when the drop comes, when the image has been drawn and when the scores are in the table. The first drop,
at which the service's readers and caches are cold, is told apart from the others.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import urllib.request

from playwright.sync_api import Browser, sync_playwright

from carzero.weights.source import example_film

CHROMIUM = "/usr/bin/chromium"
AIMS = {"image": 1.0, "scores": 2.0}  # seconds, on two quiet cores
PATIENCE_S = 300


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="drops")
    parser.add_argument("--labels", default="pneumonia, pleural effusion", help="findings, as one types them")
    asked = parser.parse_args()
    command = [sys.executable, "-m", "carzero", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as service:
        try:
            address = wait_for_address(service)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
                times = [measure(browser, address, asked.labels) for _ in range(asked.times)]
                browser.close()
        finally:
            service.terminate()
    print_table(times)


def wait_for_address(service: subprocess.Popen[str]) -> str:
    """Where the service says that it is, once its weights are loaded."""
    if service.stdout is None:
        raise SystemExit("The service says nothing.")
    address = next(line.split()[-1] for line in service.stdout if "http" in line)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address.rstrip('/')}/readyz"):  # noqa: S310 (loopback)
                return address
        except OSError:
            time.sleep(0.2)
    raise SystemExit("The service is not ready.")


def measure(browser: Browser, address: str, labels: str) -> dict[str, float]:
    """Seconds from one drop to the image and to the scores."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(address)
    page.wait_for_selector("body[data-state=ready]")
    page.fill("#ask-input", labels)
    page.press("#ask-input", "Enter")
    page.wait_for_selector(".finding")
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(example_film())], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 400, "data": data})
    page.wait_for_selector(".score-button:not(:disabled)", timeout=1000 * PATIENCE_S)
    page.wait_for_selector(".status-name")
    page.wait_for_timeout(200)
    marks = page.evaluate(
        "Object.fromEntries(performance.getEntriesByType('mark').map(({ name, startTime }) => [name, startTime]))"
    )
    page.close()
    return {name: (marks[f"carzero:{name}"] - marks["carzero:drop"]) / 1000 for name in AIMS}


def print_table(times: list[dict[str, float]]) -> None:
    """Prints the first drop, and median and longest of the others."""
    print("| seconds from the drop to | aim | first drop | median of the others | longest |")
    print("|---|---|---|---|---|")
    for name, aim in AIMS.items():
        first, *others = [each[name] for each in times]
        others = others or [first]
        print(f"| {name} | {aim:g} | {first:.2f} | {statistics.median(others):.2f} | {max(others):.2f} |")


if __name__ == "__main__":
    main()
