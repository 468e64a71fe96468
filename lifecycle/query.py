"""Questions to the hot tier: the last event of a source, rows in order, aggregates; each says how it was answered.

Problem: every event is to be found while it is hot, in milliseconds, and an aggregate must be the same however it was
found: from statistics, from rows, from chunks or from what is in no chunk yet. `planner` decides, kernels do
the work; here chunks are read, and only those columns of them that the answer needs.

GUARANTEE an answer is of all rows that were in the store when it was asked for: unsealed rows are taken first, then
chunks, and what is in both counts once. Sums are the true sums, rounded once. Rows across partitions stand in order of
(running maximum of authority, partition, index), within one by sequence.
HAZARD a damaged chunk raises ChunkDamagedError: there is no answer without it. Aggregates and `get` see counted events
only, `range` sees every DATA row.

Not for two threads at once.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from lifecycle.catalog import HEADER_BYTES_MAX, TIMES, Catalog
from lifecycle.chunks import Column
from lifecycle.column_cache import COLUMN_BYTES_MAX, ColumnCache
from lifecycle.drift_rows import DriftRows
from lifecycle.packing import Texts
from lifecycle.partial import PartialTally
from lifecycle.parts import Part, Piece, Selected, as_slice, gather, text_bytes_of
from lifecycle.planner import (
    Aggregation,
    Explain,
    Field,
    Question,
    grouping_of,
    limits_of,
    spans_of,
    times_of,
    unit_of,
)
from lifecycle.query_kernel import (
    Decision,
    RowsIn,
    Span,
    bits_of,
    chunks_with,
    decide,
    holding,
    latest_minute,
)
from lifecycle.row_kernel import latest_row, match_rows, running_maximum
from lifecycle.tally import Aggregates, Tally
from schemas.clock import source as time_source
from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN, NS_PER_US
from streams.corrected_kernel import WAYS
from streams.judge_kernel import Flag
from streams.windows import By, Frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from lifecycle.catalog import Block, Chunks, Names, Unsealed
    from lifecycle.dating_kernel import Dated
    from lifecycle.drift_question import DriftQuestion
    from lifecycle.drift_rows import DriftPage
    from lifecycle.query_kernel import Limits

    #: An event: its time, partition and sequence, and the part it is in.
    _Found = tuple[int, int, int, Part]

AnyTally = TypeVar("AnyTally", bound=Tally)

_INTS: Final = np.zeros(0, np.int64)
#: Sequences that no row has.
_NONE: Final = (-1, -1)
_CODES: Final = np.zeros(0, np.int32)
_SMALL: Final = np.zeros(0, np.uint8)
_DOUBLES: Final = np.zeros(0)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question while it is answered. low, high: the range in the unit of the frame."""

    question: Question
    partitions: list[int]
    low: int
    high: int
    explain: Explain
    started_ns: int
    headers_read: int


class HotQueries:
    """Questions to one store. header_bytes_max, column_bytes_max: what is kept in memory for the next question."""

    def __init__(
        self, chunks: Chunks, header_bytes_max: int = HEADER_BYTES_MAX, column_bytes_max: int = COLUMN_BYTES_MAX
    ) -> None:
        self._chunks = chunks
        self._catalog = Catalog(chunks, header_bytes_max)
        self._columns = ColumnCache(chunks, column_bytes_max)
        self._clock = time_source()

    def get(
        self,
        source: bytes,
        at_us: int | None = None,
        frame: Frame = Frame.LOCAL,
        fields: tuple[Field, ...] = tuple(Field),
        partitions: tuple[int, ...] | None = None,
    ) -> Selected:
        """The last counted event of a source at or before an instant (None: of all): one row, or none.

        partitions: only these; None: all.

        The last has the greatest time in the frame; of equals it is in the greatest partition, and there it has the
        greatest sequence.
        """
        to_us = None if at_us is None else at_us + 1
        asked = self._ask(Question(frame, to_us=to_us, sources=(source,), partitions=partitions))
        unsealed = [self._refresh(asked, partition) for partition in asked.partitions]
        found = self._latest(asked, [part for part in unsealed if part is not None])
        stored = self._stored_dated(asked, found) if frame is Frame.CORRECTED else self._stored_latest(asked, source)
        pieces = []
        if found or stored:
            _, _, sequence, part = max([*found, *stored], key=itemgetter(0, 1, 2))
            row = sequence - part.first_sequence
            pieces = [Piece(part, slice(row, row + 1), _INTS)]
        return self._selected(asked, pieces, fields, 1)[0]

    def range(self, question: Question, fields: tuple[Field, ...], limit: int) -> Selected:
        """The first rows of a question in order, at most so many."""
        return self.range_ordered(question, fields, limit, of_one=False)[0]

    def range_ordered(
        self,
        question: Question,
        fields: tuple[Field, ...],
        limit: int,
        *,
        of_one: bool = True,
        text_bytes: int | None = None,
    ) -> tuple[Selected, NDArray[np.int64]]:
        """As range; and the order across partitions of each row: with several, or `of_one` too.

        text_bytes: of ids and payloads, after which no more chunks are read: then there is `more` before the limit.
        """
        if limit < 1:
            raise BadInputError(f"a limit of {limit} rows gives no answer. Ask for one row or more")
        asked = self._ask(question)
        ordered = of_one or len(asked.partitions) > 1
        parts = [self._parts(asked, partition) for partition in asked.partitions]
        pieces: list[Piece] = []
        total = texts = 0
        cut = False
        for low, part in heapq.merge(*parts, key=itemgetter(0)):
            long = text_bytes is not None and texts > text_bytes
            settled = 0
            if total > limit or long:
                settled = _settled(pieces, low) if ordered else total
            if settled > limit:
                break
            if long and 0 < settled < limit:
                limit, cut = settled, True
                break
            piece = self._match(asked, part, ordered=ordered)
            if piece.size:
                pieces.append(piece)
                total += piece.size
                texts += 0 if text_bytes is None else text_bytes_of(piece, fields)
        pieces.sort(key=lambda piece: piece.part.partition)
        selected, order = self._selected(asked, pieces, fields, limit)
        return selected._replace(more=selected.more or cut), order

    def aggregate(self, question: Question, aggregation: Aggregation, *, statistics: bool = True) -> Aggregates:
        """Counts, sums and the like over the counted rows of a question; without statistics from rows alone."""
        return self._aggregate(Tally, question, aggregation, statistics=statistics)[0]

    def aggregate_partial(self, question: Question, aggregation: Aggregation) -> tuple[Aggregates, list[int]]:
        """As aggregate; and the sum of each group as an integer, see `partial`."""
        answer, tally = self._aggregate(PartialTally, question, aggregation, statistics=True)
        return answer, tally.exact

    def drift(self, asked: DriftQuestion) -> DriftPage:
        """A page of the drift log, or of warnings; see `drift_rows`."""
        started_ns, headers_read = self._clock.monotonic_ns(), self._catalog.headers_read
        page = DriftRows(self._chunks, self._catalog, self._columns.read).page(asked)
        page.explain.headers_read = self._catalog.headers_read - headers_read
        page.explain.elapsed_us = (self._clock.monotonic_ns() - started_ns) // NS_PER_US
        return page

    def _aggregate(
        self, kind: type[AnyTally], question: Question, aggregation: Aggregation, *, statistics: bool
    ) -> tuple[Aggregates, AnyTally]:
        asked = self._ask(question)
        if aggregation.exact:
            asked = replace(asked, question=self._until_now(asked))
        tally = kind(
            aggregation,
            grouping_of(question, aggregation, minutes=True),
            grouping_of(question, aggregation, minutes=False),
            doubtful=question.frame is Frame.CORRECTED,
        )
        self._tally_all(asked, aggregation, tally, statistics=statistics)
        explain = asked.explain
        if tally.look_again():
            again = replace(asked, explain=Explain())
            self._tally_all(again, aggregation, tally, statistics=statistics)
            for name in ("rows_scanned", "rows_unsealed", "cached", "bytes_read", "readings"):
                setattr(explain, name, getattr(explain, name) + getattr(again.explain, name))
            for name, count in again.explain.columns.items():
                explain.columns[name] = explain.columns.get(name, 0) + count
        explain.chunks_skipped += self._count_chunks(asked) - (
            explain.chunks_skipped + explain.chunks_statistics + explain.chunks_edges + explain.chunks_rows
        )
        self._end(asked)
        names = self._catalog.kinds if aggregation.by is By.KIND else self._catalog.sources
        return tally.result(names.names, explain), tally

    def _tally_all(self, asked: _Asked, aggregation: Aggregation, tally: Tally, *, statistics: bool) -> None:
        """Everything that is asked for, once."""
        question = asked.question
        asked.explain.readings += 1
        for partition in asked.partitions:
            limits = limits_of(question, aggregation, partition, statistics=statistics)
            if question.frame is Frame.CORRECTED:
                for _, part in self._parts(asked, partition):
                    self._tally_dated(asked, part, limits, aggregation, tally)
                continue
            unsealed = self._refresh(asked, partition)
            for block in self._blocks(asked, partition):
                self._tally_block(asked, block, limits, aggregation, tally)
            if unsealed is not None:
                self._tally_rows(asked, unsealed, limits, aggregation, tally, edges=False)

    def _until_now(self, asked: _Asked) -> Question:
        """The question, without what comes from now on: another reading must find the same rows."""
        sequences = {}
        for partition in asked.partitions:
            unsealed = self._chunks.unsealed(partition)
            rows = [] if unsealed is None else unsealed.rows.sequence[-1:].tolist()
            last = max([self._catalog.refresh(partition)[0] - 1, *rows])
            first, wanted = asked.question.sequences.get(partition, (0, INT64_MAX))
            sequences[partition] = (first, min(wanted, last)) if first <= min(wanted, last) else _NONE
        return replace(asked.question, sequences=sequences)

    def _ask(self, question: Question) -> _Asked:
        started_ns = self._clock.monotonic_ns()
        here = sorted(self._chunks.partitions())
        partitions = here if question.partitions is None else sorted(set(question.partitions))
        if missing := sorted({*partitions, *question.sequences} - set(here)):
            raise BadInputError(f"partitions {missing} are not held here, but {here}. Ask the worker that holds them")
        low, high = times_of(question)
        return _Asked(question, partitions, low, high, Explain(), started_ns, self._catalog.headers_read)

    def _end(self, asked: _Asked) -> None:
        asked.explain.headers_read = self._catalog.headers_read - asked.headers_read
        asked.explain.elapsed_us = (self._clock.monotonic_ns() - asked.started_ns) // NS_PER_US

    def _refresh(self, asked: _Asked, partition: int) -> Part | None:
        """Take the unsealed rows, then the headers of chunks that came; the former without what is in the latter."""
        unsealed = self._chunks.unsealed(partition)
        next_sequence, order_ms = self._catalog.refresh(partition)
        if unsealed is None or not unsealed.rows.sequence.size or not _any_wanted(asked.question, unsealed):
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

        asked.explain.rows_unsealed += rows.sequence.size - skipped
        sources = self._catalog.sources.codes(unsealed.sources)
        kinds = self._catalog.kinds.codes(unsealed.kinds)
        whole = not (rows.fault.any() or (rows.flags & (Flag.DUPLICATE | Flag.CONFLICT)).any())
        valued = bool(rows.has_value.all())
        count = rows.sequence.size - skipped
        unknown = WAYS[asked.question.unknown]
        return Part(
            partition, first, count, whole, order_ms, INT64_MIN, INT64_MAX, sources, kinds, read, valued, unknown
        )

    def _blocks(self, asked: _Asked, partition: int) -> Iterator[Block]:
        return self._catalog.blocks(partition, asked.question.frame, asked.low, asked.high)

    def _count_chunks(self, asked: _Asked) -> int:
        return sum(self._catalog.chunks_in(partition) for partition in asked.partitions)

    def _part(self, asked: _Asked, block: Block, chunk: int) -> Part:
        """A chunk's rows."""

        def read(first: int, column: Column, rows: int) -> Any:
            return self._columns.read(block.partition, first, column, rows, asked.explain)

        return block.part(chunk, asked.question.frame, read, WAYS[asked.question.unknown])

    def _explain_rows(self, asked: _Asked, part: Part) -> None:
        """A chunk's rows are looked at one by one."""
        asked.explain.chunks_rows += 1
        asked.explain.chunks_archived += self._chunks.archived(part.partition, np.array([part.first_sequence]))
        asked.explain.rows_scanned += part.rows

    # ------------------------------------------------------------------------------------------------------ aggregates

    def _tally_block(self, asked: _Asked, block: Block, limits: Limits, aggregation: Aggregation, tally: Tally) -> None:
        lines = block.lines[asked.question.frame]
        wanted = self._catalog.wanted(asked.question)
        decisions = np.empty(block.chunks, np.uint8)
        decide(lines, limits, wanted, decisions)
        skipped, statistics, edges_too, rows = np.bincount(decisions, minlength=len(Decision)).tolist()
        if skipped == block.chunks:
            return
        explain = asked.explain
        explain.chunks_statistics += statistics
        explain.chunks_edges += edges_too
        explain.chunks_rows += rows
        explain.chunks_archived += self._chunks.archived(
            block.partition, block.numbers["first_sequence"][decisions != Decision.SKIP]
        )
        if statistics or edges_too:
            tally.add_lines(lines, limits, wanted, decisions)
        for chunk in np.flatnonzero(decisions >= Decision.EDGES).tolist():
            edges = bool(decisions[chunk] == Decision.EDGES)
            part = self._part(asked, block, chunk)
            asked.explain.rows_scanned += part.rows
            self._tally_rows(asked, part, limits, aggregation, tally, edges=edges)

    def _tally_rows(
        self, asked: _Asked, part: Part, limits: Limits, aggregation: Aggregation, tally: Tally, *, edges: bool
    ) -> None:
        question = asked.question
        rows = self._rows(
            asked,
            part,
            times=edges or aggregation.window is not None or part.low < asked.low or part.high > asked.high,
            values=True,
            faults=True,
            flags=True,
            sources=question.sources is not None or aggregation.by is By.SOURCE,
            kinds=question.kinds is not None or aggregation.by is By.KIND,
        )
        with_lines, alone = spans_of(question, limits, question.span(part.partition, part.first_sequence, part.rows))
        tally.add_rows(rows, with_lines if edges else alone)

    def _tally_dated(self, asked: _Asked, part: Part, limits: Limits, aggregation: Aggregation, tally: Tally) -> None:
        """Rows in frame corrected, with how sure their times are."""
        question = asked.question
        dated = part.dated()
        rows = self._rows(
            asked,
            part,
            times=True,
            values=True,
            faults=True,
            flags=True,
            sources=question.sources is not None or aggregation.by is By.SOURCE,
            kinds=question.kinds is not None or aggregation.by is By.KIND,
            dated=dated,
        )
        span = spans_of(question, limits, question.span(part.partition, part.first_sequence, part.rows))[1]
        tally.add_rows(rows, span)
        asked.explain.rows_left_out += tally.add_doubt(rows, dated.bound_us, span)

    def _rows(
        self,
        asked: _Asked,
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
        question, read = asked.question, part.read
        value = read(Column.VALUE) if values else _DOUBLES
        column = unit_of(question.frame).column
        rows = RowsIn(
            _INTS if column is None or not times else read(column),
            value,
            bits_of(value),
            read(Column.FLAGS) if flags and not part.whole else _SMALL,
            read(Column.FAULT) if faults and not part.whole else _SMALL,
            read(Column.SOURCE) if sources else _CODES,
            _only(part.sources, self._catalog.sources, question.sources),
            read(Column.KIND) if kinds else _CODES,
            _only(part.kinds, self._catalog.kinds, question.kinds),
        )
        if column is not None or not times:
            return rows
        found = part.dated() if dated is None else dated
        return rows._replace(time=found.time, fault=found.fault, flags=read(Column.FLAGS) if flags else _SMALL)

    # ------------------------------------------------------------------------------------------------------------ rows

    def _parts(self, asked: _Asked, partition: int) -> Iterator[tuple[int, Part]]:
        """What may hold rows of the question, in order, each behind the least order across partitions it has."""
        question = asked.question
        unsealed = self._refresh(asked, partition)
        first, last = question.sequences.get(partition, (0, INT64_MAX))
        for block in self._blocks(asked, partition):
            numbers = block.numbers
            held = (numbers["last_sequence"] >= first) & (numbers["first_sequence"] <= last)
            if question.frame is Frame.AUTHORITY or question.from_us is not None or question.to_us is not None:
                name = TIMES[question.frame]
                held &= (numbers[f"{name}_max"] >= asked.low) & (numbers[f"{name}_min"] <= asked.high)
            marks = held.view(np.uint8)
            if question.sources is not None:
                holding(*block.sources, self._catalog.sources.mask(question.sources), marks)
            if question.kinds is not None:
                holding(*block.kinds, self._catalog.kinds.mask(question.kinds), marks)
            low = np.maximum(numbers["order_ms"], numbers["authority_ms_min"])
            for chunk in np.flatnonzero(held).tolist():
                part = self._part(asked, block, chunk)
                self._explain_rows(asked, part)
                yield int(low[chunk]), part
        if unsealed is not None:
            yield unsealed.order_ms, unsealed

    def _match(self, asked: _Asked, part: Part, *, ordered: bool) -> Piece:
        question = asked.question
        first, last = question.span(part.partition, part.first_sequence, part.rows)
        timed = question.from_us is not None or question.to_us is not None
        dated = timed and question.frame is Frame.CORRECTED  # a row of any part may have no time
        times = dated or (timed and (part.low < asked.low or part.high > asked.high))
        faults = dated or (timed and question.frame is Frame.LOCAL and not part.whole)
        rows: NDArray[np.int64] | slice = slice(first, last)
        if times or faults or question.sources is not None or question.kinds is not None:
            columns = self._rows(
                asked, part, times=times, values=False, faults=faults, flags=False,
                sources=question.sources is not None, kinds=question.kinds is not None,
            )  # fmt: skip
            chosen = np.empty(last - first, np.int64)
            span = Span(first, last, asked.low, asked.high, INT64_MAX, INT64_MIN)
            count = match_rows(columns, span, chosen)
            rows = as_slice(chosen[:count])
        if not ordered:
            return Piece(part, rows, _INTS)
        order = np.empty(part.rows, np.int64)
        running_maximum(part.read(Column.AUTHORITY_MS), part.order_ms, order)
        return Piece(part, rows, order[rows])

    def _selected(
        self, asked: _Asked, pieces: list[Piece], fields: tuple[Field, ...], limit: int
    ) -> tuple[Selected, NDArray[np.int64]]:
        rows, columns, order = gather(pieces, fields, limit)
        asked.explain.chunks_skipped = self._count_chunks(asked) - asked.explain.chunks_rows
        self._end(asked)
        more = sum(piece.size for piece in pieces) > limit
        selected = Selected(rows, columns, self._catalog.sources.names, self._catalog.kinds.names, more, asked.explain)
        return selected, order

    # ------------------------------------------------------------------------------------------------------ last event

    def _stored_latest(self, asked: _Asked, source: bytes) -> list[_Found]:
        """Of the chunks that may have the last event, by the minutes of their lines."""
        frame = asked.question.frame
        of_minute = unit_of(frame).of_minute
        code, minute = self._catalog.sources.code(source), asked.high // of_minute
        stored: list[_Found] = []
        while code >= 0 and minute != INT64_MIN and not any(at // of_minute > minute for at, *_ in stored):
            blocks = [self._blocks(asked, partition) for partition in asked.partitions]
            minute = max(
                (latest_minute(block.lines[frame], code, minute) for block in chain(*blocks)), default=INT64_MIN
            )
            if minute != INT64_MIN:
                stored += self._latest(asked, self._holding(asked, code, minute))
                minute -= 1  # in the minute of the instant itself, all may be after it; what was found is from before
        return stored

    def _stored_dated(self, asked: _Asked, found: list[_Found]) -> list[_Found]:
        """As _stored_latest, where there are no lines: chunks by their greatest time, until all others are before.

        found: elsewhere already.
        """
        mask = self._catalog.sources.mask(asked.question.sources or ())
        held: list[Part] = []
        for partition in asked.partitions:
            for block in self._blocks(asked, partition):
                numbers = block.numbers
                marks = ((numbers["counted"] > 0) & (numbers["corrected_us_min"] <= asked.high)).view(np.uint8)
                holding(*block.sources, mask, marks)
                held += [self._part(asked, block, chunk) for chunk in np.flatnonzero(marks).tolist()]
        stored: list[_Found] = []
        latest = max((at for at, *_ in found), default=INT64_MIN)
        for part in sorted(held, key=attrgetter("high"), reverse=True):
            if part.high < latest:
                break
            self._explain_rows(asked, part)
            stored += self._latest(asked, [part])
            latest = max([latest, *(at for at, *_ in stored)])
        return stored

    def _holding(self, asked: _Asked, code: int, minute: int) -> Iterator[Part]:
        """Chunks in which the source has counted rows in that minute."""
        for partition in asked.partitions:
            for block in self._blocks(asked, partition):
                found = np.empty(block.chunks, np.uint8)
                chunks_with(block.lines[asked.question.frame], code, minute, found)
                for chunk in np.flatnonzero(found).tolist():
                    part = self._part(asked, block, chunk)
                    self._explain_rows(asked, part)
                    yield part

    def _latest(self, asked: _Asked, parts: Iterable[Part]) -> list[_Found]:
        """Of each part the last counted row in the range: its time, partition and sequence."""
        found = []
        for part in parts:
            rows = self._rows(asked, part, times=True, values=False, faults=True, flags=True, sources=True, kinds=False)
            row = latest_row(rows, Span(0, part.rows, asked.low, asked.high, INT64_MAX, INT64_MIN))
            if row >= 0:
                found.append((int(rows.time[row]), part.partition, part.first_sequence + row, part))
        return found


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


def _settled(pieces: list[Piece], low: int) -> int:
    """Rows before all that have at least this order."""
    return sum(int(np.searchsorted(piece.order, low)) for piece in pieces)
