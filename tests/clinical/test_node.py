"""The node beside a real Orthanc: nothing lost, nothing twice, nothing in a loop."""

from __future__ import annotations

import io
import json
from pathlib import Path
from subprocess import CompletedProcess

import pydicom
import pytest

from tests.support.commands import in_process, run_program, wait_until
from tests.support.pacs import NodeProcess, Orthanc, free_ports, read_url, running
from tests.support.studies import chest, find_program, save

BOTH = ("SR", "OT")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    return [save(chest(n, "DX" if n % 2 else "CR"), folder / f"{n}.dcm") for n in range(1, 17)]


def store(port: int, file: Path, title: str = "CARZERO", caller: str = "MODALITY") -> CompletedProcess[str]:
    """dcmtk's storescu, which ends with another code than 0 where an image is not taken."""
    program = find_program("storescu", "dcmtk")
    return run_program([program, "-R", "-aet", caller, "-aec", title, "127.0.0.1", port, file])


def options_of(port: int, pacs: int, weights: Path) -> list[object]:
    """Options of a node that listens on loopback and sends to a PACS there."""
    forward = f"ORTHANC@127.0.0.1:{pacs}"
    return ["--port", port, "--host", "127.0.0.1", "--forward", forward, "--weights", weights, "--force"]


def test_a_routed_image_gets_its_results_in_its_study(tiny_weights: Path, images: list[Path], tmp_path: Path) -> None:
    http, dicom, port, numbers = free_ports(4)
    pacs = Orthanc(tmp_path / "orthanc", http, dicom, port, route=True)
    asked = options_of(port, dicom, tiny_weights)
    options = [*asked, "--labels", "pneumonia,no mass", "--metrics-port", numbers]
    node = NodeProcess(tmp_path / "spool", options)
    with running(pacs, node):
        assert store(dicom, images[0], title="ORTHANC").returncode == 0
        wait_until(lambda: len(pacs.instances()) >= 3, node.process)
        # Everything that was routed has been answered: give what might loop the time of a second image's whole way.
        assert store(dicom, images[1], title="ORTHANC").returncode == 0
        wait_until(lambda: len(pacs.instances()) >= 6, node.process)
        found = pacs.instances()
        assert sorted(each["modality"] for each in found) == ["CR", "DX", "OT", "OT", "SR", "SR"]
        image = pydicom.dcmread(images[0])
        own = [each for each in found if each["study"] == image.StudyInstanceUID]
        assert sorted(each["modality"] for each in own) == ["DX", "OT", "SR"]
        stored = pacs.post("tools/lookup", str(image.SOPInstanceUID).encode())[0]["ID"]
        (tmp_path / "back.dcm").write_bytes(pacs.bytes(f"instances/{stored}/file"))
        assert pydicom.dcmread(tmp_path / "back.dcm").PixelData == image.PixelData
        [made] = [each["uid"] for each in own if each["modality"] == "SR"]
        written = pacs.post("tools/lookup", made.encode())[0]["ID"]
        report = pydicom.dcmread(io.BytesIO(pacs.bytes(f"instances/{written}/file")))
        metrics = f"http://127.0.0.1:{numbers}/metrics"
        # The PACS has the results a moment before the node has written down that it has them.
        done = ('carzero_images{state="done"} 2.0', 'carzero_events_total{event="sent"} 2.0')
        wait_until(lambda: all(line in read_url(metrics).decode() for line in done))
        text = read_url(metrics).decode()
        assert all(line in text for line in done), text
        assert node.stop() == 0
    assert [each["event"] for each in node.events()][-2:] == ["stopping", "stopped"]
    [doubt] = [str(each["text"]) for each in node.events() if each["event"] == "doubt"]
    assert doubt.startswith('negated-label: "no mass"')
    said = [str(element.value) for element in report.iterall() if element.keyword == "TextValue"]
    assert doubt in said, "as every result has it"
    log = node.log.read_text()
    for secret in ("Quixote", "PID1", "19500607", "Doctor", "A1", str(image.StudyInstanceUID)):
        assert secret not in log


def test_killed_four_times_and_the_pacs_away_sixteen_images_have_results_once(
    tiny_weights: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    http, dicom, port = free_ports(3)
    pacs = Orthanc(tmp_path / "orthanc", http, dicom, port)
    asked = options_of(port, dicom, tiny_weights)
    node = NodeProcess(tmp_path / "spool", [*asked, "--labels", "pneumonia", "--batch-size", "2"])
    broken = tmp_path / "broken.dcm"
    image = chest(99)
    image.PixelData = image.PixelData[:1000]
    save(image, broken)
    with running(node):  # the PACS is away
        for part in range(4):
            batch = images[4 * part : 4 * part + 4]
            for file in batch:
                assert store(port, file).returncode == 0, "an image is taken over before success is answered"
            if part == 0:
                assert store(port, broken).returncode == 0
                wait_until(lambda: node.count("scored") >= 1, node.process)
            if part == 1:
                pacs.start()
            if part == 2:
                wait_until(lambda: node.count("sent") >= 1, node.process)
            node.kill()
            if part == 2:
                pacs.stop()
            node.start()
        pacs.start()
        try:
            wait_until(
                lambda: len(pacs.instances("SR")) >= 16 and node_is_idle(tmp_path / "spool", capsys), node.process
            )
            found = pacs.instances()
            assert sorted(each["modality"] for each in found) == ["OT"] * 16 + ["SR"] * 16
            assert len({each["uid"] for each in found}) == 32
            code, stdout, _ = in_process(capsys, "dicom", "status", tmp_path / "spool", "--json")
            told = json.loads(stdout)
            assert code == 1
            assert told["images"] == {"waiting": 0, "scoring": 0, "sending": 0, "done": 16, "dead": 1}
            assert told["dead"][0]["uid"] == image.SOPInstanceUID
            assert "broken or truncated" in told["dead"][0]["reason"]
            assert store(port, images[0]).returncode == 0  # known: taken, and not scored again
            assert node.stop() == 0
            assert len(pacs.instances()) == 32
        finally:
            pacs.stop()
    assert in_process(capsys, "dicom", "retry", tmp_path / "spool")[0] == 0
    assert in_process(capsys, "dicom", "status", tmp_path / "spool")[0] == 0
    assert in_process(capsys, "dicom", "purge", tmp_path / "spool")[0] == 0
    assert [*(tmp_path / "spool" / "images").iterdir()] == [
        tmp_path / "spool" / "images" / f"{image.SOPInstanceUID}.dcm"
    ]


def node_is_idle(spool: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    _, stdout, _ = in_process(capsys, "dicom", "status", spool, "--json")
    counts = json.loads(stdout)["images"]
    return not counts["waiting"] + counts["scoring"] + counts["sending"]


def test_a_folder_and_orthancs_changes_are_read_and_results_stored_by_web(
    tiny_weights: Path, images: list[Path], tmp_path: Path
) -> None:
    http, dicom, port = free_ports(3)
    pacs = Orthanc(tmp_path / "orthanc", http, dicom, port)
    watched = tmp_path / "watched"
    watched.mkdir()
    web = ["--dicomweb", f"{pacs.url}/dicom-web", "--orthanc", pacs.url, "--watch", watched, "--every", "0.5"]
    node = NodeProcess(
        tmp_path / "spool", [*web, "--weights", tiny_weights, "--labels", "mass", "--kinds", "sr", "--force"]
    )
    pacs.start()
    try:
        for file in images[:2]:
            pacs.post("instances", file.read_bytes())
        save(chest(50), watched / "in a folder.dcm")
        (watched / "notes.txt").write_text("not an image")
        node.start(until="ready")
        wait_until(lambda: len(pacs.instances("SR")) >= 3, node.process)
        assert {each["study"] for each in pacs.instances("SR")} == {
            f"1.2.826.0.1.3680043.8.498.2.{number}" for number in (1, 2, 50)
        }
        # A fourth image after the reports were stored: what the list of changes says of reports is passed over.
        pacs.post("instances", images[3].read_bytes())
        wait_until(lambda: len(pacs.instances("SR")) >= 4, node.process)
        assert node.stop() == 0
        assert len(pacs.instances()) == 3 + 4
        assert (watched / "in a folder.dcm").is_file()
    finally:
        node.stop()
        pacs.stop()
