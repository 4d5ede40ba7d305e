"""What comes from a PACS and lies in a node's spool: whole headers, answers of services, C-STORE, a queue."""

from __future__ import annotations

import io
import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.mutate import Files
from tests.fuzz.seeds import single, written
from tests.support.studies import chest

URL = "http://pacs.invalid"


def to_bytes(image: Any) -> bytes:
    """A data set as a file."""
    out = io.BytesIO()
    image.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _images() -> dict[str, bytes]:
    """Small ones; the name says the modality."""
    small = {"Rows": 60, "Columns": 60, "PixelData": np.arange(3600, dtype=np.uint16).tobytes()}
    odd = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎", "PatientSex": "X"}
    return {
        "cr.dcm": to_bytes(chest(1, "CR", **small)),
        "dx.dcm": to_bytes(chest(2, "DX", **small)),
        "odd.dcm": to_bytes(chest(3, "CR", **small, **odd)),
    }


def results() -> list[Files]:
    return single(_images())


def _tags(image: Any, *names: str) -> dict[str, Any]:
    return {tag: image[tag].to_json_dict(None, 0) for tag in names}


def web() -> list[Files]:
    """Answers of a DICOMweb service, and of Orthanc."""
    image = chest(1, "CR")
    answers = {
        "studies.json": [_tags(image, "0020000D")],
        "series.json": [_tags(image, "0020000D", "0020000E", "00080060")],
        "instances.json": [_tags(image, "00080016", "00080018")],
        "changes.json": {"Changes": [{"ChangeType": "NewInstance", "ID": "a-b", "Seq": 1}], "Last": 1, "Done": False},
        "tags.json": {"SOPClassUID": str(image.SOPClassUID), "SOPInstanceUID": "1.2.3"},
    }
    files = {name: json.dumps(answer).encode() for name, answer in answers.items()}
    return [{**files, "image.dcm": _images()["cr.dcm"]}]


def spools() -> list[Files]:
    """A queue with an image in each state; rules."""

    def write(folder: Path) -> None:
        from carzero.clinical.node.spool import STATES, Spool

        spool = Spool(folder)
        for number, state in enumerate(STATES):
            spool.take_over(f"1.2.{number}", b"image", "A")
            spool.move(f"1.2.{number}", state, "why")
        spool.set_mark("changes", "7")
        spool.close()

    rules = b"rules:\n- when: {Origin: 'ICU*', BodyPartExamined: [CHEST, THORAX]}\n  then: score\n- then: ignore\n"
    queue = {name: content for name, content in written(write).items() if name == "queue.sqlite"}
    return [queue, queue, {"rules.yaml": rules}]


def sessions() -> list[Files]:
    """What a modality sends over a connection that stores an image: all its bytes, one after another."""
    from pynetdicom import AE

    from carzero.clinical.node.receiver import CR, DX

    files = {}
    with _receiving() as port:
        for number, modality in enumerate(("CR", "DX")):
            sent = bytearray()
            with _recording(port, sent) as own_port:
                ae = AE(ae_title="MODALITY")
                ae.add_requested_context(CR)
                ae.add_requested_context(DX)
                association = ae.associate("127.0.0.1", own_port, ae_title="CARZERO")
                small = {"Rows": 60, "Columns": 60, "PixelData": bytes(7200)}
                association.send_c_store(chest(number + 1, modality, **small))
                association.release()
            files[f"{modality}.pdu"] = bytes(sent)
    return single(files)


@contextmanager
def _recording(port: int, sent: bytearray) -> Iterator[int]:
    """Passes one connection on, and keeps what its caller says."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def carry(source: socket.socket, target: socket.socket, kept: bytearray | None) -> None:
            while data := source.recv(1 << 16):
                if kept is not None:
                    kept += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

        def serve() -> None:
            caller, _ = server.accept()
            with caller, socket.create_connection(("127.0.0.1", port)) as called:
                back = threading.Thread(target=carry, args=(called, caller, None))
                back.start()
                carry(caller, called, sent)
                back.join()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@contextmanager
def _receiving() -> Iterator[int]:
    spool, receiver = _receiver()
    yield receiver.port
    _empty(spool)


@cache
def _receiver() -> tuple[Any, Any]:
    """A node's ear, for as long as this process lives."""
    from carzero.clinical.node.events import Events, silence_libraries
    from carzero.clinical.node.receiver import Receiver, ReceiverSettings
    from carzero.clinical.node.spool import Spool

    silence_libraries()
    spool = Spool(Path(tempfile.mkdtemp(prefix="fuzz-")) / "spool")
    receiver = Receiver(ReceiverSettings(host="127.0.0.1", port=0, least_free=0), spool, Events(io.StringIO()))
    receiver.start()
    return spool, receiver


def _empty(spool: Any) -> None:
    from carzero.clinical.node.spool import STATES

    spool.purge(STATES, 0)


def _check_spool(folder: Path, before: list[Path]) -> None:
    """Images are where they belong, under names of theirs, and nothing lies beside the folder."""
    from carzero.clinical.node.spool import is_uid

    assert all(is_uid(path.stem) and path.suffix == ".dcm" for path in (folder / "images").iterdir())
    assert sorted(folder.parent.iterdir()) == before, "something was written elsewhere"


def read_session(folder: Path) -> None:
    """Says the bytes to a running node's port, and waits for its last word."""
    from carzero.clinical.node.run import _told

    spool, receiver = _receiver()
    beside = sorted(spool.folder.parent.iterdir())
    (path,) = folder.iterdir()
    with _told(receiver.events), socket.create_connection(("127.0.0.1", receiver.port), timeout=600) as caller:
        try:
            caller.sendall(path.read_bytes())
            caller.shutdown(socket.SHUT_WR)
            while caller.recv(1 << 16):
                pass
        except ConnectionError:
            pass
    _check_spool(spool.folder, beside)
    _empty(spool)


class _Answers:
    """A PACS in the place of a network: a `requests` adapter that answers from files."""

    def __init__(self, folder: Path) -> None:
        from requests.adapters import BaseAdapter

        class Adapter(BaseAdapter):
            def send(self, request: Any, **_: object) -> Any:
                return self_.answer(request)

            def close(self) -> None:
                pass

        self_ = self
        self.folder, self.adapter, self.asked = folder, Adapter(), 0

    def answer(self, request: Any) -> Any:
        from requests import Response

        self.asked += 1
        assert self.asked < 2000, "a service is asked without an end"
        path = request.path_url.partition("?")[0]
        known = {"changes": "changes", "simplified-tags": "tags", "studies": "studies", "series": "series"}
        name = known.get(path.rsplit("/", 1)[-1], "image" if "/instances/" in path else "instances")
        kept = next((each for each in self.folder.iterdir() if each.stem == name), None)
        answer = Response()
        answer.status_code, answer.url, answer.request = (404 if kept is None else 200), request.url, request
        body = b"" if kept is None else kept.read_bytes()
        answer.headers["Content-Type"] = "application/dicom+json"
        if name == "image" and "/studies/" in path:
            answer.headers["Content-Type"] = 'multipart/related; type="application/dicom"; boundary=xx'
            body = b"--xx\r\nContent-Type: application/dicom\r\n\r\n" + body + b"\r\n--xx--"
        answer.raw = io.BytesIO(body)
        return answer


def read_web(folder: Path) -> None:
    """One look at a DICOMweb service and at Orthanc, as the node's loop takes it."""
    from dicomweb_client import DICOMwebClient

    from carzero.clinical.node.events import Events, silence_libraries
    from carzero.clinical.node.spool import Spool
    from carzero.clinical.node.web import OrthancChanges, WebQuery, build_session
    from carzero.clinical.node.work import Collector

    silence_libraries()
    with tempfile.TemporaryDirectory() as name:
        spool = Spool(Path(name) / "spool")
        for kind in (WebQuery, OrthancChanges):
            answers, session = _Answers(folder), build_session()
            session.mount("http://", answers.adapter)
            source = kind(URL, spool, 1 << 20)
            if isinstance(source, WebQuery):
                source._client = DICOMwebClient(URL, session=session)
            else:
                source._session = session
            log = io.StringIO()
            Collector(source, spool, Events(log), threading.Event(), every_s=1).turn()
            assert answers.asked < 2000, "a service is asked without an end"
            assert len(log.getvalue()) < 10_000, "a log that repeats what a service says"
        _check_spool(spool.folder, [spool.folder])
        spool.close()


def read_spool(folder: Path) -> None:
    """All that `carzero dicom status|retry|purge` and a starting node do with a queue; or rules."""
    from carzero.clinical.node.image_rules import load_rules
    from carzero.clinical.node.spool import STATES, open_spool

    if not (folder / "queue.sqlite").exists():
        rules = load_rules(next(folder.iterdir()))
        rules.decide(chest(1), "ICU")
        return
    beside = folder.parent / "beside"
    beside.write_text("stays")
    spool = open_spool(folder)
    try:
        spool.counts()
        spool.rows(STATES)
        spool.mark("changes")
        spool.recover()
        spool.retry()
        spool.begin(4)
        spool.purge(STATES, 0)
    finally:
        spool.close()
    assert beside.exists(), "a queue deletes what is not the node's"


@cache
def _settings(weights: Path) -> Any:
    from carzero.clinical.content import ResultSettings
    from carzero.inference.scoring import ScoringSettings
    from carzero.prompts import PromptSet
    from carzero.weights.source import WeightsSource

    source, prompts = WeightsSource(weights), PromptSet.from_labels(["edema", "mass"])
    scoring = ScoringSettings(weights=source, prompts=prompts, device="cpu", force=True)
    return ResultSettings.of(source, scoring.provenance(None), prompts)


def read_result(folder: Path, classifier: Any, weights: Path) -> None:
    """Every kind of result object of an image, as files that can be read again."""
    import pydicom

    from carzero.cli.dicom import quiet_headers
    from carzero.clinical import KINDS
    from carzero.clinical.image_header import load_source
    from carzero.clinical.result_objects import build_results, list_results
    from carzero.core.remarks import collected_remarks
    from carzero.records import FailedImage, ImageItem

    quiet_headers()
    settings = _settings(weights)
    (path,) = folder.iterdir()
    with collected_remarks():
        source = load_source(path)
        list_results(source, settings, KINDS)
        items = [ImageItem("a", str(path), str(path))]
        for image in classifier.stream(items, _bank(classifier), need_maps=True, force=True):
            if isinstance(image, FailedImage):
                raise image.error
            for kind in KINDS:
                for made in build_results(image, settings, kinds=(kind,)):
                    read = pydicom.dcmread(io.BytesIO(to_bytes(made)))
                    assert read.StudyInstanceUID == source.study_uid


@cache
def _bank(classifier: Any) -> Any:
    from carzero.prompts import PromptSet

    return classifier.encode_prompts(PromptSet.from_labels(["edema", "mass"]))
