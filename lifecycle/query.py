"""Questions to the hot tier: the last event of a source, rows in order, aggregates; each says how it was answered.

Problem: every event is to be found while it is hot, in milliseconds, and an aggregate must be the same however it was
found: from statistics, from rows, from chunks or from what is in no chunk yet. `planner` decides, kernels do the work,
`inquiry` opens what they work on; here rows are put in order, and what was asked is handed to who finds it.

GUARANTEE an answer is of all rows that were in the store when it was asked for, each once (see `inquiry`). Sums are the
true sums, rounded once. Rows across partitions stand in order of (running maximum of authority, partition, index),
within one by sequence.
HAZARD a damaged chunk raises ChunkDamagedError: there is no answer without it. Aggregates and `get` see counted events
only, `range` sees every DATA row.

Not for two threads at once.
"""

from __future__ import annotations

import heapq
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from lifecycle.aggregating import AnyTally, tallied
from lifecycle.catalog import HEADER_BYTES_MAX, Catalog
from lifecycle.chunks import Column
from lifecycle.column_cache import COLUMN_BYTES_MAX, ColumnCache
from lifecycle.drift_rows import DriftRows
from lifecycle.inquiry import Inquiry
from lifecycle.last_event import last_event
from lifecycle.partial import PartialTally
from lifecycle.parts import NO_ORDER, Piece, Selected, as_slice, gather, text_bytes_of
from lifecycle.planner import Aggregation, Explain, Field, Question, times_of
from lifecycle.query_kernel import Span
from lifecycle.row_kernel import match_rows, running_maximum
from lifecycle.tally import Aggregates, Tally
from schemas.clock import source as time_source
from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN, NS_PER_US
from streams.windows import By, Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lifecycle.catalog import Chunks
    from lifecycle.drift_question import DriftQuestion
    from lifecycle.drift_rows import DriftPage
    from lifecycle.parts import Part


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
        return self._selected(asked, last_event(asked, source), fields, 1)[0]

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
        parts = [asked.parts(partition) for partition in asked.partitions]
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
        tally = tallied(kind, asked, aggregation, statistics=statistics)
        self._end(asked)
        names = self._catalog.kinds if aggregation.by is By.KIND else self._catalog.sources
        return tally.result(names.names, asked.explain), tally

    def _ask(self, question: Question) -> Inquiry:
        started_ns = self._clock.monotonic_ns()
        here = sorted(self._chunks.partitions())
        partitions = here if question.partitions is None else sorted(set(question.partitions))
        if missing := sorted({*partitions, *question.sequences} - set(here)):
            raise BadInputError(f"partitions {missing} are not held here, but {here}. Ask the worker that holds them")
        low, high = times_of(question)
        return Inquiry(
            self._chunks,
            self._catalog,
            self._columns,
            question,
            partitions,
            low,
            high,
            Explain(),
            started_ns,
            self._catalog.headers_read,
        )

    def _end(self, asked: Inquiry) -> None:
        asked.explain.headers_read = self._catalog.headers_read - asked.headers_read
        asked.explain.elapsed_us = (self._clock.monotonic_ns() - asked.started_ns) // NS_PER_US

    def _match(self, asked: Inquiry, part: Part, *, ordered: bool) -> Piece:
        question = asked.question
        first, last = question.span(part.partition, part.first_sequence, part.rows)
        timed = question.from_us is not None or question.to_us is not None
        dated = timed and question.frame is Frame.CORRECTED  # a row of any part may have no time
        times = dated or (timed and (part.low < asked.low or part.high > asked.high))
        faults = dated or (timed and question.frame is Frame.LOCAL and not part.whole)
        rows: NDArray[np.int64] | slice = slice(first, last)
        if times or faults or question.sources is not None or question.kinds is not None:
            columns = asked.rows(
                part, times=times, values=False, faults=faults, flags=False,
                sources=question.sources is not None, kinds=question.kinds is not None,
            )  # fmt: skip
            chosen = np.empty(last - first, np.int64)
            span = Span(first, last, asked.low, asked.high, INT64_MAX, INT64_MIN)
            count = match_rows(columns, span, chosen)
            rows = as_slice(chosen[:count])
        if not ordered:
            return Piece(part, rows, NO_ORDER)
        order = np.empty(part.rows, np.int64)
        running_maximum(part.read(Column.AUTHORITY_MS), part.order_ms, order)
        return Piece(part, rows, order[rows])

    def _selected(
        self, asked: Inquiry, pieces: list[Piece], fields: tuple[Field, ...], limit: int
    ) -> tuple[Selected, NDArray[np.int64]]:
        rows, columns, order = gather(pieces, fields, limit)
        asked.explain.chunks_skipped = asked.count_chunks() - asked.explain.chunks_rows
        self._end(asked)
        more = sum(piece.size for piece in pieces) > limit
        selected = Selected(rows, columns, self._catalog.sources.names, self._catalog.kinds.names, more, asked.explain)
        return selected, order


def _settled(pieces: list[Piece], low: int) -> int:
    """Rows before all that have at least this order."""
    return sum(int(np.searchsorted(piece.order, low)) for piece in pieces)
