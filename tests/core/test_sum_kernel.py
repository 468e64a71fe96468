"""Kernels against plain loops: what rounds sums."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lifecycle.sum_kernel import carry, round_sums

INFINITY_BITS = 0x7FF << 52


def nearest(units: int) -> float:
    """So many times 2^-1074 as a double, by Python's exact division."""
    try:
        return float(Fraction(units, 2**1074))
    except OverflowError:
        return math.inf if units > 0 else -math.inf


@given(
    st.integers(0, 66),
    st.lists(
        st.one_of(st.integers(-(2**62), 2**62), st.sampled_from([0, 1, -1, 2**32, -(2**32)])), min_size=1, max_size=9
    ),
)
@example(0, [0])
@example(0, [2**20, 2**31])  # 53 bits: exact
@example(0, [1, 2**21])  # 54 bits and a tie
@example(0, [3, 2**21])
@example(5, [0, 1, 0, 0])
@example(5, [-1, 0, 0, 0])
@example(63, [0, 2**31, 0, 0])  # 2^1023 once more is beyond
@settings(max_examples=300)
def test_sums_are_rounded_to_the_nearest_double_ties_to_even(base: int, limbs: list[int]) -> None:
    """From subnormals to infinity, whatever the signs of limbs."""
    units = sum(limb << 32 * (base + j) for j, limb in enumerate(limbs))
    bits = np.zeros(1, np.int64)
    round_sums(np.array([[*limbs, 0, 0]], np.int64), base, 1, bits)
    assert bits.view(np.float64)[0] == nearest(units)
    assert units != 0 or bits[0] == 0


def test_all_limbs_at_their_limits_carry() -> None:
    """No value of any limb is lost."""
    rng = random.Random(1)
    for _ in range(200):
        limbs = [rng.choice([2**62, -(2**62), rng.randrange(-(2**62), 2**62), 0, -1]) for _ in range(5)]
        array = np.array([[*limbs, 0]], np.int64)
        carry(array, 1)
        carried = array[0].tolist()
        assert all(0 <= limb < 2**32 for limb in carried[:-1])
        assert sum(x << 32 * j for j, x in enumerate(carried)) == sum(x << 32 * j for j, x in enumerate(limbs))
