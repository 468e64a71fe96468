"""The events that a definition of sliding windows keeps, in the two orders in which it needs them.

    times    int64[8 b]         of the kept events, eight to a block; NEVER where one has been freed
    values   float64[8 b]       NaN where an event has no finite value
    links    int64[8 b, 2]      sequence; the next one in the queue
    blocks   int64[b, 8]        see the columns below
    lists    int64[slots, 4]    by key slot: its first block, its last, the time of its last result, NEVER for none; how
                                many events it has
    heap     int64[n, 3]        events whose time has no result yet, the least (time, sequence) on top: time, sequence,
                                place among the times
    used     int64[USED]        how much of it is in use; the head of the free blocks; the queue of told events

The blocks of a key hang together, its events in sequence order, so that a result reads them two cache lines at a time.
The watermark rises, so results come in ascending time, and all that is taken after one is later than it. Hence the heap
may hold an event time more than once: of a key's results the last alone can be the same. And those whose time has had
its result wait in a plain queue, ascending in time, until the watermark is a whole size past them: then no result can
need them, and they are freed.

What goes in and out, and when, is `sliding_kernel`'s. HAZARD nothing here looks whether there is room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.memory import kernel, lined
from streams.derive_kernel import NEVER

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Kept events of a definition in a partition: 65 MB, and at worst, where each is the only one of its key, 394 MB beside
#: 101 MB of keys of up to 24 bytes.
EVENTS_MAX: Final = 1_000_000
#: Of them those without a result: one entry may close them all, some 300 bytes each.
PENDING_MAX: Final = 250_000
#: And of one key: a result is folded from all of them, in order, so to close them all costs the square of their number.
KEY_EVENTS_MAX: Final = 10_000
#: Squares of the kept events of each key, together: what one entry may cost, 2 to 3 s, and 7 with percentiles.
WORK_MAX: Final = 1_000_000_000

BLOCK: Final = 8

# Columns of a link.
SEQUENCE: Final = 0
NEXT: Final = 1
LINK_COLUMNS: Final = 2

# Columns of a block.
KEY: Final = 0
#: Neighbours among the blocks of its key, -1 for none; AFTER also of the free.
BEFORE: Final = 1
AFTER: Final = 2
#: No event of its key from it on is earlier than that.
LEAST: Final = 3
#: Events that were put into it, and those that are not freed.
FILLED: Final = 4
STAYING: Final = 5
BLOCK_COLUMNS: Final = 8

# Columns of a list.
FIRST: Final = 0
LAST: Final = 1
TOLD: Final = 2
HELD: Final = 3
LIST_COLUMNS: Final = 4

# Columns of the heap.
HEAP_TIME: Final = 0
HEAP_SEQUENCE: Final = 1
HEAP_PLACE: Final = 2
HEAP_COLUMNS: Final = 3

# Numbers of `used`.
LIVE: Final = 0
LIVE_BLOCKS: Final = 1
FREE_BLOCK: Final = 2
FRESH_BLOCK: Final = 3
PENDING: Final = 4
QUEUE_HEAD: Final = 5
QUEUE_TAIL: Final = 6
#: Squares of the kept events of each key, together.
WORK: Final = 7
USED: Final = 8

_BLOCKS_MIN: Final = 64
_HEAP_MIN: Final = 256


class Kept(NamedTuple):
    """See the module."""

    times: NDArray[np.int64]
    values: NDArray[np.float64]
    links: NDArray[np.int64]
    blocks: NDArray[np.int64]
    lists: NDArray[np.int64]
    heap: NDArray[np.int64]
    used: NDArray[np.int64]


def with_room(blocks: int, pending: int, slots: int) -> Kept:
    """No events; room for so many blocks, so many without a result, and keys in so many slots."""
    blocks = max(_BLOCKS_MIN, blocks)
    lines = [lined(blocks, BLOCK) for _ in range(3)]
    used = np.zeros(USED, np.int64)
    used[[FREE_BLOCK, QUEUE_HEAD, QUEUE_TAIL]] = -1
    return Kept(
        times=lines[0].reshape(-1),
        values=lines[1].reshape(-1).view(np.float64),
        links=np.zeros((blocks * BLOCK, LINK_COLUMNS), np.int64),
        blocks=lines[2],
        lists=no_lists(slots),
        heap=np.zeros((max(_HEAP_MIN, pending), HEAP_COLUMNS), np.int64),
        used=used,
    )


def no_lists(slots: int) -> NDArray[np.int64]:
    """Keys without events."""
    lists = np.full((slots, LIST_COLUMNS), -1, np.int64)
    lists[:, TOLD] = NEVER
    lists[:, HELD] = 0
    return lists


def grown(kept: Kept) -> Kept:
    """The same events with room for at least one more."""
    blocks, pending = kept.blocks.shape[0], kept.heap.shape[0]
    larger = with_room(
        2 * blocks if kept.used[LIVE_BLOCKS] == blocks else blocks,
        2 * pending if kept.used[PENDING] == pending else pending,
        0,
    )
    for column, before in zip(larger, kept, strict=True):
        column[: before.shape[0]] = before[: column.shape[0]]
    return larger._replace(lists=kept.lists)


@kernel
def renumber(kept: Kept, slots: NDArray[np.int64]) -> None:
    """Put the events under other key slots: slots[old] = new. The lists are the caller's matter."""
    blocks = kept.blocks
    for slot in range(slots.size):
        block = kept.lists[slot, FIRST]
        while block >= 0:
            blocks[block, KEY] = slots[slot]
            block = blocks[block, AFTER]


@kernel
def _take_block(blocks: NDArray[np.int64], used: NDArray[np.int64]) -> int:
    """A free block; the caller has made sure of one."""
    block = used[FREE_BLOCK]
    if block >= 0:
        used[FREE_BLOCK] = blocks[block, AFTER]
    else:
        block = used[FRESH_BLOCK]
        used[FRESH_BLOCK] += 1
    used[LIVE_BLOCKS] += 1
    return int(block)


@kernel
def append(
    times: NDArray[np.int64], blocks: NDArray[np.int64], lists: NDArray[np.int64], used: NDArray[np.int64], slot: int,
    time_us: int,
) -> int:  # fmt: skip
    """Put a time at the end of those of its key; returns its place. The caller has made sure of a block."""
    block = lists[slot, LAST]
    if block < 0 or blocks[block, FILLED] == BLOCK:
        before = block
        block = _take_block(blocks, used)
        blocks[block, KEY] = slot
        blocks[block, BEFORE] = before
        blocks[block, AFTER] = -1
        blocks[block, LEAST] = time_us
        blocks[block, FILLED] = 0
        blocks[block, STAYING] = 0
        if before < 0:
            lists[slot, FIRST] = block
        else:
            blocks[before, AFTER] = block
        lists[slot, LAST] = block
    place = block * BLOCK + blocks[block, FILLED]
    blocks[block, FILLED] += 1
    blocks[block, STAYING] += 1
    used[LIVE] += 1
    used[WORK] += 2 * lists[slot, HELD] + 1
    lists[slot, HELD] += 1
    times[place] = time_us
    before = block if blocks[block, LEAST] > time_us else blocks[block, BEFORE]
    while before >= 0 and blocks[before, LEAST] > time_us:
        blocks[before, LEAST] = time_us
        before = blocks[before, BEFORE]
    return int(place)


@kernel
def push(heap: NDArray[np.int64], size: int, time_us: int, sequence: int, place: int) -> None:
    """Into a heap of that size; the sequence is the greatest."""
    at = size
    while at > 0:
        parent = (at - 1) // 2
        if heap[parent, HEAP_TIME] <= time_us:
            break
        for column in range(HEAP_COLUMNS):
            heap[at, column] = heap[parent, column]
        at = parent
    heap[at, HEAP_TIME] = time_us
    heap[at, HEAP_SEQUENCE] = sequence
    heap[at, HEAP_PLACE] = place


@kernel
def pop(heap: NDArray[np.int64], size: int) -> None:
    """Take the top off a heap of that size."""
    last = size - 1
    time_us, sequence = heap[last, HEAP_TIME], heap[last, HEAP_SEQUENCE]
    at = 0
    while 2 * at + 1 < last:
        child = 2 * at + 1
        other = child + 1
        if other < last and (
            heap[other, HEAP_TIME] < heap[child, HEAP_TIME]
            or (
                heap[other, HEAP_TIME] == heap[child, HEAP_TIME]
                and heap[other, HEAP_SEQUENCE] < heap[child, HEAP_SEQUENCE]
            )
        ):
            child = other
        if time_us < heap[child, HEAP_TIME] or (
            time_us == heap[child, HEAP_TIME] and sequence < heap[child, HEAP_SEQUENCE]
        ):
            break
        for column in range(HEAP_COLUMNS):
            heap[at, column] = heap[child, column]
        at = child
    for column in range(HEAP_COLUMNS):
        heap[at, column] = heap[last, column]


@kernel
def enqueue(links: NDArray[np.int64], used: NDArray[np.int64], place: int) -> None:
    """Its time has had its result."""
    links[place, NEXT] = -1
    if used[QUEUE_TAIL] < 0:
        used[QUEUE_HEAD] = place
    else:
        links[used[QUEUE_TAIL], NEXT] = place
    used[QUEUE_TAIL] = place


@kernel
def free_until(
    times: NDArray[np.int64], links: NDArray[np.int64], blocks: NDArray[np.int64], lists: NDArray[np.int64],
    used: NDArray[np.int64], time_us: int,
) -> None:  # fmt: skip
    """Free the events of the queue up to that time, and blocks of which all are freed."""
    while used[QUEUE_HEAD] >= 0 and times[used[QUEUE_HEAD]] <= time_us:
        place = used[QUEUE_HEAD]
        used[QUEUE_HEAD] = links[place, NEXT]
        if used[QUEUE_HEAD] < 0:
            used[QUEUE_TAIL] = -1
        times[place] = NEVER
        used[LIVE] -= 1
        block = place // BLOCK
        lists[blocks[block, KEY], HELD] -= 1
        used[WORK] -= 2 * lists[blocks[block, KEY], HELD] + 1
        blocks[block, STAYING] -= 1
        if blocks[block, STAYING] > 0:
            continue
        slot, before, after = blocks[block, KEY], blocks[block, BEFORE], blocks[block, AFTER]
        if before < 0:
            lists[slot, FIRST] = after
        else:
            blocks[before, AFTER] = after
        if after < 0:
            lists[slot, LAST] = before
        else:
            blocks[after, BEFORE] = before
        blocks[block, AFTER] = used[FREE_BLOCK]
        used[FREE_BLOCK] = block
        used[LIVE_BLOCKS] -= 1


@kernel
def kept_places(kept: Kept, order: NDArray[np.int64]) -> None:
    """Write the places of all events, in no order that means anything."""
    used = kept.used
    for at in range(used[PENDING]):
        order[at] = kept.heap[at, HEAP_PLACE]
    at = used[PENDING]
    place = used[QUEUE_HEAD]
    while place >= 0:
        order[at] = place
        at += 1
        place = kept.links[place, NEXT]


@kernel
def _restore(
    kept: Kept, sequences: NDArray[np.int64], times_us: NDArray[np.int64], values: NDArray[np.float64],
    slots: NDArray[np.int64], order: NDArray[np.int64], told: int, places: NDArray[np.int64],
) -> None:  # fmt: skip
    for row in range(slots.size):
        place = append(kept.times, kept.blocks, kept.lists, kept.used, slots[row], times_us[row])
        kept.links[place, SEQUENCE] = sequences[row]
        kept.values[place] = values[row]
        places[row] = place
    for at in range(order.size):
        row = order[at]
        if at < told:
            enqueue(kept.links, kept.used, places[row])
        else:
            push(kept.heap, at - told, times_us[row], sequences[row], places[row])


def restored(
    sequences: NDArray[np.int64], times_us: NDArray[np.int64], values: NDArray[np.float64], slots: NDArray[np.int64],
    key_slots: int, watermark_us: int,
) -> Kept:  # fmt: skip
    """Those events, in sequence order; what is before the watermark has had its result. slots: of the keys."""
    count = sequences.size
    told = int(np.count_nonzero(times_us < watermark_us))
    kept = with_room(int(np.sum(-(-np.bincount(slots) // BLOCK))), count - told, key_slots)
    order = np.lexsort((sequences, times_us)).astype(np.int64)
    _restore(kept, sequences, times_us, values, slots, order, told, np.empty(count, np.int64))
    kept.used[PENDING] = count - told
    return kept
