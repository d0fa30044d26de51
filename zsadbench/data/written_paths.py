"""Paths as index files write them, whose authors had other machines -> files below a dataset's root."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from zsadbench.errors import DataError


def is_absolute(text: str) -> bool:
    """Tell whether a written path starts at the top of a machine, of whichever system."""
    return text.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", text) is not None


def resolve(text: str, root: Path, where: str, is_meta: bool) -> Path | None:
    """Return the file that a written path names below the root, or None. Raises DataError if the path leaves the root.

    An absolute path of a meta.json comes from its author's machine, Windows included: its longest suffix that exists
    below the root counts.
    """
    written = PurePosixPath(text.replace("\\", "/"))
    if not is_absolute(text):
        inside = _inside(root / written, root)
    else:
        here = Path(written)
        inside = (_inside(here, root) or _inside(here, root.resolve())) if here.is_absolute() else None
        if inside is None and is_meta and ".." not in written.parts:
            suffixes = (Path(*written.parts[start:]) for start in range(1, len(written.parts)))
            inside = next((suffix for suffix in suffixes if _is_file(root / suffix)), None)
            if inside is None:
                return None
    if inside is None:
        raise DataError(f"{where}: {text} lies outside {root}; expected a path below that folder, or see --data-root.")
    if not _is_file(root / inside):
        return None
    if not Path(os.path.realpath(root / inside)).is_relative_to(os.path.realpath(root)):
        raise DataError(f"{where}: {text} is a link that leads out of {root}; expected a file below that folder.")
    return root / inside


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that must not be entered
        return False


def _inside(path: Path, root: Path) -> Path | None:
    """Return a path relative to the root with ".." taken out, or None if it leads elsewhere; links are not followed."""
    top = Path(os.path.normpath(root.absolute()))
    normal = Path(os.path.normpath(path.absolute()))
    return normal.relative_to(top) if normal.is_relative_to(top) else None
