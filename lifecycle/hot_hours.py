"""The hours of a partition in the hot tier, found without reading more than a few headers of each.

A chunk belongs to the hour of the running maximum of authority time at its end; none reaches over the end of one (see
`chunks`), so hours are runs of chunks, and where one ends is found by halving.
"""

from __future__ import annotations

import bisect
from functools import cache
from typing import TYPE_CHECKING, Final

from lifecycle.ageing import COLD
from lifecycle.steps import HotHour
from lifecycle.tiers import MS_PER_HOUR, Grain, bounds_of, period_of
from schemas.instants import US_PER_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lifecycle.chunks import Header, Line
    from lifecycle.usage import Used

_FIRST_STEP: Final = 1


def hours_of(
    partition: int,
    lines: Sequence[Line],
    header: Callable[[int], Header],
    bytes_per_row: float,
    used: Mapping[int, Used] | None = None,
) -> list[HotHour]:
    """Of all lines of a partition, in order; the last may still go on.

    header: of the chunk that begins at a sequence, wherever it lies. bytes_per_row: what a row takes in the hot tier.
    used: of hours that were read or moved, by the ms at which they end.
    """

    @cache
    def end_ms(place: int) -> int:
        found = header(lines[place].first_sequence)
        return bounds_of(max(found.order_ms, found.authority_ms_max), Grain.HOURLY)[1]

    hours: list[HotHour] = []
    start = 0
    while start < len(lines):
        ends = end_ms(start)
        reach = _FIRST_STEP
        while start + reach < len(lines) and end_ms(start + reach) == ends:
            reach *= 2
        stop = bisect.bisect_right(range(len(lines)), ends, start, min(start + reach + 1, len(lines)), key=end_ms)
        # The last chunk of a partition is always held, whatever becomes of its hour.
        held = [line.held for line in lines[start : min(stop, len(lines) - 1)]] or [1]
        first, last = lines[start], lines[stop - 1]
        heat, moved_us = (used or {}).get(ends, (COLD, 0))
        rows = last.last_sequence - first.first_sequence + 1
        hours.append(
            HotHour(
                partition,
                period_of(ends - MS_PER_HOUR, Grain.HOURLY),
                first.first_sequence,
                last.last_sequence,
                first.first_index,
                last.last_index,
                rows,
                round(rows * bytes_per_row),
                any(held),
                ends,
                heat,
                moved_us or ends * US_PER_MS,
                any(held) and not all(held),
            )
        )
        start = stop
    return hours
