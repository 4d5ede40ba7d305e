"""What the node does with a PACS that lies, a queue that is not its own, and a disk that gives out."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from carzero.clinical.node import run as node_run
from carzero.clinical.node.events import Events
from carzero.clinical.node.image_rules import load_rules
from carzero.clinical.node.receiver import Receiver, ReceiverSettings
from carzero.clinical.node.spool import Spool, is_uid, open_spool
from carzero.clinical.node.work import keep_working
from carzero.errors import ConfigurationError, RunError
from tests.fuzz import clinical
from tests.support.commands import in_process


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool")
    yield opened
    opened.close()


@pytest.fixture
def answers(tmp_path: Path) -> Callable[..., Path]:
    """Answers of services in a folder, some of them replaced."""

    def write(**changed: object) -> Path:
        folder = tmp_path / "answers"
        folder.mkdir()
        for name, content in clinical.web()[0].items():
            kept = changed.get(name.partition(".")[0])
            (folder / name).write_bytes(content if kept is None else json.dumps(kept).encode())
        return folder

    return write


YAML = sorted((Path(__file__).parents[1] / "reliability" / "inputs" / "yaml").iterdir())
HOSTILE = ["../../escape", "/etc/passwd", "1.2/../../3", "1.2\n", "1." * 40 + "1", "", "١.٢"]


@pytest.mark.parametrize("uid", HOSTILE)
def test_a_service_names_no_file_outside_of_the_spool(uid: str, answers: Callable[..., Path]) -> None:
    tag = {"vr": "UI", "Value": [uid]}
    instances = json.loads(clinical.web()[0]["instances.json"])
    tags = json.loads(clinical.web()[0]["tags.json"])
    folder = answers(instances=[{**instances[0], "00080018": tag}], tags={**tags, "SOPInstanceUID": uid})
    clinical.read_web(folder)  # asserts that nothing was written elsewhere


@pytest.mark.parametrize("uid", HOSTILE)
def test_what_is_no_identifier_is_refused_by_the_spool_itself(uid: str, spool: Spool) -> None:
    assert not is_uid(uid)
    for use in (spool.path, spool.results_of, lambda name: spool.take_over(name, b"x", "A")):
        with pytest.raises(RunError, match="names no image"):
            use(uid)


def test_services_without_pages_or_progress_are_asked_so_often_as_they_say_something_new(
    answers: Callable[..., Path],
) -> None:
    study = json.loads(clinical.web()[0]["studies.json"])[0]
    unpaged = [{**study, "0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]}} for number in range(300)]
    changes = {"Changes": [], "Last": 0, "Done": False}
    clinical.read_web(answers(studies=unpaged, changes=changes, series=[]))  # asserts that it ends


@pytest.mark.parametrize("name", YAML, ids=[path.name for path in YAML])
def test_rules_are_read_as_every_yaml(name: Path) -> None:
    with pytest.raises(ConfigurationError, match=name.name):
        load_rules(name)


def write_garbage(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)


def write_text(path: Path) -> None:
    path.write_text("not a queue at all, but long enough to be one " * 100)


def write_other_tables(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.executescript("create table images (a, b); insert into images values (1, 2)")
    db.close()


def write_hostile_row(path: Path) -> None:
    spool = Spool(path.parent)
    spool.take_over("1.2", b"x", "A")
    spool.move("1.2", "dead")
    spool.close()
    with sqlite3.connect(path) as db:
        db.execute("update images set uid = '../../../beside'")
    db.close()


@pytest.mark.parametrize("write", [write_garbage, write_text, write_other_tables, write_hostile_row])
@pytest.mark.parametrize("verb", [["status"], ["status", "--json"], ["retry"], ["purge", "--dead"]])
def test_a_queue_that_is_not_the_node_s_is_one_line(
    write: Callable[[Path], None], verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    (tmp_path / "beside.dcm").write_text("stays")
    write(folder / "queue.sqlite")
    code, out, err = in_process(capsys, "dicom", verb[0], folder, *verb[1:])
    assert (tmp_path / "beside.dcm").exists()
    assert (code, out) == (2, ""), err
    assert len(err.splitlines()) == 1, err
    assert "queue" in err


def test_a_full_disk_under_the_queue_is_said_and_nothing_is_lost(spool: Spool) -> None:
    spool.take_over("1.1", b"x", "A")
    pages = int(spool._db.execute("pragma page_count").fetchone()[0])
    spool._db.execute(f"pragma max_page_count = {pages}")

    def fill() -> None:
        for number in range(2000):
            spool.take_over(f"1.2.{number}", b"x", "A" * 500)

    with pytest.raises(RunError, match="full"):
        fill()
    assert spool.find("1.1") is not None
    assert open_spool(spool.folder).counts()["waiting"] >= 1


def test_a_turn_that_fails_is_said_and_the_next_one_comes() -> None:
    log, stop, begun = io.StringIO(), threading.Event(), []

    class Shaky:
        def turn(self) -> float:
            begun.append(1)
            if len(begun) < 3:
                raise sqlite3.OperationalError("database or disk is full")
            stop.set()
            return 0.0

    keep_working(Shaky(), Events(log), stop)
    assert len(begun) == 3
    told = json.loads(log.getvalue())  # not again for each failure in a row
    assert (told["event"], told["where"], told["kind"]) == ("fault", "shaky", "OperationalError")


def test_bytes_that_are_no_protocol_are_an_event_and_no_traceback(
    spool: Spool, capfd: pytest.CaptureFixture[str]
) -> None:
    log = io.StringIO()
    events = Events(log)
    receiver = Receiver(ReceiverSettings(host="127.0.0.1", port=0, least_free=0), spool, events)
    receiver.start()
    sent = next(iter(clinical.sessions()[0].values()))
    damaged = [sent[:40] + b"\xff" * 40 + sent[80:], b"\x05" + bytes(9), sent + sent, b"GET / HTTP/1.1\r\n\r\n"]
    damaged += [sent[:100], b""]
    try:
        with node_run._told(events):
            for content in damaged:
                with socket.create_connection(("127.0.0.1", receiver.port), timeout=600) as caller:
                    caller.sendall(content)
                    caller.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(ConnectionError):
                        while caller.recv(4096):
                            pass
    finally:
        receiver.stop()
    assert "Traceback" not in capfd.readouterr().err
    told = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [each["why"] for each in told if each["event"] == "rejected"] == [
        "speaks an unknown protocol, not DICOM",
        "speaks HTTP, not DICOM",
    ]
