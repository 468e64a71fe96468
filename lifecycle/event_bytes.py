"""The bytes of events from their columns, as an archive keeps them.

Problem: an archive must give back each value byte for byte, for the chain rests on that; but to keep the bytes beside
the columns that queries read would double it. What writes events writes each in one way: the shortest varints, no
causes, no exchange as a rule. So a value is made again from its columns, and where that is not what was sent, to the
byte, it is kept as it was sent.

    original     bytes of the values that cannot be made again: unreadable ones, other framings, causes, exchanges

GUARANTEE what `values_of` gives for the columns and originals that `originals_of` chose is what was sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from lifecycle.store_kernel import same
from schemas.codec import single_object_prefix
from schemas.memory import address_of, copy, kernel, store_i64, store_u8
from streams.sequence import put_long

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lifecycle.packing import Texts

_PREFIX: Final = np.frombuffer(single_object_prefix("Event"), np.uint8)
_PREFIX_BYTES: Final = _PREFIX.size
#: Of an event beside its texts: prefix, four lengths, two longs of at most 10 bytes, unions, a double, the empty array.
_OVERHEAD_BYTES: Final = 10 + 4 * 5 + 2 * 10 + 4 + 8 + 1
_DOUBLE_BYTES: Final = 8


class EventColumns(NamedTuple):
    """What events are made of. source, kind: places in sources and kinds; the rest as in `chunks.Rows`."""

    local_us: NDArray[np.int64]
    value: NDArray[np.float64]
    has_value: NDArray[np.uint8]
    hlc: NDArray[np.int64]
    has_hlc: NDArray[np.uint8]
    source: NDArray[np.int32]
    kind: NDArray[np.int32]
    event_id: Texts
    payload: Texts
    sources: Texts
    kinds: Texts


class _Columns(NamedTuple):
    """The same for kernels: texts as offsets and the address of their content, doubles as their bits."""

    local_us: NDArray[np.int64]
    bits: NDArray[np.int64]
    has_value: NDArray[np.uint8]
    hlc: NDArray[np.int64]
    has_hlc: NDArray[np.uint8]
    source: NDArray[np.int32]
    kind: NDArray[np.int32]
    event_ids: NDArray[np.int32]
    payloads: NDArray[np.int32]
    sources: NDArray[np.int32]
    kinds: NDArray[np.int32]
    addresses: NDArray[np.int64]
    prefix: int


_EVENT_ID, _PAYLOAD, _SOURCE, _KIND = range(4)


@kernel
def _put_text(target: int, offsets: NDArray[np.int32], content: int, place: int) -> int:
    length = int(offsets[place + 1] - offsets[place])
    target = put_long(target, length)
    copy(target, content + int(offsets[place]), length)
    return target + length


@kernel
def _put_event(target: int, columns: _Columns, row: int) -> int:
    """An event without causes and exchange; returns the address after it."""
    at = columns.addresses
    copy(target, columns.prefix, _PREFIX_BYTES)
    target = _put_text(target + _PREFIX_BYTES, columns.event_ids, int(at[_EVENT_ID]), row)
    target = _put_text(target, columns.sources, int(at[_SOURCE]), int(columns.source[row]))
    target = put_long(target, columns.local_us[row])
    target = _put_text(target, columns.kinds, int(at[_KIND]), int(columns.kind[row]))
    if columns.has_value[row]:
        store_u8(target, 2)
        store_i64(target + 1, columns.bits[row])
        target += 1 + _DOUBLE_BYTES
    else:
        store_u8(target, 0)
        target += 1
    target = _put_text(target, columns.payloads, int(at[_PAYLOAD]), row)
    if columns.has_hlc[row]:
        store_u8(target, 2)
        target = put_long(target + 1, columns.hlc[row])
    else:
        store_u8(target, 0)
        target += 1
    store_u8(target, 0)  # no causes
    store_u8(target + 1, 0)  # no exchange
    return target + 2


@kernel
def _compare(
    columns: _Columns, addresses: NDArray[np.int64], lengths: NDArray[np.int64], made: int, differs: NDArray[np.bool_]
) -> None:
    """differs: filled where a readable value (source >= 0) of length >= 0 is not what is made of its columns."""
    for row in range(lengths.size):
        if lengths[row] < 0:
            differs[row] = False
        elif columns.source[row] < 0:
            differs[row] = True
        else:
            length = _put_event(made, columns, row) - made
            differs[row] = length != lengths[row] or not same(made, int(addresses[row]), length)


@kernel
def _write(
    columns: _Columns, wanted: NDArray[np.bool_], original: NDArray[np.int32], originals: int, kept: NDArray[np.bool_],
    memory: int, addresses: NDArray[np.int64], lengths: NDArray[np.int64],
) -> None:  # fmt: skip
    """Values that are wanted, one behind the other, from their originals where these are kept."""
    at = memory
    for row in range(wanted.size):
        if not wanted[row]:
            addresses[row] = 0
            continue
        addresses[row] = at
        if kept[row]:
            length = int(original[row + 1] - original[row])
            copy(at, originals + int(original[row]), length)
            at += length
        else:
            at = _put_event(at, columns, row)
        lengths[row] = at - addresses[row]


def originals_of(columns: EventColumns, addresses: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which values are to be kept as they were sent. addresses, lengths: of the values, -1 where one is not there."""
    made = np.empty(_room_for_one(columns), np.uint8)
    differs = np.empty(lengths.size, np.bool_)
    _compare(_for_kernels(columns), addresses, lengths, address_of(made), differs)
    return differs


def values_of(
    columns: EventColumns, wanted: NDArray[np.bool_], original: Texts, kept: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Memory of the values that are wanted, and of each row its address (0 where it is not) and length (there 0).

    kept: the rows whose value is in original, which has an empty text for the others.
    """
    memory = np.empty(_room(columns) + original.content.size, np.uint8)
    addresses, lengths = np.zeros(wanted.size, np.int64), np.zeros(wanted.size, np.int64)
    _write(
        _for_kernels(columns), wanted, original.offsets, address_of(original.content), kept, address_of(memory),
        addresses, lengths,
    )  # fmt: skip
    return memory, addresses, lengths


def _for_kernels(columns: EventColumns) -> _Columns:
    texts = (columns.event_id, columns.payload, columns.sources, columns.kinds)
    return _Columns(
        columns.local_us,
        np.ascontiguousarray(columns.value).view(np.int64),
        columns.has_value,
        columns.hlc,
        columns.has_hlc,
        columns.source,
        columns.kind,
        columns.event_id.offsets,
        columns.payload.offsets,
        columns.sources.offsets,
        columns.kinds.offsets,
        np.array([address_of(text.content) for text in texts], np.int64),
        address_of(_PREFIX),
    )


def _room(columns: EventColumns) -> int:
    """Bytes that all rows take at most."""
    rows = columns.local_us.size
    names = sum(
        int(np.diff(texts.offsets)[codes[codes >= 0]].sum(dtype=np.int64))
        for texts, codes in ((columns.sources, columns.source), (columns.kinds, columns.kind))
    )
    return rows * _OVERHEAD_BYTES + names + columns.event_id.content.size + columns.payload.content.size + 1


def _room_for_one(columns: EventColumns) -> int:
    """Bytes that the longest row takes at most."""
    texts = (columns.event_id, columns.payload, columns.sources, columns.kinds)
    return _OVERHEAD_BYTES + sum(int(np.diff(text.offsets).max(initial=0)) for text in texts)
