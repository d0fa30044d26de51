"""Which published number stands beside a measured one, and what must be said of it.

A number stands there if its method ran with the options of a preset that `joins.csv` names for the dataset, on all of
its images; otherwise it is withheld, and the table says why. It is marked where the paper's configuration is known to
differ or cannot be known, and under another protocol than zsadbench's own, which may be nearer to the paper's or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import NamedTuple

from zsadbench.datasets import DatasetCard
from zsadbench.metrics import Column
from zsadbench.protocol import FREE_FIELDS, EvaluationProtocol
from zsadbench.records.published import Key, Library, Number
from zsadbench.records.results import Record

PROTOCOL = {
    name: value for name, value in asdict(EvaluationProtocol()).items() if name not in FREE_FIELDS | {"seed", "limit"}
}
OF_PIXELS = ("eval_size", "native_masks", "mask_rule")  # what pixel metrics alone depend on


class Published(NamedTuple):
    """What stands beside a measured number."""

    number: Number | None = None
    differs: tuple[str, ...] = ()  # in what the number's configuration is another one, or may be
    withheld: tuple[str, ...] = ()  # why a number that there is does not stand there


NOTHING = Published()


def published(key: Key, records: Sequence[Record], library: Library, card: DatasetCard | None) -> Published:
    """Return what stands beside the number of a row, which was measured on the categories of some records."""
    found = library.find(key)
    if found is None:
        return NOTHING
    first = records[0]
    withheld = [*_options(first), *_images(records, card)]
    if withheld:
        return Published(withheld=tuple(withheld))
    protocol = _protocol(first, (key.level, key.metric))
    return Published(found.number, tuple(filter(None, [found.differs, first.setting.get("checkpoint", ""), *protocol])))


def _options(record: Record) -> Iterator[str]:
    if record.changed is None:
        yield "a record that does not tell whether options were changed"
    for name, preset in (record.changed or {}).items():
        nested = isinstance(preset, dict)  # a training recipe
        yield f"another {name}" if nested else f"{name} {record.options.get(name)} instead of {preset}"


def _protocol(record: Record, column: Column) -> Iterator[str]:
    """Yield the fields of the protocol that decide this number and are not zsadbench's own."""
    level, metric = column
    for name, usual in PROTOCOL.items():
        value = record.protocol.get(name, usual)
        useless = (
            (name in OF_PIXELS and level == "image")
            or (name == "aupro_limit" and metric != "aupro")
            or (name == "order" and record.setting.get("scope") != "batch")
        )
        if value != usual and not useless:
            yield f"measured with {name} {value} instead of {usual}"


def _images(records: Sequence[Record], card: DatasetCard | None) -> Iterator[str]:
    """Yield what says that the run saw other images than papers: a limit, or the first category with other counts."""
    limit = records[0].protocol.get("limit")
    if limit is not None:
        yield f"at most {limit} images a category"
        return
    for record in records:
        expected = card.expected.get(record.category) if card else None
        found = tuple(record.details.get(name) for name in ("normal", "anomalous"))
        if expected is not None and None not in found and found != tuple(expected):
            counts = f"{found[0]} normal and {found[1]} anomalous images"
            yield f"{counts} of {record.category} instead of {expected[0]} and {expected[1]}"
            return
