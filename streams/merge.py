"""The results of partitions, merged into one of the whole ledger: step two of windows with `whole = true`.

Problem: a key's events may lie in several partitions, each of which closes its windows by its own watermark. So each
partition gives its own result, and who wants the whole merges them, knowing which are still to come.

    count, values   added up, and so is near_edge
    sum             added in order of the partitions, so that it is the same for everybody
    min, max        the least, the greatest
    mean            the sum by the values; of means where no sum is asked for, by their weights
    variance        Chan, Golub, LeVeque (1979): of counts, means and variances, in order of the partitions
    first, last     none: sequences of two partitions have no order
    percentiles     none: those of a whole do not follow from those of its parts

GUARANTEE a window is complete once each partition has closed it: has given a final result of it, or of a window of the
same definition that ends with it or later, because watermarks only rise; or its heartbeats say so (see
`silent_partitions`). Late events may still update it. A version of the definition that came into force while events
came closes no window that may have had events before (see `whole_windows`): such a window stays incomplete.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from schemas.instants import INT64_MIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Functions = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Part:
    """The last result of a window in one partition. functions: those that are asked for, None where there is none.

    near_edge: events that may belong to a neighbouring window, None but in frame corrected.
    seen_from_us: windows that start there or later the definition saw there from their first event on.
    """

    partition: int
    key: str | None
    window_start_us: int
    window_end_us: int
    final: bool
    count: int
    values: int
    functions: Functions
    seen_from_us: int = INT64_MIN
    near_edge: int | None = None


class Closed(NamedTuple):
    """Windows that a partition has closed: those that start at seen_from_us or later, and end at end_us or before."""

    partition: int
    seen_from_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Whole:
    """A window over all partitions. partitions: that have events in it; waiting: that have not closed it yet."""

    key: str | None
    window_start_us: int
    window_end_us: int
    count: int
    values: int
    functions: Functions
    partitions: tuple[int, ...]
    waiting: tuple[int, ...]
    near_edge: int | None = None

    @property
    def complete(self) -> bool:
        """Whether each partition has closed it."""
        return not self.waiting


def closed_by_results(parts: Iterable[Part]) -> list[Closed]:
    """Of each partition what the latest end of a window with a final result says."""
    found: dict[tuple[int, int], int] = {}
    for part in parts:
        if part.final:
            place = part.partition, part.seen_from_us
            found[place] = max(part.window_end_us, found.get(place, part.window_end_us))
    return [Closed(*place, end_us) for place, end_us in found.items()]


def merge_windows(parts: Sequence[Part], partitions: int, closed: Iterable[Closed] = ()) -> list[Whole]:
    """The windows of one definition in order of end, start and key.

    parts: one for each window and partition. closed: what is known beside these.
    """
    of_all = [*closed_by_results(parts), *closed]
    windows: dict[tuple[int, int, str | None], list[Part]] = {}
    for part in parts:
        windows.setdefault((part.window_end_us, part.window_start_us, part.key), []).append(part)
    ordered = sorted(windows, key=lambda window: (window[0], window[1], window[2] is not None, window[2] or ""))
    return [_merge_parts(windows[window], partitions, of_all) for window in ordered]


def _merge_parts(parts: Sequence[Part], partitions: int, closed: Sequence[Closed]) -> Whole:
    """One window."""
    ordered = sorted(parts, key=lambda part: part.partition)
    start_us, end_us = ordered[0].window_start_us, ordered[0].window_end_us
    done = {of_it.partition for of_it in closed if of_it.seen_from_us <= start_us and end_us <= of_it.end_us}
    return Whole(
        key=ordered[0].key,
        window_start_us=start_us,
        window_end_us=end_us,
        count=sum(part.count for part in ordered),
        values=sum(part.values for part in ordered),
        functions=_merged([part for part in ordered if part.values], ordered[0].functions),
        partitions=tuple(part.partition for part in ordered),
        waiting=tuple(p for p in range(partitions) if p not in done),
        near_edge=sum(part.near_edge or 0 for part in ordered) if ordered[0].near_edge is not None else None,
    )


def _merged(parts: Sequence[Part], asked: Functions) -> Functions:
    """Of parts with values. A number that a part could not say (null) nobody can say of the whole."""
    sums, least, greatest = (_column(parts, name) for name in ("sum", "min", "max"))
    total = _total(sums) if sums else None
    mean, variance = _moments(parts)
    values = sum(part.values for part in parts)
    found: Functions = {
        "sum": total,
        "min": min(least) if least else None,
        "max": max(greatest) if greatest else None,
        "mean": mean if total is None or not values else total / values,
        "variance": variance,
    }
    return {name: _finite(number) for name, number in found.items() if name in asked}


def _total(numbers: Sequence[float]) -> float:
    """Added one by one from the left: Python's own sum corrects as it goes, from 3.12 on."""
    total = numbers[0]
    for number in numbers[1:]:
        total += number
    return total


def _moments(parts: Sequence[Part]) -> tuple[float | None, float | None]:
    """Mean and variance of all values, each None where the parts do not say enough."""
    means = [_mean(part) for part in parts]
    if not parts or any(mean is None for mean in means):
        return None, None
    known = [mean for mean in means if mean is not None]
    variances = _column(parts, "variance")
    count, mean, m2 = 0, 0.0, 0.0
    for place, (part, part_mean) in enumerate(zip(parts, known, strict=True)):
        both = count + part.values
        distance = part_mean - mean
        if variances is not None:
            m2 += variances[place] * part.values + distance * distance * count * part.values / both
        mean += distance * part.values / both
        count = both
    return mean, None if variances is None else m2 / count


def _mean(part: Part) -> float | None:
    mean, total = part.functions.get("mean"), part.functions.get("sum")
    return mean if mean is not None or total is None else total / part.values


def _column(parts: Sequence[Part], name: str) -> list[float] | None:
    """A function of each part; None where one of them does not say it, or there is none."""
    found = [number for part in parts if (number := part.functions.get(name)) is not None]
    return found if found and len(found) == len(parts) else None


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
