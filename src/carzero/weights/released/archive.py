"""The container of a checkpoint: a zip archive of raw storages and one pickle, as torch writes it since 1.6."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import Self

from carzero.errors import CheckpointError, describe

# The list of members of a released checkpoint takes 30 KB; this bounds what a forged one can make zipfile hold.
_MAX_READ = 4 << 20
_BLOCK = 1 << 20
_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

_RESAVE = (
    "in an environment where you trust the file, re-save it: "
    'torch.save({"state_dict": torch.load(OLD, map_location="cpu", weights_only=True)["state_dict"]}, NEW)'
)

_GET_CHECKPOINT = "give the authors' .ckpt file"

AUTHORS_PAGE = "https://github.com/laihaoran/CARZero"  # code, and the link to the checkpoint


class _BoundedFile(io.FileIO):
    """A file that refuses to be read in large pieces; zipfile would otherwise trust the sizes the file declares."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = self._left()
        if size > _MAX_READ:
            raise zipfile.BadZipFile("the list of members is far too long")
        return super().read(size) or b""

    def _left(self) -> int:
        here = self.tell()
        end = self.seek(0, io.SEEK_END)
        self.seek(here)
        return end - here


class TorchArchive:
    """A checkpoint file, opened for reading; a context manager.

    Args:
        path: the file.

    Raises:
        CheckpointError: no such file, or another kind of file (named), or one that is truncated or malformed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_is_archive(path)
        self._file = _BoundedFile(path)
        try:
            self._zip = self._open_zip()
            self._members = self._list_members()
            self._root = self._find_root()
            self._check_byte_order()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read_pickle_bytes(self, limit: int) -> bytes:
        """Returns the bytes of `data.pkl`, which may not be more than `limit`."""
        member = self._members[f"{self._root}data.pkl"]
        if member.file_size > limit:
            raise self._damaged(f"its pickle has {member.file_size:,} bytes, more than {limit:,}")
        return bytes(self._read(member))

    def read_storage(self, key: str, size: int) -> bytearray:
        """Returns the bytes of one storage, which must be exactly `size`."""
        member = self._members.get(f"{self._root}data/{key}")
        if member is None:
            raise self._damaged(f"it lacks the storage data/{key[:20]}")
        if member.file_size != size:
            raise self._damaged(f"storage data/{key[:20]} has {member.file_size:,} bytes instead of {size:,}")
        return self._read(member)

    def _read(self, member: zipfile.ZipInfo) -> bytearray:
        data = bytearray(member.file_size)
        filled = 0
        try:
            with self._zip.open(member) as file:
                while block := file.read(_BLOCK):  # the read that finds the end also compares the checksum
                    data[filled : filled + len(block)] = block
                    filled += len(block)
        except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, zlib.error) as error:
            raise self._damaged(f"member {member.filename[:80]!r} cannot be read: {error}") from error
        if filled != member.file_size:
            raise self._damaged(f"member {member.filename[:80]!r} is cut short")
        return data

    def _open_zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise self._damaged(f"its list of members cannot be read: {error}", truncated=True) from error

    def _list_members(self) -> dict[str, zipfile.ZipInfo]:
        listed = self._zip.infolist()
        members = {member.filename: member for member in listed}
        if len(members) != len(listed):
            raise self._damaged("it holds two members of one name")
        if not all(map(_is_stored, listed)):
            raise self._damaged("it holds compressed or encrypted members, which torch never writes")
        # Members that overlap could make a small file expand to any size.
        if sum(member.file_size for member in listed) > self.path.stat().st_size:
            raise self._damaged("its members claim more bytes than the file has")
        return members

    def _find_root(self) -> str:
        roots = [name.removesuffix("data.pkl") for name in self._members if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(roots) != 1:
            raise _not_released(self.path, "a zip archive that torch did not write", _GET_CHECKPOINT)
        if f"{roots[0]}constants.pkl" in self._members:
            raise _not_released(self.path, "a TorchScript model", _GET_CHECKPOINT)
        return roots[0]

    def _check_byte_order(self) -> None:
        member = self._members.get(f"{self._root}byteorder")  # files of torch before 2.1 have none
        if member is not None and (member.file_size > 16 or self._read(member) != b"little"):
            raise _not_released(self.path, "a checkpoint of a big-endian machine", f"there, {_RESAVE}")

    def _damaged(self, why: str, *, truncated: bool = False) -> CheckpointError:
        hint = "the end of the file is missing or " if truncated else ""
        return CheckpointError(
            describe(
                f"The checkpoint {self.path} is damaged ({hint}{why})",
                got=f"{self.path.stat().st_size:,} bytes",
                expected="a complete file, 888 MB for the released model",
                then="download the file again",
            )
        )


def _is_stored(member: zipfile.ZipInfo) -> bool:
    plain = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
    return plain and member.file_size == member.compress_size


def _check_is_archive(path: Path) -> None:
    """Says what a file is that is not a zip archive, by its first bytes."""
    if path.is_dir():
        raise _not_released(path, "a folder (with Hugging Face weights there is nothing to convert)", _GET_CHECKPOINT)
    if not path.is_file():
        raise CheckpointError(
            describe(
                "There is no such checkpoint file",
                got=str(path),
                then=f"check the path; the authors' CARZero_best_model.ckpt is linked from {AUTHORS_PAGE}",
            )
        )
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(
            describe(f"The checkpoint cannot be read ({error.strerror})", got=str(path), then="check its permissions")
        ) from error
    if not head.startswith(b"PK\x03\x04"):
        raise _not_released(path, *_recognise(head))


_KINDS: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"\Z"), "empty", "download the file again"),
    (re.compile(re.escape(_LEGACY_TORCH) + rb"|.{257}ustar", re.DOTALL), "in torch's format from before 1.6", _RESAVE),
    (
        re.compile(rb".{4}\0{4}\{", re.DOTALL),
        "a safetensors file",
        f"{_GET_CHECKPOINT}; weights saved by CARZero need no conversion",
    ),
    (
        re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE),
        "a web page, so the download was refused",
        "open the download link in a browser and save the real file",
    ),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer", "fetch the real file with `git lfs pull`"),
    (re.compile(rb"\x80[\x02-\x05]"), "a bare pickle", _RESAVE),
    (re.compile(rb"[\t\n\r\x20-\x7e]+\Z"), "a text file", _GET_CHECKPOINT),
    (re.compile(rb""), "of an unknown kind", _GET_CHECKPOINT),
)


def _recognise(head: bytes) -> tuple[str, str]:
    """What a file's first bytes say it is, and what to do."""
    return next((what, then) for pattern, what, then in _KINDS if pattern.match(head))


def _not_released(path: Path, what: str, then: str) -> CheckpointError:
    return CheckpointError(
        describe(
            f"{path} is not a released CARZero checkpoint: it is {what}",
            expected="a file that torch.save wrote (version 1.6 or later)",
            then=then,
        )
    )
