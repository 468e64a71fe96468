"""Leap seconds: when there may be one.

Problem: a clock that shows a leap second stands still or jumps for a second, at an instant known to all. That is not a
fault of the clock. Which leap seconds there will be is announced half a year ahead and known to nobody's program; when
there may be one is fixed: at the end of June or December, UTC (ITU-R TF.460-6; IERS has used no other month).
"""

from __future__ import annotations

from typing import Final

from schemas.memory import kernel

_MS_PER_DAY: Final = 86_400_000
#: Clocks and their readings differ by so much when it happens.
_SLACK_MS: Final = 2_000


@kernel
def days_of(year: int, month: int) -> int:
    """Days from 1970-01-01 to the first of a month, in the Gregorian calendar."""
    if month <= 2:  # noqa: PLR2004 - a year that begins in March ends with the leap day
        year -= 1
        month += 12
    of_year = (153 * (month - 3) + 2) // 5
    return 365 * year + year // 4 - year // 100 + year // 400 + of_year - 719_468


@kernel
def leap_between(first_ms: int, last_ms: int) -> bool:
    """Whether there may have been one between two instants of Unix time, or within two seconds of them."""
    year = 1970 + last_ms // _MS_PER_DAY * 400 // 146_097
    for at in range(3):
        for month in (1, 7):
            ms = days_of(year - 1 + at, month) * _MS_PER_DAY
            if first_ms - _SLACK_MS <= ms <= last_ms + _SLACK_MS:
                return True
    return False
