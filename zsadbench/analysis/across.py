"""Which rows of several datasets are one method: what runs under one name, with the preset that suits each dataset.

`april_gan` is one method, although it runs on MVTec AD with weights trained on VisA and elsewhere with others, and so
is `musc`, whose paper used other windows on VisA. In a table of one dataset rows keep the name of their preset; where
datasets stand beside each other or are ranked over, they are one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from zsadbench.analysis.rows import ENCODER_FIELDS, Name, facts_of_setting, identity, name_methods, titled
from zsadbench.records import published
from zsadbench.records.results import Record
from zsadbench.support import variants

Row = tuple[str, str]  # of `rows.identity`


def names(records: Iterable[Record]) -> dict[Row, Name]:
    """Name every row as `rows.name_methods` does, but rows that are one method over several datasets alike."""
    records = list(records)
    own = name_methods(records)
    groups: dict[tuple[str, ...], dict[Row, set[str]]] = {}
    titles: dict[Row, str] = {}
    for record in records:
        if record.status == "done":
            row = identity(record)
            titles[row] = record.title
            groups.setdefault(_method(record, own[row]), {}).setdefault(row, set()).add(record.dataset)
    for (bare, suffix, *_), found in groups.items():
        apart = len(set.union(*found.values())) == sum(map(len, found.values()))  # else they are rivals somewhere
        if len(found) > 1 and apart:
            name = Name(bare + suffix, titled(bare, titles[next(iter(found))]) + suffix)
            own |= dict.fromkeys(found, name)
    return own


def notes(records: Iterable[Record]) -> Iterator[str]:
    """Yield which methods stand behind a name that is shared by several."""
    records = [record for record in records if record.status == "done"]
    shared = names(records)
    behind: dict[Name, dict[str, dict[str, None]]] = {}
    for record in records:
        behind.setdefault(shared[identity(record)], {}).setdefault(record.method, {})[record.dataset] = None
    for name, found in behind.items():
        if len(found) > 1:
            told = (f"{method} on {', '.join(datasets)}" for method, datasets in found.items())
            yield f"{name.title} is {'; '.join(told)}."


def _method(record: Record, name: Name) -> tuple[str, ...]:
    """Return what a row has in common with the same method on another dataset; first its bare name and its suffix."""
    suffix = name.cli.removeprefix(record.method)
    if record.changed is None:
        return record.method, suffix, json.dumps(record.options, sort_keys=True, default=str)
    facts = {option: record.options.get(option) for option in record.changed}
    facts |= {field: record.encoder.get(field) for field in ENCODER_FIELDS}
    facts |= facts_of_setting(record)
    return _bare_name(record), suffix, json.dumps(facts, sort_keys=True, default=str)


def _bare_name(record: Record) -> str:
    """Return the name, without its preset or training set, that stands for a record's method on its dataset."""
    base, options = variants.base_of(record.method), variants.suffix_of(record.method)
    for (name, dataset), preset in published.presets().items():
        if (preset, dataset) == (base, record.dataset):
            return name + options
    stem, _, preset = base.partition(".")
    trained_on = str(record.options.get("trained_on", "")).partition(".")[0]
    if trained_on and preset == trained_on:
        return stem
    family = preset.removesuffix(f"_{trained_on}") if trained_on else preset
    return (f"{stem}.{family}" if family else stem) + options
