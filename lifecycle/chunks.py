"""Chunks: some thousand consecutive rows of a partition as checksummed columns, and a header that sums them up.

Problem: every event must stay queryable at the rate at which events come, and a query must read little more than it
answers from. So rows are kept by column, each column a section of its own; and the header holds what most queries
ask for, by source, kind and minute, so that they read no rows at all.

A chunk holds consecutive sequences of one partition, at most ROWS, and ends

- at a sequence that ROWS divides,
- before the first row with which the running maximum of authority time passes into another UTC hour,
- before the first row with which event ids and payloads would pass TEXT_BYTES (a chunk of one row may be larger).

So its borders are functions of the entries alone. Entries that are no rows (CONTROL) belong to the chunk that is being
filled; first_index to last_index of a partition's chunks are contiguous like first_sequence to last_sequence.

Layouts; numbers are little-endian:

    section    "DLC1", column u8, rows u32, length u32 of the body, body, checksum u32
    header     "DLH2", length u32 of the body, body, checksum u32
    applied    "DLA4", index, sequence, chunks, order_ms i64, checksum u32

    checksum   CRC-32 of the key (partition i32, first_sequence i64, column u8) and of all bytes before it

    body of a section: ints or texts (see `packing`) by its column, doubles as ints of their bits, chain hashes as they
    are; READINGS: the columns of Readings in their order. Body of a header: the numbers of Header as i64 in their
    order, how many sources, kinds and lines of stats as u32, texts of the sources and of the kinds, the columns of
    Stats in their order, sum as three; the bits of maximum and of the first of sum XOR those of minimum.

GUARANTEE decoding gives what was encoded, to the bit, or raises ChunkDamagedError; nothing is allocated that the
limits of this module do not bound. A section that stands under another key, a truncated and a longer one are damaged.
HAZARD the magics are all that tells a store of an earlier layout. Another layout, other columns or another end of
chunks need another one of "applied", which is what each opening reads: the store is then thrown away there and filled
anew, not found damaged by a question. They need another VERSION of `store_dump`, too.
"""

from __future__ import annotations

import enum
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from lifecycle.packing import DamagedError, Reader, Texts, pack_ints, pack_texts, text_bytes, texts_of
from schemas.errors import DriftledgerError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "HASH_BYTES", "NOTHING", "NO_LOCAL", "ROWS", "ROW_COLUMNS", "TEXT_BYTES", "Applied", "ChunkAwayError",
    "ChunkBytes", "ChunkDamagedError", "Column", "Header", "Line", "Read", "ReadingCode", "Readings", "Rows", "Stats",
    "StoreDamagedError", "Texts", "check_section", "decode_applied", "decode_column", "decode_header",
    "decode_readings", "decode_rows", "encode_applied", "encode_column", "encode_header", "encode_header_of",
    "encode_readings", "encode_rows", "first_index_in", "read_section",
]  # fmt: skip

#: Rows of a full chunk: columns of 64 KiB, so that a query of one source reads little, and a header per 8,192 events.
ROWS: Final = 8192
#: Bytes of event ids and payloads: bounds the memory of rows that are not sealed, and of a query's decoding.
TEXT_BYTES: Final = 16 * 1024 * 1024
#: What a reader takes for texts at most: a chunk of one row may pass TEXT_BYTES by it, and offsets are int32.
_TEXT_BYTES_MAX: Final = 2**31 - 1

HASH_BYTES: Final = 32
#: `local_us_min` and `local_us_max`, and those of corrected time, of a chunk without a readable row.
NO_LOCAL: Final = (0, -1)


class StoreDamagedError(DriftledgerError):
    """What is stored is not what was written: the store is discarded, and rebuilt from the ledger."""


class ChunkDamagedError(StoreDamagedError):
    """Part of a chunk is not what was written. Attributes: partition, first_sequence, part, detail."""

    def __init__(self, partition: int, first_sequence: int, part: str, detail: str) -> None:
        super().__init__(
            f"{part} of the chunk at sequence {partition}:{first_sequence} is damaged: {detail}. The store is not "
            "served; it is rebuilt from the ledger"
        )
        self.partition = partition
        self.first_sequence = first_sequence
        self.part = part
        self.detail = detail


class ChunkAwayError(UnreachableError):
    """A chunk lies elsewhere, as it should: nothing is damaged. Attributes: partition, first_sequence."""

    def __init__(self, partition: int, first_sequence: int) -> None:
        super().__init__(
            f"the chunk at sequence {partition}:{first_sequence} is not in the hot store, which does not miss it. Read "
            "it from its archive"
        )
        self.partition = partition
        self.first_sequence = first_sequence


class Rows(NamedTuple):
    """n DATA rows of a partition, in order; counted are those with fault NONE and neither DUPLICATE nor CONFLICT."""

    sequence: NDArray[np.int64]
    index: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.index, which nobody asks rows for
    input_offset: NDArray[np.int64]
    authority_ms: NDArray[np.int64]
    local_us: NDArray[np.int64]  # 0 where unreadable
    value: NDArray[np.float64]  # NaN where none
    has_value: NDArray[np.uint8]
    severity: NDArray[np.uint8]  # judge_kernel.NO_SEVERITY where not judged
    flags: NDArray[np.uint8]  # judge_kernel.Flag
    fault: NDArray[np.uint8]  # schemas.faults.Fault
    source: NDArray[np.int32]  # code: place in the chunk's sources, -1 where unreadable
    kind: NDArray[np.int32]  # code: place in the chunk's kinds, -1 where unreadable
    event_id: Texts
    payload: Texts
    chain_hash: NDArray[np.uint8]  # [n, 32]
    hlc: NDArray[np.int64]
    has_hlc: NDArray[np.uint8]
    cause: NDArray[np.uint8]  # causes.Cause
    offset_us: NDArray[np.int64]  # estimate of the source's clock after the row; 0 where there is none
    bound_us: NDArray[np.int64]  # -1 where there is none


class Readings(NamedTuple):
    """ANCHOR, VERIFY and LOCK entries among the rows: the drift log's readings that are no events.

    See `drift_entries`.
    """

    index: NDArray[np.int64]  # type: ignore[assignment] # as in Rows
    sequence: NDArray[np.int64]  # of the last row before it
    authority_ms: NDArray[np.int64]
    asserted_us: NDArray[np.int64]
    reading: NDArray[np.uint8]  # ReadingCode
    source: Texts
    chain_hash: NDArray[np.uint8]  # [n, 32]


class Read(NamedTuple):
    """A column of a chunk. values: an array, Texts, or of READINGS Readings; nbytes: how many were read for it."""

    values: Any
    nbytes: int


class ReadingCode(enum.IntEnum):
    """What a reading is, by number; the numbers are part of the format."""

    ANCHOR = 1
    VERIFY = 2
    LOCK = 3
    RELEASE = 4


class Stats(NamedTuple):
    """Of counted rows: one line for each (source, kind, local_minute, authority_minute), ascending by them.

    Minutes are floor(local_us / 60e6) and floor(authority_ms / 60e3). values: the finite values among count rows;
    minimum, maximum and sum are of them, -0.0 taken as 0.0, minimum NaN where there are none. The three doubles of a
    line of sum add up exactly to the true sum, unless exact is 0: then only the rows can tell it.
    """

    source: NDArray[np.int32]
    kind: NDArray[np.int32]
    local_minute: NDArray[np.int64]
    authority_minute: NDArray[np.int64]
    count: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.count
    values: NDArray[np.int64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    sum: NDArray[np.float64]  # [g, 3]
    exact: NDArray[np.uint8]


class Header(NamedTuple):
    """What a chunk holds.

    order_ms: the running maximum of authority_ms over the partition's rows before the chunk, INT64_MIN before the
    first. local_us_min and local_us_max: over readable rows, NO_LOCAL where there are none; so corrected_us_min and
    corrected_us_max, with authority time in place of that of rows without an estimate. warned: rows with WARNED.
    """

    partition: int
    first_sequence: int
    last_sequence: int
    first_index: int
    last_index: int
    rows: int
    counted: int
    warned: int
    readings: int
    authority_ms_min: int
    authority_ms_max: int
    order_ms: int
    local_us_min: int
    local_us_max: int
    corrected_us_min: int
    corrected_us_max: int
    sources: tuple[bytes, ...]
    kinds: tuple[bytes, ...]
    stats: Stats


class ChunkBytes(NamedTuple):
    """A chunk as it is stored: header, and the section of each column, READINGS only where there are any."""

    first_sequence: int
    header: bytes
    sections: Mapping[Column, bytes]


class Line(NamedTuple):
    """A chunk's place. number: of the partition's chunks since sequence 1; held: 1, or 0 for away."""

    number: int
    first_sequence: int
    last_sequence: int
    first_index: int
    last_index: int
    rows: int
    held: int


class Applied(NamedTuple):
    """Up to where a partition's entries are in chunks.

    index: last_index of the last chunk, sequence: its last_sequence; chunks: how many there were since sequence 1;
    order_ms: the running maximum of authority_ms after it.
    """

    index: int  # type: ignore[assignment] # as in Rows
    sequence: int
    chunks: int
    order_ms: int


#: Nothing is in chunks yet.
NOTHING: Final = Applied(0, 0, 0, -(2**63))


class Column(enum.IntEnum):
    """A section of a chunk, by number; the numbers are part of the format and of the keys."""

    SEQUENCE = 1
    INDEX = 2
    INPUT_OFFSET = 3
    AUTHORITY_MS = 4
    LOCAL_US = 5
    VALUE = 6
    HAS_VALUE = 7
    SEVERITY = 8
    FLAGS = 9
    FAULT = 10
    SOURCE = 11
    KIND = 12
    EVENT_ID = 13
    PAYLOAD = 14
    CHAIN_HASH = 15
    HLC = 16
    HAS_HLC = 17
    READINGS = 18
    CAUSE = 19
    OFFSET_US = 20
    BOUND_US = 21


#: The columns of Rows, in their order.
ROW_COLUMNS: Final = tuple(Column[name.upper()] for name in Rows._fields)

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
_APPLIED_MAGIC: Final = b"DLA4"
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
