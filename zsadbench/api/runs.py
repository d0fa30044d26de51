"""Finished runs in Python: their records as frames, tables and figures."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsadbench.errors import RecordError, UnknownName, UsageError
from zsadbench.records import results
from zsadbench.records.results import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

FIGURES = ("maps", "efficiency", "ranks", "sweep")


@dataclass(frozen=True)
class Run:
    """The records of one or more run folders, shown together. In a notebook it shows its table."""

    folders: tuple[Path, ...]

    @cached_property
    def records(self) -> list[Record]:
        """Every record, sorted by folder, dataset, method and category. Raises RecordError."""
        return [record for folder in self._own_folders for record in results.load_run(folder)]

    @property
    def _own_folders(self) -> list[Path]:
        """The folders with records: of a run of several seeds there is one a seed."""
        return [own for folder in self.folders for own in results.folders(folder)]

    @property
    def _has_seeds(self) -> bool:
        return len(self._own_folders) > len(self.folders)

    @property
    def failed(self) -> list[Record]:
        """The records of cells without numbers; `error` says why."""
        return [record for record in self.records if record.status != "done"]

    def to_pandas(self, level: str = "dataset", *, published: bool = False, seeds: bool = False) -> DataFrame:
        """Return the numbers as a tidy frame: one row a method, dataset (or category) and metric; values in percent.

        level: "dataset" for means, "category" for both. published: the papers' numbers stand in column `published`.
        seeds: means over runs that differ by their seed; column `std` has the sample standard deviation.
        Raises RecordError where the records must not share a table.

        Example:

            >>> import zsadbench as z
            >>> run = z.evaluate("constant", "demo", out="runs/example", limit=2)
            >>> frame = run.to_pandas()
            >>> float(frame.query("level == 'image' and metric == 'auroc'")["value"].iloc[0])
            50.0
        """
        import pandas

        from zsadbench.records.published import Library
        from zsadbench.tables import quality

        library = Library.read() if published else None
        rows = quality.rows(self.records, _level(level), library=library, seeds=seeds or self._has_seeds)
        return pandas.DataFrame(rows, columns=quality.Number._fields)

    def scores(self, method: str, dataset: str, category: str) -> DataFrame:
        """Return the image scores of a cell: columns sample, label (1: anomalous), defect, score; higher is worse.

        Raises UnknownName, RecordError.

        Example:

            >>> import zsadbench as z
            >>> run = z.evaluate("constant", "demo", out="runs/example", limit=2)
            >>> run.scores("constant", "demo", "wood")["label"].tolist()
            [1, 0]
        """
        import pandas

        wanted = method, dataset, category
        for folder in self._own_folders:
            for record in results.load_run(folder):
                if (record.method, record.dataset, record.category) == wanted:
                    return pandas.DataFrame(results.load_scores(folder, record), columns=results.ImageScore._fields)
        cells = {"/".join((record.dataset, record.method, record.category)) for record in self.records}
        raise UnknownName("cell of the run", f"{dataset}/{method}/{category}", cells)

    def table(
        self, format: str = "md", *, level: str = "dataset", published: bool = False, ci: bool = False,
        seeds: bool = False,
    ) -> str:  # fmt: skip
        """Return the table that `zsadbench table` prints, as "md", "latex" or "csv".

        ci: bootstrap intervals; seeds: means and deviations over runs that differ by their seed. Raises RecordError.

        Example:

            >>> import zsadbench as z
            >>> run = z.evaluate("constant", "demo", out="runs/example", limit=2)
            >>> print(run.table().splitlines()[0])
            ### Demo
        """
        from zsadbench.analysis.intervals import Resamples
        from zsadbench.tables import quality

        resamples = Resamples(self._own_folders) if ci else None
        seeds = seeds or (self._has_seeds and not ci)
        return quality.render(self.records, format, _level(level), published, resamples=resamples, seeds=seeds)

    def figure(self, kind: str, **options: Any) -> Figure:
        """Return a figure as `zsadbench figure` draws it: "maps", "efficiency", "ranks" or "sweep".

        options: those of the function that draws it (`dataset`, `category`, `samples`, `count`, `methods`, `overlay`
        and `data_root` of maps; `dataset` of efficiency; `level` and `metric` of ranks; `option`, `methods` and
        `metrics` of sweep). Needs the extra `report`. Raises UnknownName, UsageError, RecordError, DataError,
        MissingDependency.

        Example:

            >>> import zsadbench as z
            >>> run = z.evaluate("constant,patchcore", "demo", out="runs/figure", limit=2, save_maps=True)
            >>> run.figure("maps", category="wood", count=1).savefig("wood.png")
        """
        from zsadbench.figures import gather
        from zsadbench.figures.drawing import Drawing

        if kind not in FIGURES:
            raise UnknownName("figure", kind, FIGURES)
        draw = getattr(gather, kind)
        known = [name for name in signature(draw).parameters if name != "runs"]
        for name in options.keys() - known:
            raise UnknownName(f"option of figure {kind}", name, known)
        for name in options.keys() & {"samples", "methods", "metrics"}:
            options[name] = [options[name]] if isinstance(options[name], str) else options[name]
        if options.get("data_root") is not None:
            options["data_root"] = Path(options["data_root"])
        drawing: Drawing = draw(self.folders, **options)
        return drawing.figure

    def _repr_markdown_(self) -> str:
        try:
            return self.table() if self.records else repr(self)
        except RecordError as error:  # what must not share a table is said where the table would stand
            return f"{self!r}: {error}"


def load_run(*folders: str | Path) -> Run:
    """Return the run that lies in a folder; several folders are shown together. Raises RecordError.

    Example:

        >>> import zsadbench as z
        >>> _ = z.evaluate("constant", "demo", out="runs/example", limit=2)
        >>> len(z.load_run("runs/example").records)
        4
    """
    if not folders:
        raise UsageError("load_run got no folder; expected the --out of a run, such as load_run('runs/main').")
    run = Run(tuple(Path(folder) for folder in folders))
    if not run.records:
        raise RecordError(f"{' and '.join(map(str, folders))} holds no records; expected the --out of a run.")
    return run


def load_runs(pattern: str | Path | Sequence[str | Path]) -> Run:
    """Return every run that a pattern such as "runs/*" finds, shown together. Raises RecordError where there is none.

    Example:

        >>> import zsadbench as z
        >>> _ = z.evaluate("constant", "demo", out="runs/example", limit=2)
        >>> len(z.load_runs("runs/*").folders) >= 1
        True
    """
    patterns = [str(one) for one in ([pattern] if isinstance(pattern, str | Path) else pattern)]
    found = sorted(
        {
            Path(path)
            for one in patterns
            for path in glob.glob(one, recursive=True)  # noqa: PTH207  # a pattern may be absolute
            if _is_run(Path(path))
        }
    )
    if not found:
        raise RecordError(f"{', '.join(patterns)} matches no run folder; expected folders that `zsadbench run` wrote.")
    return load_run(*found)


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*/*/*.json"))


def _level(level: str) -> Any:
    if level not in ("dataset", "category"):
        raise UnknownName("table level", level, ("dataset", "category"))
    return level
