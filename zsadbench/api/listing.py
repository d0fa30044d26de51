"""What there is: methods and data sets by name, and everything that one of them says of itself."""

from __future__ import annotations

from dataclasses import asdict
from fnmatch import fnmatch
from typing import Any, Literal

from zsadbench import datasets, methods
from zsadbench.errors import UnknownName
from zsadbench.support import spelling, variants


def list_methods(pattern: str = "*") -> list[str]:
    """Return the names of methods that match a pattern in any case, without presets; no plugin is imported.

    Example:

        >>> import zsadbench as z
        >>> z.list_methods("win*")
        ['winclip']
    """
    return [item.name for item in methods.available() if fnmatch(item.name, pattern.lower())]


def list_datasets(pattern: str = "*") -> list[str]:
    """Return the names of data sets that match a pattern in any case, with variants; no plugin is imported.

    Example:

        >>> import zsadbench as z
        >>> z.list_datasets("vis*")
        ['visa']
    """
    return [item.name for item in datasets.available() if fnmatch(item.name, pattern.lower())]


def describe(name: str) -> dict[str, Any]:
    """Return what a method or data set says of itself: name and card; of a method also its options and presets.

    options: name -> value, of the preset that the name means; presets: name -> options. Raises UnknownName,
    PluginError.

    Example:

        >>> import zsadbench as z
        >>> z.describe("winclip")["name"]
        'winclip'
        >>> z.describe("visa")["card"]["title"]
        'VisA'
    """
    kind, name = resolve(name)
    if kind == "dataset":
        card = next(item.card for item in datasets.available() if item.name == name and item.card)
        return {"name": name, "card": asdict(card)}
    method, full, config = methods.lookup(name)
    return {
        "name": full,
        "card": asdict(method.card),
        "options": asdict(config),
        "presets": {preset: asdict(options) for preset, options in method.presets.items()},
    }


def resolve(name: str) -> tuple[Literal["method", "dataset"], str]:
    """Return whether a name in any spelling means a method or a dataset, and its registered name; nothing is imported.

    Raises UnknownName.
    """
    sets = {item.name: item.card for item in datasets.available() if item.card}
    own = {item.name: item.card for item in methods.available()}
    titles = {card.title: known for known, card in (*sets.items(), *own.items()) if card}
    if spelling.match("method or dataset", variants.stem_of(name), [*own, *sets], lambda: titles) in own:
        return "method", methods.registered_name(name)
    found = datasets.registered_name(name)
    if found not in sets:
        raise UnknownName("dataset", name, sets)
    return "dataset", found
