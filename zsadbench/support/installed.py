"""Plugins that installed packages name in their metadata, which is slow to read: once is enough."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points


def plugins(package: str) -> dict[str, EntryPoint]:
    """Return the entry points of the group of a contract module, such as "zsadbench.methods", by name."""
    # Keyed by sys.path: a package installed during the process (tests do) is seen, and repeated look-ups stay free.
    return _plugins(package, tuple(sys.path))


@cache
def _plugins(package: str, search_path: tuple[str, ...]) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=package)}
