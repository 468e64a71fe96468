"""The sources of a partition: a name to a number, and what judge remembers of each.

Problem: names are bytes a producer chose, there may be hundreds of thousands, and each event needs its own in a few
tens of nanoseconds. Memory must be bounded whatever producers send.

GUARANTEE names are compared byte for byte; a hash only says where to look. A source's number is 1 for the first of
the partition and rises by one with each new one; it never changes and is never given twice, so it says the same in
every replay and under every batch split. A forgotten source that comes back is a new one.
GUARANTEE at most sources_max are kept. The one too many makes room at its very entry: the kept are cut to sources_max
less an eighth (at least one), so that the cost is spread. The longest silent go first (by the sequence of their last
decoded event), those with an open alert only after all those without; what happens to that alert stands in `alerts`.
HAZARD the hash has no secret: who may choose names freely can make them collide, and slow (never mislead) the lookup,
up to sources_max comparisons an event. Producers that are not trusted with names need quotas before they need this.

How: five arrays over slots, in order of number, and an arena of names in the same order.

    places   int64[twice the slots]   bits 32-62 hash, bits 0-31 slot + 1; 0 for empty; linear probing
    hot      int64[slots, 8]          one cache line: number, name (arena offset << 9 | length), last sequence, alert
                                      state, hash, the first 24 bytes of the name, zero padded
    watch    int64[slots, 60]         see `alert_kernel`; touched only for sources that are not plainly GREEN
    clocks   int64[slots, 32]         what is known of its clock, and
    points   int32[slots, 32, 4]      from which readings: see `clock_columns`; points are touched once a stretch

Of a table of names only the last three have no rows. So a GREEN event of a short-named source touches one line of
places, one of hot and four of clocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.faults import MAX_SOURCE_BYTES
from schemas.memory import address_of, copy, kernel, lined, load_i64, load_u8
from streams.alert_kernel import ALERTED, WATCH_COLUMNS
from streams.clock_columns import CLOCK_COLUMNS, POINT_COLUMNS, POINTS_MAX

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Columns of hot.
NUMBER: Final = 0
NAME: Final = 1
LAST_SEQUENCE: Final = 2
STATE: Final = 3
HASH: Final = 4
WORDS: Final = 5
HOT_COLUMNS: Final = 8

#: Bits of a name's length within NAME: 1 to 256 bytes.
LENGTH_BITS: Final = 9
_LENGTH_MASK: Final = (1 << LENGTH_BITS) - 1
_INLINE_BYTES: Final = 8 * (HOT_COLUMNS - WORDS)
_SLOTS_MIN: Final = 1024
_ARENA_BYTES_A_SLOT: Final = 16
#: When room must be made, one in so many goes.
_EVICTED_FRACTION: Final = 8

# Numbers of `used`.
COUNT: Final = 0
LAST_NUMBER: Final = 1
ARENA_USED: Final = 2

_LOW_32: Final = 0xFFFF_FFFF
_LOW_31: Final = 0x7FFF_FFFF
#: Odd, below 2**31, so that its product with 32 bits stays within int64.
_MULTIPLIER: Final = 0x5851_F42D


class Sources(NamedTuple):
    """See the module. used: int64[3], the sources kept, the last number given, the bytes of the arena in use."""

    places: NDArray[np.int64]
    hot: NDArray[np.int64]
    watch: NDArray[np.int64]
    clocks: NDArray[np.int64]
    points: NDArray[np.int32]
    arena: NDArray[np.uint8]
    used: NDArray[np.int64]


@kernel
def _word(address: int, length: int, position: int) -> int:
    """Eight bytes of a name from position, zero padded, without reading outside it."""
    rest = length - position
    if rest >= 8:  # noqa: PLR2004 - bytes of a word
        return int(load_i64(address + position))
    if rest <= 0:
        return 0
    if length >= 8:  # noqa: PLR2004 - bytes of a word
        return int((load_i64(address + length - 8) >> (8 * (8 - rest))) & ((1 << (8 * rest)) - 1))
    word = 0
    for i in range(rest):
        word |= load_u8(address + position + i) << (8 * i)
    return word


@kernel
def hash_of(address: int, length: int) -> int:
    """31 bits of hash of a name, for probing only."""
    state = length
    for position in range(0, length, 8):
        word = _word(address, length, position)
        product = (state ^ (word & _LOW_32)) * _MULTIPLIER
        product = ((product ^ (product >> 31)) & _LOW_32 ^ ((word >> 32) & _LOW_32)) * _MULTIPLIER
        state = (product ^ (product >> 31)) & _LOW_32
    return state & _LOW_31


@kernel
def slot_in(entry: int) -> int:
    """The slot of an entry of places, -1 for an empty one."""
    return (entry & _LOW_32) - 1


@kernel
def find(
    places: NDArray[np.int64], hot: NDArray[np.int64], arena: NDArray[np.uint8], address: int, length: int, digest: int
) -> int:
    """Slot of the name, -1 where it is not kept."""
    mask = places.size - 1
    place = digest & mask
    while places[place] != 0:
        entry = places[place]
        if entry >> 32 == digest:
            slot = slot_in(entry)
            if (
                hot[slot, NAME] & _LENGTH_MASK == length
                and hot[slot, WORDS] == _word(address, length, 0)
                and hot[slot, WORDS + 1] == _word(address, length, 8)
                and hot[slot, WORDS + 2] == _word(address, length, 16)
            ):
                start = hot[slot, NAME] >> LENGTH_BITS
                same = True
                for i in range(_INLINE_BYTES, length):
                    if arena[start + i] != load_u8(address + i):
                        same = False
                        break
                if same:
                    return int(slot)
        place = (place + 1) & mask
    return -1


@kernel
def _enter(places: NDArray[np.int64], slot: int, digest: int) -> None:
    mask = places.size - 1
    place = digest & mask
    while places[place] != 0:
        place = (place + 1) & mask
    places[place] = digest << 32 | (slot + 1)


@kernel
def add(sources: Sources, arena_address: int, address: int, length: int, digest: int) -> int:
    """Slot of a new name, with the next number; the caller has made sure of room."""
    hot, used = sources.hot, sources.used
    slot = used[COUNT]
    start = used[ARENA_USED]
    used[LAST_NUMBER] += 1
    hot[slot, NUMBER] = used[LAST_NUMBER]
    hot[slot, NAME] = start << LENGTH_BITS | length
    hot[slot, LAST_SEQUENCE] = 0
    hot[slot, STATE] = 0
    hot[slot, HASH] = digest
    for i in range(HOT_COLUMNS - WORDS):
        hot[slot, WORDS + i] = _word(address, length, 8 * i)
    copy(arena_address + start, address, length)
    _enter(sources.places, slot, digest)
    used[COUNT] = slot + 1
    used[ARENA_USED] = start + length
    return int(slot)


@kernel
def _reindex(sources: Sources) -> None:
    for slot in range(sources.used[COUNT]):
        _enter(sources.places, slot, sources.hot[slot, HASH])


@kernel
def _read_names(sources: Sources, arena_address: int, lengths: NDArray[np.int64]) -> None:
    """Fill name, hash and words of the first slots from their lengths and the arena."""
    start = 0
    for slot in range(lengths.size):
        address = int(arena_address + start)
        length = int(lengths[slot])
        sources.hot[slot, NAME] = start << LENGTH_BITS | length
        sources.hot[slot, HASH] = hash_of(address, length)
        for i in range(HOT_COLUMNS - WORDS):
            sources.hot[slot, WORDS + i] = _word(address, length, 8 * i)
        start += length


def with_names(slots: int, names_bytes: int) -> Sources:
    """No names, and room for so many, which have so many bytes in all, and for one more; nobody watches them."""
    return _with_room(slots + 1, names_bytes + MAX_SOURCE_BYTES, watched=False)


def _with_room(slots: int, arena_bytes: int, *, watched: bool) -> Sources:
    capacity = max(_SLOTS_MIN, 1 << (slots - 1).bit_length())
    return Sources(
        places=np.zeros(2 * capacity, np.int64),
        hot=lined(capacity, HOT_COLUMNS),
        watch=np.zeros((capacity if watched else 0, WATCH_COLUMNS), np.int64),
        clocks=lined(capacity if watched else 0, CLOCK_COLUMNS),
        points=np.zeros((capacity if watched else 0, POINTS_MAX, POINT_COLUMNS), np.int32),
        arena=np.zeros(max(arena_bytes, _ARENA_BYTES_A_SLOT * capacity), np.uint8),
        used=np.zeros(3, np.int64),
    )


def no_sources() -> Sources:
    """A partition's table before its first event."""
    return _with_room(_SLOTS_MIN, 0, watched=True)


def no_names() -> Sources:
    """A table of names, of which nothing else is remembered."""
    return _with_room(_SLOTS_MIN, 0, watched=False)


@kernel
def has_room(sources: Sources) -> bool:
    """Whether any further name fits."""
    used = sources.used
    return bool(used[COUNT] < sources.hot.shape[0] and used[ARENA_USED] + MAX_SOURCE_BYTES <= sources.arena.size)


def grown(sources: Sources) -> Sources:
    """The same sources with room for at least one more."""
    count, names = int(sources.used[COUNT]), int(sources.used[ARENA_USED])
    larger = _with_room(count + 1, 2 * names + MAX_SOURCE_BYTES, watched=sources.watch.size > 0)
    larger.hot[:count] = sources.hot[:count]
    if sources.watch.size:
        larger.watch[:count] = sources.watch[:count]
        larger.clocks[:count] = sources.clocks[:count]
        larger.points[:count] = sources.points[:count]
    larger.arena[:names] = sources.arena[:names]
    larger.used[:] = sources.used
    _reindex(larger)
    return larger


def least_needed(sources: Sources, sources_max: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which slots go and which stay when room is made: (the former in the order they go, the latter in slot order)."""
    count = int(sources.used[COUNT])
    keep = sources_max - max(1, sources_max // _EVICTED_FRACTION)
    alerted = sources.hot[:count, STATE] & ALERTED != 0
    order = np.lexsort((sources.hot[:count, LAST_SEQUENCE], alerted))
    return order[: count - keep], np.sort(order[count - keep :])


def only(sources: Sources, slots: NDArray[np.int64]) -> Sources:
    """The sources of those slots, which must ascend; their numbers stay, their slots are closed up."""
    arena_bytes = int(sources.used[ARENA_USED]) + MAX_SOURCE_BYTES
    smaller = _with_room(len(slots) + 1, arena_bytes, watched=sources.watch.size > 0)
    return _filled(smaller, sources, slots)


def name_of(sources: Sources, slot: int) -> bytes:
    """The name's bytes."""
    start, length = divmod(int(sources.hot[slot, NAME]), 1 << LENGTH_BITS)
    return sources.arena[start : start + length].tobytes()


def lengths_of(sources: Sources) -> NDArray[np.int64]:
    """Length of each name, in order of number."""
    return sources.hot[: int(sources.used[COUNT]), NAME] & _LENGTH_MASK


class Watched(NamedTuple):
    """What a table remembers of its sources beside their names, in slot order."""

    watch: NDArray[np.int64]
    clocks: NDArray[np.int64]
    points: NDArray[np.int32]


def rebuilt(
    hot: NDArray[np.int64],
    watched: Watched | None,
    lengths: NDArray[np.int64],
    names: NDArray[np.uint8],
    last_number: int,
) -> Sources:
    """A table from number, last sequence and state of each source (columns of hot), what it remembers, and its name.

    None makes a table of names only.
    """
    sources = _with_room(len(lengths) + 1, len(names) + MAX_SOURCE_BYTES, watched=watched is not None)
    sources.hot[: len(lengths)] = hot
    if watched is not None:
        sources.watch[: len(lengths)] = watched.watch
        sources.clocks[: len(lengths)] = watched.clocks
        sources.points[: len(lengths)] = watched.points
    sources.arena[: len(names)] = names
    sources.used[:] = len(lengths), last_number, len(names)
    _read_names(sources, address_of(sources.arena), lengths)
    _reindex(sources)
    return sources


def _filled(target: Sources, origin: Sources, slots: NDArray[np.int64]) -> Sources:
    lengths = origin.hot[slots, NAME] & _LENGTH_MASK
    old_starts = origin.hot[slots, NAME] >> LENGTH_BITS
    starts = np.cumsum(lengths) - lengths
    used = int(lengths.sum())
    # byte i of the new arena comes from byte i + (start of its name in the old one - its start in the new one)
    target.arena[:used] = origin.arena[np.arange(used) + np.repeat(old_starts - starts, lengths)]
    target.hot[: len(slots)] = origin.hot[slots]
    target.hot[: len(slots), NAME] = starts << LENGTH_BITS | lengths
    if origin.watch.size:
        target.watch[: len(slots)] = origin.watch[slots]
        target.clocks[: len(slots)] = origin.clocks[slots]
        target.points[: len(slots)] = origin.points[slots]
    target.used[:] = len(slots), origin.used[LAST_NUMBER], used
    _reindex(target)
    return target
