"""Exact sums against fractions."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.exact_sum import PARTS, add, merge, two_sum

_FINITE = st.floats(allow_nan=False, allow_infinity=False)


def _true(parts: np.ndarray) -> Fraction:
    return sum((Fraction(part) for part in parts.tolist()), Fraction(0))


def _check_settled(parts: list[float]) -> None:
    """Each part is at most half a unit in the last place of the one before, zeros last."""
    for larger, smaller in pairwise(parts):
        assert smaller == 0.0 or larger + smaller == larger


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
def test_two_sum_loses_nothing(a: float, b: float) -> None:
    """The rounded sum, and the rest."""
    total, rest = two_sum(a, b)
    assert total == a + b
    assert Fraction(total) + Fraction(rest) == Fraction(a) + Fraction(b)


@settings(max_examples=200, deadline=None)
@given(st.lists(_FINITE, max_size=20))
def test_an_exact_sum_is_exact_and_a_refusal_changes_nothing(values: list[float]) -> None:
    """For any doubles, subnormals and the largest too."""
    sums = np.zeros((1, PARTS))
    true = Fraction(0)
    for value in values:
        before = sums.copy()
        if add(sums, 0, value):
            true += Fraction(value)
            assert _true(sums[0]) == true
            _check_settled(sums[0].tolist())
        else:
            assert sums.tobytes() == before.tobytes()


@pytest.mark.parametrize("spread", [0, 3, 30])
def test_sums_of_one_quantity_are_always_exact(spread: int) -> None:
    """A million-fold spread and more, cancelling all the time, in any order: rounded once it is math.fsum."""
    rng = random.Random(spread)
    values = [rng.uniform(-1, 1) * 2.0 ** rng.randint(-spread, spread) for _ in range(3000)]
    values += [-value for value in values[:1500]] + [0.1] * 500
    forward, backward = np.zeros((1, PARTS)), np.zeros((1, PARTS))
    assert all(add(forward, 0, value) for value in values)
    assert all(add(backward, 0, value) for value in reversed(values))
    assert math.fsum(forward[0].tolist()) == math.fsum(values)
    assert _true(forward[0]) == _true(backward[0]) == sum(map(Fraction, values))
    assert forward.tobytes() == backward.tobytes()


def test_sums_of_parts_are_the_sum_of_all() -> None:
    """Merged in any grouping."""
    rng = random.Random(4)
    values = [rng.gauss(20, 5) for _ in range(1000)]
    parts = np.zeros((11, PARTS))
    for value in values:
        assert add(parts, rng.randrange(10), value)
    assert all(merge(parts, 10, parts, line) for line in range(10))
    assert _true(parts[10]) == sum(map(Fraction, values))


def test_what_three_doubles_cannot_hold_is_refused() -> None:
    """Four magnitudes far apart, and a sum beyond the largest double."""
    sums = np.zeros((2, PARTS))
    assert all(add(sums, 0, value) for value in (1e200, 1e100, 1.0))
    assert not add(sums, 0, 1e-100)
    assert sums[0].tolist() == [1e200, 1e100, 1.0]
    assert add(sums, 0, -1e200)
    assert add(sums, 0, 1e-100)
    assert sums[0].tolist() == [1e100, 1.0, 1e-100]
    assert add(sums, 1, 1.7e308)
    assert not add(sums, 1, 1.7e308)
    assert not merge(sums, 1, sums, 1)
    assert add(sums, 1, -1.7e308)
    assert sums[1].tolist() == [0.0, 0.0, 0.0]
