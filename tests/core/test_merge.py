"""Results of partitions, merged: against the same numbers taken over all values at once."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.instants import INT64_MIN
from streams.merge import Closed, Functions, Part, closed_by_results, merge_windows
from tests.core.derive_oracle import functions_of

ASKED = ("sum", "min", "max", "mean", "variance", "first", "last")


def part(partition: int, values: list[float], key: str | None = None, start_us: int = 0, *, final: bool = True) -> Part:
    """What a partition says of those values, and of one event without a value."""
    functions: Functions = {str(name): number for name, number in functions_of(values).items() if name in ASKED}
    return Part(partition, key, start_us, start_us + 10, final, len(values) + 1, len(values), functions)


@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=20), min_size=1, max_size=6))
def test_a_whole_is_what_all_values_together_say(values: list[list[float]]) -> None:
    """Whichever partitions they are in; the sum exactly that of the partitions' sums in order."""
    [whole] = merge_windows([part(p, [v + 0.0 for v in of_each]) for p, of_each in enumerate(values)], len(values))
    together = [value + 0.0 for of_each in values for value in of_each]
    assert (whole.count, whole.values) == (len(together) + len(values), len(together))
    assert whole.complete
    assert set(whole.functions) == {"sum", "min", "max", "mean", "variance"}
    if not together:
        assert set(whole.functions.values()) == {None}
        return
    found = {name: number for name, number in whole.functions.items() if number is not None}
    assert (found["min"], found["max"]) == (min(together), max(together))
    largest = max(map(abs, together))
    assert math.isclose(found["sum"], math.fsum(together), abs_tol=1e-12 * largest * len(together))
    assert math.isclose(found["mean"], math.fsum(together) / len(together), abs_tol=1e-12 * largest)
    assert math.isclose(found["variance"], statistics.pvariance(together), rel_tol=1e-9, abs_tol=1e-12 * largest**2)


def test_sums_are_added_in_order_of_the_partitions() -> None:
    """In whatever order the parts come, and without any correction."""
    parts = [part(0, [1e16]), part(1, [1.0]), part(2, [1.0]), part(3, [-1e16])]
    for seed in range(5):
        random.Random(seed).shuffle(parts)
        [whole] = merge_windows(parts, 4)
        assert whole.functions["sum"] == ((1e16 + 1.0) + 1.0) - 1e16


@pytest.mark.parametrize("asked", [{"mean", "variance"}, {"sum", "variance"}, {"variance"}, {"mean"}, {"min"}, set()])
def test_a_function_is_merged_where_the_others_allow_it(asked: set[str]) -> None:
    """Means and variances of parts need a mean or a sum; nothing is made up."""
    values = [[1.0, 2.0], [5.0], []]
    parts = [part(p, of_each) for p, of_each in enumerate(values)]
    parts = [replace(p, functions={n: v for n, v in p.functions.items() if n in asked}) for p in parts]
    [whole] = merge_windows(parts, 3)
    full = {"mean": 8 / 3, "variance": statistics.pvariance([1.0, 2.0, 5.0]), "sum": 8.0, "min": 1.0}
    if asked == {"variance"}:
        full["variance"] = None  # type: ignore[assignment]
    assert set(whole.functions) == asked
    for name in asked:
        assert whole.functions[name] == (None if full[name] is None else pytest.approx(full[name]))


def test_a_sum_that_a_partition_could_not_say_is_no_sum_of_the_whole() -> None:
    """It was beyond the doubles there; and so where only the whole is beyond them."""
    for values in ([[1.7e308, 1.7e308], [1.0]], [[1.7e308], [1.7e308]]):
        [whole] = merge_windows([part(p, of_each) for p, of_each in enumerate(values)], 2)
        assert whole.functions["sum"] is None
        assert whole.functions["max"] == 1.7e308


def test_a_window_is_complete_once_every_partition_has_closed_it() -> None:
    """By its own final result, or by that of a later window; an early result closes nothing."""
    parts = [part(0, [1.0], start_us=0), part(1, [1.0], start_us=0, final=False), part(1, [1.0], "k", start_us=50)]
    assert {(of_it.partition, of_it.end_us) for of_it in closed_by_results(parts)} == {(0, 10), (1, 60)}
    early, later = merge_windows(parts, 2)
    assert (early.complete, early.partitions, early.waiting) == (True, (0, 1), ())
    assert (later.complete, later.partitions, later.waiting) == (False, (1,), (0,))
    assert merge_windows(parts, 3)[0].waiting == (2,)


def test_windows_are_merged_key_by_key_in_order_of_their_ends() -> None:
    """The null key first."""
    parts = [part(p, [float(p)], key, start_us) for p in (1, 0) for key in ("b", "a", None) for start_us in (10, -10)]
    merged = merge_windows(parts, 2)
    keys = [None, "a", "b"]
    assert [(w.window_start_us, w.key) for w in merged] == [(-10, key) for key in keys] + [(10, key) for key in keys]
    assert {w.functions["sum"] for w in merged} == {1.0}


def test_what_more_is_known_of_a_partition_counts() -> None:
    """The later of the two ends; a partition without any result too."""
    parts = [part(0, [1.0]), part(1, [2.0])]
    [whole] = merge_windows(parts, 3, [Closed(0, INT64_MIN, 0), Closed(2, INT64_MIN, parts[0].window_end_us)])
    assert whole.complete
    [whole] = merge_windows(parts, 3, [Closed(2, INT64_MIN, parts[0].window_end_us - 1)])
    assert whole.waiting == (2,)


def test_who_has_not_seen_a_window_from_its_beginning_does_not_close_it() -> None:
    """Neither by a result nor by heartbeats; windows that begin later it does."""
    anew = replace(part(1, [2.0], start_us=20), seen_from_us=15)
    parts = [part(0, [1.0], start_us=0), part(0, [1.0], start_us=20), replace(part(1, [2.0]), seen_from_us=15), anew]
    early, later = merge_windows(parts, 2)
    assert (early.complete, early.waiting, early.count) == (False, (1,), 4)
    assert later.complete
    silent = [Closed(1, 15, 1_000), Closed(0, 0, 1_000)]
    assert [whole.waiting for whole in merge_windows(parts[:2], 2, silent)] == [(1,), ()]
