"""Sketches against exact fractions, exact ranks, a plain dictionary, and Datadog's own mapping."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import sys
from bisect import bisect_left
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from ddsketch.mapping import CubicallyInterpolatedMapping
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.memory import JIT
from streams.quantiles import (
    RELATIVE_ERROR,
    SKETCH_BINS_MAX,
    SKETCH_SLOTS,
    bin_of,
    rank,
    sketch_add,
    sketch_percentile,
    sketch_sorted,
    value_of,
)
from tests.core.interpreted import interpreted

#: Bins of the powers of two: 35 an octave, from the exponent -1023 on.
BIN_OF_ONE, BINS_OF_OCTAVE, LAST_BIN = 35 * 1023, 35, 35 * 2047 - 1
LEAST, MOST = sys.float_info.min, sys.float_info.max

FINITE = st.floats(allow_nan=False, allow_infinity=False)
#: Those with bins of their own, often next to a border.
INDEXABLE = st.floats(min_value=LEAST, allow_infinity=False) | st.builds(
    lambda number, steps: min(max(step(value_of(number), steps), LEAST), MOST),
    st.integers(BINS_OF_OCTAVE, LAST_BIN),
    st.integers(-3, 3),
)
BINS = st.integers(-LAST_BIN, LAST_BIN).filter(lambda number: abs(number) >= BINS_OF_OCTAVE or number == 0)


def step(value: float, steps: int) -> float:
    """The double so many after it."""
    for _ in range(abs(steps)):
        value = math.nextafter(value, math.copysign(math.inf, steps))
    return value


def borders() -> list[int]:
    """The least mantissa of each bin from 1 to 2, found by asking bin_of, and the end."""
    numbers = range(BIN_OF_ONE, BIN_OF_ONE + BINS_OF_OCTAVE + 1)
    return [bisect_left(range(2**52), number, key=lambda mantissa: bin_of(1 + mantissa / 2**52)) for number in numbers]


class Sketch:
    """A sketch, and what to read it with."""

    def __init__(self, bins: list[int] | None = None) -> None:
        self.table = np.zeros(SKETCH_SLOTS, np.int64)
        for number in bins or []:
            assert self.add(number)

    def add(self, number: int, count: int = 1) -> bool:
        """Whether it was not one too many."""
        return bool(sketch_add(self.table, number, count))

    def rows(self) -> list[tuple[int, int]]:
        """Bins and counts, ascending."""
        bins, counts = np.empty(SKETCH_BINS_MAX, np.int64), np.empty(SKETCH_BINS_MAX, np.int64)
        entries = sketch_sorted(self.table, bins, counts)
        return list(zip(bins[:entries].tolist(), counts[:entries].tolist(), strict=True))

    def percentile(self, percentile: int) -> float:
        """Of all that was added."""
        bins, counts = np.empty(SKETCH_BINS_MAX, np.int64), np.empty(SKETCH_BINS_MAX, np.int64)
        entries = sketch_sorted(self.table, bins, counts)
        return sketch_percentile(bins, counts, entries, int(counts[:entries].sum()), percentile)


# ------------------------------------------------------------------------------------------------------------- bins


def test_borders_are_those_of_the_cubic_to_the_last_bit() -> None:
    """By exact fractions: 6s^3 - 21s^2 + 50s reaches the number of each bin at its border and not before."""

    def cubic(mantissa: int) -> Fraction:
        s = Fraction(mantissa, 2**52)
        return 6 * s**3 - 21 * s**2 + 50 * s

    found = borders()
    assert found[0] == 0
    assert found[-1] == 2**52
    for number, border in enumerate(found[1:-1], 1):
        assert cubic(border - 1) < number <= cubic(border)


def test_every_bin_is_within_the_error() -> None:
    """Of all 35 kinds of bins, the first and the last value, in exact fractions; the worst is not far below 1 %."""
    worst = Fraction(0)
    for number, (first, end) in enumerate(itertools.pairwise(borders()), BIN_OF_ONE):
        middle = Fraction(value_of(number))
        for mantissa in (first, end - 1):
            value = 1 + Fraction(mantissa, 2**52)
            worst = max(worst, abs(middle - value) / value)
    assert Fraction(999, 100_000) < worst < Fraction(RELATIVE_ERROR)


@given(INDEXABLE)
@example(LEAST)
@example(MOST)
@example(1.0)
def test_any_value_is_within_the_error_of_what_stands_for_it(value: float) -> None:
    """And the other sign is the mirror image."""
    number = bin_of(value)
    assert BINS_OF_OCTAVE <= number <= LAST_BIN
    assert abs(Fraction(value_of(number)) - Fraction(value)) <= Fraction(RELATIVE_ERROR) * Fraction(value)
    assert bin_of(-value) == -number
    assert value_of(-number) == -value_of(number)


@given(FINITE, FINITE)
@example(-5e-324, 0.0)
@example(-LEAST, LEAST)
def test_bins_ascend_with_the_values(one: float, other: float) -> None:
    """Any two."""
    assert (bin_of(one) <= bin_of(other)) if one <= other else (bin_of(one) >= bin_of(other))


@pytest.mark.parametrize("exponent", [-1022, -1, 0, 1, 52, 1023])
def test_bins_rise_by_one_from_a_double_to_the_next_at_each_border(exponent: int) -> None:
    """And nowhere else in the three doubles to either side."""
    for number, border in enumerate(borders()[1:-1], 1):
        at = math.ldexp(1 + border / 2**52, exponent)
        around = [bin_of(step(at, steps)) for steps in range(-3, 4)]
        here = BINS_OF_OCTAVE * (1023 + exponent) + number
        assert around == [here - 1] * 3 + [here] * 4


@given(BINS)
@example(0)
@example(LAST_BIN)
@example(BINS_OF_OCTAVE)
def test_what_stands_for_a_bin_is_in_it(number: int) -> None:
    """Finite, up to the last bin of all."""
    assert bin_of(value_of(number)) == number


def test_the_ends_of_the_doubles_have_bins() -> None:
    """Zeros and subnormals share one; 17 bits hold all."""
    zeros = (0.0, -0.0, 5e-324, -5e-324, step(LEAST, -1))
    assert [bin_of(value) for value in zeros] == [0] * len(zeros)
    assert math.copysign(1, value_of(0)) == 1
    assert [bin_of(value) for value in (LEAST, 1.0, 2.0, MOST)] == [35, 35_805, 35_840, 71_644]
    assert [bin_of(value) for value in (-LEAST, -1.0, -MOST)] == [-35, -35_805, -71_644]


@given(INDEXABLE.filter(lambda value: value < MOST / 2))
@settings(max_examples=300)
def test_bins_are_those_of_datadogs_mapping(value: float) -> None:
    """CubicallyInterpolatedMapping at the same error, but for its rounding and for the side a border falls to.

    Its inverse overflows in the last octave.
    """
    mapping = CubicallyInterpolatedMapping(math.tanh(0.01))
    found, theirs = bin_of(value) - BIN_OF_ONE + 1, mapping.key(value)
    if found != theirs:
        places = [theirs, theirs - 1]
        assert found - theirs in (-1, 1)
        assert min(abs(mapping.value(k) / (1 - math.tanh(0.01)) / value - 1) for k in places) < 1e-12


def test_borders_are_those_of_datadogs_mapping() -> None:
    """Its inverse is Cardano's formula in doubles: the same borders within 1e-13."""
    error = math.tanh(0.01)
    mapping = CubicallyInterpolatedMapping(error)
    for key, border in enumerate(borders()):
        upper = mapping.value(key) / (1 - error)
        assert upper == pytest.approx(1 + border / 2**52, rel=1e-13)


# ------------------------------------------------------------------------------------------------------------- rank


@given(st.integers(1, 2**43), st.integers(1, 100_000))
@example(2**43, 100_000)
@example(1, 1)
@example(200, 99_500)
def test_rank_is_the_nearest_rank_exactly(count: int, percentile: int) -> None:
    """Percentiles in thousandths of a percent."""
    assert rank(count, percentile) == math.ceil(Fraction(percentile, 100_000) * count)


# ----------------------------------------------------------------------------------------------------------- sketch


@given(st.lists(FINITE, min_size=1, max_size=300), st.integers(1, 100_000))
@settings(max_examples=150)
def test_a_percentile_is_within_the_error_of_the_exact_nearest_rank(values: list[float], percentile: int) -> None:
    """Of any values; what is below the least indexable counts as zero."""
    exact = Fraction(sorted(values)[math.ceil(Fraction(percentile, 100_000) * len(values)) - 1])
    found = Fraction(Sketch([bin_of(value) for value in values]).percentile(percentile))
    least = Fraction(LEAST) if abs(exact) < LEAST else 0
    assert abs(found - exact) <= max(Fraction(RELATIVE_ERROR) * abs(exact), least)


@pytest.mark.parametrize("spread", [0.01, 1.0, 3.0])
def test_percentiles_of_many_values(spread: float) -> None:
    """Lognormal of both signs, each of 1,000 percentiles."""
    rng = random.Random(7)
    values = sorted(rng.lognormvariate(3, spread) * rng.choice((-1, 1, 1)) for _ in range(20_000 if JIT else 2_000))
    sketch = Sketch([bin_of(value) for value in values])
    for percentile in range(100, 100_001, 100 if JIT else 1_000):
        exact = values[math.ceil(percentile * len(values) / 100_000) - 1]
        assert sketch.percentile(percentile) == pytest.approx(exact, rel=RELATIVE_ERROR)


def _crowded(rng: random.Random) -> list[int]:
    """Bins whose places are one short stretch, for either sign."""
    homes = range(5)
    positive = [2_047 * turn + home for turn in range(1, 35) for home in homes]
    negative = [1_023 - number for number in positive if number > 2_047]
    return rng.sample(positive + negative, 200)


@pytest.mark.parametrize("bins", ["near", "crowded", "anywhere"])
@pytest.mark.parametrize("seed", range(4))
def test_a_sketch_agrees_with_a_dictionary_and_shows_no_order(seed: int, bins: str) -> None:
    """The same bins added one by one, shuffled, or merged from parts in any order: equal bytes."""
    rng = random.Random(seed)
    drawn = {
        "near": [rng.randint(35_700, 35_900) * rng.choice((1, -1)) for _ in range(3_000)],
        "crowded": rng.choices(_crowded(rng), k=3_000),
        "anywhere": rng.choices([0, *(rng.randint(35, LAST_BIN) * rng.choice((1, -1)) for _ in range(900))], k=3_000),
    }[bins]
    whole = Sketch(drawn)
    assert whole.rows() == sorted(Counter(drawn).items())
    rng.shuffle(drawn)
    assert Sketch(drawn).table.tobytes() == whole.table.tobytes()
    cuts = sorted(rng.sample(range(len(drawn)), 3))
    parts = [Sketch(drawn[a:b]) for a, b in itertools.pairwise([0, *cuts, len(drawn)])]
    rng.shuffle(parts)
    merged = Sketch()
    for part in parts:
        assert all(merged.add(number, count) for number, count in part.rows())
    assert merged.table.tobytes() == whole.table.tobytes()


@pytest.mark.parametrize("stride", [1, 7, 38])
def test_a_full_sketch_takes_known_bins_and_refuses_others(stride: int) -> None:
    """One bin too many changes nothing, wherever it would stand."""
    numbers = [35 + stride * i for i in range(SKETCH_BINS_MAX)]
    random.Random(stride).shuffle(numbers)
    sketch = Sketch(numbers)
    before = sketch.table.copy()
    others = [number for number in (0, -35, -40_000, LAST_BIN, *range(36, 60)) if number not in set(numbers)]
    assert not any(sketch.add(number) for number in others)
    assert sketch.table.tobytes() == before.tobytes()
    assert all(sketch.add(number, 2**42) for number in numbers)
    assert sketch.rows() == [(number, 2**42 + 1) for number in sorted(numbers)]


def test_an_empty_sketch_has_no_rows() -> None:
    """Zeros and nothing else."""
    assert Sketch().rows() == []


# ------------------------------------------------------------------------------------------------------ interpreted


def fingerprint(seed: int) -> str:
    """A digest of bins, middles, a sketch and its percentiles; the subprocess below prints it."""
    rng = random.Random(seed)
    values = [rng.choice((-1, 1)) * math.ldexp(1 + rng.random(), rng.randint(-20, 20)) for _ in range(400)]
    values += [0.0, -0.0, 5e-324, LEAST, MOST, -MOST]
    numbers = [bin_of(value) for value in values]
    sketch = Sketch(numbers)
    shown = [numbers, [value_of(number).hex() for number in numbers], sketch.rows()]
    percentiles = [sketch.percentile(percentile).hex() for percentile in (1, 1_000, 50_000, 99_900, 100_000)]
    return hashlib.sha256(repr((shown, percentiles)).encode() + sketch.table.tobytes()).hexdigest()


def test_interpreted_kernels_do_the_same() -> None:
    """With NUMBA_DISABLE_JIT=1 the same sources run as plain Python; and the same for ever: bins are kept in dumps."""
    assert interpreted("tests.core.test_quantiles", "fingerprint(1)") == fingerprint(1).encode()
    assert fingerprint(1) == "ab3601ebff6d6277e0b980eb31c71204c6dd230cc44114121d16fe794c5b4fb6"
