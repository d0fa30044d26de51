"""Exact counts of scores without sorting them: every float32 is an integer key that sorts the same way.

Negatives matter only through how many lie above each score of a positive, so they are counted, octave by octave
(the 2**23 keys between two powers of two), and never sorted as a whole (docs/metrics.md#exact-without-sorting).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int32]
Counts = NDArray[np.int64]

OCTAVE_BITS = 23  # mantissa bits of a float32: key >> 23 is the octave, and an octave has 2**23 keys
_MANTISSA = (1 << OCTAVE_BITS) - 1
_MAGNITUDE = 0x7FFFFFFF
_BLOCK = 1 << 16  # keys handled at a time, so that temporaries stay in the cache
_MAX_BINS = 1 << 24  # of the table that `_count_at` makes: 64 MiB
_BINS_PER_KEY = 16  # there: enough that few negatives share a bin with a positive, few enough for the cache
_UINT32_MAX = 2**32 - 1


def score_keys(scores: NDArray[np.float32]) -> Keys:
    """Return int32 keys of the same shape that compare as the scores do; -0.0 and 0.0 share a key.

    The scores must not be NaN. The result may share their memory.
    """
    bits = np.ascontiguousarray(scores).view(np.int32)
    if bits.size == 0 or bits.min() >= 0:
        return bits
    sign = bits >> 31  # 0, or -1 where the sign bit is set
    return ((bits & _MAGNITUDE) ^ sign) - sign


def key_scores(keys: Keys) -> NDArray[np.float32]:
    """Return the float32 scores of keys: the inverse of `score_keys`."""
    sign = keys >> 31
    bits: Keys = ((keys ^ sign) - sign) | (sign << 31)
    return bits.view(np.float32)


class _Table(NamedTuple):
    """Counts of the negatives of one octave."""

    shift: int  # low key bits that share an entry; 0: one entry for each score
    counts: NDArray[Any]  # [2**(23 - shift)] uint32, or uint64 when there are more negatives than uint32 can count

    def folded(self, shift: int) -> _Table:
        """The same counts with at least `shift` low bits dropped."""
        if shift <= self.shift:
            return self
        pairs = self.counts.reshape(-1, 1 << (shift - self.shift))
        return _Table(shift, pairs.sum(axis=1, dtype=self.counts.dtype))

    def add(self, keys: Keys) -> None:
        """Count keys of this octave."""
        one = self.counts.dtype.type(1)  # of the table's own dtype: np.add.at is 50 times slower when it must cast
        for block in _blocks([keys]):
            np.add.at(self.counts, ((block & _MANTISSA) >> self.shift).astype(np.intp), one)


class NegativeCounts:
    """How many negatives lie above any score: exact within a memory budget, binned beyond it; streams and merges.

    Keys wait in `_pending`, 4 bytes each, until the budget is full. Then they move to their octaves: an octave keeps
    its keys as they are while that is smaller than a table of counts, and from then on the table, which does not grow.
    Only when this leaves less than an eighth of the budget free do octaves lose low bits, one bit at a time and the
    lowest octave first (its thresholds matter least); an octave that is smaller as keys stays exact.
    """

    def __init__(self, budget: int) -> None:
        self.total = 0
        self._budget = budget
        self._pending: list[Keys] = []
        self._pending_bytes = 0
        self._sparse: dict[int, list[Keys]] = {}  # octave -> its keys; never also in _tables
        self._tables: dict[int, _Table] = {}

    @property
    def exact(self) -> bool:
        """Whether no octave has lost low bits."""
        return all(table.shift == 0 for table in self._tables.values())

    def add(self, keys: Keys) -> None:
        """Count keys [n]. The array is kept, so it must not change afterwards."""
        self._grow(keys.size)
        self._wait(keys)
        self._settle_when_full()

    def merge(self, other: NegativeCounts) -> None:
        """Count everything that `other` counted; `other` stays as it is."""
        self._grow(other.total)
        for octave, table in other._tables.items():
            self._tabulate(octave, table.shift)
            mine = self._tables[octave]
            np.add(mine.counts, table.folded(mine.shift).counts, out=mine.counts, casting="same_kind")
        for keys in [*other._pending, *other._sparse_parts()]:
            self._wait(keys)
        self._settle_when_full()

    def dropped_bits(self, keys: Keys) -> Keys:
        """Return [n], how many low bits of each key the counts ignore: 0 everywhere while the counts are exact."""
        dropped = np.zeros_like(keys)
        for octave, table in self._tables.items():
            if table.shift:
                dropped[keys >> OCTAVE_BITS == octave] = table.shift
        return dropped

    def around(self, keys: Keys) -> tuple[Counts, Counts]:
        """Return (negatives above each key, negatives at or above it), for ascending distinct keys [K].

        Keys of octaves that have lost low bits stand for the bin that starts there.
        """
        below, up_to = _count_at([*self._pending, *self._sparse_parts()], keys)
        for octave, table in self._tables.items():
            start = octave << OCTAVE_BITS
            first, last = np.searchsorted(keys, [start, start + _MANTISSA + 1])
            cumulated = np.cumsum(table.counts, dtype=table.counts.dtype)
            entries = (keys[first:last] & _MANTISSA) >> table.shift
            up_to[first:last] += cumulated[entries].astype(np.int64)
            below[first:last] += (cumulated[entries] - table.counts[entries]).astype(np.int64)
            up_to[last:] += int(cumulated[-1])
            below[last:] += int(cumulated[-1])
        return self.total - up_to, self.total - below

    def _grow(self, count: int) -> None:
        """Raise the total, and widen the tables before an entry could overflow."""
        self.total += count
        if self.total > _UINT32_MAX:
            for octave, table in self._tables.items():
                self._tables[octave] = _Table(table.shift, table.counts.astype(np.uint64, copy=False))

    def _wait(self, keys: Keys) -> None:
        self._pending.append(keys)
        self._pending_bytes += keys.nbytes

    def _settle_when_full(self) -> None:
        if self._pending_bytes + self._settled_bytes() > self._budget:
            self._settle()

    def _settle(self) -> None:
        """Move the pending keys to their octaves, then make the octaves as small as needed."""
        while self._pending:
            self._distribute(self._pending.pop())
        self._pending_bytes = 0
        for octave, parts in list(self._sparse.items()):
            self._sparse[octave] = [np.concatenate(parts)]
            if _bytes(self._sparse[octave]) >= self._table_bytes(shift=0):
                self._tabulate(octave, shift=0)
        self._drop_bits()

    def _distribute(self, keys: Keys) -> None:
        octaves = (keys >> OCTAVE_BITS).astype(np.int16)
        order = np.argsort(octaves, kind="stable")  # a radix sort for 16-bit integers
        present, starts = np.unique(octaves[order], return_index=True)
        for octave, part in zip(present.tolist(), np.split(keys[order], starts[1:]), strict=True):
            if octave in self._tables:
                self._tables[octave].add(part)
            else:
                self._sparse.setdefault(octave, []).append(part.copy())  # a view would keep all of `keys` alive

    def _tabulate(self, octave: int, shift: int) -> None:
        """Give the octave a table with at least `shift` bits dropped, filled with what is known of it."""
        if octave in self._tables:
            self._tables[octave] = self._tables[octave].folded(shift)
            return
        table = _Table(shift, np.zeros(1 << (OCTAVE_BITS - shift), _count_type(self.total)))
        for keys in self._sparse.pop(octave, []):
            table.add(keys)
        self._tables[octave] = table

    def _drop_bits(self) -> None:
        octaves = sorted({*self._sparse, *self._tables})
        for shift, octave in product(range(1, OCTAVE_BITS + 1), octaves):
            if self._settled_bytes() <= self._budget - self._budget // 8:
                return
            keys = self._sparse.get(octave)
            if keys is None or _bytes(keys) > self._table_bytes(shift):
                self._tabulate(octave, shift)

    def _sparse_parts(self) -> list[Keys]:
        return [part for parts in self._sparse.values() for part in parts]

    def _settled_bytes(self) -> int:
        return _bytes([table.counts for table in self._tables.values()]) + _bytes(self._sparse_parts())

    def _table_bytes(self, shift: int) -> int:
        return _count_type(self.total).itemsize << (OCTAVE_BITS - shift)


def _count_type(total: int) -> np.dtype[Any]:
    return np.dtype(np.uint32 if total <= _UINT32_MAX else np.uint64)


def _bytes(arrays: Iterable[NDArray[Any]]) -> int:
    return sum(array.nbytes for array in arrays)


def _blocks(parts: list[Keys]) -> Iterator[Keys]:
    for keys in parts:
        for start in range(0, keys.size, _BLOCK):
            yield keys[start : start + _BLOCK]


def _count_at(parts: list[Keys], keys: Keys) -> tuple[Counts, Counts]:
    """Return (how many of the parts' keys are below each of the ascending `keys` [K], how many are at or below it).

    Everything is counted in one table of bins. Where a bin holds more than one possible key, those of its content that
    share it with one of `keys` are sorted; the content of the other bins needs no more than its count.
    """
    total = sum(part.size for part in parts)
    bins = _Bins.between(keys, total)
    entries = bins.of(keys)
    table = np.zeros(int(entries[-1]) + 2, _count_type(total))
    shared = np.zeros(table.size, np.bool_)
    shared[entries] = bins.coarse
    contested = [np.empty(0, np.int32)]
    one = table.dtype.type(1)  # see _Table.add
    for block in _blocks(parts):
        at = bins.of(block)
        np.add.at(table, at, one)
        if bins.coarse:
            contested.append(block[shared[at]])
    table[shared] = 0  # their content is in `contested`
    equal = table[entries]
    np.cumsum(table, out=table, dtype=table.dtype)
    up_to = table[entries].astype(np.int64)
    rest = np.sort(np.concatenate(contested))
    below = up_to - equal + np.searchsorted(rest, keys, side="left")
    return below, up_to + np.searchsorted(rest, keys, side="right")


class _Bins(NamedTuple):
    """A rule that sends keys to bins in ascending order: equal steps from `low` to `high`, but one bin for the gap."""

    low: int
    high: int
    gap: tuple[int, int]  # keys from the first to the last share one bin
    shift: int  # low bits that a bin ignores

    @property
    def coarse(self) -> bool:
        """Whether a bin may hold more than one key."""
        return self.shift > 0 or self.gap[0] < self.gap[1]

    @classmethod
    def between(cls, keys: Keys, total: int) -> _Bins:
        """Choose bins for ascending `keys` [K] and a content of `total` keys: one per key if that saves memory."""
        low, high = int(keys[0]), int(keys[-1])
        if high - low <= min(total - total // 4, _MAX_BINS):
            return cls(low, high, (low, low), 0)
        # Half of all keys lie between -1e-19 and 1e-19, and few scores: let the gap take a thousandth of `keys`.
        near_zero = int(np.quantile(np.abs(keys), 0.001))
        gap = max(low, -near_zero), min(high, near_zero)
        shift, most = 0, min(_BINS_PER_KEY * keys.size, _MAX_BINS)
        while (high - low - (gap[1] - gap[0])) >> shift > most and shift < OCTAVE_BITS:  # more would overflow in `of`
            shift += 1
        return cls(low, high, gap, shift)

    def of(self, keys: Keys) -> NDArray[np.intp]:
        """Return [n]: 0 below `low`, from 1 to the bin of `high`, and at most one more above it."""
        inside = np.clip(keys, self.low - 1, self.high + 1)
        inside -= np.clip(inside, *self.gap)
        base = self.low - self.gap[0] - (1 << self.shift)
        offsets = inside.view(np.uint32) - np.uint32(base & 0xFFFFFFFF)  # modulo 2**32, so the difference is right
        return (offsets >> np.uint32(self.shift)).astype(np.intp)
