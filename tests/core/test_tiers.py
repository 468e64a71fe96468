"""Tiers and periods against the calendar, at its ends and at the edges of each rule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.tiers import (
    MS_PER_DAY,
    MS_PER_HOUR,
    Grain,
    Rules,
    Tier,
    bounds_of,
    due_grain,
    period_of,
    tier_at,
)
from schemas.errors import BadInputError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GRAINS = list(Grain)
#: Of the calendar: its first ms, and the first of its last hour.
FIRST = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
LAST = (datetime(9999, 12, 31, 23, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
END = LAST + MS_PER_HOUR

instants = st.integers(FIRST, END - 1)
any_int64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def any_rules(draw: st.DrawFn) -> Rules:
    """That do not contradict each other."""
    recent, monthly, yearly = sorted(draw(st.tuples(*[st.integers(1, 2_000)] * 3)))
    return Rules(1, recent, monthly, yearly, draw(st.none() | st.integers(recent, 4_000)))


def ms(*date: int) -> int:
    """Of a moment in UTC."""
    return (datetime(*date, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)  # type: ignore[arg-type,misc]


@given(instants, st.sampled_from(GRAINS))
def test_a_period_holds_its_first_instant_and_not_its_end(at: int, grain: Grain) -> None:
    """Any instant of the calendar, any kind of period; the names of neighbours differ, and ascend."""
    first, end = bounds_of(at, grain)
    assert first <= at < end
    name = period_of(at, grain)
    assert {period_of(first, grain), period_of(end - 1, grain)} == {name}
    assert bounds_of(first, grain) == bounds_of(end - 1, grain) == (first, end)
    assert first == FIRST or period_of(first - 1, grain) < name
    assert end == END or period_of(end, grain) > name


@given(instants, st.sampled_from(list(pairwise(GRAINS))))
def test_a_longer_period_is_made_of_whole_shorter_ones(at: int, grains: tuple[Grain, Grain]) -> None:
    """It begins where one of them begins, and ends where one ends."""
    shorter, longer = (bounds_of(at, grain) for grain in grains)
    assert longer[0] <= shorter[0] < shorter[1] <= longer[1]
    assert bounds_of(longer[0], grains[0])[0] == longer[0]
    assert bounds_of(longer[1] - 1, grains[0])[1] == longer[1]
    assert period_of(at, grains[0]).startswith(period_of(at, grains[1]))


@given(st.lists(instants, min_size=2), st.sampled_from(GRAINS))
def test_names_are_in_the_order_of_time(ats: list[int], grain: Grain) -> None:
    """As text."""
    names = [period_of(at, grain) for at in sorted(ats)]
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("at", "names"),
    [
        (0, ("1970-01-01-00", "1970-01-01", "1970-01", "1970")),
        (-1, ("1969-12-31-23", "1969-12-31", "1969-12", "1969")),
        (ms(2024, 2, 29, 23, 59, 59), ("2024-02-29-23", "2024-02-29", "2024-02", "2024")),
        (ms(2024, 12, 31, 23), ("2024-12-31-23", "2024-12-31", "2024-12", "2024")),
        (ms(2025, 1, 1), ("2025-01-01-00", "2025-01-01", "2025-01", "2025")),
        (FIRST, ("0001-01-01-00", "0001-01-01", "0001-01", "0001")),
        (-(2**63), ("0001-01-01-00", "0001-01-01", "0001-01", "0001")),
        (END, ("9999-12-31-23", "9999-12-31", "9999-12", "9999")),
        (2**63 - 1, ("9999-12-31-23", "9999-12-31", "9999-12", "9999")),
    ],
)
def test_names_of_periods(at: int, names: tuple[str, ...]) -> None:
    """At the epoch, before it, on a leap day, at the end of a year, and at and beyond the ends of the calendar."""
    assert tuple(period_of(at, grain) for grain in GRAINS) == names


@pytest.mark.parametrize(
    ("at", "grain", "days"),
    [
        (ms(2024, 2, 10), Grain.MONTHLY, 29),
        (ms(2023, 2, 10), Grain.MONTHLY, 28),
        (ms(1900, 2, 10), Grain.MONTHLY, 28),
        (ms(2000, 2, 10), Grain.MONTHLY, 29),
        (ms(2024, 12, 31, 23, 59), Grain.MONTHLY, 31),
        (ms(2024, 7, 1), Grain.YEARLY, 366),
        (ms(2100, 7, 1), Grain.YEARLY, 365),
        (ms(2016, 12, 31, 23, 59), Grain.DAILY, 1),
    ],
)
def test_months_and_years_are_as_long_as_the_calendar_says(at: int, grain: Grain, days: int) -> None:
    """Leap years by the rules of Gregory; a leap second makes no day longer."""
    first, end = bounds_of(at, grain)
    assert end - first == days * MS_PER_DAY


@given(any_int64, st.sampled_from(GRAINS))
def test_any_instant_has_a_period_and_one_beyond_the_calendar_that_at_its_end(at: int, grain: Grain) -> None:
    """Of 64 bits."""
    first, end = bounds_of(at, grain)
    assert FIRST <= first < end <= END
    assert (first, end) == bounds_of(max(FIRST, min(at, LAST)), grain)


def test_tiers_change_exactly_at_their_ages() -> None:
    """To the millisecond; what is of the future is live, and null is never."""
    known = Rules()
    now = ms(2025, 6, 1, 12)
    edges = [
        (MS_PER_HOUR, Tier.LIVE, Tier.RECENT),
        (7 * MS_PER_DAY, Tier.RECENT, Tier.HISTORICAL),
        (1096 * MS_PER_DAY, Tier.HISTORICAL, Tier.DEEP),
    ]
    for age, before, after in edges:
        assert tier_at(now - age + 1, now, known) is before
        assert tier_at(now - age, now, known) is after
    assert tier_at(now + MS_PER_DAY, now, known) is Tier.LIVE
    assert tier_at(0, now, Rules(deep_days=None)) is Tier.HISTORICAL


@given(any_int64, st.lists(any_int64, min_size=2), any_rules())
def test_data_moves_only_to_further_tiers_and_to_longer_files(at: int, nows: list[int], known: Rules) -> None:
    """As time passes, under any rules."""
    tiers = [list(Tier).index(tier_at(at, now, known)) for now in sorted(nows)]
    grains = [GRAINS.index(due_grain(at, now, known)) for now in sorted(nows)]
    assert tiers == sorted(tiers)
    assert grains == sorted(grains)


@given(instants, st.integers(-MS_PER_DAY, 3_000 * MS_PER_DAY), any_rules())
def test_what_is_due_is_the_longest_period_of_which_all_is_old_enough(at: int, later: int, known: Rules) -> None:
    """Against all three asked one by one."""
    ages = {Grain.DAILY: None, Grain.MONTHLY: known.monthly_days, Grain.YEARLY: known.yearly_days}
    now = at + later
    old = [grain for grain, days in ages.items() if days is None or bounds_of(at, grain)[1] + days * MS_PER_DAY <= now]
    assert due_grain(at, now, known) is old[-1]


def test_a_month_is_due_as_a_whole() -> None:
    """Its first hour no sooner than its last; and a year likewise."""
    ends = ms(2024, 3, 1)
    due = ends + 31 * MS_PER_DAY
    for at in (ms(2024, 2, 1), ms(2024, 2, 29, 23, 59)):
        assert due_grain(at, due - 1, Rules()) is Grain.DAILY
        assert due_grain(at, due, Rules()) is Grain.MONTHLY
    assert due_grain(ms(2024, 2, 1), ms(2025, 1, 1) + 366 * MS_PER_DAY - 1, Rules()) is Grain.MONTHLY
    assert due_grain(ms(2024, 2, 1), ms(2025, 1, 1) + 366 * MS_PER_DAY, Rules()) is Grain.YEARLY


@pytest.mark.parametrize(
    ("ages", "said"),
    [
        ({"live_hours": 169}, "live_hours 169 is longer than recent_days 7"),
        ({"recent_days": 32}, "recent_days 32 is longer than monthly_days 31"),
        ({"monthly_days": 367}, "monthly_days 367 is longer than yearly_days 366"),
        ({"deep_days": 6}, "deep_days 6 is shorter than recent_days 7"),
        ({"recent_days": 0}, "recent_days is 0"),
        ({"recent_days": -1}, "recent_days is -1"),
        ({"live_hours": 1.5}, "live_hours is 1.5"),
        ({"live_hours": True}, "live_hours is True"),
        ({"yearly_days": "366"}, "yearly_days is '366'"),
    ],
)
def test_rules_that_contradict_each_other_are_refused(ages: dict[str, Any], said: str) -> None:
    """With the numbers that do."""
    with pytest.raises(BadInputError, match=f"^{said}"):
        Rules(**ages)


def test_rules_may_be_equal_to_each_other() -> None:
    """Then a tier has nothing in it."""
    assert Rules(live_hours=168, recent_days=7, monthly_days=7, yearly_days=7, deep_days=7).deep_days == 7
