"""Which tier data of an age belongs to, and in which files: a pure function of authority time and the rules.

    live         the last hour                    RocksDB
    recent       hour by hour, to seven days      RocksDB
    historical   a file a day; a month from 31 days, a year from 366 days
    deep         the same files, where space costs least

Periods are those of UTC. The entries of a partition belong to the period of the running maximum of authority time, so a
broker's clock that goes back sends none to a file that is sealed: an hour ends once, for good.

GUARANTEE a file is of one period; a period of a longer kind consists of whole ones of the shorter.
"""

from __future__ import annotations

import calendar
import enum
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from schemas.errors import BadInputError
from schemas.instants import MS_PER_S

MS_PER_HOUR: Final = 3_600 * MS_PER_S
MS_PER_DAY: Final = 24 * MS_PER_HOUR
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Instants beyond the calendar belong to its first or last hour.
_FIRST_MS: Final = int((datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) / timedelta(milliseconds=1))
_LAST_MS: Final = int((datetime(9999, 12, 31, 23, tzinfo=UTC) - _EPOCH) / timedelta(milliseconds=1))


class Tier(enum.StrEnum):
    """Where data lies, nearest first."""

    LIVE = "live"
    RECENT = "recent"
    HISTORICAL = "historical"
    DEEP = "deep"


class Grain(enum.StrEnum):
    """What a file is of, shortest first."""

    HOURLY = "hourly"
    DAILY = "daily"
    MONTHLY = "monthly"
    YEARLY = "yearly"


_FORMATS: Final = {
    Grain.HOURLY: "%Y-%m-%d-%H",
    Grain.DAILY: "%Y-%m-%d",
    Grain.MONTHLY: "%Y-%m",
    Grain.YEARLY: "%Y",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """How old data of each tier may be. Raises BadInputError for rules that contradict each other.

    live_hours, recent_days: so long in the live, and with it in the recent tier; monthly_days, yearly_days: from that
    age on files are of months, of years; deep_days: from there on they are deep, None: never.
    """

    live_hours: int = 1
    recent_days: int = 7
    monthly_days: int = 31
    yearly_days: int = 366
    deep_days: int | None = 1096

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise BadInputError(f"{field.name} is {value!r}: it must be a whole number, 1 or more")
        if self.live_hours * MS_PER_HOUR > self.recent_days * MS_PER_DAY:
            raise BadInputError(
                f"live_hours {self.live_hours} is longer than recent_days {self.recent_days}: what is live is recent. "
                "Make recent_days longer"
            )
        ages = [("recent_days", self.recent_days), ("monthly_days", self.monthly_days)]
        ages += [("yearly_days", self.yearly_days)]
        for (name, age), (later, longer) in pairwise(ages):
            if age > longer:
                raise BadInputError(f"{name} {age} is longer than {later} {longer}: data would skip a tier. Swap them")
        if self.deep_days is not None and self.deep_days < self.recent_days:
            raise BadInputError(
                f"deep_days {self.deep_days} is shorter than recent_days {self.recent_days}: only archives can be deep"
            )


def period_of(authority_ms: int, grain: Grain) -> str:
    """The name of the period that an instant is in."""
    return _start(authority_ms, grain).strftime(_FORMATS[grain]).zfill(_LENGTHS[grain])


_LENGTHS: Final = {Grain.HOURLY: 13, Grain.DAILY: 10, Grain.MONTHLY: 7, Grain.YEARLY: 4}


def is_period(text: str, grain: Grain) -> bool:
    """Whether that is the name of a period."""
    try:
        start = datetime.strptime(text, _FORMATS[grain]).replace(tzinfo=UTC)
    except ValueError:
        return False
    return period_of(_ms(start), grain) == text


def bounds_of(authority_ms: int, grain: Grain) -> tuple[int, int]:
    """First ms of the period that an instant is in, and of the one after it."""
    if grain is Grain.HOURLY or grain is Grain.DAILY:
        # Of all files of a tree at once: no calendar is needed for what is always as long.
        length = MS_PER_HOUR if grain is Grain.HOURLY else MS_PER_DAY
        first = max(min(authority_ms, _LAST_MS), _FIRST_MS) // length * length
        return first, first + length
    start = _start(authority_ms, grain)
    first = _ms(start)
    if grain is Grain.MONTHLY:
        return first, first + calendar.monthrange(start.year, start.month)[1] * MS_PER_DAY
    return first, first + (366 if calendar.isleap(start.year) else 365) * MS_PER_DAY


def tier_at(end_ms: int, now_ms: int, rules: Rules) -> Tier:
    """Where data belongs whose period ends then, by age alone."""
    age_ms = now_ms - end_ms
    if rules.deep_days is not None and age_ms >= rules.deep_days * MS_PER_DAY:
        return Tier.DEEP
    if age_ms >= rules.recent_days * MS_PER_DAY:
        return Tier.HISTORICAL
    return Tier.LIVE if age_ms < rules.live_hours * MS_PER_HOUR else Tier.RECENT


def due_grain(authority_ms: int, now_ms: int, rules: Rules) -> Grain:
    """The longest period that an instant's archive is due to be a part of: all of that period is old enough."""
    due = Grain.DAILY
    for grain, days in ((Grain.MONTHLY, rules.monthly_days), (Grain.YEARLY, rules.yearly_days)):
        if now_ms - bounds_of(authority_ms, grain)[1] >= days * MS_PER_DAY:
            due = grain
    return due


def _start(authority_ms: int, grain: Grain) -> datetime:
    at = _EPOCH + timedelta(milliseconds=max(min(authority_ms, _LAST_MS), _FIRST_MS))
    hour = at.replace(minute=0, second=0, microsecond=0)
    match grain:
        case Grain.HOURLY:
            return hour
        case Grain.DAILY:
            return hour.replace(hour=0)
        case Grain.MONTHLY:
            return hour.replace(day=1, hour=0)
        case Grain.YEARLY:
            return hour.replace(month=1, day=1, hour=0)


def _ms(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)
