"""What image and mask files hold: SHA-256 digests, remembered between runs by place, size and times of each file.

The memory is one JSON file a data set in the user's cache folder. Processes may write it at once: it is replaced whole,
so that at worst a digest is computed again, as for a memory that is damaged or cannot be written.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from zsadbench.datasets import Sample
from zsadbench.errors import RecordError, UsageError
from zsadbench.support import cache, files

Progress = Callable[[int, int], None]  # called with (done, total) files

READERS = 8  # threads: reading waits for the disk or the network, and hashing releases the interpreter lock
CHUNK = 256  # files whose times one thread asks for at a go
SLOW = 1.0  # seconds of reading before progress is told
# A file that changed less than this before it was read may change again without another time: the coarsest clock of a
# file system (FAT's) ticks every 2 s. Its digest holds now, but is not remembered (as git does with its index).
TICK = 2 * 10**9  # nanoseconds


# What tells, without reading it, whether a file is still the one that was read: size, time of the last modification and
# of the inode's last change (ns; a restored modification time hides nothing), and inode.
State = tuple[int, int, int, int]


def folder() -> Path:
    """Return where digests are remembered."""
    return cache.folder() / "contents"


def digests(root: Path, paths: Iterable[Path], progress: Progress | None = None) -> dict[Path, str]:
    """Return the SHA-256 of each file; "" for one that cannot be read. `root` is the data set's folder.

    `progress` is called while files are read, if that takes longer than a second.
    """
    paths = list(dict.fromkeys(paths))
    memory = _Memory(root)
    with ThreadPoolExecutor(READERS) as pool:
        chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
        states = chain.from_iterable(pool.map(_states, chunks))
        found = {path: memory.recall(path, state) for path, state in zip(paths, states, strict=True)}
        unknown = [path for path, digest in found.items() if not digest]
        began = time.monotonic()
        try:
            for done, (path, (digest, state)) in enumerate(zip(unknown, pool.map(_read, unknown), strict=True), 1):
                found[path] = digest
                if state is not None:
                    memory.learn(path, state, digest)
                if progress is not None and time.monotonic() - began > SLOW:
                    progress(done, len(unknown))
        finally:
            memory.save()
    return found


def files_of(samples: Iterable[Sample]) -> list[Path]:
    """Return the image and mask files of some samples."""
    return [path for sample in samples for path in (sample.image, *sample.masks)]


def sha256(samples: Sequence[Sample], known: Mapping[Path, str]) -> str:
    """Return one hash of what the files of a sample list hold, in order; `known` has the digest of each file."""
    lines = ("\0".join(known[path] for path in files_of([sample])) for sample in samples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def marks(samples: Iterable[Sample], known: Mapping[Path, str]) -> frozenset[str]:
    """Return what tells the images of some samples from all others: the starts of their digests.

    64 bits: among 10,000 images and 10,000 others, one in 10^11 cases has two that agree by chance.
    """
    return frozenset(known[sample.image][:16] for sample in samples if known[sample.image])


def _states(paths: Sequence[Path]) -> list[State | None]:
    return [_state(path) for path in paths]


def _state(path: Path) -> State | None:
    try:
        facts = os.stat(path)  # noqa: PTH116  # half the time of Path.stat, for each file of a plan
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def _read(path: Path) -> tuple[str, State | None]:
    """Return a file's digest, and its state if that may be remembered; the digest is "" if it cannot be read."""
    began, before = time.time_ns(), _state(path)
    try:
        digest = files.sha256(path)
    except UsageError:
        return "", None
    settled = before is not None and began - max(before[1:3]) > TICK
    return digest, before if settled and before == _state(path) else None


class _Memory:
    """The digests that are known of a data set's files."""

    def __init__(self, root: Path) -> None:
        whole = os.path.realpath(root)
        self._path = folder() / f"{hashlib.sha256(os.fsencode(whole)).hexdigest()[:32]}.json"
        self._top = f"{root}{os.sep}"
        self._known = self._load()
        self._fresh: dict[str, list[int | str]] = {}

    def recall(self, path: Path, state: State | None) -> str:
        """Return the digest of a file in this state, "" if it is not known."""
        entry = self._known.get(self._name(path))
        return str(entry[-1]) if entry and state is not None and entry[:-1] == [*state] else ""

    def learn(self, path: Path, state: State, digest: str) -> None:
        self._fresh[self._name(path)] = [*state, digest]

    def save(self) -> None:
        """Write what was learnt, beside what another process may have written meanwhile."""
        if not self._fresh:
            return
        try:
            files.write_atomically(self._path, json.dumps({**self._load(), **self._fresh}))
        except RecordError as error:
            warnings.warn(
                f"what files hold cannot be remembered: {error} Or set {cache.VARIABLE} to a folder that can be "
                "written; until then every run reads all images once more.",
                stacklevel=1,
            )

    def _load(self) -> dict[str, list[int | str]]:
        try:
            entries = json.loads(self._path.read_bytes())
            return {name: entry for name, entry in entries.items() if len(entry[-1]) == 64}
        except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
            return {}  # missing or damaged: the files are read again

    def _name(self, path: Path) -> str:
        """Return a file's place below the root: the data may be reached by another way next time."""
        return str(path).removeprefix(self._top)
