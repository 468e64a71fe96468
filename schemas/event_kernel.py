"""Ledger values to event columns in one pass: the kernel behind columns.decode_events for single-object framing.

The order of Event's fields is the order of the columns, so each row is one walk from its first byte to its last. A row
that is at fault costs only itself: its fault is recorded and the walk goes on with the next row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .avro_reader import read_branch, read_int, read_length, read_long, read_text
from .canonical import EntryKind, ValueState
from .faults import MAX_CAUSES, MAX_EVENT_ID_BYTES, MAX_KIND_BYTES, MAX_SOURCE_BYTES, Fault
from .memory import kernel, load_f64, load_i64, load_u8, store_i64

if TYPE_CHECKING:
    from .columns import Entries, Events

#: C3 01, the marker of single-object encoding, and the fingerprint after it.
MARKER_0 = 0xC3
MARKER_1 = 0x01
PREFIX_BYTES = 10
_DOUBLE_BYTES = 8
_EXCHANGE_BYTES = 40
_NAN = float("nan")
_CONTROL = int(EntryKind.CONTROL)
_STATE_NULL = int(ValueState.NULL)
_STATE_OMITTED = int(ValueState.OMITTED)
_STATE_ERASED = int(ValueState.ERASED)

_NONE = int(Fault.NONE)
_CONTROL_ENTRY = int(Fault.CONTROL_ENTRY)
_NULL_VALUE = int(Fault.NULL_VALUE)
_EMPTY = int(Fault.EMPTY)
_UNKNOWN_FRAMING = int(Fault.UNKNOWN_FRAMING)
_WRONG_FINGERPRINT = int(Fault.WRONG_FINGERPRINT)
_TRUNCATED = int(Fault.TRUNCATED)
_TRAILING_BYTES = int(Fault.TRAILING_BYTES)
_BAD_LENGTH = int(Fault.BAD_LENGTH)
_LIMIT_EXCEEDED = int(Fault.LIMIT_EXCEEDED)
_SOURCE_LENGTH = int(Fault.SOURCE_LENGTH)
_OMITTED = int(Fault.OMITTED)
_ERASED = int(Fault.ERASED)


@kernel
def prefix_fault(position: int, length: int, fingerprint: int) -> int:
    """The fault of a single-object prefix; the fingerprint is the int64 that its eight bytes are in memory."""
    if load_u8(position) != MARKER_0 or (length > 1 and load_u8(position + 1) != MARKER_1):
        return _UNKNOWN_FRAMING
    if length < PREFIX_BYTES:
        return _TRUNCATED
    if load_i64(position + 2) != fingerprint:
        return _WRONG_FINGERPRINT
    return _NONE


@kernel
def state_fault(kind: int, value_state: int, value_length: int) -> int:
    """The fault that an entry itself declares, before any byte of its value is looked at."""
    if kind == _CONTROL:
        return _CONTROL_ENTRY
    if value_state == _STATE_NULL:
        return _NULL_VALUE
    if value_state == _STATE_OMITTED:
        return _OMITTED
    if value_state == _STATE_ERASED:
        return _ERASED
    if value_length <= 0:
        return _EMPTY
    return _NONE


@kernel
def _read_causes(position: int, end: int) -> tuple[int, int]:  # noqa: C901 - one exit for each fault
    """An array in blocks, ended by a count of 0. A negative count is followed by the bytes of its block."""
    total = 0
    while True:
        count, position = read_long(position, end)
        if position < 0:
            return 0, position
        if count == 0:
            return total, position
        if count > MAX_CAUSES or count < -MAX_CAUSES or total + abs(count) > MAX_CAUSES:
            return 0, -_LIMIT_EXCEEDED
        stated = -1
        if count < 0:
            count = -count
            stated, position = read_long(position, end)
            if position < 0:
                return 0, position
            if stated < 0:
                return 0, -_BAD_LENGTH
        start = position
        for _ in range(count):
            _partition, position = read_int(position, end)
            if position < 0:
                return 0, position
            _sequence, position = read_long(position, end)
            if position < 0:
                return 0, position
        if stated >= 0 and position - start != stated:
            return 0, -_BAD_LENGTH
        total += count


@kernel
def _read_exchange(target: int, position: int, end: int) -> int:
    """The five numbers of an exchange to the five int64 at target; the position after them, or a fault."""
    value, position = read_int(position, end)
    if position < 0:
        return position
    store_i64(target, value)
    for k in range(8, 40, 8):
        value, position = read_long(position, end)
        if position < 0:
            return position
        store_i64(target + k, value)
    return position


@kernel
def read_events(  # noqa: C901, PLR0912, PLR0915 - one exit for each field
    entries: Entries, events: Events, exchanges: int, fingerprint: int
) -> None:
    """Every row of `entries` into the same row of `events`; `exchanges` is the address of that column.

    In a row at fault, columns after the fault are left as they were. One flat loop with one way out per fault: handing
    the columns on to a function for each row would count references to eighteen arrays, at five times the cost.
    """
    fault = events.fault
    event_id_address, event_id_length = events.event_id_address, events.event_id_length
    source_address, source_length = events.source_address, events.source_length
    kind_address, kind_length = events.kind_address, events.kind_length
    payload_address, payload_length = events.payload_address, events.payload_length
    causes_address, causes_count = events.causes_address, events.causes_count
    for row in range(len(entries.kind)):
        position = int(entries.value_address[row])
        length = int(entries.value_length[row])
        end = position + length
        found = state_fault(entries.kind[row], entries.value_state[row], length)
        if found == _NONE:
            found = prefix_fault(position, length, fingerprint)
        fault[row] = found
        if found != _NONE:
            continue

        length, position = read_text(position + PREFIX_BYTES, end, MAX_EVENT_ID_BYTES, _LIMIT_EXCEEDED)
        if position < 0:
            fault[row] = -position
            continue
        event_id_address[row] = position
        event_id_length[row] = length

        length, position = read_text(position + length, end, MAX_SOURCE_BYTES, _SOURCE_LENGTH)
        if position < 0 or length == 0:
            fault[row] = -position if position < 0 else _SOURCE_LENGTH
            continue
        source_address[row] = position
        source_length[row] = length

        local_us, position = read_long(position + length, end)
        if position < 0:
            fault[row] = -position
            continue
        events.local_us[row] = local_us

        length, position = read_text(position, end, MAX_KIND_BYTES, _LIMIT_EXCEEDED)
        if position < 0:
            fault[row] = -position
            continue
        kind_address[row] = position
        kind_length[row] = length

        branch, position = read_branch(position + length, end)
        if position > 0 and branch == 1 and end - position < _DOUBLE_BYTES:
            position = -_TRUNCATED
        if position < 0:
            fault[row] = -position
            continue
        events.has_value[row] = branch
        events.value[row] = load_f64(position) if branch == 1 else _NAN
        position += branch * _DOUBLE_BYTES

        length, position = read_length(position, end, end - position, _TRUNCATED)
        if position < 0:
            fault[row] = -position
            continue
        payload_address[row] = position
        payload_length[row] = length

        branch, position = read_branch(position + length, end)
        hlc = 0
        if position > 0 and branch == 1:
            hlc, position = read_long(position, end)
        if position < 0:
            fault[row] = -position
            continue
        events.has_hlc[row] = branch
        events.hlc[row] = hlc

        start = position
        count, position = _read_causes(position, end)
        if position < 0:
            fault[row] = -position
            continue
        causes_count[row] = count
        causes_address[row] = start if count > 0 else 0

        branch, position = read_branch(position, end)
        if position > 0 and branch == 1:
            position = _read_exchange(exchanges + _EXCHANGE_BYTES * row, position, end)
        if position < 0:
            fault[row] = -position
            continue
        events.has_exchange[row] = branch
        if position != end:
            fault[row] = _TRAILING_BYTES
