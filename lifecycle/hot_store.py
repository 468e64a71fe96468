"""The hot tier on disk: the chunks of a lane's partitions in one RocksDB.

Problem: what is hot must be read fast, survive a restart, and never be wrong; and it is a copy, the ledger is the
truth. So the store need not keep every row it was given, but it must know what it keeps, and say so if that is not
what it wrote. Then it is thrown away and made again.

What stands under which key is in `hot_keys`, how RocksDB is used in `hot_database`.

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
what is held has one (see `whole_store`). A chunk that is away is no damage, see ChunkAwayError.
GUARANTEE memory: that of its database, and 8 bytes a chunk that is away.

Chunks are never changed, so large sections go to blob files; what was sent away is in them until `reclaim`. HAZARD who
has the store open read only meanwhile may miss files: to them it is damaged, and they ask again without it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from lifecycle.chunk_codec import decode_applied, decode_header, decode_rows
from lifecycle.chunks import ROW_COLUMNS, ChunkAwayError, ChunkBytes, ChunkDamagedError, Column, Line
from lifecycle.hot_database import HotDatabase, HotStoreDamagedError, told_as_refusal
from lifecycle.hot_keys import (
    ALL_APPLIED,
    ALL_HEADERS,
    ALL_LINES,
    FLUSHED,
    applied_key,
    first_key,
    flushed_in,
    header_key,
    line_in,
    line_key,
    packed_flushed,
    packed_line,
    section_key,
)
from lifecycle.packing import DamagedError
from lifecycle.whole_store import NoSuchChunkError, check_chunk, check_first, check_flushed, whole
from schemas.errors import BadInputError, DriftledgerError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray
    from rocksdict import WriteBatch

    from lifecycle.chunks import Applied, Header, Rows
    from lifecycle.store import Sealed

_DISCARDED: Final = ".discarded"
_NONE: Final = np.zeros(0, np.int64)


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

    def __init__(self, folder: Path, database: HotDatabase, *, read_only: bool) -> None:
        self._folder, self._database, self._read_only = folder, database, read_only
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
            if not new and not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        store = cls(folder, HotDatabase.open(folder, create=new), read_only=False)
        return store._checked(new=new)

    @classmethod
    def open_read_only(cls, folder: Path) -> HotStore:
        """Open what another process may be writing to, as of its last flush."""
        store = cls(folder, HotDatabase.open(folder, read_only=True), read_only=True)
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
        batch = self._database.batch()
        applied: dict[int, Applied] = {}
        begins: dict[int, int] = {}
        for chunk in chunks:
            partition, first_sequence = chunk.partition, chunk.first_sequence
            before = applied.get(partition) or self._applied.get(partition)
            self._check_next(chunk, before)
            line = packed_line(
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
                batch.put(first_key(partition), line)
                begins[partition] = first_sequence
            batch.put(line_key(partition, first_sequence), line)
            _put_chunk(batch, partition, ChunkBytes(first_sequence, chunk.header, chunk.sections))
            batch.put(applied_key(partition), chunk.applied)
            applied[partition] = decode_applied(partition, chunk.applied)
        self._database.write(batch)
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
        batch = self._database.batch()
        sent: list[int] = []
        with self._moving:
            for first_sequence in sorted(set(first_sequences)):
                line = self._line(partition, first_sequence)
                if line.last_sequence == self._applied[partition].sequence:
                    raise LastChunkError(partition, first_sequence)
                if line.held:
                    batch.put(line_key(partition, first_sequence), packed_line(partition, line._replace(held=0)))
                    batch.delete(header_key(partition, first_sequence))
                    for column in Column:
                        batch.delete(section_key(partition, first_sequence, column))
                    sent.append(first_sequence)
            if sent:
                self._database.write(batch)
                self._away[partition] = np.union1d(self.away(partition), np.array(sent, np.int64))

    def bring_back(self, partition: int, chunks: Iterable[ChunkBytes]) -> None:
        """Have header and sections of these chunks again, all or none; those that are held stay as they are.

        Takes memory for the bytes of all of them. Raises NoSuchChunkError, also for one that is damaged or another.
        """
        batch = self._database.batch()
        back: list[int] = []
        with self._moving:
            for chunk in chunks:
                line = self._line(partition, chunk.first_sequence)
                if not line.held and chunk.first_sequence not in back:
                    check_chunk(partition, line, chunk)
                    batch.put(
                        line_key(partition, chunk.first_sequence),
                        packed_line(partition, line._replace(held=1)),
                    )
                    _put_chunk(batch, partition, chunk)
                    back.append(chunk.first_sequence)
            if back:
                self._database.write(batch)
                self._away[partition] = np.setdiff1d(self.away(partition), np.array(back, np.int64))

    def reclaim(self) -> None:
        """Give the file system back what chunks that were sent away took; returns when it is done.

        What is left may be written again: then so much room is needed meanwhile. Reads and writes go on.
        """
        with self._reclaiming:
            self.flush()
            self._database.reclaim()

    def lines(self, partition: int, first_sequence: int = 0, most: int | None = None) -> list[Line]:
        """Of the chunks that begin at a sequence or later, in order, at most so many."""
        applied = self._applied.get(partition)
        if applied is None or first_sequence > applied.sequence:
            return []  # as nearly every question finds it: what a scan takes is more than that question does
        start, end = line_key(partition, first_sequence), line_key(partition + 1, 0)
        return [self._line_under(key, value) for key, value in islice(self._database.scan(start, end), most)]

    def last_line(self, partition: int) -> Line | None:
        """Of the last chunk, None where there is none."""
        applied = self._applied.get(partition)
        if applied is None:
            return None
        found = self._database.last(line_key(partition, applied.sequence))  # it begins there or before
        if found is None or found[0] < line_key(partition, 0):
            raise HotStoreDamagedError(self._folder, f"partition {partition} has no line at {applied}")
        return self._line_under(*found)

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
        key = header_key(partition, first_sequence)
        return decode_header(partition, first_sequence, self._stored(partition, first_sequence, "the header", key))

    def column(self, partition: int, first_sequence: int, column: Column) -> bytes:
        """The section of the chunk that begins there, as it is stored: decoding checks it. Raises as `header` does."""
        key = section_key(partition, first_sequence, column)
        return self._stored(partition, first_sequence, column.name, key)

    def chunk(self, partition: int, first_sequence: int) -> ChunkBytes:
        """All of the chunk that begins there, as it is stored. Raises as `header` does."""
        key = header_key(partition, first_sequence)
        content = self._stored(partition, first_sequence, "the header", key)
        readings = decode_header(partition, first_sequence, content).readings
        columns = (*ROW_COLUMNS, Column.READINGS) if readings else ROW_COLUMNS
        sections = {column: self.column(partition, first_sequence, column) for column in columns}
        return ChunkBytes(first_sequence, content, sections)

    def bytes_per_row(self) -> float:
        """What a row takes on disk, over all partitions; 0.0 where there are none."""
        rows = sum(record.sequence for record in self._applied.values())
        nbytes = self._database.nbytes()
        return nbytes / rows if rows else 0.0

    def rows(self, header: Header) -> Rows:
        """All columns of a chunk."""
        where = (header.partition, header.first_sequence)
        sections = {column: self.column(*where, column) for column in ROW_COLUMNS}
        return decode_rows(*where, header.rows, sections)

    def flush(self) -> None:
        """Return once everything written so far survives a crash of the machine."""
        with self._flushing:
            applied = self._applied
            self._database.flush()
            content = packed_flushed({partition: reached.index for partition, reached in applied.items()})
            with told_as_refusal(self._folder):
                _replace(self._folder / FLUSHED, content)

    def close(self) -> None:
        """Flush, and let go of the folder."""
        try:
            if not self._read_only:
                self.flush()
        finally:
            self._database.close()

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
        database = self._database
        try:
            with (
                contextlib.closing(database.scan(*ALL_APPLIED)) as applied,
                contextlib.closing(database.scan(*ALL_LINES)) as lines,
                contextlib.closing(database.scan(*ALL_HEADERS, values=False)) as headers,
            ):
                found = whole(applied, lines, headers)
            for partition, line in found.firsts.items():
                check_first(partition, line, database.get(first_key(partition)))
            check_flushed(found.applied, flushed_in(self._flushed()))
        except DamagedError as error:
            raise HotStoreDamagedError(self._folder, str(error)) from error
        self._applied = found.applied
        self._begins = {partition: line.first_sequence for partition, line in found.firsts.items()}
        self._away = {partition: np.array(sequences, np.int64) for partition, sequences in found.away.items()}

    def _flushed(self) -> bytes:
        """The content of FLUSHED."""
        with told_as_refusal(self._folder):
            try:
                return (self._folder / FLUSHED).read_bytes()
            except FileNotFoundError as error:
                raise HotStoreDamagedError(self._folder, f"it has no file {FLUSHED}") from error

    def _stored(self, partition: int, first_sequence: int, part: str, key: bytes) -> bytes:
        """What stands under a key of a chunk. Raises ChunkAwayError, ChunkDamagedError."""
        content = self._database.get(key)
        if content is None:
            with self._moving:  # what moved between two looks would seem to be damaged
                content = self._database.get(key)
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
        key = line_key(partition, first_sequence)
        content = self._database.get(key)
        if content is None:
            raise NoSuchChunkError(partition, first_sequence, f"the hot store in {self._folder} never had it")
        return self._line_under(key, content)

    def _line_under(self, key: bytes, value: bytes) -> Line:
        """What stands under the key of a line."""
        try:
            return line_in(key, value)[1]
        except DamagedError as error:
            raise HotStoreDamagedError(self._folder, str(error)) from error


def _put_chunk(batch: WriteBatch, partition: int, chunk: ChunkBytes) -> None:
    """Header and sections."""
    batch.put(header_key(partition, chunk.first_sequence), chunk.header)
    for column, section in chunk.sections.items():
        batch.put(section_key(partition, chunk.first_sequence, column), section)


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
