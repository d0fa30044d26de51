"""The words of a table, the same in every format: labels, numbers, notes. All plain text: the writers escape it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from zsadbench import metrics
from zsadbench.analysis.rows import SCOPES, Line, Name, Table, Value, identity
from zsadbench.metrics import Column
from zsadbench.records.published import Library
from zsadbench.records.results import MEAN, Record
from zsadbench.support import variants
from zsadbench.support.texts import grouped
from zsadbench.tables import data_notes
from zsadbench.tables.sheet import DAGGER, DASH, DOUBLE_DAGGER, SECTION

STATUSES = {
    "needs_checkpoint": "needs a checkpoint",
    "not_possible": "not possible on this set",
    "refused": "refused",
    "failed": "failed",
}
PROTOCOL_FIELDS = ("eval_size", "native_masks", "mask_rule", "aupro_limit", "order", "seed")  # shown under every table


def label(column: Column) -> str:
    """Return what a column is called, such as "image AUROC"."""
    return f"{column[0]} {metrics.get(column[1]).title}"


def title(column: Column) -> str:
    """Return what a column is called where it begins a line, such as "Image AUROC"."""
    return label(column)[0].upper() + label(column)[1:]


def category(name: str) -> str:
    """Return what a line's category is called; of a category that is called mean, so that it is told from the mean."""
    return "mean" if name == MEAN else f"{name} (category)" if name == "mean" else name


def percent(value: float | None, metric: str = "") -> str:
    """Return a percentage with the decimals of its metric, or a dash where it is undefined."""
    return DASH if value is None else f"{value:.{metrics.get(metric).decimals}f}"


def gap(value: Value, line: Line) -> str:
    """Return "k of n" where a metric is undefined for some finished categories of the row, else nothing."""
    return f"{len(value.covered)} of {line.total}" if value.covered and value.covered != line.done else ""


def published(value: Value, metric: str) -> str:
    """Return a published number in brackets, marked where it is of another configuration; "" where there is none."""
    found = value.published
    if found.number is None:
        return ""
    return f"({percent(found.number.value, metric)}{DOUBLE_DAGGER if found.differs else ''})"


def marks(line: Line) -> list[str]:
    """Return what must be said beside a row's name on one dataset: a leak, and categories that it lacks."""
    lacking = 0 < len(line.done) < line.total
    return [*([DAGGER] if line.leak else []), *([f"[{len(line.done)} of {line.total} categories]"] if lacking else [])]


def title_of(line: Line) -> str:
    """Return what a row is called, with the mark of image scores that see more than its setting says."""
    return f"{line.name.title} {SECTION}" if line.image_scope != line.scope else line.name.title


def notes_below(table: Table, records: Iterable[Record]) -> list[str]:
    """Return why cells of a table's dataset have no numbers, or none of the newest attempt: each reason once."""
    reasons: dict[tuple[str, str, str], dict[str, None]] = {}
    for record in records:
        if record.dataset == table.dataset and (record.status != "done" or record.failure is not None):
            newer = "a newer attempt failed, shown is the result before it"
            status = newer if record.failure is not None else STATUSES[record.status]
            reason = record.method, status, record.failure or _reason(record)
            reasons.setdefault(reason, {})[record.category] = None
    alike: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for (method, status, error), found in reasons.items():
        alike.setdefault((", ".join(found), status), []).append((method, error))
    return [
        f"{', '.join(methods)} on {where}: {status}. {error}"
        for (where, status), told in alike.items()
        for methods, error in grouped(told)
    ]


def _reason(record: Record) -> str:
    """Return why a cell has no numbers, in one line, and where the traceback of a bug is."""
    if len((record.error or "").strip().splitlines()) < 2:
        return record.reason
    return f"{record.reason.rstrip('.')}. Its traceback stands in {record.dataset}/{record.method}/."


def notes(
    tables: Sequence[Table], records: Sequence[Record], names: Mapping[tuple[str, str], Name], library: Library | None
) -> list[str]:
    """Return what holds for all tables: units, ranks, marks, protocol, encoders, warnings and sources."""
    done = [record for record in records if record.status == "done"]
    lines = [line for table in tables for line in table.lines]
    return [*_units(lines), *conditions(done, names), *(_sources(lines, library) if library else [])]


def conditions(done: Sequence[Record], names: Mapping[tuple[str, str], Name]) -> list[str]:
    """Return what finished records were made with: protocol, odd files, demo data, encoders, and what cards say."""
    return [
        *_protocol(done),
        *data_notes.notes(done),
        *_demo(done),
        *_encoders(done, names),
        *_defaults(done, names),
        *_cards(done),
    ]


def _units(lines: Sequence[Line]) -> Iterator[str]:
    values = [(value, line) for line in lines for value in line.values.values()]
    text = "Percent, unweighted means over categories."
    if any(value.rank for value, _ in values):
        text += " Best bold, second underlined, among rows of one setting that cover the same categories."
    if any(len(line.done) < line.total for line in lines if line.done) or any(gap(*value) for value in values):
        text += " [k of n]: the mean is over k of the n categories; for the others it is undefined or not done."
    yield text
    yield from _seeds(lines)
    if any(line.leak for line in lines):
        yield f"{DAGGER} The checkpoint was trained on this dataset: not a zero-shot result, and not ranked."
    if any(line.image_scope != line.scope for line in lines):
        yield (
            f"{SECTION} Image scores are scaled over the whole test category, as in the method's code; pixel metrics "
            "do not depend on that."
        )
    if any(SCOPES[line.scope] for line in lines):
        yield "Batch: images of one batch see each other; transductive: they see the whole test category."


def _seeds(lines: Sequence[Line]) -> Iterator[str]:
    counts = {line.name.title: max(value.seeds for value in line.values.values()) for line in lines if line.values}
    most = max(counts.values(), default=1)
    if most > 1:
        fewer = [f"{title} {count}" for title, count in counts.items() if count < most]
        text = f"Means ± sample standard deviations (n - 1) over {most} runs that differ in their seed"
        yield f"{text}; fewer runs: {', '.join(fewer)}." if fewer else f"{text}."
        yield from _varied(lines)


def _varied(lines: Sequence[Line]) -> Iterator[str]:
    """Say what the seed drew anew, and for which rows it drew nothing."""
    told: dict[str, dict[str, None]] = {}
    for line in lines:
        if line.varied is not None:
            told.setdefault(" and ".join(line.varied), {})[line.name.title] = None
    drawn = [f"{what}: {', '.join(titles)}" for what, titles in told.items() if what]
    if drawn:
        yield f"What the seed varied: {'; '.join(drawn)}."
    same = {line.name.title: line.trained_on for line in lines if line.varied == ()}
    trained = [title for title, trained_on in same.items() if trained_on]
    if same:
        yield f"Nothing varied, so there is no deviation: {', '.join(same)}."
    if trained:
        yield (
            f"The same checkpoint in every run: {', '.join(trained)}. To train one a seed, give each run its own "
            "folder with --checkpoints."
        )


def _protocol(done: Sequence[Record]) -> Iterator[str]:
    protocol = done[0].protocol if done else {}
    used = {name: dict.fromkeys(str(record.protocol.get(name)) for record in done) for name in protocol}
    shown = [f"{name} {'/'.join(used[name])}" for name in PROTOCOL_FIELDS if name in protocol]  # several seeds: 0/1/2
    if shown:
        yield f"Protocol: {', '.join(shown)}."
    if protocol.get("limit") is not None:
        yield f"At most {protocol['limit']} images per category were used: these are not benchmark results."


def _demo(done: Sequence[Record]) -> Iterator[str]:
    encoders = {
        f"encoder {record.encoder['spec']}" for record in done if record.encoder.get("spec") in ("demo", "tiny")
    }
    datasets = {f"dataset {record.dataset}" for record in done if record.dataset.startswith("demo")}
    if encoders or datasets:
        things = " and the ".join([*sorted(encoders), *sorted(datasets)])
        yield f"Made with the {things}: the numbers mean nothing outside regression checks."


def _encoders(done: Iterable[Record], names: Mapping[tuple[str, str], Name]) -> Iterator[str]:
    users: dict[str, dict[str, None]] = {}
    for record in done:
        encoder = record.encoder
        if encoder.get("spec"):
            size = f"{encoder['size']} px" if encoder.get("size") else None
            facts = [encoder["spec"], size, encoder.get("activation"), encoder.get("precision")]
            users.setdefault(", ".join(filter(None, facts)), {})[names[identity(record)].title] = None
    for text, titles in users.items():
        yield f"Encoder {text}: {', '.join(titles)}."


def _defaults(done: Iterable[Record], names: Mapping[tuple[str, str], Name]) -> Iterator[str]:
    """Say which variants have the options that their methods have anyway."""
    found: dict[str, None] = {}
    for record in done:
        _, own = variants.split(record.method)
        if own and record.changed is not None and not own.keys() & record.changed.keys():
            found[names[identity(record)].title] = None
    if found:
        yield f"Variants with the preset's own values: {', '.join(found)}."


def _cards(done: Iterable[Record]) -> Iterator[str]:
    """Yield what the cards of methods say is inferred, approximated or not reproduced; the same words once."""
    titles: dict[str, dict[str, None]] = {}
    for record in done:
        if record.notes:
            titles.setdefault(record.notes, {})[record.title] = None
    for text, found in titles.items():
        yield f"About {', '.join(found)}: {text}"


def _sources(lines: Iterable[Line], library: Library) -> Iterator[str]:
    places: dict[tuple[str, str], dict[str, None]] = {}
    differs: list[tuple[str, str]] = []
    withheld: dict[str, dict[str, None]] = {}
    for line in lines:
        for number, differs_in, reasons in (value.published for value in line.values.values()):
            if number is not None:
                places.setdefault((line.name.title, number.source), {})[number.table] = None
            differs += [(line.name.title, text) for text in differs_in]
            withheld.setdefault(line.name.title, {}).update(dict.fromkeys(reasons))
    if places:
        told = [f"{title}: {library.citations[source]}{_tables(tables)}" for (title, source), tables in places.items()]
        yield "In round brackets: published numbers, as printed elsewhere, never ranked. " + "; ".join(told) + "."
    elif not any(withheld.values()):
        yield "No published number has the same method, encoder, setting, training set and dataset."
    yield from other_configurations(differs)
    told = [f"{title} has {', '.join(reasons)}" for title, reasons in withheld.items() if reasons]
    if told:
        yield f"Published numbers are left out where a run is not what was printed: {'; '.join(told)}."


def other_configurations(differs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the note on published numbers that are marked: (title of the row, in what they differ or "")."""
    found: dict[str, dict[str, None]] = {}
    for title, text in differs:
        if text:
            found.setdefault(title, {})[text] = None
    if found:
        told = [f"{title}: {', '.join(texts)}" for title, texts in found.items()]
        yield f"{DOUBLE_DAGGER} Published for what is not, or may not be, this configuration. {'; '.join(told)}."


def _tables(tables: Iterable[str]) -> str:
    named = [f"table {table}" if table[0].isdigit() else table for table in tables if table]
    return f" ({', '.join(named)})" if named else ""
