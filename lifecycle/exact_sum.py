"""Exact sums: what doubles truly add up to, kept as three doubles.

Problem: an answer must not depend on which chunks a query happened to read whole, in which order, and which row by
row. Rounded sums do depend on it; the true sum does not. So a partial sum is an expansion: three doubles of falling
size that together are the true sum, and whoever has all partial sums rounds once, with math.fsum over all their parts.

How: two_sum (Knuth 1969, TAOCP 4.2.2) gives the rounded sum of two doubles and its error, both exactly. Adding to an
expansion lets the new value run through it (grow-expansion, Shewchuk 1997), then passes of two_sum from the smallest
upward until nothing moves, so that each part is at most half a unit in the last place of the one before.

GUARANTEE the three parts add up exactly to everything that was added, as long as `add` said True. It says False, and
changes nothing, where a fourth part would be needed (magnitudes more than some hundred bits apart) or the sum leaves
the doubles. HAZARD values must be finite.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from schemas.memory import kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Doubles of an expansion: 159 bits, enough for values of any one quantity.
PARTS: Final = 3
#: Passes after which four parts have settled; what has not is told as inexact, never wrongly.
_PASSES: Final = 6


@kernel
def two_sum(a: float, b: float) -> tuple[float, float]:
    """The rounded sum, and what rounding took from it."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


@kernel
def add(sums: NDArray[np.float64], line: int, value: float) -> bool:
    """Add a finite value to sums[line], float64[n, PARTS]; False where it cannot be done exactly, nothing changes."""
    first, second, third = float(sums[line, 0]), float(sums[line, 1]), float(sums[line, 2])
    first, rest = two_sum(first, float(value))
    second, rest = two_sum(second, rest)
    if third == 0.0 and rest == 0.0:  # as nearly always
        first, second = two_sum(first, second)
    else:
        third, rest = two_sum(third, rest)
        for _ in range(_PASSES):
            before = (first, second, third, rest)
            third, rest = two_sum(third, rest)
            second, third = two_sum(second, third)
            first, second = two_sum(first, second)
            if before == (first, second, third, rest):
                break
    if rest != 0.0 or not math.isfinite(first):
        return False
    sums[line, 0] = first
    sums[line, 1] = second
    sums[line, 2] = third
    return True


@kernel
def merge(sums: NDArray[np.float64], line: int, others: NDArray[np.float64], other: int) -> bool:
    """Add others[other] to sums[line]; False where it cannot be done exactly: then sums[line] is of no use."""
    return add(sums, line, others[other, 0]) and add(sums, line, others[other, 1]) and add(sums, line, others[other, 2])
