"""Allan deviations against NIST's published ones, and what they say of clocks that are known."""

from __future__ import annotations

import itertools
import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pytest

from streams.stability import best_window_s, deviations, octaves

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NAMES = {"tdev": "tdev_s"}


def _phase(frequency: list[float]) -> NDArray[np.float64]:
    return np.array([0.0, *itertools.accumulate(frequency)])


def _generator(count: int) -> list[float]:
    """The random numbers of NIST SP 1065, section 12.4."""
    n, numbers = 1_234_567_890, []
    for _ in range(count):
        numbers.append(n / 2_147_483_647)
        n = 16_807 * n % 2_147_483_647
    return numbers


@pytest.mark.cases
def test_the_published_deviations_hold_to_seven_digits(cases: Path) -> None:
    """clocks/nist_sp1065.json, all rows, to the last digit that stands there."""
    published = json.loads((cases / "clocks" / "nist_sp1065.json").read_text(), parse_float=Decimal)
    for frequency, rows in (
        (_generator(1_000), published),
        (published["nine_point"]["frequency"], published["nine_point"]),
    ):
        found = deviations(_phase(frequency), 1.0, rows["m"])
        names = [name for name in rows if name.endswith("dev")]
        assert names
        for name in names:
            for one, expected in zip(found, rows[name], strict=True):
                seen = getattr(one, NAMES.get(name, name))
                assert Decimal(seen).quantize(expected) == expected, (name, one.tau_s)


def test_white_readings_of_a_steady_clock_are_best_averaged_over_all_and_of_a_wandering_one_over_less() -> None:
    """Noise of 1 ms on a perfect clock; and on one whose rate walks."""
    draw = np.random.default_rng(7)
    noise = draw.normal(0, 1e-3, 4_096)
    steady = deviations(noise, 1.0, octaves(noise.size))
    assert best_window_s(steady) >= 1_024
    rate = np.cumsum(draw.normal(0, 1e-6, 4_096))
    wandering = deviations(noise + np.cumsum(rate), 1.0, octaves(noise.size))
    assert 16 <= best_window_s(wandering) <= 512


def test_of_few_samples_there_is_what_can_be_told() -> None:
    """NaN where a formula has no term, no error."""
    assert octaves(0) == octaves(2) == []
    assert octaves(3) == [1]
    assert octaves(5) == [1, 2]
    assert math.isnan(best_window_s(deviations(np.zeros(2), 1.0, [1])))
    one = deviations(np.array([0.0, 1.0, 3.0]), 1.0, [1])[0]
    assert one.adev == one.oadev == pytest.approx(math.sqrt(0.5))
    assert math.isnan(one.hdev)
    assert math.isnan(deviations(np.zeros(3), 1.0, [5])[0].totdev)
