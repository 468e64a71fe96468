"""Archives: ranges of a partition's entries as Parquet files that any tool opens and that prove what they hold.

Problem: what rests for years must be read without us, and must not be believed without proof. So an archive is plain
Parquet (see `archive_table` for its columns), and beside the columns that queries read it has what makes every entry
again, byte for byte; the chain over these then ends in the hash that the ledger had there, or something is wrong.

    p00003-000000000000000001-000000000002000000-1f3a9c0e5b7d2846.parquet
    partition, first and last index, first 8 bytes of the SHA-256 of the footer

    row groups of DATA or of CONTROL entries, ROWS_MAX at most, each kind ascending by index
    footer: schema, places of the columns, and as JSON under the key "driftledger" the facts (`archive_facts`), under
            "driftledger.chunks" where chunks and row groups begin (`archive_places`)

Encodings: deltas for numbers and instants, dictionaries for names, LZ4_RAW unless set otherwise, a checksum a page.

GUARANTEE a file that is there under its name was whole, and on disk, before it had that name.
GUARANTEE `ArchiveFile` hands on no byte that has no checksum which agrees: the footer's is in the name, and the index
has one for each column of each row group. What pages have of their own guards their content and not what stands about
it, so it is there for others, and for who makes an index again.
GUARANTEE memory: of a row group that an archive can have, whatever footer and pages say (`parquet_pages`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lifecycle.archive_facts import Compression, Facts, digest_in, facts_of, name_of
from lifecycle.archive_index import Blob, Index, Table, encode, read_at
from lifecycle.archive_places import Places, decode_places, encode_places
from lifecycle.archive_table import ROWS_MAX, SCHEMA
from lifecycle.chunk_codec import first_index_in
from lifecycle.chunks import HASH_BYTES
from lifecycle.packing import DamagedError
from lifecycle.parquet_pages import TEXTS_BYTES_MAX, VALUES_BYTES_MAX, check_pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

_KEY: Final = b"driftledger"
_PLACES_KEY: Final = b"driftledger.chunks"
_ENTRY: Final = SCHEMA.get_field_index("entry")
_TAIL: Final = struct.Struct("<I4s")
_MAGIC: Final = b"PAR1"
#: A footer takes some 4 KB a row group: this is one of a thousand million rows.
_FOOTER_BYTES_MAX: Final = 64 * 1024 * 1024
_PAGE_BYTES: Final = 1024 * 1024
_DELTAS: Final = (
    "index", "sequence", "input_offset", "control_offset", "leader_epoch", "authority_timestamp", "value_length",
    "local_timestamp", "hlc", "offset_us", "bound_us",
)  # fmt: skip
_NAMES: Final = (
    "partition", "entry", "authority_kind", "value_state", "key_is", "source", "kind", "severity", "fault", "cause",
)  # fmt: skip


class _Group(NamedTuple):
    """A row group that was written."""

    rows: int
    is_data: bool
    first_index: int
    chain_before: bytes


class ArchiveWriter:
    """Writes one archive into a file that has no name of an archive yet."""

    def __init__(self, fresh: Path, compression: Compression = Compression.LZ4) -> None:
        self._fresh = fresh
        self._groups: list[_Group] = []
        self._writer = pq.ParquetWriter(
            fresh,
            SCHEMA,
            compression=compression,
            use_dictionary=list(_NAMES),
            column_encoding=dict.fromkeys(_DELTAS, "DELTA_BINARY_PACKED") | {"value": "BYTE_STREAM_SPLIT"},
            write_page_checksum=True,
            write_page_index=True,
            data_page_size=_PAGE_BYTES,
        )

    def add(self, table: pa.Table, first_index: int, chain_before: bytes, *, is_data: bool) -> None:
        """A row group of entries from an index on, which follow that chain hash."""
        self._writer.write_table(table, row_group_size=len(table))
        self._groups.append(_Group(len(table), is_data, first_index, chain_before))

    def close(self, facts: Facts, blobs: list[Blob]) -> tuple[str, bytes]:
        """End the file, and have it on disk; returns the name that it is to have, and the bytes of its index.

        blobs: of its chunks, ascending. Raises ChunkDamagedError for a header that is damaged.
        """
        places = Places(
            np.array([blob.first_sequence for blob in blobs], np.int64),
            np.array([first_index_in(facts.partition, *blob[:2]) for blob in blobs], np.int64),
            np.array([group.first_index for group in self._groups], np.int64),
        )
        self._writer.add_key_value_metadata({_KEY: json.dumps(facts._asdict()), _PLACES_KEY: encode_places(places)})
        self._writer.close()
        with self._fresh.open("rb") as file:
            footer = _read_footer(file)
            metadata = _metadata_in(footer)
            sums = _sums(file, metadata)
            os.fsync(file.fileno())
        digest = hashlib.sha256(footer).digest()
        hashes = b"".join(group.chain_before for group in self._groups)
        table = Table(
            digest,
            np.array([group.rows for group in self._groups], np.int64),
            np.array([group.is_data for group in self._groups], np.bool_),
            places.group_index,
            np.frombuffer(hashes, np.uint8).reshape(-1, HASH_BYTES),
            sums,
            places.first_sequence,
            np.array([len(blob.header) for blob in blobs], np.int64),
            np.array([len(blob.readings) for blob in blobs], np.int64),
        )
        return name_of(facts, digest), encode(table, blobs)

    def abandon(self) -> None:
        """End it without a name: what is there is no archive."""
        with contextlib.suppress(OSError, pa.ArrowException):  # what ended it before may be that the disk is full
            self._writer.close()


class ArchiveFile:
    """An archive that is read. Raises DamagedError wherever it is not what was written.

    name: that of the file, which has the digest of the footer. table: of its index; None where that is to be made again
    (indexed is false then): pages are compared with their own checksums, and what only a proof tells is 0 in table.
    Attributes: facts, name, table, indexed, chunk_index (where chunks begin, where there is no index).
    """

    def __init__(self, file: BinaryIO, name: str, table: Table | None) -> None:
        self._file = file
        footer = _read_footer(file)
        digest = hashlib.sha256(footer).digest()
        if not digest.startswith(digest_in(name)) or (table is not None and digest != table.footer):
            raise DamagedError("its footer is not the one that its name and its index were made of")
        self._metadata = _metadata_in(footer)
        if not self._metadata.schema.to_arrow_schema().equals(SCHEMA):
            raise DamagedError("its columns are not those of an archive")
        self.facts, self.name, self.indexed = _facts_in(self._metadata), name, table is not None
        self.chunk_index = np.zeros(0, np.int64)
        places = _places(self._metadata)
        rows = [self._metadata.row_group(group).num_rows for group in range(self._metadata.num_row_groups)]
        if not all(0 < count <= ROWS_MAX for count in rows):
            raise DamagedError(f"its footer says that row groups have {min(rows)} to {max(rows)} rows")
        if table is None:
            table = self._made_table(digest)
        if table.sums.shape != (len(places), self._metadata.num_columns) or table.rows.tolist() != rows:
            raise DamagedError("its index has other row groups")
        checked = _Checked(
            file,
            {place.start: _Sum(place, int(total), count)
             for row, sums, count in zip(places, table.sums, rows, strict=True)
             for place, total in zip(row, sums, strict=True)},
        )  # fmt: skip
        self._parquet = pq.ParquetFile(
            pa.PythonFile(checked, mode="r"),
            metadata=self._metadata,
            pre_buffer=False,
            page_checksum_verification=not self.indexed,
        )
        self.table = table

    def _made_table(self, digest: bytes) -> Table:
        """What its index would say, as far as footer and bytes tell."""
        metadata, facts = self._metadata, self.facts
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        content = (metadata.metadata or {}).get(_PLACES_KEY, b"")
        places = decode_places(content, facts, len(groups))
        self.chunk_index = places.first_index
        none = np.zeros(places.first_sequence.size, np.int64)
        return Table(
            digest,
            np.array([group.num_rows for group in groups], np.int64),
            np.array([_is_data(group) for group in groups], np.bool_),
            places.group_index,
            np.zeros((len(groups), HASH_BYTES), np.uint8),
            _sums(self._file, metadata),
            places.first_sequence,
            none,
            none,
        )

    def read(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """A row group, or some of its columns."""
        try:
            return self._parquet.read_row_group(group, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise DamagedError(str(error)) from error

    def bytes_of(self, group: int, column: str | None) -> int:
        """Of a column of a row group, None: of all, as they are on disk."""
        metadata = self._metadata.row_group(group)
        sizes = [metadata.column(place) for place in range(metadata.num_columns)]
        return sum(each.total_compressed_size for each in sizes if column in (None, each.path_in_schema))

    def raw_bytes_of(self, group: int) -> int:
        """Of all columns of a row group, decompressed."""
        return int(self._metadata.row_group(group).total_byte_size)

    def close(self) -> None:
        """Let go of the file, which stays open."""
        self._parquet.close()


class _Place(NamedTuple):
    """Where a column of a row group is. raw_bytes: decompressed, as the footer says; raw_bytes_max: as it can have."""

    start: int
    size: int
    raw_bytes: int
    raw_bytes_max: int


class _Sum(NamedTuple):
    """What is known of it. total: CRC-32 of its bytes."""

    place: _Place
    total: int
    rows: int


class _Checked(io.RawIOBase):
    """The file as Parquet's reader sees it: columns of row groups as a whole, each compared with its checksum."""

    def __init__(self, file: BinaryIO, sums: dict[int, _Sum]) -> None:
        super().__init__()
        self._file, self._sums = file, sums
        self._size = file.seek(0, os.SEEK_END)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        known = self._sums.get(self._at)
        if known is None or known.place.size != size:
            raise DamagedError(f"{size} bytes at {self._at} are no column of a row group")
        content = read_at(self._file, self._at, size)
        if zlib.crc32(content) != known.total:
            raise DamagedError(f"the checksum of the column at {self._at} does not agree")
        check_pages(content, known.rows, known.place.raw_bytes, known.place.raw_bytes_max)
        self._at += size
        return content


def facts_at(name: str, data: BinaryIO) -> Facts:
    """What the footer of an archive of that name says. Raises DamagedError."""
    footer = _read_footer(data)
    if not hashlib.sha256(footer).digest().startswith(digest_in(name)):
        raise DamagedError("its footer is not the one that its name was made of")
    return _facts_in(_metadata_in(footer))


@contextlib.contextmanager
def opened_alone(name: str, data: BinaryIO) -> Iterator[ArchiveFile]:
    """An archive without its index, from its file, which is closed afterwards. Raises DamagedError."""
    with data:
        archive = ArchiveFile(data, name, None)
        try:
            yield archive
        finally:
            archive.close()


@contextlib.contextmanager
def opened(name: str, data: BinaryIO, index: BinaryIO) -> Iterator[tuple[ArchiveFile, Index]]:
    """An archive and its index, from their files, which are closed afterwards. Raises DamagedError."""
    with data, index:
        found = Index(index)
        archive = ArchiveFile(data, name, found.table)
        try:
            yield archive, found
        finally:
            archive.close()


def _read_footer(file: BinaryIO) -> bytes:
    """With its length and the last magic. Raises DamagedError."""
    end = file.seek(0, os.SEEK_END)
    if end < _TAIL.size:
        raise DamagedError(f"it has {end} bytes")
    length, magic = _TAIL.unpack(read_at(file, end - _TAIL.size, _TAIL.size))
    if magic != _MAGIC or not 0 < length <= min(end - _TAIL.size, _FOOTER_BYTES_MAX):
        raise DamagedError(f"it ends with {magic!r} and a footer of {length} bytes")
    return read_at(file, end - _TAIL.size - length, length + _TAIL.size)


def _metadata_in(footer: bytes) -> Any:
    try:
        return pq.read_metadata(pa.BufferReader(_MAGIC + footer))
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(f"its footer cannot be read: {error}") from error


def _facts_in(metadata: Any) -> Facts:
    try:
        return facts_of(json.loads(metadata.metadata[_KEY]))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"its footer has no facts: {error}") from error


def _places(metadata: Any) -> list[list[_Place]]:
    """Of each column of each row group."""
    found = []
    for group in range(metadata.num_row_groups):
        columns = [metadata.row_group(group).column(column) for column in range(metadata.num_columns)]
        found.append([_place(column) for column in columns])
    return found


def _place(column: Any) -> _Place:
    most = TEXTS_BYTES_MAX if column.physical_type == "BYTE_ARRAY" else VALUES_BYTES_MAX
    return _Place(_start(column), int(column.total_compressed_size), int(column.total_uncompressed_size), most)


def _sums(file: BinaryIO, metadata: Any) -> NDArray[np.uint32]:
    """uint32[groups, columns]: CRC-32 of the bytes of each."""
    sums = [[zlib.crc32(read_at(file, place.start, place.size)) for place in places] for places in _places(metadata)]
    return np.array(sums, np.uint32).reshape(metadata.num_row_groups, metadata.num_columns)


def _is_data(group: Any) -> bool:
    """By the statistics of the kinds of its entries, which are all the same."""
    statistics = group.column(_ENTRY).statistics
    kinds = (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else (None, None)
    if kinds not in (("DATA", "DATA"), ("CONTROL", "CONTROL")):
        raise DamagedError(f"its footer says that a row group has entries of {kinds}")
    return kinds[0] == "DATA"


def _start(column: Any) -> int:
    offset = column.dictionary_page_offset
    return int(column.data_page_offset if offset is None else min(offset, column.data_page_offset))
