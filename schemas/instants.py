"""Instants as integers, and how they are written for people.

Problem: an instant that a wrong clock sends can be anything 64 bits hold, far outside what datetime can represent
(years 1 to 9999), and it must still be shown, compared and read back. So instants stay integers whose unit is in the
name, and their text is made by the arithmetic of the civil calendar in plain integers. Pure code may use all of this:
nothing here reads a clock (that is `clock`).

GUARANTEE every int64 microsecond can be written and read back (`format_us`, `parse_us`). RFC 3339 ends at the year
9999; beyond it, and before the year 0000, the year is written as in ECMAScript: a sign and at least six digits,
`+294247-01-10T04:00:54.775807Z`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NewType

from .errors import BadInputError

#: An instant of a source's own clock, microseconds since 1970-01-01 UTC as that clock counts them.
LocalUs = NewType("LocalUs", int)
#: An instant of the authority (the broker's append time), milliseconds since 1970-01-01 UTC.
AuthorityMs = NewType("AuthorityMs", int)

NS_PER_US: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
US_PER_MS: Final = 1_000
US_PER_S: Final = 1_000_000
MS_PER_S: Final = 1_000
S_PER_DAY: Final = 86_400

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

_RFC3339 = re.compile(
    r"([0-9]{4}|[+-][0-9]{6,9})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))?",
    re.ASCII,
)
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_LAST_FOUR_DIGIT_YEAR = 9999
_LEAP_SECOND = 60
#: Seconds whose text is kept: neighbours in a list have mostly the same ones, by the broker's clock and by their own.
_SECONDS_KEPT = 1_024


def format_us(instant_us: int) -> str:
    """RFC 3339 in UTC with six decimals; years outside 0000 to 9999 with a sign and at least six digits."""
    seconds, fraction = divmod(instant_us, US_PER_S)
    return f"{_format_seconds(seconds)}.{fraction:06d}Z"


def format_ms(instant_ms: int) -> str:
    """RFC 3339 in UTC with three decimals; years outside 0000 to 9999 with a sign and at least six digits."""
    seconds, fraction = divmod(instant_ms, MS_PER_S)
    return f"{_format_seconds(seconds)}.{fraction:03d}Z"


def parse_us(text: str) -> LocalUs:
    """Microseconds since 1970-01-01 UTC of an RFC 3339 timestamp, or of a plain integer of microseconds.

    The extended years of `format_us` are read too. Decimals past the sixth are cut (rounded down), a leap second is the
    first moment of the next day (as POSIX time has it). Raises BadInputError for anything else: no offset from UTC,
    a day that is not in the calendar, an instant outside int64.
    """
    stripped = text.strip()
    if _INTEGER.fullmatch(stripped):
        # Python refuses to convert thousands of digits, zeros in front included; what is this long is outside int64
        digits = stripped.lstrip("+-").lstrip("0") or "0"
        magnitude = int(digits) if len(digits) <= len(str(INT64_MAX)) else INT64_MAX + 2
        instant_us = -magnitude if stripped.startswith("-") else magnitude
    else:
        instant_us = _parse_rfc3339(stripped)
    if not INT64_MIN <= instant_us <= INT64_MAX:
        raise _not_an_instant(text, "it lies outside the microseconds that 64 bits hold")
    return LocalUs(instant_us)


def _parse_rfc3339(text: str) -> int:
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise _not_an_instant(text, "it is neither RFC 3339 nor an integer of microseconds")
    year, month, day, hour, minute, second = (int(found[i]) for i in range(1, 7))
    fraction, zulu, sign, offset_hours, offset_minutes = found.groups()[6:]
    if zulu is None and sign is None:
        raise _not_an_instant(text, "it does not say its offset from UTC (Z or +hh:mm)")
    if not (1 <= month <= 12 and 1 <= day <= _days_in(year, month)):  # noqa: PLR2004 - months
        raise _not_an_instant(text, "the calendar has no such day")
    if hour > 23 or minute > 59 or second > _LEAP_SECOND:  # noqa: PLR2004 - a clock face
        raise _not_an_instant(text, "a day has no such time")
    offset_s = 0
    if sign is not None:
        if int(offset_hours) > 23 or int(offset_minutes) > 59:  # noqa: PLR2004 - a clock face
            raise _not_an_instant(text, "there is no such offset from UTC")
        offset_s = (1 if sign == "+" else -1) * (int(offset_hours) * 3600 + int(offset_minutes) * 60)
    seconds = _days_from_civil(year, month, day) * S_PER_DAY + hour * 3600 + minute * 60 + second - offset_s
    if second == _LEAP_SECOND and seconds % S_PER_DAY != 0:
        raise _not_an_instant(text, "a leap second ends a day of UTC")
    return seconds * US_PER_S + int(((fraction or "") + "000000")[:6])


def _not_an_instant(text: str, reason: str) -> BadInputError:
    shown = text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - one line of a terminal
    return BadInputError(f"{shown!r} is not an instant: {reason}; write for example 2026-01-31T12:00:00.000000Z")


@lru_cache(_SECONDS_KEPT)
def _format_seconds(seconds: int) -> str:
    days, of_day = divmod(seconds, S_PER_DAY)
    year, month, day = _civil_from_days(days)
    shown = f"{year:04d}" if 0 <= year <= _LAST_FOUR_DIGIT_YEAR else f"{year:+07d}"
    return f"{shown}-{month:02d}-{day:02d}T{of_day // 3600:02d}:{of_day // 60 % 60:02d}:{of_day % 60:02d}"


def _days_in(year: int, month: int) -> int:
    if month == 2 and (year % 4 != 0 or (year % 100 == 0 and year % 400 != 0)):  # noqa: PLR2004 - the Gregorian rule
        return 28
    return _MONTH_DAYS[month - 1]


# The two below are Howard Hinnant's, "chrono-compatible low-level date algorithms": eras of 400 years (146,097 days)
# that begin on the first of March, so that the leap day is the last of its year. 719,468 days lie before 1970.


def _days_from_civil(year: int, month: int, day: int) -> int:
    year -= month <= 2  # noqa: PLR2004 - January and February belong to the year before
    era, of_era = divmod(year, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def _civil_from_days(days: int) -> tuple[int, int, int]:
    era, of_era = divmod(days + 719_468, 146_097)
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    day = of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9  # noqa: PLR2004 - March is 0, January 10
    return era * 400 + year_of_era + (month <= 2), month, day  # noqa: PLR2004
