"""Control records on their way into the ledger: which may go in, which wait, and which are passed over."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import pytest

from streams import control_feed
from streams.control_feed import CONTROL_PENDING_MAX, TAKE_MAX, ControlFeed

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def feed() -> Iterator[ControlFeed]:
    """Of one partition, without a broker."""
    with closing(ControlFeed("127.0.0.1:1", "control", {0: 0})) as made:
        yield made


def _waiting(feed: ControlFeed, *records: tuple[str, int]) -> None:
    """Names of records, each with the end of the input that it waits for, -1 for none."""
    for name, end in records:
        feed._add(0, control_feed._Waiting(cast("Any", name), end, name.startswith("lock")))


def _taken(feed: ControlFeed, position: int, *, at_once: bool = False) -> list[Any]:
    """Names of what may enter."""
    return list(feed.take(0, position, at_once=at_once))


def test_a_heartbeat_waits_for_the_input_and_what_is_behind_it_waits_with_it(feed: ControlFeed) -> None:
    """In the order of the control topic."""
    _waiting(feed, ("anchor", -1), ("beat to 5", 5), ("beat to 9", 9), ("release", -1))
    assert _taken(feed, 5) == ["anchor", "beat to 5"]
    assert _taken(feed, 8) == []
    assert _taken(feed, 9) == ["beat to 9", "release"]


def test_under_a_lock_a_heartbeat_that_waits_is_passed_over(feed: ControlFeed) -> None:
    """It would hold back the release for ever; what can be proved goes in."""
    _waiting(feed, ("beat to 9", 9), ("beat to 4", 4), ("anchor", -1), ("beat to 10", 10), ("release", -1), ("beat", 0))
    assert _taken(feed, 5) == []
    assert _taken(feed, 5, at_once=True) == ["beat to 4", "anchor", "release", "beat"]
    assert _taken(feed, 5, at_once=True) == []


def test_no_more_are_taken_at_a_time_than_a_transaction_may_have(feed: ControlFeed) -> None:
    """Those that are passed over do not count."""
    _waiting(feed, ("late", 9), *[(f"{number}", -1) for number in range(TAKE_MAX + 1)])
    assert len(_taken(feed, 5, at_once=True)) == TAKE_MAX
    assert _taken(feed, 5, at_once=True) == [f"{TAKE_MAX}"]


def test_a_lock_waits_for_no_input(feed: ControlFeed) -> None:
    """What is before it enters or is passed over; behind it heartbeats wait again."""
    _waiting(feed, ("anchor", -1), ("beat to 5", 5), ("beat to 9", 9), ("lock", -1), ("beat to 10", 10), ("late", -1))
    assert _taken(feed, 5) == ["anchor", "beat to 5", "lock"]
    assert _taken(feed, 5) == []
    assert _taken(feed, 10) == ["beat to 10", "late"]


def test_a_lock_behind_more_than_may_wait_is_seen(feed: ControlFeed) -> None:
    """Every second heartbeat is passed over, the newest never; nothing else is, and the order stays."""
    beats = [(f"beat {number}", number + 1_000) for number in range(CONTROL_PENDING_MAX - 1)]
    _waiting(feed, ("anchor", -1), *beats)
    assert len(feed._waiting[0]) == CONTROL_PENDING_MAX // 2 + 1
    assert not feed._paused
    assert _taken(feed, 0) == ["anchor"]
    assert _taken(feed, 1_002) == ["beat 0", "beat 2"]
    assert str(feed._waiting[0][-1].message) == f"beat {CONTROL_PENDING_MAX - 2}"
    for number in range(20 * CONTROL_PENDING_MAX):
        _waiting(feed, (f"later {number}", 10**6 + number))
    assert len(feed._waiting[0]) < CONTROL_PENDING_MAX
    assert not feed._paused
    ends = [record.input_end_offset for record in feed._waiting[0]]
    assert ends == sorted(ends)
    _waiting(feed, ("lock", -1))
    assert _taken(feed, 0) == ["lock"]
    assert not feed._waiting[0]


def test_anchors_without_end_are_let_in_for_a_lock_behind_them(feed: ControlFeed) -> None:
    """Who asks for the status each second behind a backlog must not keep a lock from being read."""
    _waiting(feed, ("beat", 9), *[(f"{number}", -1) for number in range(CONTROL_PENDING_MAX)])
    assert feed._paused == {0}
    taken = [name for _ in range(CONTROL_PENDING_MAX // TAKE_MAX) for name in _taken(feed, 0)]
    assert taken == [f"{number}" for number in range(CONTROL_PENDING_MAX)]
    assert not feed._paused
