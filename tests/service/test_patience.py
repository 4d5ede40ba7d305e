"""Clients that send no head or read no answer are cut, in the server's own protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from uvicorn import Config, Server

from carzero.service import Limits
from carzero.service.web_server import PatientProtocol
from tests.support.commands import PATIENCE_S


async def talk(limits: Limits, use: Callable[[int, Server], Awaitable[None]]) -> None:
    """Runs a server with one large answer while `use` talks to its port."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = b"x" * (1 if scope["path"] == "/small" else 2**26)
        head = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    def protocol(**given: Any) -> PatientProtocol:
        return PatientProtocol(limits=limits, **given)

    config = Config(app, port=0, http=protocol, lifespan="off", log_config=None)  # type: ignore[arg-type]
    server = Server(config)
    server.config.load()
    running = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        await asyncio.wait_for(use(server.servers[0].sockets[0].getsockname()[1], server), PATIENCE_S)
    finally:
        server.should_exit = server.force_exit = True
        await running


HASTY = Limits(idle_s=0.2)


@pytest.mark.parametrize(
    "begun", [b"", b"GET / HT", b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n", b"POST /small HTTP/1.1\r\nA: "]
)
def test_a_client_that_sends_no_head_is_cut(begun: bytes) -> None:
    async def cling(port: int, server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        answer = await reader.read()  # ends when the connection is cut
        assert answer.startswith(b"HTTP/1.1 200") == (b"Host" in begun)
        writer.close()

    asyncio.run(talk(HASTY, cling))


def test_a_client_that_does_not_read_is_cut() -> None:
    async def cling(port: int, server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while not server.server_state.connections:
            await asyncio.sleep(0.01)
        while server.server_state.connections:
            await asyncio.sleep(0.01)
        received = 0
        with contextlib.suppress(ConnectionError):
            while block := await reader.read(2**16):
                received += len(block)
        assert received < 2**26
        writer.close()

    asyncio.run(talk(HASTY, cling))


def test_a_client_that_reads_gets_all() -> None:
    async def read(port: int, server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert len(await reader.read()) > 2**26
        writer.close()

    asyncio.run(talk(Limits(idle_s=5), read))
