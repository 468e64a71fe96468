"""Has this event been here before? A memory of the last so many sequences of a partition.

Problem: producers retry, so the same event arrives twice, and sometimes something else arrives under its name. Both
must be told from a new event, exactly, in bounded memory, by everybody who reads the ledger.

The key is SHA-256(length of source, 4 bytes LE || source || event_id) cut to 128 bits: no producer can make two keys
meet by trying. The content is the first 128 bits of value_hash. Same key and same content within the horizon:
DUPLICATE. Same key and other content: CONFLICT.

GUARANTEE an event at sequence s is remembered up to and including sequence s + horizon. The first one stands: a
duplicate or a conflict neither refreshes nor replaces what is remembered, so a key that is repeated for ever is a new
event again once the first is out of the horizon. Entries that are no event (undecodable, omitted, erased) remember
nothing but do count as sequences.
HAZARD a duplicate beyond the horizon is a new event. The horizon is a number of sequences, not a time.

How: a ring with one row of four int64 (key, content) for each of the last `horizon` sequences, at row sequence mod
horizon, all zero where that sequence remembers nothing; and an open-addressing table of int64 from key to ring row:

    bits 24-63   of the key's second half; the lowest of them choose the home place
    bits 0-23    ring row + 1, 0 for an empty place

Deletion shifts back what probed past the place, so there are no tombstones and no rebuild; the forty bits of key in
each entry keep both probing and deletion out of the ring. Table size, and the order in which things were put in, show
nowhere in what is dumped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.memory import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Columns of the ring: the key's halves (the first is never zero), the content's halves.
RING_COLUMNS: Final = 4

_ROW_BITS: Final = 24
_ROW_MASK: Final = (1 << _ROW_BITS) - 1
_TAG_MASK: Final = ~_ROW_MASK
_TABLE_MIN: Final = 8


class Memory(NamedTuple):
    """ring: int64[max(horizon, 1), 4]; table: int64[a power of two, at least twice that]."""

    ring: NDArray[np.int64]
    table: NDArray[np.int64]


@kernel
def home(tagged: int, places: int) -> int:
    """Where probing begins in a table of so many places, for a key's second half or an entry made of it."""
    return (tagged >> _ROW_BITS) & (places - 1)


@kernel
def seek(ring: NDArray[np.int64], table: NDArray[np.int64], key_a: int, key_b: int) -> int:
    """Ring row that remembers the key, -1 for none."""
    mask = table.size - 1
    place = home(key_b, table.size)
    while table[place] != 0:
        entry = table[place]
        if entry & _TAG_MASK == key_b & _TAG_MASK:
            row = (entry & _ROW_MASK) - 1
            if ring[row, 0] == key_a and ring[row, 1] == key_b:
                return int(row)
        place = (place + 1) & mask
    return -1


@kernel
def forget(ring: NDArray[np.int64], table: NDArray[np.int64], row: int) -> None:
    """Empty a ring row and take it out of the table."""
    if ring[row, 0] == 0:
        return
    mask = table.size - 1
    place = home(ring[row, 1], table.size)
    while table[place] & _ROW_MASK != row + 1:
        place = (place + 1) & mask
    hole = place
    while True:
        place = (place + 1) & mask
        entry = table[place]
        if entry == 0:
            break
        # an entry may fill the hole only if its home is not after the hole, counted around the table
        if (place - home(entry, table.size)) & mask >= (place - hole) & mask:
            table[hole] = entry
            hole = place
    table[hole] = 0
    ring[row, 0] = 0
    ring[row, 1] = 0
    ring[row, 2] = 0
    ring[row, 3] = 0


@kernel
def remember(
    ring: NDArray[np.int64], table: NDArray[np.int64], row: int, key_a: int, key_b: int, content_a: int, content_b: int
) -> None:
    """Put a key that is not in the table into an empty ring row."""
    ring[row, 0] = key_a
    ring[row, 1] = key_b
    ring[row, 2] = content_a
    ring[row, 3] = content_b
    mask = table.size - 1
    place = home(key_b, table.size)
    while table[place] != 0:
        place = (place + 1) & mask
    table[place] = (key_b & _TAG_MASK) | (row + 1)


@kernel
def _fill(memory: Memory, rows: NDArray[np.int64], first_sequence: int) -> None:
    ring, table = memory.ring, memory.table
    for i in range(rows.shape[0]):
        if rows[i, 0] != 0:
            row = (first_sequence + i) % ring.shape[0]
            remember(ring, table, row, rows[i, 0], rows[i, 1], rows[i, 2], rows[i, 3])


def empty_memory(horizon: int) -> Memory:
    """Nothing remembered. A horizon of 0 keeps one row that nobody uses."""
    rows = max(horizon, 1)
    places = max(_TABLE_MIN, 1 << (2 * rows - 1).bit_length())
    return Memory(np.zeros((rows, RING_COLUMNS), np.int64), np.zeros(places, np.int64))


def remembered(memory: Memory, horizon: int, last_sequence: int) -> NDArray[np.int64]:
    """The ring's rows in order of sequence, ending with last_sequence: int64[min(horizon, last_sequence), 4]."""
    count = min(horizon, last_sequence)
    sequences = np.arange(last_sequence - count + 1, last_sequence + 1, dtype=np.int64)
    return memory.ring[sequences % max(horizon, 1)]


def restored(rows: NDArray[np.int64], horizon: int, last_sequence: int) -> Memory:
    """A memory of that horizon from rows that end with last_sequence; what is older than it is forgotten."""
    memory = empty_memory(horizon)
    kept = rows[max(0, len(rows) - horizon) :] if horizon else rows[:0]
    _fill(memory, np.ascontiguousarray(kept), last_sequence - len(kept) + 1)
    return memory
