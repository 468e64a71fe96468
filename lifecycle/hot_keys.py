"""Where a hot store keeps what: its keys, and the bytes of what is in no chunk, the lines and FLUSHED.

Keys, all numbers big-endian, so that a partition's chunks stand in their order:

    "a" partition                          applied: up to where the partition is in chunks
    "c" partition first_sequence column    a section (4 + 8 + 1 bytes)
    "f" partition                          the line of the first chunk, as it was written
    "h" partition first_sequence           a header
    "l" partition first_sequence           a line: where the chunk is, and whether it is held

The bytes under "a", "c" and "h" are those of `chunk_codec`; all carry checksums of their own, over their keys too. Of
these, numbers are little-endian:

    line       the numbers of Line as i64 in their order, checksum u32: CRC-32, beginning with the partition
    FLUSHED    "DLF1", partition u32 and index i64 of each partition, checksum u32: CRC-32

GUARANTEE a line that is read is the one that was packed for that key, or DamagedError; so are the numbers of FLUSHED.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

from lifecycle.chunks import Line
from lifecycle.packing import DamagedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lifecycle.chunks import Column

#: Name of the file that says how far a store survives a crash.
FLUSHED: Final = "FLUSHED"

_APPLIED, _SECTION, _FIRST, _HEADER, _LINE = b"a", b"c", b"f", b"h", b"l"
#: All keys of a kind: from the first up to the second.
ALL_APPLIED: Final = (_APPLIED, _SECTION)
ALL_HEADERS: Final = (_HEADER, bytes([_HEADER[0] + 1]))
ALL_LINES: Final = (_LINE, bytes([_LINE[0] + 1]))

_PARTITION: Final = struct.Struct(">cI")
_CHUNK: Final = struct.Struct(">cIQ")
_COLUMN: Final = struct.Struct(">cIQB")
_LINE_FIELDS: Final = struct.Struct("<7q")
_FLUSHED_FIELDS: Final = struct.Struct("<Iq")
_FLUSHED_MAGIC: Final = b"DLF1"
_CHECKSUM: Final = struct.Struct("<I")


def applied_key(partition: int) -> bytes:
    """Of the applied record."""
    return _PARTITION.pack(_APPLIED, partition)


def first_key(partition: int) -> bytes:
    """Of the copy of the first line."""
    return _PARTITION.pack(_FIRST, partition)


def header_key(partition: int, first_sequence: int) -> bytes:
    """Of a header."""
    return _CHUNK.pack(_HEADER, partition, first_sequence)


def line_key(partition: int, first_sequence: int) -> bytes:
    """Of a line. Those of a partition are from that of sequence 0 up to that of the next partition's."""
    return _CHUNK.pack(_LINE, partition, first_sequence)


def section_key(partition: int, first_sequence: int, column: Column) -> bytes:
    """Of a section."""
    return _COLUMN.pack(_SECTION, partition, first_sequence, column)


def partition_in(key: bytes) -> int:
    """That of the key of an applied record."""
    partition: int = _PARTITION.unpack(key)[1]
    return partition


def packed_line(partition: int, line: Line) -> bytes:
    """Its bytes."""
    content = _LINE_FIELDS.pack(*line)
    return content + _CHECKSUM.pack(zlib.crc32(content, partition))


def line_in(key: bytes, value: bytes) -> tuple[int, Line]:
    """Partition and line, by the line's key and what stands under it. Raises DamagedError."""
    _, partition, first_sequence = _CHUNK.unpack(key)
    if len(value) == _LINE_FIELDS.size + _CHECKSUM.size:
        line = Line(*_LINE_FIELDS.unpack(value[: _LINE_FIELDS.size]))
        if value == packed_line(partition, line) and line.first_sequence == first_sequence:
            return partition, line
    raise DamagedError(f"the line of the chunk at sequence {partition}:{first_sequence} is none")


def packed_flushed(reached: Mapping[int, int]) -> bytes:
    """The content of FLUSHED, by partition: index up to which it survives a crash."""
    content = _FLUSHED_MAGIC + b"".join(_FLUSHED_FIELDS.pack(*each) for each in reached.items())
    return content + _CHECKSUM.pack(zlib.crc32(content))


def flushed_in(stored: bytes) -> dict[int, int]:
    """What was packed. Raises DamagedError."""
    content = stored[: -_CHECKSUM.size]
    agrees = stored[len(content) :] == _CHECKSUM.pack(zlib.crc32(content))
    if not agrees or content[: len(_FLUSHED_MAGIC)] != _FLUSHED_MAGIC:
        raise DamagedError(f"the checksum of {FLUSHED} does not agree")
    return dict(_FLUSHED_FIELDS.iter_unpack(content[len(_FLUSHED_MAGIC) :]))
