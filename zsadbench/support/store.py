"""Results that can be computed again, kept between runs in a folder that processes share.

An entry is a file: a digest, a few facts as JSON, and bytes. It appears whole or not at all, and is used only if its
digest is right; a damaged one is removed. The folder has a limit: what was not used for the longest time leaves first.
Entries of one kind and origin lie on one shelf, a folder whose `about.json` says what they were made by.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zsadbench.errors import RecordError, UsageError
from zsadbench.support import files

FOLDER = "kept"  # inside the cache's folder, beside the demo images and the digests of files
ABOUT = "about.json"
LIMIT = 50 * 10**9  # bytes
RESERVE = 10**9  # bytes that are left free on the disk, for the results of runs
STEP = 1 / 32  # of the limit: what one process writes before it looks what others have written
ALIGNED = 64  # bytes, as torch aligns its tensors: the bits of a product may depend on it
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


class Entry(NamedTuple):
    """What was kept under a key."""

    facts: dict[str, Any]
    content: np.ndarray  # [bytes] uint8, owned by the caller


class Contents(NamedTuple):
    """What lies on one shelf."""

    about: dict[str, Any]
    entries: int
    size: int  # bytes
    used: float  # when one of them was last used, seconds since 1970


class Store:
    """The entries below one folder, as one run uses them. Threads may share it."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        """Touch nothing yet. limit: bytes of all entries together; what this run uses itself does not leave for it."""
        self.folder, self._limit = folder / FOLDER, limit
        self._began = time.time_ns()
        self._room = 0  # bytes that may be written before the next look at the folder
        self._closed = False
        self._warned = False
        self._lock = threading.Lock()

    def shelf(self, about: Mapping[str, Any]) -> Shelf:
        """Return the shelf of what is made by some code, weights and settings: JSON values, all of which count."""
        return Shelf(self, self.folder / files.fingerprint(about)[:32], about)

    def write(self, path: Path, content: bytes | bytearray) -> None:
        """Write a file, if there is room; where that is impossible, say so once and write nothing more."""
        if not self._take(len(content)):
            return
        try:
            files.write_atomically(path, content, durable=False)
        except RecordError as error:
            self._close(str(error))

    def drop(self, path: Path) -> None:
        """Remove a damaged entry, and tell of the first one."""
        _remove(path)
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{path} in the cache was damaged. It is made anew, as are others like it; if that happens again, "
                "check the disk.",
                stacklevel=1,
            )

    def _take(self, size: int) -> bool:
        with self._lock:
            if self._room < size and not self._closed:
                self._make_room(size)
            if self._closed:
                return False
            self._room -= size
            return True

    def _make_room(self, size: int) -> None:
        """See what is there, and remove what was not used for the longest time."""
        files.sweep(self.folder, "*/")
        found = sorted((facts.st_mtime_ns, facts.st_size, path) for path, facts in _entries(self.folder))
        held = sum(size for _, size, _ in found)
        allowed = min(self._limit, held + _free(self.folder) - RESERVE)
        step = max(int(self._limit * STEP), size)
        for used, own, path in found:
            if held + step <= allowed or used >= self._began:
                break
            _remove(path)
            held -= own
        self._room = min(step, allowed - held)
        if self._room < size:
            full = "the limit" if allowed == self._limit else "what its disk can spare"
            self._close(
                f"this run alone needs more than {full} of {in_words(max(allowed, 0))}. Raise --cache-limit, or choose "
                "a --cache on a larger disk."
            )

    def _close(self, why: str) -> None:
        if not self._closed:
            self._closed = True
            warnings.warn(f"the cache {self.folder.parent} takes nothing more: {why} The run goes on.", stacklevel=1)


class Shelf:
    """Entries of one kind and origin."""

    def __init__(self, store: Store, folder: Path, about: Mapping[str, Any]) -> None:
        self._store, self._folder, self._about = store, folder, about
        self._labelled = False

    def has(self, key: str) -> bool:
        """Tell whether there is an entry, damaged or not."""
        return (self._folder / key).is_file()

    def get(self, key: str) -> Entry | None:
        """Return an entry, which counts as used now; None if there is none. A damaged one is removed, with a note."""
        path = self._folder / key
        try:
            with path.open("rb") as file:
                content = _aligned(os.fstat(file.fileno()).st_size)
                whole = file.readinto(content.data) == len(content)
        except OSError:  # none there, or one that may not be read
            return None
        with suppress(OSError):  # of a folder that may only be read
            os.utime(path)
        entry = self._opened(key, content) if whole else None
        if entry is None:
            self._store.drop(path)
        return entry

    def put(self, key: str, facts: Mapping[str, Any], content: np.ndarray) -> None:
        """Keep an entry, if that is possible; `content` is of any shape and type, contiguous."""
        told = json.dumps(facts).encode()
        # Facts are padded so that the content lies aligned in the file, and in what `get` reads.
        told += b" " * (-(32 + 4 + len(told)) % ALIGNED)
        body = bytearray().join((bytes(32), len(told).to_bytes(4, "big"), told, content.reshape(-1).data.cast("B")))
        body[:32] = self._digest(key, memoryview(body)[32:])
        if not self._labelled:
            self._labelled = True  # again in every run: a shelf may have been cleared meanwhile
            self._store.write(self._folder / ABOUT, json.dumps(self._about, indent=1).encode())
        self._store.write(self._folder / key, body)

    def _opened(self, key: str, content: np.ndarray) -> Entry | None:
        if len(content) < 36 or self._digest(key, content[32:].data) != content[:32].tobytes():
            return None
        start = 36 + int.from_bytes(content[32:36].tobytes(), "big")
        return Entry(json.loads(content[36:start].tobytes()), content[start:])

    def _digest(self, key: str, body: memoryview) -> bytes:
        """Return a digest of an entry that also holds its place: a file that was moved is no entry."""
        digest = hashlib.sha256(f"{self._folder.name}/{key}".encode())
        digest.update(body)
        return digest.digest()


def contents(folder: Path) -> list[Contents]:
    """Return what each shelf below a cache's folder holds, the largest first."""
    found = []
    shelves: dict[Path, list[os.stat_result]] = {}
    for path, facts in _entries(folder / FOLDER):
        shelves.setdefault(path.parent, []).append(facts)
    for shelf, held in shelves.items():
        try:
            about = dict(json.loads((shelf / ABOUT).read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError):
            about = {}
        found.append(Contents(about, len(held), sum(f.st_size for f in held), max(f.st_mtime for f in held)))
    return sorted(found, key=lambda one: -one.size)


def clear(folder: Path) -> None:
    """Remove all entries below a cache's folder, and nothing else there. Raises RecordError."""
    try:
        shutil.rmtree(folder / FOLDER)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RecordError(
            f"{error.filename or folder} could not be removed: {error.strerror or error}. {files.advice(folder, error)}"
        ) from error


def parse_size(text: str) -> int:
    """Return the bytes that a text such as "50GB", "1.5 TB" or "512MiB" means. Raises UsageError."""
    number, unit = text.strip().upper(), 1
    for name, factor in UNITS.items():
        if number.endswith(name):
            number, unit = number.removesuffix(name).strip(), factor
            break
    try:
        size = float(number) * unit
        if not 0 < size < 2**63:
            raise ValueError
    except ValueError:
        raise UsageError(f"--cache-limit {text}: expected a size above 0, such as 50GB, 500MB or 2TB.") from None
    return int(size)


def in_words(size: float) -> str:
    """Return a number of bytes as people say it: "3.2 GB"."""
    for name in ("TB", "GB", "MB", "KB"):
        if size >= UNITS[name]:
            return f"{size / UNITS[name]:.3g} {name.replace('K', 'k')}"
    return f"{size:.0f} bytes"


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files of all entries; those that vanish meanwhile are left out."""
    try:
        shelves = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return
    for shelf in shelves:
        try:
            with os.scandir(shelf) as found:
                entries = [entry for entry in found if entry.name != ABOUT and not entry.name.startswith(".")]
        except OSError:
            continue
        for entry in entries:
            try:
                yield Path(entry.path), entry.stat()
            except OSError:
                continue


def _free(folder: Path) -> int:
    """Return the bytes that are free on the disk of a folder that need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:  # a file system that does not tell
        return 2**62


def _aligned(size: int) -> np.ndarray:
    """Return an array of bytes whose first one lies where a tensor's would."""
    room = np.empty(size + ALIGNED, np.uint8)
    start = -room.ctypes.data % ALIGNED
    return room[start : start + size]


def _remove(path: Path) -> None:
    with suppress(OSError):  # in use (Windows), or not ours: it stays until another time
        path.unlink(missing_ok=True)
