"""Control records on their way into the ledger: which may go in, which wait, and which are passed over."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import pytest

from streams import control_feed
from streams.control_feed import TAKE_MAX, ControlFeed

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def feed() -> Iterator[ControlFeed]:
    """Of one partition, without a broker."""
    with closing(ControlFeed("127.0.0.1:1", "control", {0: 0})) as made:
        yield made


def _waiting(feed: ControlFeed, *records: tuple[str, int]) -> None:
    """Names of records, each with the end of the input that it waits for, -1 for none."""
    feed._waiting[0].extend(control_feed._Waiting(cast("Any", name), end) for name, end in records)


def _taken(feed: ControlFeed, position: int, *, locked: bool = False) -> list[Any]:
    """Names of what may enter."""
    return list(feed.take(0, position, locked=locked))


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
    assert _taken(feed, 5, locked=True) == ["beat to 4", "anchor", "release", "beat"]
    assert _taken(feed, 5, locked=True) == []


def test_no_more_are_taken_at_a_time_than_a_transaction_may_have(feed: ControlFeed) -> None:
    """Those that are passed over do not count."""
    _waiting(feed, ("late", 9), *[(f"{number}", -1) for number in range(TAKE_MAX + 1)])
    assert len(_taken(feed, 5, locked=True)) == TAKE_MAX
    assert _taken(feed, 5, locked=True) == [f"{TAKE_MAX}"]
