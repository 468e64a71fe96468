"""The hot loop of derive for a definition of sliding windows: one result for each event time of a key.

Problem: each event time t of a key is the end of a window of its own, (t - size, t], and its numbers must be those of
adding up the values in sequence order. No sum can be carried on from one window to the next: taking a value away again
gives other doubles than never having added it. So events are kept as long as a window may need them, in a
`sliding_table`, and each result goes through those of its key.

COST of a result: the kept events of its key up to the last one that is not after t, 2 to 3 ns each, 7 with percentiles.
Kept are those of a size, and what has come before its time has its result. HAZARD with ten thousand kept events of one
key, the most there may be, an event costs 30 microseconds, and 70 with percentiles.

What happens at an entry is what happens in `derive_kernel`, in the same order, and stops as it does there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from schemas.canonical import EntryKind
from schemas.columns import Fault
from schemas.memory import kernel
from streams.derive_kernel import (
    AHEAD,
    BY_ALL,
    BY_KIND,
    IN_AUTHORITY,
    LATE,
    N_AHEAD,
    N_AUTHORITY,
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
from streams.quantiles import bin_of, rank, sketch_add, sketch_percentile, sketch_sorted
from streams.results import AT_INDEX, END_US, FINAL, FLOAT_COLUMNS, KEY_ADDRESS, KEY_LENGTH, METHOD, START_US, Method
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
from streams.sliding_table import (
    AFTER,
    BLOCK,
    EVENTS_MAX,
    FILLED,
    FIRST,
    HEAP_PLACE,
    HEAP_TIME,
    HELD,
    KEY,
    KEY_EVENTS_MAX,
    LEAST,
    LIVE,
    LIVE_BLOCKS,
    PENDING,
    PENDING_MAX,
    QUEUE_HEAD,
    SEQUENCE,
    TOLD,
    WORK,
    WORK_MAX,
    append,
    enqueue,
    free_until,
    pop,
    push,
)
from streams.sorting import sort_first
from streams.sources import COUNT as KEYS_COUNT
from streams.sources import LENGTH_BITS, NAME, find, hash_of, slot_in
from streams.window_table import EXACT_VALUES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from schemas.columns import Entries, Events
    from streams.derive_kernel import Plan, Tally
    from streams.judge_kernel import Verdicts
    from streams.results import Results
    from streams.sliding_table import Kept
    from streams.sources import Sources

_DATA: Final = int(EntryKind.DATA)
_NO_FAULT: Final = int(Fault.NONE)
_UNCOUNTED: Final = int(Flag.DUPLICATE | Flag.CONFLICT)
_DONE, _RESULTS, _KEYS, _ROOM, _TALLY, _REPORT, _SUSPEND = (int(stop) for stop in Stop)
_LATE, _AHEAD_OF_TIME = int(Aside.LATE), int(Aside.AHEAD)
_EXACT, _SKETCH, _UNKEPT = int(Method.EXACT), int(Method.DDSKETCH), int(Method.NONE)
_US_PER_MS: Final = 1_000
_LENGTH_MASK: Final = (1 << LENGTH_BITS) - 1
#: Rows looked ahead, the time of about two misses.
_FAR: Final = 8
_NEAR: Final = 4
_ENTRY_BYTES: Final = 8
_HOT_BYTES: Final = 64
_BLOCK_BYTES: Final = 64


class Scratch(NamedTuple):
    """Where percentiles are made."""

    values: NDArray[np.float64]
    sketch: NDArray[np.int64]
    bins: NDArray[np.int64]
    counts: NDArray[np.int64]


@kernel
def _to_sketch(values: NDArray[np.float64], sketch: NDArray[np.int64]) -> None:
    """A sketch of all of those values, as many as are kept one by one; they fit."""
    sketch[:] = 0
    for place in range(values.size):
        sketch_add(sketch, bin_of(values[place]), 1)


@kernel
def _emit(
    times: NDArray[np.int64], values: NDArray[np.float64], blocks: NDArray[np.int64], first: int, time_us: int,
    size_us: int, wide: int,
    percentiles: NDArray[np.int64], ints: NDArray[np.int64], floats: NDArray[np.float64], at: int,
    exact: NDArray[np.float64], sketch: NDArray[np.int64], bins: NDArray[np.int64], counts: NDArray[np.int64],
) -> None:  # fmt: skip
    """Write the numbers of the window that ends with time_us, of the events from block `first` on."""
    count, finite = 0, 0
    total, least, greatest = 0.0, math.inf, -math.inf
    earliest, latest, mean, m2 = 0.0, 0.0, 0.0, 0.0
    kept, given_up = percentiles.size > 0, False
    times_address, values_address, blocks_address = times.ctypes.data, values.ctypes.data, blocks.ctypes.data
    block = first
    while block >= 0 and blocks[block, LEAST] <= time_us:
        begin, end = block * BLOCK, block * BLOCK + blocks[block, FILLED]
        block = blocks[block, AFTER]
        if block >= 0:
            prefetch(blocks_address + _BLOCK_BYTES * block)
            prefetch(times_address + _BLOCK_BYTES * block)
            prefetch(values_address + _BLOCK_BYTES * block)
        for place in range(begin, end):
            if not time_us - size_us < times[place] <= time_us:
                continue
            count += 1
            value = float(values[place])
            if math.isnan(value):
                continue
            if kept and not given_up:
                if finite < EXACT_VALUES:
                    exact[finite] = value
                else:
                    if finite == EXACT_VALUES:
                        _to_sketch(exact, sketch)
                    given_up = not sketch_add(sketch, bin_of(value), 1)
            if finite == 0:
                earliest = value
            latest = value
            finite += 1
            total += value
            least = min(least, value)
            greatest = max(greatest, value)
            if wide:
                distance = value - mean
                mean += distance / float(finite)
                m2 += distance * (value - mean)
    ints[at, START_US] = time_us - size_us + 1
    ints[at, END_US] = time_us + 1
    ints[at, RESULT_REVISION] = 1
    ints[at, FINAL] = 1
    ints[at, RESULT_COUNT] = count
    ints[at, RESULT_VALUES] = finite
    ints[at, METHOD] = _EXACT
    if finite == 0:
        for column in range(FLOAT_COLUMNS + percentiles.size):
            floats[at, column] = math.nan
        return
    floats[at, RESULT_SUM] = total
    floats[at, RESULT_MIN] = least
    floats[at, RESULT_MAX] = greatest
    floats[at, RESULT_MEAN] = total / finite
    floats[at, RESULT_VARIANCE] = m2 / finite
    floats[at, RESULT_FIRST] = earliest
    floats[at, RESULT_LAST] = latest
    if not kept:
        return
    if given_up:
        ints[at, METHOD] = _UNKEPT
        for i in range(percentiles.size):
            floats[at, FLOAT_COLUMNS + i] = math.nan
    elif finite > EXACT_VALUES:
        ints[at, METHOD] = _SKETCH
        entries = sketch_sorted(sketch, bins, counts)
        for i in range(percentiles.size):
            floats[at, FLOAT_COLUMNS + i] = sketch_percentile(bins, counts, entries, finite, percentiles[i])
    else:
        ordered = exact[:finite]
        sort_first(ordered, finite)
        for i in range(percentiles.size):
            floats[at, FLOAT_COLUMNS + i] = ordered[rank(finite, percentiles[i]) - 1]


@kernel
def find_slots(
    start: int, events: Events, by: int, keys: Sources, hashes: NDArray[np.int64], slots: NDArray[np.int64]
) -> None:
    """Hash and slot of each row's key from row start on, -1 for a new one."""
    rows = events.fault.size
    faults, places, hot, names = events.fault, keys.places, keys.hot, keys.arena
    if by == BY_ALL:
        slots[start:] = 0
        return
    places_address, hot_address = places.ctypes.data, hot.ctypes.data
    mask = places.size - 1
    addresses, lengths = events.source_address, events.source_length
    if by == BY_KIND:
        addresses, lengths = events.kind_address, events.kind_length
    for row in range(start, rows):
        hashes[row] = 0
        if faults[row] == _NO_FAULT:
            hashes[row] = hash_of(int(addresses[row]), int(lengths[row]))
    for row in range(start, rows):
        far, near = row + _FAR, row + _NEAR
        if far < rows:
            prefetch(places_address + _ENTRY_BYTES * (hashes[far] & mask))
            prefetch(hot_address + _HOT_BYTES * slot_in(places[hashes[near] & mask]))
        if faults[row] == _NO_FAULT:
            slots[row] = find(places, hot, names, int(addresses[row]), int(lengths[row]), int(hashes[row]))


@kernel
def slide_rows(
    begin: int,
    entries: Entries,
    events: Events,
    verdicts: Verdicts,
    frontier_us: NDArray[np.int64],
    hashes: NDArray[np.int64],
    slots: NDArray[np.int64],
    plan: Plan,
    keys: Sources,
    arena: int,
    kept: Kept,
    tally: Tally,
    tally_arena: int,
    numbers: NDArray[np.int64],
    results: Results,
    scratch: Scratch,
    aside: NDArray[np.uint8],
) -> tuple[int, int]:
    """Go through the rows from begin on; returns (row, Stop), WINDOWS where there is no room for another event.

    frontier_us: of heartbeats, NEVER elsewhere. hashes, slots: see find_slots. arena, tally_arena: addresses of the
    names. aside: an Aside each row.
    """
    rows = entries.kind.size
    kinds, indexes, sequences, authority_ms = entries.kind, entries.index, entries.sequence, entries.authority_ms
    faults, flags, has_value, values = events.fault, verdicts.flags, events.has_value, events.value
    local_us, late_names = events.local_us, tally.names.used
    addresses, lengths = events.source_address, events.source_length
    if plan.by == BY_KIND:
        addresses, lengths = events.kind_address, events.kind_length
    times, kept_values, links, blocks = kept.times, kept.values, kept.links, kept.blocks
    lists, heap, used = kept.lists, kept.heap, kept.used
    ints, floats, key_rows, percentiles = results.ints, results.floats, keys.hot, plan.percentiles
    exact, sketch, bins, counts = scratch.values, scratch.sketch, scratch.bins, scratch.counts
    size_us, wide, named = plan.size_us, plan.wide, plan.by != BY_ALL
    for row in range(begin, rows):
        is_data = kinds[row] == _DATA
        if is_data:
            numbers[N_AUTHORITY] = max(numbers[N_AUTHORITY], authority_ms[row] * _US_PER_MS)
        elif frontier_us[row] == NEVER:
            continue
        else:
            numbers[N_FRONTIER] = max(numbers[N_FRONTIER], frontier_us[row])
        authority_us = numbers[N_AUTHORITY]
        clock_us = max(authority_us, numbers[N_FRONTIER])
        if clock_us >= numbers[N_REPORT_DUE]:
            if late_names[KEYS_COUNT] > 0:
                return row, _REPORT
            numbers[N_REPORT_DUE] = (clock_us // REPORT_US + 1) * REPORT_US
        counted = is_data and faults[row] == _NO_FAULT and flags[row] & _UNCOUNTED == 0
        time_us = authority_ms[row] * _US_PER_MS if plan.frame == IN_AUTHORITY else local_us[row]
        ahead = counted and time_us > authority_us and time_us - authority_us > plan.max_ahead_us
        watermark_us = numbers[N_WATERMARK]
        if not is_data:
            watermark_us = max(watermark_us, numbers[N_FRONTIER] - plan.max_behind_us)
        elif counted and not ahead and time_us >= TIME_MIN_US:
            watermark_us = max(watermark_us, min(time_us, authority_us) - plan.lateness_us)
        numbers[N_WATERMARK] = watermark_us
        while used[PENDING] > 0 and heap[0, HEAP_TIME] < watermark_us:
            place, end_us = heap[0, HEAP_PLACE], heap[0, HEAP_TIME]
            slot = blocks[place // BLOCK, KEY]
            if lists[slot, TOLD] != end_us:
                at = numbers[N_RESULTS]
                if at == RESULTS_MAX:
                    return row, _RESULTS
                free_until(times, links, blocks, lists, used, end_us - size_us)
                _emit(
                    times, kept_values, blocks, lists[slot, FIRST], end_us, size_us, wide, percentiles, ints, floats,
                    at, exact, sketch, bins, counts,
                )  # fmt: skip
                ints[at, KEY_ADDRESS] = 0
                ints[at, KEY_LENGTH] = -1
                if named:
                    name = key_rows[slot, NAME]
                    ints[at, KEY_ADDRESS] = arena + (name >> LENGTH_BITS)
                    ints[at, KEY_LENGTH] = name & _LENGTH_MASK
                ints[at, AT_INDEX] = indexes[row]
                numbers[N_RESULTS] = at + 1
                lists[slot, TOLD] = end_us
            pop(heap, used[PENDING])
            used[PENDING] -= 1
            enqueue(links, used, place)
        if used[QUEUE_HEAD] >= 0:
            free_until(times, links, blocks, lists, used, watermark_us - size_us)
        if not counted:
            continue
        if ahead or time_us < TIME_MIN_US or time_us < watermark_us:
            if not has_tally_room(tally):
                return row, _TALLY
            count_aside(tally, tally_arena, events, row, AHEAD if ahead else LATE)
            aside[row] = _AHEAD_OF_TIME if ahead else _LATE
            numbers[N_AHEAD if ahead else N_LATE] += 1
            continue
        if used[LIVE] >= EVENTS_MAX or used[PENDING] >= PENDING_MAX:
            return row, _SUSPEND
        if used[LIVE_BLOCKS] == blocks.shape[0] or used[PENDING] == heap.shape[0]:
            return row, _ROOM
        slot = slots[row]
        if slot < 0:
            slot = slot_of(keys, arena, int(addresses[row]), int(lengths[row]), hashes[row])
            if slot < 0:
                return row, _KEYS
        if lists[slot, HELD] >= KEY_EVENTS_MAX or used[WORK] + 2 * lists[slot, HELD] >= WORK_MAX:
            return row, _SUSPEND
        place = append(times, blocks, lists, used, slot, time_us)
        links[place, SEQUENCE] = sequences[row]
        kept_values[place] = math.nan
        if has_value[row] != 0 and math.isfinite(values[row]):
            kept_values[place] = values[row] + 0.0
        push(heap, used[PENDING], time_us, sequences[row], place)
        used[PENDING] += 1
        numbers[N_TAKEN] += 1
    return rows, _DONE
