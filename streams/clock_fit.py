"""The line of a source's clock, worked out from its points: the best readings and exchanges of its stretches.

At most 32 points, gone through once per stretch. Slopes and mean residuals are sums and quotients in the order of the
points: no function of libm, nothing that depends on a machine. Why this line and no other stands in `estimate`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.memory import kernel
from streams.clock_columns import (
    AT_MS,
    BASE_MS,
    BASE_US,
    BEST_MS,
    BEST_US,
    HALF_US,
    LINE_MS,
    LINE_US,
    LOW_US,
    MIDDLE_MS,
    MIDDLE_US,
    NO_EXCHANGE,
    POINT_AGE_MAX_MS,
    POINT_COLUMNS,
    POINT_HALF_US,
    POINT_MIDDLE_US,
    POINTS,
    POINTS_MAX,
    PPB_MS_PER_US,
    REACH_US,
    RISE_US,
    SKEW_ERROR_PPB,
    SKEW_MAX_PPB,
    SKEW_PPB,
    STRETCH,
    STRETCH_MS,
    TICK_US,
    UNKNOWN_US,
    moved_us,
)
from streams.intervals import END, START, agree

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRETCH_MAX_MS: Final = 128_000
#: A slope is used once it is known to this.
_SKEW_ERROR_MAX_PPB: Final = 100_000
_SLOPE_DOUBT: Final = 3.0
_FIT_POINTS: Final = 3
#: What 32 bits hold, with room for a sum.
_NEAR_BASE: Final = 1 << 30
#: A round trip of nine minutes to either side says nothing worth keeping.
_EXCHANGE_MAX_US: Final = 1 << 29


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
        half_us = NO_EXCHANGE
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
    error_ppb = math.ceil(min(doubt * PPB_MS_PER_US, float(SKEW_MAX_PPB)))
    if error_ppb <= _SKEW_ERROR_MAX_PPB:
        skew_ppb = math.floor(min(max(slope * PPB_MS_PER_US, -float(SKEW_MAX_PPB)), float(SKEW_MAX_PPB)) + 0.5)
        clocks[slot, SKEW_PPB] = skew_ppb
        clocks[slot, SKEW_ERROR_PPB] = error_ppb


@kernel
def _put_edges(
    clocks: NDArray[np.int64], points: NDArray[np.int32], slot: int, at_ms: int, error_ppb: int,
    edges: NDArray[np.int64],
) -> None:  # fmt: skip
    """What each point says of the offset now, as the two edges of an interval; a reading alone has no upper one."""
    for point in range(clocks[slot, POINTS]):
        age_ms = at_ms - clocks[slot, BASE_MS] - points[slot, point, AT_MS]
        slack_us = moved_us(error_ppb, age_ms)
        drift_us = clocks[slot, BASE_US] + moved_us(clocks[slot, SKEW_PPB], age_ms)
        low_us, high_us = points[slot, point, LOW_US] + drift_us - slack_us, -UNKNOWN_US
        if points[slot, point, POINT_HALF_US] >= 0:
            high_us = points[slot, point, POINT_MIDDLE_US] + points[slot, point, POINT_HALF_US] + drift_us + slack_us
        edges[2 * point, 0], edges[2 * point, 1] = min(low_us, high_us), START
        edges[2 * point + 1, 0], edges[2 * point + 1, 1] = max(low_us, high_us), END  # contradictory: between the two


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
    low_us, high_us = UNKNOWN_US, -UNKNOWN_US
    weights = 0.0
    for point in range(used):
        age_ms = at_ms - clocks[slot, BASE_MS] - points[slot, point, AT_MS]
        slack_us = moved_us(error_ppb, age_ms)
        drift_us = base_us + moved_us(skew_ppb, age_ms)
        low_us = max(low_us, points[slot, point, LOW_US] + drift_us - slack_us)
        if points[slot, point, POINT_HALF_US] >= 0:
            above_us = points[slot, point, POINT_MIDDLE_US] + points[slot, point, POINT_HALF_US] + drift_us + slack_us
            high_us = min(high_us, above_us)
            weights += 1.0 / float(TICK_US + slack_us)
    clocks[slot, REACH_US] = NO_EXCHANGE
    if weights > 0 and high_us < low_us:  # some are wrong: believe most
        _put_edges(clocks, points, slot, at_ms, error_ppb, edges)
        agree(edges, 2 * used, best)
        low_us, high_us = best[0, 0], best[0, 1]
    if weights > 0 and high_us != -UNKNOWN_US:
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
def next_stretch(
    clocks: NDArray[np.int64], points: NDArray[np.int32], slot: int, at_ms: int, room: Workspace
) -> None:  # fmt: skip
    """The stretch that has ended becomes a point, and what is known is worked out anew."""
    if clocks[slot, BEST_US] != UNKNOWN_US:
        _keep_best(clocks, points, slot)
        _fit_skew(clocks, points, slot, room.hull)
        _fit_line(clocks, points, slot, at_ms, room.edges, room.best)
    clocks[slot, STRETCH] = at_ms // clocks[slot, STRETCH_MS]
    clocks[slot, BEST_US] = UNKNOWN_US
    clocks[slot, HALF_US] = NO_EXCHANGE
