"""A question while it is answered: what of a store may hold rows of it, and the columns that kernels need of those.

Problem: rows, aggregates and the last event of a source are found each in its own way, but among the same things: rows
that no chunk holds yet, blocks of headers, and the columns of some chunks. These are opened here, only what is asked
for is read of them, and `explain` is told.

GUARANTEE each row that was in the store when a partition was refreshed is met once: unsealed rows are taken first, then
the headers of chunks that came, and what is in both is left out of the former.
HAZARD the blocks of a partition are those of its last refresh, so that comes first; `parts` does it itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lifecycle.catalog import TIMES
from lifecycle.chunks import Column
from lifecycle.packing import Texts
from lifecycle.parts import Part
from lifecycle.planner import unit_of
from lifecycle.query_kernel import RowsIn, bits_of, holding
from schemas.instants import INT64_MAX, INT64_MIN
from streams.corrected_kernel import WAYS
from streams.judge_kernel import Flag
from streams.windows import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lifecycle.catalog import Block, Catalog, Chunks, Names, Unsealed
    from lifecycle.column_cache import ColumnCache
    from lifecycle.dating_kernel import Dated
    from lifecycle.planner import Explain, Question

_INTS: Final = np.zeros(0, np.int64)
_CODES: Final = np.zeros(0, np.int32)
_SMALL: Final = np.zeros(0, np.uint8)
_DOUBLES: Final = np.zeros(0)


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Of one store. partitions: ascending; low, high: the range in the unit of the frame.

    started_ns: when it began, by the monotonic clock; headers_read: how many the catalog had read by then.
    """

    chunks: Chunks
    catalog: Catalog
    columns: ColumnCache
    question: Question
    partitions: list[int]
    low: int
    high: int
    explain: Explain
    started_ns: int
    headers_read: int

    def refresh(self, partition: int) -> Part | None:
        """Take the unsealed rows, then the headers of chunks that came; the former without what is in the latter."""
        unsealed = self.chunks.unsealed(partition)
        next_sequence, order_ms = self.catalog.refresh(partition)
        if unsealed is None or not unsealed.rows.sequence.size or not _any_wanted(self.question, unsealed):
            return None
        rows, first = unsealed.rows, max(int(unsealed.rows.sequence[0]), next_sequence)
        skipped = first - int(rows.sequence[0])
        if skipped >= rows.sequence.size:
            return None

        def read(column: Column) -> Any:
            values = getattr(rows, column.name.lower())
            if isinstance(values, Texts):
                return Texts(values.offsets[skipped:], values.content)
            return values[skipped:]

        self.explain.rows_unsealed += rows.sequence.size - skipped
        sources = self.catalog.sources.codes(unsealed.sources)
        kinds = self.catalog.kinds.codes(unsealed.kinds)
        whole = not (rows.fault.any() or (rows.flags & (Flag.DUPLICATE | Flag.CONFLICT)).any())
        valued = bool(rows.has_value.all())
        count = rows.sequence.size - skipped
        unknown = WAYS[self.question.unknown]
        return Part(
            partition, first, count, whole, order_ms, INT64_MIN, INT64_MAX, sources, kinds, read, valued, unknown
        )

    def blocks(self, partition: int) -> Iterator[Block]:
        """Blocks of headers of which some chunk may have rows in the range, in order."""
        return self.catalog.blocks(partition, self.question.frame, self.low, self.high)

    def count_chunks(self) -> int:
        """How many chunks its partitions have."""
        return sum(self.catalog.chunks_in(partition) for partition in self.partitions)

    def part(self, block: Block, chunk: int) -> Part:
        """The rows of a chunk, by its place in the block."""

        def read(first: int, column: Column, rows: int) -> Any:
            return self.columns.read(block.partition, first, column, rows, self.explain)

        return block.part(chunk, self.question.frame, read, WAYS[self.question.unknown])

    def parts(self, partition: int) -> Iterator[tuple[int, Part]]:
        """What may hold rows of the question, in order, each behind the least order across partitions it has."""
        question = self.question
        unsealed = self.refresh(partition)
        first, last = question.sequences.get(partition, (0, INT64_MAX))
        for block in self.blocks(partition):
            numbers = block.numbers
            held = (numbers["last_sequence"] >= first) & (numbers["first_sequence"] <= last)
            if question.frame is Frame.AUTHORITY or question.from_us is not None or question.to_us is not None:
                name = TIMES[question.frame]
                held &= (numbers[f"{name}_max"] >= self.low) & (numbers[f"{name}_min"] <= self.high)
            marks = held.view(np.uint8)
            if question.sources is not None:
                holding(*block.sources, self.catalog.sources.mask(question.sources), marks)
            if question.kinds is not None:
                holding(*block.kinds, self.catalog.kinds.mask(question.kinds), marks)
            low = np.maximum(numbers["order_ms"], numbers["authority_ms_min"])
            for chunk in np.flatnonzero(held).tolist():
                part = self.part(block, chunk)
                self.explain_rows(part)
                yield int(low[chunk]), part
        if unsealed is not None:
            yield unsealed.order_ms, unsealed

    def explain_rows(self, part: Part) -> None:
        """A chunk's rows are looked at one by one."""
        self.explain.chunks_rows += 1
        self.explain.chunks_archived += self.chunks.archived(part.partition, np.array([part.first_sequence]))
        self.explain.rows_scanned += part.rows

    def rows(
        self,
        part: Part,
        *,
        times: bool,
        values: bool,
        faults: bool,
        flags: bool,
        sources: bool,
        kinds: bool,
        dated: Dated | None = None,
    ) -> RowsIn:
        """The columns that a kernel needs of a part. dated: its times, where they are in no column."""
        question, read = self.question, part.read
        value = read(Column.VALUE) if values else _DOUBLES
        column = unit_of(question.frame).column
        rows = RowsIn(
            _INTS if column is None or not times else read(column),
            value,
            bits_of(value),
            read(Column.FLAGS) if flags and not part.whole else _SMALL,
            read(Column.FAULT) if faults and not part.whole else _SMALL,
            read(Column.SOURCE) if sources else _CODES,
            _only(part.sources, self.catalog.sources, question.sources),
            read(Column.KIND) if kinds else _CODES,
            _only(part.kinds, self.catalog.kinds, question.kinds),
        )
        if column is not None or not times:
            return rows
        found = part.dated() if dated is None else dated
        return rows._replace(time=found.time, fault=found.fault, flags=read(Column.FLAGS) if flags else _SMALL)


def _any_wanted(question: Question, unsealed: Unsealed) -> bool:
    """Whether rows may have the names that are asked for."""
    sources, kinds = question.sources, question.kinds
    return (sources is None or not set(unsealed.sources).isdisjoint(sources)) and (
        kinds is None or not set(unsealed.kinds).isdisjoint(kinds)
    )


def _only(codes: NDArray[np.int32], names: Names, wanted: tuple[bytes, ...] | None) -> NDArray[np.int32]:
    """Codes, those that are not wanted as -1."""
    if wanted is None:
        return codes
    return np.where(names.mask(wanted)[codes] != 0, codes, np.int32(-1))
