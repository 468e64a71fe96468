"""Archives from what is hot, and from shorter archives.

Problem: a range of a partition's entries becomes a file that must give each of them back, and later one with others.
All of it is done a row group at a time, whatever its length.

    Builder.add      chunks of the hot tier and the entries of the ledger that they are of: from both, a row group
    join             archives of neighbouring ranges as one, small row groups gathered to larger ones
    check_joined     compares that one with what it was made of, as both are read from disk

GUARANTEE Builder takes only entries that follow each other and whose chain holds (ChainError says where it does not),
and join only archives that do. What either writes says of itself what it was made of; whether the file holds that is
what `proving` finds out, from the file alone.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import pyarrow as pa

from lifecycle.archive import ArchiveWriter
from lifecycle.archive_facts import Compression, Facts
from lifecycle.archive_index import Blob
from lifecycle.archive_table import ROWS_MAX, control_table, data_table, same_rows
from lifecycle.chunk_codec import decode_header, decode_rows
from lifecycle.chunks import ROW_COLUMNS, Column, Rows
from lifecycle.merkle_kernel import SpanBuilder
from lifecycle.packing import DamagedError, Texts, texts_of
from lifecycle.proving import read_group
from lifecycle.sealing import Numbers, columns_of, of_kind, sealing_of
from schemas.canonical import EntryKind
from schemas.codec import single_object_prefix
from schemas.errors import DriftledgerError
from streams.sequence import Break, head_of, verify

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lifecycle.archive import ArchiveFile
    from lifecycle.chunks import ChunkBytes
    from schemas.columns import Entries
    from streams.sequence import Head


Item = TypeVar("Item")
#: What a job gathers of rows, before it writes them, where nobody says otherwise: a row group takes some ten times that
#: on its way from the hot tier, for it is there as it is stored, as columns, as entries and as Parquet.
BUFFER_BYTES: Final = 16 * 1024 * 1024


class ChainError(DriftledgerError):
    """Entries do not follow those before them: the ledger that they come from is not whole."""


@dataclass(slots=True)
class _Range:
    """What is known of all entries that were added. None, and empty, before the first."""

    before: Head
    order_ms: int
    head: Head
    authority_ms: list[int] = field(default_factory=list)


class Builder:
    """One archive of a partition, from the entry after a head on. order_ms: running maximum of authority time there."""

    def __init__(
        self, fresh: Path, partition: int, before: Head, order_ms: int, compression: Compression = Compression.LZ4
    ) -> None:
        self._partition = partition
        self._range = _Range(before, order_ms, before)
        self._writer = ArchiveWriter(fresh, compression)
        self._spans = SpanBuilder(before.index)
        self._control: list[pa.Table] = []
        self._control_before: tuple[int, bytes] = (0, b"")
        self._blobs: list[Blob] = []
        self._checker = ThreadPoolExecutor(1, f"archive-{partition}")

    def add(self, chunks: Sequence[ChunkBytes], entries: Entries) -> None:
        """Chunks of ROWS_MAX rows at most, and all entries that are in them. Raises ChainError, ChunkDamagedError."""
        before = self._range.head
        # Half of the work, and it needs no lock of Python.
        checking = self._checker.submit(self._check, before, entries)
        try:
            last_sequence = self._write(chunks, entries, before)
        finally:
            after = checking.result()
        if last_sequence != after.sequence:
            raise self._differ(before, after)
        for chunk in chunks:
            self._blobs.append(Blob(chunk.first_sequence, chunk.header, chunk.sections.get(Column.READINGS, b"")))
        self._range.head = after
        self._range.authority_ms += [int(entries.authority_ms.min()), int(entries.authority_ms.max())]

    def _check(self, before: Head, entries: Entries) -> Head:
        """That entries follow a head; returns that after them, with their hashes in the tree."""
        after, row, why = verify(before, entries)
        if why is not Break.NONE:
            raise ChainError(
                f"entry {int(entries.index[row])} of partition {self._partition} does not follow the one before it: "
                f"{why.name}. Nothing is archived from here on; `driftledger sequence check` says more"
            )
        self._spans.add(entries.chain_hash)
        return after

    def _write(self, chunks: Sequence[ChunkBytes], entries: Entries, before: Head) -> int:
        """A row group; returns the last sequence in the chunks."""
        rows, sources, kinds = gathered(self._partition, chunks)
        data = of_kind(entries, EntryKind.DATA)
        if not np.array_equal(data.index, rows.index):
            raise self._differ(before, head_of(entries, entries.index.size - 1))
        sealing = sealing_of(data, columns_of(rows, texts_of(sources), texts_of(kinds)))
        place = before.index + 1, before.chain_hash
        self._writer.add(data_table(self._partition, rows, sealing, sources, kinds), *place, is_data=True)
        control = of_kind(entries, EntryKind.CONTROL)
        if control.index.size:
            numbers = Numbers(control.sequence, control.index, control.input_offset, control.authority_ms)
            self._add_control(control_table(self._partition, numbers, sealing_of(control, None)), *place)
        return int(rows.sequence[-1])

    def _differ(self, before: Head, after: Head) -> ChainError:
        return ChainError(
            f"the hot tier and the ledger of partition {self._partition} differ between entries {before.index + 1} "
            f"and {after.index}. Have the hot tier made anew, then seal again"
        )

    def close(self) -> tuple[str, bytes, Facts]:
        """End the file, and have it on disk: the name it is to have, the bytes of its index, and its facts."""
        self._checker.shutdown()
        self._write_control()
        span, found = self._spans.span(), self._range
        facts = Facts(
            partition=self._partition,
            first_index=found.before.index + 1,
            last_index=found.head.index,
            first_sequence=found.before.sequence + 1,
            last_sequence=found.head.sequence,
            input_offset_before=found.before.input_offset,
            control_offset_before=found.before.control_offset,
            input_offset=found.head.input_offset,
            control_offset=found.head.control_offset,
            authority_ms_min=min(found.authority_ms),
            authority_ms_max=max(found.authority_ms),
            order_ms=found.order_ms,
            chain_before=found.before.chain_hash.hex(),
            chain_after=found.head.chain_hash.hex(),
            merkle_root=span.root().hex(),
            merkle=tuple((level, node.hex()) for level, node in span.nodes),
            event_fingerprint=single_object_prefix("Event").hex(),
            entry_fingerprint=single_object_prefix("LedgerEntry").hex(),
        )
        return *self._writer.close(facts, self._blobs), facts

    def abandon(self) -> None:
        """End it without an archive."""
        self._checker.shutdown()
        self._writer.abandon()

    def _add_control(self, table: pa.Table, first_index: int, chain_before: bytes) -> None:
        if not self._control:
            self._control_before = first_index, chain_before
        self._control.append(table)
        if sum(map(len, self._control)) >= ROWS_MAX:
            self._write_control()

    def _write_control(self) -> None:
        tables, self._control = self._control, []
        if tables:
            self._writer.add(_as_one(tables), *self._control_before, is_data=False)


def join(
    fresh: Path,
    archives: Sequence[tuple[ArchiveFile, Sequence[Blob]]],
    compression: Compression,
    buffer_bytes: int = BUFFER_BYTES,
) -> tuple[str, bytes, Facts]:
    """Archives of neighbouring ranges as one: name, bytes of the index and facts, as of `Builder.close`.

    buffer_bytes: row groups are joined to larger ones up to that, as they are without compression.
    Raises ChainError where they are not neighbours, DamagedError for one that is damaged.
    """
    facts = [archive.facts for archive, _ in archives]
    for one, other in pairwise(facts):
        if one.head != other.head_before or one.partition != other.partition:
            raise ChainError(f"index {other.first_index} of partition {other.partition} does not follow {one.head}")
    writer = ArchiveWriter(fresh, compression)
    try:
        for is_data in (True, False):
            for table, first_index, chain_before in _ahead(_portions(archives, buffer_bytes, is_data=is_data)):
                writer.add(table, first_index, chain_before, is_data=is_data)
    except BaseException:
        writer.abandon()
        raise
    span = facts[0].span
    for other in facts[1:]:
        span = span.joined(other.span)
    first, last = facts[0], facts[-1]
    joined = first._replace(
        last_index=last.last_index,
        last_sequence=last.last_sequence,
        input_offset=last.input_offset,
        control_offset=last.control_offset,
        authority_ms_min=min(each.authority_ms_min for each in facts),
        authority_ms_max=max(each.authority_ms_max for each in facts),
        chain_after=last.chain_after,
        merkle_root=span.root().hex(),
        merkle=tuple((level, node.hex()) for level, node in span.nodes),
    )
    return *writer.close(joined, [blob for _, blobs in archives for blob in blobs]), joined


def check_joined(
    archives: Sequence[tuple[ArchiveFile, Sequence[Blob]]], joined: ArchiveFile, buffer_bytes: int = BUFFER_BYTES
) -> None:
    """That a file holds what others do, row by row, as it is read from disk. Raises DamagedError.

    buffer_bytes: as of `join`. So what is proved of these holds for it, at a fraction of what a proof takes.
    """
    for is_data in (True, False):
        groups = iter(np.flatnonzero(joined.table.is_data == is_data).tolist())
        for table, first_index, chain_before in _ahead(_portions(archives, buffer_bytes, is_data=is_data)):
            group = next(groups, None)
            if group is None or not same_rows(table, joined.read(group)):
                raise DamagedError(f"the rows from index {first_index} on are not those that were written")
            place = int(joined.table.first_index[group]), joined.table.chain_before[group].tobytes()
            if place != (first_index, chain_before):
                raise DamagedError(f"the row group at index {first_index} says that it begins at {place[0]}")
        if next(groups, None) is not None:
            raise DamagedError("it has more row groups than were written")


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same, each made while the one before it is used."""
    with ThreadPoolExecutor(1, "archive-ahead") as pool:
        pending = pool.submit(next, items, None)
        while (item := pending.result()) is not None:
            pending = pool.submit(next, items, None)
            yield item


def _portions(
    archives: Sequence[tuple[ArchiveFile, Sequence[Blob]]], buffer_bytes: int, *, is_data: bool
) -> Iterator[tuple[pa.Table, int, bytes]]:
    """Row groups of a kind as one, with the first index and the chain hash before it."""
    held: list[pa.Table] = []
    held_bytes = 0
    place = 0, b""
    for archive, _ in archives:
        table = archive.table
        for group in np.flatnonzero(table.is_data == is_data).tolist():
            rows, raw_bytes = sum(map(len, held)) + int(table.rows[group]), archive.raw_bytes_of(group)
            if held and (rows > ROWS_MAX or held_bytes + raw_bytes > buffer_bytes):
                yield _as_one(held), *place
                held, held_bytes = [], 0
            if not held:
                place = int(table.first_index[group]), table.chain_before[group].tobytes()
            held.append(read_group(archive, group))
            held_bytes += raw_bytes
    if held:
        yield _as_one(held), *place


def gathered(partition: int, chunks: Sequence[ChunkBytes]) -> tuple[Rows, list[bytes], list[bytes]]:
    """Rows of chunks one behind the other, and the sources and kinds that codes mean. Raises ChunkDamagedError."""
    headers = [decode_header(partition, chunk.first_sequence, chunk.header) for chunk in chunks]
    parts = [
        decode_rows(partition, header.first_sequence, header.rows, {name: chunk.sections[name] for name in ROW_COLUMNS})
        for chunk, header in zip(chunks, headers, strict=True)
    ]
    sources, source = _recoded([part.source for part in parts], [header.sources for header in headers])
    kinds, kind = _recoded([part.kind for part in parts], [header.kinds for header in headers])
    columns: dict[str, Any] = {}
    for name, values in zip(Rows._fields, zip(*parts, strict=True), strict=True):
        columns[name] = _joined_texts(values) if isinstance(values[0], Texts) else np.concatenate(values)
    return Rows(**columns | {"source": source, "kind": kind}), sources, kinds


def _recoded(
    codes: Sequence[NDArray[np.int32]], names: Sequence[tuple[bytes, ...]]
) -> tuple[list[bytes], NDArray[np.int32]]:
    """Names of all chunks, and codes that mean them; -1 stays."""
    known: dict[bytes, int] = {}
    parts = [
        np.array([*(known.setdefault(name, len(known)) for name in each), -1], np.int32)[code]
        for code, each in zip(codes, names, strict=True)
    ]
    return list(known), np.concatenate(parts)


def _joined_texts(texts: Sequence[Texts]) -> Texts:
    offsets = np.zeros(sum(each.offsets.size - 1 for each in texts) + 1, np.int64)
    np.cumsum(np.concatenate([np.diff(each.offsets) for each in texts]), out=offsets[1:])
    contents = [each.content[each.offsets[0] : each.offsets[-1]] for each in texts]
    return Texts(offsets.astype(np.int32), np.concatenate([*contents, np.zeros(1, np.uint8)]))


def _as_one(tables: list[pa.Table]) -> pa.Table:
    """A table of one chunk; codes of names are of one dictionary."""
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables).unify_dictionaries().combine_chunks()
