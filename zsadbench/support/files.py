"""Files that appear whole or not at all, and digests of files and of values."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from zsadbench.errors import RecordError, UsageError


def make_folder(folder: Path) -> None:
    """Create the folder of --out. Raises RecordError when that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(
            f"--out {folder} cannot be created: {error.strerror or error}. Choose another folder."
        ) from error


def write_atomically(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Write a file so that it exists whole or not at all, even across a power cut. Raises RecordError.

    content: what the file holds, or a function that writes it at the path that it is given.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
            temporary = Path(file.name)
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise RecordError(
            f"{path} could not be written: {getattr(error, 'strerror', None) or error}. Free some space and run the "
            "same command again."
        ) from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits. Raises UsageError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
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


def fingerprint(parts: dict[str, Any]) -> str:
    """Return the SHA-256 of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=plain).encode()).hexdigest()


def plain(value: Any) -> Any:
    """Return a set or path as JSON can hold it: a sorted list, a POSIX path. Raises TypeError for anything else."""
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} does not belong in a record")
