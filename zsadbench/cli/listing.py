"""What `zsadbench list` prints, read from names and cards alone: no plugin is imported, torch neither."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from zsadbench import datasets, encoders, methods
from zsadbench.analysis.rows import SCOPES
from zsadbench.methods import MethodCard

PRINTED = ("setting", "presets", "normal", "anomalous", "levels", "fetch")  # facts that fit a terminal; JSON has all


@dataclass(frozen=True)
class Entry:
    """One line: the name to type, what it is, and further facts by column title."""

    name: str
    title: str
    facts: dict[str, str]


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
    return f"{card.shots}-shot{SCOPES[card.scope]}"


def _methods() -> list[Entry]:
    return [
        Entry(item.name, f"broken: {item.problem}", {})
        if item.card is None
        else Entry(
            item.name,
            item.card.title,
            {
                "setting": setting(item.card),
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
