"""Files that appear whole or not at all, and digests of files and of values."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from zsadbench.errors import RecordError, UsageError
from zsadbench.support import documents

Bytes = bytes | bytearray
PART = ".part"  # suffix of files that are being written
DAY = 86400.0  # seconds
_HOST = "".join(filter(str.isalnum, socket.gethostname())) or "host"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
_OTHER_KIND = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY)


def make_folder(folder: Path) -> None:
    """Create the folder of --out. Raises RecordError when that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(
            f"--out {folder} cannot be created: {error.strerror or error}. Choose another folder."
        ) from error


def unwritable(path: Path, error: OSError) -> RecordError:
    """Return the error that says what could not be written, why, and what to do about it."""
    return RecordError(f"{path} could not be written: {error.strerror or error}. {advice(path, error)}")


def advice(path: Path, error: OSError) -> str:
    """Return the next step after a write that failed."""
    again = "run the same command again"
    match error.errno:
        case code if code in _FULL and _lacks_inodes(path):
            return f"Its disk holds as many files as it can (`df -i`): remove some and {again}."
        case code if code in _FULL:
            return f"Free some space and {again}."
        case code if code in _FORBIDDEN:
            return f"Choose a folder that you may write to, or change who may, and {again}."
        case code if code in _OTHER_KIND:
            return f"A file stands where a folder is needed, or the other way round: remove it and {again}."
        case errno.EFBIG:
            return (
                f"Files may not become that large: raise the limit (`ulimit -f`) or choose another disk, and {again}."
            )
        case errno.ENAMETOOLONG:
            return "The file system takes no names that long: choose shorter ones."
        case _:
            return f"Check the disk and {again}."


def _lacks_inodes(path: Path) -> bool:
    try:
        facts = os.statvfs(path if path.is_dir() else path.parent)
    except (AttributeError, OSError):  # Windows; the folder is gone
        return False
    return facts.f_files > 0 and facts.f_favail == 0


def write_atomically(path: Path, content: str | Bytes, *, durable: bool = True) -> None:
    """Write a file so that it exists whole or not at all; if `durable`, even across a power cut. Raises RecordError."""
    write_together({path: content}, durable=durable)


def write_together(contents: Mapping[Path, str | Bytes], stale: Iterable[Path] = (), *, durable: bool = True) -> None:
    """Write files of which the last one vouches for the others, and remove stale ones. Raises RecordError.

    If `durable`, everything is on the disk before the first file appears. They appear in their order; stale files go
    before the last one appears. When something cannot be written, nothing has changed.
    """
    parts: dict[Path, _Part] = {}
    path = next(iter(contents))
    try:
        for path, content in contents.items():
            parts[path] = _Part(path.parent)
            parts[path].write(content, durable)
        *others, last = contents
        for path in others:
            parts[path].file.replace(path)
        for path in stale:
            path.unlink(missing_ok=True)
        path = last
        parts[path].file.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        for part in parts.values():
            part.close()


class _Part:
    """A file on its way: `.HOST-RANDOM.part` in its folder, locked by its writer for as long as that lives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock: int | None = None
        while self._lock is None:
            self.file = folder / f".{_HOST}-{secrets.token_hex(4)}{PART}"
            self._lock = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)  # the umask says who may read
            if not _lock(self._lock, wait=True):
                self.unlock()  # a system without locks, which may not rename open files either
                return
            if not self.file.exists():  # `sweep` was faster than the lock
                self.unlock()

    def write(self, content: str | Bytes, durable: bool) -> None:
        """Write it; if `durable`, it is on the disk then."""
        with self.file.open("rb+") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if durable:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Remove the file, unless it has got its name."""
        self.file.unlink(missing_ok=True)
        self.unlock()

    def unlock(self) -> None:
        """Free the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def append_line(path: Path, line: str) -> None:
    """Add a line to a file that other processes may add lines to at the same time. Raises RecordError.

    A line that a killed process has left unfinished ends before this one begins.
    """
    try:
        with path.open("a+b") as file:
            _lock(file.fileno(), wait=True)
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
            torn = end > 0 and file.read(1) != b"\n"
            file.write((b"\n" if torn else b"") + line.encode() + b"\n")
    except OSError as error:
        raise unwritable(path, error) from error


def sweep(folder: Path, *below: str) -> None:
    """Remove what writers that died have left in a folder: those of this machine at once, of others after a day.

    below: more folders to look into, as patterns for glob that end with a slash.
    """
    for path in (path for pattern in ("", *below) for path in folder.glob(f"{pattern}.*{PART}")):
        try:
            if path.name.startswith(f".{_HOST}-"):
                _remove_if_dead(path)
            elif time.time() - path.stat().st_mtime > DAY:
                path.unlink()
        except OSError:
            continue  # another process removes it as well, or it may not be touched: it harms nothing


def _remove_if_dead(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        if _lock(descriptor, wait=False):
            path.unlink()
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process or thread at a time into the block of a folder, where the file system knows locks.

    The system drops locks with their process, even after `kill -9`. Raises RecordError where there is no folder and
    none can be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        yield
        return
    try:
        _lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, wait: bool) -> bool:
    """Lock an open file until it is closed; tell whether that was possible."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):  # Windows; a file system without locks; another process has it
        return False
    return True


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits. Raises UsageError when it cannot be read."""
    try:
        with documents.open_file(path) as file:
            return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
    except documents.Malformed as error:
        raise UsageError(f"{path} cannot be read: {error}. Check the path.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}. Check the path.") from error


def sha256_of_all(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of several files, wherever they lie: of one its own, of more that of their names and digests.

    Names are relative to the folder that holds them all. Raises UsageError when one cannot be read.
    """
    paths = list(paths)
    if len(paths) == 1:
        return sha256(paths[0])
    root = Path(os.path.commonpath([path.parent for path in paths]))
    return fingerprint({path.relative_to(root).as_posix(): sha256(path) for path in paths})


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=plain).encode()).hexdigest()


def as_json(value: Any) -> Any:
    """Return a value as JSON gives it back: tuples are lists, sets sorted lists, paths texts."""
    return json.loads(json.dumps(value, default=plain))


def plain(value: Any) -> Any:
    """Return a set or path as JSON can hold it: a sorted list, a POSIX path. Raises TypeError for anything else."""
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} does not belong in a record")
