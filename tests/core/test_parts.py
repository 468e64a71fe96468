"""Pieces put together: with and without an order, cut at a limit, texts and what is not there."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.packing import Texts
from lifecycle.parts import Part, Piece, as_slice, gather
from lifecycle.planner import Field
from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN
from tests.core.hot_rows import odd_rows

if TYPE_CHECKING:
    from lifecycle.chunks import Column, Rows

NO_ORDER = np.zeros(0, np.int64)


def _part(partition: int, rows: Rows, *, whole: bool = False, valued: bool = False) -> Part:
    def read(column: Column) -> Any:
        return getattr(rows, column.name.lower())

    codes = np.arange(10, 14, dtype=np.int32)
    return Part(partition, 1, rows.sequence.size, whole, INT64_MIN, INT64_MIN, INT64_MAX, codes, codes, read, valued)


@pytest.mark.parametrize("limit", [1, 3, 5, 9, 100])
def test_without_an_order_pieces_follow_one_another(limit: int) -> None:
    """Up to the limit, which may fall into a piece of either sort."""
    first, second = odd_rows(0, 20, 1).rows, odd_rows(1, 20, 1).rows
    pieces = [
        Piece(_part(0, first), slice(4, 8), NO_ORDER),
        Piece(_part(1, second), np.array([0, 3, 19]), NO_ORDER),
    ]
    total, columns, _ = gather(pieces, tuple(Field), limit)
    assert total == min(limit, 7)
    assert columns[Field.SEQUENCE].values[:].tolist() == [5, 6, 7, 8, 1, 4, 20][:limit]  # type: ignore[union-attr]
    texts = columns[Field.EVENT_ID].values
    assert isinstance(texts, Texts)
    expected = [first.event_id.at(row) for row in range(4, 8)] + [second.event_id.at(row) for row in (0, 3, 19)]
    assert [texts.at(row) for row in range(total)] == expected[:limit]


def test_an_order_mixes_the_pieces_and_keeps_that_of_equals() -> None:
    """Of equals the earlier piece's, as partitions ascend."""
    rows = odd_rows(0, 6, 2).rows
    pieces = [
        Piece(_part(0, rows), slice(0, 3), np.array([1, 5, 5])),
        Piece(_part(1, rows), np.array([2, 4]), np.array([1, 5])),
    ]
    total, columns, _ = gather(pieces, (Field.PARTITION, Field.SEQUENCE, Field.PAYLOAD, Field.LOCAL_US), 4)
    found = [columns[name].values[:total].tolist() for name in (Field.PARTITION, Field.SEQUENCE)]  # type: ignore[union-attr]
    assert (total, found) == (4, [[0, 1, 0, 0], [1, 3, 2, 3]])
    texts = columns[Field.PAYLOAD].values
    assert isinstance(texts, Texts)
    assert [texts.at(row) for row in range(4)] == [rows.payload.at(row) for row in (0, 2, 1, 2)]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.tuples(st.integers(0, 19), st.integers(0, 3)), max_size=6)), max_size=6
    ),
    st.integers(1, 40),
)
@settings(max_examples=100)
def test_every_field_of_ordered_pieces_is_as_a_sort_gives_it(
    drawn: list[tuple[int, list[tuple[int, int]]]], limit: int
) -> None:
    """Pieces of several chunks of a partition among them, some of rows that follow one another."""
    rows = odd_rows(0, 20, 5).rows
    begins = dict.fromkeys(range(3), 0)
    pieces, expected = [], []
    for partition, chosen in sorted(drawn, key=lambda piece: piece[0]):
        places = np.array(sorted({row for row, _ in chosen}), np.int64)
        if not places.size:
            continue
        order = begins[partition] + np.cumsum([step for _, step in chosen][: places.size])
        begins[partition] = int(order[-1])
        pieces.append(Piece(_part(partition, rows), as_slice(places), order))
        expected += [(at, partition, row) for at, row in zip(order.tolist(), places.tolist(), strict=True)]
    expected = sorted(expected, key=lambda row: row[:2])[:limit]
    total, columns, order = gather(pieces, tuple(Field), limit)
    alone = gather([Piece(_part(0, rows), slice(0, 20), NO_ORDER)], tuple(Field), 20).columns
    assert (total, order.tolist()) == (len(expected), [at for at, _, _ in expected])
    for name, (values, valid) in columns.items():
        if name is Field.PARTITION:
            assert isinstance(values, np.ndarray)
            assert values.tolist() == [partition for _, partition, _ in expected]
            continue
        column, there = alone[name]
        if isinstance(values, Texts) and isinstance(column, Texts):
            assert [values.at(row) for row in range(total)] == [column.at(row) for _, _, row in expected]
        elif isinstance(values, np.ndarray) and isinstance(column, np.ndarray):
            assert values.tobytes() == b"".join(column[row].tobytes() for _, _, row in expected)
        marks = [True] * total if valid is None else valid.tolist()
        assert marks == [there is None or bool(there[row]) for _, _, row in expected]


def test_a_part_that_has_all_values_is_not_asked_which() -> None:
    """What a header says need not be read."""
    rows = odd_rows(0, 20, 6).rows
    assert (
        gather([Piece(_part(0, rows), slice(0, 20), NO_ORDER)], (Field.VALUE,), 20).columns[Field.VALUE].valid
        is not None
    )
    known = Piece(_part(0, rows, valued=True), slice(0, 20), NO_ORDER)
    assert gather([known], (Field.VALUE,), 20).columns[Field.VALUE].valid is None


def test_names_are_those_of_the_catalog_and_absent_where_a_row_is_unreadable() -> None:
    """-1 stays -1, and is no place."""
    rows = odd_rows(0, 40, 3).rows
    assert (rows.source == -1).any()
    columns = gather([Piece(_part(0, rows), slice(0, 40), NO_ORDER)], (Field.SOURCE, Field.VALUE), 40).columns
    named = columns[Field.SOURCE]
    assert named.values[:].tolist() == [-1 if code < 0 else code + 10 for code in rows.source]  # type: ignore[union-attr]
    assert named.valid is not None
    assert named.valid.tolist() == [code >= 0 for code in rows.source]
    assert columns[Field.VALUE].valid is not None


def test_nothing_gathered_has_all_columns() -> None:
    """Each with its type and no row."""
    total, columns, _ = gather([], tuple(Field), 10)
    assert total == 0
    for name, (values, valid) in columns.items():
        assert valid is None
        assert (values.content if isinstance(values, Texts) else values).size == 0, name


def test_texts_that_offsets_cannot_count_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before memory is taken for them."""
    monkeypatch.setattr("lifecycle.parts.TEXT_BYTES_MAX", 5)
    rows = odd_rows(0, 30, 4).rows
    pieces = list(itertools.repeat(Piece(_part(0, rows), slice(0, 30), NO_ORDER), 2))
    with pytest.raises(BadInputError, match="fewer rows"):
        gather(pieces, (Field.EVENT_ID,), 100)
