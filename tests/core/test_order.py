"""Order across partitions: authority time decides between them, the index within one."""

from __future__ import annotations

from itertools import accumulate, count, islice
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from schemas.instants import INT64_MAX, INT64_MIN
from streams.order import merge, newest_first

if TYPE_CHECKING:
    from collections.abc import Iterator

Item = tuple[int, int]
#: Authority times of some partitions: few values, so that they meet, and any order, so that clocks step back.
TIMES = st.lists(st.lists(st.integers(0, 9) | st.sampled_from([INT64_MIN, INT64_MAX]), max_size=8), max_size=5)


def placed(partition: int, times_ms: list[int]) -> list[tuple[int, Item]]:
    """Items of a partition, each behind its time: (partition, index)."""
    return [(ms, (partition, index)) for index, ms in enumerate(times_ms, start=1)]


def plainly(partitions: list[list[int]]) -> list[Item]:
    """All keys, sorted."""
    keys = [
        (highest, p, index)
        for p, times in enumerate(partitions)
        for index, highest in enumerate(accumulate(times, max), 1)
    ]
    return [(p, index) for _, p, index in sorted(keys)]


def test_a_clock_that_steps_back_does_not_turn_a_partition_round() -> None:
    """By its readings alone, index 3 of partition 0 would stand before index 2."""
    partitions = [placed(0, [10, 30, 20, 40]), placed(1, [15, 30, 35])]
    assert list(merge(partitions)) == [(0, 1), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3), (0, 4)]
    assert newest_first(partitions, 3) == [(0, 4), (1, 3), (1, 2)]


@given(TIMES, st.integers(1, 50))
def test_the_order_is_that_of_running_maximum_partition_and_index(partitions: list[list[int]], most: int) -> None:
    """And the newest are its end."""
    items = [placed(p, times) for p, times in enumerate(partitions)]
    assert list(merge(items)) == plainly(partitions)
    assert newest_first(items, most) == plainly(partitions)[::-1][:most]
    # an item may as well come behind the running maximum
    risen = [
        [(highest, item) for highest, (_, item) in zip(accumulate(times, max), items[p], strict=True)]
        for p, times in enumerate(partitions)
    ]
    assert list(merge(risen)) == plainly(partitions)


def test_no_more_is_read_than_is_listed() -> None:
    """Partitions without end: one item of each is held."""
    read = [0, 0, 0]

    def endless(partition: int) -> Iterator[tuple[int, Item]]:
        for index in count(1):
            read[partition] += 1
            yield index, (partition, index)

    assert list(islice(merge(endless(p) for p in range(3)), 4)) == [(0, 1), (1, 1), (2, 1), (0, 2)]
    assert read == [2, 2, 2]
