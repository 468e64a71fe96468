"""What is counted for an answer: groups that grow as they are met, sums without rounding, values for percentiles.

The arrays and the kernels that fill them are `sum_kernel`'s; here they are made larger where a kernel asks for it,
and turned into an answer at the end: groups ascending by window and name, each sum rounded once. What becomes of values
for percentiles, `spread` says; where it asks for a second reading of the same rows, `look_again` begins one.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from lifecycle.dating_kernel import DOUBT_COLUMNS, count_doubt
from lifecycle.planner import Function
from lifecycle.spread import Spreads, relative_errors
from lifecycle.sum_kernel import (
    ADDED,
    ADDITIONS_MAX,
    BASE,
    GROUPS,
    LIMBS_TOUCHED,
    MISSING,
    STATE,
    TAKEN,
    Groups,
    Stop,
    add_lines,
    add_rows,
    carry,
    place_groups,
    round_sums,
)
from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN
from streams.window_table import EXACT_VALUES
from streams.windows import By

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from lifecycle.planner import Aggregation, Explain
    from lifecycle.query_kernel import Limits, Lines, RowsIn, Span, Wanted
    from lifecycle.spread import Spread
    from lifecycle.sum_kernel import Grouping

#: About 150 bytes each while they are counted.
GROUPS_MAX: Final = 250_000
#: Values that are kept for percentiles, once for each window they are in: 20 bytes each. Beyond it those of groups with
#: many are counted by bin.
SAMPLES_MAX: Final = 4 * 1024 * 1024

#: Instants below this can be moved by a window without leaving 64 bits.
_WINDOWS_SAFE: Final = 2**62

#: Columns of `Aggregates.doubt`, in the order in which `count_doubt` counts them.
DOUBT: Final = ("near_edge", "unknown")
_GROUPS_FIRST: Final = 256
#: Limbs that are held at first: for values whose size is between some 1e-12 and 1e12.
_BASE_FIRST: Final = 29
_LIMBS_FIRST: Final = 7


class Aggregates(NamedTuple):
    """A line for each group, ascending by window and name.

    window_start_us, window_end_us (exclusive): cut to 64 bits; None without windows. key: place in names, which ascend;
    None by all. count: counted rows; values: the finite values among them, of which the functions are: NaN without any,
    infinite beyond the largest double. What was not asked for is not there. doubt: in frame corrected, by name as in
    DOUBT, near_edge: events that may belong elsewhere, and unknown: those that are dated by the broker. relative_error:
    of the percentiles, at most, where there are any. spreads: of an answer that is to be merged, of each group.
    """

    by: By
    window_start_us: NDArray[np.int64] | None
    window_end_us: NDArray[np.int64] | None
    key: NDArray[np.int32] | None
    names: tuple[bytes, ...]
    count: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.count
    values: NDArray[np.int64]
    functions: dict[Function, NDArray[np.float64]]
    percentiles: dict[int, NDArray[np.float64]]
    explain: Explain
    doubt: Mapping[str, NDArray[np.int64]] = MappingProxyType({})
    relative_error: NDArray[np.float64] | None = None
    spreads: Sequence[Spread] = ()


class Tally:
    """Counts for one aggregation. by_lines, by_rows: the grouping in the units of both; doubtful: to tell `doubt`."""

    def __init__(
        self, aggregation: Aggregation, by_lines: Grouping, by_rows: Grouping, *, doubtful: bool = False
    ) -> None:
        self._aggregation, self._by_lines, self._by_rows = aggregation, by_lines, by_rows
        window = aggregation.window
        self._windows = -(-window.size_us // window.slide_us) if window else 1
        self._groups = _empty_groups(aggregation.sums)
        self._doubt = np.zeros((_GROUPS_FIRST, DOUBT_COLUMNS), np.int64) if doubtful else None
        self._spreads = Spreads(aggregation.percentiles, aggregation.exact)
        self._settle_at = SAMPLES_MAX
        #: What the first reading has counted, while there is a second.
        self._counted: Groups | None = None

    def add_lines(self, lines: Lines, limits: Limits, wanted: Wanted, decisions: NDArray[np.uint8]) -> None:
        """Take the lines of chunks that statistics answer for."""
        self._make_room(lines.sum.size)
        chunk, line, stop = 0, 0, -1
        while stop != Stop.DONE:
            chunk, line, stop = add_lines(lines, limits, wanted, decisions, self._by_lines, self._groups, chunk, line)
            self._mend(stop)

    def add_rows(self, rows: RowsIn, span: Span) -> None:
        """Take the rows of a span. Raises BadInputError where that makes too many groups, or values to keep."""
        count = span.last - span.first
        self._make_room(count)
        if self._aggregation.percentiles:
            self._spreads.make_room(int(self._groups.state[TAKEN]), count * self._windows)
        at, stop = span.first, -1
        while stop != Stop.DONE:
            at, stop = add_rows(rows, span, self._by_rows, self._groups, self._spreads.samples, at)
            self._mend(stop)
        if self._counted is not None or self._groups.state[TAKEN] > self._settle_at:
            self._settle()

    def add_doubt(self, rows: RowsIn, bound_us: NDArray[np.int64], span: Span) -> int:
        """Of rows that were taken, in frame corrected, how sure their times are; returns how many were left out."""
        if self._counted is not None:
            return 0
        groups = self._groups
        if self._doubt is None or len(self._doubt) < groups.window.size:
            before, self._doubt = self._doubt, np.zeros((groups.window.size, DOUBT_COLUMNS), np.int64)
            if before is not None:
                self._doubt[: len(before)] = before
        return count_doubt(rows, bound_us, span, self._by_rows, groups, self._doubt)

    def look_again(self) -> bool:
        """Whether the same rows are to be added a second time before there is a result; once all have been."""
        if self._counted is not None or not self._aggregation.exact or self._spreads.whole:
            return False
        self._settle()
        groups = self._counted = self._groups
        self._spreads.look_again(int(groups.state[TAKEN]), groups.values)
        self._groups = _groups(groups.state.copy(), groups.window.size, 0)._replace(
            table=groups.table, window=groups.window, key=groups.key
        )
        self._groups.state[TAKEN] = 0
        return True

    def result(self, names: Sequence[bytes], explain: Explain) -> Aggregates:
        """What was counted; names: what keys mean. To be asked for once."""
        aggregation, groups = self._aggregation, self._end()
        found = int(groups.state[GROUPS])
        if found == 0 and aggregation.window is None and aggregation.by is By.ALL:
            found = 1  # of nothing there is an answer too
        keys = np.zeros(found, np.int64)
        used: tuple[bytes, ...] = ()
        if aggregation.by is not By.ALL:
            used, keys = _ranked(names, groups.key[:found])
        order = np.lexsort((keys, groups.window[:found]))
        values = groups.values[:found]
        some = values > 0
        columns = {
            Function.MIN: np.where(some, groups.minimum[:found], np.nan),
            Function.MAX: np.where(some, groups.maximum[:found], np.nan),
        }
        if aggregation.sums:
            bits = np.zeros(found, np.int64)
            round_sums(groups.limbs, int(groups.state[BASE]), found, bits)
            sums = np.where(some, bits.view(np.float64), np.nan)
            columns |= {Function.SUM: sums, Function.MEAN: sums / np.where(some, values, 1)}
        start, end = self._bounds(groups.window[:found][order])
        told = aggregation.percentiles
        percentiles = self._spreads.result(int(groups.state[TAKEN]), values) if told else {}
        return Aggregates(
            aggregation.by,
            start,
            end,
            None if aggregation.by is By.ALL else keys[order].astype(np.int32),
            used,
            groups.count[:found][order],
            values[order],
            {name: columns[name][order] for name in Function if name in aggregation.functions},
            {percentile: column[order] for percentile, column in percentiles.items()},
            explain,
            {} if self._doubt is None else dict(zip(DOUBT, self._doubt[:found][order].T.copy(), strict=True)),
            relative_errors(values[order], exact=aggregation.exact) if told else None,
        )

    def _bounds(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
        window = self._aggregation.window
        if window is None:
            return None, None
        if not windows.size or max(-int(windows.min()), int(windows.max())) < _WINDOWS_SAFE // window.size_us:
            starts = windows * window.slide_us
            return starts, starts + window.size_us
        exact = [number * window.slide_us for number in windows.tolist()]
        return _cut(exact), _cut([start + window.size_us for start in exact])

    def _settle(self) -> None:
        """Count values by bin where there are many; those that must be kept may be too many."""
        state = self._groups.state
        values = self._groups.values if self._counted is None else self._counted.values
        state[TAKEN] = self._spreads.settle(int(state[TAKEN]), values)
        if state[TAKEN] > SAMPLES_MAX:
            raise BadInputError(
                f"percentiles of more than {SAMPLES_MAX:,} values in groups of up to {EXACT_VALUES} are not answered. "
                "Ask for a shorter range, longer windows, or windows that share fewer events"
            )
        self._settle_at = int(state[TAKEN]) + SAMPLES_MAX // 2

    def _end(self) -> Groups:
        """The groups of the answer; values that are to be in bins are."""
        if self._counted is not None:
            self._groups, self._counted = self._counted, None
        elif self._aggregation.percentiles and not self._spreads.again and not self._spreads.whole:
            self._settle()
        return self._groups

    def _make_room(self, additions: int) -> None:
        """For so many more additions to any limb."""
        state = self._groups.state
        if state[ADDED] + additions > ADDITIONS_MAX:
            carry(self._groups.limbs, int(state[GROUPS]))
            state[ADDED] = 0
        state[ADDED] += additions

    def _mend(self, stop: int) -> None:
        """Make what a kernel stopped for."""
        if stop == Stop.GROW:
            self._groups = self._grown()
        elif stop == Stop.WIDEN:
            self._groups = _widened(self._groups)

    def _grown(self) -> Groups:
        groups = self._groups
        used = int(groups.state[GROUPS])
        if used + self._windows > GROUPS_MAX:
            raise BadInputError(
                f"an answer of more than {GROUPS_MAX:,} groups is not given. Ask for a shorter range, longer windows "
                "or fewer names"
            )
        size = min(max(4 * groups.window.size, used + self._windows), GROUPS_MAX)
        grown = _groups(groups.state, size, groups.limbs.shape[1])
        for column, before in zip(grown[2:], groups[2:], strict=True):
            column[: len(before)] = before
        place_groups(grown)
        return grown


def _empty_groups(sums: bool) -> Groups:  # noqa: FBT001 - of one argument
    state = np.zeros(STATE, np.int64)
    state[BASE] = _BASE_FIRST
    return _groups(state, _GROUPS_FIRST, _LIMBS_FIRST if sums else 0)


def _groups(state: NDArray[np.int64], size: int, limbs: int) -> Groups:
    """Room for so many; the table is half empty at least."""
    places = 1 << (2 * size - 1).bit_length()
    return Groups(
        state,
        table=np.zeros(places, np.int64),
        window=np.zeros(size, np.int64),
        key=np.zeros(size, np.int64),
        count=np.zeros(size, np.int64),
        values=np.zeros(size, np.int64),
        minimum=np.zeros(size),
        maximum=np.zeros(size),
        limbs=np.zeros((size, limbs), np.int64),
    )


def _widened(groups: Groups) -> Groups:
    """With limbs for the value that had none, and one for carries."""
    base, missing = int(groups.state[BASE]), int(groups.state[MISSING])
    first = min(base, missing)
    end = max(base + groups.limbs.shape[1], missing + LIMBS_TOUCHED + 1)
    limbs = np.zeros((groups.limbs.shape[0], end - first), np.int64)
    # the limb that takes carries may hold them already, and keeps its place
    limbs[:, base - first : base - first + groups.limbs.shape[1]] = groups.limbs
    groups.state[BASE] = first
    return groups._replace(limbs=limbs)


def _ranked(names: Sequence[bytes], codes: NDArray[np.int64]) -> tuple[tuple[bytes, ...], NDArray[np.int64]]:
    """The names of these codes, ascending, and for each code its place in them."""
    used, places = np.unique(codes, return_inverse=True)
    found = [names[code] for code in used.tolist()]
    ranked = sorted(range(len(found)), key=found.__getitem__)
    ranks = np.empty(used.size, np.int64)
    ranks[ranked] = np.arange(used.size)
    return tuple(found[place] for place in ranked), ranks[places]


def _cut(instants: list[int]) -> NDArray[np.int64]:
    return np.array([max(min(instant, INT64_MAX), INT64_MIN) for instant in instants], np.int64)
