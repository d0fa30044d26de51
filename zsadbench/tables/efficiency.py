"""Efficiency beside quality, like Dual-Anchor's Table S1. Nothing is measured here.

One table per device, threads, precision and clock, because times of two of them must not be compared. A measured
quality stands in a row only if the same method ran with the same options on the same encoder. Published values stand in
brackets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from zsadbench import datasets
from zsadbench.analysis.rows import (
    SCOPES,
    Line,
    Table,
    arrange,
    identity,
    name_methods,
    setting_name,
    settle,
    titled,
)
from zsadbench.datasets import DatasetCard
from zsadbench.metrics import Column
from zsadbench.records.efficiency import EfficiencyRecord, load_run
from zsadbench.records.published import Found, Library
from zsadbench.records.results import Record
from zsadbench.support import variants
from zsadbench.tables import sheet, words
from zsadbench.tables.sheet import DASH, Sheet

QUALITY: tuple[Column, ...] = (("image", "auroc"), ("pixel", "ap"))  # of Table S1, for each dataset
SAME = ("spec", "size", "activation", "pos_embed")  # what an encoder must have in common with that of a quality
STAR = "*"  # random weights


class Cost(NamedTuple):
    """One number of the table."""

    column: str
    value: float | None  # None: not measured, or undefined
    digits: int
    published: Found | None = None
    mark: str = ""  # printed behind the value: a spread, a batch size, a leak, categories that lack


class MethodCosts(NamedTuple):
    """One method on one device."""

    record: EfficiencyRecord
    texts: tuple[str, ...]  # method, setting, encoder
    cells: tuple[Cost, ...]


def render(
    efficiency: Sequence[EfficiencyRecord], records: Sequence[Record], format: str = "md", published: bool = False
) -> str:
    """Return tables of efficiency records as text: "md", "latex" or "csv" (one line a method, every digit).

    `records` are the results of the same runs, for quality; there may be none. Raises RecordError where they must not
    share a table.
    """
    library = Library.read() if published else None
    rows = [*collect([record for record in efficiency if record.status == "done"], records, library)]
    if format == "csv":
        return _csv(rows)
    groups: dict[str, list[MethodCosts]] = {}
    for row in rows:
        groups.setdefault(device(row.record), []).append(row)
    sheets = [_sheet(f"Efficiency on {device}", group) for device, group in groups.items()]
    return (sheet.latex if format == "latex" else sheet.markdown)(sheets, [*_notes(rows, efficiency, library)])


def render_runs(folders: Sequence[Path], records: Sequence[Record], format: str, published: bool) -> str:
    """Return the tables of the efficiency records of run folders. Raises RecordError where a folder has none."""
    return render([one for folder in folders for one in load_run(folder)], records, format, published)


def device(record: EfficiencyRecord) -> str:
    """Return on what times were measured: what must agree for two of them to be compared."""
    threads = f", {record.threads} thread{'s' if record.threads != 1 else ''}" if record.threads is not None else ""
    return f"{record.device}{threads}, {record.precision}, {record.clock}"


def collect(
    efficiency: Sequence[EfficiencyRecord], records: Sequence[Record], library: Library | None = None
) -> Iterator[MethodCosts]:
    """Yield one row per finished measurement, sorted as in other tables. Raises RecordError as `arrange`."""
    cards = {listing.name: listing.card for listing in datasets.available() if listing.card}
    quality = _Quality(records, cards)
    order = list(SCOPES)
    for record in sorted(
        efficiency, key=lambda one: (order.index(one.setting["scope"]), one.title.lower(), one.method)
    ):
        title = titled(record.method, record.title)
        setting = setting_name(record.setting["scope"], record.setting["shots"])
        size = f", {record.encoder['size']} px" if record.encoder else ""
        encoder = f"{record.encoder.get('spec', DASH)}{size}"
        texts = title + (STAR if record.random_weights else ""), setting, encoder
        yield MethodCosts(record, texts, (*_efficiency(record, library), *quality.cells(record)))


def _efficiency(record: EfficiencyRecord, library: Library | None) -> Iterator[Cost]:
    training, first, best = record.training, record.timings[0], record.best

    def printed(metric: str) -> Found | None:
        if library is None or record.changed != {}:  # other options than the preset's, or not known
            return None
        return library.efficiency(
            variants.base_of(record.method), record.encoder.get("spec", ""), record.encoder.get("size"), metric
        )

    yield Cost("params M", record.parameters / 1e6, 1)
    yield Cost("trained M", record.trained_parameters / 1e6, 3)
    yield Cost("train GB", _gigabytes(record, training.peak_bytes) if training else None, 2, printed("train_memory_gb"))
    yield Cost("min/epoch", training.minutes_per_epoch if training else None, 2, printed("epoch_time_min"))
    yield Cost("later epochs", training.later_minutes_per_epoch if training else None, 2)
    yield Cost("infer GB", _gigabytes(record, first.peak_bytes), 2)
    spread = f"[{first.p10_ms:.1f} to {first.p90_ms:.1f}]"
    yield Cost("ms/image", first.median_ms, 1, printed("latency_ms"), spread)
    yield Cost("images/s", best.images_per_second, 1, mark=f"at {best.batch}")
    yield Cost("GFLOP/image", record.flops / 1e9 if record.flops else None, 1)
    yield Cost("% of peak", 100 * record.fraction_of_peak if record.fraction_of_peak else None, 1)
    yield Cost("encoder %", 100 * record.encoder_fraction if record.encoder_fraction else None, 1)


def _gigabytes(record: EfficiencyRecord, peak: int | None) -> float | None:
    """Return memory in GB above what the process held before any weights."""
    return None if peak is None else (peak - (record.baseline_bytes or 0)) / 1e9


class _Quality:
    """Measured quality by method: means over categories, with the marks of the other tables."""

    def __init__(self, records: Sequence[Record], cards: Mapping[str, DatasetCard]) -> None:
        settled = settle(records)
        self.done = [record for record in settled if record.status == "done"]
        self.names = name_methods(settled)
        self.tables: list[Table] = arrange(settled, "dataset", cards, None) if settled else []

    def cells(self, efficiency: EfficiencyRecord) -> Iterator[Cost]:
        """Yield the quality of the same method, options and encoder on every dataset."""
        names = {
            self.names[identity(record)]
            for record in self.done
            if record.method == efficiency.method
            and record.options == efficiency.options
            and all(record.encoder.get(name) == efficiency.encoder.get(name) for name in SAME)
        }
        for table in self.tables:
            line = next((line for line in table.lines if line.name in names and line.status == "done"), None)
            for column in QUALITY:
                yield self._cell(table, line, column)

    def _cell(self, table: Table, line: Line | None, column: Column) -> Cost:
        title = f"{table.title} {words.label(column)}"
        if line is None:
            return Cost(title, None, 1)
        value = line.values[column]
        gap = words.gap(value, line)
        return Cost(title, value.percent, 1, mark=" ".join([*words.marks(line), *([f"[{gap}]"] if gap else [])]))


def _notes(
    rows: Sequence[MethodCosts], efficiency: Sequence[EfficiencyRecord], library: Library | None
) -> Iterator[str]:
    if rows:
        yield from _notes_on_rows(rows, library)
    yield from (f"{record.method}: {record.reason}" for record in efficiency if record.status != "done")


def _notes_on_rows(rows: Sequence[MethodCosts], library: Library | None) -> Iterator[str]:
    records = [row.record for row in rows]
    yield from dict.fromkeys(f"Timed: {record.timed}" for record in records)
    yield (
        "ms/image: median of repeated passes at batch 1 [10th to 90th percentile]; images/s: at the best batch. GB: "
        "1e9 bytes, weights included; on a CPU above what the process held before any weights. GFLOP: a multiply-add "
        "counts as two. % of peak: achieved of the rate of a large matrix product on the same device; encoder %: the "
        "same of the bare encoder pass."
    )
    sizes = {
        f"{row.record.timings[0].images} images for {row.texts[0]}" for row in rows if row.record.timings[0].images > 1
    }
    if sizes:
        yield f"A pass of methods that compare images takes several: {', '.join(sorted(sizes))}; times are per image."
    yield from _training_notes(records)
    if any(record.random_weights for record in records):
        yield f"{STAR} The encoder has random weights, which hardly change what a method costs."
    if library is not None:
        yield from _sources(rows, library)


def _sources(rows: Sequence[MethodCosts], library: Library) -> Iterator[str]:
    found = [(row.texts[0], cell.published) for row in rows for cell in row.cells if cell.published]
    places = sorted({(number.source, number.table) for _, (number, _) in found})
    if places:
        told = "; ".join(f"{library.citations[source]} (table {table})" for source, table in places)
        yield f"In round brackets: published values, on other devices and with other timing scopes. {told}."
    yield from words.other_configurations((title, differs) for title, (_, differs) in found)


def _training_notes(records: Sequence[EfficiencyRecord]) -> Iterator[str]:
    for images in dict.fromkeys(record.training.epoch_images for record in records if record.training):
        yield (
            f"min/epoch: from some training steps to {images} images at the recipe's batch size, loading included; "
            "later epochs: encoder features of unchanged images are kept."
        )


def _text(cell: Cost) -> str:
    value = DASH if cell.value is None else f"{cell.value:.{cell.digits}f}"
    published = ""
    if cell.published:
        published = f"({cell.published.number.value:g}{sheet.DOUBLE_DAGGER if cell.published.differs else ''})"
    return " ".join(filter(None, [value, cell.mark, published]))


def _sheet(title: str, rows: Sequence[MethodCosts]) -> Sheet:
    """Return the sheet of one device, without columns that have no value in it."""
    columns = [cells for cells in zip(*(row.cells for row in rows), strict=True) if any(map(_is_filled, cells))]
    head = ("Method", "Setting", "Encoder", *(cells[0].column for cells in columns))
    lines = [sheet.row([*row.texts, *(_text(cells[i]) for cells in columns)]) for i, row in enumerate(rows)]
    return Sheet(title, head, len(rows[0].texts), tuple(lines))


def _is_filled(cell: Cost) -> bool:
    return cell.value is not None or cell.published is not None


def _csv(rows: Sequence[MethodCosts]) -> str:
    columns = [cell.column for cell in rows[0].cells] if rows else []
    facts = ["method", "setting", "encoder", "random weights", "device"]
    lines = []
    for row in rows:
        record = row.record
        values = [record.method, row.texts[1], row.texts[2], record.random_weights, device(record)]
        published = [cell.published.number.value if cell.published else None for cell in row.cells]
        lines.append([*values, *(cell.value for cell in row.cells), *published])
    return sheet.tidy_csv([*facts, *columns, *(f"published {name}" for name in columns)], lines)
