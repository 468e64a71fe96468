"""Order across partitions: how entries of several partitions are listed as one.

Problem: sequences are counted within a partition, so between two partitions only authority time can decide. But a
broker's clock may step back, and by its readings alone a partition would be listed against its own sequence. So the
order is (running maximum of authority time in the partition, partition, index).

The maximum is that of what is listed, not of all there is: so a list is the same wherever its reading began, and from
wherever it was read, the ledger or the hot tier.

GUARANTEE within a partition the order is that of the index, whatever clocks did.
HAZARD behind a clock that stepped back, two lists of which one has less may mix the partitions differently.
"""

from __future__ import annotations

import heapq
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

from schemas.instants import INT64_MIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


def merge(partitions: Iterable[Iterable[tuple[int, T]]]) -> Iterator[T]:
    """Items of several partitions in the order across them, the oldest first.

    Partitions come in order of their number, each in order of index, an item behind its authority time. Lazy: of each
    partition one item is held.
    """
    rising = [_rising(items) for items in partitions]
    return (item for _, item in heapq.merge(*rising, key=itemgetter(0)))  # of equals, the earlier partition's first


def newest_first(partitions: Iterable[Iterable[tuple[int, T]]], most: int) -> list[T]:
    """The last `most` of merge, the newest first."""
    return list(merge(partitions))[: -most - 1 : -1]


def _rising(items: Iterable[tuple[int, T]]) -> Iterator[tuple[int, T]]:
    highest = INT64_MIN
    for at_ms, item in items:
        highest = max(highest, at_ms)
        yield highest, item
