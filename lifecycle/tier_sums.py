"""What lies in tiers, summed: how many segments, rows and bytes, and from where to where they reach.

A segment is a file of the archive or an hour of the hot tier. Commands, HTTP and pages group them differently, and tell
the same sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from lifecycle.tiers import Grain, Tier, tier_at

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from lifecycle.tiers import Rules

_T = TypeVar("_T")


class Lying(Protocol):
    """A segment as it lies. first_ms, last_ms: of its entries, by authority time; end_ms: of its period."""

    @property
    def rows(self) -> int:
        """DATA entries."""
        ...

    @property
    def size_bytes(self) -> int:
        """What they take there."""
        ...

    @property
    def first_sequence(self) -> int:
        """Of the first."""
        ...

    @property
    def last_sequence(self) -> int:
        """Of the last; before the first where there is none."""
        ...

    @property
    def first_ms(self) -> int:
        """The least; of an hour its beginning."""
        ...

    @property
    def last_ms(self) -> int:
        """The greatest; of an hour its end."""
        ...

    @property
    def end_ms(self) -> int:
        """First ms behind it."""
        ...


class Sum(NamedTuple):
    """Of segments; instants in ms. end_ms_min, end_ms_max: of their periods."""

    segments: int
    rows: int
    size_bytes: int
    first_sequence: int
    last_sequence: int
    first_ms: int
    last_ms: int
    end_ms_min: int
    end_ms_max: int


class Place(NamedTuple):
    """Where a segment lies."""

    tier: Tier
    grain: Grain
    partition: int


def sum_of(segments: Collection[Lying]) -> Sum:
    """Of one segment or more."""
    return Sum(
        len(segments),
        sum(each.rows for each in segments),
        sum(each.size_bytes for each in segments),
        min(each.first_sequence for each in segments),
        max(each.last_sequence for each in segments),
        min(each.first_ms for each in segments),
        max(each.last_ms for each in segments),
        min(each.end_ms for each in segments),
        max(each.end_ms for each in segments),
    )


def by_place(placed: Iterable[tuple[Place, _T]]) -> list[tuple[Place, list[_T]]]:
    """What lies in each place, nearest first, then the shortest grain, then by partition."""
    found: dict[Place, list[_T]] = {}
    for place, each in placed:
        found.setdefault(place, []).append(each)
    tiers, grains = list(Tier), list(Grain)
    return sorted(
        found.items(), key=lambda one: (tiers.index(one[0].tier), grains.index(one[0].grain), one[0].partition)
    )


def hot_tier(end_ms: int, now_ms: int, rules: Rules) -> Tier:
    """Of an hour that is hot, by its age: LIVE, or RECENT, also where it should be hot no more."""
    return Tier.LIVE if tier_at(end_ms, now_ms, rules) is Tier.LIVE else Tier.RECENT
