"""The judge's work on each row, compiled: who, seen before, how far off, and does that change anything.

Two passes. `identify` hashes: the dedupe key (SHA-256) and the source's probe hash of each decoded row; it reads the
batch only. `judge_rows` walks the rows in order and owns the state; it asks for the table lines of the rows ahead, so
that they arrive while earlier rows are worked on.

`judge_rows` returns early, at a row it has not touched, where Python must act first (`Stop`), and is called again
from there. So growth, eviction and reports happen between two rows, never between two batches.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from schemas.columns import Fault
from schemas.faults import MAX_EVENT_ID_BYTES, MAX_SOURCE_BYTES
from schemas.memory import copy, kernel, load_i64, sha256_final, sha256_init, sha256_update, store_i64
from streams.alert_kernel import (
    QUESTION_COLUMNS,
    READ_AUTHORITY_MS,
    READ_BOUND_US,
    READ_COLUMNS,
    READ_DELTA_MS,
    READ_LOCAL_US,
    READ_OFFSET_US,
    READ_SEQUENCE,
    READ_VALUE_MS,
    AlertState,
    Question,
    Rules,
    in_use,
    observe,
    settle,
    severity_in,
)
from streams.authority_kernel import MOVED, OF, SHIFT_MS, SHIFTED_MS, authority_doubted, authority_moved, true_ms_of
from streams.causes import Cause, blame, cause_of
from streams.clock_columns import (
    CLOCK_COLUMNS,
    LAST_STEP_MS,
    NEAR_COLUMNS,
    OFF_COUNT,
    REACH_US,
    SKEW_ERROR_PPB,
    SKEW_PPB,
    STEP_MS,
    STEP_US,
    instant_of,
)
from streams.dedupe import Memory, forget, home, remember, seek
from streams.estimate_kernel import HOLD_TWO_WAY_MS, Place, due, estimate, is_known, offset_of
from streams.estimates import tell
from streams.guardian_kernel import BEAT_ROW, GUARD_STATE, worker_off_ms
from streams.prefetch import prefetch
from streams.severity import GREEN
from streams.severity_kernel import delta_ms_of, is_warned, severity_of
from streams.sources import (
    COUNT,
    HOT_COLUMNS,
    LAST_SEQUENCE,
    NUMBER,
    STATE,
    Sources,
    add,
    find,
    has_room,
    hash_of,
    slot_in,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from schemas.columns import Entries, Events
    from streams.clock_fit import Workspace


class Stop(enum.IntEnum):
    """Why `judge_rows` came back."""

    DONE = 0
    #: The sources' arrays are full: grow them.
    GROW = 1
    #: One source too many: evict.
    EVICT = 2
    #: The reports are full: take them.
    REPORTS = 3
    #: The row's sequence does not follow the last one.
    OUT_OF_ORDER = 4
    #: The row is a heartbeat that the guardian must look at.
    BEAT = 5


class Flag(enum.IntFlag):
    """What else is to be said of a judged row."""

    WARNED = 1
    DUPLICATE = 2
    CONFLICT = 4
    NOT_FINITE = 8


class Tally(enum.IntEnum):
    """Columns of the counts; the first three are the severities."""

    GREEN = 0
    YELLOW = 1
    RED = 2
    WARNED = 3
    DUPLICATES = 4
    CONFLICTS = 5
    NOT_FINITE = 6


# Columns of Events.exchange.
SENT_US: Final = 2
ACKED_US: Final = 3
APPENDED_MS: Final = 4

#: In the severity column: the row was not judged (CONTROL, or it could not be decoded).
NO_SEVERITY: Final = 255

# Columns of a report: what `alerts.Change` has, and the row of the batch.
REPORT_ROW: Final = 0
REPORT_QUESTION: Final = 1
REPORT_STATE: Final = 2
REPORT_PREVIOUS: Final = 3
REPORT_SEVERITY: Final = 4
REPORT_SKEW: Final = 5
REPORT_SKEW_ERROR: Final = 6
REPORT_MOVED: Final = 7
REPORT_OF: Final = 8
REPORT_NOW: Final = 9
REPORT_WATCH: Final = REPORT_NOW + READ_COLUMNS
REPORT_COLUMNS: Final = REPORT_WATCH + QUESTION_COLUMNS

# Places of the running numbers: the last sequence, how many estimates are told, how many heartbeats were passed.
NUMBER_SEQUENCE: Final = 0
NUMBER_TOLD: Final = 1
NUMBER_BEAT: Final = 2
NUMBERS: Final = 3

#: The message that is hashed: length of the source, source, event_id.
MESSAGE_BYTES: Final = 8 + MAX_SOURCE_BYTES + MAX_EVENT_ID_BYTES
_LENGTH_BYTES: Final = 4

_DATA: Final = 0
_NO_FAULT: Final = int(Fault.NONE)
#: An alert of either question, and two of the authority: taken back, and moved again.
_REPORTS_AN_EVENT: Final = 4
_CLOCK, _DELAY, _AUTHORITY, _ = (int(question) for question in Question)
_AHEAD: Final = int(Cause.AHEAD)
_BACKLOG: Final = int(Cause.BACKLOG)
_STEP: Final = int(Cause.STEP)
_NONE: Final = int(Cause.NONE)
_CAUSE_AUTHORITY: Final = int(Cause.AUTHORITY)
_CLOSED: Final = int(AlertState.CLOSED)
_NO_BOUND: Final = -1
_NEAR: Final = int(Place.NEAR)
_ABOVE: Final = int(Place.ABOVE)
_BEGAN: Final = int(Place.BEGAN)
_DONE, _GROW, _EVICT, _REPORTS, _OUT_OF_ORDER, _BEAT = (int(stop) for stop in Stop)
_WARNED, _DUPLICATE, _CONFLICT, _NOT_FINITE = (int(flag) for flag in Flag)
_N_WARNED: Final = int(Tally.WARNED)
_N_DUPLICATES: Final = int(Tally.DUPLICATES)
_N_CONFLICTS: Final = int(Tally.CONFLICTS)
_N_NOT_FINITE: Final = int(Tally.NOT_FINITE)

#: Rows looked ahead, the time of about two misses; a source's own line, found through another, is asked for half way.
_ROWS_AHEAD: Final = 8
_ENTRY_BYTES: Final = 8
_HOT_BYTES: Final = 8 * HOT_COLUMNS
_CLOCK_BYTES: Final = 8 * CLOCK_COLUMNS
_NEAR_BYTES: Final = 8 * NEAR_COLUMNS
_LINE_BYTES: Final = 64


class Verdicts(NamedTuple):
    """The judge's columns, a row for each entry.

    fault: as decoded. severity: a Severity, or NO_SEVERITY. flags: a set of Flag. delta_ms: local minus authority,
    rounded half away from zero; 0 where not judged. source: the number of the source, -1 where not judged.
    offset_us, bound_us: the estimate of the source's clock after this row; a bound of -1 where there is none. cause: a
    Cause, NONE for duplicates and conflicts, whose distance is that of a retry.
    """

    fault: NDArray[np.uint8]
    severity: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    delta_ms: NDArray[np.int64]
    source: NDArray[np.int64]
    offset_us: NDArray[np.int64]
    bound_us: NDArray[np.int64]
    cause: NDArray[np.uint8]


@kernel
def identify(events: Events, marks: NDArray[np.int64], message: int, context: int, digest: int) -> None:
    """marks[row] = the two halves of the dedupe key and the source's probe hash, for the rows that are decoded."""
    for row in range(events.fault.size):
        if events.fault[row] != _NO_FAULT:
            continue
        source = int(events.source_address[row])
        source_length = int(events.source_length[row])
        event_id_length = int(events.event_id_length[row])
        store_i64(message, source_length)  # eight bytes; the upper four are overwritten at once
        copy(message + _LENGTH_BYTES, source, source_length)
        copy(message + _LENGTH_BYTES + source_length, int(events.event_id_address[row]), event_id_length)
        sha256_init(context)
        sha256_update(context, message, _LENGTH_BYTES + source_length + event_id_length)
        sha256_final(digest, context)
        key_a = load_i64(digest)
        marks[row, 0] = key_a if key_a != 0 else 1  # zero marks an empty ring row
        marks[row, 1] = load_i64(digest + 8)
        marks[row, 2] = hash_of(source, source_length)


@kernel
def _ask(
    sources: Sources, slot: int, question: int, cause: int, waits_ms: int, rules: Rules, reading: NDArray[np.int64],
    reports: NDArray[np.int64], reported: int, row: int,
) -> int:  # fmt: skip
    """Answer one question of a source with an event, and report what that changes; how many reports there are then."""
    hot, watch, clocks = sources.hot, sources.watch, sources.clocks
    state = hot[slot, STATE]
    if not in_use(state, question) and severity_of(reading[READ_VALUE_MS]) == GREEN:
        return reported
    after, action = observe(watch, slot, state, question, cause, waits_ms, rules, reading)
    hot[slot, STATE] = after
    if action == 0:
        return reported
    reports[reported, REPORT_ROW], reports[reported, REPORT_QUESTION] = row, question
    reports[reported, REPORT_STATE] = action
    reports[reported, REPORT_PREVIOUS] = severity_in(state, question)
    reports[reported, REPORT_SEVERITY] = severity_in(after, question)
    reports[reported, REPORT_SKEW] = clocks[slot, SKEW_PPB]
    reports[reported, REPORT_SKEW_ERROR] = clocks[slot, SKEW_ERROR_PPB]
    reports[reported, REPORT_MOVED] = reports[reported, REPORT_OF] = 0
    for column in range(READ_COLUMNS):
        reports[reported, REPORT_NOW + column] = reading[column]
    for column in range(QUESTION_COLUMNS):
        reports[reported, REPORT_WATCH + column] = watch[slot, question * QUESTION_COLUMNS + column]
    settle(watch, slot, question, action)
    return reported + 1


@kernel
def _ask_of_authority(
    sources: Sources, slot: int, authority: NDArray[np.int64], stepped: bool, reading: NDArray[np.int64],  # noqa: FBT001
    reports: NDArray[np.int64], reported: int, row: int,
) -> int:  # fmt: skip
    """See whether the authority moved, and report what that changes; how many reports there are then."""
    reading[READ_OFFSET_US], reading[READ_BOUND_US] = 0, _NO_BOUND
    action, before, after = authority_moved(sources, authority, slot, stepped, reading)
    return _report_authority(authority, action, before, after, reading, reports, reported, row)


@kernel
def _doubt_authority(
    sources: Sources, authority: NDArray[np.int64], before_sequence: int, local_us: int, reading: NDArray[np.int64],
    reports: NDArray[np.int64], reported: int, row: int,
) -> int:  # fmt: skip
    """See whether an event speaks against the shift, and report what that changes; how many reports there are then."""
    reading[READ_OFFSET_US], reading[READ_BOUND_US] = 0, _NO_BOUND
    true_ms = true_ms_of(reading[READ_AUTHORITY_MS], authority[SHIFT_MS])
    action, before, after = authority_doubted(
        sources, authority, before_sequence, reading[READ_DELTA_MS], delta_ms_of(local_us, true_ms), reading
    )
    return _report_authority(authority, action, before, after, reading, reports, reported, row)


@kernel
def _report_authority(
    authority: NDArray[np.int64], action: int, before: int, after: int, reading: NDArray[np.int64],
    reports: NDArray[np.int64], reported: int, row: int,
) -> int:  # fmt: skip
    """Report what a verdict on the authority changes, if it does."""
    if action == 0:
        return reported
    reports[reported, :REPORT_NOW] = 0
    reports[reported, REPORT_ROW], reports[reported, REPORT_QUESTION] = row, _AUTHORITY
    reports[reported, REPORT_STATE] = action
    reports[reported, REPORT_PREVIOUS], reports[reported, REPORT_SEVERITY] = before, after
    reports[reported, REPORT_MOVED], reports[reported, REPORT_OF] = authority[MOVED], authority[OF]
    for column in range(READ_COLUMNS):
        reports[reported, REPORT_NOW + column] = reading[column]
    for column in range(QUESTION_COLUMNS):
        reports[reported, REPORT_WATCH + column] = authority[column]
    if action == _CLOSED:
        authority[:QUESTION_COLUMNS] = 0
    return reported + 1


@kernel
def judge_rows(
    start: int,
    entries: Entries,
    events: Events,
    marks: NDArray[np.int64],
    content: NDArray[np.int64],
    verdicts: Verdicts,
    sources: Sources,
    arena_address: int,
    memory: Memory,
    authority: NDArray[np.int64],
    beats: NDArray[np.int64],
    guard: NDArray[np.int64],
    numbers: NDArray[np.int64],
    threshold_us: int,
    rules: Rules,
    horizon: int,
    sources_max: int,
    estimate_interval_ms: int,
    room: Workspace,
    reading: NDArray[np.int64],
    tally: NDArray[np.int64],
    reports: NDArray[np.int64],
    told: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Judge rows from start; returns (row, Stop, reports written).

    content: value_hash as int64[n, 4]. authority: int64[AUTHORITY_COLUMNS]. beats: int64[m, BEAT_COLUMNS], guard:
    int64[GUARD_COLUMNS], see `guardian`. numbers: int64[NUMBERS], see NUMBER_SEQUENCE. room: for the fits of clocks;
    reading: int64[READ_COLUMNS], for one event. tally: int64[len(Tally)], added to. told: int64[n, TOLD_COLUMNS], one
    for a row at most.
    """
    places, hot, arena = sources.places, sources.hot, sources.arena
    clocks, points, exchange = sources.clocks, sources.points, events.exchange
    ring, table = memory.ring, memory.table
    table_address, places_address, hot_address = table.ctypes.data, places.ctypes.data, hot.ctypes.data
    clocks_address = clocks.ctypes.data
    rows = events.fault.size
    reported = 0
    last_sequence = numbers[NUMBER_SEQUENCE]
    for row in range(start, rows):
        ahead = row + _ROWS_AHEAD
        if ahead < rows and events.fault[ahead] == _NO_FAULT:
            prefetch(places_address + _ENTRY_BYTES * (marks[ahead, 2] & (places.size - 1)))
            entry = places[marks[row + _ROWS_AHEAD // 2, 2] & (places.size - 1)]
            prefetch(hot_address + _HOT_BYTES * slot_in(entry))
            for line in range(0, _NEAR_BYTES, _LINE_BYTES):
                prefetch(clocks_address + _CLOCK_BYTES * slot_in(entry) + line)
            if horizon > 0:
                expiring = ring[entries.sequence[ahead] % horizon, 1]
                prefetch(table_address + _ENTRY_BYTES * home(marks[ahead, 1], table.size))
                prefetch(table_address + _ENTRY_BYTES * home(expiring, table.size))
        if entries.kind[row] != _DATA:
            beat = numbers[NUMBER_BEAT]
            if beat < beats.shape[0] and beats[beat, BEAT_ROW] == row:
                off_ms = worker_off_ms(beats, beat, entries.authority_ms[row], authority)
                if guard[GUARD_STATE] != 0 or severity_of(off_ms) != GREEN:
                    numbers[NUMBER_SEQUENCE] = last_sequence
                    return row, _BEAT, reported
                numbers[NUMBER_BEAT] += 1
            continue
        sequence = entries.sequence[row]
        if sequence != last_sequence + 1:
            numbers[NUMBER_SEQUENCE] = last_sequence
            return row, _OUT_OF_ORDER, reported
        if events.fault[row] != _NO_FAULT:
            last_sequence = sequence
            if horizon > 0:
                forget(ring, table, sequence % horizon)
            continue
        address = int(events.source_address[row])
        length = int(events.source_length[row])
        slot = find(places, hot, arena, address, length, marks[row, 2])
        stop = _DONE
        if reported + _REPORTS_AN_EVENT > reports.shape[0]:
            stop = _REPORTS
        elif slot < 0 and sources.used[COUNT] >= sources_max:
            stop = _EVICT
        elif slot < 0 and not has_room(sources):
            stop = _GROW
        if stop != _DONE:
            numbers[NUMBER_SEQUENCE] = last_sequence
            return row, stop, reported
        if slot < 0:
            slot = add(sources, arena_address, address, length, int(marks[row, 2]))
        last_sequence = sequence
        before_sequence = hot[slot, LAST_SEQUENCE]
        hot[slot, LAST_SEQUENCE] = sequence

        flags = 0
        if horizon > 0:
            known = seek(ring, table, marks[row, 0], marks[row, 1])
            if known >= 0:
                same = ring[known, 2] == content[row, 0] and ring[known, 3] == content[row, 1]
                flags = _DUPLICATE if same else _CONFLICT
            forget(ring, table, sequence % horizon)
            if known < 0:
                remember(
                    ring, table, sequence % horizon, marks[row, 0], marks[row, 1], content[row, 0], content[row, 1]
                )

        local_us = events.local_us[row]
        authority_ms = entries.authority_ms[row]
        delta_ms = delta_ms_of(local_us, authority_ms)
        severity = severity_of(delta_ms)
        place = _NEAR
        reading[READ_SEQUENCE], reading[READ_AUTHORITY_MS] = sequence, authority_ms
        reading[READ_LOCAL_US], reading[READ_DELTA_MS] = local_us, delta_ms
        if flags == 0 and authority[SHIFT_MS] != 0:
            reported = _doubt_authority(sources, authority, before_sequence, local_us, reading, reports, reported, row)
        shift_ms = authority[SHIFT_MS]
        true_ms = true_ms_of(authority_ms, shift_ms)
        if flags == 0:
            may_step = events.has_exchange[row] != 0 or clocks[slot, OFF_COUNT] > 0
            step_ms, step_us = (clocks[slot, STEP_MS], clocks[slot, STEP_US]) if may_step else (0, 0)
            place = estimate(
                clocks, points, slot, sequence, true_ms, local_us,
                events.has_exchange[row] != 0 and exchange[row, APPENDED_MS] >= authority[SHIFTED_MS],
                exchange[row, SENT_US], exchange[row, ACKED_US], true_ms_of(exchange[row, APPENDED_MS], shift_ms), room,
            )  # fmt: skip
            stepped = may_step and (clocks[slot, STEP_MS] != step_ms or clocks[slot, STEP_US] != step_us)
            if place not in (_NEAR, _BEGAN) or stepped:
                reported = _ask_of_authority(sources, slot, authority, stepped, reading, reports, reported, row)
                if authority[SHIFT_MS] != shift_ms:
                    place, stepped = _NEAR, False
                    true_ms = true_ms_of(authority_ms, authority[SHIFT_MS])
            why = due(clocks, slot, true_ms, stepped, estimate_interval_ms)
            if why != 0:
                tell(
                    told, numbers[NUMBER_TOLD], clocks, slot, why, entries.index[row], address, length, sequence,
                    authority_ms, true_ms,
                )  # fmt: skip
                numbers[NUMBER_TOLD] += 1
        estimated = is_known(clocks, slot, true_ms)
        offset_us, bound_us = offset_of(clocks, slot, true_ms) if estimated else (0, _NO_BOUND)
        if flags == 0:
            tally[severity] += 1
            if is_warned(local_us, authority_ms, threshold_us):
                flags = _WARNED
                tally[_N_WARNED] += 1
            true_delta_ms = delta_ms_of(local_us, true_ms)
            value_ms, cause, delay_ms = blame(
                clocks, slot, estimated, place, true_delta_ms, offset_us, hot[slot, STATE] != 0
            )  # fmt: skip
            verdicts.cause[row] = cause_of(severity_of(true_delta_ms), value_ms, cause, delay_ms)
            if verdicts.cause[row] == _NONE and severity != GREEN:
                verdicts.cause[row] = _CAUSE_AUTHORITY
            if hot[slot, STATE] != 0 or severity_of(value_ms) != GREEN or severity_of(delay_ms) != GREEN:
                reading[READ_OFFSET_US], reading[READ_BOUND_US] = offset_us, bound_us
                reading[READ_VALUE_MS] = value_ms
                settled = place != _ABOVE and instant_of(true_ms) - clocks[slot, LAST_STEP_MS] >= rules.fleet_hold_ms
                proved = cause == _AHEAD and true_delta_ms > 0 and severity_of(true_delta_ms) != GREEN
                waits_ms = 0 if proved or (cause == _STEP and settled) else rules.fleet_hold_ms
                reported = _ask(sources, slot, _CLOCK, cause, waits_ms, rules, reading, reports, reported, row)
                reading[READ_VALUE_MS] = delay_ms
                waits_ms = rules.fleet_hold_ms
                if clocks[slot, REACH_US] >= 0:
                    waits_ms = max(waits_ms, HOLD_TWO_WAY_MS)
                reported = _ask(sources, slot, _DELAY, _BACKLOG, waits_ms, rules, reading, reports, reported, row)
        elif flags == _DUPLICATE:
            tally[_N_DUPLICATES] += 1
        else:
            tally[_N_CONFLICTS] += 1
        if events.has_value[row] != 0 and not math.isfinite(events.value[row]):
            flags |= _NOT_FINITE
            tally[_N_NOT_FINITE] += 1
        verdicts.severity[row] = severity
        verdicts.flags[row] = flags
        verdicts.delta_ms[row] = delta_ms
        verdicts.source[row] = hot[slot, NUMBER]
        verdicts.offset_us[row], verdicts.bound_us[row] = offset_us, bound_us
    numbers[NUMBER_SEQUENCE] = last_sequence
    return rows, _DONE, reported
