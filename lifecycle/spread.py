"""Percentiles of groups of values, however many they are, in bounded memory.

Problem: the nearest rank of a hundred million values must not need them all at once, must not depend on the order in
which chunks are read, and must be what a window of the ledger said of the same events. So it is found as windows find
it: of the values themselves while a group has up to EXACT_VALUES of them, then from the bins of a sketch, within
RELATIVE_ERROR (see `streams.quantiles`).

    values as they come -> samples, SAMPLES_MAX or so -> of groups that have many, counts by (group, bin)

Where exact ones are asked for and not all values can be kept, the rows are read again: the bins say between which
values each rank lies, and only these are counted, each different value once.

GUARANTEE a percentile depends on the values alone: not on their order, nor on how parts were merged. With a sketch it
is bit for bit what a window says of the same values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np

from lifecycle.spread_kernel import Counts, add_counts, bin_samples, bins_of, take_near, values_of
from lifecycle.sum_kernel import Samples, group_values
from schemas.errors import BadInputError
from streams.quantiles import RELATIVE_ERROR, WHOLE_THOUSANDTHS
from streams.window_table import EXACT_VALUES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Different (group, bin), or different values beside a rank: 48 to 96 bytes each.
ENTRIES_MAX: Final = 2 * 1024 * 1024
_SAMPLES_FIRST: Final = 65_536
_PLACES_FIRST: Final = 4_096
#: A bin and its sign.
_BIN_BITS: Final = 18


class Spread(NamedTuple):
    """Of one group. values: all, ascending; or None, and bins, ascending, with counts; without both it is not known."""

    values: NDArray[np.float64] | None
    bins: NDArray[np.int64] | None = None
    counts: NDArray[np.int64] | None = None

    @property
    def known(self) -> bool:
        """Whether it can be merged with another."""
        return self.values is not None or self.bins is not None

    def packed(self) -> tuple[bytes | None, bytes | None]:
        """As bytes: doubles; bins, then counts."""
        if self.bins is None or self.counts is None:
            return None if self.values is None else self.values.astype("<f8").tobytes(), None
        return None, np.concatenate([self.bins, self.counts]).astype("<i8").tobytes()

    @classmethod
    def unpacked(cls, values: bytes | None, bins: bytes | None) -> Self:
        """What `packed` gave."""
        if bins is None:
            return cls(None if values is None else np.frombuffer(values, "<f8"))
        numbers = np.frombuffer(bins, "<i8")
        return cls(None, *np.split(numbers, 2))


def rank_of(count: Any, percentile: int) -> Any:
    """The nearest rank, from 1; of several counts those of each."""
    return -(-percentile * count // WHOLE_THOUSANDTHS)


def joined(parts: Sequence[Spread], *, exact: bool) -> Spread:
    """Of all values of these, which are known: as one group would have them."""
    few = [part.values for part in parts if part.values is not None]
    if len(few) == len(parts) and (exact or sum(map(len, few)) <= EXACT_VALUES):
        return Spread(np.sort(np.concatenate([np.zeros(0), *few])))
    binned = [_binned(part) for part in parts]
    bins, places = np.unique(np.concatenate([bins for bins, _ in binned]), return_inverse=True)
    counts = np.zeros(bins.size, np.int64)
    np.add.at(counts, places, np.concatenate([counts for _, counts in binned]))
    return Spread(None, bins, counts)


def percentile_of(spread: Spread, percentile: int) -> float:
    """By nearest rank, in thousandths of a percent; there is a value."""
    if spread.values is not None:
        return float(spread.values[rank_of(spread.values.size, percentile) - 1])
    bins, counts = _binned(spread)
    ends = np.cumsum(counts)
    found = np.empty(1)
    values_of(bins[np.searchsorted(ends, rank_of(int(ends[-1]), percentile))][None], found)
    return float(found[0])


def relative_errors(values: NDArray[np.int64], *, exact: bool) -> NDArray[np.float64]:
    """Of the percentiles of groups with so many values, at most."""
    return np.where((values > EXACT_VALUES) & (not exact), RELATIVE_ERROR, 0.0)


def _binned(spread: Spread) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if spread.bins is not None and spread.counts is not None:
        return spread.bins, spread.counts
    values = np.zeros(0) if spread.values is None else spread.values
    bins = np.empty(values.size, np.int64)
    bins_of(values, bins)
    found, counts = np.unique(bins, return_counts=True)
    return found, counts.astype(np.int64)


@dataclass(slots=True)
class Spreads:
    """Of the groups of one answer. exact: no bins in the end.

    samples: room for the values that come next, behind those that are kept.
    """

    percentiles: tuple[int, ...]
    exact: bool
    samples: Samples = field(init=False)
    _counts: Counts = field(init=False)
    #: While rows are read again: what the first reading has found, and which values are wanted now.
    _first: _First | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.samples = _samples(_SAMPLES_FIRST if self.percentiles else 0)
        self._counts = _counts(_PLACES_FIRST if self.percentiles else 1)

    @property
    def whole(self) -> bool:
        """Whether all values are to be kept, and are."""
        return self.exact and not self._counts.used[0]

    @property
    def again(self) -> bool:
        """Whether this is that reading."""
        return self._first is not None

    def make_room(self, taken: int, most: int) -> None:
        """For so many samples behind those that were taken."""
        if taken + most > self.samples.value.size:
            larger = _samples(max(2 * self.samples.value.size, taken + most))
            larger.group[:taken], larger.value[:taken] = self.samples.group[:taken], self.samples.value[:taken]
            self.samples = larger

    def settle(self, taken: int, values: NDArray[np.int64]) -> int:
        """Count what was taken: by bin, of groups that have many values; returns how many samples are left.

        Raises BadInputError where that are too many different ones.
        """
        if self._first is not None:
            self._take_near(taken)
            return 0
        at, kept = 0, 0
        while at < taken:
            at, kept = bin_samples(self.samples, at, taken, kept, values, self._counts)
            if at < taken:
                self._grow("bins of sketches")
        return kept

    def look_again(self, taken: int, values: NDArray[np.int64]) -> None:
        """From now on take only values in the bins of the ranks. values: of each group; all that came is settled."""
        entries = self._sorted()
        few = Samples(self.samples.group[:taken].copy(), self.samples.value[:taken].copy())
        many = np.unique(entries.group)
        bins, _ = entries.at_ranks(many, values[many], self.percentiles)
        pairs = np.unique(np.stack([np.repeat(many, bins.shape[1]), bins.ravel()]), axis=1)
        wanted = Counts(np.zeros(1, np.int64), pairs[0].copy(), pairs[1].copy(), np.ones(pairs.shape[1], np.int64))
        near = _with_room(_counts(_PLACES_FIRST), pairs.shape[1])
        add_counts(near, wanted)
        self._first = _First(entries, few, near)
        self._counts = _counts(_PLACES_FIRST)

    def result(self, taken: int, values: NDArray[np.int64]) -> dict[int, NDArray[np.float64]]:
        """Of each group, by nearest rank; all that came is settled, but where it is exact and not crowded."""
        columns = {percentile: np.full(values.size, np.nan) for percentile in self.percentiles}
        binned = self._first.entries if self._first is not None else self._sorted()
        many = np.unique(binned.group)
        ends, ordered = self._few(taken, values, many)
        for group, (count, end) in enumerate(zip(np.diff(ends, prepend=0).tolist(), ends.tolist(), strict=True)):
            if count:
                places = [rank_of(count, percentile) - 1 for percentile in self.percentiles]
                part = np.partition(ordered[end - count : end], sorted(set(places)))
                for percentile, place in zip(self.percentiles, places, strict=True):
                    columns[percentile][group] = part[place]
        bins, below = binned.at_ranks(many, values[many], self.percentiles)
        near = None if self._first is None else self._sorted()
        for place, percentile in enumerate(self.percentiles):
            found = np.empty(many.size)
            if near is None:
                values_of(bins[:, place].copy(), found)
            else:
                found = near.at_bins(many, bins[:, place], rank_of(values[many], percentile) - below[:, place])
            columns[percentile][many] = found
        return columns

    def parts(self, taken: int, values: NDArray[np.int64]) -> list[Spread]:
        """Of each group, for merging; unknown where its values are not at hand. As for result."""
        binned = self._first.entries if self._first is not None else self._sorted()
        many = np.unique(binned.group)
        ends, ordered = self._few(taken, values, many)
        found = [
            Spread(np.sort(ordered[end - count : end]))
            for count, end in zip(np.diff(ends, prepend=0).tolist(), ends.tolist(), strict=True)
        ]
        for group in many.tolist():
            span = binned.span(group)
            found[group] = Spread(None) if self.exact else Spread(None, binned.bins[span], binned.count[span])
        return found

    def _few(
        self, taken: int, values: NDArray[np.int64], many: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The values of the groups that are not in bins, one group behind the other, and where each ends."""
        kept = values.copy()
        kept[many] = 0
        ends = np.cumsum(kept)
        ordered = np.empty(int(ends[-1]) if ends.size else 0)
        samples = Samples(self.samples.group[:taken], self.samples.value[:taken])
        group_values(samples if self._first is None else self._first.few, ends - kept, ordered)
        return ends, ordered

    def _take_near(self, taken: int) -> None:
        first, at = self._first, 0
        while first is not None and at < taken:
            at = take_near(self.samples, at, taken, first.near, self._counts)
            if at < taken:
                self._grow("different values beside the ranks")

    def _grow(self, what: str) -> None:
        if int(self._counts.used[0]) >= ENTRIES_MAX:
            remedy = "shorter windows or fewer names" if self._first is None else "percentiles within their error"
            raise BadInputError(
                f"percentiles that need more than {ENTRIES_MAX:,} {what} are not answered. Ask for a shorter range, or "
                f"for {remedy}"
            )
        self._counts = _with_room(self._counts, int(self._counts.used[0]))

    def _sorted(self) -> _Entries:
        used = np.flatnonzero(self._counts.count)
        group, word, count = (column[used] for column in self._counts[1:])
        if self._first is not None:  # words are doubles: of negative ones the bits fall
            word = word.view(np.float64)
        order = np.lexsort((word, group))
        return _Entries(group[order], word[order], count[order], np.cumsum(count[order]))


class _Entries(NamedTuple):
    """Of a table, ascending by group and word. ends: of the counts, added up."""

    group: NDArray[np.int64]
    word: NDArray[np.int64] | NDArray[np.float64]
    count: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.count
    ends: NDArray[np.int64]

    @property
    def bins(self) -> NDArray[np.int64]:
        """The words of a first reading."""
        return self.word.astype(np.int64)

    def span(self, group: int) -> slice:
        """Where a group is."""
        return slice(*np.searchsorted(self.group, [group, group + 1]).tolist())

    def at_ranks(
        self, groups: NDArray[np.int64], values: NDArray[np.int64], percentiles: tuple[int, ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """int64[groups, percentiles]: the bins of the ranks, and how many values of the group are below each.

        groups: ascending; values: how many each has.
        """
        starts = np.searchsorted(self.group, groups)
        before = np.concatenate([[0], self.ends])[starts][:, None]
        ranks = np.stack([rank_of(values, percentile) for percentile in percentiles], axis=1)
        places = np.searchsorted(self.ends, before + ranks)
        return self.bins[places], self.ends[places] - self.count[places] - before

    def at_bins(
        self, groups: NDArray[np.int64], bins: NDArray[np.int64], ranks: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Where words are values: of each group that of a rank, from 1, among those in a bin."""
        values, of_words = self.word.astype(np.float64), np.empty(self.word.size, np.int64)
        bins_of(values, of_words)
        keys = self.group << _BIN_BITS | of_words + (1 << _BIN_BITS - 1)  # ascending, as groups and values are
        starts = np.searchsorted(keys, groups << _BIN_BITS | bins + (1 << _BIN_BITS - 1))
        before = np.concatenate([[0], self.ends])[starts]
        return values[np.searchsorted(self.ends, before + ranks)]


class _First(NamedTuple):
    """What a first reading has found. few: values of groups that are not in bins; near: (group, bin) of the ranks."""

    entries: _Entries
    few: Samples
    near: Counts


def _samples(size: int) -> Samples:
    return Samples(np.empty(size, np.int32), np.empty(size))


def _counts(places: int) -> Counts:
    columns = [np.zeros(places, np.int64) for _ in range(3)]
    return Counts(np.zeros(1, np.int64), *columns)


def _with_room(counts: Counts, more: int) -> Counts:
    """The same, a quarter full at most with so many more."""
    if 4 * (int(counts.used[0]) + more) <= counts.count.size:
        return counts
    larger = _counts(1 << (4 * (int(counts.used[0]) + more) - 1).bit_length())
    add_counts(larger, counts)
    return larger
