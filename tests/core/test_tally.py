"""Sums without rounding, in any order and of any size, and groups that outgrow their arrays."""

from __future__ import annotations

import contextlib
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.planner import Aggregation, Explain, Function, Window
from lifecycle.query_kernel import RowsIn, Span, bits_of
from lifecycle.sum_kernel import Grouping
from lifecycle.tally import Aggregates, Tally
from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN
from streams.windows import By

NO_CODES = np.zeros(0, np.int32)
NO_MARKS = np.zeros(0, np.uint8)


def _tally(values: list[float], times: list[int], aggregation: Aggregation, grouping: Grouping) -> Aggregates:
    tally = Tally(aggregation, grouping, grouping)
    for start in range(0, len(values), 7):
        column = np.array(values[start : start + 7])
        rows = RowsIn(
            np.array(times[start : start + 7], np.int64), column, bits_of(column), NO_MARKS, NO_MARKS,
            NO_CODES, NO_CODES, NO_CODES, NO_CODES,
        )  # fmt: skip
        tally.add_rows(rows, Span(0, column.size, INT64_MIN, INT64_MAX, INT64_MAX, INT64_MIN))
    return tally.result([], Explain())


def _sum(values: list[float]) -> float:
    return float(_tally(values, [0] * len(values), Aggregation(), Grouping(0, 0, 0)).functions[Function.SUM][0])


finite = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [0.1, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, -1.7976931348623157e308, 1e16]
    ),
)


@given(st.lists(finite, min_size=1, max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_a_sum_is_the_true_sum_rounded_once(values: list[float], rng: object) -> None:
    """In whatever order; beyond the largest double it is infinite, and on the way there nothing is."""
    true = sum((Fraction(value) for value in values), Fraction(0))
    try:
        expected = float(true)
    except OverflowError:
        expected = math.inf if true > 0 else -math.inf
    shuffled = list(values)
    rng.shuffle(shuffled)  # type: ignore[attr-defined] # hypothesis hands out a random.Random
    assert _sum(values) == expected == _sum(shuffled)
    assert math.copysign(1.0, _sum(values)) == 1.0 or true < 0


def test_limbs_are_carried_before_they_can_run_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every eight additions were as many as fit."""
    monkeypatch.setattr("lifecycle.tally.ADDITIONS_MAX", 8)
    values = [0.1, 1e22, -1e-22, 3.5] * 50
    assert _sum(values) == math.fsum(values)


@pytest.mark.parametrize(("most", "answered"), [(20, True), (19, False)])
def test_more_values_than_percentiles_are_taken_of_are_refused(
    most: int,
    answered: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each counts in both its windows; also where the last part of an answer brings them."""
    monkeypatch.setattr("lifecycle.tally.SAMPLES_MAX", most)
    aggregation = Aggregation(By.ALL, Window(2_000, 1_000), percentiles=(50_000,))
    with contextlib.nullcontext() if answered else pytest.raises(BadInputError, match="of more than 19 values"):
        _tally([1.0] * 10, [0] * 10, aggregation, Grouping(0, 2, 1))


def test_groups_outgrow_their_arrays() -> None:
    """Thousands of windows, each found again."""
    rng = np.random.default_rng(1)
    times = rng.integers(-3_000, 3_000, 9_000).tolist()
    values = rng.normal(size=9_000).tolist()
    found = _tally(values, times, Aggregation(By.ALL, Window(2_000, 1_000)), Grouping(0, 2, 1))
    assert found.window_start_us is not None
    expected: dict[int, list[float]] = {}
    for at, value in zip(times, values, strict=True):
        for window in (at - 1, at):
            expected.setdefault(window * 1_000, []).append(value)
    assert found.window_start_us.tolist() == sorted(expected)
    assert found.functions[Function.SUM].tolist() == [math.fsum(expected[start]) for start in sorted(expected)]


def test_windows_beyond_64_bits_are_cut() -> None:
    """The first and the last instant have windows too."""
    times = [INT64_MIN, INT64_MAX]
    found = _tally([1.0, 2.0], times, Aggregation(By.ALL, Window(60_000_000)), Grouping(0, 60_000_000, 60_000_000))
    assert found.window_start_us is not None
    assert found.window_end_us is not None
    assert found.window_start_us[0] == INT64_MIN
    assert found.window_end_us[1] == INT64_MAX
    assert found.count.tolist() == [1, 1]
