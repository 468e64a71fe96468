"""Rows of answers, compiled: which rows of a part are wanted, their order across partitions, their texts.

The kernels here look at rows one by one and write to arrays that their callers made; those that add rows up are in
`sum_kernel`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lifecycle.query_kernel import NO_FAULT, UNCOUNTED
from schemas.instants import INT64_MAX
from schemas.memory import kernel
from streams.severity_kernel import bound_ms_of, delta_ms_of, rounded_ms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lifecycle.query_kernel import RowsIn, Span


@kernel
def match_rows(rows: RowsIn, span: Span, chosen: NDArray[np.int64]) -> int:
    """Rows of the span, counted or not, that are wanted and, where times are given, readable: their places and number.

    Only unreadable rows have fault set; flags are not looked at.
    """
    count = 0
    for i in range(span.first, span.last):
        if rows.fault.size > 0 and rows.fault[i] != NO_FAULT:
            continue
        if rows.time.size > 0 and (rows.time[i] < span.low or rows.time[i] > span.high):
            continue
        if rows.source.size > 0 and (rows.source[i] < 0 or rows.source_of[rows.source[i]] < 0):
            continue
        if rows.kind.size > 0 and (rows.kind[i] < 0 or rows.kind_of[rows.kind[i]] < 0):
            continue
        chosen[count] = i
        count += 1
    return count


@kernel
def running_maximum(authority_ms: NDArray[np.int64], before: int, order_ms: NDArray[np.int64]) -> None:
    """order_ms[i] = the greatest of authority_ms up to i and of what was before them."""
    highest = before
    for i in range(order_ms.size):
        highest = max(highest, authority_ms[i])
        order_ms[i] = highest


@kernel
def latest_row(rows: RowsIn, span: Span) -> int:
    """Of the span's counted and wanted rows the one with the greatest time, the last of equals; -1 for none."""
    latest = -1
    for i in range(span.first, span.last):
        if rows.fault.size > 0 and (rows.fault[i] != NO_FAULT or rows.flags[i] & UNCOUNTED != 0):
            continue
        if rows.time[i] < span.low or rows.time[i] > span.high or rows.source_of[rows.source[i]] < 0:
            continue
        if latest < 0 or rows.time[i] >= rows.time[latest]:
            latest = i
    return latest


@kernel
def merge_runs(
    order: NDArray[np.int64],
    heads: NDArray[np.int64],
    ends: NDArray[np.int64],
    places: NDArray[np.int64],
    merged: NDArray[np.int64],
) -> None:
    """Merge ascending runs until `merged` is full; of equals the earlier run's come first.

    Run r is order[heads[r]] to order[ends[r] - 1]; afterwards heads[r] is the first of it that was not taken.
    places[i] = where order[i] went.
    """
    at = 0
    while at < merged.size:
        first = -1
        for run in range(heads.size):
            if heads[run] < ends[run] and (first < 0 or order[heads[run]] < order[heads[first]]):
                first = run
        last = INT64_MAX  # up to this the run goes on before another one does
        for run in range(heads.size):
            if run != first and heads[run] < ends[run]:
                last = min(last, order[heads[run]] - (1 if run < first else 0))
        head = heads[first]
        while head < ends[first] and at < merged.size and order[head] <= last:
            places[head] = at
            merged[at] = order[head]
            head += 1
            at += 1
        heads[first] = head


@kernel
def merge_counted(
    order: NDArray[np.int64],
    heads: NDArray[np.int64],
    ends: NDArray[np.int64],
    lowest: int,
    next_place: NDArray[np.int32],
    places: NDArray[np.int64],
    merged: NDArray[np.int64],
) -> None:
    """As merge_runs, by counting: the rows of each order, so the place of the first of them, and one for each row.

    lowest: of all orders. next_place: zeros, two more than the highest order is above it.
    """
    for run in range(heads.size):
        for i in range(heads[run], ends[run]):
            next_place[order[i] - lowest + 1] += 1
    for i in range(1, next_place.size):
        next_place[i] += next_place[i - 1]
    for run in range(heads.size):
        head = heads[run]
        while head < ends[run]:
            place = next_place[order[head] - lowest]
            if place >= merged.size:
                break
            next_place[order[head] - lowest] = place + 1
            places[head] = place
            merged[place] = order[head]
            head += 1
        heads[run] = head


@kernel
def put_at(values: NDArray[Any], places: NDArray[np.int64], target: NDArray[Any]) -> None:
    """target[places[i]] = values[i]."""
    for i in range(places.size):
        target[places[i]] = values[i]


@kernel
def look_up(codes: NDArray[np.int32], known: NDArray[np.int32], found: NDArray[np.int32]) -> None:
    """found[i] = known[codes[i]]; -1 is the last place."""
    for i in range(codes.size):
        found[i] = known[codes[i]]


@kernel
def mark_used(codes: NDArray[np.int32], used: NDArray[np.bool_]) -> None:
    """used[c] = True for each code; -1 is the last place."""
    for i in range(codes.size):
        used[codes[i]] = True


@kernel
def put_lengths(
    offsets: NDArray[np.int32], rows: NDArray[np.int64], places: NDArray[np.int64], ends: NDArray[np.int64]
) -> None:
    """ends[places[i] + 1] = the length of text rows[i]."""
    for i in range(rows.size):
        ends[places[i] + 1] = offsets[rows[i] + 1] - offsets[rows[i]]


@kernel
def put_texts(
    offsets: NDArray[np.int32],
    content: NDArray[np.uint8],
    rows: NDArray[np.int64],
    places: NDArray[np.int64],
    ends: NDArray[np.int64],
    target: NDArray[np.uint8],
) -> None:
    """Copy text rows[i] to target from ends[places[i]] on."""
    for i in range(rows.size):
        begin, at = offsets[rows[i]], ends[places[i]]
        for j in range(ends[places[i] + 1] - at):
            target[at + j] = content[begin + j]


@kernel
def deltas(local_us: NDArray[np.int64], authority_ms: NDArray[np.int64], delta_ms: NDArray[np.int64]) -> None:
    """delta_ms[i] = local minus authority in milliseconds, rounded half away from zero."""
    for i in range(delta_ms.size):
        delta_ms[i] = delta_ms_of(local_us[i], authority_ms[i])


@kernel
def estimates_ms(
    offset_us: NDArray[np.int64], bound_us: NDArray[np.int64], offset_ms: NDArray[np.int64], bound_ms: NDArray[np.int64]
) -> None:
    """In milliseconds: offsets rounded half away from zero, bounds rounded up; a bound of -1, for none, stays."""
    for i in range(offset_ms.size):
        offset_ms[i] = rounded_ms(offset_us[i])
        bound_ms[i] = bound_ms_of(bound_us[i])
