"""Ledger records to entry columns: the kernels behind columns.decode_entries.

The ledger is read again at full speed when a fold catches up, when a snapshot is restored and when a chain is checked.
So this too is one walk for each record. Headers are rare: the walk only proves them and notes where they are, and a
second kernel writes their canonical form for the rows that have any.

A record that is not exactly what the sequencer writes is malformed, including the relations between its fields: a
PRESENT value is there with its stated length, any other is not there, and a NULL one has the length -1. Header names
are bytes to Kafka and are not tested for UTF-8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .avro_reader import BAD_LENGTH, BAD_UNION, read_branch, read_int, read_length, read_long
from .canonical import ValueState
from .event_kernel import PREFIX_BYTES, prefix_fault
from .memory import copy, kernel, load_i64, store_i64, store_u8

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .columns import Entries

HASH_BYTES = 32
_PRESENT = int(ValueState.PRESENT)
_NULL = int(ValueState.NULL)


@kernel
def _copy_hash(target: int, source: int) -> None:
    for k in range(0, HASH_BYTES, 8):
        store_i64(target + k, load_i64(source + k))


@kernel
def _headers_length(position: int, end: int) -> tuple[int, int]:  # noqa: C901 - one exit for each way to be malformed
    """Bytes of the canonical form of the headers at position, 0 for none, and where they end; negative if malformed."""
    length = 0
    while True:
        count, position = read_long(position, end)
        if position < 0:
            return 0, position
        if count == 0:
            return (length + 4 if length > 0 else 0), position
        stated = -1
        if count < 0:
            if count < -(end - position):  # each header takes bytes, so this cannot be honest; nor can it be negated
                return 0, -BAD_LENGTH
            count = -count
            stated, position = read_long(position, end)
            if position < 0 or stated < 0:
                return 0, -BAD_LENGTH
        start = position
        for _ in range(count):
            size, position = read_length(position, end, end - position, BAD_LENGTH)
            if position < 0:
                return 0, position
            branch, position = read_branch(position + size, end)
            if position < 0:
                return 0, position
            length += size + 5
            if branch == 1:
                size, position = read_length(position, end, end - position, BAD_LENGTH)
                if position < 0:
                    return 0, position
                position += size
                length += size + 4
        if stated >= 0 and position - start != stated:
            return 0, -BAD_LENGTH


@kernel
def _read_value(position: int, end: int, state: int, stated: int) -> int:
    """The last field: the address of the value, 0 for none.

    Negative unless it agrees with its state and stated length, and the record ends with it.
    """
    branch, position = read_branch(position, end)
    if position < 0:
        return position
    if state != _PRESENT:
        agrees = stated == -1 if state == _NULL else stated >= 0
        return 0 if agrees and branch == 0 and position == end else -BAD_LENGTH
    if branch == 0:
        return -BAD_LENGTH
    length, position = read_length(position, end, end - position, BAD_LENGTH)
    if position > 0 and (length != stated or length != end - position):
        return -BAD_LENGTH
    return position


@kernel
def _read_symbol(position: int, end: int, symbols: int) -> tuple[int, int]:
    """An enum of so many symbols."""
    symbol, position = read_int(position, end)
    if position > 0 and (symbol < 0 or symbol >= symbols):
        return 0, -BAD_UNION
    return symbol, position


@kernel
def read_entries(  # noqa: C901, PLR0911, PLR0912 - one exit for each field
    addresses: NDArray[np.int64],
    lengths: NDArray[np.int64],
    entries: Entries,
    value_hashes: int,
    chain_hashes: int,
    fingerprint: int,
) -> tuple[int, int]:
    """Every record into its row: (first malformed row or -1, bytes of all canonical headers).

    value_hashes and chain_hashes are the addresses of these two columns. Of a row with headers headers_length is the
    canonical length and headers_address where their Avro form stands, for write_headers. One flat loop for the reason
    given in event_kernel.read_events.
    """
    headers = 0
    for row in range(len(addresses)):
        position = int(addresses[row])
        length = int(lengths[row])
        end = position + length
        if length < PREFIX_BYTES or prefix_fault(position, length, fingerprint) != 0:
            return row, 0
        number, position = _read_symbol(position + PREFIX_BYTES, end, 2)
        if position < 0:
            return row, 0
        entries.kind[row] = number
        number, position = read_long(position, end)
        if position < 0:
            return row, 0
        entries.index[row] = number
        number, position = read_long(position, end)
        if position < 0:
            return row, 0
        entries.sequence[row] = number
        number, position = read_long(position, end)
        if position < 0:
            return row, 0
        entries.input_offset[row] = number
        number, position = read_long(position, end)
        if position < 0:
            return row, 0
        entries.control_offset[row] = number
        number, position = read_int(position, end)
        if position < 0:
            return row, 0
        entries.leader_epoch[row] = number
        number, position = read_long(position, end)
        if position < 0:
            return row, 0
        entries.authority_ms[row] = number
        number, position = _read_symbol(position, end, 2)
        if position < 0:
            return row, 0
        entries.authority_kind[row] = number
        state, position = _read_symbol(position, end, 4)
        if position < 0:
            return row, 0
        entries.value_state[row] = state
        stated, position = read_long(position, end)
        if position < 0 or end - position < 2 * HASH_BYTES:
            return row, 0
        entries.value_length[row] = stated
        _copy_hash(value_hashes + HASH_BYTES * row, position)
        _copy_hash(chain_hashes + HASH_BYTES * row, position + HASH_BYTES)
        start = position + 2 * HASH_BYTES
        canonical, position = _headers_length(start, end)
        if position < 0:
            return row, 0
        entries.headers_length[row] = canonical
        entries.headers_address[row] = start if canonical > 0 else 0
        headers += canonical
        position = _read_value(position, end, state, stated)
        if position < 0:
            return row, 0
        entries.value_address[row] = position
    return -1, headers


@kernel
def _store_u32_be(position: int, value: int) -> None:
    for k in range(4):
        store_u8(position + k, value >> (24 - 8 * k))


@kernel
def _write_headers(source: int, target: int) -> None:
    """The canonical form, at target, of the Avro headers at source, which _headers_length has proved."""
    unbounded = source + (1 << 40)
    total = 0
    following = target + 4
    while True:
        count, source = read_long(source, unbounded)
        if count == 0:
            _store_u32_be(target, total)
            return
        if count < 0:
            count = -count
            _stated, source = read_long(source, unbounded)
        total += count
        for _ in range(count):
            size, source = read_long(source, unbounded)
            _store_u32_be(following, size)
            copy(following + 4, source, size)
            following += 4 + size
            branch, source = read_long(source + size, unbounded)
            store_u8(following, branch)
            following += 1
            if branch == 1:
                size, source = read_long(source, unbounded)
                _store_u32_be(following, size)
                copy(following + 4, source, size)
                following += 4 + size
                source += size


@kernel
def write_headers(entries: Entries, rows: int, arena: int) -> None:
    """Turn headers_address from the Avro form to the canonical form, which is written into the arena."""
    for row in range(rows):
        length = int(entries.headers_length[row])
        if length > 0:
            _write_headers(int(entries.headers_address[row]), arena)
            entries.headers_address[row] = arena
            arena += length
