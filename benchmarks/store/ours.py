"""Our two tiers, asked as the product asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.store.filling import Kept
from benchmarks.store.questions import Groups, Kind, RowsOut, Tolerance, source_codes
from benchmarks.store.rows import NAMES, PARTITIONS
from lifecycle.archived_chunks import ArchivedChunks
from lifecycle.arrow import rows_table
from lifecycle.hot_store import HotStore
from lifecycle.planner import Aggregation, Field, Function, Question, Window
from lifecycle.query import HotQueries
from lifecycle.store import Store
from lifecycle.tiered import Tiered
from schemas.instants import US_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from benchmarks.store.archive_root import ArchiveRoot
    from benchmarks.store.questions import Answer, Asked
    from lifecycle.catalog import Unsealed
    from lifecycle.chunks import Column, Header, Read
    from lifecycle.store import StoreState
    from lifecycle.tally import Aggregates

_FIELDS: Final = (Field.SEQUENCE, Field.AUTHORITY_MS, Field.LOCAL_US, Field.SOURCE, Field.VALUE)
_POINT_FIELDS: Final = (Field.SEQUENCE, Field.AUTHORITY_MS, Field.VALUE)
_MINUTE: Final = Window(60 * US_PER_S)
_NONE: Final = np.zeros(0, np.int64)


class _Chunks:
    """Chunks of some tiers, and the rows that are in none yet."""

    def __init__(self, tiered: Tiered, states: dict[int, StoreState]) -> None:
        self._tiered, self._states, self._fold = tiered, states, Store()

    def partitions(self) -> Iterable[int]:
        return range(PARTITIONS)

    def unsealed(self, partition: int) -> Unsealed | None:
        return self._fold.unsealed(self._states[partition])

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        return self._tiered.headers(partition, first_sequence, most)

    def column(self, partition: int, first_sequence: int, column: Column, rows: int) -> Read:
        return self._tiered.column(partition, first_sequence, column, rows)

    def archived(self, partition: int, first_sequences: NDArray[np.int64]) -> int:
        return self._tiered.archived(partition, first_sequences)


class _Ours:
    """Either tier."""

    tolerance = Tolerance()

    def __init__(self, tiered: Tiered, states: dict[int, StoreState]) -> None:
        self._queries = HotQueries(_Chunks(tiered, states))

    def ask(self, asked: Asked) -> Any:
        """Of rows an Arrow table."""
        queries = self._queries
        match asked.kind:
            case Kind.TUMBLING:
                return queries.aggregate(Question(), Aggregation(window=_MINUTE))
            case Kind.ROWS_OUT | Kind.POINTS:
                fields = _FIELDS if asked.kind is Kind.ROWS_OUT else _POINT_FIELDS
                question = Question(from_us=asked.from_us, to_us=asked.to_us)
                return rows_table(queries.range(question, fields, asked.rows))
        sources = None if asked.source is None else (NAMES[asked.source],)
        return queries.aggregate(Question(from_us=asked.from_us, to_us=asked.to_us, sources=sources), Aggregation())

    def told(self, asked: Asked, said: Any) -> Answer:
        """As it is compared."""
        return _rows_in(said) if asked.rows else _groups_in(said)


class Hot(_Ours):
    """The hot tier. folder: as it was filled."""

    name = "hot tier"

    def __init__(self, folder: Path) -> None:
        kept = Kept(folder)
        self._store = HotStore.open(kept.hot)
        self.bytes_per_row = self._store.bytes_per_row()
        super().__init__(Tiered(self._store, None), kept.states())

    def close(self) -> None:
        """Let go of it."""
        self._store.close()


class Archive(_Ours):
    """Archives alone, but for the rows that are in no chunk yet."""

    name = "archives"

    def __init__(self, folder: Path, root: ArchiveRoot) -> None:
        self._archives = ArchivedChunks(root.files, root.lease)
        segments = root.segments()
        self.bytes_per_row = sum(each.size_bytes for each in segments) / sum(each.facts.rows for each in segments)
        super().__init__(Tiered(None, self._archives), Kept(folder).states())

    def close(self) -> None:
        """Let go of all files."""
        self._archives.close()


def _groups_in(said: Aggregates) -> Groups:
    start_us = np.zeros(1, np.int64) if said.window_start_us is None else said.window_start_us
    functions = said.functions
    names = (Function.SUM, Function.MIN, Function.MAX, Function.MEAN)
    return Groups(start_us, said.count, *(functions[name] for name in names))


def _rows_in(table: pa.Table) -> RowsOut:
    def integers(name: str) -> NDArray[np.int64]:
        return np.asarray(table[name].cast("int64").to_numpy(), np.int64)

    value = np.asarray(table["value"].to_numpy(), np.float64)
    place = integers("sequence"), integers("authority_timestamp")
    if "source" not in table.column_names:
        return RowsOut(*place, _NONE, _NONE, value)
    codes = table["source"].combine_chunks()
    source = source_codes(codes.dictionary.to_pylist())[codes.indices.to_numpy()]
    return RowsOut(*place, integers("local_timestamp"), source, value)
