"""What is kept of a source's clock: the columns of `clocks` and of `points`, and the units they are reckoned in.

One row of either is all there is of a source: `estimate_kernel` moves a clock with each reading, `clock_fit` works out
its line anew from its points.
"""

from __future__ import annotations

from typing import Final

from schemas.memory import kernel

# Columns of clocks: first what an event touches that lies where it is expected, two cache lines.

# Of a line: the proved lower bound of the clock's offset, at LINE_MS, rising by SKEW_PPB.
SAMPLES: Final = 0
BEGUN_MS: Final = 1
LINE_MS: Final = 2
LINE_US: Final = 3
SKEW_PPB: Final = 4
SKEW_ERROR_PPB: Final = 5
GOOD_MS: Final = 6
JITTER_US: Final = 7
#: Length of a stretch, which stretch it is now (authority time over the length), and the best reading in it.
STRETCH_MS: Final = 8
STRETCH: Final = 9
BEST_MS: Final = 10
BEST_US: Final = 11
#: The middle of the exchanges above the line, and how far the truth may be from there; -1 without exchanges, and then
#: the first is how far readings have raised the line since BEGUN_MS.
RISE_US: Final = 12
REACH_US: Final = 13
#: When the estimate was told last, UNKNOWN_US for never.
TOLD_MS: Final = 14
#: Of readings that lie elsewhere, as a step would: how many, since when, and their distances from the line.
OFF_COUNT: Final = 15
OFF_FIRST_MS: Final = 16
OFF_FIRST_SEQUENCE: Final = 17
OFF_MIN_US: Final = 18
OFF_MAX_US: Final = 19
#: Points kept, and what their columns are counted from.
POINTS: Final = 20
BASE_MS: Final = 21
BASE_US: Final = 22
#: The narrowest exchange of the stretch: its middle, half its width (-1 for none), and when the middle held.
MIDDLE_US: Final = 23
HALF_US: Final = 24
MIDDLE_MS: Final = 25
#: Disturbances so far; of the last one when it was last confirmed, its first sequence, and its size.
DISTURBANCES: Final = 26
STEP_MS: Final = 27
STEP_SEQUENCE: Final = 28
STEP_US: Final = 29
#: Of the last step alone: its size, and when its first reading was.
LAST_STEP_US: Final = 30
LAST_STEP_MS: Final = 31
CLOCK_COLUMNS: Final = 32
#: Of them those before this one.
NEAR_COLUMNS: Final = 16

# Columns of points, from BASE_MS and BASE_US: the best reading of a stretch; the middle and half width of an exchange.
AT_MS: Final = 0
LOW_US: Final = 1
POINT_MIDDLE_US: Final = 2
POINT_HALF_US: Final = 3
POINT_COLUMNS: Final = 4
#: Half a window of an hour and a quarter in stretches of two minutes.
POINTS_MAX: Final = 32

#: Beyond it no clock runs (RFC 5905 calls it MAXFREQ): what changes faster is delay, a step, or no clock.
SKEW_MAX_PPB: Final = 500_000
#: A reading is stamped to the millisecond, rounded down.
TICK_US: Final = 1_000
#: In a column of microseconds: there is none.
UNKNOWN_US: Final = -(1 << 62)
#: In a column of a half width: there was no exchange.
NO_EXCHANGE: Final = -1
#: Points that old say nothing of today.
POINT_AGE_MAX_MS: Final = 86_400_000
#: A clock that gains so many ppb gains a microsecond in a millisecond.
PPB_MS_PER_US: Final = 1_000_000
#: Authorities beyond it, 285,000 years off, are taken to be there.
_INSTANT_MAX_MS: Final = 1 << 53
_ELAPSED_MAX_MS: Final = 1_000_000_000_000


@kernel
def moved_us(ppb: int, elapsed_ms: int) -> int:
    """By how much a clock of that skew moves, rounded down; after a generation no further."""
    return ppb * min(max(elapsed_ms, -_ELAPSED_MAX_MS), _ELAPSED_MAX_MS) // PPB_MS_PER_US


@kernel
def instant_of(at_ms: int) -> int:
    """An authority timestamp, as far as can be reckoned with."""
    return max(min(at_ms, _INSTANT_MAX_MS), -_INSTANT_MAX_MS)
