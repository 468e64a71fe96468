"""The bytes of chunks: sections of columns, headers and applied records, each with a checksum.

Layouts; numbers are little-endian:

    section    "DLC1", column u8, rows u32, length u32 of the body, body, checksum u32
    header     "DLH2", length u32 of the body, body, checksum u32
    applied    "DLA5", index, sequence, chunks, order_ms i64, checksum u32

    checksum   CRC-32 of the key (partition i32, first_sequence i64, column u8) and of all bytes before it

    body of a section: ints or texts (see `packing`) by its column, doubles as ints of their bits, chain hashes as they
    are; READINGS: the columns of Readings in their order. Body of a header: the numbers of Header as i64 in their
    order, how many sources, kinds and lines of stats as u32, texts of the sources and of the kinds, the columns of
    Stats in their order, sum as three; the bits of maximum and of the first of sum XOR those of minimum.

GUARANTEE decoding gives what was encoded, to the bit, or raises ChunkDamagedError; nothing is allocated that ROWS, the
bytes at hand and what a reader takes for texts do not bound. A section that stands under another key, a truncated and a
longer one are damaged.
HAZARD the magics are all that tells a store of an earlier layout. Another layout, other columns or another end of
chunks need another one of "applied", which is what each opening reads: the store is then thrown away there and filled
anew, not found damaged by a question. They need another VERSION of `store_dump`, too.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lifecycle.chunks import (
    HASH_BYTES,
    ROW_COLUMNS,
    ROWS,
    Applied,
    ChunkBytes,
    ChunkDamagedError,
    Column,
    Header,
    Read,
    Readings,
    Rows,
    Stats,
)
from lifecycle.packing import DamagedError, Reader, Texts, pack_ints, pack_texts, text_bytes, texts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

#: What a reader takes for texts at most: a chunk of one row may pass TEXT_BYTES by it, and offsets are int32.
_TEXT_BYTES_MAX: Final = 2**31 - 1

_DTYPES: Final[dict[Column, Any]] = {
    Column.VALUE: np.float64,
    **dict.fromkeys(
        (Column.HAS_VALUE, Column.SEVERITY, Column.FLAGS, Column.FAULT, Column.HAS_HLC, Column.CAUSE), np.uint8
    ),
    **dict.fromkeys((Column.SOURCE, Column.KIND), np.int32),
}
_KEY: Final = struct.Struct("<iqB")
_SECTION: Final = struct.Struct("<4sBII")
_HEADER: Final = struct.Struct("<4sI")
_NUMBERS: Final = struct.Struct("<16q3I")
_NUMBER_COUNT: Final = Header._fields.index("sources")
_ROW_COUNT: Final = Header._fields.index("rows")
_APPLIED: Final = struct.Struct("<4s4q")
_CHECKSUM: Final = struct.Struct("<I")
_SECTION_MAGIC: Final = b"DLC1"
_HEADER_MAGIC: Final = b"DLH2"
_APPLIED_MAGIC: Final = b"DLA5"
#: In place of a column, in the checksums of a header and of an applied record.
_OF_HEADER: Final = 0
_OF_APPLIED: Final = 255


def encode_column(partition: int, first_sequence: int, column: Column, values: NDArray[Any] | Texts) -> bytes:
    """The section of one column of Rows."""
    rows = len(values.offsets) - 1 if isinstance(values, Texts) else len(values)
    return _section(partition, first_sequence, column, rows, _packed(values))


def encode_rows(partition: int, rows: Rows) -> dict[Column, bytes]:
    """All sections of a chunk but READINGS; there is at least one row."""
    first_sequence = int(rows.sequence[0])
    columns: tuple[Any, ...] = rows
    return {
        column: encode_column(partition, first_sequence, column, values)
        for column, values in zip(ROW_COLUMNS, columns, strict=True)
    }


def encode_readings(partition: int, first_sequence: int, readings: Readings) -> bytes:
    """The section READINGS."""
    body = b"".join(_packed(values) for values in readings)
    return _section(partition, first_sequence, Column.READINGS, readings.index.size, body)


def decode_column(
    partition: int, first_sequence: int, column: Column, rows: int, section: bytes
) -> NDArray[Any] | Texts:
    """A column of so many rows, of any column but READINGS. Raises ChunkDamagedError."""
    try:
        reader = _opened(partition, first_sequence, column, rows, section)
        values = _unpacked(reader, column, rows)
        reader.end()
    except DamagedError as error:
        raise ChunkDamagedError(partition, first_sequence, column.name, str(error)) from error
    return values


def decode_rows(partition: int, first_sequence: int, rows: int, sections: Mapping[Column, bytes]) -> Rows:
    """All columns of a chunk. Raises ChunkDamagedError, also for a section that is not there."""
    columns: list[Any] = []
    for column in ROW_COLUMNS:
        if column not in sections:
            raise ChunkDamagedError(partition, first_sequence, column.name, "it is not there")
        columns.append(decode_column(partition, first_sequence, column, rows, sections[column]))
    return Rows(*columns)


def decode_readings(partition: int, first_sequence: int, readings: int, section: bytes) -> Readings:
    """The section READINGS. Raises ChunkDamagedError."""
    try:
        if readings * HASH_BYTES > len(section):
            raise DamagedError(f"{readings} of them in {len(section)} bytes")  # noqa: TRY301 - one way out
        reader = _opened(partition, first_sequence, Column.READINGS, readings, section)
        index, sequence, authority_ms, asserted_us, reading = (reader.ints(readings) for _ in range(5))
        source = reader.texts(readings, _TEXT_BYTES_MAX)
        chain_hash = np.frombuffer(reader.raw(HASH_BYTES * readings), np.uint8).reshape(readings, HASH_BYTES)
        reader.end()
    except DamagedError as error:
        raise ChunkDamagedError(partition, first_sequence, Column.READINGS.name, str(error)) from error
    return Readings(index, sequence, authority_ms, asserted_us, reading.astype(np.uint8), source, chain_hash)


def check_section(partition: int, first_sequence: int, column: Column, rows: int, section: bytes) -> None:
    """That bytes are the section of that column, without decoding it; rows: as in read_section.

    Raises ChunkDamagedError.
    """
    try:
        _opened(partition, first_sequence, column, rows, section)
    except DamagedError as error:
        raise ChunkDamagedError(partition, first_sequence, column.name, str(error)) from error


def read_section(partition: int, first_sequence: int, column: Column, rows: int, section: bytes) -> Read:
    """Any column, decoded; rows: of READINGS, how many they are. Raises ChunkDamagedError."""
    if column is Column.READINGS:
        return Read(decode_readings(partition, first_sequence, rows, section), len(section))
    return Read(decode_column(partition, first_sequence, column, rows, section), len(section))


def encode_header(header: Header) -> bytes:
    """Its bytes."""
    return encode_header_of(header, texts_of(list(header.sources)), texts_of(list(header.kinds)))


def encode_header_of(header: Header, sources: Texts, kinds: Texts) -> bytes:
    """The bytes of a header with these names, whatever its own."""
    stats = header.stats
    body = b"".join(
        [
            _NUMBERS.pack(*header[:_NUMBER_COUNT], len(sources.offsets) - 1, len(kinds.offsets) - 1, stats.count.size),
            pack_texts(sources),
            pack_texts(kinds),
            *(_packed(column) for column in _flat(stats)),
        ]
    )
    return _sealed(header.partition, header.first_sequence, _OF_HEADER, _HEADER.pack(_HEADER_MAGIC, len(body)), body)


def decode_header(partition: int, first_sequence: int, content: bytes) -> Header:
    """The header under that key. Raises ChunkDamagedError."""
    try:
        body = _checked(partition, first_sequence, _OF_HEADER, content)
        magic, length = _HEADER.unpack(body[: _HEADER.size])
        if magic != _HEADER_MAGIC or length != len(body) - _HEADER.size:
            raise DamagedError(f"it begins with {magic!r} and a length of {length}")  # noqa: TRY301 - one way out
        reader = Reader(body[_HEADER.size :])
        *numbers, sources, kinds, groups = _NUMBERS.unpack(reader.raw(_NUMBERS.size))
        if max(sources, kinds, groups, numbers[_ROW_COUNT]) > ROWS or numbers[:2] != [partition, first_sequence]:
            raise DamagedError("it says what no header says")  # noqa: TRY301 - as above
        names = [reader.texts(count, _TEXT_BYTES_MAX).strings() for count in (sources, kinds)]
        ints = [reader.ints(groups) for _ in range(12)]
        reader.end()
    except DamagedError as error:
        raise ChunkDamagedError(partition, first_sequence, "the header", str(error)) from error
    fields: list[Any] = [*numbers, *names, _stats_in(ints)]
    return Header(*fields)


def first_index_in(partition: int, first_sequence: int, content: bytes) -> int:
    """Of the header under that key: where its entries begin. Raises ChunkDamagedError."""
    try:
        body = _checked(partition, first_sequence, _OF_HEADER, content)
    except DamagedError as error:
        raise ChunkDamagedError(partition, first_sequence, "the header", str(error)) from error
    numbers: tuple[int, ...] = _NUMBERS.unpack_from(body, _HEADER.size)
    return numbers[Header._fields.index("first_index")]


def text_bytes_in(partition: int, chunk: ChunkBytes) -> int:
    """What the event ids and payloads of a chunk take in memory. Raises ChunkDamagedError."""
    try:
        return sum(text_bytes(chunk.sections[column], _SECTION.size) for column in (Column.EVENT_ID, Column.PAYLOAD))
    except DamagedError as error:
        raise ChunkDamagedError(partition, chunk.first_sequence, "a column of texts", str(error)) from error


def encode_applied(partition: int, applied: Applied) -> bytes:
    """Its bytes."""
    return _sealed(partition, 0, _OF_APPLIED, _APPLIED.pack(_APPLIED_MAGIC, *applied))


def decode_applied(partition: int, content: bytes) -> Applied:
    """Of that partition. Raises ChunkDamagedError."""
    try:
        body = _checked(partition, 0, _OF_APPLIED, content)
    except DamagedError as error:
        raise ChunkDamagedError(partition, 0, "the applied record", str(error)) from error
    if len(body) != _APPLIED.size:
        raise ChunkDamagedError(partition, 0, "the applied record", f"it has {len(body)} bytes")
    magic, *numbers = _APPLIED.unpack(body)
    if magic != _APPLIED_MAGIC:
        raise ChunkDamagedError(partition, 0, "the applied record", f"it begins with {magic!r}")
    return Applied(*numbers)


def _packed(values: NDArray[Any] | Texts) -> bytes:
    if isinstance(values, Texts):
        return pack_texts(values)
    if values.ndim > 1:
        return values.tobytes()  # hashes, which nothing makes smaller
    if values.dtype == np.float64:
        return pack_ints(np.ascontiguousarray(values).view(np.int64))
    return pack_ints(values.astype(np.int64, order="C", copy=False))


def _unpacked(reader: Reader, column: Column, rows: int) -> NDArray[Any] | Texts:
    if column in (Column.EVENT_ID, Column.PAYLOAD):
        return reader.texts(rows, _TEXT_BYTES_MAX)
    if column is Column.CHAIN_HASH:
        return np.frombuffer(reader.raw(HASH_BYTES * rows), np.uint8).reshape(rows, HASH_BYTES)
    if column is Column.VALUE:
        return reader.doubles(rows)
    return reader.ints(rows).astype(_DTYPES.get(column, np.int64), copy=False)


def _section(partition: int, first_sequence: int, column: Column, rows: int, body: bytes) -> bytes:
    return _sealed(partition, first_sequence, column, _SECTION.pack(_SECTION_MAGIC, column, rows, len(body)), body)


def _opened(partition: int, first_sequence: int, column: Column, rows: int, section: bytes) -> Reader:
    """The body of a section that is whole and what it should be."""
    content = _checked(partition, first_sequence, column, section)
    if len(content) < _SECTION.size:
        raise DamagedError(f"{len(section)} bytes")
    magic, number, stored, length = _SECTION.unpack(content[: _SECTION.size])
    if (magic, number, stored, length) != (_SECTION_MAGIC, column, rows, len(content) - _SECTION.size):
        raise DamagedError(f"it is column {number} of {stored} rows, not {column} of {rows}")
    return Reader(content[_SECTION.size :])


def _sealed(partition: int, first_sequence: int, part: int, *pieces: bytes) -> bytes:
    """The pieces and their checksum."""
    return b"".join([*pieces, _checksum(partition, first_sequence, part, *pieces)])


def _checksum(partition: int, first_sequence: int, part: int, *pieces: bytes | memoryview) -> bytes:
    checksum = zlib.crc32(_KEY.pack(partition, first_sequence, part))
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
    return _CHECKSUM.pack(checksum)


def _checked(partition: int, first_sequence: int, part: int, stored: bytes) -> memoryview:
    """Without the checksum, which agrees."""
    content = memoryview(stored)[: -_CHECKSUM.size]
    if stored[len(content) :] != _checksum(partition, first_sequence, part, content):
        raise DamagedError("its checksum does not agree")
    return content


def _flat(stats: Stats) -> list[NDArray[Any]]:
    """The columns of stats as they are stored: of a line with one value, maximum and sum are zero bytes."""
    minimum = stats.minimum.view(np.int64)
    maximum = stats.maximum.view(np.int64) ^ minimum
    first, second, third = (np.ascontiguousarray(part).view(np.int64) for part in stats.sum.T)
    return [*stats[:6], minimum, maximum, first ^ minimum, second, third, stats.exact]


def _stats_in(columns: list[NDArray[np.int64]]) -> Stats:
    """What `_flat` was given."""
    minimum, maximum, first, second, third, exact = columns[6:]
    doubles = [part.view(np.float64) for part in (minimum, maximum ^ minimum, first ^ minimum, second, third)]
    codes = [code.astype(np.int32) for code in columns[:2]]
    total = np.stack(doubles[2:], axis=1)
    fields: list[Any] = [*codes, *columns[2:6], *doubles[:2], total, exact.astype(np.uint8)]
    return Stats(*fields)
