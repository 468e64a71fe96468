"""The rows of a partition that no chunk holds yet, as bytes: the store's part of a lane's snapshots.

Without them a lane that opens would have to read the ledger from the end of the last chunk, which on a quiet partition
is an hour back, with a judge from before that. A snapshot is worth something only with the chunks before it: the store
is flushed before it is written.

    "DLS" and version, 4 | partition i32 | last_index i64 | rows u32 | readings u32 | sent_bytes i64 |
        CRC-32 u32 of all bytes before it
    applied: length u32, the record of `chunk_codec` up to where chunks go
    header: length u32, as of a chunk that ends here; nothing where there is neither row nor reading
    sections of all columns, each: length u32, section; nothing where there is no row
    section READINGS: length u32, section; nothing where there is none

GUARANTEE load gives the state that was dumped, or raises FoldError.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final, NoReturn

import numpy as np

from lifecycle.chunk_codec import (
    decode_applied,
    decode_header,
    decode_readings,
    decode_rows,
    encode_applied,
    encode_header,
    encode_readings,
    encode_rows,
)
from lifecycle.chunk_facts import Reading, header_of
from lifecycle.chunks import ROW_COLUMNS, ROWS, ChunkDamagedError
from lifecycle.packing import Texts
from lifecycle.store import Filling, StoreState, readings_of, rows_of
from lifecycle.store_kernel import Fixed, Number, code_of
from schemas.memory import address_of
from streams.fold import FoldError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lifecycle.chunks import Readings, Rows
    from lifecycle.store_kernel import Names

#: Name of the fold, on the snapshots topic.
STORE: Final = "store"
#: Of its rules, the chunks' layout and this one.
VERSION: Final = 5

_MAGIC: Final = b"DLS" + bytes([VERSION])
_HEAD: Final = struct.Struct("<4siqIIq")
_CHECKSUM: Final = struct.Struct("<I")
_LENGTH: Final = struct.Struct("<I")


def dump(state: StoreState) -> bytes:
    """The canonical bytes."""
    view, partition = state.filling.view(), state.partition
    rows, readings = rows_of(view), readings_of(view)
    parts = [encode_applied(partition, view.before)]
    if view.rows or view.readings_count:
        sources, kinds = view.names()
        names = sources.strings(), kinds.strings()
        header = header_of(partition, view.before, rows, view.readings_count, state.last_index, *names)
        parts.append(encode_header(header))
        if view.rows:
            sections = encode_rows(partition, rows)
            parts += [sections[column] for column in ROW_COLUMNS]
        if view.readings_count:
            parts.append(encode_readings(partition, header.first_sequence, readings))
    sent_bytes = int(state.filling.numbers[Number.SENT_BYTES])
    head = _HEAD.pack(_MAGIC, partition, state.last_index, view.rows, view.readings_count, sent_bytes)
    return b"".join([head, _CHECKSUM.pack(zlib.crc32(head)), *(_LENGTH.pack(len(part)) + part for part in parts)])


def load(partition: int, data: bytes) -> StoreState:
    """The state that was dumped."""
    try:
        return _load(partition, data)
    except (ChunkDamagedError, struct.error) as error:
        _refuse(partition, str(error))


def _load(partition: int, data: bytes) -> StoreState:
    head = data[: _HEAD.size]
    magic, of, last_index, rows_count, readings_count, sent_bytes = _HEAD.unpack(head)
    if (magic, of) != (_MAGIC, partition) or rows_count > ROWS:
        raise FoldError(f"not a dump of store for partition {partition}: it begins with {head!r}. Drop it")
    (checksum,) = _CHECKSUM.unpack_from(data, _HEAD.size)
    if checksum != zlib.crc32(head):
        _refuse(partition, "the checksum of its head does not agree")
    parts, at = [], _HEAD.size + _CHECKSUM.size
    while at < len(data):
        (length,) = _LENGTH.unpack(data[at : at + _LENGTH.size])
        at += _LENGTH.size
        parts.append(data[at : at + length])
        at += length
    wanted = 1 + bool(rows_count or readings_count) + len(ROW_COLUMNS) * bool(rows_count) + bool(readings_count)
    if at != len(data) or len(parts) != wanted:
        _refuse(partition, f"it has {len(parts)} parts")
    applied = decode_applied(partition, parts[0])
    filling = Filling(applied)
    if rows_count or readings_count:
        first_sequence = applied.sequence + 1
        header = decode_header(partition, first_sequence, parts[1])
        _enter_names(filling, header.sources, header.kinds)
    if rows_count:
        sections = dict(zip(ROW_COLUMNS, parts[2:], strict=False))
        _fill(filling, decode_rows(partition, first_sequence, rows_count, sections))
    filling.numbers[Number.SENT_BYTES] = sent_bytes
    if readings_count:
        filling.readings += _readings(decode_readings(partition, first_sequence, readings_count, parts[-1]))
    return StoreState(partition, applied, last_index, filling, filling.view())


def _enter_names(filling: Filling, sources: tuple[bytes, ...], kinds: tuple[bytes, ...]) -> None:
    filling.sources = _entered(filling.sources, sources)
    filling.kinds = _entered(filling.kinds, kinds)
    filling.numbers[Number.SOURCES], filling.numbers[Number.KINDS] = len(sources), len(kinds)


def _entered(names: Names, texts: tuple[bytes, ...]) -> Names:
    """Names with these as the first codes."""
    memory = np.frombuffer(b"".join(texts) + b"\0", np.uint8)
    names = names._replace(content=_at_least(names.content, memory.size))
    content, at = address_of(names.content), address_of(memory)
    for code, text in enumerate(texts):
        code_of(names, content, code, at, len(text))
        at += len(text)
    return names


def _fill(filling: Filling, rows: Rows) -> None:
    count = rows.sequence.size
    for name in Fixed._fields:
        getattr(filling.fixed, name)[:count] = getattr(rows, name)
    filling.event_ids = _filled(filling.event_ids, rows.event_id)
    filling.payloads = _filled(filling.payloads, rows.payload)
    filling.numbers[Number.ROWS] = count
    filling.numbers[Number.LAST_SEQUENCE] = rows.sequence[-1]
    filling.numbers[Number.ORDER_MS] = max(filling.before.order_ms, int(rows.authority_ms.max()))


def _filled(room: Texts, texts: Texts) -> Texts:
    count, used = len(texts.offsets), int(texts.offsets[-1])
    room = Texts(room.offsets, _at_least(room.content, used))
    room.offsets[:count] = texts.offsets
    room.content[:used] = texts.content[:used]
    return room


def _at_least(content: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return content if content.size >= size else np.empty(2 * size, np.uint8)


def _readings(readings: Readings) -> list[Reading]:
    names, hashes = readings.source.strings(), readings.chain_hash
    numbers = np.stack(readings[:5], axis=1).tolist()
    return [
        Reading(index, sequence, authority_ms, asserted_us, code, names[row], hashes[row].tobytes())
        for row, (index, sequence, authority_ms, asserted_us, code) in enumerate(numbers)
    ]


def _refuse(partition: int, reason: str) -> NoReturn:
    raise FoldError(f"not a dump of store for partition {partition}: {reason}. Drop it and fold from an earlier one")
