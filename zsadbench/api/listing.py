"""What there is: methods and data sets by name, and everything that one of them says of itself."""

from __future__ import annotations

from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from zsadbench import datasets, methods
from zsadbench.errors import MissingDependency, PluginError, UnknownName
from zsadbench.methods import Scope
from zsadbench.support import spelling, variants

if TYPE_CHECKING:
    from zsadbench.analysis.run_list import ListedRun


def list_methods(pattern: str = "*", *, scope: str = "", trained: bool | None = None, search: str = "") -> list[str]:
    """Return the names of methods that match a pattern in any case, without presets.

    scope: "image", "batch" or "category". search: a text in the name, title, paper or notes, in any case. trained: True
    keeps those with a preset that is trained, False those with one that is not; a method may be both. Methods are
    imported for `trained` alone; those that cannot be are left out. Raises UnknownName for a scope.

    Example:

        >>> import zsadbench as z
        >>> z.list_methods("win*")
        ['winclip']
    """
    if scope and scope not in get_args(Scope):
        raise UnknownName("scope", scope, get_args(Scope))
    return [
        item.name
        for item in methods.available()
        if fnmatch(item.name, pattern.lower())
        and (not scope or (item.card is not None and item.card.scope == scope))
        and (not search or search.casefold() in _words(item))
        and (trained is None or trained in _trainings(item.name))
    ]


def _words(item: methods.MethodListing) -> str:
    card = item.card
    return "\n".join([item.name, *([card.title, card.reference, card.notes] if card else [])]).casefold()


def _trainings(name: str) -> set[bool]:
    """Return whether presets of a method are trained: some, none or both; nothing where it cannot be imported."""
    try:
        return {bool(getattr(config, "trained_on", "")) for config in methods.lookup(name)[0].presets.values()}
    except (PluginError, MissingDependency):
        return set()


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


def list_runs(folder: str | Path = "runs") -> list[ListedRun]:
    """Return the runs in a folder, as `zsadbench runs` lists them. Raises RecordError where there is none.

    Example:

        >>> import zsadbench as z
        >>> _ = z.evaluate("constant", "demo", out="runs/example", limit=2)
        >>> z.list_runs("runs/example")[0].done
        4
    """
    from zsadbench.analysis import run_list

    return run_list.list_runs(Path(folder))
