"""How far a clock is off, and how bad that is: the exact rules, for any instant that 64 bits can hold.

Problem: the reference rules (a SQL function) round, compare and overflow in ways that must be met to the last
microsecond where they answer, and answered where they fail: a delta of 25 days, or of 8,000 years, is RED and warned,
never an error. Local instants are microseconds, authority instants milliseconds; their difference in microseconds
does not fit in 64 bits.

How (`severity_kernel`): the difference is kept as a pair (whole, rest) with delta = 1000 * whole + rest microseconds
and 0 <= rest < 1000. So local is divided instead of authority being multiplied, and every rule is a comparison of small
integers.

- delta_ms = local minus authority, rounded half away from zero to milliseconds
- severity GREEN below 1,000 ms of abs(delta_ms), YELLOW below 5,000, RED from there on
- warned = abs(delta), unrounded, is strictly more than the threshold in microseconds
- drift_seconds = abs(delta) rounded half away from zero to 3 decimals, which is abs(delta_ms) / 1000

GUARANTEE exact for every int64 local_us and every authority_ms within 2**62 ms (146 million years) of 1970; nothing
here overflows or raises. HAZARD an authority beyond that counts as that bound: still RED and warned, but delta_ms is
then short.
"""

from __future__ import annotations

import enum
from typing import Final


class Severity(enum.IntEnum):
    """Of one reading of a clock; ordered from good to bad."""

    GREEN = 0
    YELLOW = 1
    RED = 2


GREEN: Final = 0
YELLOW: Final = 1
RED: Final = 2

YELLOW_FROM_MS: Final = 1_000
RED_FROM_MS: Final = 5_000

#: Authority instants are cut to this many milliseconds around 1970, so that subtracting one cannot overflow.
AUTHORITY_LIMIT_MS: Final = 2**62
#: Warning thresholds end here (about 285,000 years), so that a distance cut to it still compares right.
THRESHOLD_LIMIT_US: Final = 9 * 10**18
#: 1000 * this + 999 still fits in an int64.
WHOLE_LIMIT: Final = THRESHOLD_LIMIT_US // 1_000


def drift_seconds(delta_ms: int) -> str:
    """Size of a rounded delta in seconds with exactly three decimals, as it stands in a warning: "5.001"."""
    seconds, milliseconds = divmod(abs(delta_ms), 1_000)
    return f"{seconds}.{milliseconds:03d}"
