"""Aggregates of parts of the partitions, merged, against those of all of them at once: equal to the bit."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.arrow import aggregates_table, ipc_bytes
from lifecycle.partial import merge, needed, rounded
from lifecycle.planner import Aggregation, Explain, Function, Question, Window
from lifecycle.query import HotQueries
from schemas.errors import BadInputError
from streams.windows import By, Frame
from tests.core.hot_rows import DictionaryStore, odd_rows

MINUTE_US = 60_000_000


@functools.cache
def queries() -> HotQueries:
    """Over four partitions with all that can be the matter with a row."""
    return HotQueries(DictionaryStore({p: odd_rows(p, 400, 7) for p in range(4)}, chunk_rows=64, unsealed=10))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(By),
    st.sampled_from([None, Window(MINUTE_US), Window(90_000_000, 30_000_000)]),
    st.frozensets(st.sampled_from(Function)),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.sampled_from(Frame),
    st.sampled_from([((), False), ((1, 50_000, 99_900), False), ((1, 50_000, 99_900), True)]),
)
def test_parts_merge_to_the_whole(
    by: By,
    window: Window | None,
    functions: frozenset[Function],
    holder: list[int],
    frame: Frame,
    percentiles: tuple[tuple[int, ...], bool],
) -> None:
    """However partitions are spread over workers; sums are rounded once, percentiles those of all values."""
    aggregation = Aggregation(by, window, functions, *percentiles)
    whole = queries().aggregate(Question(frame), aggregation)
    answers = []
    for worker in sorted(set(holder)):
        partitions = tuple(p for p in range(4) if holder[p] == worker)
        more = replace(aggregation, functions=needed(aggregation))
        answers.append(queries().aggregate_partial(Question(frame, partitions=partitions), more))
    merged = merge(aggregation, answers, Explain())
    assert ipc_bytes(aggregates_table(merged)) == ipc_bytes(aggregates_table(whole))


def test_exact_percentiles_of_more_than_is_kept_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two answers; one's are taken as they are."""
    monkeypatch.setattr("lifecycle.tally.SAMPLES_MAX", 400)
    queries = HotQueries(DictionaryStore({p: odd_rows(p, 2_000, 7) for p in range(3)}, chunk_rows=64, unsealed=10))
    aggregation = Aggregation(percentiles=(50_000,), exact=True)
    more = replace(aggregation, functions=needed(aggregation))
    both = [queries.aggregate_partial(Question(partitions=(p,)), more) for p in (0, 1)]
    with pytest.raises(BadInputError, match="percentiles of this many events that different workers hold"):
        merge(aggregation, both, Explain())
    nothing = queries.aggregate_partial(Question(partitions=(2,), sources=(b"nobody",)), more)
    for answers in ([both[0], nothing], [nothing, both[0]]):
        merged = merge(aggregation, answers, Explain())
        assert merged.percentiles[50_000].tolist() == both[0][0].percentiles[50_000].tolist()


def test_a_sum_beyond_the_largest_double_is_infinite() -> None:
    """With its sign."""
    largest = int(1.7976931348623157e308) << 1074
    assert rounded(largest) == 1.7976931348623157e308
    assert (rounded(2 * largest), rounded(-2 * largest)) == (float("inf"), float("-inf"))
    assert (rounded(1), rounded(0)) == (5e-324, 0.0)
