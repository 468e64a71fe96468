"""The open windows of one definition in one partition: rows, where they are found, and the values they keep.

Problem: an event must find the window of its key in a few tens of nanoseconds among hundreds of thousands, a closing
must give its windows in an order that depends on the entries alone, and all of it must be bounded.

How: a window is a row of sixteen words, two cache lines, of which the second is touched only by functions that need it.

    table    int64[a power of two]   bits 32-62 hash of (key slot, start), bits 0-31 row + 1; 0 empty; linear probing
    rows     int64[n, 16]            see the columns below; `reals` are the same words as doubles
    panes    int64[m, 4]             start, first row, last row, closed or where to resume (see window_results);
                                     ascending, FIRST_PANE to END_PANE: the windows of one start as a list in the
                                     order in which they were opened
    blocks   float64[b, 8]           seven values of a window and the block before, for percentiles that are exact
    sketches int64[s, 2048]          see quantiles; for windows of more than EXACT_VALUES values

Rows, blocks and sketches that are free hang together in lists. What is where shows nowhere in results or dumps.

GUARANTEE a pane's windows stand in the order of their first sequence, so (start, first sequence) orders all of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from schemas.memory import kernel
from streams.quantiles import SKETCH_SLOTS, bin_of, sketch_add

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Values of a window that are kept one by one; beyond, they are counted in a sketch.
EXACT_VALUES: Final = 256
#: Open windows of a definition in a partition: 32 MB and their values; all may close at one entry, in one transaction.
WINDOWS_MAX: Final = 250_000
#: Blocks of kept values, likewise: 128 MB.
BLOCKS_MAX: Final = 2_000_000
#: Sketches, likewise: 32 MB. A window that finds none left has no percentiles.
SKETCHES_MAX: Final = 2_048

# Columns of a row; those from SUM to MAX and from FIRST to M2 are doubles.
KEY: Final = 0
START: Final = 1
COUNT: Final = 2
VALUES: Final = 3
SUM: Final = 4
MIN: Final = 5
MAX: Final = 6
#: Block + 1 while exact, sketch + 1 while sketched, 0 for nothing kept.
KEPT: Final = 7
FIRST: Final = 8
LAST: Final = 9
MEAN: Final = 10
M2: Final = 11
FIRST_SEQUENCE: Final = 12
REVISION: Final = 13
NEXT: Final = 14
STATE: Final = 15
ROW_COLUMNS: Final = 16

# Bits of STATE.
CHANGED: Final = 1
CLOSED: Final = 2
SKETCHED: Final = 4
#: Its percentiles are given up: no sketch was left, or the values spread too wide for one.
UNKEPT: Final = 8

#: STATE above its bits counts, in frame corrected, the events that lie near an edge.
NEAR_BITS: Final = 8
ONE_NEAR: Final = 1 << NEAR_BITS

# Columns of a pane.
PANE_START: Final = 0
PANE_HEAD: Final = 1
PANE_TAIL: Final = 2
PANE_CLOSED: Final = 3
PANE_COLUMNS: Final = 4

BLOCK_VALUES: Final = 7
BLOCK_COLUMNS: Final = 8

# Numbers of `used`.
LIVE: Final = 0
FREE_ROW: Final = 1
FRESH_ROW: Final = 2
LIVE_BLOCKS: Final = 3
FREE_BLOCK: Final = 4
FRESH_BLOCK: Final = 5
LIVE_SKETCHES: Final = 6
FREE_SKETCH: Final = 7
FRESH_SKETCH: Final = 8
FIRST_PANE: Final = 9
END_PANE: Final = 10
USED: Final = 11

_LOW_32: Final = 0xFFFF_FFFF
_LOW_31: Final = 0x7FFF_FFFF
#: Odd, below 2**31, so that its product with 32 bits stays within int64.
_MULTIPLIER: Final = 0x5851_F42D


class Windows(NamedTuple):
    """See the module. used: int64[USED]."""

    table: NDArray[np.int64]
    rows: NDArray[np.int64]
    reals: NDArray[np.float64]
    panes: NDArray[np.int64]
    blocks: NDArray[np.float64]
    sketches: NDArray[np.int64]
    used: NDArray[np.int64]


@kernel
def window_hash(slot: int, start_us: int) -> int:
    """31 bits, for probing only."""
    product = ((slot ^ start_us) & _LOW_32) * _MULTIPLIER
    product = ((product ^ (product >> 31)) & _LOW_32 ^ ((start_us >> 32) & _LOW_32)) * _MULTIPLIER
    return (product ^ (product >> 31)) & _LOW_31


@kernel
def find_window(table: NDArray[np.int64], rows: NDArray[np.int64], slot: int, start_us: int, digest: int) -> int:
    """Row of the window, -1 where it is not open."""
    mask = table.size - 1
    place = digest & mask
    while table[place] != 0:
        entry = table[place]
        if entry >> 32 == digest:
            row = (entry & _LOW_32) - 1
            if rows[row, KEY] == slot and rows[row, START] == start_us:
                return int(row)
        place = (place + 1) & mask
    return -1


@kernel
def enter(table: NDArray[np.int64], row: int, digest: int) -> None:
    """Put a row that is not in the table into it."""
    mask = table.size - 1
    place = digest & mask
    while table[place] != 0:
        place = (place + 1) & mask
    table[place] = digest << 32 | (row + 1)


@kernel
def _leave(table: NDArray[np.int64], row: int, digest: int) -> None:
    """Take a row out; what probed past its place moves back, so there are no tombstones."""
    mask = table.size - 1
    place = digest & mask
    while table[place] & _LOW_32 != row + 1:
        place = (place + 1) & mask
    hole = place
    while True:
        place = (place + 1) & mask
        entry = table[place]
        if entry == 0:
            break
        # an entry may fill the hole only if its home is not after the hole, counted around the table
        if (place - (entry >> 32)) & mask >= (place - hole) & mask:
            table[hole] = entry
            hole = place
    table[hole] = 0


@kernel
def pane_from(windows: Windows, start_us: int) -> int:
    """The first pane whose start is at least that."""
    panes, used = windows.panes, windows.used
    low, high = used[FIRST_PANE], used[END_PANE]
    while low < high:
        middle = (low + high) // 2
        if panes[middle, PANE_START] < start_us:
            low = middle + 1
        else:
            high = middle
    return int(low)


@kernel
def _pane_of(windows: Windows, start_us: int) -> int:
    """The pane of a start, made where there is none; the caller has made sure of room."""
    panes, used = windows.panes, windows.used
    at = pane_from(windows, start_us)
    if at == used[END_PANE] or panes[at, PANE_START] != start_us:
        for pane in range(used[END_PANE], at, -1):
            for column in range(PANE_COLUMNS):
                panes[pane, column] = panes[pane - 1, column]
        panes[at, PANE_START] = start_us
        panes[at, PANE_HEAD] = -1
        panes[at, PANE_TAIL] = -1
        panes[at, PANE_CLOSED] = 0
        used[END_PANE] += 1
    return at


@kernel
def open_window(windows: Windows, slot: int, start_us: int, digest: int, sequence: int) -> int:
    """A new row, in the table and at the end of its pane; the caller has made sure of room."""
    rows, reals, used = windows.rows, windows.reals, windows.used
    row = used[FREE_ROW]
    if row >= 0:
        used[FREE_ROW] = rows[row, NEXT]
    else:
        row = used[FRESH_ROW]
        used[FRESH_ROW] += 1
    used[LIVE] += 1
    rows[row, KEY] = slot
    rows[row, START] = start_us
    rows[row, COUNT] = 0
    rows[row, VALUES] = 0
    reals[row, SUM] = 0.0
    reals[row, MIN] = math.inf
    reals[row, MAX] = -math.inf
    rows[row, KEPT] = 0
    reals[row, FIRST] = 0.0
    reals[row, LAST] = 0.0
    reals[row, MEAN] = 0.0
    reals[row, M2] = 0.0
    rows[row, FIRST_SEQUENCE] = sequence
    rows[row, REVISION] = 0
    rows[row, NEXT] = -1
    rows[row, STATE] = 0
    append_to_pane(windows, int(row))
    enter(windows.table, int(row), digest)
    return int(row)


@kernel
def append_to_pane(windows: Windows, row: int) -> None:
    """Put a row at the end of the pane of its start."""
    rows, panes = windows.rows, windows.panes
    pane = _pane_of(windows, int(rows[row, START]))
    if panes[pane, PANE_TAIL] >= 0:
        rows[panes[pane, PANE_TAIL], NEXT] = row
    else:
        panes[pane, PANE_HEAD] = row
    panes[pane, PANE_TAIL] = row


@kernel
def drop_window(windows: Windows, row: int) -> None:
    """Free a row and what it keeps; its pane is the caller's matter."""
    rows, used = windows.rows, windows.used
    _leave(windows.table, row, window_hash(int(rows[row, KEY]), int(rows[row, START])))
    _free_kept(windows, row)
    rows[row, NEXT] = used[FREE_ROW]
    used[FREE_ROW] = row
    used[LIVE] -= 1


@kernel
def _free_kept(windows: Windows, row: int) -> None:
    rows, blocks, used = windows.rows, windows.blocks, windows.used
    kept = rows[row, KEPT]
    rows[row, KEPT] = 0
    if rows[row, STATE] & SKETCHED:
        windows.sketches[kept - 1, 0] = used[FREE_SKETCH]
        used[FREE_SKETCH] = kept - 1
        used[LIVE_SKETCHES] -= 1
        rows[row, STATE] &= ~SKETCHED
        return
    while kept > 0:
        before = int(blocks[kept - 1, BLOCK_VALUES])
        blocks[kept - 1, BLOCK_VALUES] = used[FREE_BLOCK]
        used[FREE_BLOCK] = kept - 1
        used[LIVE_BLOCKS] -= 1
        kept = before


@kernel
def keep_value(windows: Windows, row: int, value: float) -> None:
    """Keep a finite value for percentiles; VALUES counts those kept before it. The caller has made sure of a block."""
    rows, blocks, used = windows.rows, windows.blocks, windows.used
    if rows[row, STATE] & UNKEPT:
        return
    before = rows[row, VALUES]
    if before >= EXACT_VALUES:
        if before == EXACT_VALUES and not to_sketch(windows, row):
            return
        if not sketch_value(windows.sketches[rows[row, KEPT] - 1], value):
            _free_kept(windows, row)
            rows[row, STATE] |= UNKEPT
        return
    at = before % BLOCK_VALUES
    if at == 0:
        block = used[FREE_BLOCK]
        if block >= 0:
            used[FREE_BLOCK] = int(blocks[block, BLOCK_VALUES])
        else:
            block = used[FRESH_BLOCK]
            used[FRESH_BLOCK] += 1
        used[LIVE_BLOCKS] += 1
        blocks[block, BLOCK_VALUES] = rows[row, KEPT]
        rows[row, KEPT] = block + 1
    blocks[rows[row, KEPT] - 1, at] = value


@kernel
def sketch_value(sketch: NDArray[np.int64], value: float) -> bool:
    """Count one value; False where the sketch has no place for it."""
    return bool(sketch_add(sketch, bin_of(value), 1))


@kernel
def kept_values(windows: Windows, row: int, values: NDArray[np.float64]) -> int:
    """Write the values that an exact window keeps, in sequence order; returns how many."""
    rows, blocks = windows.rows, windows.blocks
    count = int(rows[row, VALUES])
    block = int(rows[row, KEPT]) - 1
    end = count
    while end > 0:
        begin = (end - 1) // BLOCK_VALUES * BLOCK_VALUES
        for at in range(begin, end):
            values[at] = blocks[block, at - begin]
        block = int(blocks[block, BLOCK_VALUES]) - 1
        end = begin
    return count


@kernel
def to_sketch(windows: Windows, row: int) -> bool:
    """From EXACT_VALUES kept values to a sketch of them; False, and nothing kept, where no sketch is left."""
    rows, used, sketches = windows.rows, windows.used, windows.sketches
    if used[LIVE_SKETCHES] >= SKETCHES_MAX:
        _free_kept(windows, row)
        rows[row, STATE] |= UNKEPT
        return False
    sketch = take_sketch(windows)
    block = int(rows[row, KEPT]) - 1
    left = EXACT_VALUES
    while left > 0:
        size = (left - 1) % BLOCK_VALUES + 1
        for at in range(size):
            sketch_value(sketches[sketch], windows.blocks[block, at])
        block = int(windows.blocks[block, BLOCK_VALUES]) - 1
        left -= size
    _free_kept(windows, row)
    rows[row, KEPT] = sketch + 1
    rows[row, STATE] |= SKETCHED
    return True


@kernel
def take_sketch(windows: Windows) -> int:
    """An empty sketch; the caller has made sure of one."""
    used, sketches = windows.used, windows.sketches
    sketch = used[FREE_SKETCH]
    if sketch >= 0:
        used[FREE_SKETCH] = sketches[sketch, 0]
    else:
        sketch = used[FRESH_SKETCH]
        used[FRESH_SKETCH] += 1
    used[LIVE_SKETCHES] += 1
    for place in range(SKETCH_SLOTS):
        sketches[sketch, place] = 0
    return int(sketch)
