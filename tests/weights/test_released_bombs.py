"""A checkpoint that would fill the memory or run for hours is refused soon and small."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from carzero.errors import CheckpointError
from carzero.weights.released import read_released_checkpoint
from tests.support.checkpoint_files import Storage, View, released_pickle, text, write_archive


def settings_of(body: bytes) -> bytes:
    """A checkpoint's pickle whose hyper_parameters are the given instructions."""
    return released_pickle({"a": View(Storage())})[:-1] + text("hyper_parameters") + body + b"s."


BOMBS = {
    "deep lists": settings_of(b"]" * 200_000 + b"a" * 199_999),
    "deep tuples": settings_of(b")" + b"\x85" * 400_000),
    "deep tuples as a key": settings_of(b"})" + b"\x85" * 400_000 + b"K\x01s"),
    "list in itself": settings_of(b"]q\xc8h\xc8a"),
    "doubling tuples": settings_of(
        b"]" + b"".join(b"r%bj%b\x86" % (slot, slot) for slot in (struct.pack("<I", n) for n in range(300, 328)))
    ),
    "keys of one hash": settings_of(
        b"}(" + b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"N" for n in range(50_000)) + b"u"
    ),
    "millions of steps": settings_of(b"N" * 1_500_000),
    "huge pickle": settings_of(b"]" * (9 << 20)),
    "length beyond the end": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "eight-byte length": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",
    "memo that was never set": b"\x80\x02h\x05.",
    "empty stack": b"\x80\x02R.",
    "no mark": b"\x80\x02t.",
    "odd number of items": b"\x80\x02}(K\x01u.",
    "no end": b"\x80\x02}",
    "nothing": b"",
    "unknown instruction": b"\x80\x02\xff.",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_bomb_ends_in_an_error_soon_and_small(name: str, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.ckpt", BOMBS[name], {"0": bytes(24)})
    start = time.process_time()
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        read_released_checkpoint(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - start < 200  # of this process alone: what else runs has no say; some take hours
    assert peak < 200e6


def test_compressed_members_are_refused_before_they_are_expanded(tmp_path: Path) -> None:
    data = released_pickle({"a": View(Storage(count=1 << 26), 0, (1 << 26,), (1,))})
    path = write_archive(tmp_path / "x.ckpt", data, {"0": bytes(1 << 28)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed or encrypted"):
        read_released_checkpoint(path)


def test_members_that_overlap_or_claim_too_much_are_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.ckpt", released_pickle({"a": View(Storage())}), {"0": bytes(24)})
    forged = bytearray(path.read_bytes())
    entry = forged.rindex(b"PK\x01\x02")
    forged[entry + 20 : entry + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    path.write_bytes(forged)
    with pytest.raises(CheckpointError, match="more bytes than the file has"):
        read_released_checkpoint(path)


def test_a_member_list_of_forged_length_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(90_000):
            archive.writestr(f"archive/data/{number}", b"")
    with pytest.raises(CheckpointError, match="list of members is far too long"):
        read_released_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    good = released_pickle({"a": View(Storage())})
    path = write_archive(tmp_path / "x.ckpt", good, {"0": bytes(24)}, extra={"archive/data.pkl": b"\x80\x02N."})
    with pytest.raises(CheckpointError, match="two members of one name"):
        read_released_checkpoint(path)
