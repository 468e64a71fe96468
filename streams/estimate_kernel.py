"""Where a source's clock is, learnt event by event: the kernels. What is estimated, and why so, stands in `estimate`.

One row of `clocks` and one of `points` is all that is kept of a source. An event that lies where it is expected touches
the row only. The points are gone through once per stretch: at most 32 of them, so the cost of an event is bounded, and
small on average where events are many.

All integers but the slope and the mean residual of a fit, which are sums and quotients in the order of the points: no
function of libm, nothing that depends on a machine.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.memory import kernel
from streams.intervals import END, START, agree
from streams.leap import leap_between
from streams.severity_kernel import whole_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Columns of clocks. Of a line: the proved lower bound of the clock's offset, at LINE_MS, rising by SKEW_PPB.
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
#: The narrowest exchange of the stretch: its middle, half its width (-1 for none), and when the middle held.
MIDDLE_US: Final = 12
HALF_US: Final = 13
MIDDLE_MS: Final = 14
#: The middle of the exchanges above the line, and how far the truth may be from there; -1 without exchanges.
RISE_US: Final = 15
REACH_US: Final = 16
#: The interval of authority time in which the estimate was told last.
TOLD: Final = 17
#: Points kept, and what their columns are counted from.
POINTS: Final = 18
BASE_MS: Final = 19
BASE_US: Final = 20
#: Of readings that lie elsewhere, as a step would: how many, since when, and their distances from the line.
OFF_COUNT: Final = 21
OFF_FIRST_MS: Final = 22
OFF_FIRST_SEQUENCE: Final = 23
OFF_MIN_US: Final = 24
OFF_MAX_US: Final = 25
#: Disturbances so far; of the last one when it was last confirmed, its first sequence, and its size.
DISTURBANCES: Final = 26
STEP_MS: Final = 27
STEP_SEQUENCE: Final = 28
STEP_US: Final = 29
CLOCK_COLUMNS: Final = 30

# Columns of points, from BASE_MS and BASE_US: the best reading of a stretch; the middle and half width of an exchange.
AT_MS: Final = 0
LOW_US: Final = 1
POINT_MIDDLE_US: Final = 2
POINT_HALF_US: Final = 3
POINT_COLUMNS: Final = 4
#: Half a window of an hour and a quarter in stretches of two minutes.
POINTS_MAX: Final = 32

STRETCH_MIN_MS: Final = 4_000
STRETCH_MAX_MS: Final = 128_000
POINT_AGE_MAX_MS: Final = 86_400_000
#: Beyond it no clock runs (RFC 5905 calls it MAXFREQ): what changes faster is delay, a step, or no clock.
SKEW_MAX_PPB: Final = 500_000
#: How far quartz wanders while nobody looks; less than a fit that claims to know better.
_WANDER_PPB: Final = 1_000
#: A slope is used once it is known to this.
_SKEW_ERROR_MAX_PPB: Final = 100_000
#: A reading is stamped to the millisecond, rounded down.
TICK_US: Final = 1_000
#: How far above the line a one-way clock may be: the shortest way to the broker is taken to be less than twice this.
PATH_US: Final = 50_000
#: Readings that lie elsewhere are a step after so many and so long, if they agree with one another.
CONFIRM_READINGS: Final = 3
HOLD_MS: Final = 5_000
#: Where round trips can tell a step back from a longer way, two of them have time to.
HOLD_TWO_WAY_MS: Final = 25_000
#: Steps within two hours of one another are one disturbance: who sets a clock slews it, corrects it, sets it again.
SETTLE_MS: Final = 7_200_000
_YOUNG_MS: Final = 60_000
_YOUNG_SAMPLES: Final = 16
_OFF_MIN_US: Final = 10_000
_JITTER_FIRST_US: Final = 5_000
_JITTER_MAX_US: Final = 1_000_000
_JITTER_SHARE: Final = 16
_OFF_JITTERS: Final = 8
_NEAR_JITTERS: Final = 2
_SLOPE_DOUBT: Final = 3.0
_FIT_POINTS: Final = 3
#: Beyond 71 years a clock is taken to be 71 years off.
OFFSET_MAX_US: Final = 1 << 51
#: What 32 bits hold, with room for a sum.
_NEAR_BASE: Final = 1 << 30
_STEP_MAX_US: Final = 1 << 53
#: A round trip of nine minutes to either side says nothing worth keeping.
_EXCHANGE_MAX_US: Final = 1 << 29
_UNKNOWN: Final = -(1 << 62)
_PPB_MS_PER_US: Final = 1_000_000
_US_PER_MS: Final = 1_000
#: Authorities beyond it, 285,000 years off, are taken to be there.
_INSTANT_MAX_MS: Final = 1 << 53
_ELAPSED_MAX_MS: Final = 1_000_000_000_000
_NO_EXCHANGE: Final = -1


#: The numbers of an estimates.Why.
WHY_KNOWN: Final = 1
WHY_STEP: Final = 2
WHY_INTERVAL: Final = 3


class Place(enum.IntEnum):
    """Where a reading lies."""

    #: Where the clock was expected.
    NEAR = 0
    #: Higher: no delay does that.
    ABOVE = 1
    #: Lower: it was under way for long, or the clock went back.
    BELOW = 2
    #: The reading that completes a step.
    STEPPED = 3
    #: The first, or the first after readings that are those of no clock.
    BEGAN = 4


_NEAR, _ABOVE, _BELOW, _STEPPED, _BEGAN = (int(place) for place in Place)


class Workspace(NamedTuple):
    """Room for one fit at a time. hull: int64[32]; edges: int64[64, 2]; best: int64[32, 2]."""

    hull: NDArray[np.int64]
    edges: NDArray[np.int64]
    best: NDArray[np.int64]


def workspace() -> Workspace:
    """Room for the fits of one thread."""
    return Workspace(
        np.zeros(POINTS_MAX, np.int64), np.zeros((2 * POINTS_MAX, 2), np.int64), np.zeros((POINTS_MAX, 2), np.int64)
    )


@kernel
def moved_us(ppb: int, elapsed_ms: int) -> int:
    """By how much a clock of that skew moves, rounded down; after a generation no further."""
    return ppb * min(max(elapsed_ms, -_ELAPSED_MAX_MS), _ELAPSED_MAX_MS) // _PPB_MS_PER_US


@kernel
def instant_of(at_ms: int) -> int:
    """An authority timestamp, as far as can be reckoned with."""
    return max(min(at_ms, _INSTANT_MAX_MS), -_INSTANT_MAX_MS)


@kernel
def line_us(clocks: NDArray[np.int64], slot: int, at_ms: int) -> int:
    """The line at an instant."""
    return int(clocks[slot, LINE_US] + moved_us(clocks[slot, SKEW_PPB], at_ms - clocks[slot, LINE_MS]))


@kernel
def offset_of(clocks: NDArray[np.int64], slot: int, at_ms: int) -> tuple[int, int]:
    """The clock's offset in us, and how far the truth may be from it."""
    at_ms = max(instant_of(at_ms), clocks[slot, LINE_MS], clocks[slot, GOOD_MS])
    rise_us, reach_us = PATH_US, PATH_US
    if clocks[slot, REACH_US] >= 0:
        rise_us, reach_us = clocks[slot, RISE_US], clocks[slot, REACH_US]
    grown_us = moved_us(SKEW_MAX_PPB, at_ms - clocks[slot, GOOD_MS])
    return line_us(clocks, slot, at_ms) + rise_us, reach_us + TICK_US + grown_us


@kernel
def is_known(clocks: NDArray[np.int64], slot: int, at_ms: int) -> bool:
    """Whether the source's readings have been those of a clock for long enough to speak of its offset."""
    return bool(clocks[slot, SAMPLES] >= CONFIRM_READINGS and instant_of(at_ms) - clocks[slot, BEGUN_MS] >= HOLD_MS)


@kernel
def _begin(clocks: NDArray[np.int64], slot: int, at_ms: int, low_us: int) -> None:
    """Forget what was learnt, but for the disturbances; the reading is the first."""
    jitter_us = clocks[slot, JITTER_US]
    clocks[slot, :DISTURBANCES] = 0
    clocks[slot, SAMPLES] = 1
    clocks[slot, BEGUN_MS] = at_ms
    clocks[slot, LINE_MS] = at_ms
    clocks[slot, LINE_US] = low_us
    clocks[slot, SKEW_ERROR_PPB] = SKEW_MAX_PPB
    clocks[slot, GOOD_MS] = at_ms
    clocks[slot, JITTER_US] = jitter_us if jitter_us > 0 else _JITTER_FIRST_US
    clocks[slot, STRETCH_MS] = STRETCH_MIN_MS
    clocks[slot, STRETCH] = at_ms // STRETCH_MIN_MS
    clocks[slot, BEST_MS] = at_ms
    clocks[slot, BEST_US] = low_us
    clocks[slot, HALF_US] = _NO_EXCHANGE
    clocks[slot, REACH_US] = _NO_EXCHANGE
    clocks[slot, TOLD] = _UNKNOWN


@kernel
def _thin(clocks: NDArray[np.int64], points: NDArray[np.int32], slot: int) -> None:
    """Of two neighbours keep the higher reading, along the slope, and the narrower exchange; stretches double."""
    skew_ppb = clocks[slot, SKEW_PPB]
    for pair in range(POINTS_MAX // 2):
        one, two = 2 * pair, 2 * pair + 1
        elapsed_ms = points[slot, two, AT_MS] - points[slot, one, AT_MS]
        rise_us = moved_us(skew_ppb, elapsed_ms)
        low, at = one, two
        if points[slot, two, LOW_US] - points[slot, one, LOW_US] > rise_us:
            low = two
        half, other = points[slot, one, POINT_HALF_US], points[slot, two, POINT_HALF_US]
        if other < 0 or 0 <= half < other:
            at = one
        middle_us = points[slot, at, POINT_MIDDLE_US]
        if at != low:  # the middle goes to the time of the reading
            middle_us += rise_us if low == two else -rise_us
        half_us = points[slot, at, POINT_HALF_US]
        at_ms, low_us = points[slot, low, AT_MS], points[slot, low, LOW_US]
        points[slot, pair, AT_MS] = at_ms
        points[slot, pair, LOW_US] = low_us
        points[slot, pair, POINT_MIDDLE_US] = middle_us
        points[slot, pair, POINT_HALF_US] = half_us
    clocks[slot, STRETCH_MS] *= 2
    clocks[slot, POINTS] = POINTS_MAX // 2


@kernel
def _drop(clocks: NDArray[np.int64], points: NDArray[np.int32], slot: int, count: int) -> None:
    """Forget the oldest points."""
    left = clocks[slot, POINTS] - count
    for point in range(left):
        for column in range(POINT_COLUMNS):
            points[slot, point, column] = points[slot, point + count, column]
    clocks[slot, POINTS] = left


@kernel
def _rebase(clocks: NDArray[np.int64], points: NDArray[np.int32], slot: int) -> None:
    """Count from the reading to come; points that are too far from there are forgotten with all before them."""
    later_ms = clocks[slot, BEST_MS] - clocks[slot, BASE_MS]
    higher_us = clocks[slot, BEST_US] - clocks[slot, BASE_US]
    used = clocks[slot, POINTS]
    unfit = 0
    for point in range(used):
        ms, us = points[slot, point, AT_MS] - later_ms, points[slot, point, LOW_US] - higher_us
        if abs(ms) >= _NEAR_BASE or abs(us) >= _NEAR_BASE:
            unfit = point + 1
    _drop(clocks, points, slot, unfit)
    for point in range(clocks[slot, POINTS]):
        points[slot, point, AT_MS] -= later_ms
        points[slot, point, LOW_US] -= higher_us
        if points[slot, point, POINT_HALF_US] >= 0:
            points[slot, point, POINT_MIDDLE_US] -= higher_us
    clocks[slot, BASE_MS] += later_ms
    clocks[slot, BASE_US] += higher_us


@kernel
def _keep_best(clocks: NDArray[np.int64], points: NDArray[np.int32], slot: int) -> None:
    """The best of the stretch that ends becomes a point, or part of the last one where both are of one instant."""
    if clocks[slot, POINTS] == POINTS_MAX:
        if clocks[slot, STRETCH_MS] < STRETCH_MAX_MS:
            _thin(clocks, points, slot)
        else:
            _drop(clocks, points, slot, 1)
    at_ms, low_us = clocks[slot, BEST_MS], clocks[slot, BEST_US]
    aged = 0
    while aged < clocks[slot, POINTS] and (
        at_ms - clocks[slot, BASE_MS] - points[slot, aged, AT_MS] > POINT_AGE_MAX_MS
    ):
        aged += 1
    if aged > 0:
        _drop(clocks, points, slot, aged)
    far_ms, far_us = at_ms - clocks[slot, BASE_MS], low_us - clocks[slot, BASE_US]
    if abs(far_ms) >= _NEAR_BASE or abs(far_us) >= _NEAR_BASE:
        _rebase(clocks, points, slot)
    used = clocks[slot, POINTS]
    half_us = clocks[slot, HALF_US]
    above_us = clocks[slot, MIDDLE_US] + moved_us(clocks[slot, SKEW_PPB], at_ms - clocks[slot, MIDDLE_MS]) - low_us
    if half_us >= _EXCHANGE_MAX_US or abs(above_us) >= _EXCHANGE_MAX_US:
        half_us = _NO_EXCHANGE
    point_ms, point_us = at_ms - clocks[slot, BASE_MS], low_us - clocks[slot, BASE_US]
    middle_us = point_us + above_us if half_us >= 0 else 0
    if used > 0 and points[slot, used - 1, AT_MS] == point_ms:
        used -= 1
        point_us = max(point_us, int(points[slot, used, LOW_US]))
        before_us = points[slot, used, POINT_HALF_US]
        if half_us < 0 or 0 <= before_us < half_us:
            half_us, middle_us = int(before_us), int(points[slot, used, POINT_MIDDLE_US])
    points[slot, used, AT_MS] = point_ms
    points[slot, used, LOW_US] = point_us
    points[slot, used, POINT_HALF_US] = half_us
    points[slot, used, POINT_MIDDLE_US] = middle_us
    clocks[slot, POINTS] = used + 1


@kernel
def _hull_slope(points: NDArray[np.int32], slot: int, used: int, hull: NDArray[np.int64]) -> tuple[float, float]:
    """Slope in us/ms of the upper hull over the mean time, and the mean distance of the points below that edge."""
    top = total_ms = 0
    for point in range(used):
        total_ms += int(points[slot, point, AT_MS])
        while top >= 2:  # noqa: PLR2004 - an edge has two ends
            one, two = hull[top - 2], hull[top - 1]
            run = int(points[slot, point, AT_MS]) - int(points[slot, one, AT_MS])
            rise = int(points[slot, point, LOW_US]) - int(points[slot, one, LOW_US])
            edge_run = int(points[slot, two, AT_MS]) - int(points[slot, one, AT_MS])
            edge_rise = int(points[slot, two, LOW_US]) - int(points[slot, one, LOW_US])
            if edge_rise * run > rise * edge_run:
                break
            top -= 1
        hull[top] = point
        top += 1
    mean_ms = total_ms // used
    edge = 1
    while edge < top - 1 and points[slot, hull[edge], AT_MS] < mean_ms:
        edge += 1
    one, two = hull[edge - 1], hull[edge]
    from_ms, from_us = int(points[slot, one, AT_MS]), int(points[slot, one, LOW_US])
    slope = float(points[slot, two, LOW_US] - from_us) / float(points[slot, two, AT_MS] - from_ms)
    below = 0.0
    for point in range(used):
        expected_us = slope * float(points[slot, point, AT_MS] - from_ms)
        below += expected_us - float(points[slot, point, LOW_US] - from_us)
    return slope, below / used


@kernel
def _exchange_slope(points: NDArray[np.int32], slot: int, used: int) -> tuple[float, float, int]:
    """Least squares through the middles of exchanges: slope in us/ms, mean distance, and what they span in ms."""
    count = first_ms = last_ms = first_us = 0
    sum_ms = sum_us = 0.0
    for point in range(used):
        if points[slot, point, POINT_HALF_US] < 0:
            continue
        last_ms = int(points[slot, point, AT_MS])
        if count == 0:
            first_ms, first_us = last_ms, int(points[slot, point, POINT_MIDDLE_US])
        count += 1
        sum_ms += float(last_ms - first_ms)
        sum_us += float(points[slot, point, POINT_MIDDLE_US] - first_us)
    if count < _FIT_POINTS:
        return 0.0, 0.0, 0
    mean_ms, mean_us = sum_ms / count, sum_us / count
    both = square = 0.0
    for point in range(used):
        if points[slot, point, POINT_HALF_US] >= 0:
            run_ms = float(points[slot, point, AT_MS] - first_ms) - mean_ms
            both += run_ms * (float(points[slot, point, POINT_MIDDLE_US] - first_us) - mean_us)
            square += run_ms * run_ms
    slope = both / square
    away = 0.0
    for point in range(used):
        if points[slot, point, POINT_HALF_US] >= 0:
            run_ms = float(points[slot, point, AT_MS] - first_ms) - mean_ms
            away += abs(float(points[slot, point, POINT_MIDDLE_US] - first_us) - mean_us - slope * run_ms)
    return slope, away / count, last_ms - first_ms


@kernel
def _fit_skew(clocks: NDArray[np.int64], points: NDArray[np.int32], slot: int, hull: NDArray[np.int64]) -> None:
    """The slope that is known best, of the readings' hull and of the exchanges."""
    used = clocks[slot, POINTS]
    if used < _FIT_POINTS:
        return
    slope, away_us = _hull_slope(points, slot, used, hull)
    span_ms = int(points[slot, used - 1, AT_MS]) - int(points[slot, 0, AT_MS])
    doubt = _SLOPE_DOUBT * (away_us + TICK_US / 2) / span_ms
    slope_two, away_two_us, span_two_ms = _exchange_slope(points, slot, used)
    if span_two_ms > 0:
        doubt_two = _SLOPE_DOUBT * (away_two_us + TICK_US / 2) / span_two_ms
        if doubt_two < doubt:
            slope, doubt = slope_two, doubt_two
    error_ppb = math.ceil(min(doubt * _PPB_MS_PER_US, float(SKEW_MAX_PPB)))
    if error_ppb <= _SKEW_ERROR_MAX_PPB:
        skew_ppb = math.floor(min(max(slope * _PPB_MS_PER_US, -float(SKEW_MAX_PPB)), float(SKEW_MAX_PPB)) + 0.5)
        clocks[slot, SKEW_PPB] = skew_ppb
        clocks[slot, SKEW_ERROR_PPB] = error_ppb


@kernel
def _fit_line(
    clocks: NDArray[np.int64], points: NDArray[np.int32], slot: int, at_ms: int, edges: NDArray[np.int64],
    best: NDArray[np.int64],
) -> None:  # fmt: skip
    """The line, and what exchanges leave above it, from all points; each counts for less the older it is."""
    skew_ppb, error_ppb = clocks[slot, SKEW_PPB], clocks[slot, SKEW_ERROR_PPB]
    if error_ppb > _SKEW_ERROR_MAX_PPB:
        error_ppb = 0  # nothing is known of the slope: the line stays where readings have been
    used = clocks[slot, POINTS]
    base_us = clocks[slot, BASE_US]
    low_us, high_us = _UNKNOWN, -_UNKNOWN
    weights = 0.0
    for point in range(used):
        age_ms = at_ms - clocks[slot, BASE_MS] - points[slot, point, AT_MS]
        slack_us = moved_us(error_ppb, age_ms)
        drift_us = base_us + moved_us(skew_ppb, age_ms)
        low_us = max(low_us, points[slot, point, LOW_US] + drift_us - slack_us)
        edges[2 * point, 0] = points[slot, point, LOW_US] + drift_us - slack_us
        edges[2 * point, 1] = START
        edges[2 * point + 1, 0] = -_UNKNOWN
        edges[2 * point + 1, 1] = END
        if points[slot, point, POINT_HALF_US] >= 0:
            above_us = points[slot, point, POINT_MIDDLE_US] + points[slot, point, POINT_HALF_US] + drift_us + slack_us
            high_us = min(high_us, above_us)
            edges[2 * point + 1, 0] = max(above_us, edges[2 * point, 0])
            edges[2 * point, 0] = min(above_us, edges[2 * point, 0])  # where the two contradict each other: between
            weights += 1.0 / float(TICK_US + slack_us)
    clocks[slot, REACH_US] = _NO_EXCHANGE
    if weights > 0 and high_us < low_us:  # some are wrong: believe most
        agree(edges, 2 * used, best)
        low_us, high_us = best[0, 0], best[0, 1]
    if weights > 0 and high_us != -_UNKNOWN:
        rises = 0.0
        for point in range(used):
            if points[slot, point, POINT_HALF_US] >= 0:
                age_ms = at_ms - clocks[slot, BASE_MS] - points[slot, point, AT_MS]
                middle_us = points[slot, point, POINT_MIDDLE_US] + base_us + moved_us(skew_ppb, age_ms)
                rises += float(middle_us - low_us) / float(TICK_US + moved_us(error_ppb, age_ms))
        rise_us = min(max(math.floor(rises / weights), 0), high_us - low_us)
        clocks[slot, RISE_US] = rise_us
        clocks[slot, REACH_US] = max(rise_us, high_us - low_us - rise_us)
    clocks[slot, LINE_MS] = at_ms
    clocks[slot, LINE_US] = low_us


@kernel
def _move(clocks: NDArray[np.int64], slot: int, by_us: int) -> None:
    """A step: everything that was learnt moves with the clock."""
    clocks[slot, LINE_US] += by_us
    clocks[slot, BASE_US] += by_us
    if clocks[slot, BEST_US] != _UNKNOWN:
        clocks[slot, BEST_US] += by_us
    clocks[slot, MIDDLE_US] += by_us
    clocks[slot, OFF_COUNT] = 0


@kernel
def _step(clocks: NDArray[np.int64], slot: int, at_ms: int, by_us: int, first_ms: int, sequence: int) -> None:
    """Confirm a step; one of a second where a leap second may be is none."""
    leap = abs(abs(by_us) - 1_000_000) <= PATH_US and leap_between(clocks[slot, GOOD_MS], first_ms)
    if not leap:
        if clocks[slot, DISTURBANCES] == 0 or at_ms - clocks[slot, STEP_MS] > SETTLE_MS:
            clocks[slot, DISTURBANCES] += 1
            clocks[slot, STEP_SEQUENCE] = sequence
            clocks[slot, STEP_US] = 0
        clocks[slot, STEP_MS] = at_ms
        clocks[slot, STEP_US] = max(min(clocks[slot, STEP_US] + by_us, _STEP_MAX_US), -_STEP_MAX_US)
    _move(clocks, slot, by_us)
    clocks[slot, GOOD_MS] = at_ms


@kernel
def _next_stretch(
    clocks: NDArray[np.int64], points: NDArray[np.int32], slot: int, at_ms: int, room: Workspace
) -> None:  # fmt: skip
    """The stretch that has ended becomes a point, and what is known is worked out anew."""
    if clocks[slot, BEST_US] != _UNKNOWN:
        _keep_best(clocks, points, slot)
        _fit_skew(clocks, points, slot, room.hull)
        _fit_line(clocks, points, slot, at_ms, room.edges, room.best)
    clocks[slot, STRETCH] = at_ms // clocks[slot, STRETCH_MS]
    clocks[slot, BEST_US] = _UNKNOWN
    clocks[slot, HALF_US] = _NO_EXCHANGE


@kernel
def _take_exchange(
    clocks: NDArray[np.int64], slot: int, at_ms: int, appended_ms: int, low_us: int, high_us: int, sequence: int
) -> None:
    """A round trip proved where the clock was when it was appended, and whether it fell.

    A rise is proved by the reading of its event already.
    """
    elapsed_ms = at_ms - appended_ms
    half_us = (high_us - low_us) // 2
    middle_us = low_us + half_us + moved_us(clocks[slot, SKEW_PPB], elapsed_ms)
    expected_us = line_us(clocks, slot, at_ms)
    doubt_us = _OFF_MIN_US + _doubt_us(clocks, slot, at_ms)
    highest_us = middle_us + half_us
    if highest_us < expected_us - doubt_us:
        above_us = min(half_us, PATH_US)
        if clocks[slot, REACH_US] < 0:
            clocks[slot, RISE_US] = 0
        _step(clocks, slot, at_ms, highest_us - above_us - clocks[slot, RISE_US] - expected_us, appended_ms, sequence)
        clocks[slot, REACH_US] = max(clocks[slot, REACH_US], high_us - low_us - above_us)
        return
    if clocks[slot, OFF_COUNT] > 0 and highest_us - (high_us - low_us) > expected_us + doubt_us:
        return  # of a clock that went ahead, as it seems: what is known will move there when that is confirmed
    if clocks[slot, OFF_COUNT] > 0 and clocks[slot, OFF_MAX_US] < 0 and appended_ms >= clocks[slot, OFF_FIRST_MS]:
        clocks[slot, OFF_COUNT] = 0  # low readings, and a clock that may be where it was: they were under way for long
    if clocks[slot, HALF_US] < 0 or half_us < clocks[slot, HALF_US]:
        clocks[slot, MIDDLE_MS] = at_ms
        clocks[slot, MIDDLE_US] = middle_us
        clocks[slot, HALF_US] = half_us
    if clocks[slot, REACH_US] < 0:
        rise_us = max(middle_us - expected_us, 0)
        clocks[slot, RISE_US] = rise_us
        clocks[slot, REACH_US] = max(rise_us, highest_us - expected_us - rise_us)


@kernel
def _doubt_us(clocks: NDArray[np.int64], slot: int, at_ms: int) -> int:
    """How far the line may have gone wrong since the last good reading, as far as the fit knows."""
    return moved_us(max(clocks[slot, SKEW_ERROR_PPB], _WANDER_PPB), at_ms - clocks[slot, GOOD_MS])


@kernel
def _take_near(clocks: NDArray[np.int64], slot: int, at_ms: int, low_us: int, off_us: int) -> None:
    """A reading where the clock was expected."""
    clocks[slot, OFF_COUNT] = 0
    clocks[slot, SAMPLES] += 1
    jitter_us = clocks[slot, JITTER_US]
    if off_us >= -min(max(_OFF_MIN_US, _NEAR_JITTERS * jitter_us), PATH_US):
        clocks[slot, GOOD_MS] = at_ms
    below_us = min(max(-off_us, 0), 4 * jitter_us + TICK_US)
    clocks[slot, JITTER_US] = min(jitter_us + (below_us - jitter_us) // _JITTER_SHARE, _JITTER_MAX_US)
    if off_us > 0:
        clocks[slot, LINE_US] += off_us
        clocks[slot, RISE_US] = max(clocks[slot, RISE_US] - off_us, 0)
    if clocks[slot, BEST_US] == _UNKNOWN or low_us - clocks[slot, BEST_US] > moved_us(
        clocks[slot, SKEW_PPB], at_ms - clocks[slot, BEST_MS]
    ):
        clocks[slot, BEST_MS] = at_ms
        clocks[slot, BEST_US] = low_us


@kernel
def _take_off(clocks: NDArray[np.int64], slot: int, at_ms: int, off_us: int, sequence: int, spread_us: int) -> bool:
    """A reading elsewhere; whether it agrees with those before it, if there are any."""
    count = clocks[slot, OFF_COUNT]
    lowest_us, highest_us = off_us, off_us
    if count > 0:
        lowest_us, highest_us = min(off_us, clocks[slot, OFF_MIN_US]), max(off_us, clocks[slot, OFF_MAX_US])
    agrees = highest_us - lowest_us <= spread_us and (lowest_us > 0) == (highest_us > 0)
    if count == 0 or not agrees:
        clocks[slot, OFF_COUNT] = 1
        clocks[slot, OFF_FIRST_MS] = at_ms
        clocks[slot, OFF_FIRST_SEQUENCE] = sequence
        clocks[slot, OFF_MIN_US] = off_us
        clocks[slot, OFF_MAX_US] = off_us
        return bool(agrees)
    clocks[slot, OFF_COUNT] = count + 1
    clocks[slot, OFF_MIN_US] = lowest_us
    clocks[slot, OFF_MAX_US] = highest_us
    return True


@kernel
def clock_delta_us(local_us: int, authority_ms: int) -> int:
    """local minus authority, at most OFFSET_MAX_US to either side."""
    whole = whole_of(local_us, authority_ms)
    if abs(whole) >= OFFSET_MAX_US // _US_PER_MS:
        return OFFSET_MAX_US if whole > 0 else -OFFSET_MAX_US
    return whole * _US_PER_MS + local_us % _US_PER_MS


@kernel
def estimate(
    clocks: NDArray[np.int64], points: NDArray[np.int32], slot: int, sequence: int, authority_ms: int, local_us: int,
    exchanged: int, sent_us: int, acked_us: int, appended_ms: int, room: Workspace,
) -> int:  # fmt: skip
    """One reading of a source's clock, in order of sequence; returns its Place.

    exchanged: 1 where the three numbers of a round trip come with it. What they say is left out where it cannot be:
    before the source's last step or its beginning, after now, or acknowledged before it was sent.
    """
    low_us = clock_delta_us(local_us, authority_ms) - TICK_US
    authority_ms = instant_of(authority_ms)
    if clocks[slot, SAMPLES] == 0:
        _begin(clocks, slot, authority_ms, low_us)
        return _BEGAN
    at_ms = max(authority_ms, clocks[slot, LINE_MS], clocks[slot, GOOD_MS], clocks[slot, BEST_MS])
    if clocks[slot, OFF_COUNT] == 0 and at_ms // clocks[slot, STRETCH_MS] != clocks[slot, STRETCH]:
        _next_stretch(clocks, points, slot, at_ms, room)
    if exchanged != 0 and sent_us <= acked_us:
        least_ms = max(clocks[slot, BEGUN_MS], clocks[slot, STEP_MS], at_ms - POINT_AGE_MAX_MS)
        if least_ms <= appended_ms <= at_ms:
            lowest_us = clock_delta_us(sent_us, appended_ms) - TICK_US
            highest_us = clock_delta_us(acked_us, appended_ms)
            _take_exchange(clocks, slot, at_ms, appended_ms, lowest_us, highest_us, sequence)
    off_us = low_us - line_us(clocks, slot, at_ms)
    doubt_us = _doubt_us(clocks, slot, at_ms)
    jitter_us = clocks[slot, JITTER_US]
    above_us = max(_OFF_MIN_US, _NEAR_JITTERS * jitter_us) + doubt_us
    below_us = max(_OFF_MIN_US, _OFF_JITTERS * jitter_us) + doubt_us
    if clocks[slot, SAMPLES] < _YOUNG_SAMPLES or at_ms - clocks[slot, BEGUN_MS] < _YOUNG_MS:
        above_us = max(above_us, 2 * PATH_US)
        below_us = max(below_us, 2 * PATH_US)
    if -below_us <= off_us <= above_us:
        _take_near(clocks, slot, at_ms, low_us, off_us)
        return _NEAR
    spread_us = below_us + moved_us(SKEW_MAX_PPB, at_ms - clocks[slot, OFF_FIRST_MS])
    was_above = clocks[slot, OFF_COUNT] > 0 and clocks[slot, OFF_MIN_US] > 0
    if not _take_off(clocks, slot, at_ms, off_us, sequence, spread_us) and was_above and off_us > 0:
        _begin(clocks, slot, at_ms, low_us)  # what rises faster than clocks do was not yet where the clock is
        return _BEGAN
    hold_ms = HOLD_TWO_WAY_MS if off_us < 0 and clocks[slot, REACH_US] >= 0 else HOLD_MS
    if clocks[slot, OFF_COUNT] >= CONFIRM_READINGS and at_ms - clocks[slot, OFF_FIRST_MS] >= hold_ms:
        if clocks[slot, SAMPLES] < CONFIRM_READINGS:
            _begin(clocks, slot, at_ms, low_us)  # nothing was known that could have stepped
            return _BEGAN
        _step(
            clocks, slot, at_ms, clocks[slot, OFF_MAX_US], clocks[slot, OFF_FIRST_MS], clocks[slot, OFF_FIRST_SEQUENCE]
        )
        return _STEPPED
    return _ABOVE if off_us > 0 else _BELOW


@kernel
def due(clocks: NDArray[np.int64], slot: int, at_ms: int, stepped: bool, interval_ms: int) -> int:  # noqa: FBT001
    """Whether the estimate is to be told with this event, as the number of an estimates.Why, 0 where not; notes it."""
    if not is_known(clocks, slot, at_ms):
        return 0
    interval, told = at_ms // interval_ms, clocks[slot, TOLD]
    if told == interval and not stepped:
        return 0
    clocks[slot, TOLD] = interval
    if told == _UNKNOWN:
        return WHY_KNOWN
    return WHY_STEP if stepped else WHY_INTERVAL
