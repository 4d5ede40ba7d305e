"""A real Orthanc on loopback and a node beside it, each a process of its own that a test starts and stops."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import PATIENCE_S, carzero_command, start, wait_until

_DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
# Images alone are routed: results that come back are not sent out again.
_ROUTE = """
function OnStoredInstance(id, tags, metadata, origin)
  if tags['Modality'] == 'CR' or tags['Modality'] == 'DX' then SendToModality(id, 'carzero') end
end
"""


def find_orthanc() -> str:
    """Orthanc's program; the test is skipped where its packages are absent."""
    program = shutil.which("Orthanc")
    if program is None:
        pytest.skip("needs the Debian package orthanc")
    if not _DICOMWEB.is_file():
        pytest.skip("needs the Debian package orthanc-dicomweb")
    return program


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def read_url(url: str, data: bytes | None = None) -> bytes:
    """What a server on loopback answers; with data it is posted."""
    request = urllib.request.Request(url, data=data)  # noqa: S310 (http://127.0.0.1)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310
        return bytes(answer.read())


@dataclass
class Orthanc:
    """A PACS with an empty store."""

    folder: Path
    http: int
    dicom: int
    node: int
    route: bool = False
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        route = self.folder / "route.lua"
        route.write_text(_ROUTE)
        config = {
            **{"StorageDirectory": str(self.folder / "db"), "IndexDirectory": str(self.folder / "db")},
            **{"HttpPort": self.http, "RemoteAccessAllowed": False, "AuthenticationEnabled": False},
            **{"DicomAet": "ORTHANC", "DicomPort": self.dicom, "DicomCheckCalledAet": False, "StableAge": 1},
            "Plugins": [str(_DICOMWEB)],
            "DicomModalities": {"carzero": ["CARZERO", "127.0.0.1", self.node]},
            "LuaScripts": [str(route)] if self.route else [],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Host": f"127.0.0.1:{self.http}"},
        }
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(config))
        with (self.folder / "orthanc.log").open("ab") as log:
            self.process = start([find_orthanc(), file], stdout=log, stderr=log)
        wait_until(self._is_up, self.process)
        assert self._is_up(), (self.folder / "orthanc.log").read_text(errors="replace")[-2000:]

    def _is_up(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.get("system"))
        return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENCE_S)
            self.process = None

    def get(self, path: str) -> Any:
        return json.loads(self.bytes(path))

    def bytes(self, path: str) -> bytes:
        return read_url(f"{self.url}/{path}")

    def post(self, path: str, data: bytes) -> Any:
        return json.loads(read_url(f"{self.url}/{path}", data))

    def instances(self, modality: str | None = None) -> list[dict[str, str]]:
        """UIDs and modality of all instances, by QIDO-RS."""
        found = self.get("dicom-web/instances?limit=1000&includefield=00080060")
        names = {"uid": "00080018", "study": "0020000D", "class": "00080016", "modality": "00080060"}
        rows = [{key: each.get(tag, {}).get("Value", [""])[0] for key, tag in names.items()} for each in found]
        return [row for row in rows if modality is None or row["modality"] == modality]


@dataclass
class NodeProcess:
    """The node as a user starts it."""

    spool: Path
    options: Sequence[object]
    log: Path = field(init=False)
    process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        self.log = self.spool.with_name(f"{self.spool.name}.log")

    def start(self, until: str = "listening") -> None:
        seen = self.count(until)
        with self.log.open("ab") as log:
            command = carzero_command("dicom", "node", "--spool", self.spool, *self.options)
            self.process = start(command, stdout=log, stderr=log)
        wait_until(lambda: self.count(until) > seen, self.process)
        assert self.process.poll() is None, self.log.read_text()[-3000:]

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def stop(self) -> int:
        if self.process is None or self.process.poll() is not None:
            return -1
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def events(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def count(self, event: str) -> int:
        return sum(each["event"] == event for each in self.events())


@contextmanager
def running(*processes: Orthanc | NodeProcess) -> Iterator[None]:
    """Starts processes in their order, and stops them in the other, whatever happens."""
    with contextlib.ExitStack() as stack:
        for each in processes:
            stack.callback(each.stop)
            each.start()
        yield
