"""A scan of rows that are held in memory: what SQL and exports are tested with, without a broker."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import pyarrow as pa

from lifecycle.answers import ORDER, PART_TEXT_BYTES
from lifecycle.arrow import rows_table
from lifecycle.query import HotQueries
from lifecycle.scan import Answer, Scan
from streams.settings import Settings

if TYPE_CHECKING:
    from lifecycle.requests import Range
    from tests.core.hot_rows import DictionaryStore


class HeldScan(Scan):
    """Of a store. asked: the questions; pruned: what the first events of partitions are from now on."""

    def __init__(self, store: DictionaryStore) -> None:
        super().__init__(Settings())
        self.store = store
        self.queries = HotQueries(store)
        self.asked: list[Range] = []
        self.pruned: dict[int, int] = {}

    def _begin(self) -> dict[int, tuple[int, int]]:
        return {partition: (1, int(content.rows.sequence[-1])) for partition, content in self.store.contents.items()}

    def _first(self, partition: int, last: int) -> int:
        return self.pruned.get(partition, super()._first(partition, last))

    def _ask(self, partition: int, request: Range, *, ordered: bool) -> Answer:
        assert request.question.partitions == (partition,)
        self.asked.append(request)
        selected, order = self.queries.range_ordered(
            request.question, request.fields, request.limit, of_one=ordered, text_bytes=PART_TEXT_BYTES
        )
        table = rows_table(selected)
        if ordered:
            table = table.append_column(ORDER, pa.array(order))
        return Answer(table, asdict(selected.explain), selected.more)
