"""Which methods differ: average ranks, the Friedman test, Nemenyi's critical difference, Wilcoxon tests with Holm.

Blocks are what methods are compared over: datasets where there are at least `FEWEST_BLOCKS` of them, else categories
(categories of one dataset are less independent than datasets, so the kind is always told). Only categories where every
method has a value count. Procedure: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7
(2006), and Benavoli et al., "Should We Really Use Post-Hoc Tests Based on Mean-Ranks?", JMLR 17 (2016).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zsadbench import metrics
from zsadbench.analysis import across
from zsadbench.analysis.rows import Name, check_protocols, identity, place_of_setting, setting_of, settle
from zsadbench.errors import MissingDependency, RecordError, UnknownName
from zsadbench.records.results import Record, mean

Floats = NDArray[np.float64]
BlockKind = Literal["dataset", "category"]
Place = tuple[str, str]  # dataset and category

ALPHA = 0.05
FEWEST_BLOCKS = 5  # below it no test is made: two methods cannot reach p < 0.1 in a Wilcoxon test over 4 blocks


class NothingToCompare(RecordError):
    """Results of fewer than two methods, or of methods that share no category."""


@dataclass(frozen=True)
class Tests:
    """Tests over the blocks of a ranking; methods are in the order of the ranking."""

    friedman: float | None  # chi-square statistic; None for two methods
    friedman_p: float | None
    nemenyi_p: Floats  # [M, M], 1 on the diagonal
    critical_difference: float  # of average ranks, at ALPHA (Nemenyi)
    wilcoxon_p: Floats  # [M, M], two-sided, corrected by Holm over all pairs; 1 on the diagonal

    def groups(self) -> list[tuple[int, int]]:
        """Return (first, last) of the longest runs of two or more methods that Nemenyi's test does not tell apart."""
        return _alike(self.nemenyi_p)


@dataclass(frozen=True)
class MethodRanking:
    """Methods by average rank on one metric, the best first."""

    level: str  # "image" or "pixel"
    metric: str
    names: tuple[Name, ...]  # M methods
    settings: tuple[str, ...]  # "0-shot" and the like
    average_ranks: Floats  # [M], 1 is best; ties share their mean rank
    kind: BlockKind
    blocks: tuple[str, ...]  # names of the B blocks: datasets, or categories as DATASET/CATEGORY
    values: Floats  # [B, M] of the metric, 0..1
    left_out: tuple[str, ...]  # categories that some method lacks
    tests: Tests | None  # None where there are too few blocks


def by_setting(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return what may be ranked together, as in tables of results: finished records without a leak, by setting."""
    found: dict[str, list[Record]] = {}
    done = [record for record in settle(records) if record.status == "done" and not record.setting.get("leak")]
    for record in done:
        found.setdefault(setting_of(record), []).append(record)
    return dict(sorted(found.items(), key=lambda item: place_of_setting(item[1][0])))


def largest_setting(records: Iterable[Record]) -> list[Record]:
    """Return the records of the setting that has most methods. Raises NothingToCompare where nothing is finished."""
    groups = by_setting(records).values()
    if not groups:
        raise NothingToCompare("got no finished result; expected those of two methods or more.")
    return max(groups, key=lambda group: len({identity(record) for record in group}))


def analyse(records: Iterable[Record], level: str, metric: str) -> MethodRanking:
    """Rank the methods of some records on one metric; rows whose checkpoint leaked do not take part.

    Raises UnknownName for a level or metric that neither the list of metrics nor a record has, RecordError for records
    that must not be compared, NothingToCompare for fewer than two methods or no category that all of them have,
    MissingDependency without the packages of the extra `report`.
    """
    contest = Contest.of(records, level, metric)
    kind, blocks = _blocks(contest.common)
    values = np.array([[contest.mean(method, block) for method in contest.cells] for block in blocks.values()])
    better = values if metrics.get(metric).higher_is_better else -values
    ranks = _average_ranks(better)
    order = np.argsort(ranks, kind="stable")
    return MethodRanking(
        level,
        metric,
        tuple(contest.names[i] for i in order),
        tuple(contest.settings[i] for i in order),
        ranks[order],
        kind,
        tuple(blocks),
        values[:, order],
        contest.left_out,
        _tests(better[:, order]) if len(blocks) >= FEWEST_BLOCKS else None,
    )


@dataclass(frozen=True)
class Contest:
    """The finished cells of M methods that may be compared on one metric."""

    level: str
    metric: str
    names: tuple[Name, ...]
    settings: tuple[str, ...]
    cells: tuple[dict[Place, Record], ...]
    common: tuple[Place, ...]  # categories where every method has a value
    left_out: tuple[str, ...]  # the other categories

    @classmethod
    def of(cls, records: Iterable[Record], level: str, metric: str) -> Contest:
        """Choose what takes part. Raises RecordError as `analyse` does."""
        records = [record for record in settle(records) if record.status == "done" and not record.setting.get("leak")]
        check_protocols(records)
        _check_names(records, level, metric)
        names = across.names(records)
        cells: dict[Name, dict[Place, Record]] = {}
        for record in records:
            cells.setdefault(names[identity(record)], {})[record.dataset, record.category] = record
        if len(cells) < 2:
            known = ", ".join(dict.fromkeys(record.dataset for record in records))
            raise NothingToCompare(
                f"got finished results of {len(cells)} methods on {known or 'no dataset'}; "
                "expected two or more. Run another method."
            )
        places = sorted({place for found in cells.values() for place in found})
        lacking = [
            place
            for place in places
            if any(place not in found or getattr(found[place], level).get(metric) is None for found in cells.values())
        ]
        if lacking == places:
            raise NothingToCompare(
                f"no category has {level} {metric} for all of {', '.join(name.cli for name in cells)}; "
                "run them on the same data, or leave some out."
            )
        return cls(
            level,
            metric,
            tuple(cells),
            tuple(setting_of(next(iter(found.values()))) for found in cells.values()),
            tuple(cells.values()),
            tuple(place for place in places if place not in lacking),
            tuple("/".join(place) for place in lacking),
        )

    def mean(self, method: dict[Place, Record], places: Iterable[Place]) -> float:
        """Return the mean of a method's metric over common categories, 0..1."""
        average, _, _ = mean(getattr(method[place], self.level)[self.metric] for place in places)
        assert average is not None  # common categories have a value
        return average


def _check_names(records: Iterable[Record], level: str, metric: str) -> None:
    if level not in metrics.LEVELS:
        raise UnknownName("level", level, metrics.LEVELS)
    measured = (name for record in records for name in getattr(record, level))
    known = dict.fromkeys((*metrics.names(level), *measured))
    if metric not in known:
        raise UnknownName(f"{level} metric", metric, known)


def _blocks(places: Sequence[Place]) -> tuple[BlockKind, dict[str, list[Place]]]:
    """Return the kind of block, and the categories of each."""
    by_dataset: dict[str, list[Place]] = {}
    for place in places:
        by_dataset.setdefault(place[0], []).append(place)
    if len(by_dataset) >= FEWEST_BLOCKS:
        return "dataset", by_dataset
    return "category", {"/".join(place): [place] for place in places}


def _average_ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    ranks: Floats = rankdata(-values, axis=1).mean(axis=0)
    return ranks


def _tests(values: Floats) -> Tests:
    """Test values [B, M], higher is better, methods sorted by average rank."""
    from scipy.stats import friedmanchisquare, studentized_range

    try:
        from scikit_posthocs import posthoc_nemenyi_friedman
    except ImportError as error:
        raise MissingDependency(
            f'Significance tests need scikit-posthocs ({error}). Install it: pip install "zsadbench[report]".'
        ) from error
    blocks, methods = values.shape
    differ = methods > 2 and bool(np.ptp(values, axis=1).any())  # the statistic of nothing but ties is 0 / 0
    friedman = friedmanchisquare(*values.T) if differ else None
    quantile = float(studentized_range.ppf(1 - ALPHA, methods, np.inf)) / np.sqrt(2)
    return Tests(
        friedman=float(friedman.statistic) if friedman else None,
        friedman_p=float(friedman.pvalue) if friedman else None,
        nemenyi_p=np.asarray(posthoc_nemenyi_friedman(-values), np.float64),
        critical_difference=float(quantile * np.sqrt(methods * (methods + 1) / (6 * blocks))),  # Demsar, §3.2.2
        wilcoxon_p=_wilcoxon_holm(values),
    )


def _wilcoxon_holm(values: Floats) -> Floats:
    """Return two-sided p values [M, M] of paired tests over the blocks, corrected for all pairs."""
    pairs = combinations(range(values.shape[1]), 2)
    return matrix(values.shape[1], holm([_wilcoxon(values[:, i] - values[:, j]) for i, j in pairs]))


def _wilcoxon(differences: Floats) -> float:
    """Return the exact p value; with equal differences the approximate one, because scipy would permute for seconds."""
    from scipy.stats import wilcoxon

    if not differences.any():
        return 1.0
    distinct = len(np.unique(np.abs(differences[differences != 0]))) == len(differences)
    method, correction = ("exact", False) if distinct else ("approx", True)
    return float(wilcoxon(differences, zero_method="zsplit", method=method, correction=correction).pvalue)


def holm(p: Sequence[float]) -> Floats:
    """Return p values corrected by Holm's step-down method (statsmodels' takes half a second a call)."""
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected


def matrix(methods: int, p: Sequence[float] | Floats) -> Floats:
    """Return a symmetric matrix [M, M] of one value per pair, in the order of `combinations`; 1 on the diagonal."""
    found = np.ones((methods, methods))
    for (i, j), value in zip(combinations(range(methods), 2), p, strict=True):
        found[i, j] = found[j, i] = value
    return found


def _alike(p: Floats) -> list[tuple[int, int]]:
    """Return (first, last) of the longest runs whose pairs all have p >= ALPHA, at least two methods each."""
    runs: list[tuple[int, int]] = []
    for first in range(len(p)):
        last = first
        while last + 1 < len(p) and (p[first : last + 2, first : last + 2] >= ALPHA).all():
            last += 1
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs
