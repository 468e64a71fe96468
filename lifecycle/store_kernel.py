"""The store's work on each row, compiled: copy it into the columns of the chunk, name by name and text by text.

`gather` returns early, at a row it has not touched, where Python must act first (`Stop`), and is called again from
there, as in `judge_kernel`. `summarise` makes a chunk's statistics from its columns, when it ends or is asked for.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from lifecycle.chunks import HASH_BYTES, ROWS, TEXT_BYTES
from lifecycle.exact_sum import add
from schemas.canonical import ValueState
from schemas.columns import Fault
from schemas.memory import copy, kernel, load_i64, load_u8
from streams.judge_kernel import Flag
from streams.sources import hash_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lifecycle.packing import Texts
    from schemas.columns import Entries, Events
    from streams.judge_kernel import Verdicts


class Stop(enum.IntEnum):
    """Why `gather` came back."""

    DONE = 0
    #: The chunk ends before the row.
    BEFORE = 1
    #: The chunk ended with the row before.
    AFTER = 2
    #: A text does not fit the arrays: grow them.
    GROW = 3
    #: The row's sequence does not follow the last one.
    OUT_OF_ORDER = 4


class Number(enum.IntEnum):
    """Columns of a chunk's numbers while it fills."""

    ROWS = 0
    #: The running maximum of authority_ms.
    ORDER_MS = 1
    LAST_SEQUENCE = 2
    SOURCES = 3
    KINDS = 4
    #: Of values that are there, keys and headers of the rows, as they were sent.
    SENT_BYTES = 5


class Fixed(NamedTuple):
    """Columns of ROWS rows; see `chunks.Rows`."""

    sequence: NDArray[np.int64]
    index: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.index, which nobody asks rows for
    input_offset: NDArray[np.int64]
    authority_ms: NDArray[np.int64]
    local_us: NDArray[np.int64]
    value: NDArray[np.float64]
    has_value: NDArray[np.uint8]
    severity: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    fault: NDArray[np.uint8]
    source: NDArray[np.int32]
    kind: NDArray[np.int32]
    chain_hash: NDArray[np.uint8]
    hlc: NDArray[np.int64]
    has_hlc: NDArray[np.uint8]
    cause: NDArray[np.uint8]
    offset_us: NDArray[np.int64]
    bound_us: NDArray[np.int64]


class Names(NamedTuple):
    """Distinct names in order of appearance: offsets int32[ROWS + 1], content, and a probing table of codes.

    places: int64[a power of two above ROWS], bits 16-46 hash, bits 0-15 code + 1; 0 for empty.
    """

    offsets: NDArray[np.int32]
    content: NDArray[np.uint8]
    places: NDArray[np.int64]


class Groups(NamedTuple):
    """Lines of `chunks.Stats` in order of appearance, their table, and the line of each key."""

    keys: NDArray[np.int64]  # [n, 4]: source, kind, local_minute, authority_minute
    count: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.count
    values: NDArray[np.int64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    sum: NDArray[np.float64]  # [n, 3]
    exact: NDArray[np.uint8]
    places: NDArray[np.int32]  # a power of two above ROWS; line + 1, 0 for empty


MS_PER_HOUR: Final = 3_600_000
MS_PER_MINUTE: Final = 60_000
US_PER_MINUTE: Final = 60_000_000

_DATA: Final = 0
_NO_FAULT: Final = int(Fault.NONE)
_PRESENT: Final = int(ValueState.PRESENT)
_DONE, _BEFORE, _AFTER, _GROW, _OUT_OF_ORDER = (int(stop) for stop in Stop)
_ROWS, _ORDER_MS, _LAST_SEQUENCE, _SOURCES, _KINDS, _SENT_BYTES = (int(number) for number in Number)
_UNCOUNTED: Final = int(Flag.DUPLICATE | Flag.CONFLICT)
_WARNED: Final = int(Flag.WARNED)
_CODE_BITS: Final = 16
_CODE_MASK: Final = (1 << _CODE_BITS) - 1


@kernel
def same(a: int, b: int, length: int) -> bool:
    """Whether bytes at two addresses are equal."""
    if length >= 8:  # noqa: PLR2004 - bytes of a word
        for at in range(0, length - 8, 8):
            if load_i64(a + at) != load_i64(b + at):
                return False
        return bool(load_i64(a + length - 8) == load_i64(b + length - 8))
    different = 0
    for at in range(length):
        different |= load_u8(a + at) ^ load_u8(b + at)
    return different == 0


@kernel
def code_of(names: Names, content: int, known: int, address: int, length: int) -> int:
    """The code of a name; it is entered as `known`, the count so far, where it is new. There is room for it.

    content: the address of the names' content.
    """
    places, offsets = names.places, names.offsets
    digest = hash_of(address, length)
    tag = digest << _CODE_BITS
    mask = places.size - 1
    place = digest & mask
    while places[place] != 0:
        entry = places[place]
        if entry & ~_CODE_MASK == tag:
            code = (entry & _CODE_MASK) - 1
            start = int(offsets[code])
            if offsets[code + 1] - start == length and same(content + start, address, length):
                return int(code)
        place = (place + 1) & mask
    places[place] = tag | (known + 1)
    start = int(offsets[known])
    copy(content + start, address, length)
    offsets[known + 1] = start + length
    return known


@kernel
def gather(
    start: int,
    stop: int,
    entries: Entries,
    events: Events,
    verdicts: Verdicts,
    fixed: Fixed,
    sources: Names,
    kinds: Names,
    event_ids: Texts,
    payloads: Texts,
    memo: NDArray[np.int64],
    addresses: NDArray[np.int64],
    numbers: NDArray[np.int64],
) -> tuple[int, int]:
    """Copy the DATA rows from start up to stop; returns (row, Stop).

    memo: int64[a power of two], zeroed when the chunk begins: the judge's number of a source, which is 1 at least, and
    its code. addresses: of the content of sources, kinds, event_ids, payloads, and of entries.chain_hash and
    fixed.chain_hash.
    """
    last_kind = 0
    for row in range(start, stop):
        if entries.kind[row] != _DATA:
            continue
        sequence = entries.sequence[row]
        if sequence != numbers[_LAST_SEQUENCE] + 1:
            return row, _OUT_OF_ORDER
        at = numbers[_ROWS]
        order_ms = max(numbers[_ORDER_MS], entries.authority_ms[row])
        if at > 0 and order_ms // MS_PER_HOUR != numbers[_ORDER_MS] // MS_PER_HOUR:
            return row, _BEFORE
        fault = verdicts.fault[row]
        id_start, payload_start = event_ids.offsets[at], payloads.offsets[at]
        id_length, payload_length = 0, 0
        if fault == _NO_FAULT:
            id_length, payload_length = events.event_id_length[row], events.payload_length[row]
        texts = id_start + payload_start + id_length + payload_length
        sent = numbers[_SENT_BYTES] + max(entries.key_length[row], 0) + entries.headers_length[row]
        if entries.value_state[row] == _PRESENT:
            sent += entries.value_length[row]
        if at > 0 and max(texts, sent) > TEXT_BYTES:
            return row, _BEFORE
        if fault == _NO_FAULT:
            source_length, kind_length = events.source_length[row], events.kind_length[row]
            if (
                id_start + id_length > event_ids.content.size
                or payload_start + payload_length > payloads.content.size
                or sources.offsets[numbers[_SOURCES]] + source_length > sources.content.size
                or kinds.offsets[numbers[_KINDS]] + kind_length > kinds.content.size
            ):
                return row, _GROW
            number = verdicts.source[row]
            known = memo[number & (memo.size - 1)]
            if known >> _CODE_BITS == number:
                source = known & _CODE_MASK
            else:
                source = code_of(sources, addresses[0], numbers[_SOURCES], events.source_address[row], source_length)
                memo[number & (memo.size - 1)] = number << _CODE_BITS | source
            kind_start = kinds.offsets[last_kind]
            if (
                numbers[_KINDS] == 0
                or kinds.offsets[last_kind + 1] - kind_start != kind_length
                or not same(addresses[1] + kind_start, events.kind_address[row], kind_length)
            ):
                last_kind = code_of(kinds, addresses[1], numbers[_KINDS], events.kind_address[row], kind_length)
            kind = last_kind
            numbers[_SOURCES] = max(numbers[_SOURCES], source + 1)
            numbers[_KINDS] = max(numbers[_KINDS], kind + 1)
            copy(addresses[2] + id_start, events.event_id_address[row], id_length)
            copy(addresses[3] + payload_start, events.payload_address[row], payload_length)
            fixed.local_us[at] = events.local_us[row]
            fixed.value[at] = events.value[row]
            fixed.has_value[at] = events.has_value[row]
            fixed.source[at] = source
            fixed.kind[at] = kind
            fixed.has_hlc[at] = events.has_hlc[row]
            fixed.hlc[at] = events.hlc[row] if events.has_hlc[row] != 0 else 0
        else:
            fixed.local_us[at] = 0
            fixed.value[at] = math.nan
            fixed.has_value[at] = 0
            fixed.source[at] = -1
            fixed.kind[at] = -1
            fixed.has_hlc[at] = 0
            fixed.hlc[at] = 0
        event_ids.offsets[at + 1] = id_start + id_length
        payloads.offsets[at + 1] = payload_start + payload_length
        fixed.sequence[at] = sequence
        fixed.index[at] = entries.index[row]
        fixed.input_offset[at] = entries.input_offset[row]
        fixed.authority_ms[at] = entries.authority_ms[row]
        fixed.severity[at] = verdicts.severity[row]
        fixed.flags[at] = verdicts.flags[row]
        fixed.fault[at] = fault
        fixed.cause[at] = verdicts.cause[row]
        fixed.offset_us[at] = verdicts.offset_us[row]
        fixed.bound_us[at] = verdicts.bound_us[row]
        copy(addresses[5] + HASH_BYTES * at, addresses[4] + HASH_BYTES * row, HASH_BYTES)
        numbers[_LAST_SEQUENCE] = sequence
        numbers[_ORDER_MS] = order_ms
        numbers[_ROWS] = at + 1
        numbers[_SENT_BYTES] = sent
        if sequence % ROWS == 0:
            return row + 1, _AFTER
    return stop, _DONE


@kernel
def _line_of(groups: Groups, lines: int, source: int, kind: int, local_minute: int, authority_minute: int) -> int:
    """The line of a key, which is entered as `lines`, the count so far, where it is new."""
    keys, places = groups.keys, groups.places
    mask = places.size - 1
    # codes are below ROWS, minutes cut below 2^31: the sum stays inside int64
    digest = source * 0x9E3779B1 + kind * 0x85EBCA77
    digest += (local_minute & 0x7FFFFFFF) * 0x27D4EB2F + (authority_minute & 0x7FFFFFFF) * 0x165667B1
    place = (digest ^ (digest >> 17)) & mask
    while places[place] != 0:
        line = places[place] - 1
        if (
            keys[line, 0] == source
            and keys[line, 1] == kind
            and keys[line, 2] == local_minute
            and keys[line, 3] == authority_minute
        ):
            return int(line)
        place = (place + 1) & mask
    places[place] = lines + 1
    keys[lines, 0] = source
    keys[lines, 1] = kind
    keys[lines, 2] = local_minute
    keys[lines, 3] = authority_minute
    return lines


@kernel
def summarise(
    source: NDArray[np.int32],
    kind: NDArray[np.int32],
    local_us: NDArray[np.int64],
    authority_ms: NDArray[np.int64],
    value: NDArray[np.float64],
    has_value: NDArray[np.uint8],
    flags: NDArray[np.uint8],
    fault: NDArray[np.uint8],
    groups: Groups,
) -> tuple[int, int, int]:
    """Fill groups, zeroed, from the counted rows; returns (lines, counted rows, warned rows)."""
    lines = counted = warned = 0
    for row in range(fault.size):
        if flags[row] & _WARNED != 0:
            warned += 1
        if fault[row] != _NO_FAULT or flags[row] & _UNCOUNTED != 0:
            continue
        counted += 1
        local_minute, authority_minute = local_us[row] // US_PER_MINUTE, authority_ms[row] // MS_PER_MINUTE
        line = _line_of(groups, lines, int(source[row]), int(kind[row]), int(local_minute), int(authority_minute))
        if line == lines:
            lines += 1
            groups.minimum[line] = math.nan
            groups.maximum[line] = math.nan
            groups.exact[line] = 1
        groups.count[line] += 1
        if has_value[row] == 0 or not math.isfinite(value[row]):
            continue
        number = value[row] + 0.0
        if groups.values[line] == 0:
            groups.minimum[line] = number
            groups.maximum[line] = number
        else:
            groups.minimum[line] = min(groups.minimum[line], number)
            groups.maximum[line] = max(groups.maximum[line], number)
        groups.values[line] += 1
        if groups.exact[line] != 0 and not add(groups.sum, line, number):
            groups.exact[line] = 0
            groups.sum[line, 0] = 0.0
            groups.sum[line, 1] = 0.0
            groups.sum[line, 2] = 0.0
    return lines, counted, warned
