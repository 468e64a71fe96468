"""The hot loop of derive for tumbling and hopping windows: one pass over a batch for one definition.

What happens at an entry, and in which order, stands in `derive_kernel`. An event of a known key costs the lines of its
window: the table's and the row's, which are asked for a few rows ahead, and the block that keeps its value.

The kernel writes only what it has been given room for, and looks first: so a row at which it stops is as it was.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from schemas.canonical import EntryKind
from schemas.columns import Fault
from schemas.memory import kernel
from streams.corrected_kernel import RED_OUT, UNKNOWN_OUT, corrected, is_near
from streams.derive_kernel import (
    AHEAD,
    BY_ALL,
    DOUBTFUL,
    IN_AUTHORITY,
    IN_CORRECTED,
    LATE,
    N_AHEAD,
    N_AUTHORITY,
    N_CLOSE_DUE,
    N_DOUBTFUL,
    N_EARLY_DUE,
    N_FRONTIER,
    N_LATE,
    N_REPORT_DUE,
    N_RESULTS,
    N_TAKEN,
    N_WATERMARK,
    NEVER,
    REPORT_US,
    RESULTS_MAX,
    TIME_MIN_US,
    Aside,
    Stop,
    count_aside,
    has_tally_room,
    slot_of,
)
from streams.judge_kernel import Flag
from streams.prefetch import prefetch
from streams.sources import COUNT as KEYS_COUNT
from streams.sources import find, hash_of, slot_in
from streams.window_results import close_due, emit, emit_changed
from streams.window_room import spare_of, within_bounds
from streams.window_table import (
    BLOCK_VALUES,
    CHANGED,
    CLOSED,
    COUNT,
    EXACT_VALUES,
    FIRST,
    KEPT,
    LAST,
    M2,
    MAX,
    MEAN,
    MIN,
    ONE_NEAR,
    PANE_CLOSED,
    ROW_COLUMNS,
    STATE,
    SUM,
    VALUES,
    find_window,
    keep_value,
    open_window,
    pane_from,
    window_hash,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streams.derive_kernel import Plan, Tally
    from streams.results import Results
    from streams.sources import Sources
    from streams.window_results import Scratch
    from streams.window_table import Windows


class Batch(NamedTuple):
    """What is read of a batch, a row for each entry: columns of Entries, Events and Verdicts.

    offset_us, bound_us: of the source's clock, as judge knows it. key: the source, or the kind by kind. frontier_us: of
    heartbeats, NEVER elsewhere.
    """

    kind: NDArray[np.uint8]
    index: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.index, as in Entries
    sequence: NDArray[np.int64]
    authority_ms: NDArray[np.int64]
    fault: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    local_us: NDArray[np.int64]
    offset_us: NDArray[np.int64]
    bound_us: NDArray[np.int64]
    has_value: NDArray[np.uint8]
    value: NDArray[np.float64]
    key_address: NDArray[np.int64]
    key_length: NDArray[np.int64]
    source_address: NDArray[np.int64]
    source_length: NDArray[np.int64]
    frontier_us: NDArray[np.int64]


class Located(NamedTuple):
    """Of each counted row: its time, the start of the last window that holds it, key slot (-1 new), two hashes.

    bound_us: in frame corrected how far the truth may be from the time, see `corrected_kernel`.
    """

    time_us: NDArray[np.int64]
    bound_us: NDArray[np.int64]
    start_us: NDArray[np.int64]
    slot: NDArray[np.int64]
    key_hash: NDArray[np.int64]
    window_hash: NDArray[np.int64]


_DATA: Final = int(EntryKind.DATA)
_NO_FAULT: Final = int(Fault.NONE)
_UNCOUNTED: Final = int(Flag.DUPLICATE | Flag.CONFLICT)
_DONE, _RESULTS, _KEYS, _WINDOWS, _TALLY, _REPORT, _SUSPEND = (int(stop) for stop in Stop)
_LATE, _AHEAD_OF_TIME, _RED, _UNKNOWN = int(Aside.LATE), int(Aside.AHEAD), int(Aside.RED), int(Aside.UNKNOWN)
_US_PER_MS: Final = 1_000
#: Rows looked ahead, the time of about two misses.
_FAR: Final = 8
_NEAR: Final = 4
_ENTRY_BYTES: Final = 8
_HOT_BYTES: Final = 64
_ROW_BYTES: Final = 8 * ROW_COLUMNS
_LOW_32: Final = 0xFFFF_FFFF


@kernel
def _open(
    windows: Windows, plan: Plan, numbers: NDArray[np.int64], slot: int, start_us: int, digest: int, sequence: int
) -> int:
    """A window's row at its first event; one that is closed already is born so."""
    row = open_window(windows, slot, start_us, digest, sequence)
    due_us = start_us + plan.size_us
    if due_us <= numbers[N_WATERMARK]:
        windows.rows[row, STATE] = CLOSED
        windows.panes[pane_from(windows, start_us), PANE_CLOSED] = 1
        due_us += plan.update_us
    numbers[N_CLOSE_DUE] = min(numbers[N_CLOSE_DUE], due_us)
    return row


@kernel
def locate(start: int, batch: Batch, plan: Plan, keys: Sources, located: Located) -> None:
    """Fill `located` from row start on."""
    rows = batch.kind.size
    places, hot, arena = keys.places, keys.hot, keys.arena
    faults, addresses, lengths = batch.fault, batch.key_address, batch.key_length
    hashes = located.key_hash
    places_address, hot_address = places.ctypes.data, hot.ctypes.data
    mask = places.size - 1
    slide_us = plan.slide_us
    by_key, in_authority, in_corrected = plan.by != BY_ALL, plan.frame == IN_AUTHORITY, plan.frame == IN_CORRECTED
    if by_key:
        for row in range(start, rows):
            if faults[row] == _NO_FAULT:
                hashes[row] = hash_of(addresses[row], lengths[row])
    start_us = 0
    for row in range(start, rows):
        if faults[row] != _NO_FAULT:
            continue
        slot = 0
        if by_key:
            far = row + _FAR
            if far < rows:
                prefetch(places_address + _ENTRY_BYTES * (hashes[far] & mask))
                prefetch(hot_address + _HOT_BYTES * slot_in(places[hashes[row + _NEAR] & mask]))
            slot = find(places, hot, arena, addresses[row], lengths[row], hashes[row])
        time_us = batch.authority_ms[row] * _US_PER_MS if in_authority else batch.local_us[row]
        if in_corrected:
            time_us, located.bound_us[row] = corrected(
                time_us, batch.authority_ms[row] * _US_PER_MS, batch.offset_us[row], batch.bound_us[row], plan.red,
                plan.unknown,
            )  # fmt: skip
        if time_us < TIME_MIN_US:
            time_us = TIME_MIN_US - 1
        if time_us < start_us or time_us - slide_us >= start_us:  # mostly it is where the one before was
            start_us = time_us // slide_us * slide_us
        located.time_us[row] = time_us
        located.start_us[row] = start_us
        located.slot[row] = slot
        located.window_hash[row] = window_hash(slot, start_us)


@kernel
def derive_rows(
    begin: int,
    batch: Batch,
    located: Located,
    plan: Plan,
    keys: Sources,
    arena: int,
    windows: Windows,
    tally: Tally,
    tally_arena: int,
    numbers: NDArray[np.int64],
    results: Results,
    scratch: Scratch,
    aside: NDArray[np.uint8],
) -> tuple[int, int]:
    """Go through the rows from begin on; returns (row, Stop).

    arena, tally_arena: addresses of the names. aside: an Aside each row.
    """
    rows = batch.kind.size
    kinds, indexes, sequences, authority_ms = batch.kind, batch.index, batch.sequence, batch.authority_ms
    faults, flags, has_value, values = batch.fault, batch.flags, batch.has_value, batch.value
    frontier_us = batch.frontier_us
    table, lines, reals, blocks, used = windows.table, windows.rows, windows.reals, windows.blocks, windows.used
    times, starts, slots, digests = located.time_us, located.start_us, located.slot, located.window_hash
    bounds, in_corrected = located.bound_us, plan.frame == IN_CORRECTED
    hot = keys.hot
    table_address, lines_address = table.ctypes.data, lines.ctypes.data
    mask = table.size - 1
    size_us, slide_us, update_us, per_event = plan.size_us, plan.slide_us, plan.update_us, plan.per_event
    kept, wide, early = plan.percentiles.size > 0, plan.wide != 0, plan.early_us > 0
    spare = spare_of(windows)
    for row in range(begin, rows):
        far, near = row + _FAR, row + _NEAR
        if far < rows:
            prefetch(table_address + _ENTRY_BYTES * (digests[far] & mask))
            prefetch(lines_address + _ROW_BYTES * ((table[digests[near] & mask] & _LOW_32) - 1))
        is_data = kinds[row] == _DATA
        if is_data:
            numbers[N_AUTHORITY] = max(numbers[N_AUTHORITY], authority_ms[row] * _US_PER_MS)
        elif frontier_us[row] == NEVER:
            continue
        else:
            numbers[N_FRONTIER] = max(numbers[N_FRONTIER], frontier_us[row])
        clock_us = max(numbers[N_AUTHORITY], numbers[N_FRONTIER])
        if clock_us >= numbers[N_REPORT_DUE]:
            if tally.names.used[KEYS_COUNT] > 0:
                return row, _REPORT
            numbers[N_REPORT_DUE] = (clock_us // REPORT_US + 1) * REPORT_US
        if early and clock_us >= numbers[N_EARLY_DUE]:
            if numbers[N_EARLY_DUE] != NEVER and not emit_changed(
                windows, plan, hot, arena, numbers, results, scratch, indexes[row]
            ):
                return row, _RESULTS
            numbers[N_EARLY_DUE] = (clock_us // plan.early_us + 1) * plan.early_us
        counted = is_data and faults[row] == _NO_FAULT and flags[row] & _UNCOUNTED == 0
        watermark_us = numbers[N_WATERMARK]
        authority_us = numbers[N_AUTHORITY]
        time_us = times[row]
        doubtful = in_corrected and counted and bounds[row] <= RED_OUT
        ahead = counted and not doubtful and time_us > authority_us and time_us - authority_us > plan.max_ahead_us
        if not is_data:
            watermark_us = max(watermark_us, numbers[N_FRONTIER] - plan.max_behind_us)
        elif counted and not doubtful and not ahead and time_us >= TIME_MIN_US:
            watermark_us = max(watermark_us, min(time_us, authority_us) - plan.lateness_us)
        numbers[N_WATERMARK] = watermark_us
        if watermark_us >= numbers[N_CLOSE_DUE] and not close_due(
            windows, plan, hot, arena, numbers, results, scratch, indexes[row]
        ):
            return row, _RESULTS
        if not counted:
            continue
        if doubtful or ahead:
            if not has_tally_room(tally):
                return row, _TALLY
            count_aside(tally, tally_arena, batch, row, DOUBTFUL if doubtful else AHEAD)
            aside[row] = _AHEAD_OF_TIME
            if doubtful:
                aside[row] = _UNKNOWN if bounds[row] == UNKNOWN_OUT else _RED
            numbers[N_DOUBTFUL if doubtful else N_AHEAD] += 1
            continue
        last_us = starts[row]
        first_us = last_us - (per_event - 1) * slide_us
        if first_us + size_us <= time_us:  # the size is no multiple of the slide: one window fewer holds it
            first_us += slide_us
        late = time_us < TIME_MIN_US or first_us + size_us <= watermark_us
        if late and not has_tally_room(tally):
            return row, _TALLY
        # the earliest start that still takes an event
        open_from_us = watermark_us - size_us - update_us + 1 if time_us >= TIME_MIN_US else NEVER
        if open_from_us != NEVER and last_us >= open_from_us:
            if not within_bounds(used, per_event):
                return row, _SUSPEND
            if spare < per_event:
                spare = spare_of(windows)
                if spare < per_event:
                    return row, _WINDOWS
            if late and numbers[N_RESULTS] + per_event > RESULTS_MAX:
                return row, _RESULTS
            slot = slots[row]
            if slot < 0:
                slot = slot_of(keys, arena, batch.key_address[row], batch.key_length[row], located.key_hash[row])
                if slot < 0:
                    return row, _KEYS
            spare -= per_event
            numbers[N_TAKEN] += 1
            finite = has_value[row] != 0 and math.isfinite(values[row])
            value = float(values[row]) + 0.0
            start_us = first_us
            if start_us < open_from_us:
                start_us += (open_from_us - start_us + slide_us - 1) // slide_us * slide_us
            while start_us <= last_us:
                digest = window_hash(slot, start_us)
                at = find_window(table, lines, slot, start_us, digest)
                if at < 0:
                    at = _open(windows, plan, numbers, slot, start_us, digest, sequences[row])
                lines[at, COUNT] += 1
                if in_corrected and is_near(time_us, bounds[row], start_us, start_us + size_us):
                    lines[at, STATE] += ONE_NEAR
                if finite:
                    before = lines[at, VALUES]
                    if kept:
                        place = before % BLOCK_VALUES
                        if place != 0 and before < EXACT_VALUES:
                            blocks[lines[at, KEPT] - 1, place] = value
                        else:
                            keep_value(windows, at, value)
                    lines[at, VALUES] = before + 1
                    reals[at, SUM] = float(reals[at, SUM]) + value
                    reals[at, MIN] = min(reals[at, MIN], value)
                    reals[at, MAX] = max(reals[at, MAX], value)
                    if wide:
                        if before == 0:
                            reals[at, FIRST] = value
                        reals[at, LAST] = value
                        mean = float(reals[at, MEAN])
                        distance = value - mean
                        mean += distance / float(before + 1)
                        reals[at, MEAN] = mean
                        reals[at, M2] = float(reals[at, M2]) + distance * (value - mean)
                if start_us + size_us <= watermark_us:
                    emit(windows, at, plan, hot, arena, numbers, results, scratch, indexes[row], 1)
                elif early:
                    lines[at, STATE] |= CHANGED
                start_us += slide_us
        if late:
            count_aside(tally, tally_arena, batch, row, LATE)
            aside[row] = _LATE
            numbers[N_LATE] += 1
    return rows, _DONE
