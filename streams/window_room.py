"""Room for the windows of a definition: how many more fit, growth, and other numbers for their keys.

Tables are filled by kernels, which allocate nothing: they stop where room is short, and what is here makes it. Arrays
double, so that an event's share of it stays small; panes of windows that are gone are left behind on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from schemas.memory import kernel, lined
from streams.quantiles import SKETCH_SLOTS
from streams.window_table import (
    BLOCK_COLUMNS,
    BLOCKS_MAX,
    END_PANE,
    FIRST_PANE,
    FREE_BLOCK,
    FREE_ROW,
    FREE_SKETCH,
    KEY,
    LIVE,
    LIVE_BLOCKS,
    LIVE_SKETCHES,
    NEXT,
    PANE_COLUMNS,
    PANE_HEAD,
    ROW_COLUMNS,
    SKETCHES_MAX,
    START,
    USED,
    WINDOWS_MAX,
    Windows,
    enter,
    window_hash,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROWS_MIN: Final = 256
_BLOCKS_MIN: Final = 256
_PANES_MIN: Final = 64


@kernel
def spare_of(windows: Windows) -> int:
    """How many more windows, and a value for each of as many, fit."""
    used = windows.used
    spare = min(windows.rows.shape[0] - used[LIVE], windows.panes.shape[0] - used[END_PANE])
    spare = min(spare, windows.blocks.shape[0] - used[LIVE_BLOCKS])
    if windows.sketches.shape[0] < SKETCHES_MAX:
        spare = min(spare, windows.sketches.shape[0] - used[LIVE_SKETCHES])
    return int(spare)


@kernel
def within_bounds(used: NDArray[np.int64], more: int) -> bool:
    """Whether so many more windows, and a value for each of as many, keep to the bounds of a definition."""
    return bool(used[LIVE] + more <= WINDOWS_MAX and used[LIVE_BLOCKS] + more <= BLOCKS_MAX)


@kernel
def _reindex(windows: Windows) -> None:
    """Fill an empty table from the panes."""
    rows, panes, used = windows.rows, windows.panes, windows.used
    for pane in range(used[FIRST_PANE], used[END_PANE]):
        row = panes[pane, PANE_HEAD]
        while row >= 0:
            enter(windows.table, int(row), window_hash(int(rows[row, KEY]), int(rows[row, START])))
            row = rows[row, NEXT]


def with_room(rows: int, panes: int, blocks: int, sketches: int) -> Windows:
    """No windows, and room for so many of each."""
    lines = lined(max(_ROWS_MIN, rows), ROW_COLUMNS)
    used = np.zeros(USED, np.int64)
    used[[FREE_ROW, FREE_BLOCK, FREE_SKETCH]] = -1
    return Windows(
        table=np.zeros(1 << (2 * lines.shape[0] - 1).bit_length(), np.int64),
        rows=lines,
        reals=lines.view(np.float64),
        panes=np.zeros((max(_PANES_MIN, panes), PANE_COLUMNS), np.int64),
        blocks=np.zeros((max(_BLOCKS_MIN, blocks), BLOCK_COLUMNS)),
        sketches=np.zeros((sketches, SKETCH_SLOTS), np.int64),
        used=used,
    )


def no_windows() -> Windows:
    """Before the first event."""
    return with_room(0, 0, 0, 0)


def grown(windows: Windows, more: int) -> Windows:
    """The same windows with room for so many more, and a value for each of as many."""
    used = windows.used
    first, end = int(used[FIRST_PANE]), int(used[END_PANE])
    larger = with_room(
        _doubled(windows.rows.shape[0], int(used[LIVE]) + more),
        _doubled(windows.panes.shape[0], 2 * (end - first) + more),
        _doubled(windows.blocks.shape[0], int(used[LIVE_BLOCKS]) + more),
        min(_doubled(windows.sketches.shape[0], int(used[LIVE_SKETCHES]) + more), SKETCHES_MAX),
    )
    larger.used[:] = used
    larger.used[FIRST_PANE], larger.used[END_PANE] = 0, end - first
    larger.rows[: windows.rows.shape[0]] = windows.rows
    larger.panes[: end - first] = windows.panes[first:end]
    larger.blocks[: windows.blocks.shape[0]] = windows.blocks
    larger.sketches[: windows.sketches.shape[0]] = windows.sketches
    _reindex(larger)
    return larger


def _doubled(size: int, wanted: int) -> int:
    """A size that is wanted, at least twice the present one where that does not do."""
    return size if size >= wanted else max(2 * size, wanted)


@kernel
def referenced(windows: Windows, marks: NDArray[np.uint8]) -> None:
    """marks[slot] = 1 for each key slot that has an open window."""
    rows, panes, used = windows.rows, windows.panes, windows.used
    for pane in range(used[FIRST_PANE], used[END_PANE]):
        row = panes[pane, PANE_HEAD]
        while row >= 0:
            marks[rows[row, KEY]] = 1
            row = rows[row, NEXT]


@kernel
def _renumber(windows: Windows, slots: NDArray[np.int64]) -> None:
    rows, panes, used = windows.rows, windows.panes, windows.used
    for pane in range(used[FIRST_PANE], used[END_PANE]):
        row = panes[pane, PANE_HEAD]
        while row >= 0:
            rows[row, KEY] = slots[rows[row, KEY]]
            row = rows[row, NEXT]


def renumbered(windows: Windows, slots: NDArray[np.int64]) -> Windows:
    """The same windows under other key slots: slots[old] = new."""
    _renumber(windows, slots)
    other = windows._replace(table=np.zeros_like(windows.table))
    _reindex(other)
    return other
