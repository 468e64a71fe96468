"""The hot store's fold: gathers a partition's rows, with the judge's verdicts, into chunks.

Problem: every event must stay queryable with its verdict while it is hot, whatever becomes of a worker, and a chunk
that is written twice must be the same chunk. So what is stored is a function of the entries alone, like everything a
fold puts out; the shell writes it once the entries' transaction is committed.

    step       takes the next entries and their verdicts, returns the chunks that ended
    publish    from here on queries see the rows stepped so far: called once their chunks are written
    unsealed   the rows after the last chunk, as questions need them; for any thread

The state holds the rows of one chunk at most; `store_dump` has it as bytes.

GUARANTEE the same entries in other batches give the same bytes (see `chunks` for where a chunk ends).
GUARANTEE unsealed is consistent, at any time, from any thread, without a lock: what `publish` made visible is one
immutable object, rows are only appended to the arrays it views, and a chunk that begins has new ones. A query takes
unsealed first and then, from the store, the chunks before its first_sequence: so each row is seen exactly once.
HAZARD memory is bounded by ROWS and TEXT_BYTES, plus one value; readings between two rows have no bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np

from lifecycle import catalog
from lifecycle.chunk_codec import encode_applied, encode_header_of, encode_readings, encode_rows
from lifecycle.chunk_facts import Reading, columns_of, header_of, readings_in
from lifecycle.chunks import (
    HASH_BYTES,
    NOTHING,
    ROWS,
    Applied,
    Column,
    Readings,
    Rows,
)
from lifecycle.packing import Texts
from lifecycle.store_kernel import Fixed, Names, Number, Stop, gather
from schemas.memory import address_of
from streams.fold import FoldError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from schemas.columns import Entries, Events
    from streams.judge import Outputs
    from streams.judge_kernel import Verdicts

TextsOrNames = TypeVar("TextsOrNames", Texts, Names)

#: At first; doubled when they are full. Events of the usual 80 bytes need no more.
_NAMES_BYTES: Final = 16 * 1024
_EVENT_ID_BYTES: Final = 40 * ROWS
_PAYLOAD_BYTES: Final = 64 * ROWS
_PLACES: Final = 2 * ROWS
#: Sources whose codes are found without looking at their names.
_MEMO: Final = ROWS


class Sealed(NamedTuple):
    """A chunk that ended: what is written, and in one piece.

    number: how many chunks the partition had with it. sections: each column under its key, READINGS only where there
    are any. applied: the partition's record once this chunk is stored.
    """

    partition: int
    first_sequence: int
    last_sequence: int
    first_index: int
    last_index: int
    rows: int
    number: int
    header: bytes
    sections: dict[Column, bytes]
    applied: bytes


class Filling:
    """The chunk that is being filled."""

    def __init__(self, before: Applied) -> None:
        self.before = before
        columns: list[Any] = [_column(name) for name in Fixed._fields]
        self.fixed = Fixed(*columns)
        self.sources = _no_names()
        self.kinds = _no_names()
        self.event_ids = Texts(np.zeros(ROWS + 1, np.int32), np.empty(_EVENT_ID_BYTES, np.uint8))
        self.payloads = Texts(np.zeros(ROWS + 1, np.int32), np.empty(_PAYLOAD_BYTES, np.uint8))
        self.memo = np.zeros(_MEMO, np.int64)
        self.readings: list[Reading] = []
        self.numbers = np.zeros(len(Number), np.int64)
        self.numbers[Number.ORDER_MS] = before.order_ms
        self.numbers[Number.LAST_SEQUENCE] = before.sequence

    def grow(self, events: Events, row: int) -> None:
        """Room for the texts of a row, where there is none."""
        rows, _, _, sources, kinds, _ = self.numbers.tolist()
        self.sources = _roomy(self.sources, sources, int(events.source_length[row]))
        self.kinds = _roomy(self.kinds, kinds, int(events.kind_length[row]))
        self.event_ids = _roomy(self.event_ids, rows, int(events.event_id_length[row]))
        self.payloads = _roomy(self.payloads, rows, int(events.payload_length[row]))

    def view(self) -> View:
        """What is in it now; stays so."""
        rows, _, _, sources, kinds, _ = self.numbers.tolist()
        return View(
            self.before, rows, self.fixed, self.event_ids, self.payloads, self.sources, sources, self.kinds, kinds,
            self.readings, len(self.readings),
        )  # fmt: skip


class View(NamedTuple):
    """A chunk up to a row: arrays that only grow behind it, and how much of them was there.

    Made after every transaction and looked at only by who asks, so it cuts nothing out of them.
    """

    before: Applied
    rows: int
    fixed: Fixed
    event_ids: Texts
    payloads: Texts
    sources: Names
    sources_count: int
    kinds: Names
    kinds_count: int
    readings: list[Reading]
    readings_count: int

    def names(self) -> tuple[Texts, Texts]:
        """Of the sources and of the kinds, by code."""
        sources, kinds = (Texts(names.offsets, names.content) for names in (self.sources, self.kinds))
        return _first(sources, self.sources_count), _first(kinds, self.kinds_count)


@dataclass(slots=True)
class StoreState:
    """Of one partition. applied: the last chunk that ended; last_index: of the last entry stepped."""

    partition: int
    applied: Applied
    last_index: int
    filling: Filling
    visible: View


@dataclass(frozen=True, slots=True)
class Store:
    """The fold."""

    def new_state(self, partition: int, resume: Applied | None = None) -> StoreState:
        """After what is stored already; entries up to its index are passed over."""
        applied = NOTHING if resume is None else resume
        filling = Filling(applied)
        return StoreState(partition, applied, applied.index, filling, filling.view())

    def step(self, state: StoreState, entries: Entries, outputs: Outputs) -> list[Sealed]:
        """Take the next entries with what judge made of them; returns the chunks that ended, in order.

        Raises FoldError if the entries do not go on from the last step.
        """
        rows = entries.index.size
        start = int(np.searchsorted(entries.index, state.applied.index, side="right")) if rows else 0
        if start == rows:
            return []
        if int(entries.index[start]) != state.last_index + 1:
            raise FoldError(
                f"store was given index {entries.index[start]} after {state.last_index} in partition "
                f"{state.partition}. Read the ledger from the store's applied index"
            )
        ended: list[Sealed] = []
        for row, reading in readings_in(entries, start):
            self._take(state, entries, outputs, start, row, ended)
            last_sequence = int(state.filling.numbers[Number.LAST_SEQUENCE])
            state.filling.readings.append(reading._replace(sequence=last_sequence))
            start = row + 1
        self._take(state, entries, outputs, start, rows, ended)
        state.last_index = int(entries.index[-1])
        return ended

    def publish(self, state: StoreState) -> None:
        """Make visible what was stepped: its chunks are written."""
        state.visible = state.filling.view()

    def unsealed(self, state: StoreState) -> catalog.Unsealed | None:
        """The published rows after the last chunk, None where there is nothing. For any thread."""
        view = state.visible
        if view.rows == 0 and view.readings_count == 0:
            return None
        sources, kinds = (names.strings() for names in view.names())
        readings, before = partial(readings_of, view), view.before
        return catalog.Unsealed(rows_of(view), sources, kinds, readings, before.index, before.sequence)

    def _take(
        self, state: StoreState, entries: Entries, outputs: Outputs, start: int, stop: int, ended: list[Sealed]
    ) -> None:
        """Rows start to stop - 1, among which no reading is."""
        row, events, verdicts = start, outputs.events, outputs.verdicts
        while row < stop:
            filling = state.filling
            row, why = self._gather(filling, entries, events, verdicts, row, stop)
            match why:
                case Stop.BEFORE:
                    self._seal(state, int(entries.index[row]) - 1, ended)
                case Stop.AFTER:
                    self._seal(state, int(entries.index[row - 1]), ended)
                case Stop.GROW:
                    filling.grow(events, row)
                case Stop.OUT_OF_ORDER:
                    raise FoldError(
                        f"store was given sequence {entries.sequence[row]} after "
                        f"{filling.numbers[Number.LAST_SEQUENCE]} in partition {state.partition}. Read the ledger "
                        "from the store's applied index"
                    )

    def _gather(
        self, filling: Filling, entries: Entries, events: Events, verdicts: Verdicts, row: int, stop: int
    ) -> tuple[int, int]:
        into = (filling.sources, filling.kinds, filling.event_ids, filling.payloads)
        hashes = (entries.chain_hash, filling.fixed.chain_hash)
        addresses = np.array([*(address_of(texts.content) for texts in into), *map(address_of, hashes)], np.int64)
        gathered: tuple[int, int] = gather(
            row, stop, entries, events, verdicts, filling.fixed, *into, filling.memo, addresses, filling.numbers
        )
        return gathered

    def _seal(self, state: StoreState, last_index: int, ended: list[Sealed]) -> None:
        """End the chunk with the entry of that index and begin the next."""
        view, partition = state.filling.view(), state.partition
        rows, readings = rows_of(view), readings_of(view)
        header = header_of(partition, view.before, rows, view.readings_count, last_index)  # names: as they are
        sections = encode_rows(partition, rows)
        if header.readings:
            sections[Column.READINGS] = encode_readings(partition, header.first_sequence, readings)
        order_ms = int(state.filling.numbers[Number.ORDER_MS])
        applied = Applied(last_index, header.last_sequence, view.before.chunks + 1, order_ms)
        ended.append(
            Sealed(
                partition=partition,
                first_sequence=header.first_sequence,
                last_sequence=header.last_sequence,
                first_index=header.first_index,
                last_index=last_index,
                rows=header.rows,
                number=applied.chunks,
                header=encode_header_of(header, *view.names()),
                sections=sections,
                applied=encode_applied(partition, applied),
            )
        )
        state.applied = applied
        state.filling = Filling(applied)


def rows_of(view: View) -> Rows:
    """Its rows."""
    columns: dict[str, Any] = {name: column[: view.rows] for name, column in view.fixed._asdict().items()}
    return Rows(event_id=_first(view.event_ids, view.rows), payload=_first(view.payloads, view.rows), **columns)


def readings_of(view: View) -> Readings:
    """Its readings."""
    return columns_of(view.readings[: view.readings_count])


def _column(name: str) -> NDArray[Any]:
    """Room for ROWS of a column."""
    if name == "chain_hash":
        return np.empty((ROWS, HASH_BYTES), np.uint8)
    dtypes: dict[str, Any] = {"value": np.float64, "source": np.int32, "kind": np.int32}
    narrow = ("has_value", "severity", "flags", "fault", "has_hlc", "cause")
    return np.empty(ROWS, np.uint8 if name in narrow else dtypes.get(name, np.int64))


def _no_names() -> Names:
    return Names(np.zeros(ROWS + 1, np.int32), np.empty(_NAMES_BYTES, np.uint8), np.zeros(_PLACES, np.int64))


def _roomy(texts: TextsOrNames, count: int, length: int) -> TextsOrNames:
    """With room for one more text after the first so many; what was there stays where queries read it."""
    used = int(texts.offsets[count])
    if used + length <= texts.content.size:
        return texts
    content = np.empty(max(2 * texts.content.size, used + length), np.uint8)
    content[:used] = texts.content[:used]
    return texts._replace(content=content)


def _first(texts: Texts, count: int) -> Texts:
    """The first so many, as views."""
    return Texts(texts.offsets[: count + 1], texts.content[: texts.offsets[count]])
