"""What is said of a source's clock, and which part of a series tells how stable it was."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streams.causes import Cause
from streams.estimate import Estimate, Method
from streams.severity import Severity
from streams.source_clock import SourceClock
from streams.source_clocks import Stability, longest_run, stability_of

KNOWN = Estimate(Method.TWO_WAY, 3_200_000, 40_000, -41_000, 2_000, 900, 61_000, Severity.YELLOW, 0, 0, 0, 0, 0)
UNRATED = KNOWN._replace(method=Method.ONE_WAY, skew_error_ppb=500_000)
GREEN = KNOWN._replace(offset_us=-12_345, severity=Severity.GREEN, coherent_s=23_000)
STEPPED = KNOWN._replace(disturbances=1, step_sequence=88_121, step_us=-1_500_000, step_ms=30_000)
NONE = KNOWN._replace(method=Method.NONE, samples=2)


def _clock(estimate: Estimate, *, source: str = "pump", broker_ms: int = 0) -> SourceClock:
    none = Severity.GREEN, Cause.NONE, Severity.GREEN
    return SourceClock(3, source, 90_000, *none, 61_500, 60_000, broker_ms, estimate)


AHEAD = "pump is 3.200 s +- 0.040 s ahead at 1970-01-01T00:01:01.500Z"
LOSES = "its clock loses 41.0 ppm +- 2.0 ppm"


@pytest.mark.parametrize(
    ("estimate", "said"),
    [
        (KNOWN, [AHEAD, LOSES]),
        (UNRATED, [AHEAD]),
        (
            GREEN,
            [
                "pump is 0.012 s +- 0.040 s behind at 1970-01-01T00:01:01.500Z",
                LOSES,
                "it stays within 1 s for 6 hours at least",
            ],
        ),
        (UNRATED._replace(offset_us=3_199_501, bound_us=39_001), [AHEAD]),
        (
            UNRATED._replace(offset_us=-499, bound_us=1),
            ["pump is 0.000 s +- 0.001 s ahead at 1970-01-01T00:01:01.500Z"],
        ),
        (STEPPED, [AHEAD, LOSES, "it stepped by -1.500 s at sequence 3:88121"]),
        (NONE, ["pump: too few events yet to tell where its clock is: 2 that agree", "it takes 3, over 5 s"]),
    ],
)
def test_a_clock_in_words(estimate: Estimate, said: list[str]) -> None:
    """What is not known is not said; a bound is rounded up, as in alerts, so that it still holds."""
    assert _clock(estimate).in_words().split("; ") == said


def test_a_broker_that_is_off_is_said() -> None:
    """The estimate is what it would be without."""
    left_out = "the broker's clock is 2.005 s behind, which is left out of this"
    assert _clock(KNOWN, broker_ms=-2_005).in_words().split("; ") == [AHEAD, LOSES, left_out]


def test_a_row_has_nothing_that_is_not_known() -> None:
    """Not a zero in its place."""
    row = _clock(NONE).row()
    empty = [name for name, value in row.items() if value is None]
    assert empty == [
        "offset_ms", "bound_ms", "skew_ppm", "skew_error_ppm", "severity", "alert", "cause", "late", "coherent_s",
        "step_ms", "step_at", "step_sequence",
    ]  # fmt: skip
    assert _clock(UNRATED).row()["skew_ppm"] is None
    row = _clock(STEPPED)._replace(alert=Severity.RED, cause=Cause.STEP, late=Severity.YELLOW).row()
    assert (row["offset_ms"], row["bound_ms"], row["skew_ppm"], row["silent_s"]) == (3_200.0, 40.0, -41.0, 1)
    assert (row["alert"], row["cause"], row["late"], row["severity"]) == ("RED", "STEP", "YELLOW", "YELLOW")
    assert (row["step_ms"], row["step_at"], row["step_sequence"]) == (-1_500.0, "1970-01-01T00:00:30.000Z", 88_121)


def test_the_worst_comes_first_and_the_unknown_last() -> None:
    """Whatever its sign; by name only where that is asked for."""
    clocks = [
        _clock(NONE, source="none"),
        _clock(KNOWN, source="b"),
        _clock(KNOWN, source="a"),
        _clock(GREEN._replace(skew_ppb=99_000), source="fast"),
        _clock(KNOWN._replace(offset_us=-9_000_000), source="low"),
    ]

    def by(column: str) -> list[str]:
        return [clock.source for clock in sorted(clocks, key=lambda clock: clock.order(column))]

    assert by("offset") == ["low", "a", "b", "fast", "none"]
    assert by("skew") == ["fast", "a", "b", "low", "none"]
    assert by("source") == ["a", "b", "fast", "low", "none"]


def test_a_series_counts_as_far_as_it_has_no_gap() -> None:
    """The longest part of it, brought to equal distances; offsets between two run straight."""
    at_ms = [0, 60_400, 120_100, 1_000_000, 1_060_500, 1_120_000, 1_180_000, 1_239_500]
    offset_us = [5, 6, 7, *(round((ms - 1_000_000) / 10) for ms in at_ms[3:])]
    phase_s, tau0_s = longest_run(np.array(at_ms), np.array(offset_us))
    assert tau0_s == pytest.approx(60, abs=0.5)
    assert phase_s.size == 4
    assert np.allclose(np.diff(phase_s), tau0_s / 1e4)
    found = list(stability_of("pump", at_ms, offset_us))
    assert [one.deviations.tau_s for one in found] == [tau0_s]
    assert found[0].deviations.adev == pytest.approx(0, abs=1e-12)  # a clock that runs straight


@pytest.mark.parametrize("size", [0, 1, 2])
def test_too_short_a_series_has_no_stability(size: int) -> None:
    """Rather than a number that means nothing."""
    assert list(stability_of("pump", list(range(0, 60_000 * size, 60_000)), [1] * size)) == []


def test_the_best_window_is_that_of_the_least_deviation() -> None:
    """Of white noise on the readings that is the longest; seven digits are shown."""
    offsets_us = np.random.default_rng(4).normal(0, 3_000, 1_000).round().astype(np.int64)
    found = list(stability_of("pump", (np.arange(1_000) * 60_000).tolist(), offsets_us.tolist()))
    assert [one.deviations.tau_s for one in found] == [60.0 * 2**power for power in range(9)]
    assert [one.best for one in found] == [False] * 8 + [True]
    assert found[0].deviations.oadev == pytest.approx(math.sqrt(3) * 3e-3 / 60, rel=0.1)
    one = found[0].deviations._replace(adev=1.23456789e-5, oadev=math.nan, hdev=0.5)
    shown = Stability("s", 9, one, best=True).row()
    assert (shown["adev"], shown["oadev"], shown["hdev"], shown["best"]) == (1.234568e-5, None, 0.5, "best")
