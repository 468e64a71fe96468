"""The arithmetic of the figures: rates from append times, percentiles, backlog, slopes. Numbers in, numbers out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.errors import DriftledgerError
from schemas.instants import MS_PER_S

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Int64s = NDArray[np.int64]

PERCENTILES: Final = (50.0, 95.0, 99.0, 99.9)
#: Width of a latency bucket: what a percentile may be off.
BUCKET_US: Final = 100
#: Latencies beyond a minute count as a minute.
_BUCKETS: Final = 600_000
#: A backlog that grows over a whole run by less than what comes in a tenth of a second is flat.
_FLAT_S: Final = 0.1
_BIN_US: Final = 100_000
_BINS_MORE: Final = 600
_US_PER_S: Final = 1_000_000
_SLOPE_POINTS_MIN: Final = 2


class NoFigureError(DriftledgerError):
    """What was measured does not make a figure; the message says why."""


class Rates(NamedTuple):
    """Events per second from the first append to the last, and in either half of the events; both instants in ms."""

    per_s: float
    first_half_per_s: float
    second_half_per_s: float
    first_ms: int
    last_ms: int


def rates(appended_ms: ArrayLike, events: ArrayLike) -> Rates:
    """Rates of so many events appended at those instants, in any order.

    The first instant opens the window: what was appended then took time that nobody saw, and is not counted.
    """
    instants, places = np.unique(np.asarray(appended_ms, np.int64), return_inverse=True)
    if instants.size < 3:  # noqa: PLR2004 - a window and a half
        raise NoFigureError(f"all events were appended within {instants.size} instants. Measure with more events")
    total = np.cumsum(np.bincount(places, np.asarray(events, np.float64)))
    done = total - total[0]
    half_ms = float(np.interp(done[-1] / 2, done, instants.astype(np.float64)))
    first_ms, last_ms = int(instants[0]), int(instants[-1])
    return Rates(
        per_s=float(done[-1]) * MS_PER_S / (last_ms - first_ms),
        first_half_per_s=float(done[-1]) / 2 * MS_PER_S / (half_ms - first_ms),
        second_half_per_s=float(done[-1]) / 2 * MS_PER_S / (last_ms - half_ms),
        first_ms=first_ms,
        last_ms=last_ms,
    )


class Latencies:
    """A histogram of latencies in steps of BUCKET_US, in constant memory."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS + 1, np.int64)

    def add(self, latencies_us: Int64s) -> None:
        """Count some. A clock that was stepped back between the two readings counts as 0."""
        np.add.at(self._counts, np.clip(latencies_us // BUCKET_US, 0, _BUCKETS), 1)

    @property
    def count(self) -> int:
        """How many were added."""
        return int(self._counts.sum())

    def percentile_ms(self, percent: float) -> float:
        """The latency that so many percent do not exceed, rounded up to the bucket."""
        total = np.cumsum(self._counts)
        if not total[-1]:
            raise NoFigureError("no event was seen within the measured time. Measure for longer")
        wanted = max(int(np.ceil(total[-1] * percent / 100)), 1)
        return (int(np.searchsorted(total, wanted)) + 1) * BUCKET_US / 1_000


class Arrivals:
    """Events produced and events seen over time, in steps of a tenth of a second from an instant on."""

    def __init__(self, begin_us: int) -> None:
        self._begin_us = begin_us
        self._produced = self._seen = np.zeros(0, np.int64)

    def add(self, produced_us: Int64s, seen_us: Int64s) -> None:
        """Count events that were produced at those instants and seen at these."""
        if not produced_us.size:
            return
        produced, seen = (np.maximum((at_us - self._begin_us) // _BIN_US, 0) for at_us in (produced_us, seen_us))
        last = max(int(produced.max()), int(seen.max()))
        if last >= self._seen.size:
            more = (0, last + _BINS_MORE - self._seen.size)
            self._produced, self._seen = np.pad(self._produced, more), np.pad(self._seen, more)
        np.add.at(self._produced, produced, 1)
        np.add.at(self._seen, seen, 1)

    def backlog(self, from_s: float, until_s: float) -> Backlog:
        """What was produced and not yet seen, within the seconds given; raises NoFigureError where those are none."""
        produced, seen = np.cumsum(self._produced), np.cumsum(self._seen)
        ends_s = np.arange(1, seen.size + 1) * (_BIN_US / _US_PER_S)
        inside = (ends_s > from_s) & (ends_s <= until_s)
        waiting = (produced - seen)[inside]
        if waiting.size < _SLOPE_POINTS_MIN or produced[inside][-1] == produced[inside][0]:
            raise NoFigureError("too little was measured to tell a backlog. Measure for longer")
        grown = slope(ends_s[inside], waiting)
        rate = (produced[inside][-1] - produced[inside][0]) / (ends_s[inside][-1] - ends_s[inside][0])
        flat = grown * (until_s - from_s) <= rate * _FLAT_S
        return Backlog(float(waiting.mean()), int(waiting.max()), grown, bool(flat))


class Backlog(NamedTuple):
    """Events waiting: mean, most, growth in events per second, and whether that is next to nothing."""

    mean: float
    most: int
    slope_per_s: float
    flat: bool


def slope(x: ArrayLike, y: ArrayLike) -> float:
    """Rise of the straight line through the points (least squares). Raises NoFigureError for less than two."""
    across, up = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if across.size < _SLOPE_POINTS_MIN:
        raise NoFigureError("a slope needs two points at least. Measure for longer")
    across = across - across.mean()
    return float((across * (up - up.mean())).sum() / (across * across).sum())
