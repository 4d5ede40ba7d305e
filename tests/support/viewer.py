"""OHIF as a site runs it: its files and an archive's DICOMweb behind one address on loopback."""

from __future__ import annotations

import http.server
import mimetypes
import os
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import PATIENCE_S

REPOSITORY = Path(__file__).resolve().parents[2]
_CONFIG = """
window.config = {
  routerBasename: null, extensions: [], modes: [], customizationService: {}, showStudyList: true,
  maxNumberOfWebWorkers: 2, showWarningMessageForCrossOrigin: false, showCPUFallbackMessage: false,
  showLoadingIndicator: true, strictZSpacingForVolumeViewport: true, showErrorDetails: 'always',
  defaultDataSourceName: 'archive',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'archive',
    configuration: {
      friendlyName: 'archive', name: 'archive', qidoRoot: '/dicom-web', wadoRoot: '/dicom-web',
      wadoUriRoot: '/wado', qidoSupportsIncludeField: false, imageRendering: 'wadors',
      thumbnailRendering: 'wadors', enableStudyLazyLoad: true, supportsFuzzyMatching: false,
      supportsWildcard: true, bulkDataURI: { enabled: true }, omitQuotationForMultipartRequest: true,
    },
  }],
};
"""


def find_ohif() -> Path:
    """OHIF's prebuilt files; the test is skipped where they were not fetched."""
    folder = Path(os.environ.get("CARZERO_OHIF", REPOSITORY / "build" / "ohif" / "package" / "dist"))
    if not (folder / "index.html").is_file():
        pytest.skip("needs OHIF: `make viewer` fetches it (npm, 50 MB), or CARZERO_OHIF names its folder dist")
    return folder


@contextmanager
def ohif(archive: str) -> Iterator[str]:
    """OHIF's address; what it asks below /dicom-web is passed on to the archive."""
    folder = find_ohif()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urllib.parse.urlsplit(self.path).path
            if path.startswith("/dicom-web"):
                self._pass_on()
            elif path == "/app-config.js":
                self._send(200, "text/javascript", _CONFIG.encode())
            else:
                file = (folder / path.lstrip("/")).resolve()
                if not file.is_file() or not file.is_relative_to(folder.resolve()):
                    file = folder / "index.html"  # a route of the application
                kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
                self._send(200, "application/wasm" if file.suffix == ".wasm" else kind, file.read_bytes())

        def _pass_on(self) -> None:
            headers = {"Accept": self.headers.get("Accept", "*/*")}
            request = urllib.request.Request(archive + self.path, headers=headers)  # noqa: S310 (loopback)
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310
                    self._send(answer.status, answer.headers.get("Content-Type", ""), answer.read())
            except urllib.error.HTTPError as error:
                self._send(error.code, "text/plain", error.read())

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            del args

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
