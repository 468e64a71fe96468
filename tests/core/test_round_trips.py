"""Which round trips are told, how often, and of how many sources."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from schemas import round_trips
from schemas.round_trips import EXCHANGE_EVERY_US, RoundTrip, RoundTrips

if TYPE_CHECKING:
    import pytest


def _trip(offset: int, sent_us: int, width_us: int) -> RoundTrip:
    return RoundTrip(3, offset, sent_us, sent_us + width_us, sent_us // 1_000)


def test_the_narrowest_since_the_last_one_is_told_once() -> None:
    """And of the next interval the next one."""
    trips = RoundTrips()
    for offset, width_us in enumerate((900, 400, 700)):
        trips.acknowledged("a", _trip(offset, 1_000, width_us))
    assert trips.to_tell("b", 5_000) is None
    assert trips.to_tell("a", 5_000) == {
        "partition": 3, "offset": 1, "sent_us": 1_000, "acked_us": 1_400, "appended_ms": 1,
    }  # fmt: skip
    assert trips.to_tell("a", 5_000 + EXCHANGE_EVERY_US) is None
    trips.acknowledged("a", _trip(9, 2_000, 5_000))
    assert trips.to_tell("a", 4_999 + EXCHANGE_EVERY_US) is None
    told = trips.to_tell("a", 5_000 + EXCHANGE_EVERY_US)
    assert told is not None
    assert told["offset"] == 9


def test_a_clock_that_went_back_keeps_no_source_silent() -> None:
    """Its next event tells again; a round trip across the step is of no use."""
    trips = RoundTrips()
    trips.acknowledged("a", _trip(1, 10**12, 500))
    assert trips.to_tell("a", 10**12)
    trips.acknowledged("a", _trip(2, 10**12, -(10**11)))
    assert trips.to_tell("a", 9 * 10**11) is None
    trips.acknowledged("a", _trip(3, 9 * 10**11, 500))
    assert trips.to_tell("a", 9 * 10**11)


def test_sources_that_were_longest_without_an_acknowledgement_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three at most here."""
    monkeypatch.setattr(round_trips, "SOURCES_MAX", 3)
    trips = RoundTrips()
    for offset, source in enumerate("abcad"):
        trips.acknowledged(source, _trip(offset, 0, 1))
    assert [source for source in "abcd" if trips.to_tell(source, 0)] == ["a", "c", "d"]


@given(st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**6)), max_size=60))
def test_no_source_tells_more_often_than_it_should(steps: list[tuple[int, int]]) -> None:
    """Whatever the intervals between its events and the widths."""
    trips, now_us, told_us = RoundTrips(), 0, []
    for elapsed_us, width_us in steps:
        now_us += elapsed_us
        trips.acknowledged("a", _trip(0, now_us, width_us))
        if trips.to_tell("a", now_us):
            told_us.append(now_us)
    assert all(after - before >= EXCHANGE_EVERY_US for before, after in itertools.pairwise(told_us))
    assert not steps or told_us[0] == steps[0][0]
