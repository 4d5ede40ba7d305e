"""What a request passes before its body is read, what is refused for size and pace, and what the log never holds."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from carzero.errors import ConfigurationError
from carzero.service import ApiKeys, Limits, ServiceSettings, create_app, gate
from carzero.service.served_weights import ServedWeights
from carzero.service.telemetry import Telemetry
from carzero.service.web_server import Address
from tests.support.commands import wait_until
from tests.support.image_files import dicom
from tests.support.service import run_client

KEY = "k" * 40
HEADERS = {"Authorization": f"Bearer {KEY}"}
SIZE = 100_000


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> ApiKeys:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(f"# who may ask\n\nward {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    return ApiKeys.load(path)


@pytest.fixture(scope="module")
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def client(tiny_weights: Path, keys: ApiKeys, log: io.StringIO) -> Iterator[TestClient]:
    limits = Limits(body_bytes=SIZE, waiting=2, seconds=600)
    with run_client(tiny_weights, log, keys=keys, hosts=("testserver",), limits=limits) as made:
        yield made


def kind(answer: Any) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return str(answer.json()["type"]).removeprefix("urn:carzero:problem:")


def ask(client: TestClient, film: bytes, labels: tuple[str, ...] = ("pneumonia",), name: str = "film") -> Any:
    return client.post("/v1/predict", files=[("images", (name, film))], data={"labels": labels}, headers=HEADERS)


def test_a_key_is_needed_for_all_but_page_and_probes(client: TestClient) -> None:
    for path in ("/v1/models", "/metrics"):
        assert kind(client.get(path)) == "unauthorized"
        assert kind(client.get(path, headers={"X-API-Key": KEY[:-1]})) == "unauthorized"
        assert client.get(path, headers={"X-API-Key": KEY}).status_code == 200
        assert client.get(path, headers=HEADERS).status_code == 200
    assert client.get("/v1/models").headers["www-authenticate"] == "Bearer"
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([(b"authorization", b"Bearer wrong")], 401),
        ([(b"authorization", b"Bearer \xff\xfe")], 401),
        ([(b"authorization", HEADERS["Authorization"].encode()), (b"content-length", b"%d" % (SIZE + 1))], 413),
        ([(b"authorization", HEADERS["Authorization"].encode()), (b"origin", b"http://elsewhere")], 403),
    ],
)
def test_what_is_refused_is_refused_before_its_body_is_read(
    client: TestClient, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body is read")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/predict",
        "raw_path": b"/v1/predict",
        "query_string": b"",
        "headers": [(b"host", b"testserver"), *headers],
        "http_version": "1.1",
    }
    asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == status
    assert json.loads(sent[1]["body"])["status"] == status


def test_a_body_is_bounded_by_what_comes_whatever_its_head_says(client: TestClient) -> None:
    read: list[int] = []

    def body() -> Iterator[bytes]:
        head = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
        for number in range(1000):
            read.append(number)
            yield head if number == 0 else b"a" * 10_000

    headers = {**HEADERS, "content-type": "multipart/form-data; boundary=x"}
    assert kind(client.post("/v1/predict", content=body(), headers=headers)) == "too-large"
    assert client.post("/v1/prompts/lint", content=body(), headers=headers).status_code == 413
    assert len(read) < 2 * (SIZE / 10_000 + 5) or read.count(0) == 2


def test_a_body_that_does_not_come_or_drips_is_cut(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_GRACE_S", 0.0)

    async def nothing() -> dict[str, Any]:
        await asyncio.sleep(600)
        raise AssertionError

    async def drip() -> dict[str, Any]:
        dripped.append(1)
        assert len(dripped) < 2000
        await asyncio.sleep(0.005)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    sent: list[dict[str, Any]] = []
    dripped: list[int] = []
    headers = [(b"host", b"testserver"), (b"content-type", b"application/json"), (b"content-length", b"9000")]
    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"", "headers": headers}
    with run_client(tiny_weights, limits=Limits(idle_s=0.05, slowest_bytes_s=10_000)) as client:
        for receive in (nothing, drip):
            sent.clear()
            asyncio.run(client.app({**scope, "http_version": "1.1"}, receive, send))  # type: ignore[arg-type]
            assert sent[0]["status"] == 408
    assert dripped


def test_another_name_of_the_host_is_refused(client: TestClient) -> None:
    assert kind(client.get("/healthz", headers={"host": "evil.example"})) == "other-host"
    assert client.get("/healthz", headers={"host": "testserver:8000"}).status_code == 200


def test_answers_carry_the_policy(client: TestClient) -> None:
    for answer in (client.get("/healthz"), client.get("/v1/models"), client.get("/nothing")):
        assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_a_full_queue_and_a_late_answer_are_said(
    client: TestClient, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, films: list[Path]
) -> None:
    go, own = threading.Event(), ServedWeights.score

    def wait(self: ServedWeights, *asked: Any) -> Any:
        go.wait(600)
        return own(self, *asked)

    film = films[0].read_bytes()
    monkeypatch.setattr(ServedWeights, "score", wait)
    queue = client.app.state.engine.queue  # type: ignore[attr-defined]
    with ThreadPoolExecutor(2) as threads:
        held = [threads.submit(ask, client, film) for _ in range(2)]
        wait_until(lambda: queue.count() == 2)
        busy = ask(client, film)
        metrics = client.get("/metrics", headers=HEADERS).text
        go.set()
        assert [each.result().status_code for each in held] == [200, 200]
    assert (busy.status_code, kind(busy)) == (503, "busy")
    assert int(busy.headers["retry-after"]) >= 1
    assert "carzero_waiting_images 2.0" in metrics
    go.clear()
    with run_client(tiny_weights, limits=Limits(seconds=0.3)) as hasty:
        late = ask(hasty, film)
        go.set()
    assert (late.status_code, kind(late)) == (504, "too-late")


def test_no_patient_and_no_words_stand_in_the_log(client: TestClient, log: io.StringIO) -> None:
    values = np.random.default_rng(2).integers(0, 256, (220, 210)).astype(np.uint8)
    secret = {"PatientName": "Doe^Jane", "PatientID": "PID-77", "SOPInstanceUID": "1.2.3.987654", "Modality": "CR"}
    film = dicom(values, **secret)
    assert ask(client, film, ("rare finding",), "doe.dcm").status_code == 200
    assert ask(client, film[:-99], ("rare finding",), "doe.dcm").json()["images"][0]["error"]
    told = log.getvalue()
    assert all(json.loads(line)["event"] for line in told.splitlines())
    for private in (*secret.values(), "Jane", "doe", "rare", KEY):
        if private != "CR":
            assert private not in told
    lines = [json.loads(line) for line in told.splitlines()]
    assert any(line.get("route") == "/v1/predict" and line["key"] == "ward" for line in lines)


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "holds no keys"), ("ward nothash\n", "is not a key"), (f"a {'0' * 64}\na {'1' * 64}\n", "twice")],
)
def test_a_broken_file_of_keys_is_refused_without_quoting_it(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=said) as refused:
        ApiKeys.load(path)
    assert "nothash" not in str(refused.value)


def test_other_machines_need_keys_unless_that_is_wanted(keys: ApiKeys) -> None:
    with pytest.raises(ConfigurationError, match="without a key"):
        Address("0.0.0.0").check(ServiceSettings())  # noqa: S104
    Address("0.0.0.0", open_to_all=True).check(ServiceSettings())  # noqa: S104
    Address("0.0.0.0").check(ServiceSettings(keys=keys))  # noqa: S104
    Address("127.0.0.1").check(ServiceSettings())
    with pytest.raises(ConfigurationError, match="TLS needs both"):
        Address(certificate=Path("a.pem")).check(ServiceSettings())


@pytest.mark.parametrize(
    ("host", "names", "shown"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", ("127.0.0.1", "localhost", "::1", "pacs"), "127.0.0.1"),
        ("0.0.0.0", None, "127.0.0.1"),  # noqa: S104
        ("::", None, "[::1]"),
        ("::1", None, "[::1]"),
        ("10.1.2.3", None, "10.1.2.3"),
        ("0.0.0.0", ("cxr.example.org",), "cxr.example.org"),  # noqa: S104
    ],
)
def test_the_address_that_is_shown_can_be_asked(host: str, names: tuple[str, ...] | None, shown: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        assert Address(host).url(bound, names) == f"http://{shown}:{port}/"
    assert Address(host).is_everywhere == (host in ("0.0.0.0", "::"))  # noqa: S104


def test_the_app_works_below_a_prefix_of_another(tiny_weights: Path, films: list[Path]) -> None:
    from carzero.service import name_weights

    settings = ServiceSettings(weights=name_weights([str(tiny_weights)]), device="cpu", readers=1)
    inner = create_app(settings, telemetry=Telemetry(io.StringIO()))
    outer = FastAPI()
    outer.mount("/cxr", inner)
    with TestClient(outer) as client:
        assert client.get("/cxr/readyz").status_code == 503  # it starts with the first request
        wait_until(lambda: client.get("/cxr/readyz").status_code == 200)
        assert ask_below(client, films[0]) == 200
    inner.state.engine.close()


def ask_below(client: TestClient, film: Path) -> int:
    files = [("images", (film.name, film.read_bytes()))]
    return client.post("/cxr/v1/predict", files=files, data={"labels": ["pneumonia"]}).status_code
