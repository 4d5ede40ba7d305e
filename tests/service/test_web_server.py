"""The server as a process: its address, 200 callers at once, clients that cling to it, and its end under load."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from uvicorn import Config

from carzero.service.telemetry import Telemetry
from carzero.service.web_server import GracefulServer
from tests.support.commands import carzero, carzero_command, in_process, start, wait_until

LABELS = ["pneumonia", "pleural effusion"]
CALLERS = 200


class Running:
    """A service in a process of its own."""

    def __init__(self, weights: Path, log: Path) -> None:
        self.log = log
        options = ("--weights", weights, "--port", 0, "--max-waiting", 400)
        with log.open("w") as stderr:
            self.process = start(carzero_command("serve", *options), stdout=subprocess.PIPE, stderr=stderr)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]
        assert httpx.get(f"{self.url}healthz").status_code == 200  # before the weights are loaded

    def wait_until_ready(self) -> None:
        wait_until(lambda: httpx.get(f"{self.url}readyz").status_code == 200, self.process, every_s=0.1)

    def connect(self) -> socket.socket:
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname, parts.port))

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def running(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    service = Running(tiny_weights, tmp_path_factory.mktemp("service") / "log")
    yield service
    if service.process.poll() is None:
        service.process.kill()
        service.process.wait()


async def ask_all(url: str, films: list[Path], callers: int) -> list[httpx.Response]:
    """One request a caller, all at once, each with one film."""
    limits = httpx.Limits(max_connections=callers)
    async with httpx.AsyncClient(limits=limits, timeout=600) as client:
        contents = [film.read_bytes() for film in films]
        asked = (
            client.post(
                f"{url}v1/predict",
                files=[("images", (films[number % len(films)].name, contents[number % len(films)]))],
                data={"labels": LABELS},
            )
            for number in range(callers)
        )
        return await asyncio.gather(*asked)


def test_two_hundred_callers_get_the_command_s_scores_to_the_last_digit(
    running: Running, films: list[Path], tiny_weights: Path
) -> None:
    command = ("predict", *films, "-w", tiny_weights, "-l", ",".join(LABELS), "--batch-size", 1, "--json")
    done = carzero(*command, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    expected = {
        row["image_id"]: [row[f"logit:{label}"] for label in LABELS] for row in json.loads(done.stdout)["scores"]
    }
    running.wait_until_ready()
    answers = asyncio.run(ask_all(running.url, films, CALLERS))
    assert [answer.status_code for answer in answers] == [200] * CALLERS
    for answer in answers:
        image = answer.json()["images"][0]
        assert [score["logit"] for score in image["scores"]] == expected[image["name"]]
    metrics = httpx.get(f"{running.url}metrics").text
    counts = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    assert float(counts['carzero_images_total{outcome="scored"}']) == CALLERS
    assert float(counts["carzero_batch_images_count"]) < CALLERS  # requests were joined


def test_a_signal_under_load_lets_what_was_accepted_finish(running: Running, films: list[Path]) -> None:
    async def end_under_load() -> list[httpx.Response]:
        asking = asyncio.create_task(ask_all(running.url, films, 40))
        async with httpx.AsyncClient(timeout=600) as client:
            while f'outcome="scored"}} {CALLERS}.0' in (await client.get(f"{running.url}metrics")).text:
                await asyncio.sleep(0.01)
        running.process.send_signal(signal.SIGTERM)
        return await asking

    running.wait_until_ready()
    clinging = running.connect()  # has sent nothing, and must not hold up the end
    answers = asyncio.run(end_under_load())
    assert [answer.status_code for answer in answers] == [200] * 40
    assert running.process.wait(600) == 0
    clinging.close()
    assert [event["event"] for event in running.events() if event["event"] != "request"] == [
        "started",
        "ready",
        "stopping",
        "stopped",
    ]


def test_a_signal_takes_no_lock_that_it_may_have_interrupted() -> None:
    log = io.StringIO()
    server = GracefulServer(Config(lambda: None), Telemetry(log))
    server.handle_exit(signal.SIGTERM, None)
    assert (server.should_exit, server.force_exit) == (True, False)
    server.handle_exit(signal.SIGINT, None)
    assert server.force_exit
    assert log.getvalue() == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "cannot listen there"),
        (("--host", "0.0.0.0"), "Other machines could ask without a key"),  # noqa: S104
        (("--tls-cert", "none.pem"), "TLS needs both"),
        (("--dicomweb", "pacs"), "root of a DICOMweb service"),
        (("--weights", "a=demo", "--calibration", "b=none.json"), "none.json is not a calibration"),
    ],
)
def test_wrong_use_is_one_line(capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, stdout, stderr = in_process(capsys, "serve", "--port", taken.getsockname()[1], *options)
    assert (code, stdout) == (2, "")
    assert said in stderr
    assert len(stderr.splitlines()) == 1
