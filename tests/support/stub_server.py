"""A stub of an OpenAI-compatible server: answers as told, counts what it is asked, and fails on request.

Run as a program, it prints its port, writes the SHA-256 of each report it is asked about into a file, a line each, and
answers as many requests as another file says.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["Fault", "Request", "StubServer", "claim", "completion", "faithful_answer", "running_stub"]

_MARKED = re.compile(r"BEGIN REPORT (\w+)\n(.*)\nEND REPORT \1", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Request:
    """What the server was asked."""

    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def report(self) -> str:
        found = _MARKED.search(self.body["messages"][-1]["content"])
        assert found, self.body["messages"]
        return found[2]

    @property
    def form(self) -> str:
        given = self.body.get("response_format", {})
        return str(given.get("type", "none")) + (" with schema" if "schema" in given else "")


@dataclass(frozen=True, slots=True)
class Fault:
    """What to send in place of an answer: a status with a body, raw bytes and then silence, or a cut connection."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    wait_s: float = 0.0


def claim(sentence: str, finding: str, presence: str = "present", **details: str) -> dict[str, str]:
    """One entry of an answer."""
    entry = {"sentence": sentence, "finding": finding, "presence": presence}
    return entry | {"location": "", "laterality": "none", "severity": ""} | details


def faithful_answer(report: str) -> str:
    """An answer that a good model would give: the stub reads the report by the project's own rules."""
    from carzero.reports.rules import find_findings

    claims = [
        claim(one.sentence, one.finding, one.presence, laterality=one.laterality or "none", severity=one.severity)
        for one in find_findings(report)
    ]
    return json.dumps({"findings": claims})


def completion(content: str | None, *, finish_reason: str = "stop", **message: Any) -> bytes:
    """The body of a chat completion; 100 prompt and 10 answered tokens."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return json.dumps({"choices": [choice | {"finish_reason": finish_reason}], "usage": usage}).encode()


class StubServer:
    """Answers every request by `reply`, which gets the request and how often its report has been asked before."""

    def __init__(self, reply: Callable[[Request, int], str | bytes | Fault]) -> None:
        self.reply = reply
        self.requests: list[Request] = []
        self.asked: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _build_handler(self))
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def serve(self) -> None:
        self._http.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def running_stub(reply: Callable[[Request, int], str | bytes | Fault]) -> Iterator[StubServer]:
    """A stub at work in a thread."""
    stub = StubServer(reply)
    thread = threading.Thread(target=stub.serve, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.stop()
        thread.join()


def _build_handler(stub: StubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            request = Request(body | {"path": self.path}, {k.lower(): v for k, v in self.headers.items()})
            with stub.lock:
                earlier = stub.asked[request.report]
                stub.asked[request.report] += 1
                stub.requests.append(request)
                stub.under_way += 1
                stub.most_under_way = max(stub.most_under_way, stub.under_way)
            try:
                reply = stub.reply(request, earlier)
            finally:
                with stub.lock:
                    stub.under_way -= 1
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send(reply)

        def send(self, reply: str | bytes | Fault) -> None:
            if isinstance(reply, str):
                reply = completion(reply)
            fault = reply if isinstance(reply, Fault) else Fault(body=reply)
            time.sleep(fault.wait_s)
            self.send_response(fault.status)
            self.send_header("content-length", str(len(fault.body)))
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(fault.body[: fault.cut_after])
            if fault.cut_after is not None:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler


def main(log: str, gate: str) -> None:
    """Serves until killed."""
    numbers = itertools.count(1)
    with Path(log).open("a", encoding="ascii", buffering=1) as file:

        def reply(request: Request, earlier: int) -> str:
            with stub.lock:
                number = next(numbers)
                file.write(hashlib.sha256(request.report.encode()).hexdigest() + "\n")
            while number > int(Path(gate).read_text(encoding="ascii") or "0"):  # empty while it is written
                time.sleep(0.01)
            return faithful_answer(request.report)

        stub = StubServer(reply)
        print(stub.port, flush=True)  # noqa: T201
        stub.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
