"""What must hold together in a hot store: its records one another, and a chunk that comes back its line.

Checksums tell that a record is what was written there once. That none is missing, and that all are of one moment, only
the others tell: lines follow one another without a gap, begin with the first and end where the applied record says;
what is held has a header; and they reach at least as far as was flushed.

Whatever does not is a DamagedError: whoever knows of which store says it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lifecycle.chunk_codec import check_section, decode_applied, decode_header
from lifecycle.chunks import ROW_COLUMNS, Applied, ChunkDamagedError, Column, Line
from lifecycle.hot_keys import header_key, line_in, packed_line, partition_in
from lifecycle.packing import DamagedError
from schemas.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lifecycle.chunks import ChunkBytes

#: What a header and a line both have: from first_sequence to rows.
_PLACE: Final = slice(1, 6)


class NoSuchChunkError(BadInputError):
    """There is no such chunk, or what was given is not that chunk. Attributes: partition, first_sequence."""

    def __init__(self, partition: int, first_sequence: int, detail: str) -> None:
        super().__init__(f"the chunk at sequence {partition}:{first_sequence}: {detail}. Nothing was changed")
        self.partition = partition
        self.first_sequence = first_sequence


class Whole(NamedTuple):
    """What a store holds, by partition. away: first sequences of the chunks that are, ascending."""

    applied: dict[int, Applied]
    firsts: dict[int, Line]
    away: dict[int, list[int]]


def whole(
    applied: Iterable[tuple[bytes, bytes]], lines: Iterable[tuple[bytes, bytes]], headers: Iterator[tuple[bytes, bytes]]
) -> Whole:
    """What a store holds, if applied records, lines and headers agree: all of them, by key and in order.

    Of headers only keys are looked at. Raises DamagedError, ChunkDamagedError for a record or a header.
    """
    records = {}
    for key, value in applied:
        partition = partition_in(key)
        records[partition] = decode_applied(partition, value)
    firsts: dict[int, Line] = {}
    reached: dict[int, Line] = {}
    away: dict[int, list[int]] = {}
    for partition, line in _with_headers(lines, headers):
        before = reached.get(partition)
        if before is not None and not _follows(before, line):
            raise DamagedError(f"partition {partition} has {line} after {before}")
        firsts.setdefault(partition, line)
        reached[partition] = line
        if not line.held:
            away.setdefault(partition, []).append(line.first_sequence)
    ends = {partition: (line.last_index, line.last_sequence, line.number) for partition, line in reached.items()}
    said = {partition: tuple(record[:3]) for partition, record in records.items()}
    if ends != said or not all(line.held for line in reached.values()):
        raise DamagedError(f"its chunks end at {ends}, its applied records say {said}")
    return Whole(records, firsts, away)


def check_first(partition: int, line: Line, stored: bytes | None) -> None:
    """That the first line of a partition is what is stored as its first. Raises DamagedError."""
    if stored != packed_line(partition, line._replace(held=1)):
        raise DamagedError(f"partition {partition} does not begin with {line}")


def check_flushed(applied: Mapping[int, Applied], flushed: Mapping[int, int]) -> None:
    """That all that was flushed is there; flushed: by partition, up to which index. Raises DamagedError."""
    for partition, index in flushed.items():
        record = applied.get(partition)
        if record is None or record.index < index:
            raise DamagedError(f"partition {partition} was flushed up to index {index}, and is there up to {record}")


def check_chunk(partition: int, line: Line, chunk: ChunkBytes) -> None:
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


def _with_headers(
    lines: Iterable[tuple[bytes, bytes]], headers: Iterator[tuple[bytes, bytes]]
) -> Iterator[tuple[int, Line]]:
    """All lines, by partition and in order; what is held has a header."""
    header: bytes | None = b""
    for key, value in lines:
        partition, line = line_in(key, value)
        wanted = header_key(partition, line.first_sequence)
        while header is not None and header < wanted:
            header = next(headers, (None, b""))[0]
        if line.held and header != wanted:
            raise ChunkDamagedError(partition, line.first_sequence, "the header", "it is not there")
        yield partition, line


def _follows(before: Line, line: Line) -> bool:
    return (line.number, line.first_sequence, line.first_index) == (
        before.number + 1,
        before.last_sequence + 1,
        before.last_index + 1,
    )
