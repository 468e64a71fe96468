"""Where a source's clock is, learnt event by event: the kernels. What is estimated, and why so, stands in `estimate`.

An event that lies where it is expected touches half a row of `clocks`. Its points are gone through once per stretch
(see `clock_fit`), and a stretch holds some readings: the cost of an event is bounded, and small on average. All
integers.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from schemas.memory import kernel
from streams.clock_columns import (
    AT_MS,
    BASE_MS,
    BASE_US,
    BEGUN_MS,
    BEST_MS,
    BEST_US,
    DISTURBANCES,
    GOOD_MS,
    HALF_US,
    JITTER_US,
    LAST_STEP_MS,
    LAST_STEP_US,
    LINE_MS,
    LINE_US,
    MIDDLE_MS,
    MIDDLE_US,
    NO_EXCHANGE,
    OFF_COUNT,
    OFF_FIRST_MS,
    OFF_FIRST_SEQUENCE,
    OFF_MAX_US,
    OFF_MIN_US,
    POINT_AGE_MAX_MS,
    POINTS,
    REACH_US,
    RISE_US,
    SAMPLES,
    SKEW_ERROR_PPB,
    SKEW_MAX_PPB,
    SKEW_PPB,
    STEP_MS,
    STEP_SEQUENCE,
    STEP_US,
    STRETCH,
    STRETCH_MS,
    TICK_US,
    TOLD_MS,
    UNKNOWN_US,
    instant_of,
    moved_us,
)
from streams.clock_fit import STRETCH_MAX_MS, next_stretch
from streams.leap import leap_between
from streams.severity_kernel import whole_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streams.clock_fit import Workspace

STRETCH_MIN_MS: Final = 4_000
#: Of a source with so many points a stretch ends with each so many readings at the soonest, while it is not too long.
_LEARNT_POINTS: Final = 4
_READINGS_A_STRETCH: Final = 4
#: How far quartz wanders while nobody looks; less than a fit that claims to know better.
_WANDER_PPB: Final = 1_000
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
#: No clock gains more, not even a broken one; what a queue gives back seems to.
_GAIN_MAX_PPB: Final = 50_000_000
_OFF_MIN_US: Final = 10_000
#: A reading that far off may be of an instant that never was: what is known is not brought there.
_FAR_US: Final = 1_000_000
_JITTER_FIRST_US: Final = 5_000
_JITTER_MAX_US: Final = 1_000_000
_JITTER_SHARE: Final = 16
_OFF_JITTERS: Final = 8
_NEAR_JITTERS: Final = 2
#: Beyond 71 years a clock is taken to be 71 years off.
OFFSET_MAX_US: Final = 1 << 51
_STEP_MAX_US: Final = 1 << 53
_US_PER_MS: Final = 1_000


#: A source is told of after so many of its events at the soonest, and then after so many intervals at the latest: what
#: is told of many that send rarely is a small part of what they send.
EVENTS_A_TELLING: Final = 16
INTERVALS_MAX: Final = 10

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


@kernel
def line_us(clocks: NDArray[np.int64], slot: int, at_ms: int) -> int:
    """The line at an instant."""
    return int(clocks[slot, LINE_US] + moved_us(clocks[slot, SKEW_PPB], at_ms - clocks[slot, LINE_MS]))


@kernel
def offset_of(clocks: NDArray[np.int64], slot: int, at_ms: int) -> tuple[int, int]:
    """The clock's offset in us, and how far the truth may be from it; as far as a reading above the line, if one is."""
    at_ms = max(instant_of(at_ms), clocks[slot, LINE_MS], clocks[slot, GOOD_MS])
    rise_us, reach_us = PATH_US, PATH_US
    if clocks[slot, REACH_US] >= 0:
        rise_us, reach_us = clocks[slot, RISE_US], clocks[slot, REACH_US]
    grown_us = moved_us(SKEW_MAX_PPB, at_ms - clocks[slot, GOOD_MS])
    above_us = max(clocks[slot, OFF_MAX_US], 0) if clocks[slot, OFF_COUNT] > 0 else 0
    return line_us(clocks, slot, at_ms) + rise_us, reach_us + TICK_US + grown_us + above_us


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
    clocks[slot, HALF_US] = NO_EXCHANGE
    clocks[slot, REACH_US] = NO_EXCHANGE
    clocks[slot, TOLD_MS] = UNKNOWN_US


@kernel
def move(clocks: NDArray[np.int64], slot: int, by_us: int) -> None:
    """A step: everything that was learnt moves with the clock."""
    clocks[slot, LINE_US] += by_us
    clocks[slot, BASE_US] += by_us
    if clocks[slot, BEST_US] != UNKNOWN_US:
        clocks[slot, BEST_US] += by_us
    clocks[slot, MIDDLE_US] += by_us
    clocks[slot, OFF_COUNT] = 0


@kernel
def turn_back(clocks: NDArray[np.int64], points: NDArray[np.int32], slot: int, now_ms: int) -> None:
    """The authority's clock went back, as it was found: nothing that is known is of an instant after now."""
    at_ms = now_of(clocks, slot, now_ms)
    if at_ms == now_ms:
        return
    clocks[slot, LINE_US] = line_us(clocks, slot, at_ms)
    clocks[slot, LINE_MS] = now_ms
    for column in (BEGUN_MS, GOOD_MS, BEST_MS, MIDDLE_MS, STEP_MS, LAST_STEP_MS):
        clocks[slot, column] = min(clocks[slot, column], now_ms)
    clocks[slot, STRETCH] = min(clocks[slot, STRETCH], now_ms // clocks[slot, STRETCH_MS])
    used = clocks[slot, POINTS]
    if used > 0:
        clocks[slot, BASE_MS] -= max(clocks[slot, BASE_MS] + points[slot, used - 1, AT_MS] - now_ms, 0)


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
        clocks[slot, LAST_STEP_US] = by_us
        clocks[slot, LAST_STEP_MS] = first_ms
        clocks[slot, STEP_US] = max(min(clocks[slot, STEP_US] + by_us, _STEP_MAX_US), -_STEP_MAX_US)
    move(clocks, slot, by_us)
    clocks[slot, GOOD_MS] = at_ms


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
        rise_us = clocks[slot, RISE_US]
        clocks[slot, RISE_US] = max(rise_us - off_us, 0) if clocks[slot, REACH_US] >= 0 else rise_us + off_us
    if clocks[slot, BEST_US] == UNKNOWN_US or low_us - clocks[slot, BEST_US] > moved_us(
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
def now_of(clocks: NDArray[np.int64], slot: int, authority_ms: int) -> int:
    """An instant as the source's estimate reckons it: never before what it rests on."""
    return int(max(instant_of(authority_ms), clocks[slot, LINE_MS], clocks[slot, GOOD_MS], clocks[slot, BEST_MS]))


@kernel
def _has_ended(clocks: NDArray[np.int64], slot: int, at_ms: int) -> bool:
    """Whether a reading is of the next stretch; of who sends rarely each would be, if a stretch did not hold some."""
    stretch_ms = clocks[slot, STRETCH_MS]
    if at_ms // stretch_ms == clocks[slot, STRETCH]:
        return False
    if clocks[slot, SAMPLES] % _READINGS_A_STRETCH == 0 or clocks[slot, POINTS] < _LEARNT_POINTS:
        return True
    return bool(at_ms - clocks[slot, STRETCH] * stretch_ms >= STRETCH_MAX_MS)


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
    if clocks[slot, SAMPLES] == 0:
        _begin(clocks, slot, instant_of(authority_ms), low_us)
        return _BEGAN
    at_ms = now_of(clocks, slot, authority_ms)
    if (
        clocks[slot, OFF_COUNT] == 0
        and _has_ended(clocks, slot, at_ms)
        and abs(low_us - line_us(clocks, slot, at_ms)) < _FAR_US
    ):
        next_stretch(clocks, points, slot, at_ms, room)
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
    young = clocks[slot, SAMPLES] < _YOUNG_SAMPLES or at_ms - clocks[slot, BEGUN_MS] < _YOUNG_MS
    if young:
        above_us = max(above_us, 2 * PATH_US)
        below_us = max(below_us, 2 * PATH_US)
    if -below_us <= off_us <= above_us:
        slack_us = 2 * PATH_US + moved_us(_GAIN_MAX_PPB, at_ms - clocks[slot, BEGUN_MS])
        if young and off_us > 0 and clocks[slot, REACH_US] < 0 and clocks[slot, RISE_US] + off_us > slack_us:
            _begin(clocks, slot, at_ms, low_us)  # as below, of a source that sends so often that each step is small
            return _BEGAN
        _take_near(clocks, slot, at_ms, low_us, off_us)
        return _NEAR
    now_ms = instant_of(authority_ms)
    spread_us = below_us + moved_us(SKEW_MAX_PPB, abs(now_ms - clocks[slot, OFF_FIRST_MS]))
    was_above = clocks[slot, OFF_COUNT] > 0 and clocks[slot, OFF_MIN_US] > 0
    agrees = _take_off(clocks, slot, now_ms, off_us, sequence, spread_us)
    if not agrees and was_above and off_us > 0 and clocks[slot, SAMPLES] < _YOUNG_SAMPLES:
        _begin(clocks, slot, at_ms, low_us)  # what rises faster than clocks do was not yet where the clock is
        return _BEGAN
    hold_ms = HOLD_TWO_WAY_MS if off_us < 0 and clocks[slot, REACH_US] >= 0 else HOLD_MS
    if clocks[slot, OFF_COUNT] >= CONFIRM_READINGS and now_ms - clocks[slot, OFF_FIRST_MS] >= hold_ms:
        if clocks[slot, SAMPLES] < CONFIRM_READINGS:
            _begin(clocks, slot, at_ms, low_us)  # nothing was known that could have stepped
            return _BEGAN
        _step(
            clocks, slot, at_ms, clocks[slot, OFF_MAX_US], clocks[slot, OFF_FIRST_MS], clocks[slot, OFF_FIRST_SEQUENCE]
        )
        turn_back(clocks, points, slot, now_ms)
        return _STEPPED
    return _ABOVE if off_us > 0 else _BELOW


@kernel
def due(clocks: NDArray[np.int64], slot: int, at_ms: int, stepped: bool, interval_ms: int) -> int:  # noqa: FBT001
    """Whether the estimate is to be told with this event, as the number of an estimates.Why, 0 where not; notes it."""
    if not is_known(clocks, slot, at_ms):
        return 0
    at_ms, told_ms = instant_of(at_ms), clocks[slot, TOLD_MS]
    why = WHY_STEP if stepped else WHY_INTERVAL
    if told_ms == UNKNOWN_US:
        why = WHY_KNOWN
    elif not stepped:
        apart_ms = abs(at_ms - told_ms)
        if at_ms // interval_ms == told_ms // interval_ms:
            return 0
        if apart_ms < INTERVALS_MAX * interval_ms and (
            apart_ms * clocks[slot, SAMPLES] < EVENTS_A_TELLING * (at_ms - clocks[slot, BEGUN_MS])
        ):
            return 0
    clocks[slot, TOLD_MS] = at_ms
    return why
