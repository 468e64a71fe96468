"""Where most intervals agree: Marzullo's algorithm.

Problem: several intervals each claim to hold one true value, and some of them are wrong. What most of them have in
common is the best guess; when none is wrong it holds the value for certain.

Source: K. Marzullo, Maintaining the Time in a Distributed System, Stanford 1984; the algorithm that NTP's selection
grew from. Intervals are closed: two that touch agree in a point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from schemas.memory import kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: In the second column of edges; starts before ends where both are at one place.
START: Final = -1
END: Final = 1


@kernel
def agree(edges: NDArray[np.int64], used: int, best: NDArray[np.int64]) -> tuple[int, int]:
    """Fill best with the stretches that the most intervals cover; (intervals that cover them, stretches).

    edges: int64[n, 2], the first `used` rows are places and START or END, two rows for each interval, sorted here.
    best: int64[n / 2, 2], first and last place of each stretch, ascending.
    """
    for row in range(1, used):
        place, sort = edges[row, 0], edges[row, 1]
        at = row
        while at > 0 and (edges[at - 1, 0] > place or (edges[at - 1, 0] == place and edges[at - 1, 1] > sort)):
            edges[at, 0] = edges[at - 1, 0]
            edges[at, 1] = edges[at - 1, 1]
            at -= 1
        edges[at, 0] = place
        edges[at, 1] = sort
    most = open_now = stretches = 0
    for row in range(used):
        open_now -= edges[row, 1]
        if edges[row, 1] != START or open_now < most:
            continue
        if open_now > most:
            most = open_now
            stretches = 0
        best[stretches, 0] = edges[row, 0]
        best[stretches, 1] = edges[row + 1, 0]
        stretches += 1
    return most, stretches


def agreement(intervals: Sequence[tuple[int, int]]) -> tuple[int, list[tuple[int, int]]]:
    """How many of the intervals have something in common at most, and the stretches that so many cover."""
    edges = np.array([edge for low, high in intervals for edge in ((low, START), (high, END))], np.int64).reshape(-1, 2)
    best = np.empty((len(intervals), 2), np.int64)
    most, stretches = agree(edges, len(edges), best)
    return most, [(low, high) for low, high in best[:stretches].tolist()]
