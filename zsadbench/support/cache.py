"""The folder where this user's computer keeps what can be made again: demo images, digests of files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "ZSADBENCH_CACHE"


def folder() -> Path:
    """Return the folder, which need not exist: ZSADBENCH_CACHE, else zsadbench/ in the system's place for caches."""
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "zsadbench"
    usual = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    return Path(usual or Path.home() / ".cache") / "zsadbench"
