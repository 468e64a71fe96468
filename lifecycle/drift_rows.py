"""The drift log and the warnings of a partition, a page at a time, out of chunks and of what is in no chunk yet.

Problem: what `streams.drift_entries` and `streams.drift_warnings` find in the ledger, decoded and judged again, is in
the hot tier already: severity, cause, estimate, flags, both times and the chain hash are columns of a chunk, ANCHOR,
VERIFY and LOCK entries its readings. So a page is gathered from columns: chunks that can have nothing of it are passed
over by their headers, and of the others the columns are read that the question needs.

A page goes forward from an index, or backward from one, and ends after `limit` entries or CHUNKS_MAX chunks.

GUARANTEE a page has every entry of the question with an index between where it began and `reached`, once, in order of
index; `head` is the index up to which the store went. Who asks on from `reached` up to the first page's head has all.
GUARANTEE memory: the entries of a page, and what is asked for of one chunk more. HAZARD readings between two rows have
no bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np

from lifecycle.chunks import HASH_BYTES, Column, ReadingCode, Readings
from lifecycle.packing import Texts, texts_of
from lifecycle.parts import Part, Piece, gather
from lifecycle.planner import Explain, Field
from lifecycle.query_kernel import holding
from lifecycle.row_kernel import deltas, estimates_ms
from schemas.errors import BadInputError
from schemas.faults import Fault
from schemas.instants import INT64_MAX, INT64_MIN
from streams.causes import Cause
from streams.judge_kernel import Flag
from streams.severity import GREEN, RED_FROM_MS, YELLOW_FROM_MS
from streams.windows import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from lifecycle.catalog import Block, Catalog, Chunks, Unsealed
    from lifecycle.drift_question import DriftQuestion

#: Chunks that are looked into for a page: where they have little of what is asked for, it ends so. A second at most.
CHUNKS_MAX: Final = 256
#: In place of a ReadingCode: the reading of an event.
DATA: Final = 0

_NOTHING: Final = np.zeros(0, np.int64)
_NO_TEXTS: Final = Texts(np.zeros(1, np.int32), np.zeros(0, np.uint8))
_NO_HASHES: Final = np.zeros((0, HASH_BYTES), np.uint8)
_FIELDS: Final = (
    Field.INDEX, Field.SEQUENCE, Field.AUTHORITY_MS, Field.LOCAL_US, Field.DELTA_MS, Field.SEVERITY, Field.CAUSE,
    Field.OFFSET_US, Field.BOUND_US, Field.SOURCE,
)  # fmt: skip


class DriftPage(NamedTuple):
    """Entries in order of index. reading: a ReadingCode, or DATA; an ANCHOR has no delta. source: codes of `names`.

    cause: a Cause, NONE where no event is; offset_ms, bound_ms: what was known of the source's clock after the event, a
    bound of -1 for nothing. chain_hash: of the drift log; event_id: of warnings.

    reached: the index up to, or down to, which the page has all; more: there may be more behind it. head: the index up
    to which the store goes.
    """

    index: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.index, which nobody asks a page for
    sequence: NDArray[np.int64]
    reading: NDArray[np.uint8]
    authority_ms: NDArray[np.int64]
    asserted_us: NDArray[np.int64]
    delta_ms: NDArray[np.int64]
    severity: NDArray[np.uint8]
    cause: NDArray[np.uint8]
    offset_ms: NDArray[np.int64]
    bound_ms: NDArray[np.int64]
    source: NDArray[np.int32]
    names: list[bytes]
    chain_hash: NDArray[np.uint8]
    event_id: Texts
    reached: int
    head: int
    more: bool
    explain: Explain


class _Held(NamedTuple):
    """A chunk, or what is in none: its indexes, and its rows and readings where they may be asked for."""

    first_index: int
    last_index: int
    part: Part | None
    readings: Callable[[], Readings] | None


class DriftRows:
    """Pages of one store. read: a column of a chunk, as `column_cache` has it."""

    def __init__(self, chunks: Chunks, catalog: Catalog, read: Callable[[int, int, Column, int, Explain], Any]) -> None:
        self._chunks, self._catalog, self._read = chunks, catalog, read

    def page(self, asked: DriftQuestion) -> DriftPage:
        """The next entries of a question."""
        if asked.partition not in self._chunks.partitions():
            raise BadInputError(f"partition {asked.partition} is not held here. Ask the worker that holds it")
        explain = Explain()
        unsealed = self._chunks.unsealed(asked.partition)  # before the chunks: so nothing falls in between
        self._catalog.refresh(asked.partition)
        stored = self._catalog.last_index(asked.partition) if unsealed is None else unsealed.before_index
        head = stored if unsealed is None else _last_index(unsealed)
        end = asked.after + 1 if asked.newest else max(min(asked.before - 1, head), asked.after)
        pieces: list[Piece] = []
        readings: list[Readings] = []
        entries, reached = 0, end
        for looked, held in enumerate(self._held(asked, unsealed, stored, explain), start=1):
            entries += _take(asked, held, self._catalog.sources.code(asked.source or b""), pieces, readings)
            if entries >= asked.limit:
                break
            if looked == CHUNKS_MAX:
                reached = held.first_index if asked.newest else held.last_index
                break
        if asked.newest:
            pieces.reverse()
            readings.reverse()
        page = _cut(self._gathered(asked, pieces, readings), asked)
        if entries >= asked.limit:
            reached = int(page.index[0 if asked.newest else -1])
        more = reached > end if asked.newest else reached < end
        explain.chunks_skipped = self._catalog.chunks_in(asked.partition) - explain.chunks_rows
        return page._replace(reached=reached, head=head, more=more, explain=explain)

    def _held(self, asked: DriftQuestion, unsealed: Unsealed | None, stored: int, explain: Explain) -> Iterator[_Held]:
        """What may have entries of the question, in the order in which it is asked. stored: index of the last chunk."""
        if unsealed is not None and asked.newest:
            yield self._unsealed(asked, unsealed, explain)
        for block in self._catalog.log_blocks(
            asked.partition, asked.after + 1, min(asked.before - 1, stored), asked.first_ms, asked.last_ms,
            warned=asked.warned, newest=asked.newest,
        ):  # fmt: skip
            yield from self._in_block(asked, block, stored, explain)
        if unsealed is not None and not asked.newest:
            yield self._unsealed(asked, unsealed, explain)

    def _in_block(self, asked: DriftQuestion, block: Block, stored: int, explain: Explain) -> Iterator[_Held]:
        numbers = block.numbers
        rows = (numbers["authority_ms_max"] >= asked.first_ms) & (numbers["authority_ms_min"] <= asked.last_ms)
        rows &= (numbers["last_sequence"] >= asked.first) & (numbers["first_sequence"] <= asked.last)
        if asked.source is not None:
            holding(*block.sources, self._catalog.sources.mask((asked.source,)), rows.view(np.uint8))
        if asked.warned:
            rows &= numbers["warned"] > 0
        readings = numbers["readings"] * (not asked.warned)
        here = (numbers["last_index"] > asked.after) & (numbers["first_index"] < asked.before)
        here &= (numbers["last_index"] <= stored) & (rows | (readings > 0))
        chunks = np.flatnonzero(here)
        for chunk in (chunks[::-1] if asked.newest else chunks).tolist():
            explain.chunks_rows += 1
            explain.chunks_archived += self._chunks.archived(
                block.partition, numbers["first_sequence"][chunk : chunk + 1]
            )
            yield _Held(
                int(numbers["first_index"][chunk]),
                int(numbers["last_index"][chunk]),
                self._part(block, chunk, explain) if rows[chunk] else None,
                self._readings(block, chunk, explain) if readings[chunk] else None,
            )

    def _part(self, block: Block, chunk: int, explain: Explain) -> Part:
        """A chunk's rows."""
        explain.rows_scanned += int(block.numbers["rows"][chunk])

        def read(first: int, column: Column, rows: int) -> Any:
            return self._read(block.partition, first, column, rows, explain)

        return block.part(chunk, Frame.AUTHORITY, read)

    def _readings(self, block: Block, chunk: int, explain: Explain) -> Callable[[], Readings]:
        """A chunk's readings, once they are asked for."""
        first, count = int(block.numbers["first_sequence"][chunk]), int(block.numbers["readings"][chunk])

        def read() -> Readings:
            readings, nbytes = self._chunks.column(block.partition, first, Column.READINGS, count)
            explain.bytes_read += nbytes
            explain.columns["readings"] = explain.columns.get("readings", 0) + 1
            return cast("Readings", readings)

        return read

    def _unsealed(self, asked: DriftQuestion, unsealed: Unsealed, explain: Explain) -> _Held:
        rows = unsealed.rows
        part = None
        if rows.sequence.size:
            explain.rows_unsealed += rows.sequence.size
            part = Part(
                asked.partition,
                int(rows.sequence[0]),
                rows.sequence.size,
                not rows.fault.any(),
                INT64_MIN,
                INT64_MIN,
                INT64_MAX,
                self._catalog.sources.codes(unsealed.sources),
                _NOTHING.astype(np.int32),
                lambda column: getattr(rows, column.name.lower()),
            )
        return _Held(
            unsealed.before_index + 1, _last_index(unsealed), part, None if asked.warned else unsealed.readings
        )

    def _gathered(self, asked: DriftQuestion, pieces: list[Piece], readings: list[Readings]) -> DriftPage:
        """Everything that was taken, in order of index."""
        fields = (*_FIELDS, Field.EVENT_ID if asked.warned else Field.CHAIN_HASH)
        rows, columns, _ = gather(pieces, fields, sum(piece.size for piece in pieces))
        index, sequence, authority_ms, local_us, delta_ms, severity, cause, offset_us, bound_us, source, last = (
            cast("Any", columns[name].values) for name in fields
        )
        offset_ms, bound_ms = np.empty(rows, np.int64), np.empty(rows, np.int64)
        estimates_ms(offset_us, bound_us, offset_ms, bound_ms)
        page = DriftPage(
            index=index,
            sequence=sequence,
            reading=np.full(rows, DATA, np.uint8),
            authority_ms=authority_ms,
            asserted_us=local_us,
            delta_ms=delta_ms,
            severity=severity,
            cause=cause,
            offset_ms=offset_ms,
            bound_ms=bound_ms,
            source=source,
            names=self._catalog.sources.names,
            chain_hash=_NO_HASHES if asked.warned else last,
            event_id=last if asked.warned else _NO_TEXTS,
            reached=0,
            head=0,
            more=False,
            explain=Explain(),
        )
        return self._joined(page, readings) if readings else page

    def _joined(self, page: DriftPage, readings: list[Readings]) -> DriftPage:
        """Rows and readings, in order of index."""
        asserted_us, authority_ms, kinds = (
            np.concatenate([getattr(some, name) for some in readings])
            for name in ("asserted_us", "authority_ms", "reading")
        )
        delta_ms = np.empty(asserted_us.size, np.int64)
        deltas(asserted_us, authority_ms, delta_ms)
        severity = np.searchsorted((YELLOW_FROM_MS, RED_FROM_MS), np.abs(delta_ms), side="right")
        sources, names = [name for some in readings for name in some.source.strings()], page.names
        if unknown := {name for name in sources if self._catalog.sources.code(name) < 0}:  # of no event
            names = [*names, *sorted(unknown)]
        codes = {name: len(page.names) + place for place, name in enumerate(names[len(page.names) :])}
        added: dict[str, Any] = {
            "index": np.concatenate([some.index for some in readings]),
            "sequence": np.concatenate([some.sequence for some in readings]),
            "reading": kinds,
            "authority_ms": authority_ms,
            "asserted_us": asserted_us,
            "delta_ms": delta_ms,
            "severity": np.where(kinds == ReadingCode.ANCHOR, GREEN, severity).astype(np.uint8),
            "cause": np.full(kinds.size, Cause.NONE, np.uint8),
            "offset_ms": np.zeros(kinds.size, np.int64),
            "bound_ms": np.full(kinds.size, -1, np.int64),
            "source": np.array([codes.get(name, self._catalog.sources.code(name)) for name in sources], np.int32),
            "chain_hash": np.concatenate([some.chain_hash for some in readings]),
        }
        order = np.argsort(np.concatenate([page.index, added["index"]]))
        both: dict[str, Any] = {
            name: np.concatenate([getattr(page, name), values])[order] for name, values in added.items()
        }
        return page._replace(names=names, **both)


def _last_index(unsealed: Unsealed) -> int:
    """Of the last entry that is visible."""
    rows, readings = unsealed.rows.index, unsealed.readings().index
    last: list[int] = [*rows[-1:].tolist(), *readings[-1:].tolist()]
    return max([unsealed.before_index, *last])


def _take(asked: DriftQuestion, held: _Held, source: int, pieces: list[Piece], readings: list[Readings]) -> int:
    """Add what is asked for, of each sort as much as a page can have; returns how many entries that is."""
    cut = held.first_index <= asked.after or held.last_index >= asked.before
    most = slice(-asked.limit, None) if asked.newest else slice(asked.limit)
    found = 0
    if held.part is not None:
        rows = _rows_in(asked, held.part, source, cut=cut)[most]
        if rows.size:
            pieces.append(Piece(held.part, rows, _NOTHING))
            found += rows.size
    if held.readings is not None:
        some = held.readings()
        places = _readings_in(asked, some)[most]
        if places.size:
            columns: dict[str, Any] = {
                name: getattr(some, name)[places] for name in Readings._fields if name != "source"
            }
            columns["source"] = texts_of([some.source.at(place) for place in places.tolist()])
            readings.append(Readings(**columns))
            found += places.size
    return found


def _rows_in(asked: DriftQuestion, part: Part, source: int, *, cut: bool) -> NDArray[np.int64]:
    """Places of the rows that are asked for. source: its code in the catalog; cut: not all of its indexes are."""
    start = min(max(asked.first - part.first_sequence, 0), part.rows)
    stop = max(min(asked.last - part.first_sequence + 1, part.rows), start)
    masks: list[NDArray[np.bool_]] = []
    if not part.whole:
        masks.append(part.read(Column.FAULT)[start:stop] == Fault.NONE)
    if asked.warned:
        masks.append(part.read(Column.FLAGS)[start:stop] & Flag.WARNED != 0)
    if part.low < asked.first_ms or part.high > asked.last_ms:
        masks.append(_within(part.read(Column.AUTHORITY_MS)[start:stop], asked.first_ms, asked.last_ms))
    if cut:
        masks.append(_within(part.read(Column.INDEX)[start:stop], asked.after + 1, asked.before - 1))
    if asked.source is not None:
        here = np.flatnonzero(part.sources == source)  # one at most
        if not here.size:
            return _NOTHING
        masks.append(part.read(Column.SOURCE)[start:stop] == here[0])
    if not masks:
        return np.arange(start, stop)
    return np.flatnonzero(np.logical_and.reduce(masks)) + start


def _readings_in(asked: DriftQuestion, readings: Readings) -> NDArray[np.int64]:
    """Places of the readings that are asked for."""
    mask = _within(readings.authority_ms, asked.first_ms, asked.last_ms)
    mask &= _within(readings.index, asked.after + 1, asked.before - 1)
    mask &= _within(readings.sequence, asked.first, asked.last)
    places = np.flatnonzero(mask)
    if asked.source is None:
        return places
    return np.array([place for place in places.tolist() if readings.source.at(place) == asked.source], np.int64)


def _within(values: NDArray[np.int64], low: int, high: int) -> NDArray[np.bool_]:
    return np.asarray((values >= low) & (values <= high))


def _cut(page: DriftPage, asked: DriftQuestion) -> DriftPage:
    """No more than were asked for."""
    if page.index.size <= asked.limit:
        return page
    rows = slice(page.index.size - asked.limit, None) if asked.newest else slice(asked.limit)
    event_id = page.event_id
    if asked.warned:
        event_id = Texts(event_id.offsets[rows if asked.newest else slice(asked.limit + 1)], event_id.content)
    columns: dict[str, Any] = {name: getattr(page, name)[rows] for name in _ARRAYS}
    return page._replace(**columns, chain_hash=page.chain_hash[rows], event_id=event_id)


_ARRAYS: Final = (
    "index", "sequence", "reading", "authority_ms", "asserted_us", "delta_ms", "severity", "cause", "offset_ms",
    "bound_ms", "source",
)  # fmt: skip
