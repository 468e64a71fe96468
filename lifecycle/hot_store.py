"""The hot tier on disk: the chunks of a lane's partitions in one RocksDB.

Problem: what is hot must be read fast, survive a restart, and never be wrong; and it is a copy, the ledger is the
truth. So the store need not keep every row it was given, but it must know what it keeps, and say so if that is not
what it wrote. Then it is thrown away and made again.

Keys, all numbers big-endian, so that a partition's chunks stand in their order:

    "a" partition                          applied: up to where the partition is in chunks
    "c" partition first_sequence column    a section (4 + 8 + 1 bytes)
    "f" partition                          the line of the first chunk, as it was written
    "h" partition first_sequence           a header
    "l" partition first_sequence           a line: where the chunk is, and whether it is held

The bytes under "a", "c" and "h" are those of `chunk_codec`; all carry checksums of their own, over their keys too.

GUARANTEE a chunk is written as one: all its keys and the applied record in one batch, of one column family. There is no
write-ahead log: the ledger is one. So after a crash the store is as of some earlier write, at least the last one that
`flush` returned for, and the lane reads on from `applied`. The file FLUSHED, replaced by each flush, says how far that
was.

A chunk is held, or away: then its line is all there is of it, and whoever sent it away knows where the rest lies. Any
may be, in any order, but for the last of a partition: with it the ledger is compared, and from there it is read on.

GUARANTEE a chunk is sent away, or brought back, as one and with its line. After a crash it may be back, or away again,
for there is no log of that either; both are harmless as long as its archive is there. HAZARD who wants to remove an
archive brings its chunks back and flushes before.
GUARANTEE whatever is damaged, cut or lost raises StoreDamagedError, when it is opened or when it is read; never an
answer that is wrong or lacks rows. Opening walks all lines, first to applied, without a gap, and the keys of headers:
what is held has one. A chunk that is away is no damage, see ChunkAwayError.
GUARANTEE memory: two write buffers of 16 MiB and a block cache of 16 MiB a store, 8 bytes a chunk that is away.

Chunks are never changed, so large sections go to blob files, which compaction leaves alone; what was sent away is still
in them. `reclaim` gives the space back: a blob file of which nothing is left goes, and where more than GARBAGE_MAX of
all is of no use, what is left is written again. HAZARD who has the store open read only meanwhile may miss files: to
them it is damaged, and they ask again without it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import struct
import threading
import zlib
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rocksdict import (
    AccessType,
    BlockBasedOptions,
    BottommostLevelCompaction,
    Cache,
    CompactOptions,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from lifecycle.chunk_codec import check_section, decode_applied, decode_header, decode_rows
from lifecycle.chunks import (
    ROW_COLUMNS,
    Applied,
    ChunkAwayError,
    ChunkBytes,
    ChunkDamagedError,
    Column,
    Header,
    Line,
    Rows,
    StoreDamagedError,
)
from schemas.errors import BadInputError, DriftledgerError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from rocksdict import RdictIter

    from lifecycle.store import Sealed

WRITE_BUFFER_BYTES: Final = 16 * 1024 * 1024
WRITE_BUFFERS: Final = 2
BLOCK_CACHE_BYTES: Final = 16 * 1024 * 1024
#: Sections of at least this size go to blob files, of this size.
_BLOB_LEAST_BYTES: Final = 1024
_BLOB_FILE_BYTES: Final = 64 * 1024 * 1024
#: Part of the blob files that may be of no use after `reclaim`: less is not worth writing the rest again.
GARBAGE_MAX: Final = 0.2
_OPEN_FILES_MAX: Final = 512
#: RocksDB keeps these of its own log files.
_LOG_FILES: Final = 2

_FLUSHED: Final = "FLUSHED"
_FLUSHED_MAGIC: Final = b"DLF1"
_DATABASE: Final = "rocksdb"
_DISCARDED: Final = ".discarded"
_APPLIED, _SECTION, _FIRST, _HEADER, _LINE = b"a", b"c", b"f", b"h", b"l"
_PARTITION: Final = struct.Struct(">cI")
_CHUNK: Final = struct.Struct(">cIQ")
_COLUMN: Final = struct.Struct(">cIQB")
_LINE_FIELDS: Final = struct.Struct("<7q")
_FLUSHED_FIELDS: Final = struct.Struct("<Iq")
_CHECKSUM: Final = struct.Struct("<I")
#: What a header and a line both have: from first_sequence to rows.
_PLACE: Final = slice(1, 6)
_NONE: Final = np.zeros(0, np.int64)
#: Whether compaction writes blobs again that stand beside others which are of no use any more.
_COLLECTING: Final = {"enable_blob_garbage_collection": "true", "blob_garbage_collection_age_cutoff": "1.0"}
_NOT_COLLECTING: Final = {"enable_blob_garbage_collection": "false"}
#: What the system refuses, as RocksDB words it: nothing is wrong with the store.
_REFUSALS: Final = tuple(
    os.strerror(number)
    for number in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EACCES,
        errno.EROFS,
    )
)


class HotStoreDamagedError(StoreDamagedError):
    """A store as a whole is not what was written. Attributes: folder, detail."""

    def __init__(self, folder: Path, detail: str) -> None:
        super().__init__(
            f"the hot store in {folder} is damaged: {detail}. It is not served; discard it, and it is rebuilt from the "
            "ledger"
        )
        self.folder = folder
        self.detail = detail


class HotStoreUnavailableError(UnreachableError):
    """A store cannot be used now: another process has it, or the system refuses. Nothing is wrong with it."""


class NoSuchChunkError(BadInputError):
    """There is no such chunk, or what was given is not that chunk. Attributes: partition, first_sequence."""

    def __init__(self, partition: int, first_sequence: int, detail: str) -> None:
        super().__init__(f"the chunk at sequence {partition}:{first_sequence}: {detail}. Nothing was changed")
        self.partition = partition
        self.first_sequence = first_sequence


class LastChunkError(BadInputError):
    """The last chunk of a partition stays. Attributes: partition, first_sequence."""

    def __init__(self, partition: int, first_sequence: int) -> None:
        super().__init__(
            f"the chunk at sequence {partition}:{first_sequence} is the last of its partition, which the store goes on "
            "from. Send it away once there is another one behind it. Nothing was changed"
        )
        self.partition = partition
        self.first_sequence = first_sequence


class HotStore:
    """The chunks of some partitions. `write` is called from one thread, everything else from any.

    Every method raises StoreDamagedError, and HotStoreUnavailableError where the system refuses.
    """

    def __init__(self, folder: Path, database: Rdict, *, read_only: bool) -> None:
        self._folder, self._database, self._read_only = folder, database, read_only
        self._unlogged = WriteOptions()
        self._unlogged.disable_wal = True  # type: ignore[method-assign,assignment] # a property, whatever its stub says
        self._reading = ReadOptions()
        # Costs a microsecond for each KB of a section; without it a damaged table can end the process.
        self._reading.set_verify_checksums(True)
        self._applied: dict[int, Applied] = {}
        #: By partition: where the first chunk begins, and those that are away, ascending.
        self._begins: dict[int, int] = {}
        self._away: dict[int, NDArray[np.int64]] = {}
        self._flushing, self._reclaiming = threading.Lock(), threading.Lock()
        #: Held while chunks are sent away or brought back, and by who did not find one.
        self._moving = threading.Lock()

    @classmethod
    def open(cls, folder: Path) -> HotStore:
        """Open a lane's store, or make it where there is no such folder."""
        with told_as_refusal(folder):
            for left in folder.parent.glob(f"{folder.name}{_DISCARDED}-*"):  # by a discard that was cut off
                shutil.rmtree(left)
            new = not folder.exists()
            if new:
                (folder / _DATABASE).mkdir(parents=True)
            elif not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        store = cls(folder, _opened(folder, create=new, read_only=False), read_only=False)
        return store._checked(new=new)

    @classmethod
    def open_read_only(cls, folder: Path) -> HotStore:
        """Open what another process may be writing to, as of its last flush."""
        store = cls(folder, _opened(folder, create=False, read_only=True), read_only=True)
        return store._checked(new=False)

    @staticmethod
    def discard(folder: Path) -> None:
        """Remove a store, whatever is left of it; what is gone half way does not look like a store."""
        with told_as_refusal(folder):
            if not folder.is_dir():
                return
            number = 0
            while (discarded := folder.with_name(f"{folder.name}{_DISCARDED}-{number}")).exists():
                number += 1
            folder.rename(discarded)
            shutil.rmtree(discarded)

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._folder

    def partitions(self) -> list[int]:
        """Those with chunks, ascending."""
        return sorted(self._applied)

    def applied(self, partition: int) -> Applied | None:
        """Up to where the partition is in chunks; None for nothing."""
        return self._applied.get(partition)

    def write(self, chunks: list[Sealed]) -> None:
        """Add the next chunks of any partitions, all or none."""
        if not chunks:
            return
        batch = WriteBatch(raw_mode=True)
        applied: dict[int, Applied] = {}
        begins: dict[int, int] = {}
        for chunk in chunks:
            partition, first_sequence = chunk.partition, chunk.first_sequence
            before = applied.get(partition) or self._applied.get(partition)
            self._check_next(chunk, before)
            line = _packed_line(
                partition,
                Line(
                    chunk.number,
                    first_sequence,
                    chunk.last_sequence,
                    chunk.first_index,
                    chunk.last_index,
                    chunk.rows,
                    1,
                ),
            )
            if before is None:
                batch.put(_PARTITION.pack(_FIRST, partition), line)
                begins[partition] = first_sequence
            batch.put(_CHUNK.pack(_LINE, partition, first_sequence), line)
            _put_chunk(batch, partition, ChunkBytes(first_sequence, chunk.header, chunk.sections))
            batch.put(_PARTITION.pack(_APPLIED, partition), chunk.applied)
            applied[partition] = decode_applied(partition, chunk.applied)
        self._write(batch)
        self._begins = self._begins | begins
        self._applied = self._applied | applied

    def begins(self, partition: int) -> int | None:
        """Sequence at which the first chunk begins, held or away; None where there is none."""
        return self._begins.get(partition)

    def away(self, partition: int) -> NDArray[np.int64]:
        """First sequences of the chunks that are away, ascending."""
        return self._away.get(partition, _NONE)

    def send_away(self, partition: int, first_sequences: Iterable[int]) -> None:
        """Let go of header and sections of these chunks, all or none; those that are away stay so.

        Takes some 500 bytes of memory a chunk. Raises LastChunkError, NoSuchChunkError.
        """
        batch = WriteBatch(raw_mode=True)
        sent: list[int] = []
        with self._moving:
            for first_sequence in sorted(set(first_sequences)):
                line = self._line(partition, first_sequence)
                if line.last_sequence == self._applied[partition].sequence:
                    raise LastChunkError(partition, first_sequence)
                if line.held:
                    batch.put(
                        _CHUNK.pack(_LINE, partition, first_sequence), _packed_line(partition, line._replace(held=0))
                    )
                    batch.delete(_CHUNK.pack(_HEADER, partition, first_sequence))
                    for column in Column:
                        batch.delete(_COLUMN.pack(_SECTION, partition, first_sequence, column))
                    sent.append(first_sequence)
            if sent:
                self._write(batch)
                self._away[partition] = np.union1d(self.away(partition), np.array(sent, np.int64))

    def bring_back(self, partition: int, chunks: Iterable[ChunkBytes]) -> None:
        """Have header and sections of these chunks again, all or none; those that are held stay as they are.

        Takes memory for the bytes of all of them. Raises NoSuchChunkError, also for one that is damaged or another.
        """
        batch = WriteBatch(raw_mode=True)
        back: list[int] = []
        with self._moving:
            for chunk in chunks:
                line = self._line(partition, chunk.first_sequence)
                if not line.held and chunk.first_sequence not in back:
                    _check_chunk(partition, line, chunk)
                    batch.put(
                        _CHUNK.pack(_LINE, partition, chunk.first_sequence),
                        _packed_line(partition, line._replace(held=1)),
                    )
                    _put_chunk(batch, partition, chunk)
                    back.append(chunk.first_sequence)
            if back:
                self._write(batch)
                self._away[partition] = np.setdiff1d(self.away(partition), np.array(back, np.int64))

    def reclaim(self) -> None:
        """Give the file system back what chunks that were sent away took; returns when it is done.

        What is left may be written again: then so much room is needed meanwhile. Reads and writes go on.
        """
        with self._reclaiming:
            self.flush()
            try:
                self._compact()
                garbage, stored = (
                    self._database.property_int_value(f"rocksdb.live-blob-file-{name}") or 0
                    for name in ("garbage-size", "size")
                )
                if garbage > GARBAGE_MAX * stored:
                    self._database.set_options(_COLLECTING)
                    try:
                        self._compact()
                    finally:
                        self._database.set_options(_NOT_COLLECTING)
            except Exception as error:
                raise _told(self._folder, error) from error

    def lines(self, partition: int, first_sequence: int = 0, most: int | None = None) -> list[Line]:
        """Of the chunks that begin at a sequence or later, in order, at most so many."""
        applied = self._applied.get(partition)
        if applied is None or first_sequence > applied.sequence:
            return []  # as nearly every question finds it: what a scan takes is more than that question does
        start, end = _CHUNK.pack(_LINE, partition, first_sequence), _PARTITION.pack(_LINE, partition + 1)
        return [_line_in(self._folder, key, value) for key, value in islice(self._scan(start, end), most)]

    def last_line(self, partition: int) -> Line | None:
        """Of the last chunk, None where there is none."""
        applied = self._applied.get(partition)
        if applied is None:
            return None
        key = _CHUNK.pack(_LINE, partition, applied.sequence)  # it begins there or before
        iterator: RdictIter | None = None
        try:
            iterator = self._database.iter(self._reading)
            iterator.seek_for_prev(key)
            found = (iterator.key(), iterator.value()) if iterator.valid() else None
            iterator.status()
        except Exception as error:
            raise _told(self._folder, error) from error
        finally:
            iterator = None  # as in _scan
        if found is None or found[0] < _PARTITION.pack(_LINE, partition):
            raise HotStoreDamagedError(self._folder, f"partition {partition} has no line at {applied}")
        return _line_in(self._folder, *found)

    def last_row(self, partition: int) -> tuple[int, bytes] | None:
        """Index and chain hash of the last row that is in a chunk, None where there is none: the last chunk is held."""
        line = self.last_line(partition)
        if line is None:
            return None
        rows = self.rows(self.header(partition, line.first_sequence))
        return int(rows.index[-1]), rows.chain_hash[-1].tobytes()

    def headers(self, partition: int, first_sequence: int = 0, most: int | None = None) -> list[Header]:
        """Of the chunks that begin at a sequence or later, in order, at most so many; none is left out.

        Raises ChunkAwayError where one of them is.
        """
        return [self.header(partition, line.first_sequence) for line in self.lines(partition, first_sequence, most)]

    def header(self, partition: int, first_sequence: int) -> Header:
        """Of the chunk that begins there. Raises ChunkAwayError for one that is away, or before the first."""
        key = _CHUNK.pack(_HEADER, partition, first_sequence)
        return decode_header(partition, first_sequence, self._stored(partition, first_sequence, "the header", key))

    def column(self, partition: int, first_sequence: int, column: Column) -> bytes:
        """The section of the chunk that begins there, as it is stored: decoding checks it. Raises as `header` does."""
        key = _COLUMN.pack(_SECTION, partition, first_sequence, column)
        return self._stored(partition, first_sequence, column.name, key)

    def chunk(self, partition: int, first_sequence: int) -> ChunkBytes:
        """All of the chunk that begins there, as it is stored. Raises as `header` does."""
        key = _CHUNK.pack(_HEADER, partition, first_sequence)
        content = self._stored(partition, first_sequence, "the header", key)
        readings = decode_header(partition, first_sequence, content).readings
        columns = (*ROW_COLUMNS, Column.READINGS) if readings else ROW_COLUMNS
        sections = {column: self.column(partition, first_sequence, column) for column in columns}
        return ChunkBytes(first_sequence, content, sections)

    def bytes_per_row(self) -> float:
        """What a row takes on disk, over all partitions; 0.0 where there are none."""
        rows = sum(record.sequence for record in self._applied.values())
        with told_as_refusal(self._folder):
            size = sum(file.stat().st_size for file in (self._folder / _DATABASE).iterdir())
        return size / rows if rows else 0.0

    def rows(self, header: Header) -> Rows:
        """All columns of a chunk."""
        where = (header.partition, header.first_sequence)
        sections = {column: self.column(*where, column) for column in ROW_COLUMNS}
        return decode_rows(*where, header.rows, sections)

    def flush(self) -> None:
        """Return once everything written so far survives a crash of the machine."""
        with self._flushing:
            applied = self._applied
            try:
                self._database.flush(wait=True)
            except Exception as error:
                raise _told(self._folder, error) from error
            fields = b"".join(_FLUSHED_FIELDS.pack(partition, reached.index) for partition, reached in applied.items())
            content = _FLUSHED_MAGIC + fields
            with told_as_refusal(self._folder):
                _replace(self._folder / _FLUSHED, content + _CHECKSUM.pack(zlib.crc32(content)))

    def close(self) -> None:
        """Flush, and let go of the folder."""
        try:
            if not self._read_only:
                self.flush()
        finally:
            try:
                self._database.close()
            except Exception as error:
                raise _told(self._folder, error) from error

    def _checked(self, *, new: bool) -> HotStore:
        """Itself, if it is whole; else it is closed. new: it was made just now."""
        try:
            if new:
                self.flush()
            self._check_whole()
        except DriftledgerError:
            self._database.close()
            raise
        return self

    def _check_next(self, chunk: Sealed, before: Applied | None) -> None:
        """That a chunk goes on where its partition ends: else a fold and its store have come apart."""
        where = (chunk.number - 1, chunk.first_sequence - 1, chunk.first_index - 1)
        if before is not None and where != (before.chunks, before.sequence, before.index):
            raise HotStoreDamagedError(
                self._folder, f"a chunk at {chunk.partition}:{chunk.first_sequence} does not follow {before}"
            )

    def _check_whole(self) -> None:
        """That lines, headers and applied records agree, and reach what was flushed; takes in what is kept of them."""
        applied = {}
        for key, value in self._scan(_APPLIED, _SECTION):
            partition = _PARTITION.unpack(key)[1]
            applied[partition] = decode_applied(partition, value)
        self._applied = applied
        firsts: dict[int, Line] = {}
        reached: dict[int, Line] = {}
        away: dict[int, list[int]] = {}
        for partition, line in self._whole_lines():
            before = reached.get(partition)
            if before is not None and not _follows(before, line):
                raise HotStoreDamagedError(self._folder, f"partition {partition} has {line} after {before}")
            firsts.setdefault(partition, line)
            reached[partition] = line
            if not line.held:
                away.setdefault(partition, []).append(line.first_sequence)
        ends = {partition: (line.last_index, line.last_sequence, line.number) for partition, line in reached.items()}
        said = {partition: tuple(record[:3]) for partition, record in applied.items()}
        if ends != said or not all(line.held for line in reached.values()):
            raise HotStoreDamagedError(self._folder, f"its chunks end at {ends}, its applied records say {said}")
        self._begins = {partition: line.first_sequence for partition, line in firsts.items()}
        self._away = {partition: np.array(sequences, np.int64) for partition, sequences in away.items()}
        for partition, line in firsts.items():
            stored = self._get(_PARTITION.pack(_FIRST, partition))
            if stored != _packed_line(partition, line._replace(held=1)):
                raise HotStoreDamagedError(self._folder, f"partition {partition} does not begin with {line}")
        for partition, index in self._flushed().items():
            record = applied.get(partition)
            if record is None or record.index < index:
                raise HotStoreDamagedError(
                    self._folder, f"partition {partition} was flushed up to index {index}, and is there up to {record}"
                )

    def _whole_lines(self) -> Iterator[tuple[int, Line]]:
        """All lines, by partition and in order; what is held has a header."""
        header: bytes | None = b""
        with contextlib.closing(self._scan(_HEADER, bytes([_HEADER[0] + 1]), values=False)) as headers:
            for key, value in self._scan(_LINE, bytes([_LINE[0] + 1])):
                partition, line = _CHUNK.unpack(key)[1], _line_in(self._folder, key, value)
                wanted = _CHUNK.pack(_HEADER, partition, line.first_sequence)
                while header is not None and header < wanted:
                    header = next(headers, (None, b""))[0]
                if line.held and header != wanted:
                    raise ChunkDamagedError(partition, line.first_sequence, "the header", "it is not there")
                yield partition, line

    def _flushed(self) -> dict[int, int]:
        """Index up to which each partition is there at least."""
        with told_as_refusal(self._folder):
            try:
                stored = (self._folder / _FLUSHED).read_bytes()
            except FileNotFoundError as error:
                raise HotStoreDamagedError(self._folder, f"it has no file {_FLUSHED}") from error
        content = stored[: -_CHECKSUM.size]
        if stored[len(content) :] != _CHECKSUM.pack(zlib.crc32(content)) or content[:4] != _FLUSHED_MAGIC:
            raise HotStoreDamagedError(self._folder, f"the checksum of {_FLUSHED} does not agree")
        return dict(_FLUSHED_FIELDS.iter_unpack(content[len(_FLUSHED_MAGIC) :]))

    def _stored(self, partition: int, first_sequence: int, part: str, key: bytes) -> bytes:
        """What stands under a key of a chunk. Raises ChunkAwayError, ChunkDamagedError."""
        content = self._get(key)
        if content is None:
            with self._moving:  # what moved between two looks would seem to be damaged
                content = self._get(key)
                if content is None:
                    begins, away = self._begins.get(partition), self.away(partition)
                    place = np.searchsorted(away, first_sequence)
                    gone = place < away.size and away[place] == first_sequence
                    if begins is None or first_sequence < begins or gone:
                        raise ChunkAwayError(partition, first_sequence)
                    raise ChunkDamagedError(partition, first_sequence, part, "it is not there")
        return content

    def _line(self, partition: int, first_sequence: int) -> Line:
        """Of the chunk that begins there. Raises NoSuchChunkError."""
        key = _CHUNK.pack(_LINE, partition, first_sequence)
        content = self._get(key)
        if content is None:
            raise NoSuchChunkError(partition, first_sequence, f"the hot store in {self._folder} never had it")
        return _line_in(self._folder, key, content)

    def _write(self, batch: WriteBatch) -> None:
        try:
            self._database.write(batch, self._unlogged)
        except Exception as error:
            raise _told(self._folder, error) from error

    def _compact(self) -> None:
        """Write all tables again; of blobs those that options say."""
        options = CompactOptions()
        options.set_bottommost_level_compaction(BottommostLevelCompaction.force())
        self._database.compact_range(None, None, options)

    def _get(self, key: bytes) -> bytes | None:
        try:
            content: bytes | None = self._database.get(key, None, self._reading)
        except Exception as error:
            raise _told(self._folder, error) from error
        return content

    def _scan(self, start: bytes, end: bytes, *, values: bool = True) -> Generator[tuple[bytes, bytes]]:
        """Keys from start up to end, in order, with what stands under them, or nothing."""
        iterator: RdictIter | None = None
        try:
            iterator = self._database.iter(self._reading)
            iterator.seek(start)
            while iterator.valid() and (key := iterator.key()) < end:
                yield key, iterator.value() if values else b""
                iterator.next()
            iterator.status()  # a scan that meets damage ends early, and only here says so
        except Exception as error:
            raise _told(self._folder, error) from error
        finally:
            iterator = None  # with it, whoever keeps the error would keep the database open, closed or not


@contextlib.contextmanager
def told_as_refusal(folder: Path) -> Iterator[None]:
    """What the system refuses is no damage."""
    try:
        yield
    except OSError as error:
        raise HotStoreUnavailableError(f"the hot store in {folder} cannot be used: {error}") from error


def _opened(folder: Path, *, create: bool, read_only: bool) -> Rdict:
    access = AccessType.read_only(False) if read_only else AccessType.read_write()  # noqa: FBT003 - named in the stub
    try:
        return Rdict(str(folder / _DATABASE), _options(create=create), access_type=access)
    except Exception as error:
        raise _told(folder, error) from error


def _options(*, create: bool) -> Options:
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(BLOCK_CACHE_BYTES))
    tables.set_cache_index_and_filter_blocks(v=True)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(tables)
    options.create_if_missing(create)
    options.set_error_if_exists(enabled=create)
    options.set_paranoid_checks(enabled=True)
    options.set_wal_recovery_mode(DBRecoveryMode.absolute_consistency())
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(WRITE_BUFFERS)
    options.set_compression_type(DBCompressionType.none())  # chunks are compressed
    options.set_enable_blob_files(val=True)
    options.set_min_blob_size(_BLOB_LEAST_BYTES)
    options.set_blob_file_size(_BLOB_FILE_BYTES)
    options.set_blob_compression_type(DBCompressionType.none())
    options.set_max_open_files(_OPEN_FILES_MAX)
    options.set_keep_log_file_num(_LOG_FILES)
    return options


def _told(folder: Path, error: Exception) -> DriftledgerError:
    """What an error of RocksDB means; it has one class for all of them, so the words decide."""
    if isinstance(error, DriftledgerError):
        return error
    text = str(error)
    if "lock " in text.lower() and f"{_DATABASE}/LOCK: " in text:
        return HotStoreUnavailableError(f"the hot store in {folder} is open elsewhere: end the other process. {text}")
    if any(refusal in text for refusal in _REFUSALS):
        return HotStoreUnavailableError(f"the hot store in {folder} cannot be used: {text}")
    return HotStoreDamagedError(folder, text)


def _put_chunk(batch: WriteBatch, partition: int, chunk: ChunkBytes) -> None:
    """Header and sections."""
    batch.put(_CHUNK.pack(_HEADER, partition, chunk.first_sequence), chunk.header)
    for column, section in chunk.sections.items():
        batch.put(_COLUMN.pack(_SECTION, partition, chunk.first_sequence, column), section)


def _check_chunk(partition: int, line: Line, chunk: ChunkBytes) -> None:
    """That this is the chunk of a line, and whole. Raises NoSuchChunkError: what is stored is not damaged by it."""
    first_sequence = chunk.first_sequence
    try:
        header = decode_header(partition, first_sequence, chunk.header)
        place: Any = header[_PLACE]
        if place != line[_PLACE]:
            raise NoSuchChunkError(partition, first_sequence, f"its header says {place}, {line} is here")
        wanted = {*ROW_COLUMNS, Column.READINGS} if header.readings else {*ROW_COLUMNS}
        if chunk.sections.keys() != wanted:
            names = ", ".join(sorted(column.name for column in wanted ^ chunk.sections.keys()))
            raise NoSuchChunkError(partition, first_sequence, f"it has too many or too few columns: {names}")
        for column, section in chunk.sections.items():
            rows = header.readings if column is Column.READINGS else header.rows
            check_section(partition, first_sequence, column, rows, section)
    except ChunkDamagedError as error:
        raise NoSuchChunkError(partition, first_sequence, f"{error.part} is damaged: {error.detail}") from error


def _packed_line(partition: int, line: Line) -> bytes:
    content = _LINE_FIELDS.pack(*line)
    return content + _CHECKSUM.pack(zlib.crc32(content, partition))


def _line_in(folder: Path, key: bytes, value: bytes) -> Line:
    _, partition, first_sequence = _CHUNK.unpack(key)
    if len(value) == _LINE_FIELDS.size + _CHECKSUM.size:
        line = Line(*_LINE_FIELDS.unpack(value[: _LINE_FIELDS.size]))
        if value == _packed_line(partition, line) and line.first_sequence == first_sequence:
            return line
    raise HotStoreDamagedError(folder, f"the line of the chunk at sequence {partition}:{first_sequence} is none")


def _follows(before: Line, line: Line) -> bool:
    return (line.number, line.first_sequence, line.first_index) == (
        before.number + 1,
        before.last_sequence + 1,
        before.last_index + 1,
    )


def _replace(file: Path, content: bytes) -> None:
    """Durably: the file has the old content or the new."""
    fresh = file.with_suffix(".new")
    with fresh.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
