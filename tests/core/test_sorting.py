"""Sorting within kernels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.sorting import sort_first

DOUBLES = st.floats(allow_nan=False)
INTEGERS = st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.lists(DOUBLES, max_size=300) | st.lists(INTEGERS, max_size=300), st.integers(0, 300))
def test_the_first_are_sorted_and_the_others_stay(numbers: list[float] | list[int], count: int) -> None:
    """As Python sorts them."""
    count = min(count, len(numbers))
    array = np.array(numbers, np.int64 if numbers and isinstance(numbers[0], int) else np.float64)
    sort_first(array, count)
    assert array.tolist() == sorted(numbers[:count]) + numbers[count:]


def test_thousands_are_sorted() -> None:
    """In any order they come."""
    for numbers in (range(2_000), range(2_000, 0, -1), [7 * i % 1_993 for i in range(2_000)]):
        array = np.array(numbers, np.int64)
        sort_first(array, array.size)
        assert array.tolist() == sorted(numbers)
