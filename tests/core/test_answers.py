"""Answers part by part: together they are the whole, and a stream without its end is none."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from lifecycle import answers
from lifecycle.answers import fields_of, parts_of
from lifecycle.arrow import rows_table
from lifecycle.arrow_stream import ArrowWriter, read_arrow
from lifecycle.planner import Aggregation, Field, Question, Window
from lifecycle.query import HotQueries
from lifecycle.reader import merged_rows
from lifecycle.requests import Aggregate, Get, Range
from lifecycle.rows import names_in, rows_in
from schemas.errors import UnreachableError
from streams.windows import By
from tests.core.hot_rows import DictionaryStore, odd_rows

if TYPE_CHECKING:
    from lifecycle.arrow_stream import Part
    from lifecycle.requests import Request

FIELDS = tuple(Field)


class _Store:
    """Queries over a store, asked at once."""

    def __init__(self) -> None:
        self.store = DictionaryStore({p: odd_rows(p, 300, 9) for p in (0, 1)}, chunk_rows=64, unsealed=10)
        self.queries = HotQueries(self.store)
        self.asked = 0

    def ask(self, question: Any) -> Any:
        """Counted."""
        self.asked += 1
        return question(self.queries, lambda partition: int(self.store.contents[partition].rows.sequence[-1]))

    def parts(self, request: Request, *, partial: bool = False) -> list[Part]:
        """Of both partitions."""
        return list(parts_of(request, (0, 1), self.ask, partial=partial))


@pytest.mark.parametrize("limit", [1, 50, 51, 333, 600, 10_000])
@pytest.mark.parametrize("sequences", [{}, {0: (17, 120)}, {0: (1, 50), 1: (290, 2**63 - 1)}, {0: (5_000, 6_000)}])
def test_parts_are_the_whole(
    monkeypatch: pytest.MonkeyPatch, limit: int, sequences: dict[int, tuple[int, int]]
) -> None:
    """In the same order, with the same cut, whatever a part holds."""
    monkeypatch.setattr(answers, "PART_ROWS", 50)
    store = _Store()
    question = Question(sequences=sequences, partitions=(0, 1))
    whole = store.queries.range(question, FIELDS, limit)
    parts = store.parts(Range(question, FIELDS, limit))
    found = pa.concat_tables([part.table for part in parts])
    assert list(rows_in(found)) == list(rows_in(rows_table(whole)))
    assert [part.ending is None for part in parts] == [True] * (len(parts) - 1) + [False]
    assert parts[-1].ending is not None
    assert parts[-1].ending.more == whole.more
    assert store.asked == len(parts)


@pytest.mark.parametrize("limit", [1, 7, 100, 599, 600, 601, 70_000])
@pytest.mark.parametrize("text_bytes", [0, 60, 3_000])
def test_parts_are_bounded_by_their_texts(monkeypatch: pytest.MonkeyPatch, limit: int, text_bytes: int) -> None:
    """But for what the chunk of each partition has beyond it that was read last; together they are the whole."""
    monkeypatch.setattr(answers, "PART_TEXT_BYTES", text_bytes)
    store = _Store()
    whole = rows_table(store.queries.range(Question(partitions=(0, 1)), FIELDS, limit))
    parts = store.parts(Range(Question(partitions=(0, 1)), FIELDS, limit))
    assert list(rows_in(pa.concat_tables([part.table for part in parts]))) == list(rows_in(whole))
    of_chunk = max(_text_bytes(whole.slice(at, 64)) for at in range(0, whole.num_rows, 64))
    assert max(_text_bytes(part.table) for part in parts) <= text_bytes + 3 * of_chunk
    assert len(parts) >= min(limit, 600) // 200 or text_bytes == 3_000
    assert parts[-1].ending is not None
    assert parts[-1].ending.more == (limit < 600)


@pytest.mark.parametrize("partial", [False, True])
def test_groups_are_written_in_parts(monkeypatch: pytest.MonkeyPatch, *, partial: bool) -> None:
    """All of them as Python objects took gigabytes. Together the parts are the whole, and the last has the end."""
    store = _Store()
    request = Aggregate(Question(), Aggregation(By.SOURCE, Window(60_000_000)))
    [whole] = store.parts(request, partial=partial)
    rows = whole.table.num_rows
    assert rows > 5
    for size in (1, 2, rows - 1, rows, rows + 1):
        monkeypatch.setattr(answers, "PART_ROWS", size)
        parts = store.parts(request, partial=partial)
        assert [part.table.num_rows for part in parts[:-1]] == [size] * (len(parts) - 1)
        assert pa.concat_tables([part.table for part in parts]).equals(whole.table)
        assert [part.ending is None for part in parts] == [True] * (len(parts) - 1) + [False]


def _text_bytes(table: pa.Table) -> int:
    return sum(len(text or b"") for name in ("event_id", "payload") for text in table[name].to_pylist())


def test_rows_of_one_partition_are_merged_in_the_order_of_all() -> None:
    """Of workers that hold one partition each: the first rows are those that one store would tell first."""
    store = _Store()
    for limit in (10, 250, 1_000):
        request = Range(Question(), (Field.AUTHORITY_MS, Field.VALUE), limit)
        whole = rows_table(store.queries.range(request.question, fields_of(request), limit))
        tables = [
            pa.concat_tables(part.table for part in parts_of(request, (partition,), store.ask, partial=True))
            for partition in (0, 1)
        ]
        merged, more = merged_rows(request, tables, more=False)
        assert list(rows_in(merged)) == list(rows_in(whole.select(merged.column_names)))
        assert more == (limit < 600)


def test_a_stream_is_read_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that differ from part to part, an answer of nothing, and an end that is missing."""
    monkeypatch.setattr(answers, "PART_ROWS", 20)
    requests: list[Request] = [
        Range(Question(), FIELDS, 1_000),
        Range(Question(sources=(b"nobody",)), FIELDS, 5),
        Get(b"s1"),
        Aggregate(Question(), Aggregation(By.SOURCE, percentiles=(50_000,))),
    ]
    for request in requests:
        parts = _Store().parts(request)
        writer = ArrowWriter()
        written = [writer.write(part) for part in parts]
        table, ending = read_arrow(io.BytesIO(b"".join(written)))
        assert list(rows_in(table)) == list(rows_in(pa.concat_tables([part.table for part in parts])))
        assert ending._replace(explain={}) == (parts[-1].ending or ending)._replace(explain={})
        with pytest.raises(UnreachableError):
            read_arrow(io.BytesIO(b"".join(written)[: -len(written[-1]) // 2]))


def test_rows_read_as_events_do() -> None:
    """Instants twice, bytes as text or base64, what JSON cannot spell as text; far years too."""
    table = pa.table(
        {
            "local_timestamp": pa.array([0, 2**63 - 1, None], pa.timestamp("us", tz="UTC")),
            "payload": pa.array([b"a", b"\xff", None], pa.binary()),
            "value": [1.5, math.nan, -math.inf],
            "chain_hash": pa.array([bytes(32)] * 3, pa.binary(32)),
            "source": pa.array(["s", None, "s"]).dictionary_encode(),
        }
    )
    rows = list(rows_in(table))
    assert list(rows[0]) == names_in(table.schema)
    assert rows[0] == {
        "local_timestamp_us": 0, "local_timestamp": "1970-01-01T00:00:00.000000Z", "payload": "a",
        "payload_base64": None, "value": 1.5, "chain_hash": "00" * 32, "source": "s",
    }  # fmt: skip
    assert rows[1]["local_timestamp"] == "+294247-01-10T04:00:54.775807Z"
    assert (rows[1]["payload_base64"], rows[1]["value"], rows[2]["value"]) == ("/w==", "NaN", "-Infinity")
    assert rows[2]["local_timestamp"] is None
