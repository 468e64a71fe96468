"""Histories of one source's clock: readings as a ledger would hold them, with what is true beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from schemas.memory import kernel
from streams.clock_columns import CLOCK_COLUMNS, POINT_COLUMNS, POINTS_MAX, SKEW_ERROR_PPB, SKEW_PPB
from streams.clock_fit import workspace
from streams.estimate_kernel import Place, estimate, is_known, offset_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streams.clock_fit import Workspace

START_MS = 1_800_000_000_000


class Readings(NamedTuple):
    """Columns, a row for each event in order of sequence; exchange: int64[n, 3] sent_us, acked_us, appended_ms."""

    source: NDArray[np.int64]
    authority_ms: NDArray[np.int64]
    local_us: NDArray[np.int64]
    exchanged: NDArray[np.uint8]
    exchange: NDArray[np.int64]


class Learnt(NamedTuple):
    """What was known after each reading, and the state at the end."""

    place: NDArray[np.int64]
    known: NDArray[np.bool_]
    offset_us: NDArray[np.int64]
    bound_us: NDArray[np.int64]
    skew_ppb: NDArray[np.int64]
    skew_error_ppb: NDArray[np.int64]
    clocks: NDArray[np.int64]
    points: NDArray[np.int32]

    def count(self, place: Place) -> int:
        """Readings of that place."""
        return int(np.count_nonzero(self.place == place))


@kernel
def _learn(
    clocks: NDArray[np.int64], points: NDArray[np.int32], readings: Readings, room: Workspace, place: NDArray[np.int64],
    known: NDArray[np.bool_], numbers: NDArray[np.int64],
) -> None:  # fmt: skip
    for row in range(readings.source.size):
        slot, at_ms = readings.source[row], readings.authority_ms[row]
        place[row] = estimate(
            clocks, points, slot, row + 1, at_ms, readings.local_us[row], readings.exchanged[row],
            readings.exchange[row, 0], readings.exchange[row, 1], readings.exchange[row, 2], room,
        )  # fmt: skip
        offset_us, bound_us = offset_of(clocks, slot, at_ms)
        known[row] = is_known(clocks, slot, at_ms)
        numbers[row, 0] = offset_us
        numbers[row, 1] = bound_us
        numbers[row, 2] = clocks[slot, SKEW_PPB]
        numbers[row, 3] = clocks[slot, SKEW_ERROR_PPB]


def learn(readings: Readings, sources: int = 1) -> Learnt:
    """All readings, one after another."""
    rows = readings.source.size
    clocks = np.zeros((sources, CLOCK_COLUMNS), np.int64)
    points = np.zeros((sources, POINTS_MAX, POINT_COLUMNS), np.int32)
    place, known, numbers = np.zeros(rows, np.int64), np.zeros(rows, np.bool_), np.zeros((rows, 4), np.int64)
    _learn(clocks, points, readings, workspace(), place, known, numbers)
    offset_us, bound_us, skew_ppb, skew_error_ppb = numbers.T
    return Learnt(place, known, offset_us, bound_us, skew_ppb, skew_error_ppb, clocks, points)


@dataclass(frozen=True, slots=True)
class Truth:
    """A clock: offset_us at the start, then its skew, and steps of (when in s, by how many us)."""

    offset_us: float = 0.0
    skew_ppm: float = 0.0
    steps: tuple[tuple[float, float], ...] = ()

    def offsets_us(self, at_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """At instants in seconds from the start."""
        found = self.offset_us + self.skew_ppm * at_s
        for when_s, by_us in self.steps:
            found = found + by_us * (at_s >= when_s)
        return found


def readings_of(
    truth: Truth,
    made_s: NDArray[np.float64],
    appended_s: NDArray[np.float64],
    acked_s: NDArray[np.float64] | None = None,
    exchange_every_s: float = 10.0,
) -> Readings:
    """One source, whose events were made and appended then; with acked_s each may be told of in a later event.

    As the producer does: the acknowledged round trip that was narrowest since the last one told, each exchange_every_s.
    """
    rows = made_s.size
    local_us = np.floor(made_s * 1e6 + truth.offsets_us(made_s)).astype(np.int64) + START_MS * 1_000
    authority_ms = np.floor(appended_s * 1e3).astype(np.int64) + START_MS
    exchanged, exchange = np.zeros(rows, np.uint8), np.zeros((rows, 3), np.int64)
    if acked_s is not None:
        acked_us = np.floor(acked_s * 1e6 + truth.offsets_us(acked_s)).astype(np.int64) + START_MS * 1_000
        told_s, oldest = -exchange_every_s, 0
        for row in range(rows):
            if made_s[row] < told_s + exchange_every_s:
                continue
            ready = [n for n in range(oldest, row) if acked_s[n] <= made_s[row]]
            if ready:
                best = min(ready, key=lambda n: acked_us[n] - local_us[n])
                exchanged[row] = 1
                exchange[row] = local_us[best], acked_us[best], authority_ms[best]
                told_s, oldest = made_s[row], ready[-1] + 1
    return Readings(np.zeros(rows, np.int64), authority_ms, local_us, exchanged, exchange)


def in_order(appended_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Appends of one source in the order in which it sent."""
    return np.maximum.accumulate(appended_s)
