"""Parts of the node by themselves: what a peer may not do, what a queue must not lose, what a PACS may answer."""

from __future__ import annotations

import contextlib
import errno
import http.server
import io
import json
import re
import shutil
import socket
import struct
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pydicom
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification

from carzero.clinical.node import receiver, sender, sources, web, work
from carzero.clinical.node.connections import answer_at_once
from carzero.clinical.node.events import Events, LeftOut
from carzero.clinical.node.image_rules import Rule, Rules, load_rules
from carzero.clinical.node.receiver import CR, DX, Receiver, ReceiverSettings
from carzero.clinical.node.sender import Peer, SendError
from carzero.clinical.node.sources import WatchedFolder, choose_sources
from carzero.clinical.node.spool import MOST_STARTS, STATES, Spool, filling
from carzero.clinical.node.tls import TLSFiles
from carzero.clinical.node.web import OrthancChanges
from carzero.clinical.node.work import Collector, Courier, Scorer, Source, keep_working
from carzero.clinical.run import ResultMaker
from carzero.errors import ConfigurationError, RunError
from carzero.inference.scoring import ScoringSettings
from carzero.prompts import PromptSet
from carzero.weights.source import WeightsSource
from tests.support.commands import in_process, run_program, wait_until
from tests.support.studies import chest, save

SETTINGS = ReceiverSettings(host="127.0.0.1", port=0, least_free=0, silence_s=600)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool")
    yield opened
    opened.close()


@contextmanager
def receiving(spool: Spool, settings: ReceiverSettings = SETTINGS) -> Iterator[tuple[Receiver, io.StringIO]]:
    log = io.StringIO()
    receiver = Receiver(settings, spool, Events(log))
    receiver.start()
    try:
        yield receiver, log
    finally:
        receiver.stop()


def send(
    port: int, image: FileDataset, *, title: str = "CARZERO", caller: str = "MODALITY", **options: Any
) -> int | None:
    """The status of a C-STORE; None where the connection was refused or broken off."""
    ae = AE(ae_title=caller)
    ae.network_timeout = ae.dimse_timeout = ae.acse_timeout = 600
    for each in (CR, DX, Verification):
        ae.add_requested_context(each)
    association = ae.associate("127.0.0.1", port, ae_title=title, **options)
    if not association.is_established:
        return None
    try:
        return association.send_c_store(image).get("Status")
    except RuntimeError:
        return None
    finally:
        association.release() if association.is_established else association.abort()


def encode(image: FileDataset) -> bytes:
    """The bytes of its file."""
    target = io.BytesIO()
    image.save_as(target, enforce_file_format=True)
    return target.getvalue()


def test_success_is_answered_for_what_is_on_the_disk(spool: Spool) -> None:
    with receiving(spool) as (receiver, log):
        image = chest(1)
        assert send(receiver.port, image) == 0
        assert send(receiver.port, image) == 0
        assert send(receiver.port, chest(2, "DX")) == 0
    assert [row.uid for row in spool.rows(["waiting"])] == [chest(n).SOPInstanceUID for n in (1, 2)]
    assert [json.loads(line)["event"] for line in log.getvalue().splitlines()] == ["received", "repeated", "received"]
    assert pydicom.dcmread(spool.path(chest(1).SOPInstanceUID)).PixelData == image.PixelData


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "broken"), MemoryError()])
def test_what_cannot_be_kept_is_answered_with_out_of_resources(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: int) -> None:
        raise error

    with receiving(spool) as (receiver, log):
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", fail)
            assert send(receiver.port, chest(1)) == 0xA700
        assert spool.rows(["waiting"]) == []
        assert [*spool.images.iterdir()] == []
        assert send(receiver.port, chest(1)) == 0
    assert json.loads(log.getvalue().splitlines()[0])["event"] == "refused"


def test_a_full_disk_is_answered_so_and_used_again_once_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = run_program(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk])
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a file system: {mounted.stderr.strip()}")
    try:
        with closing(Spool(disk / "spool")) as spool, receiving(spool) as (receiver, log):
            answers = [send(receiver.port, chest(number)) for number in range(1, 13)]  # 105 kB each
            taken = [number for number, answer in enumerate(answers, start=1) if answer == 0]
            assert 2 <= len(taken) < 12
            assert set(answers) == {0, 0xA700}
            assert [row.uid for row in spool.rows(["waiting"])] == [chest(number).SOPInstanceUID for number in taken]
            assert len([*spool.images.iterdir()]) == len(taken)
            for number in taken:
                assert pydicom.dcmread(spool.path(chest(number).SOPInstanceUID)).PixelData == chest(number).PixelData
            spool.path(chest(1).SOPInstanceUID).unlink()
            assert send(receiver.port, chest(12)) == 0
        assert '"why": "disk full"' in log.getvalue()
    finally:
        run_program(["umount", disk])


def test_a_disk_that_is_nearly_full_is_spared(spool: Spool) -> None:
    full = replace(SETTINGS, least_free=2**62)
    with receiving(spool, full) as (receiver, log):
        assert send(receiver.port, chest(1)) == 0xA700
    assert spool.rows(["waiting"]) == []
    assert "disk full" in log.getvalue()


def test_peers_are_bounded(spool: Spool) -> None:
    strict = replace(SETTINGS, callers=("MODALITY",), largest_image=2**16)
    with receiving(spool, strict) as (receiver, log):
        assert send(receiver.port, chest(1), caller="STRANGER") is None
        assert send(receiver.port, chest(1), title="OTHER") is None
        assert send(receiver.port, chest(1)) != 0  # 105 kB
        small = chest(2)
        small.Rows, small.PixelData = 60, small.PixelData[: 60 * small.Columns * 2]
        assert send(receiver.port, small) == 0
        report = chest(3)
        report.SOPClassUID = ComprehensiveSRStorage
        with pytest.raises(ValueError, match="No presentation context"):
            send(receiver.port, report)
    assert [row.uid for row in spool.rows(["waiting"])] == [small.SOPInstanceUID]
    assert log.getvalue().count("rejected") == 2


def test_what_goes_on_and_on_is_told_once_an_hour(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("carzero.clinical.node.events.time", SimpleNamespace(monotonic=lambda: now[0]))
    with receiving(spool) as (receiver, log):
        slices = AE(ae_title="CT")
        slices.add_requested_context(CTImageStorage)
        for seconds in (0, 1, 2, 3601):
            now[0] = seconds
            assert send(receiver.port, chest(1), title="OTHER") is None
            slices.associate("127.0.0.1", receiver.port, ae_title="CARZERO").abort()
        for number in range(1001):
            receiver.events.tell_rarely("rejected", address=str(number))
        assert len(receiver.events._held) == 1000
    told = [json.loads(line) for line in log.getvalue().splitlines() if "caller" in line]
    assert [(each["caller"], each["why"], each.get("times")) for each in told] == [
        ("MODALITY", "called ae title not recognised", None),
        ("CT", "offers no CR or DX image, but CT Image Storage", None),
        ("MODALITY", "called ae title not recognised", 3),
        ("CT", "offers no CR or DX image, but CT Image Storage", 3),
    ]


def test_connections_are_counted(spool: Spool) -> None:
    with receiving(spool, replace(SETTINGS, most_associations=1)) as (receiver, _):
        ae = AE(ae_title="MODALITY")
        ae.add_requested_context(Verification)
        first = ae.associate("127.0.0.1", receiver.port, ae_title="CARZERO")
        assert first.is_established
        assert send(receiver.port, chest(1)) is None
        first.release()
        wait_until(lambda: send(receiver.port, chest(1)) == 0)
    assert spool.counts()["waiting"] == 1


def test_an_endless_peer_is_cut_off(spool: Spool) -> None:
    """More than an image in one message, and a PDU that says it is four gigabytes long."""
    tight = replace(SETTINGS, largest_image=2**10)
    with receiving(spool, tight) as (receiver, _):
        endless = chest(1)
        endless.Rows, endless.PixelData = 6000, bytes(6000 * endless.Columns * 2)
        assert send(receiver.port, endless) is None
        with socket.create_connection(("127.0.0.1", receiver.port)) as peer:
            peer.sendall(struct.pack(">BBL", 1, 0, 2**32 - 1) + bytes(100))
            peer.settimeout(600)
            assert peer.recv(10) in (b"", peer_abort())
    assert spool.rows(["waiting"]) == []


def peer_abort() -> bytes:
    return b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x00"


def write_certificate(folder: Path) -> TLSFiles:
    """A certificate for 127.0.0.1 that is its own authority."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the Debian package openssl")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=pacs", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = run_program(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, *subject]
    )
    assert made.returncode == 0, made.stderr
    return TLSFiles(certificate, key, certificate)


def test_who_looks_whether_the_port_is_open_takes_nobody_s_place(spool: Spool, tmp_path: Path) -> None:
    image = save(chest(1), tmp_path / "image.dcm")
    with receiving(spool, replace(SETTINGS, silence_s=600)) as (receiver, _):
        asked = b"\x01\x00\x00\x00\x00\x04\x00\x01\x00\x00"  # an association request of four bytes
        for said in (b"", b"\x01\x00", b"GET / HTTP/1.1\r\n\r\n", peer_abort(), asked) * SETTINGS.most_associations:
            with socket.create_connection(("127.0.0.1", receiver.port)) as look:
                look.sendall(said)
        peer = Peer("CARZERO", "127.0.0.1", receiver.port)

        def is_let_in() -> bool:
            with contextlib.suppress(SendError):  # threads of the last few may still be ending
                peer.send([image])
                return True
            return False

        wait_until(is_let_in)
        peer.close()
    assert [row.uid for row in spool.rows(["waiting"])] == [chest(1).SOPInstanceUID]


def test_tls_lets_in_who_has_a_certificate_and_sends_to_who_has_one(spool: Spool, tmp_path: Path) -> None:
    files = write_certificate(tmp_path)
    image = save(chest(1), tmp_path / "image.dcm")
    with contextlib.ExitStack() as stack, receiving(spool, replace(SETTINGS, tls=files)) as (receiver, log):
        silent = stack.enter_context(socket.create_connection(("127.0.0.1", receiver.port)))  # holds up nobody
        silent.sendall(b"\x16\x03")  # of a handshake
        plain = Peer("CARZERO", "127.0.0.1", receiver.port)
        for peer, why in (
            (plain, "perhaps it wants --forward-tls"),
            (replace(plain, tls=replace(files, certificate=None)), "the other side says: certificate required"),
            (replace(plain, tls=TLSFiles()), "certificate not accepted: self.signed certificate"),
        ):
            for _ in range(2):
                with pytest.raises(SendError, match=f"cannot be reached.*: .*{why}"):
                    peer.send([image])
        with socket.create_connection(("127.0.0.1", receiver.port)) as browser:
            browser.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert browser.recv(10) == b""
        with socket.create_connection(("127.0.0.1", receiver.port)):
            pass  # who looks whether somebody listens is not told of
        assert spool.rows(["waiting"]) == []
        replace(plain, tls=files).send([image])
        with pytest.raises(SendError, match="by TLS: certificate not accepted: Hostname mismatch"):
            replace(plain, host="localhost", tls=files).send([image])
        reasons = {
            "speaks DICOM without TLS, not TLS",
            "speaks HTTP, not TLS",
            "TLS: peer did not return a certificate",
            "TLS: the other side says: unknown ca",
            "TLS: the other side says: bad certificate",
        }
        wait_until(lambda: log.getvalue().count("\n") == 6)  # one was received
        told = [json.loads(line) for line in log.getvalue().splitlines()]
        assert {each["why"] for each in told if each.get("address") == "127.0.0.1"} == reasons
    assert [row.uid for row in spool.rows(["waiting"])] == [chest(1).SOPInstanceUID]
    for wrong in (replace(files, key=tmp_path / "absent.pem"), replace(files, authorities=image)):
        with pytest.raises(ConfigurationError, match="files for TLS"):
            wrong.build_server()
        with pytest.raises(ConfigurationError, match="files for TLS"):
            wrong.build_client()
    with pytest.raises(ConfigurationError, match="TLS needs a certificate"):
        TLSFiles().build_server()


def test_what_ended_the_node_is_taken_alone_and_dies_at_last(spool: Spool) -> None:
    for number in range(1, 5):
        spool.take_over(f"1.{number}", b"x", "A")
    assert [row.uid for row in spool.begin(2)] == ["1.1", "1.2"]
    spool.recover()  # the node was killed
    assert [row.uid for row in spool.begin(16)] == ["1.3", "1.4"]
    for uid in ("1.2", "1.3", "1.4"):
        spool.move(uid, "done")
    for _ in range(MOST_STARTS - 1):
        spool.recover()
        assert [row.uid for row in spool.begin(16)] == ["1.1"]
    assert spool.recover() == ["1.1"]
    assert spool.counts() == {"waiting": 0, "scoring": 0, "sending": 0, "done": 3, "dead": 1}
    assert spool.retry(["1.1", "1.2"]) == ["1.1"]
    assert [row.starts for row in spool.begin(1)] == [1]


def test_two_nodes_do_not_share_a_spool(spool: Spool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = spool.lock()
    with pytest.raises(RunError, match="Another node"):
        spool.lock()
    lock.close()
    spool.lock().close()
    code, _, stderr = in_process(capsys, "dicom", "status", tmp_path)
    assert (code, "not the spool of a node" in stderr) == (2, True)


def test_files_and_rows_are_kept_for_their_time(spool: Spool) -> None:
    for uid in ("1.1", "1.2"):
        spool.take_over(uid, b"x", "A")
    spool.move("1.1", "done")
    assert spool.drop_files(3600) == 0
    assert spool.drop_files(0) == 1
    assert [path.name for path in spool.images.iterdir()] == ["1.2.dcm"]
    assert spool.take_over("1.1", b"again", "A") is False
    assert spool.purge(["done"], 3600) == 0
    assert spool.purge(["done"], 0) == 1
    assert spool.take_over("1.1", b"again", "A") is True


@contextmanager
def answering(status: Callable[[Event], int]) -> Iterator[int]:
    """A PACS that answers as told."""
    ae = AE(ae_title="PACS")
    for each in (ComprehensiveSRStorage, Comprehensive3DSRStorage):
        ae.add_supported_context(each)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, status)])
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        ae.shutdown()


def wait_for_results(spool: Spool, uid: str) -> None:
    """Gives an image a result that waits to be sent."""
    report = chest(1)
    report.SOPClassUID = ComprehensiveSRStorage
    report.SOPInstanceUID = f"{uid}.9"
    report.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    spool.take_over(uid, b"x", "A")
    with filling(spool.results / uid) as folder:
        save(report, folder / "sr-001.dcm")
    spool.move(uid, "sending")


def test_a_refusing_pacs_is_asked_again_and_given_up_with_its_answer(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spool, "put_off", put_off_at_once)
    answers = iter([0xA700, 0xA700, 0x0000, *[0xC123] * 9])
    for uid in ("1.1", "1.2"):
        wait_for_results(spool, uid)
    stop = threading.Event()
    with answering(lambda _: next(answers)) as port:
        courier = Courier(spool, Peer("PACS", "127.0.0.1", port), Events(io.StringIO()), stop, 3600)
        thread = threading.Thread(target=keep_working, args=(courier, courier.events, stop))
        thread.start()
        wait_until(lambda: spool.counts()["done"] == 1 and spool.counts()["dead"] == 1)
        stop.set()
        thread.join()
    dead = spool.rows(["dead"])[0]
    assert dead.reason == "PACS answered 0xC123."
    assert (spool.results / dead.uid).is_dir()
    assert len([*spool.results.iterdir()]) == 1
    assert spool.retry() == [dead.uid]
    assert spool.counts()["sending"] == 1


def put_off_at_once(self: Spool, row: Any, state: str, reason: str) -> float:
    self._change("update images set state = ?, reason = ?, tries = tries + 1 where uid = ?", (state, reason, row.uid))
    return 0.0


def test_a_pacs_that_is_away_is_no_refusal(spool: Spool) -> None:
    wait_for_results(spool, "1.1")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        peer = Peer("PACS", "127.0.0.1", nobody.getsockname()[1])
        with pytest.raises(SendError, match="cannot be reached") as failed:
            peer.send([*(spool.results / "1.1").glob("*.dcm")])
    assert failed.value.refused is False
    for text in ("PACS", "PACS@host", "PACS@:104", "PACS@host:0", "A" * 17 + "@host:104"):
        with pytest.raises(ConfigurationError):
            Peer.parse(text, "CARZERO")
    assert Peer.parse("PACS@10.0.0.1:104", "ME") == Peer("PACS", "10.0.0.1", 104, "ME")


def test_an_answer_is_heard_where_the_thread_of_the_association_takes_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pynetdicom's own sender and that thread read from one queue; who is held up on a busy machine comes too late."""
    get = DIMSEServiceProvider.get_msg

    def get_first(self: DIMSEServiceProvider, block: bool = False) -> Any:
        return get(self, block) if threading.current_thread() is self.assoc else (None, None)

    monkeypatch.setattr(DIMSEServiceProvider, "get_msg", get_first)
    wait_for_results(spool, "1.1")
    answers = iter([0x0000, 0xB000, 0xC123])
    with answering(lambda _: next(answers)) as port, pytest.raises(SendError, match=r"answered 0xC123\."):
        Peer("PACS", "127.0.0.1", port, patience_s=600).send([*(spool.results / "1.1").glob("*.dcm")] * 3)


def test_no_message_waits_for_an_acknowledgement(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends send at once, and acknowledge at once what comes in, where the system can be told so."""
    sides = []

    def keep(association: Association) -> None:
        answer_at_once(association)
        assert association.dul.socket is not None
        sides.append(association.dul.socket.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(sender, "answer_at_once", keep)
    monkeypatch.setattr(receiver, "answer_at_once", keep)
    with receiving(spool) as (running, _):
        send(running.port, chest(1))
        peer = Peer(SETTINGS.ae, "127.0.0.1", running.port)
        save(chest(2), spool.folder / "2.dcm")
        peer.send([spool.folder / "2.dcm"])
        peer.close()
    assert len(sides) == 3
    assert all(sides)
    raw, received = Mock(), Mock(return_value=bytearray(b"abc"))
    association = SimpleNamespace(dul=SimpleNamespace(socket=SimpleNamespace(socket=raw, recv=received)))
    answer_at_once(association)  # type: ignore[arg-type]
    before = raw.setsockopt.call_count
    assert association.dul.socket.recv(3) == b"abc"
    assert raw.setsockopt.call_count == before + hasattr(socket, "TCP_QUICKACK")


def test_who_does_not_let_the_node_in_is_quoted(spool: Spool, tmp_path: Path) -> None:
    wait_for_results(spool, "1.1")
    files = [*(spool.results / "1.1").glob("*.dcm")]
    ae = AE(ae_title="PACS")
    ae.require_called_aet = True
    ae.add_supported_context(ComprehensiveSRStorage)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    port = server.server_address[1]
    image = save(chest(1), tmp_path / "image.dcm")
    for title, sent, why in (
        ("OTHER", files, f"OTHER@127.0.0.1:{port} does not let the node in: called AE title not recognised."),
        ("PACS", [image], "takes none of the objects that it was offered."),
    ):
        with pytest.raises(SendError, match=re.escape(why)) as failed:
            Peer(title, "127.0.0.1", port, patience_s=600).send(sent)
        assert failed.value.refused is False  # somebody may set it right
    ae.shutdown()
    with pytest.raises(SendError, match="cannot be reached: Connection refused"):
        Peer("PACS", "127.0.0.1", port, patience_s=600).send(files)


def test_a_pacs_that_breaks_off_is_no_refusal(spool: Spool) -> None:
    wait_for_results(spool, "1.1")
    ended = threading.Event()

    def end(event: Event) -> int:
        if not ended.is_set():
            ended.set()
            event.assoc.abort()
        return 0

    with answering(end) as port:
        peer = Peer("PACS", "127.0.0.1", port, patience_s=600)
        with pytest.raises(SendError, match="broke off") as failed:
            peer.send([*(spool.results / "1.1").glob("*.dcm")])
        assert failed.value.refused is False
        peer.send([*(spool.results / "1.1").glob("*.dcm")])  # on a new association
        peer.close()


def test_a_watched_folder_gives_each_complete_image_once(spool: Spool, tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    (folder / "below").mkdir(parents=True)
    source = WatchedFolder(folder, largest=2**20)
    save(chest(1), folder / "one")
    assert [*source.fetch()] == []  # it may still be growing
    save(chest(2), folder / "below" / "two.dcm")
    assert [uid for uid, _ in images_of(source)] == [chest(1).SOPInstanceUID]
    assert [uid for uid, _ in images_of(source)] == [chest(2).SOPInstanceUID]
    assert [*source.fetch()] == []
    with pytest.raises(ConfigurationError, match="cannot be watched"):
        choose_sources(spool, 2**20, watch=spool.images)
    with pytest.raises(ConfigurationError, match="not the address"):
        choose_sources(spool, 2**20, dicomweb="ftp://pacs")


def images_of(source: Source) -> list[tuple[str, bytes]]:
    """What a source gives at a look, without what it leaves out."""
    return [found for found in source.fetch() if not isinstance(found, LeftOut)]


def test_foreign_files_of_a_watched_folder_are_told_once_without_their_names(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    slices = chest(3)
    slices.SOPClassUID = CTImageStorage
    slices.file_meta.MediaStorageSOPClassUID = CTImageStorage
    files = {name: folder / f"Quixote {name}" for name in ("text", "pdf", "ct", "locked", "empty", "large")}
    files["text"].write_text("not an image")
    files["pdf"].write_bytes(b"%PDF-1.7\n")
    save(slices, files["ct"])
    save(chest(4), files["locked"])
    files["empty"].touch()
    files["large"].write_bytes(bytes(2**20 + 1))
    read = Path.read_bytes
    locked = [files["locked"]]

    def read_unless_locked(path: Path) -> bytes:
        if path in locked:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_unless_locked)
    log = io.StringIO()
    collector = Collector(WatchedFolder(folder, 2**20), spool, Events(log), threading.Event(), every_s=5)
    rests = [collector.turn() for _ in range(4)]
    assert rests == [5] * 4, "a file that cannot be read slows nothing down"
    told = {each["inode"]: each for each in map(json.loads, log.getvalue().splitlines())}
    assert len(log.getvalue().splitlines()) == len(told) == 6
    assert {name: told[path.stat().st_ino]["why"] for name, path in files.items()} == {
        **dict.fromkeys(("text", "pdf"), "no DICOM file"),
        "ct": "no CR or DX image, but CT Image Storage",
        "locked": "cannot be read: Permission denied",
        "empty": "empty",
        "large": "larger than an image may be",
    }
    assert "Quixote" not in log.getvalue()
    locked.clear()
    collector.turn()
    assert [row.uid for row in spool.rows(["waiting"])] == [chest(4).SOPInstanceUID]
    shutil.rmtree(folder)
    collector.turn()
    assert json.loads(log.getvalue().splitlines()[-1])["kind"] == "FileNotFoundError", "a share that went away"


def test_one_file_never_ends_a_watched_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = WatchedFolder(tmp_path, largest=2**20)
    for name in ("a", "b"):
        save(chest(ord(name)), tmp_path / name)
    parse, broken = sources.dcmread, (tmp_path / "a").read_bytes()

    def parse_or_fail(file: io.BytesIO, **options: Any) -> Any:
        if file.getvalue() == broken:
            raise AttributeError("what no list of errors foresaw")
        return parse(file, **options)

    monkeypatch.setattr(sources, "dcmread", parse_or_fail)
    assert [*source.fetch()] == []
    assert [uid for uid, _ in images_of(source)] == [chest(ord("b")).SOPInstanceUID]


class SmallService(http.server.BaseHTTPRequestHandler):
    """Answers paths with bytes, a status, or JSON; anything else is not found."""

    answers: dict[str, object]

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        found = self.answers.get(path, 404)
        if callable(found):
            found = found(dict(urllib.parse.parse_qsl(query)))
        status, body = (found, b"") if isinstance(found, int) else (200, found)
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def serving(answers: dict[str, object]) -> Iterator[str]:
    """The address of a small service; its answers may be changed meanwhile."""
    handler = type("Handler", (SmallService,), {"answers": answers})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def small_orthanc(*images: str, last: int = 2) -> dict[str, object]:
    """An Orthanc with images a, b, ... whose instances are 1.1, 1.2, ..."""
    changes = [{"ChangeType": "NewInstance", "ID": each} for each in images]
    answers: dict[str, object] = {"/changes": {"Changes": changes, "Last": last, "Done": True}}
    for each in images:
        answers[f"/instances/{each}/simplified-tags"] = {"SOPClassUID": CR, "SOPInstanceUID": f"1.{ord(each) - 96}"}
        answers[f"/instances/{each}/file"] = b"image"
    return answers


def collect(source: Source, spool: Spool, turns: int = 1) -> list[tuple[str, str]]:
    """What is told of some looks at a source: event, and image, status or reason."""
    log = io.StringIO()
    collector = Collector(source, spool, Events(log), threading.Event(), every_s=1)
    for _ in range(turns):
        collector.turn()
    told = [json.loads(line) for line in log.getvalue().splitlines()]
    return [
        (each["event"], each.get("why") or each.get("image") or each.get("status") or each["kind"]) for each in told
    ]


def test_an_image_that_is_not_given_does_not_hold_up_those_behind_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too large, it is left out; not given by Orthanc, it is owed, also to the next process."""
    monkeypatch.setattr(web, "_BLOCK", 1000)
    answers = small_orthanc("a", "b", "c")
    answers |= {"/instances/a/file": b"x" * 100_000, "/instances/b/file": 500}
    with serving(answers) as url:
        told = collect(OrthancChanges(url, spool, largest=5000), spool, turns=2)
        assert told == [
            ("left out", "larger than an image may be"),
            ("left out", "the service answered 500"),
            ("received", "1.3"),
        ]
        answers |= {"/changes": {"Changes": [], "Last": 2, "Done": True}, "/instances/b/file": b"image"}
        assert collect(OrthancChanges(url, spool, largest=5000), spool, turns=2) == [("received", "1.2")]


def test_an_orthanc_that_is_another_one_is_read_from_its_beginning(spool: Spool) -> None:
    answers = small_orthanc("a")
    with serving(answers) as url:
        spool.set_mark(f"changes {url}", "9999")
        told = collect(OrthancChanges(url, spool, largest=5000), spool, turns=2)
        assert [each[0] for each in told] == ["left out", "received"]
        assert "ends at 2, was read to 9999" in told[0][1]
        wrong = OrthancChanges(f"{url}/app", spool, largest=5000)
        assert collect(wrong, spool) == [("source failed", "NoListOfChangesError")]
        answers["/changes"] = 301
        assert collect(OrthancChanges(url, spool, largest=5000), spool) == [("source failed", 301)]


def test_pages_are_asked_for_until_they_say_nothing_new(spool: Spool) -> None:
    """A service that gives two answers a page, whatever it is asked for; one study of it cannot be read."""

    def answer(tag: str, *uids: str) -> Callable[[dict[str, str]], object]:
        found = [{tag: {"vr": "UI", "Value": [uid]}, "00080016": {"vr": "UI", "Value": [CR]}} for uid in uids]
        return lambda query: found[int(query["offset"]) :][:2]

    studies = ("2.1", "2.2", "2.3", "2.4", "2.5")
    answers: dict[str, object] = {"/studies": answer("0020000D", *studies)}
    for study in studies:
        answers[f"/studies/{study}/series"] = answer("0020000E", f"{study}.1")
        answers[f"/studies/{study}/series/{study}.1/instances"] = answer(
            "00080018", *(f"{study}.{n}" for n in (7, 8, 9))
        )
    answers["/studies/2.2/series"] = 500
    with serving(answers) as url:
        source = web.WebQuery(url, spool, largest=5000)
        found = [*source.fetch()]
    assert LeftOut("the service answered 500") in found
    left_out = {each.image for each in found if isinstance(each, LeftOut)} - {None}
    assert left_out == {f"{study}.{n}" for study in studies if study != "2.2" for n in (7, 8, 9)}


def test_a_source_that_fails_is_asked_again(spool: Spool) -> None:
    class Shaky:
        name = "web"
        asked = 0

        def fetch(self) -> Iterator[tuple[str, bytes]]:
            self.asked += 1
            if self.asked < 3:
                raise OSError("away")
            yield f"1.{self.asked}", b"x"

    log, stop = io.StringIO(), threading.Event()
    collector = Collector(Shaky(), spool, Events(log), stop, every_s=0.01)
    thread = threading.Thread(target=keep_working, args=(collector, collector.events, stop))
    thread.start()
    wait_until(lambda: spool.counts()["waiting"] >= 2)
    stop.set()
    thread.join()
    assert log.getvalue().count("source failed") == 2
    assert "away" not in log.getvalue()


def test_a_queue_that_fails_for_a_while_ends_no_loop_and_loses_nothing(
    spool: Spool, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk refuses the queue's rows at any moment: each write fails at its turn, and is done later."""
    for number in (1, 2):
        spool.take_over(f"1.{number}", encode(chest(number, SOPInstanceUID=f"1.{number}")), "A")
    change, failures = Spool._change, iter([False, True, True, False, True, True, False, True, False, True, True])

    def fail_at_times(self: Spool, query: str, values: Any = ()) -> int:
        if next(failures, False):
            raise RunError("full")
        return change(self, query, values)

    monkeypatch.setattr(Spool, "_change", fail_at_times)
    scoring = ScoringSettings(WeightsSource(tiny_weights), PromptSet.from_labels(["mass"]), device="cpu", force=True)
    stop, log = threading.Event(), io.StringIO()
    events = Events(log)
    with ResultMaker(scoring, kinds=("sr",)) as maker, answering(lambda _: 0x0000) as port:
        scorer = Scorer(spool, maker, Rules(), events, stop)
        courier = Courier(spool, Peer("PACS", "127.0.0.1", port), events, stop, 3600)
        threads = [threading.Thread(target=keep_working, args=(hand, events, stop)) for hand in (scorer, courier)]
        for thread in threads:
            thread.start()
        wait_until(lambda: spool.counts()["done"] == 2)
        stop.set()
        for thread in threads:
            thread.join()
    assert next(failures, None) is None, "not all failures were met"
    assert '"fault"' in log.getvalue()
    assert [*spool.results.iterdir()] == []


def test_one_turn_scores_all_that_waits_but_a_suspect_alone(
    spool: Spool, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are taken batch by batch while earlier ones are scored; what may have ended the node is not among them."""
    spool.take_over("1.9", encode(chest(9, SOPInstanceUID="1.9")), "A")
    spool.begin(1)
    spool.release()  # a node ended over it
    for number in (1, 2, 3, 4, 5, 6):
        spool.take_over(f"1.{number}", encode(chest(number, SOPInstanceUID=f"1.{number}")), "A")
    spool.path("1.2").write_bytes(b"not an image")

    def fill_but_one(folder: Path) -> AbstractContextManager[Path]:
        if folder.name == "1.3":
            raise OSError(errno.ENOSPC, "full")
        return filling(folder)

    monkeypatch.setattr(work, "filling", fill_but_one)
    weights, prompts = WeightsSource(tiny_weights), PromptSet.from_labels(["mass"])
    scoring = ScoringSettings(weights, prompts, device="cpu", force=True, batch_size=1)
    with ResultMaker(scoring, kinds=("sr",)) as maker:
        scorer = Scorer(spool, maker, Rules(), Events(io.StringIO()), threading.Event())
        scorer.turn()
        states = {row.uid: row.state for row in spool.rows([*STATES])}
        assert {states.pop(uid) for uid in ("1.1", "1.4", "1.5", "1.6")} == {"sending"}
        assert states == {"1.2": "dead", "1.3": "waiting", "1.9": "waiting"}
        monkeypatch.undo()
        spool.move("1.3", "done")
        scorer.turn()
    assert {row.uid for row in spool.rows(["sending"])} == {"1.1", "1.4", "1.5", "1.6", "1.9"}


def test_an_image_that_cannot_be_kept_holds_up_no_other(spool: Spool, tiny_weights: Path) -> None:
    """Whatever ends the building of results is told, and its image and those behind it are tried again."""
    for number in (1, 2, 3):
        spool.take_over(f"1.{number}", encode(chest(number, SOPInstanceUID=f"1.{number}")), "A")
    scoring = ScoringSettings(WeightsSource(tiny_weights), PromptSet.from_labels(["mass"]), device="cpu", force=True)
    log = io.StringIO()
    with ResultMaker(scoring, kinds=("sr",)) as maker:
        scorer = Scorer(spool, maker, Rules(), Events(log), threading.Event())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pydicom.Dataset, "save_as", Mock(side_effect=[None, ValueError("odd"), None]))
            scorer.turn()
        assert "odd" not in log.getvalue()
        assert '"fault"' in log.getvalue()
        assert "1.1" in {row.uid for row in spool.rows(["sending"])}
        assert [row.state for row in spool.rows([*STATES]) if row.uid == "1.2"] == ["waiting"]
        wait_until(lambda: scorer.turn() >= 0 and spool.counts()["sending"] == 3)


def test_rules_decide_what_the_node_scores(spool: Spool, tiny_weights: Path) -> None:
    rules = Rules(
        rules=[
            Rule(when={"Modality": "DX", "Origin": "ICU*"}, then="score"),
            Rule(when={"Modality": "DX"}, then="ignore"),
        ]
    )
    for number, (modality, origin) in enumerate([("DX", "ICU3"), ("DX", "WARD"), ("CR", "WARD")], start=1):
        spool.take_over(f"1.{number}", encode(chest(number, modality, SOPInstanceUID=f"1.{number}")), origin)
    scoring = ScoringSettings(WeightsSource(tiny_weights), PromptSet.from_labels(["mass"]), device="cpu", force=True)
    stop, log = threading.Event(), io.StringIO()
    with ResultMaker(scoring, kinds=("sr",)) as maker:
        scorer = Scorer(spool, maker, rules, Events(log), stop)
        thread = threading.Thread(target=keep_working, args=(scorer, scorer.events, stop))
        thread.start()
        wait_until(lambda: not spool.rows(["waiting", "scoring"]))
        stop.set()
        thread.join()
    assert {row.uid: row.state for row in spool.rows(["sending", "done", "dead"])} == {
        **{"1.1": "sending", "1.3": "sending"},
        "1.2": "done",
    }
    assert sorted(each.name for each in spool.results.iterdir()) == ["1.1", "1.3"]
    assert [json.loads(line)["image"] for line in log.getvalue().splitlines() if '"ignored"' in line] == ["1.2"]


def test_the_first_rule_that_fits_decides(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(
        "rules:\n- when: {Origin: 'ICU*', BodyPartExamined: [CHEST, THORAX]}\n  then: score\n- when: {Modality: CR}\n"
        "  then: ignore\n"
    )
    rules = load_rules(file)
    assert rules.decide(chest(1), "ICU7") == "score"
    assert rules.decide(chest(1), "WARD") == "ignore"
    assert rules.decide(chest(1, "DX"), "WARD") == "score"
    assert Rules().decide(chest(1), "") == "score"
    bomb = "a: &a [1, 1]\nb: &b [*a, *a]\nrules: [*b]"
    for text, said in (
        (bomb, "rules"),
        ("rules: 1", "rules: Input should be a valid list"),
        ("rules: [{then: print}]", r"rules\.0\.then: Input should be 'score' or 'ignore'"),
        ("rules: [{when: {BodyPart: CHEST}, then: score}]", "BodyPart"),
        ("rules: [{if: {Modality: CR}, then: score}]", r"rules\.0\.if: Extra inputs"),
        ("{", "rules"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigurationError, match=said):
            load_rules(file)
