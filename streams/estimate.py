"""Where a source's clock is: an offset with a bound, a skew with its error, and how long that holds.

Problem: local minus authority is the error of a clock less the delay of its message, and the delay may be anything from
a millisecond to a day. A threshold on it calls every backlog "drift", and a mean or a median of it follows the backlog.

What is sure. No event arrives before it was stamped, so each reading is a proved lower bound of the clock's offset:

    offset >= local - authority - 1 ms          (an append time is rounded down to the millisecond)

and a round trip whose acknowledgement came back with its append time bounds it from above, too:

    sent - appended - 1 ms <= offset <= acknowledged - appended

What a clock cannot do. Within minutes it runs at one rate, and no clock that runs at all is wrong by more than 500 ppm
(RFC 5905). So of a window of readings the upper hull is the clock and what lies below it is delay: the slope is that of
the hull's edge over the mean time, which of all lines above the readings has the least mean distance to them (S. Moon,
P. Skelly, D. Towsley, Estimation and Removal of Clock Skew from Network Delay Measurements, INFOCOM 1999; by convex
hull: L. Zhang, Z. Liu, C. Xia, Clock Synchronization Algorithms for Network Measurements, INFOCOM 2002).

The answer. `LINE`, the proved lower bound, carried on along the slope. The clock is above it by at least the shortest
way to the broker, which readings cannot tell:

    ONE_WAY   the shortest way is assumed to be below 100 ms: offset = line + 50 ms, within 50 ms of it
    TWO_WAY   round trips say how far above: the middle of the narrowest of each stretch, averaged with weights that
              fall with age; the bound reaches to where most of the round trips agree (see `intervals`)

Between good readings, those near the line, either bound grows by 500 ppm. While the last reading lies above the line,
and is no step yet, it reaches that far.

Steps. Readings that lie elsewhere are a step when three of them over at least five seconds agree with one another; all
that was learnt moves along. A backlog that is worked off does not agree with itself: its readings rise faster than any
clock runs. Where round trips are told, lower readings must agree for 25 s; one that has the clock where it was excuses
them, one that has it lower is a step at once. Steps within two hours of one another are one disturbance. A second at
the end of June or December is none (see `leap`); neither is its smear, which is a skew of 12 ppm for a day.

GUARANTEE at most 32 points of a source are kept, each the best of a stretch; stretches are doubled from 4 s to 128 s
when all points are used, so a window is as long as its source is old, up to an hour and a quarter; for a source with
fewer than an event a stretch, up to a day. From the fifth on a stretch goes on to the next fourth reading, if that
comes before it is 128 s long.
GUARANTEE a function of the source's readings in their order, and of nothing else.
HAZARD a path that is never faster than 100 ms makes a ONE_WAY source look slower than it is, by what exceeds this. A
delay that becomes longer and stays so to within the jitter for five seconds looks like a clock that was set back.
Round trips tell the two apart.
HAZARD the bound is as good as the authority: a broker's clock that is wrong is wrong for all its sources (see
`authority_kernel`).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.memory import kernel
from streams.clock_columns import (
    BEGUN_MS,
    DISTURBANCES,
    REACH_US,
    SAMPLES,
    SKEW_ERROR_PPB,
    SKEW_PPB,
    STEP_MS,
    STEP_SEQUENCE,
    STEP_US,
    instant_of,
)
from streams.estimate_kernel import is_known, offset_of
from streams.severity import Severity
from streams.severity_kernel import rounded_ms, severity_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: abs(offset) from here on rounds to 1000 ms, which is YELLOW (S0.3).
GREEN_LIMIT_US: Final = 999_500
_PPB_PER_US_PER_S: Final = 1_000
#: No clock is good for so long.
_COHERENT_MAX_S: Final = 1 << 40
#: Columns of an estimate, the fields of Estimate in their order.
ESTIMATE_COLUMNS: Final = 13


class Method(enum.IntEnum):
    """How an offset was found; NONE before there is one."""

    NONE = 0
    ONE_WAY = 1
    TWO_WAY = 2


_NONE, _ONE_WAY, _TWO_WAY = (int(method) for method in Method)


class Estimate(NamedTuple):
    """Of one source at one instant of authority time.

    span_ms: since its first reading that counts. coherent_s: how long, at the skew that is known, until the offset may
    pass the GREEN limit; 0 where it may have passed, or without an estimate. step_*: of the last disturbance, where
    there was one: its first reading, its size, and when it was last confirmed.
    """

    method: Method
    offset_us: int
    bound_us: int
    skew_ppb: int
    skew_error_ppb: int
    samples: int
    span_ms: int
    severity: Severity
    coherent_s: int
    disturbances: int
    step_sequence: int
    step_us: int
    step_ms: int


def estimate_of(clocks: NDArray[np.int64], slot: int, at_ms: int) -> Estimate:
    """What is known of the source in a slot. clocks: see `clock_columns`."""
    row = np.empty((1, ESTIMATE_COLUMNS), np.int64)
    describe(clocks, slot, at_ms, row, 0, 0)
    method, offset_us, bound_us, skew_ppb, skew_error_ppb, samples, span_ms, severity, *rest = row[0].tolist()
    return Estimate(
        Method(method), offset_us, bound_us, skew_ppb, skew_error_ppb, samples, span_ms, Severity(severity), *rest
    )


@kernel
def describe(clocks: NDArray[np.int64], slot: int, at_ms: int, rows: NDArray[np.int64], row: int, first: int) -> None:
    """What is known of the source in a slot, into the columns of a row from first on: those of Estimate."""
    offset_us, bound_us = offset_of(clocks, slot, at_ms)
    known = is_known(clocks, slot, at_ms)
    skew_ppb, error_ppb = clocks[slot, SKEW_PPB], clocks[slot, SKEW_ERROR_PPB]
    rows[row, first] = (_TWO_WAY if clocks[slot, REACH_US] >= 0 else _ONE_WAY) if known else _NONE
    rows[row, first + 1] = offset_us
    rows[row, first + 2] = bound_us
    rows[row, first + 3] = skew_ppb
    rows[row, first + 4] = error_ppb
    rows[row, first + 5] = clocks[slot, SAMPLES]
    rows[row, first + 6] = instant_of(at_ms) - clocks[slot, BEGUN_MS]
    rows[row, first + 7] = severity_of_offset(offset_us)
    rows[row, first + 8] = coherent_s(offset_us, bound_us, skew_ppb, error_ppb) if known else 0
    rows[row, first + 9] = clocks[slot, DISTURBANCES]
    rows[row, first + 10] = clocks[slot, STEP_SEQUENCE]
    rows[row, first + 11] = clocks[slot, STEP_US]
    rows[row, first + 12] = clocks[slot, STEP_MS]


@kernel
def severity_of_offset(offset_us: int) -> int:
    """The severity of a clock that is off by that: the plain rule, half away from zero."""
    return severity_of(rounded_ms(offset_us))


@kernel
def coherent_s(offset_us: int, bound_us: int, skew_ppb: int, error_ppb: int) -> int:
    """Whole seconds until the offset, at most bound_us off and drifting at worst, may pass the GREEN limit."""
    seconds = _COHERENT_MAX_S
    for sign in (1, -1):
        left_us, rate_ppb = GREEN_LIMIT_US - sign * offset_us - bound_us, sign * skew_ppb + error_ppb
        if left_us <= 0:
            return 0
        if rate_ppb > 0:
            seconds = min(seconds, left_us * _PPB_PER_US_PER_S // rate_ppb)
    return seconds
