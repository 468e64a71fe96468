"""The hot tier on disk: the chunks of a lane's partitions in one RocksDB.

Problem: what is hot must be read fast, survive a restart, and never be wrong; and it is a copy, the ledger is the
truth. So the store need not keep every row it was given, but it must know what it keeps, and say so if that is not
what it wrote. Then it is thrown away and made again.

Keys, all numbers big-endian, so that a partition's chunks stand in their order:

    "a" partition                          applied: up to where the partition is in chunks
    "c" partition first_sequence column    a section (4 + 8 + 1 bytes)
    "f" partition                          the line of the first chunk that is kept
    "h" partition first_sequence           a header
    "l" partition first_sequence           a line: number, sequences, indexes and rows of the chunk

The bytes under "a", "c" and "h" are those of `chunks`; all carry checksums of their own, over their keys too.

GUARANTEE a chunk is written as one: all its keys and the applied record in one batch, of one column family. There is no
write-ahead log: the ledger is one. So after a crash the store is as of some earlier write, at least the last one that
`flush` returned for, and the lane reads on from `applied`. The file FLUSHED, replaced by each flush, says how far that
was.
GUARANTEE whatever is damaged, cut or lost raises StoreDamagedError, when it is opened or when it is read; never an
answer that is wrong or lacks rows. Opening walks all lines: first to applied, without a gap.
GUARANTEE memory: two write buffers of 16 MiB and a block cache of 16 MiB a store.

Chunks are never changed, so large sections go to blob files, which compaction leaves alone.
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
from typing import TYPE_CHECKING, Final, NamedTuple

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from lifecycle.chunks import (
    ROW_COLUMNS,
    Applied,
    ChunkDamagedError,
    Column,
    Header,
    Rows,
    StoreDamagedError,
    decode_applied,
    decode_header,
    decode_rows,
)
from schemas.errors import DriftledgerError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rocksdict import RdictIter

    from lifecycle.store import Sealed

WRITE_BUFFER_BYTES: Final = 16 * 1024 * 1024
WRITE_BUFFERS: Final = 2
BLOCK_CACHE_BYTES: Final = 16 * 1024 * 1024
#: Sections of at least this size go to blob files, of this size.
_BLOB_LEAST_BYTES: Final = 1024
_BLOB_FILE_BYTES: Final = 64 * 1024 * 1024
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
_LINE_FIELDS: Final = struct.Struct("<6q")
_FLUSHED_FIELDS: Final = struct.Struct("<Iq")
_CHECKSUM: Final = struct.Struct("<I")
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


class Line(NamedTuple):
    """A chunk's place. number: of the partition's chunks since sequence 1."""

    number: int
    first_sequence: int
    last_sequence: int
    first_index: int
    last_index: int
    rows: int


class HotStore:
    """The chunks of some partitions. Writes come from one thread, reads and flushes from any.

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
        self._flushing = threading.Lock()

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
        for chunk in chunks:
            partition, first_sequence = chunk.partition, chunk.first_sequence
            before = applied.get(partition) or self._applied.get(partition)
            self._check_next(chunk, before)
            line = _packed_line(
                partition,
                Line(
                    chunk.number, first_sequence, chunk.last_sequence, chunk.first_index, chunk.last_index, chunk.rows
                ),
            )
            if before is None:
                batch.put(_PARTITION.pack(_FIRST, partition), line)
            batch.put(_CHUNK.pack(_LINE, partition, first_sequence), line)
            batch.put(_CHUNK.pack(_HEADER, partition, first_sequence), chunk.header)
            for column, section in chunk.sections.items():
                batch.put(_COLUMN.pack(_SECTION, partition, first_sequence, column), section)
            batch.put(_PARTITION.pack(_APPLIED, partition), chunk.applied)
            applied[partition] = decode_applied(partition, chunk.applied)
        try:
            self._database.write(batch, self._unlogged)
        except Exception as error:
            raise _told(self._folder, error) from error
        self._applied = self._applied | applied

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
        """Index and chain hash of the last row that is in a chunk, None where there is none."""
        line = self.last_line(partition)
        if line is None:
            return None
        rows = self.rows(self.header(partition, line.first_sequence))
        return int(rows.index[-1]), rows.chain_hash[-1].tobytes()

    def headers(self, partition: int, first_sequence: int = 0, most: int | None = None) -> list[Header]:
        """Of the chunks that begin at a sequence or later, in order, at most so many; none is left out."""
        return [self.header(partition, line.first_sequence) for line in self.lines(partition, first_sequence, most)]

    def header(self, partition: int, first_sequence: int) -> Header:
        """Of the chunk that begins there."""
        content = self._get(_CHUNK.pack(_HEADER, partition, first_sequence))
        if content is None:
            raise ChunkDamagedError(partition, first_sequence, "the header", "it is not there")
        return decode_header(partition, first_sequence, content)

    def column(self, partition: int, first_sequence: int, column: Column) -> bytes:
        """The section of the chunk that begins there, as it is stored: decoding checks it."""
        content = self._get(_COLUMN.pack(_SECTION, partition, first_sequence, column))
        if content is None:
            raise ChunkDamagedError(partition, first_sequence, column.name, "it is not there")
        return content

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
        """That lines and applied records agree, and reach what was flushed; takes the applied records in."""
        applied = {}
        for key, value in self._scan(_APPLIED, _SECTION):
            partition = _PARTITION.unpack(key)[1]
            applied[partition] = decode_applied(partition, value)
        self._applied = applied
        reached: dict[int, Line] = {}
        firsts: dict[int, Line] = {}
        for key, value in self._scan(_LINE, bytes([_LINE[0] + 1])):
            partition, line = _CHUNK.unpack(key)[1], _line_in(self._folder, key, value)
            before = reached.get(partition)
            if before is not None and not _follows(before, line):
                raise HotStoreDamagedError(self._folder, f"partition {partition} has {line} after {before}")
            firsts.setdefault(partition, line)
            reached[partition] = line
        ends = {partition: (line.last_index, line.last_sequence, line.number) for partition, line in reached.items()}
        said = {partition: tuple(record[:3]) for partition, record in applied.items()}
        if ends != said:
            raise HotStoreDamagedError(self._folder, f"its chunks end at {ends}, its applied records say {said}")
        for partition, line in firsts.items():
            stored = self._get(_PARTITION.pack(_FIRST, partition))
            if stored != _packed_line(partition, line):
                raise HotStoreDamagedError(self._folder, f"partition {partition} does not begin with {line}")
        for partition, index in self._flushed().items():
            record = applied.get(partition)
            if record is None or record.index < index:
                raise HotStoreDamagedError(
                    self._folder, f"partition {partition} was flushed up to index {index}, and is there up to {record}"
                )

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

    def _get(self, key: bytes) -> bytes | None:
        try:
            content: bytes | None = self._database.get(key, None, self._reading)
        except Exception as error:
            raise _told(self._folder, error) from error
        return content

    def _scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys from start up to end, in order."""
        iterator: RdictIter | None = None
        try:
            iterator = self._database.iter(self._reading)
            iterator.seek(start)
            while iterator.valid() and (key := iterator.key()) < end:
                yield key, iterator.value()
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
