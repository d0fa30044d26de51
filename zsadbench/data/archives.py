"""Unpacking what was downloaded: plain files and folders only, below one folder, bounded in number and in size.

Members are written by this module, never by tarfile or zipfile: no link, device, owner, mode or time of an archive
reaches the disk.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from zsadbench.errors import FetchError
from zsadbench.support import files

RESERVE = 2**28  # bytes of disk that stay free
CHUNK = 2**18  # bytes read at once
_HEADER = 2**24  # bytes; tarfile reads long names and attributes at once, so that their length must be bounded
_UNSAFE = re.compile(r"^/|^[A-Za-z]:|\\|[\x00-\x1f\x7f]|(^|/)\.\.(/|$)")  # leaves the folder, here or on Windows
_TAR_READERS: dict[bytes, Callable[..., Any]] = {  # by the first two bytes
    b"\x1f\x8b": gzip.open,
    b"BZ": bz2.open,
    b"\xfd7": lzma.open,
}


class Limits(NamedTuple):
    """What an archive may become; datasets are images, which hardly compress."""

    files: int = 1_000_000  # files and folders; the largest set, Real-IAD, has about 151,000 images
    bytes: int = 2**40
    ratio: int = 100  # unpacked bytes over those of the archive


class Member(NamedTuple):
    """One entry of an archive."""

    name: str  # as the archive writes it
    size: int  # bytes, as the archive claims
    open: Callable[[], IO[bytes]] | None  # None: a folder


def extract(archive: Path, folder: Path, limits: Limits | None = None) -> int:
    """Unpack a zip or tar (plain, gzip, bzip2, xz) below an existing folder; returns the number of bytes written.

    Raises FetchError for a member that is a link or device, that would leave the folder or overwrite a file, for an
    archive beyond the limits or damaged, and for a full disk. What was unpacked by then stays: unpack into a temporary
    folder.
    """
    limits = limits or Limits()
    allowed = min(limits.bytes, limits.ratio * archive.stat().st_size)
    written = 0
    with _explained(archive), closing(_members(archive)) as members:
        for number, member in enumerate(members, start=1):
            if number > limits.files:
                raise FetchError(
                    f"{archive} holds more than {limits.files} files; expected a dataset. Nothing is kept."
                )
            if written + member.size > allowed:
                raise FetchError(
                    f"{archive} unpacks to more than {allowed} bytes; expected at most {limits.ratio} times its own "
                    f"{archive.stat().st_size}. It may be a decompression bomb: nothing is kept."
                )
            written += _write(member, archive, folder)
    return written


def require_space(folder: Path, size: int) -> None:
    """Raise FetchError unless the disk of a folder has room for `size` bytes and some more."""
    free = shutil.disk_usage(folder).free
    if free < size + RESERVE:
        raise FetchError(
            f"the disk of {folder} has {free / 1e9:.2f} GB free; expected {(size + RESERVE) / 1e9:.2f} GB. "
            "Free some space or choose another --data-root, and run the same command again."
        )


def _write(member: Member, archive: Path, folder: Path) -> int:
    """Write one member; returns its true number of bytes."""
    if _UNSAFE.search(member.name):
        raise FetchError(f"{archive} holds {member.name!r}; expected only names that stay below its folder.")
    target = folder / PurePosixPath(member.name)
    if member.open is None:
        target.mkdir(parents=True, exist_ok=True)
        return 0
    require_space(folder, member.size)
    target.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, target.open("xb") as file:  # "x": never over another file
        while chunk := source.read(CHUNK):
            if file.tell() + len(chunk) > member.size:
                raise FetchError(f"{archive}: {member.name!r} is longer than its {member.size} bytes. Nothing is kept.")
            file.write(chunk)
        if file.tell() < member.size:
            raise FetchError(f"{archive}: {member.name!r} is shorter than its {member.size} bytes; it is damaged.")
        return file.tell()


def _members(archive: Path) -> Generator[Member, None, None]:
    """Yield the members of a zip or tar in order. Raises FetchError for one that is no plain file or folder."""
    with archive.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        yield from _zip_members(archive)
    else:
        with _TAR_READERS.get(start, Path.open)(archive, "rb") as stream:
            yield from _tar_members(archive, stream)


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive was not made on Unix
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refusal(archive, entry.filename)
            yield Member(entry.filename, entry.file_size, None if entry.is_dir() else partial(opened.open, entry))


def _tar_members(archive: Path, stream: IO[bytes]) -> Iterator[Member]:
    with tarfile.TarFile(fileobj=_Bounded(stream)) as opened:  # type: ignore[arg-type]  # it reads, seeks and tells
        for entry in opened:
            if not (entry.isdir() or entry.isreg()) or entry.issparse():
                raise _refusal(archive, entry.name)
            yield Member(entry.name, entry.size, None if entry.isdir() else partial(_tar_file, opened, entry))


def _tar_file(opened: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    file = opened.extractfile(entry)
    assert file is not None, "only links and devices have no content"
    return file


class _Bounded:
    """A stream that refuses to read much at once: a forged header may claim a name of many gigabytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes."""
        if size > _HEADER:
            raise tarfile.ReadError(f"a header claims a length of {size} bytes")
        return self._stream.read(size)


def _refusal(archive: Path, name: str) -> FetchError:
    return FetchError(f"{archive}: {name!r} is a link, a device or the like; expected only plain files and folders.")


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    """Turn whatever goes wrong while an archive is unpacked into a FetchError that names it."""
    try:
        yield
    except FetchError:
        raise
    except FileExistsError as error:
        raise FetchError(f"{archive} holds {error.filename} twice, or over another file; expected each once.") from None
    except Exception as error:  # a damaged archive makes the decoders raise nearly anything
        if isinstance(error, OSError) and error.errno is not None:  # of the system; a decoder's has no number
            advice = files.advice(archive, error)
            raise FetchError(f"{archive} could not be unpacked: {error.strerror}. {advice}") from error
        raise FetchError(f"{archive} cannot be unpacked, it may be damaged: {type(error).__name__}: {error}") from error
