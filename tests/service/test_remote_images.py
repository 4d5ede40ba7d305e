"""Images by reference: only instances below a known root, of bounded size, whatever the address or the PACS says."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from carzero.errors import ConfigurationError
from carzero.service.problems import ProblemError
from carzero.service.remote_images import RemoteImages, take_part

INSTANCE = "/studies/1.2/series/1.2.3/instances/1.2.3.4"
FILE = b"DICM\r\n\r\n--b\r\n of any bytes \x00\xff"


@dataclass
class Pacs:
    """A web server that answers one instance, and remembers who asked for what."""

    root: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture(scope="module")
def pacs() -> Iterator[Pacs]:
    found = Pacs()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append((self.path, self.headers.get("Authorization")))
            status, kind, body = 200, 'multipart/related; type="application/dicom"; boundary="bound"', b""
            if self.path.endswith(INSTANCE):
                body = b"--bound\r\nContent-Type: application/dicom\r\n\r\n" + FILE + b"\r\n--bound--\r\n"
            elif self.path.endswith("/instances/1"):
                kind, body = "application/dicom", b"x" * 2000
            else:
                status = 302
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *about: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found.root = f"http://127.0.0.1:{server.server_port}/dicom-web"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_instance_comes_whole_and_the_root_s_password_goes_with_it(pacs: Pacs) -> None:
    root = pacs.root.replace("//", "//user:pass@")
    remote = RemoteImages([root], largest=1000, seconds=600)
    assert remote.fetch(pacs.root + INSTANCE) == FILE
    assert pacs.asked[-1] == ("/dicom-web" + INSTANCE, "Basic dXNlcjpwYXNz")


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/dicom-web" + INSTANCE,
        "{root}x" + INSTANCE,
        "{root}/../admin" + INSTANCE,
        "{root}/studies/1.2/series/1.2.3/instances/1.2.3.4/../../..",
        "{root}" + INSTANCE + "?a=b",
        "{root}" + INSTANCE + "#a",
        "{root}/studies/1.2",
        "{root}/studies/a/series/b/instances/c",
        "file:///etc/passwd",
        "http://a@{host}/dicom-web" + INSTANCE,
        "http://[::1",
        "http://127.0.0.1:99999/dicom-web" + INSTANCE,
        "",
    ],
)
def test_no_other_address_is_asked(pacs: Pacs, address: str) -> None:
    remote = RemoteImages([pacs.root], largest=1000, seconds=600)
    before = len(pacs.asked)
    with pytest.raises(ProblemError) as refused:
        remote.fetch(address.format(root=pacs.root, host=pacs.root.split("/")[2]))
    assert refused.value.kind == "forbidden-address"
    assert len(pacs.asked) == before
    with pytest.raises(ProblemError):
        RemoteImages([], largest=1000, seconds=600).fetch(pacs.root + INSTANCE)


def test_redirects_are_not_followed_and_sizes_are_bounded(pacs: Pacs) -> None:
    remote = RemoteImages([pacs.root], largest=1000, seconds=600)
    with pytest.raises(ProblemError, match="status 302"):
        remote.fetch(f"{pacs.root}/studies/1/series/1/instances/2")
    with pytest.raises(ProblemError, match="more than 1000 bytes"):
        remote.fetch(f"{pacs.root}/studies/1/series/1/instances/1")


@pytest.mark.parametrize("body", [b"", b"--bound\r\n", b"--bound\r\nA: b\r\n\r\ncut"])
def test_a_part_that_is_cut_is_none(body: bytes) -> None:
    with pytest.raises(ProblemError, match="no whole part"):
        take_part(body, "multipart/related; boundary=bound")


@pytest.mark.parametrize("root", ["pacs/dicom-web", "ftp://pacs/", "https://pacs/a?b=c"])
def test_a_root_that_is_none_is_refused(root: str) -> None:
    with pytest.raises(ConfigurationError, match="root of a DICOMweb service"):
        RemoteImages([root], largest=1, seconds=1)
