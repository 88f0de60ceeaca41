"""Members of zip and tar archives: listed, and read in place within limits. Nothing is ever unpacked.

A member is named by one string, `zip://MEMBER::ARCHIVE` or `tar://MEMBER::ARCHIVE`. Links inside an archive are not
followed, so a member cannot lead out of it.
"""

import os
import stat
import struct
import tarfile
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from hf_llava_vqa.errors import ImageError, MissingImageError, OversizedImageError, in_line, one_line

_PREFIXES = ("zip://", "tar://")
_COMPRESSED_TAR = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_OPEN_ARCHIVES = 16  # kept open by each process; instruction data come in six
_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    OSError,
    EOFError,
    RuntimeError,  # encrypted members; unknown compression; headers nested without end
    ValueError,
    struct.error,
    zlib.error,
)
"""What the standard library is known to raise on damaged archives."""


def member_path(archive: str | Path, member: str) -> str:
    """Return the string that names a member; `.tar` files are tar archives, all others zip."""
    prefix = "tar://" if _is_tar(archive) else "zip://"
    return f"{prefix}{member}::{os.path.abspath(archive)}"


def is_member_path(path: str) -> bool:
    """Whether `path` names a member of an archive rather than a file."""
    return path.startswith(_PREFIXES)


def list_members(archive: str | Path) -> list[str]:
    """Return the names of all members that are no folders, in the order of the archive.

    Raises:
        ImageError: the file is no plain tar or zip archive, or damaged.
    """
    return list(_open(str(archive)).sizes)


def read_member(path: str, max_bytes: int) -> bytes:
    """Read the member that `path` names, as made by `member_path`.

    Raises:
        MissingImageError, OversizedImageError: archive or member are missing; it holds more than `max_bytes`.
        ImageError: archive or member are damaged, or the member is a link.
    """
    member, _, archive = path.removeprefix("zip://").removeprefix("tar://").rpartition("::")
    where = f"{in_line(archive)}: member {in_line(member)}"
    if not os.path.isfile(archive):
        raise MissingImageError(f"{in_line(archive)}: no such archive (needed for {in_line(member)})")
    opened = _open(archive)
    if member not in opened.sizes:
        raise MissingImageError(f"{where} is not there")
    size = opened.sizes[member]
    if size is None:
        raise ImageError(f"{where} is a link, which is not followed; unpack the archive")
    if size > max_bytes:
        raise OversizedImageError(f"{where} has {size:,} bytes, too many for an image")
    try:
        return opened.read(member, size)
    except _ERRORS as error:
        raise ImageError(f"{where} cannot be read: {one_line(error)}") from error


class _Archive(Protocol):
    sizes: dict[str, int | None]  # of each member in bytes; None of links and other special files

    def read(self, member: str, size: int) -> bytes:
        """Read a member and no more than `size` bytes, whatever it inflates to."""


class _Zip:
    def __init__(self, path: str) -> None:
        self._file = zipfile.ZipFile(path)
        infos = (info for info in self._file.infolist() if not info.is_dir())
        self.sizes = {info.filename: None if _is_link(info) else info.file_size for info in infos}

    def read(self, member: str, size: int) -> bytes:
        info = self._file.getinfo(member)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile("compressed by another method than deflate; pack it again")
        with self._file.open(info) as stream:
            return stream.read(size + 1)  # a bomb inflates no further; at the end, length and checksum are compared


class _Tar:
    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - stays open for `read`
        self._offsets: dict[str, int] = {}
        self.sizes: dict[str, int | None] = {}
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.size < 0:  # tarfile would walk back and forth for ever
                    raise tarfile.ReadError("a member of negative size")
                if not member.isdir():
                    name = member.name.removeprefix("./")
                    self._offsets[name] = member.offset_data
                    self.sizes[name] = member.size if member.isreg() and not member.issparse() else None

    def read(self, member: str, size: int) -> bytes:
        # Read at a position, for forked processes share the file's own.
        data = os.pread(self._file.fileno(), size, self._offsets[member])
        if len(data) < size:
            raise EOFError("the archive ends early")
        return data


class _State(NamedTuple):
    """Tells a replaced archive from the one that was opened; a zip file is opened by each process for itself."""

    modified: int
    size: int
    process: int


def _open(archive: str) -> _Archive:
    if archive.lower().endswith(_COMPRESSED_TAR):
        raise ImageError(
            f"{in_line(archive)}: a compressed tar cannot be read in place; unpack it, or pack a plain .tar or .zip"
        )
    try:
        found = os.stat(archive)
        process = 0 if _is_tar(archive) else os.getpid()
        return _opened(archive, _State(found.st_mtime_ns, found.st_size, process))
    except _ERRORS as error:
        kind = "plain tar" if _is_tar(archive) else "zip"
        reason = f"not a readable {kind} archive ({one_line(error)})"
        raise ImageError(f"{in_line(archive)}: {reason}; download it again") from error


@lru_cache(maxsize=_OPEN_ARCHIVES)
def _opened(archive: str, state: _State) -> _Archive:
    return _Tar(archive) if _is_tar(archive) else _Zip(archive)


def _is_tar(archive: str | Path) -> bool:
    return str(archive).lower().endswith(".tar")


def _is_link(info: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(info.external_attr >> 16)
