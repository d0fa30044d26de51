"""`zsadbench list`: what there is, read from names and cards alone: no plugin is imported, torch neither."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated

import typer

from zsadbench import datasets, encoders, methods
from zsadbench.analysis.rows import setting_name
from zsadbench.api.listing import list_methods
from zsadbench.cli.options import AsJson, Plugins, add_plugins, say, show
from zsadbench.errors import UsageError
from zsadbench.methods import MethodCard

PRINTED = ("setting", "presets", "normal", "anomalous", "levels", "fetch")  # facts that fit a terminal; JSON has all


class ListKind(StrEnum):
    """What `zsadbench list` can list."""

    methods = "methods"
    datasets = "datasets"
    encoders = "encoders"


@dataclass(frozen=True)
class Entry:
    """One line: the name to type, what it is, and further facts by column title."""

    name: str
    title: str
    facts: dict[str, str]


def list_(
    kind: Annotated[ListKind, typer.Argument(help="methods, datasets or encoders.")] = ListKind.methods,
    scope: Annotated[str, typer.Option(metavar="SCOPE", help="Methods of image, batch or category scope.")] = "",
    trained: Annotated[
        bool | None, typer.Option("--trained/--training-free", metavar="", help="Methods with such a preset.")
    ] = None,
    search: Annotated[str, typer.Option(metavar="TEXT", help="In a method's name, title, paper or notes.")] = "",
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """List what is available, plugins included."""
    if kind is not ListKind.methods and (scope or search or trained is not None):
        raise UsageError(f"--scope, --trained, --training-free and --search are for methods; got {kind.value}.")
    add_plugins(plugins)
    if kind is ListKind.methods:
        print_rows("methods", as_json, list_methods(scope=scope, trained=trained, search=search))
    else:
        print_rows(kind.value, as_json)


def print_rows(kind: str, as_json: bool, names: Collection[str] | None = None) -> None:
    """Print the lines of a kind, or of those names of it, as a table or as JSON with every fact."""
    found = [row for row in rows(kind) if names is None or row.name in names]
    if not found and not as_json:
        say(f"No {kind} fit.")
        return
    show(json.dumps([asdict(row) for row in found], indent=1) if as_json else render(found))


def rows(kind: str) -> list[Entry]:
    """Return the lines of "methods", "datasets" or "encoders", sorted by name; a broken plugin's line says why."""
    return {"methods": _methods, "datasets": _datasets, "encoders": _encoders}[kind]()


def render(lines: Sequence[Entry]) -> str:
    """Return the lines as an aligned table."""
    from zsadbench.tables import sheet

    columns = list(dict.fromkeys(name for line in lines for name in line.facts if name in PRINTED))
    body = [[line.name, line.title, *(line.facts.get(column, "") for column in columns)] for line in lines]
    return sheet.plain(["name", "title", *columns], body)


def setting(card: MethodCard) -> str:
    """Return the setting of a method's default preset as tables name it, such as "1-shot" or "0-shot, batch"."""
    return setting_name(card.scope, card.shots)


def _methods() -> list[Entry]:
    return [
        Entry(item.name, f"broken: {item.problem}", {})
        if item.card is None
        else Entry(
            item.name,
            item.card.title,
            {
                "setting": setting(item.card),
                "image scope": item.card.image_scope or item.card.scope,
                "presets": str(len(item.presets)),
                "names": ", ".join(f"{item.name}.{preset}" for preset in item.presets[1:]),
                "reference": item.card.reference,
            },
        )
        for item in methods.available()
    ]


def _datasets() -> list[Entry]:
    lines = []
    for item in datasets.available():
        if item.card is None:
            lines.append(Entry(item.name, f"broken: {item.problem}", {}))
            continue
        facts = {
            "domain": item.card.domain,
            "categories": str(len(item.card.expected) or "?"),
            "normal": _total(item.card.expected.values(), 0),
            "anomalous": _total(item.card.expected.values(), 1),
            "levels": " ".join(item.card.levels),
            "fetch": "yes" if item.card.downloads else "",
            "licence": item.card.licence,
        }
        lines.append(Entry(item.name, item.card.title, facts))
    return lines


def _total(expected: Collection[tuple[int, int]], label: int) -> str:
    """Return how many test images of a label a card expects; "?" where it expects nothing."""
    return str(sum(counts[label] for counts in expected)) if expected else "?"


def _encoders() -> list[Entry]:
    return [Entry(item.name, item.description, {}) for item in encoders.available()]
