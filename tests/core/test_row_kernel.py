"""Kernels that pick rows, against what lists do."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lifecycle.row_kernel import estimates_ms, look_up, mark_used, merge_counted, merge_runs
from schemas.instants import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = st.integers(0, 6) | st.sampled_from([INT64_MIN, INT64_MAX])


@given(st.lists(st.lists(TIMES, max_size=8), min_size=1, max_size=4), st.integers(0, 40))
@example([[INT64_MAX], [INT64_MAX, INT64_MAX]], 3)
@example([[5, 5], [], [4, 5]], 4)
@settings(max_examples=200)
def test_runs_are_merged_as_a_stable_sort_does(runs: list[list[int]], limit: int) -> None:
    """Up to the limit, of equals the earlier run's first; and it is told how far each run was taken."""
    _check_merged(merge_runs, runs, limit)


@given(st.lists(st.lists(st.integers(-3, 6), max_size=8), min_size=1, max_size=4), st.integers(0, 40))
@example([[5, 5], [], [4, 5]], 4)
@example([[5], [5, 5], [5]], 3)
@settings(max_examples=200)
def test_runs_in_a_narrow_range_are_merged_as_a_stable_sort_does(runs: list[list[int]], limit: int) -> None:
    """Also far from zero."""
    for lowest in (-3, INT64_MIN, INT64_MAX - 9):

        def count(order: Any, heads: Any, ends: Any, places: Any, merged: Any, lowest: int = lowest) -> None:
            merge_counted(order, heads, ends, lowest, np.zeros(11, np.int32), places, merged)

        _check_merged(count, [[at + 3 + lowest for at in run] for run in runs], limit)


def _check_merged(merge: Callable[..., None], runs: list[list[int]], limit: int) -> None:
    order = [at for run in runs for at in sorted(run)]
    stops = np.cumsum([len(run) for run in runs]).astype(np.int64)
    heads = np.concatenate([np.zeros(1, np.int64), stops[:-1]])
    places = np.full(len(order), -1, np.int64)
    merged = np.empty(min(limit, len(order)), np.int64)
    merge(np.array(order, np.int64), heads, stops, places, merged)
    expected = sorted(range(len(order)), key=order.__getitem__)[: merged.size]
    assert merged.tolist() == [order[row] for row in expected]
    assert [places[row] for row in expected] == list(range(merged.size))
    assert np.flatnonzero(places >= 0).tolist() == sorted(expected)
    begins = [0, *stops[:-1].tolist()]
    taken = [sum(begin <= row < stop for row in expected) for begin, stop in zip(begins, stops.tolist(), strict=True)]
    assert (heads - begins).tolist() == taken


def test_no_name_is_the_last_place() -> None:
    """As of arrays, where -1 is the last."""
    codes = np.array([1, -1, 0, 1], np.int32)
    found = np.empty(4, np.int32)
    look_up(codes, np.array([7, 9, -1], np.int32), found)
    assert found.tolist() == [9, -1, 7, 9]
    used = np.zeros(4, np.bool_)
    mark_used(codes, used)
    assert used.tolist() == [True, True, False, True]


@given(st.lists(st.tuples(st.integers(-(2**62), 2**62), st.integers(-1, 2**62)), max_size=20))
@example([(500, 1), (-500, 1_000), (499, 1_001), (-1_500, 0), (0, -1)])
@settings(max_examples=200)
def test_estimates_are_rounded_so_that_a_bound_is_never_too_small(estimates: list[tuple[int, int]]) -> None:
    """Offsets half away from zero; where there is no bound there is none."""
    offset_us, bound_us = np.array(estimates, np.int64).reshape(-1, 2).T.copy()
    offset_ms, bound_ms = np.empty_like(offset_us), np.empty_like(bound_us)
    estimates_ms(offset_us, bound_us, offset_ms, bound_ms)
    halves = [(Decimal(offset) / 1_000).quantize(Decimal(1), ROUND_HALF_UP) for offset, _ in estimates]
    assert offset_ms.tolist() == [int(half) for half in halves]
    assert bound_ms.tolist() == [-1 if bound < 0 else math.ceil(Fraction(bound, 1_000)) for _, bound in estimates]
