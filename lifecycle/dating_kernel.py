"""Rows in frame corrected, compiled: when each was, and which of an answer's events may belong elsewhere.

Problem: local and authority time are columns; corrected time is not one, for it follows from four. So it is reckoned
here for the rows of a part, by the rule of `streams.corrected_kernel`: local time less the estimated offset, with the
bound beside it. A row without an estimate is dated by the broker, or left out, as the question says.

An unreadable row has no time, nor has one that is left out. Of that the authority time is kept all the same, so that
what was left out of a range can be counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from lifecycle.query_kernel import NO_FAULT, UNCOUNTED
from lifecycle.sum_kernel import GROUPS, find_group, windows_at
from schemas.instants import INT64_MAX, INT64_MIN, US_PER_MS
from schemas.memory import kernel
from streams.corrected_kernel import TO_AUTHORITY, TO_CORRECTED, corrected

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lifecycle.query_kernel import RowsIn, Span
    from lifecycle.sum_kernel import Grouping, Groups


class Dated(NamedTuple):
    """When rows were. bound_us: below 0 where a row is dated by the broker, or has no time. fault: LEFT_OUT, too."""

    time: NDArray[np.int64]
    bound_us: NDArray[np.int64]
    fault: NDArray[np.uint8]


#: In place of the fault of a row that can be read and is left out; no Fault has this number.
LEFT_OUT: Final = 255
#: Authority times are cut to this, so that microseconds fit.
_AUTHORITY_MAX_MS: Final = INT64_MAX // US_PER_MS
#: Columns of what is counted by `count_doubt`: events that may belong elsewhere, and those dated by the broker.
NEAR_EDGE: Final = 0
UNKNOWN: Final = 1
DOUBT_COLUMNS: Final = 2


@kernel
def _authority_us(authority_ms: int) -> int:
    return max(min(authority_ms, _AUTHORITY_MAX_MS), -_AUTHORITY_MAX_MS) * US_PER_MS


@kernel
def date_rows(
    unknown: int,
    dated: Dated,
    local_us: NDArray[np.int64],
    authority_ms: NDArray[np.int64],
    offset_us: NDArray[np.int64],
    bound_us: NDArray[np.int64],
    fault: NDArray[np.uint8],
) -> None:
    """Fill `dated`. unknown: TO_AUTHORITY or TO_NOTHING of `corrected_kernel`."""
    for i in range(fault.size):
        at_us = _authority_us(authority_ms[i])
        known = bound_us[i] >= 0
        dated.fault[i] = fault[i]
        if fault[i] == NO_FAULT and not known and unknown != TO_AUTHORITY:
            dated.fault[i] = LEFT_OUT
        dated.time[i], dated.bound_us[i] = corrected(
            local_us[i], at_us, offset_us[i], bound_us[i], TO_CORRECTED, TO_AUTHORITY
        )


@kernel
def corrected_span(
    local_us: NDArray[np.int64],
    authority_ms: NDArray[np.int64],
    offset_us: NDArray[np.int64],
    bound_us: NDArray[np.int64],
    fault: NDArray[np.uint8],
) -> tuple[int, int]:
    """Least and greatest time of readable rows, those without an estimate dated by the broker; without any 0 and -1."""
    low, high = INT64_MAX, INT64_MIN
    for i in range(fault.size):
        if fault[i] == NO_FAULT:
            time_us, _ = corrected(
                local_us[i], _authority_us(authority_ms[i]), offset_us[i], bound_us[i], TO_CORRECTED, TO_AUTHORITY
            )
            low, high = min(low, time_us), max(high, time_us)
    if low > high:
        return 0, -1
    return low, high


@kernel
def count_doubt(
    rows: RowsIn,
    bound_us: NDArray[np.int64],
    span: Span,
    grouping: Grouping,
    groups: Groups,
    doubt: NDArray[np.int64],
) -> int:
    """Count rows that `add_rows` took, in doubt[group, column]; returns how many were left out of the range.

    An event may belong elsewhere if an edge of its window, or, without windows, an end of the range, is no further from
    it than its bound; one that is dated by the broker always, for nobody knows how long it was under way.
    """
    left_out = 0
    ends = span.low != INT64_MIN or span.high != INT64_MAX
    for i in range(span.first, span.last):
        if rows.flags[i] & UNCOUNTED != 0 or (rows.fault[i] != NO_FAULT and rows.fault[i] != LEFT_OUT):
            continue
        time, bound = rows.time[i], bound_us[i]
        if time < span.low or time > span.high:
            continue
        source = kind = 0
        if rows.source.size > 0:
            source = int(rows.source_of[rows.source[i]])
        if rows.kind.size > 0:
            kind = int(rows.kind_of[rows.kind[i]])
        if source < 0 or kind < 0:
            continue
        if rows.fault[i] == LEFT_OUT:
            left_out += 1
            continue
        key = 0
        if grouping.by == 1:
            key = source
        elif grouping.by != 0:
            key = kind
        near = bound < 0 and ends
        if bound >= 0 and grouping.slide == 0:  # sums of an end and a bound that would not fit reach every instant
            near = (span.low != INT64_MIN and (span.low > INT64_MAX - bound or time < span.low + bound)) or (
                span.high != INT64_MAX and (span.high < INT64_MIN + bound or time > span.high - bound)
            )
        first, last = windows_at(time, grouping)
        for window in range(first, last + 1):
            if grouping.slide != 0:
                into = time % grouping.slide + (last - window) * grouping.slide
                near = bound < 0 or into < bound or grouping.size - into <= bound
            group = find_group(groups.table, groups.window, groups.key, groups.state[GROUPS], window, key)
            doubt[group, NEAR_EDGE] += 1 if near else 0
            doubt[group, UNKNOWN] += 1 if bound < 0 else 0
    return left_out
