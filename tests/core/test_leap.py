"""When a leap second may be, against the calendar of the standard library."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from streams.leap import days_of, leap_between
from tests.core import clock_oracle

INSTANT_MS = st.datetimes(dt.datetime(1971, 1, 2), dt.datetime(9997, 1, 1)).map(  # noqa: DTZ001 - made UTC
    lambda at: int(at.replace(tzinfo=dt.UTC).timestamp() * 1000)
)


@given(st.integers(1970, 9998), st.integers(1, 12))
def test_the_first_of_a_month_is_where_the_calendar_has_it(year: int, month: int) -> None:
    """The Gregorian one."""
    assert days_of(year, month) == (dt.date(year, month, 1) - dt.date(1970, 1, 1)).days


@given(INSTANT_MS, st.integers(0, 400 * 86_400_000))
def test_an_interval_holds_one_where_it_holds_the_end_of_june_or_december(last_ms: int, length_ms: int) -> None:
    """Up to more than a year."""
    assert leap_between(last_ms - length_ms, last_ms) == clock_oracle.leap_between(last_ms - length_ms, last_ms)


def test_the_last_leap_second_is_known_and_so_is_the_slack_around_it() -> None:
    """2016-12-31T23:59:60Z; three seconds away is too far."""
    at_ms = int(dt.datetime(2017, 1, 1, tzinfo=dt.UTC).timestamp()) * 1000
    assert leap_between(at_ms, at_ms)
    assert leap_between(at_ms - 2_000, at_ms - 2_000)
    assert leap_between(at_ms + 2_000, at_ms + 2_000)
    assert not leap_between(at_ms - 3_000, at_ms - 3_000)
    assert not leap_between(at_ms + 3_000, at_ms + 3_000)
    assert not leap_between(at_ms + 86_400_000, at_ms + 90 * 86_400_000)
