"""Sorting a few hundred numbers within a kernel, in place.

Problem: `sort` of arrays keeps a stack on the heap, and kernels own no memory (see schemas.memory). So this is Shell's
sort with Ciura's gaps: as quick as any for a dozen numbers, half as quick as the best for two thousand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from schemas.memory import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Marcin Ciura, Best Increments for the Average Case of Shellsort, 2001.
_GAPS: Final = (1750, 701, 301, 132, 57, 23, 10, 4, 1)


@kernel
def sort_first(numbers: NDArray[Any], count: int) -> None:
    """Sort the first numbers, ascending; NaN must not be among them."""
    for gap in _GAPS:
        for i in range(gap, count):
            number = numbers[i]
            at = i
            while at >= gap and numbers[at - gap] > number:
                numbers[at] = numbers[at - gap]
                at -= gap
            numbers[at] = number
