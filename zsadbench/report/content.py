"""What a report shows, from the records and files of a run."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from zsadbench import datasets
from zsadbench.analysis import significance
from zsadbench.analysis.intervals import Resamples
from zsadbench.analysis.rows import (
    Line,
    Table,
    arrange,
    check_protocols,
    identity,
    name_methods,
    settle,
)
from zsadbench.errors import RecordError, UsageError, ZsadError
from zsadbench.figures import drawing, map_grid, map_samples, ranks
from zsadbench.figures import efficiency as cost
from zsadbench.figures.drawing import Drawing
from zsadbench.protocol import FREE_FIELDS
from zsadbench.records import efficiency, places, results, saved_maps
from zsadbench.records.published import Library
from zsadbench.records.results import MEAN, Record
from zsadbench.report import grids
from zsadbench.report.grids import Grid
from zsadbench.tables import words

RANKED = (("image", "auroc"), ("pixel", "ap"))  # metrics of the figures of ranks
SCREEN = 130  # dpi
Find = Callable[[str], datasets.Dataset]  # makes a dataset of the run by its name
SAMPLES = 6  # rows of a figure of maps


class Picture(NamedTuple):
    """A figure as a data URL with its caption, or the reason why there is none."""

    url: str
    caption: str


class Category(NamedTuple):
    """The part of the page about one category."""

    name: str
    results: Grid
    wrong: Grid | None
    maps: Picture | None


class Dataset(NamedTuple):
    """The part of the page about one dataset."""

    title: str
    results: Grid
    failures: list[str]
    categories: list[Category]


@dataclass(frozen=True)
class Content:
    """Everything that the page shows; all texts are plain and must be escaped."""

    title: str
    datasets: list[Dataset]
    notes: list[str]
    pictures: list[Picture]
    methods: Grid
    data: Grid
    protocol: dict[str, object]
    other: str = ""  # name of the run that this one is compared with
    comparison: Grid | None = None
    incomparable: str = ""  # why there is no comparison


def collect(
    run: Path,
    other: Path | None = None,
    data_root: Path | None = None,
    intervals: bool = True,
    moved: Sequence[str] = (),
) -> Content:
    """Read a run, and another one to compare it with.

    `data_root` and `moved`, NAME=FOLDER each, say where images of figures of maps lie that are not where they were.
    What cannot be shown, such as intervals of a run without pixel files, is told in its place. Raises RecordError
    where the records are damaged, mixed or missing.
    """
    found, problems = results.read_run(run)
    records = settle(found)
    done = [record for record in records if record.status == "done"]
    if not done and problems:
        raise RecordError(problems[0])
    if not done:
        raise RecordError(f"{run} has no finished results; run `zsadbench run --out {run}` first.")
    tables, notes = _tables(run, records, intervals)
    names = name_methods(done)
    comparison, incomparable = _compare(records, tables, other) if other else (None, "")
    cells = [(run, record) for record in done]
    find = partial(_find, run, _by_name(moved, done), data_root)
    return Content(
        title=run.name,
        datasets=[_dataset(cells, table, records, find) for table in tables],
        notes=[*notes, *(f"A record is left out: {problem}" for problem in problems)],
        pictures=list(_pictures(run, done)),
        methods=grids.methods(done, {record.fingerprint: names[identity(record)] for record in done}),
        data=grids.data(done),
        protocol={name: value for name, value in done[0].protocol.items() if name not in FREE_FIELDS},
        other=other.name if other else "",
        comparison=comparison,
        incomparable=incomparable,
    )


def _tables(run: Path, records: Sequence[Record], intervals: bool) -> tuple[list[Table], list[str]]:
    cards = {listing.name: listing.card for listing in datasets.available() if listing.card}
    library = Library.read()
    tables = arrange(records, "category", cards, library)
    notes = words.notes(tables, records, name_methods(records), library)
    if not intervals:
        return tables, notes
    resamples = Resamples([run])
    try:
        return resamples.beside(tables, records), [*notes, resamples.note()]
    except RecordError as error:
        return tables, [*notes, f"No intervals: {error}"]


def _compare(records: Sequence[Record], tables: Sequence[Table], other: Path) -> tuple[Grid | None, str]:
    others = settle(results.load_run(other))
    try:
        check_protocols([*records, *others])
    except RecordError as error:
        return None, str(error)
    theirs = arrange(others, "dataset", {}, None)
    return grids.differences([replace(table, lines=_means(table)) for table in tables], theirs), ""


def _means(table: Table) -> tuple[Line, ...]:
    return tuple(line for line in table.lines if line.category == MEAN)


def _by_name(moved: Sequence[str], done: Sequence[Record]) -> dict[str, str]:
    """Return name -> NAME=FOLDER. Raises UnknownName for a dataset that the run lacks."""
    return {map_samples.only("dataset", datasets.name_of(one), {r.dataset for r in done}): one for one in moved}


def _find(run: Path, moved: Mapping[str, str], data_root: Path | None, name: str) -> datasets.Dataset:
    return places.find([run], moved.get(name, name), data_root)


def _dataset(cells: Sequence[tuple[Path, Record]], table: Table, records: Sequence[Record], find: Find) -> Dataset:
    categories = [
        _category(cells, table, name, find)
        for name in dict.fromkeys(line.category for line in table.lines if line.category != MEAN)
    ]
    means = grids.results(table, _means(table))
    return Dataset(table.title, means, words.notes_below(table, records), categories)


def _category(cells: Sequence[tuple[Path, Record]], table: Table, name: str, find: Find) -> Category:
    found = map_samples.find(cells, table.dataset, name)
    try:
        wrong = grids.most_wrong({result.title: result.scores for result in found})
    except UsageError:
        wrong = None  # one label only: nothing is ranked
    kept = [result for result in found if saved_maps.exist(result.run, result.record)]
    maps = _picture(partial(_draw_maps, kept, table.dataset, find)) if kept else None
    return Category(name, grids.results(table, [line for line in table.lines if line.category == name]), wrong, maps)


def _pictures(run: Path, done: Sequence[Record]) -> Iterator[Picture]:
    for level, metric in RANKED:
        yield _picture(partial(_draw_ranks, done, level, metric))
    if (run / efficiency.FOLDER).is_dir():
        for dataset in dict.fromkeys(record.dataset for record in done):
            yield _picture(partial(_draw_cost, run, dataset))


def _draw_maps(found: Sequence[map_samples.Result], name: str, find: Find) -> Drawing:
    dataset = find(name)
    samples = map_samples.choose(found, dataset, ["worst"], SAMPLES)
    return map_grid.draw(map_grid.collect(found, dataset, samples))


def _draw_ranks(done: Sequence[Record], level: str, metric: str) -> Drawing:
    return ranks.draw(significance.analyse(significance.largest_setting(done), level, metric))


def _draw_cost(run: Path, dataset: str) -> Drawing:
    return cost.draw(*cost.collect([run], dataset))


def _picture(draw: Callable[[], Drawing]) -> Picture:
    try:
        figure, caption = draw()
    except ZsadError as error:
        return Picture("", f"No figure: {error}")
    return Picture(f"data:image/png;base64,{base64.b64encode(drawing.encode(figure, 'png', SCREEN)).decode()}", caption)
