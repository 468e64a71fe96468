"""Where a clock is: against the plain twin, and against what is true of clocks that are made up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.memory import JIT
from streams.clock_columns import (
    AT_MS,
    BASE_MS,
    BASE_US,
    CLOCK_COLUMNS,
    DISTURBANCES,
    LOW_US,
    POINT_COLUMNS,
    POINT_HALF_US,
    POINT_MIDDLE_US,
    POINTS,
    POINTS_MAX,
)
from streams.clock_fit import workspace
from streams.estimate import Method, coherent_s, estimate_of, severity_of_offset
from streams.estimate_kernel import OFFSET_MAX_US, Place, clock_delta_us, due, estimate
from streams.estimates import Why
from streams.severity import Severity
from tests.core import clock_oracle
from tests.core.clock_histories import START_MS, Readings, Truth, in_order, learn, readings_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.core.clock_histories import Learnt

INT64 = st.integers(-(2**63), 2**63 - 1)


# ---------------------------------------------------------------------------------------------------- the plain twin


def _twin(readings: Readings) -> list[clock_oracle.Clock]:
    """Feeds the twin, and compares what is known after each reading; returns it."""
    learnt = learn(readings)
    clock = clock_oracle.Clock()
    for row in range(readings.source.size):
        exchange = tuple(readings.exchange[row].tolist()) if readings.exchanged[row] else None
        at_ms = int(readings.authority_ms[row])
        place = clock.read(row + 1, at_ms, int(readings.local_us[row]), exchange)
        assert Place[place] == learnt.place[row], row
        assert clock.offset(at_ms) == (learnt.offset_us[row], learnt.bound_us[row]), row
        assert (clock.skew_ppb, clock.error_ppb) == (learnt.skew_ppb[row], learnt.skew_error_ppb[row]), row
    _same_points(clock, learnt)
    return [clock]


def _same_points(clock: clock_oracle.Clock, learnt: Learnt) -> None:
    row, points = learnt.clocks[0].tolist(), learnt.points[0].tolist()
    found = [
        clock_oracle.Point(
            point[AT_MS] + row[BASE_MS],
            point[LOW_US] + row[BASE_US],
            point[POINT_MIDDLE_US] + row[BASE_US] if point[POINT_HALF_US] >= 0 else None,
            point[POINT_HALF_US],
        )
        for point in points[: row[POINTS]]
    ]
    assert found == clock.points
    assert row[DISTURBANCES] == clock.disturbances


def _history(seed: int, rows: int) -> Readings:
    """A clock with everything that happens to clocks: odd rates, outages, steps, bursts, exchanges or none."""
    draw = np.random.default_rng(seed)
    gap_s = float(draw.choice([0.05, 1.0, 30.0, 900.0]))
    made_s = np.cumsum(draw.exponential(gap_s, rows))
    delay_s = draw.choice([0.0005, 0.04, 0.4]) + draw.exponential(draw.choice([1e-4, 5e-3, 0.2]), rows)
    outage = draw.integers(0, rows)
    held = slice(outage, outage + int(draw.integers(0, rows // 4)))
    delay_s[held] += np.maximum(made_s[held].max(initial=0) - made_s[held], 0)
    steps = tuple(
        (float(draw.uniform(0, made_s[-1])), float(draw.normal(0, 10.0 ** draw.integers(3, 8)))) for _ in range(2)
    )
    truth = Truth(float(draw.normal(0, 10.0 ** draw.integers(2, 11))), float(draw.choice([0, 40, -400, 9_000])), steps)
    appended_s = in_order(made_s + delay_s)
    acked_s = appended_s + draw.exponential(0.02, rows) if draw.random() < 0.7 else None
    readings = readings_of(truth, made_s, appended_s, acked_s, exchange_every_s=3 * gap_s)
    odd = draw.random(rows) < 0.01
    readings.local_us[odd] += draw.integers(-(10**12), 10**12, int(odd.sum()))
    back = draw.random(rows) < 0.01
    readings.authority_ms[back] -= draw.integers(0, 5_000, int(back.sum()))
    return readings


@pytest.mark.parametrize("seed", range(60 if JIT else 6))
def test_what_is_learnt_is_what_the_twin_learns(seed: int) -> None:
    """After each of 600 readings, and the points at the end."""
    _twin(_history(seed, 600))


@pytest.mark.parametrize("seed", range(4 if JIT else 1))
def test_a_long_history_thins_its_points_as_the_twin_does(seed: int) -> None:
    """20,000 readings, interpreted 4,000; stretches have doubled and points have been forgotten."""
    _twin(_history(1_000 + seed, 20_000 if JIT else 4_000))


OFFS_US = st.sampled_from(
    [0, 1, 10, 999, 9_000, 60_000, 400_000, 5_000_000, -1, -9_000, -60_000, -1_000_000, -5_000_000]
)
GAPS_MS = st.sampled_from([0, 0, 1, 500, 1_000, 3_999, 4_000, 5_000, 25_000, 600_000, -1, -5_000, -90_000])
WIDTHS_US = st.sampled_from([0, 0, 0, 1_000, 40_000, 2_000_000])


@given(st.lists(st.tuples(GAPS_MS, OFFS_US, WIDTHS_US, st.integers(0, 3)), min_size=1, max_size=60), st.integers(0, 4))
@settings(max_examples=400 if JIT else 40)
def test_of_instants_at_the_edges_the_twin_learns_the_same(rows: list[tuple[int, int, int, int]], start: int) -> None:
    """Several at one instant, at the ends of stretches and holds; a broker's clock that goes back; round trips."""
    columns = np.array(rows, np.int64)
    authority_ms = START_MS + start * 1_000 + np.cumsum(columns[:, 0])
    local_us = authority_ms * 1_000 + columns[:, 1]
    about = np.maximum(np.arange(len(rows)) - columns[:, 3], 0)  # the event that a round trip is of
    exchange = np.stack([local_us[about], local_us[about] + columns[:, 2], authority_ms[about]], 1)
    _twin(
        Readings(np.zeros(len(rows), np.int64), authority_ms, local_us, (columns[:, 2] > 0).astype(np.uint8), exchange)
    )


def test_points_of_one_instant_are_one() -> None:
    """The end of a rise and the next event, appended in the same millisecond of a later stretch: no slope."""
    begin_ms = START_MS // 4_000 * 4_000
    times_ms = [begin_ms + ms for ms in (0, 500, 7_999, 7_999, 8_000, 12_000, 16_000)]
    offs_us = [0, 1_000_000, 1, 10, 5, 5, 5]
    authority_ms = np.array(times_ms, np.int64)
    _twin(
        Readings(
            np.zeros(7, np.int64), authority_ms, authority_ms * 1_000 + np.array(offs_us), np.zeros(7, np.uint8),
            np.zeros((7, 3), np.int64),
        )
    )  # fmt: skip


@given(st.lists(st.tuples(INT64, INT64, INT64, INT64, INT64), min_size=1, max_size=40))
@example([(2_074_911_050_611_650, 0, 0, 0, 0), (-9_221_297_125_804_164_159, 0, 0, 0, 0)])
@settings(max_examples=200 if JIT else 20)
def test_no_reading_is_too_odd(rows: list[tuple[int, int, int, int, int]]) -> None:
    """Any instants, of any sense: no error, no overflow, and a bound that is not negative."""
    columns = np.array(rows, np.int64)
    readings = Readings(
        np.zeros(len(rows), np.int64), columns[:, 0], columns[:, 1], np.ones(len(rows), np.uint8), columns[:, 2:].copy()
    )
    learnt = learn(readings)
    assert (learnt.bound_us >= 0).all()
    assert estimate_of(learnt.clocks, 0, int(columns[-1, 0]))


@given(INT64, st.integers(-(2**62), 2**62))
def test_the_delta_is_exact_as_far_as_it_goes(local_us: int, authority_ms: int) -> None:
    """Beyond 71 years it is 71 years."""
    exact = local_us - authority_ms * 1_000
    whole, most = exact // 1_000, OFFSET_MAX_US // 1_000
    expected = exact if abs(whole) < most else OFFSET_MAX_US if whole > 0 else -OFFSET_MAX_US
    assert clock_delta_us(local_us, authority_ms) == expected


# ------------------------------------------------------------------------------------------------ clocks made up


def _steady(rows: int = 3_600, gap_s: float = 1.0, seed: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When events are made and appended: 5 ms at least, 3 ms more on average."""
    draw = np.random.default_rng(seed)
    made_s: NDArray[np.float64] = np.arange(rows, dtype=np.float64) * gap_s
    delays_s: NDArray[np.float64] = 0.005 + draw.exponential(0.003, rows)
    return made_s, in_order(made_s + delays_s)


def test_offset_and_skew_are_found_and_the_truth_is_within_the_bound() -> None:
    """0.4 s ahead, gains 30 ppm; one way, so off by the least delay at most."""
    truth = Truth(400_000, 30)
    made_s, appended_s = _steady()
    learnt = learn(readings_of(truth, made_s, appended_s))
    true_us = truth.offsets_us(appended_s)
    assert (np.abs(learnt.offset_us - true_us) <= learnt.bound_us).all()
    assert abs(int(learnt.skew_ppb[-1]) - 30_000) < 1_000
    assert learnt.count(Place.NEAR) > 0.99 * made_s.size
    assert not learnt.known[:5].any()
    assert learnt.known[10:].all()


def test_round_trips_take_the_delay_out() -> None:
    """To within a millisecond, where one way is off by all of it."""
    truth = Truth(400_000, 30)
    made_s, appended_s = _steady()
    draw = np.random.default_rng(2)
    acked_s = appended_s + 0.005 + draw.exponential(0.003, made_s.size)
    learnt = learn(readings_of(truth, made_s, appended_s, acked_s))
    true_us = truth.offsets_us(appended_s)
    assert (np.abs(learnt.offset_us - true_us) <= learnt.bound_us).all()
    assert np.abs(learnt.offset_us - true_us)[600:].max() < 1_000
    found = estimate_of(learnt.clocks, 0, int(appended_s[-1] * 1e3) + START_MS)
    assert found.method is Method.TWO_WAY
    assert found.severity is Severity.GREEN
    assert found.disturbances == 0
    assert found.disturbances == 0
    # 0.4 s and 30 ppm: 1 s is passed after some 4 to 5.5 hours
    assert 4 * 3_600 < found.coherent_s < 5.5 * 3_600


def test_a_backlog_is_no_drift() -> None:
    """A quarter of an hour held back, then worked off at fifty times the rate: the offset does not move."""
    made_s, appended_s = _steady(5_400)
    held = (made_s >= 1_800) & (made_s < 2_700)
    appended_s[held] = 2_700 + np.arange(int(held.sum())) / 50
    appended_s = in_order(appended_s)
    learnt = learn(readings_of(Truth(0, 20), made_s, appended_s))
    true_us = 20 * appended_s
    late = learnt.place == Place.BELOW
    assert late.sum() >= 890
    assert np.abs(learnt.offset_us - true_us).max() < 60_000
    assert learnt.clocks[0, DISTURBANCES] == 0


@pytest.mark.parametrize(
    ("every_s", "held_s", "faster"), [(1.0, 1_000, 50), (0.01, 60, 10), (0.1, 60, 2), (0.01, 6, 1.1)]
)
def test_a_source_that_is_first_seen_in_its_backlog_is_not_known_until_it_has_drained(
    every_s: float, held_s: float, faster: float
) -> None:
    """What rises faster than a clock runs is no clock yet, however small its steps are."""
    made_s = np.arange(0, held_s / (1 - 1 / faster) + 100, every_s)
    appended_s = in_order(np.maximum(made_s, held_s + made_s / faster) + 0.005)
    learnt = learn(readings_of(Truth(), made_s, appended_s))
    behind = appended_s - made_s > 1
    assert behind.sum() > made_s.size // 10
    assert not learnt.known[behind].any()
    caught_up = made_s > made_s[behind][-1] + 30
    assert learnt.known[caught_up].all()
    assert np.abs(learnt.offset_us[caught_up]).max() < 60_000
    assert learnt.clocks[0, DISTURBANCES] == 0


@pytest.mark.parametrize("by_us", [2_000_000, -2_000_000, 300_000, -300_000, 86_400_000_000])
def test_a_step_is_found_with_its_size_after_five_seconds(by_us: int) -> None:
    """To within the jitter; the skew that was learnt is kept."""
    truth = Truth(0, 30, ((1_800.5, by_us),))
    made_s, appended_s = _steady()
    learnt = learn(readings_of(truth, made_s, appended_s))
    [confirmed] = np.flatnonzero(learnt.place == Place.STEPPED).tolist()
    assert made_s[confirmed] == pytest.approx(1_806, abs=1)
    found = estimate_of(learnt.clocks, 0, int(appended_s[-1] * 1e3) + START_MS)
    assert found.disturbances == 1
    assert (found.step_sequence, found.step_ms) == (1_802, int(appended_s[confirmed] * 1e3) + START_MS)
    assert abs(found.step_us - by_us) < 15_000
    assert abs(found.skew_ppb - 30_000) < 2_000
    true_us = truth.offsets_us(appended_s)
    assert (np.abs(learnt.offset_us - true_us) <= learnt.bound_us)[confirmed:].all()


def test_one_wrong_stamp_is_no_step() -> None:
    """A day ahead, once; and two at two different places."""
    made_s, appended_s = _steady()
    readings = readings_of(Truth(), made_s, appended_s)
    readings.local_us[1_000] += 86_400_000_000
    readings.local_us[2_000] -= 5_000_000
    learnt = learn(readings)
    assert learnt.place[1_000] == Place.ABOVE
    assert learnt.place[2_000] == Place.BELOW
    assert learnt.clocks[0, DISTURBANCES] == 0
    assert np.abs(learnt.offset_us).max() < 60_000
    far = learnt.bound_us > 1_000_000
    assert np.flatnonzero(far).tolist() == [1_000]  # what was appended before it was made is proved, while it stands


@pytest.mark.parametrize("ppm", [5_000, 50_000])
def test_a_clock_that_gains_more_than_clocks_do_is_within_the_bound(ppm: float) -> None:
    """Its estimate stays behind, and the bound says by how much; without round trips, which are told late."""
    truth = Truth(0, ppm)
    made_s, appended_s = _steady(600)
    learnt = learn(readings_of(truth, made_s, appended_s))
    off_us = np.abs(learnt.offset_us - truth.offsets_us(appended_s))
    assert (off_us <= learnt.bound_us)[learnt.known].all()
    assert off_us.max() > 100_000


def test_round_trips_prove_a_fall_at_once_and_tell_it_from_a_longer_way() -> None:
    """The same low readings: one clock was set back by 0.4 s, the other's events take 0.4 s longer from then on."""
    made_s, appended_s = _steady()
    later_s = in_order(appended_s + 0.4 * (made_s >= 1_800))
    back = 0.005
    set_back = learn(readings_of(Truth(0, 0, ((1_800.0, -400_000),)), made_s, appended_s, appended_s + back))
    longer = learn(readings_of(Truth(), made_s, later_s, later_s + back))
    assert set_back.clocks[0, DISTURBANCES] == 1
    assert set_back.offset_us[-1] == pytest.approx(-400_000, abs=20_000)
    assert longer.clocks[0, DISTURBANCES] == 0
    assert longer.offset_us[-1] == pytest.approx(0, abs=50_000)


@pytest.mark.parametrize("wide_s", [0.01, 0.4, 4.0])
def test_after_a_fall_that_a_round_trip_proved_the_bound_is_as_wide_as_that_was(wide_s: float) -> None:
    """The truth is within it from the event on that told of it."""
    made_s, appended_s = _steady()
    truth = Truth(0, 0, ((1_800.0, -9_000_000),))
    acked_s = appended_s + np.where(made_s >= 1_800, wide_s, 0.005)
    readings = readings_of(truth, made_s, appended_s, acked_s)
    learnt = learn(readings)
    told = int(np.flatnonzero((readings.exchange[:, 2] >= START_MS + 1_800_000) & (readings.exchanged > 0))[0])
    assert learnt.clocks[0, DISTURBANCES] == 1
    assert (np.abs(learnt.offset_us - truth.offsets_us(appended_s)) <= learnt.bound_us)[told:].all()


def test_a_round_trip_while_a_rise_is_not_confirmed_does_not_move_with_it() -> None:
    """Nor does one that was told before: of 5 s ahead, with the first round trip in between."""
    made_s, appended_s = _steady()
    truth = Truth(0, 0, ((1_800.0, 5_000_000),))
    readings = readings_of(truth, made_s, appended_s, appended_s + 0.005)
    readings.exchanged[:1_803] = 0
    readings.exchanged[1_803] = 1
    readings.exchange[1_803] = readings.local_us[1_802], readings.local_us[1_802] + 12_000, readings.authority_ms[1_802]
    learnt = learn(readings)
    assert learnt.clocks[0, DISTURBANCES] == 1
    confirmed = int(np.flatnonzero(learnt.place == Place.STEPPED)[0])
    assert (np.abs(learnt.offset_us - truth.offsets_us(appended_s)) <= learnt.bound_us)[confirmed:].all()
    assert np.abs(learnt.offset_us[confirmed:] - 5_000_000).max() < 60_000


@pytest.mark.parametrize(("at", "disturbances"), [(0.0, 0), (3_600.0, 1)])
def test_a_leap_second_is_no_step(at: float, disturbances: int) -> None:
    """A second back at the end of December; an hour later it is one."""
    end_of_2026_s = 1_798_761_600
    first_s = end_of_2026_s - START_MS / 1_000 - 1_800
    made_s, appended_s = _steady(7_200)
    made_s, appended_s = made_s + first_s, appended_s + first_s
    truth = Truth(0, 0, ((first_s + 1_800 + at, -1_000_000),))
    learnt = learn(readings_of(truth, made_s, appended_s))
    assert learnt.clocks[0, DISTURBANCES] == disturbances
    assert learnt.count(Place.STEPPED) == 1
    assert learnt.offset_us[-1] == pytest.approx(-1_000_000, abs=60_000)


def test_a_smeared_leap_second_is_no_step() -> None:
    """A second over a day, around the end of December."""
    made_s, appended_s = _steady(9_000, gap_s=10.0)
    offset_us = -np.clip((made_s - 1_000) / 86_400, 0, 1) * 1e6
    readings = readings_of(Truth(), made_s, appended_s)
    learnt = learn(readings._replace(local_us=readings.local_us + offset_us.astype(np.int64)))
    assert learnt.clocks[0, DISTURBANCES] == 0
    assert np.abs(learnt.offset_us - offset_us).max() < 70_000


def test_steps_within_two_hours_are_one_disturbance_and_a_later_one_is_another() -> None:
    """Of 0.5 s each, after 1, 2 and 6 hours."""
    made_s, appended_s = _steady(8_000, gap_s=4.0)
    truth = Truth(0, 0, ((3_600.0, 500_000), (7_200.0, 500_000), (21_600.0, 500_000)))
    learnt = learn(readings_of(truth, made_s, appended_s))
    assert learnt.count(Place.STEPPED) == 3
    assert learnt.clocks[0, DISTURBANCES] == 2


def test_between_readings_the_bound_grows_by_500_ppm() -> None:
    """An hour of silence: 1.8 s."""
    made_s, appended_s = _steady()
    learnt = learn(readings_of(Truth(), made_s, appended_s))
    end_ms = int(readings_of(Truth(), made_s, appended_s).authority_ms[-1])
    now, later = (estimate_of(learnt.clocks, 0, end_ms + ms).bound_us for ms in (0, 3_600_000))
    assert later - now == pytest.approx(1_800_000, abs=50_000)


@pytest.mark.cases
def test_a_free_running_clock_is_followed_and_its_two_disturbances_are_told(cases: Path) -> None:
    """clocks/loopstats.2012: local = t + offset - integral of frequency, with the rate of an interval at its begin.

    The rate the other way round and in the middle gives the same two.
    """
    rows = [[float(cell) for cell in line.split()[:4]] for line in _lines(cases)]
    days, seconds, offset_s, frequency_ppm = np.array(rows).T
    at_s = (days - days[0]) * 86_400 + seconds
    elapsed_s = np.diff(at_s)
    for rate in (frequency_ppm[:-1], frequency_ppm[1:], (frequency_ppm[1:] + frequency_ppm[:-1]) / 2):
        running_us = offset_s * 1e6 - np.concatenate(([0.0], np.cumsum(rate * elapsed_s)))
        authority_ms = np.floor(at_s * 1e3).astype(np.int64) + START_MS
        local_us = np.floor(at_s * 1e6 + running_us).astype(np.int64) + START_MS * 1_000
        nothing: dict[str, Any] = {
            "exchanged": np.zeros(at_s.size, np.uint8),
            "exchange": np.zeros((at_s.size, 3), np.int64),
        }
        learnt = learn(Readings(np.zeros(at_s.size, np.int64), authority_ms, local_us, **nothing))
        found_ppm = -learnt.skew_ppb[3:] / 1_000
        assert np.abs(found_ppm - frequency_ppm[3:]).max() < 5
        assert learnt.clocks[0, DISTURBANCES] == 2
        steps_s = at_s[learnt.place == Place.STEPPED]
        assert ((steps_s > 37_000 + at_s[0]) & (steps_s < 46_000 + at_s[0]) | (steps_s > 72_000 + at_s[0])).all()


def _lines(cases: Path) -> list[str]:
    lines = (cases / "clocks" / "loopstats.2012").read_text().splitlines()
    assert len(lines) > 50
    return lines


# -------------------------------------------------------------------------------------------------- what is shown


def test_the_severity_of_an_estimate_is_the_plain_rule() -> None:
    """Half away from zero."""
    assert severity_of_offset(999_499) == Severity.GREEN
    assert severity_of_offset(-999_500) == Severity.YELLOW
    assert severity_of_offset(4_999_500) == Severity.RED


@pytest.mark.parametrize(
    ("offset_us", "bound_us", "skew_ppb", "error_ppb", "seconds"),
    [
        (0, 0, 100_000, 0, 9_995),
        (500_000, 0, -100_000, 0, 14_995),
        (0, 499_500, 0, 500_000, 1_000),
        (-900_000, 0, -10_000, 10_000, 4_975),
        (999_500, 0, -100_000, 0, 0),
        (0, 1_000_000, 0, 1, 0),
    ],
)
def test_coherence_ends_where_the_bound_may_pass_the_limit(
    offset_us: int, bound_us: int, skew_ppb: int, error_ppb: int, seconds: int
) -> None:
    """On the side that is reached first."""
    assert coherent_s(offset_us, bound_us, skew_ppb, error_ppb) == seconds


@pytest.mark.parametrize(
    ("gap_s", "told_s"),
    [
        pytest.param(1, [5, 60, 120, 180, 240, 300], id="often: in each interval"),
        pytest.param(20, [40, 360, 680, 1_000, 1_320], id="rarely: after 16 events"),
        pytest.param(120, [240, 840, 1_440, 2_040], id="seldom: after ten intervals"),
    ],
)
def test_a_source_is_told_of_as_often_as_it_sends(gap_s: int, told_s: list[int]) -> None:
    """Of a minute each, beginning with one that begins."""
    clocks, points, room = (
        np.zeros((1, CLOCK_COLUMNS), np.int64),
        np.zeros((1, POINTS_MAX, POINT_COLUMNS), np.int32),
        workspace(),
    )
    begin_ms = START_MS // 60_000 * 60_000
    told = []
    for number in range(told_s[-1] // gap_s + 1):
        at_ms = begin_ms + number * gap_s * 1_000
        estimate(clocks, points, 0, number + 1, at_ms, at_ms * 1_000, 0, 0, 0, 0, room)
        if why := due(clocks, 0, at_ms, False, 60_000):  # noqa: FBT003 - a kernel takes no keywords
            told.append((number * gap_s, Why(why).name))
    assert told == [(told_s[0], "KNOWN"), *((at_s, "INTERVAL") for at_s in told_s[1:])]


def test_of_a_source_of_one_reading_there_is_no_estimate() -> None:
    """Its line is there, and nobody is told of it."""
    clocks, points = np.zeros((1, CLOCK_COLUMNS), np.int64), np.zeros((1, 32, 4), np.int32)
    estimate(clocks, points, 0, 1, START_MS, START_MS * 1_000, 0, 0, 0, 0, workspace())
    found = estimate_of(clocks, 0, START_MS)
    assert (found.method, found.coherent_s, found.samples) == (Method.NONE, 0, 1)
