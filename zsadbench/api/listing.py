"""What there is: methods and data sets by name, and everything that one of them says of itself."""

from __future__ import annotations

from dataclasses import asdict
from fnmatch import fnmatch
from typing import Any

from zsadbench import datasets, methods


def list_methods(pattern: str = "*") -> list[str]:
    """Return the names of methods that match a pattern, without presets; no plugin is imported.

    Example:
        >>> import zsadbench as z
        >>> z.list_methods("win*")
        ['winclip']
    """
    return [item.name for item in methods.available() if fnmatch(item.name, pattern)]


def list_datasets(pattern: str = "*") -> list[str]:
    """Return the names of data sets that match a pattern, with variants; no plugin is imported.

    Example:
        >>> import zsadbench as z
        >>> z.list_datasets("vis*")
        ['visa']
    """
    return [item.name for item in datasets.available() if fnmatch(item.name, pattern)]


def describe(name: str) -> dict[str, Any]:
    """Return what a method says of itself: name, card, presets with their options. Raises UnknownName, PluginError.

    Example:
        >>> import zsadbench as z
        >>> z.describe("winclip")["name"]
        'winclip'
    """
    method, full, config = methods.lookup(name)
    return {
        "name": full,
        "card": asdict(method.card),
        "options": asdict(config),
        "presets": {preset: asdict(options) for preset, options in method.presets.items()},
    }
