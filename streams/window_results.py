"""Results of windows: of one that is told of, of all that changed, of all that end; and what becomes of them then.

GUARANTEE results of several windows come in the order (start, first sequence): that of the panes and their lists.

Whatever could not be written, since the buffer is full, is written when the kernel is called again for the same row: a
window that has had its result is CLOSED, or no longer CHANGED.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from schemas.memory import kernel
from streams.derive_kernel import (
    BY_ALL,
    LATEST,
    N_CLOSE_DUE,
    N_EARLY_PANE,
    N_EARLY_ROW,
    N_RESULTS,
    N_WATERMARK,
    RESULTS_MAX,
)
from streams.prefetch import prefetch
from streams.quantiles import rank, sketch_percentile, sketch_sorted
from streams.results import (
    AT_INDEX,
    END_US,
    FINAL,
    FLOAT_COLUMNS,
    KEY_ADDRESS,
    KEY_LENGTH,
    METHOD,
    NEAR_EDGE,
    START_US,
    Method,
)
from streams.results import COUNT as RESULT_COUNT
from streams.results import FIRST as RESULT_FIRST
from streams.results import LAST as RESULT_LAST
from streams.results import MAX as RESULT_MAX
from streams.results import MEAN as RESULT_MEAN
from streams.results import MIN as RESULT_MIN
from streams.results import REVISION as RESULT_REVISION
from streams.results import SUM as RESULT_SUM
from streams.results import VALUES as RESULT_VALUES
from streams.results import VARIANCE as RESULT_VARIANCE
from streams.sorting import sort_first
from streams.sources import LENGTH_BITS, NAME
from streams.window_table import (
    CHANGED,
    CLOSED,
    COUNT,
    END_PANE,
    FIRST,
    FIRST_PANE,
    KEPT,
    KEY,
    LAST,
    M2,
    MAX,
    MIN,
    NEAR_BITS,
    NEXT,
    PANE_CLOSED,
    PANE_HEAD,
    PANE_START,
    REVISION,
    ROW_COLUMNS,
    SKETCHED,
    START,
    STATE,
    SUM,
    UNKEPT,
    VALUES,
    drop_window,
    kept_values,
    window_hash,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streams.derive_kernel import Plan
    from streams.results import Results
    from streams.window_table import Windows

_EXACT, _SKETCH, _UNKEPT = int(Method.EXACT), int(Method.DDSKETCH), int(Method.NONE)
_LENGTH_MASK: Final = (1 << LENGTH_BITS) - 1
_ROW_BYTES: Final = 8 * ROW_COLUMNS
_LINE_BYTES: Final = 64
_ENTRY_BYTES: Final = 8
#: Of a pane that is being closed PANE_CLOSED is the row to go on with, and this: those before it are not walked again.
_RESUMED: Final = 2


class Scratch(NamedTuple):
    """Where percentiles are made."""

    values: NDArray[np.float64]
    bins: NDArray[np.int64]
    counts: NDArray[np.int64]


@kernel
def _percentiles(windows: Windows, row: int, plan: Plan, results: Results, at: int, scratch: Scratch) -> None:
    """Fill the percentiles of a result, and the method where it is not the exact one."""
    rows = windows.rows
    count, state = rows[row, VALUES], rows[row, STATE]
    if state & UNKEPT:
        results.ints[at, METHOD] = _UNKEPT
    if state & UNKEPT or count == 0:
        for i in range(plan.percentiles.size):
            results.floats[at, FLOAT_COLUMNS + i] = math.nan
    elif state & SKETCHED:
        results.ints[at, METHOD] = _SKETCH
        used = sketch_sorted(windows.sketches[rows[row, KEPT] - 1], scratch.bins, scratch.counts)
        for i in range(plan.percentiles.size):
            results.floats[at, FLOAT_COLUMNS + i] = sketch_percentile(
                scratch.bins, scratch.counts, used, count, plan.percentiles[i]
            )
    else:
        values = scratch.values
        sort_first(values, kept_values(windows, row, values))
        for i in range(plan.percentiles.size):
            results.floats[at, FLOAT_COLUMNS + i] = values[rank(count, plan.percentiles[i]) - 1]


@kernel
def emit(
    windows: Windows, row: int, plan: Plan, hot: NDArray[np.int64], arena: int, numbers: NDArray[np.int64],
    results: Results, scratch: Scratch, index: int, final: int,
) -> None:  # fmt: skip
    """Write a result of a window; there is room for it. hot, arena: of the keys, the latter an address."""
    rows, reals = windows.rows, windows.reals
    ints, floats = results.ints, results.floats
    at = numbers[N_RESULTS]
    numbers[N_RESULTS] = at + 1
    rows[row, REVISION] += 1
    rows[row, STATE] &= ~CHANGED
    ints[at, KEY_ADDRESS] = 0
    ints[at, KEY_LENGTH] = -1
    if plan.by != BY_ALL:
        name = hot[rows[row, KEY], NAME]
        ints[at, KEY_ADDRESS] = arena + (name >> LENGTH_BITS)
        ints[at, KEY_LENGTH] = name & _LENGTH_MASK
    ints[at, START_US] = rows[row, START]
    ints[at, END_US] = rows[row, START] + plan.size_us
    ints[at, RESULT_REVISION] = rows[row, REVISION]
    ints[at, FINAL] = final
    ints[at, AT_INDEX] = index
    ints[at, RESULT_COUNT] = rows[row, COUNT]
    ints[at, NEAR_EDGE] = rows[row, STATE] >> NEAR_BITS
    count = rows[row, VALUES]
    ints[at, RESULT_VALUES] = count
    ints[at, METHOD] = _EXACT
    if count == 0:
        for column in range(FLOAT_COLUMNS):
            floats[at, column] = math.nan
    else:
        floats[at, RESULT_SUM] = reals[row, SUM]
        floats[at, RESULT_MIN] = reals[row, MIN]
        floats[at, RESULT_MAX] = reals[row, MAX]
        floats[at, RESULT_MEAN] = reals[row, SUM] / count
        floats[at, RESULT_VARIANCE] = reals[row, M2] / count
        floats[at, RESULT_FIRST] = reals[row, FIRST]
        floats[at, RESULT_LAST] = reals[row, LAST]
    if plan.percentiles.size > 0:
        _percentiles(windows, row, plan, results, at, scratch)


@kernel
def emit_changed(
    windows: Windows, plan: Plan, hot: NDArray[np.int64], arena: int, numbers: NDArray[np.int64], results: Results,
    scratch: Scratch, index: int,
) -> bool:  # fmt: skip
    """A result of each open window that changed since its last one; False where the results are full.

    Those that were passed before it came back are not walked again.
    """
    rows, panes, used = windows.rows, windows.panes, windows.used
    for pane in range(max(used[FIRST_PANE], numbers[N_EARLY_PANE]), used[END_PANE]):
        if panes[pane, PANE_CLOSED]:
            continue
        row = numbers[N_EARLY_ROW] - 1 if numbers[N_EARLY_ROW] > 0 else panes[pane, PANE_HEAD]
        numbers[N_EARLY_ROW] = 0
        while row >= 0:
            if rows[row, STATE] & CHANGED:
                if numbers[N_RESULTS] == RESULTS_MAX:
                    numbers[N_EARLY_PANE] = pane
                    numbers[N_EARLY_ROW] = row + 1
                    return False
                emit(windows, row, plan, hot, arena, numbers, results, scratch, index, 0)
            row = rows[row, NEXT]
    numbers[N_EARLY_PANE] = 0
    return True


@kernel
def _ask_for(windows: Windows, row: int, hot: NDArray[np.int64]) -> None:
    """Have in time what closing a window, and the one after it in its pane, will look at."""
    rows, lines = windows.rows, windows.rows.ctypes.data
    following = rows[row, NEXT]
    prefetch(lines + _ROW_BYTES * following)
    prefetch(lines + _ROW_BYTES * following + _LINE_BYTES)
    prefetch(windows.blocks.ctypes.data + _LINE_BYTES * (rows[row, KEPT] - 1))
    prefetch(hot.ctypes.data + _LINE_BYTES * rows[row, KEY])
    place = window_hash(rows[row, KEY], rows[row, START]) & (windows.table.size - 1)
    prefetch(windows.table.ctypes.data + _ENTRY_BYTES * place)


@kernel
def _drop_due(windows: Windows, plan: Plan, watermark_us: int) -> int:
    """Drop the windows that take no late event any more; returns the watermark at which the next ones go."""
    rows, panes, used = windows.rows, windows.panes, windows.used
    while used[FIRST_PANE] < used[END_PANE]:
        pane = used[FIRST_PANE]
        dropped_us = panes[pane, PANE_START] + plan.size_us + plan.update_us
        if dropped_us > watermark_us:
            return int(dropped_us)
        row = panes[pane, PANE_HEAD]
        while row >= 0:
            following = rows[row, NEXT]
            drop_window(windows, row)
            row = following
        used[FIRST_PANE] += 1
    return LATEST


@kernel
def close_due(
    windows: Windows, plan: Plan, hot: NDArray[np.int64], arena: int, numbers: NDArray[np.int64], results: Results,
    scratch: Scratch, index: int,
) -> bool:  # fmt: skip
    """Final results of the windows that end at the watermark or before; False where the results are full.

    Those that take no late event any more are dropped, at once if none ever does.
    """
    rows, panes, used = windows.rows, windows.panes, windows.used
    watermark_us = numbers[N_WATERMARK]
    due_us = LATEST
    for pane in range(used[FIRST_PANE], used[END_PANE]):
        if panes[pane, PANE_START] + plan.size_us > watermark_us:
            due_us = panes[pane, PANE_START] + plan.size_us
            break
        closed = panes[pane, PANE_CLOSED]
        if closed == 1:
            continue
        row = closed - _RESUMED if closed >= _RESUMED else panes[pane, PANE_HEAD]
        while row >= 0:
            following = rows[row, NEXT]
            if following >= 0:
                _ask_for(windows, following, hot)
            if rows[row, STATE] & CLOSED == 0:
                if numbers[N_RESULTS] == RESULTS_MAX:
                    panes[pane, PANE_CLOSED] = row + _RESUMED
                    return False
                emit(windows, row, plan, hot, arena, numbers, results, scratch, index, 1)
                rows[row, STATE] |= CLOSED
            if plan.update_us == 0:
                drop_window(windows, row)
                panes[pane, PANE_HEAD] = following
            row = following
        panes[pane, PANE_CLOSED] = 1
    numbers[N_CLOSE_DUE] = min(due_us, _drop_due(windows, plan, watermark_us))
    return True
