"""Compiles every kernel that questions call, by asking some of each sort of a store of a few rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from lifecycle.chunk_codec import decode_header, read_section
from lifecycle.packing import Reader, pack_ints, pack_texts, texts_of
from lifecycle.planner import Aggregation, Field, Question, Window
from lifecycle.query import HotQueries
from lifecycle.row_kernel import estimates_ms, mark_used, put_at
from lifecycle.spread import Spread, Spreads, joined, percentile_of
from lifecycle.store import Store
from streams.windows import By, Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lifecycle.catalog import Unsealed
    from lifecycle.chunks import Column, Header, Read
    from lifecycle.store import Sealed, StoreState
    from schemas.columns import Entries
    from streams.judge import Outputs

_MINUTE_US: Final = 60_000_000
#: More than there is room for at first.
_WINDOWS: Final = 300
_UUID: Final = b"018f0000-0000-7000-8000-000000000000"


class _Chunks:
    """Two partitions with the same rows: those that ended a chunk, and those that did not yet."""

    def __init__(self, entries: Entries, judged: Outputs) -> None:
        self._fold = Store()
        self._states: dict[int, StoreState] = {}
        self._sealed: dict[int, list[Sealed]] = {}
        for partition in (0, 1):
            state = self._states[partition] = self._fold.new_state(partition)
            self._sealed[partition] = self._fold.step(state, entries, judged)
            self._fold.publish(state)

    def partitions(self) -> list[int]:
        """Both."""
        return sorted(self._states)

    def unsealed(self, partition: int) -> Unsealed | None:
        """Of the fold."""
        return self._fold.unsealed(self._states[partition])

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        """Of the chunks that ended."""
        later = [sealed for sealed in self._sealed[partition] if sealed.first_sequence >= first_sequence]
        return [decode_header(partition, sealed.first_sequence, sealed.header) for sealed in later[:most]]

    def column(self, partition: int, first_sequence: int, column: Column, rows: int) -> Read:
        """Of the chunk."""
        chunk = next(sealed for sealed in self._sealed[partition] if sealed.first_sequence == first_sequence)
        return read_section(partition, first_sequence, column, rows, chunk.sections[column])

    def archived(self, _partition: int, _first_sequences: NDArray[np.int64]) -> int:
        """None."""
        return 0


def warm_queries(entries: Entries, judged: Outputs) -> None:
    """Load the kernels, compiling what the cache does not hold. entries: some whose last ends a chunk before it."""
    queries = HotQueries(_Chunks(entries, judged))
    names = (b"warm",)
    for frame in Frame:
        for question in (
            Question(frame),
            Question(frame, 0, _MINUTE_US + 1, names, names, (0,), {0: (1, 9)}),
            Question(frame, 1, None, names, names),
        ):
            queries.range(question, tuple(Field), 10)
            for by in By:
                for window in (None, Window(2_000), Window(_WINDOWS * _MINUTE_US, _MINUTE_US)):
                    queries.aggregate(question, Aggregation(by, window))
                    queries.aggregate_partial(question, Aggregation(by, window, percentiles=(50_000,)))
    _warm_spreads()
    Reader(pack_texts(texts_of([_UUID]))).texts(1, len(_UUID))
    Reader(pack_ints(np.arange(2) * _MINUTE_US)).ints(2)
    place, code = np.zeros(1, np.int64), np.zeros(1, np.int32)
    for values in (place, code, np.zeros(1), np.zeros(1, np.uint8)):
        put_at(values, place, values)
    mark_used(code, np.zeros(1, np.bool_))
    estimates_ms(place, place, np.zeros(1, np.int64), np.zeros(1, np.int64))
    queries.get(*names)
    queries.get(*names, at_us=_MINUTE_US)


def _warm_spreads() -> None:
    """Of more values than are kept, read twice, and merged."""
    spreads, many = Spreads((50_000,), exact=True), np.array([_WINDOWS])
    spreads.make_room(0, _WINDOWS)
    spreads.samples.group[:_WINDOWS], spreads.samples.value[:_WINDOWS] = 0, 1.0
    spreads.look_again(spreads.settle(_WINDOWS, many), many)
    spreads.settle(_WINDOWS, many)
    spreads.result(0, many)
    percentile_of(joined([Spread(np.ones(_WINDOWS))], exact=False), 50_000)
