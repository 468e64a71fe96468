"""The index of an archive: what answers most questions without it, and what proves each part of it that is read.

Problem: the headers of chunks, with their statistics by source, kind and minute, answer most questions, and Parquet
has no place for them; its checksums leave out the headers of pages, and its footer has none. So an index stands beside
each archive, in `indices`: the headers and readings of its chunks as the hot tier had them, byte for byte, and a
checksum for the bytes of each column of each row group. It follows from the archive alone: one that is lost or damaged
is made again, by the pass that proves the archive (`reindexing`).

    "DLI2", length u32 of the table, table, CRC-32 u32 of all before it, blobs
    table   SHA-256 of the archive's footer, u32: row groups, columns, chunks
            of each group   rows u32, DATA (1) or CONTROL (0) u8, first index i64, chain hash before that (32 bytes)
            CRC-32 of each column of each group u32
            of each chunk   first sequence i64, bytes of its header u32, of its readings u32 (0 for none)
    blobs   header and readings of each chunk, with the checksums of `chunk_codec`

GUARANTEE decoding gives what was encoded, or raises DamagedError; it takes memory for what is there, not for what the
bytes claim.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from lifecycle.chunks import HASH_BYTES
from lifecycle.packing import DamagedError

if TYPE_CHECKING:
    from typing import BinaryIO

    from numpy.typing import NDArray

_MAGIC: Final = b"DLI2"
_FRAME: Final = struct.Struct("<4sI")
_CHECKSUM: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<32s3I")
_GROUP_BYTES: Final = 4 + 1 + 8 + HASH_BYTES
_CHUNK_BYTES: Final = 8 + 4 + 4


class Table(NamedTuple):
    """What stands before the blobs. footer: SHA-256 of the archive's.

    rows, is_data, first_index: [groups]; chain_before: uint8[groups, 32]; sums: uint32[groups, columns];
    first_sequence, header_bytes, readings_bytes: [chunks].
    """

    footer: bytes
    rows: NDArray[np.int64]
    is_data: NDArray[np.bool_]
    first_index: NDArray[np.int64]
    chain_before: NDArray[np.uint8]
    sums: NDArray[np.uint32]
    first_sequence: NDArray[np.int64]
    header_bytes: NDArray[np.int64]
    readings_bytes: NDArray[np.int64]


class Blob(NamedTuple):
    """A chunk of the hot tier without its rows."""

    first_sequence: int
    header: bytes
    readings: bytes


def encode_table(table: Table) -> bytes:
    """Its bytes, with their frame and checksum; the blobs follow."""
    groups, columns = table.sums.shape
    body = b"".join(
        [
            _HEAD.pack(table.footer, groups, columns, table.first_sequence.size),
            table.rows.astype("<u4").tobytes(),
            table.is_data.astype(np.uint8).tobytes(),
            table.first_index.astype("<i8").tobytes(),
            table.chain_before.tobytes(),
            table.sums.astype("<u4").tobytes(),
            table.first_sequence.astype("<i8").tobytes(),
            table.header_bytes.astype("<u4").tobytes(),
            table.readings_bytes.astype("<u4").tobytes(),
        ]
    )
    content = _FRAME.pack(_MAGIC, len(body)) + body
    return content + _CHECKSUM.pack(zlib.crc32(content))


def decode_table(content: bytes) -> Table:
    """What `encode_table` gave. Raises DamagedError."""
    whole = memoryview(content)[: -_CHECKSUM.size]
    if len(whole) < _FRAME.size + _HEAD.size or content[len(whole) :] != _CHECKSUM.pack(zlib.crc32(whole)):
        raise DamagedError("its checksum does not agree")
    magic, length = _FRAME.unpack_from(whole)
    if magic != _MAGIC or length != len(whole) - _FRAME.size:
        raise DamagedError(f"it begins with {magic!r} and a length of {length}")
    footer, groups, columns, chunks = _HEAD.unpack_from(whole, _FRAME.size)
    at = _FRAME.size + _HEAD.size
    if groups * (_GROUP_BYTES + 4 * columns) + chunks * _CHUNK_BYTES != len(whole) - at:
        raise DamagedError(f"it says {groups} groups of {columns} columns and {chunks} chunks in {len(whole)} bytes")

    def take(dtype: str, count: int) -> NDArray[np.generic]:
        nonlocal at
        found = np.frombuffer(whole, dtype, count, at)
        at += found.nbytes
        return found

    return Table(
        footer,
        take("<u4", groups).astype(np.int64),
        take("u1", groups).astype(np.bool_),
        take("<i8", groups).astype(np.int64),
        take("u1", groups * HASH_BYTES).astype(np.uint8).reshape(groups, HASH_BYTES),
        take("<u4", groups * columns).astype(np.uint32).reshape(groups, columns),
        take("<i8", chunks).astype(np.int64),
        take("<u4", chunks).astype(np.int64),
        take("<u4", chunks).astype(np.int64),
    )


def encode(table: Table, blobs: list[Blob]) -> bytes:
    """The whole file."""
    return b"".join([encode_table(table), *(part for blob in blobs for part in (blob.header, blob.readings))])


class Index:
    """An index that is read: the table at once, of the blobs those that are asked for. Raises DamagedError."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        frame = read_at(file, 0, _FRAME.size)
        end = _FRAME.size + _FRAME.unpack(frame)[1] + _CHECKSUM.size
        size = file.seek(0, os.SEEK_END)
        if end > size:
            raise DamagedError(f"it has {size} bytes of {end}")
        self.table = decode_table(read_at(file, 0, end))
        ends = np.cumsum(self.table.header_bytes + self.table.readings_bytes)
        self._starts = end + ends - self.table.header_bytes - self.table.readings_bytes
        if ends.size and end + int(ends[-1]) != size:
            raise DamagedError(f"it has {size} bytes, not {end + int(ends[-1])}")

    @property
    def chunks(self) -> int:
        """How many there are."""
        return self.table.first_sequence.size

    def blob(self, chunk: int) -> Blob:
        """Of a chunk, by its place; its own checksums are looked at by `chunk_codec`."""
        start, header = int(self._starts[chunk]), int(self.table.header_bytes[chunk])
        content = read_at(self._file, start, header + int(self.table.readings_bytes[chunk]))
        return Blob(int(self.table.first_sequence[chunk]), content[:header], content[header:])


def read_at(file: BinaryIO, start: int, size: int) -> bytes:
    """So many bytes from a place on. Raises DamagedError where there are fewer; memory is taken for what is there."""
    end = file.seek(0, os.SEEK_END)
    if not 0 <= start <= start + size <= end:
        raise DamagedError(f"it has {end} bytes, and not {size} from {start} on")
    file.seek(start)
    content = file.read(size)
    if len(content) != size:
        raise DamagedError(f"it ends at {start + len(content)}, before {start + size}")
    return content
