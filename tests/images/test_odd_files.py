"""Odd files in folders: listed with names that can be shown, refused with the reason, and never waited for."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from carzero.errors import UnreadableImageError, printable
from carzero.images import PixelTransform, load_image, load_radiograph
from carzero.images.listing import list_images
from carzero.images.loading import Readers, load_ahead
from carzero.records import FailedImage
from tests.support.image_files import encode, film

FILM = encode(film(), "PNG")
TRANSFORM = PixelTransform()
DEPTH = 1200
RAISED = [SyntaxError("bad"), KeyError("x"), RecursionError(), ZeroDivisionError(), MemoryError()]


def make_odd(folder: Path) -> dict[str, str]:
    """Fills a folder with odd files beside a good one; returns what each that cannot be read is called."""
    (folder / "good.png").write_bytes(FILM)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "long.png").symlink_to("x" * 300)
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe")
    (folder / "device.dcm").symlink_to("/dev/zero")
    (folder / "empty.png").touch()
    (folder / "a.png").mkdir()
    (folder / "a.png" / "inside.png").write_bytes(FILM)
    (folder / "linked").symlink_to(folder / "a.png")
    return {
        "loop.png": "leads back to itself",
        "gone.png": "a file that does not exist",
        "long.png": "File name too long",
        "pipe.png": "a pipe",
        "pipe": "a pipe",
        "device.dcm": "a device",
        "empty.png": "an empty file",
    }


def test_odd_files_of_a_folder_are_listed_and_refused_with_the_reason(tmp_path: Path) -> None:
    reasons = make_odd(tmp_path)
    items = list_images([tmp_path])
    assert {item.image_id for item in items} == {*reasons, "good.png", "a.png/inside.png"}
    for item in items:
        if item.image_id in reasons:
            with pytest.raises(UnreadableImageError, match=reasons[item.image_id]):
                load_radiograph(item.image)
        else:
            load_radiograph(item.image)


@pytest.mark.parametrize("isolated", [False, True])
def test_a_run_over_odd_files_ends(tmp_path: Path, isolated: bool) -> None:
    reasons = make_odd(tmp_path)
    with Readers(2, isolated=isolated) as readers:
        loaded = list(load_ahead(list_images([tmp_path]), readers, batch_size=4, transform=TRANSFORM))
    failed = {image.item.image_id: str(image.error) for image in loaded if isinstance(image, FailedImage)}
    assert set(failed) == set(reasons)
    assert all(reasons[name] in failed[name] for name in reasons)


def test_sockets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's whole path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        assert [item.image_id for item in list_images(["."])] == ["socket.png"]
        with pytest.raises(UnreadableImageError, match="a socket"):
            load_radiograph("socket.png")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"\xff\xfe.jpg", r"\xff\xfe.jpg"),
        (b"caf\xe9.png", r"caf\xe9.png"),
        (b"red\x1b[31m.png", r"red\x1b[31m.png"),
        (b"two\nlines.png", r"two\nlines.png"),
        (b"bell\x07\x08.png", r"bell\x07\x08.png"),
        ("left\u202egnp.png".encode(), r"left\u202egnp.png"),
        ("\x9bcsi.png".encode(), r"\x9bcsi.png"),
        ("röntgen 胸部.png".encode(), "röntgen 胸部.png"),
    ],
)
def test_names_that_cannot_be_shown_are_escaped(tmp_path: Path, name: bytes, shown: str) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    file.write_bytes(FILM)
    for source in (tmp_path, file):
        (item,) = list_images([source])
        assert item.image_id == shown
        assert item.path == f"{tmp_path}/{shown}"
        assert load_image(item.image).source == item.path
    file.write_bytes(b"not an image")
    with pytest.raises(UnreadableImageError) as refused:
        load_radiograph(file)
    assert str(refused.value) == printable(str(refused.value))
    str(refused.value).encode("utf-8")


def test_names_that_look_alike_once_escaped_stay_apart(tmp_path: Path) -> None:
    for name in (b"\xff.png", b"\\xff.png"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(FILM)
    assert {item.image_id for item in list_images([tmp_path])} == {"\\xff.png", "\\xff.png (2)"}


@pytest.fixture
def deep_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An image 1,200 folders down, and its path below `tmp_path`; removed again, for recursive removal fails on it."""
    monkeypatch.chdir(tmp_path)
    for _ in range(DEPTH):
        Path("d").mkdir()
        os.chdir("d")
    Path("deep.png").write_bytes(FILM)
    os.chdir(tmp_path)
    below = "d/" * DEPTH
    yield below + "deep.png"
    os.chdir(tmp_path)
    Path(below, "deep.png").unlink()
    for depth in range(DEPTH, 0, -1):
        Path("d/" * depth).rmdir()


def test_deep_folders_are_walked(tmp_path: Path, deep_folder: str) -> None:
    (item,) = list_images([tmp_path])
    assert item.image_id == deep_folder


@pytest.mark.parametrize("error", RAISED)
def test_whatever_a_decoder_raises_belongs_to_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    (tmp_path / "one.png").write_bytes(FILM)
    monkeypatch.setattr("carzero.images.reading.decode_raster", fail)
    with pytest.raises(UnreadableImageError, match=r"one\.png"):
        load_radiograph(tmp_path / "one.png")
    with pytest.raises(UnreadableImageError):
        load_image(FILM)
    with Readers(1) as readers:
        (failed,) = load_ahead(list_images([tmp_path]), readers, batch_size=1, transform=TRANSFORM)
    assert isinstance(failed, FailedImage)


def test_resizing_that_fails_belongs_to_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.png").write_bytes(FILM)
    monkeypatch.setattr("carzero.images.reading.to_model_input", lambda *_: np.empty(-1))
    with Readers(1) as readers:
        (failed,) = load_ahead(list_images([tmp_path]), readers, batch_size=1, transform=TRANSFORM)
    assert isinstance(failed, FailedImage)
