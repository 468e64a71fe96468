"""What the figures must reach on two cores that the broker shares, and which of them do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.cases import FULL_SECONDS, Name, Paced, Preloaded
from benchmarks.paced import PacedFigures
from benchmarks.preloaded import PreloadedFigures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.report import Measured

#: Preloaded cases are judged with batches of this size.
BATCH_EVENTS: Final = 5_000
#: Latency and memory are promised at this rate.
PACED_PER_S: Final = 50_000
_RATIO_MIN: Final = 0.6


class Bar(NamedTuple):
    """One figure against what it must reach. at_least: whether more is better."""

    what: str
    figure: float
    limit: float
    at_least: bool

    @property
    def reached(self) -> bool:
        """Whether it is."""
        return self.figure >= self.limit if self.at_least else self.figure < self.limit

    def __str__(self) -> str:
        """For people."""
        verdict = "reached" if self.reached else "MISSED"
        return (
            f"{verdict:<8} {self.what}: {self.figure:,.2f}, {'at least' if self.at_least else 'below'} {self.limit:,}"
        )


def bars(measured: Sequence[Measured]) -> list[Bar]:
    """Those that the measured cases speak of."""
    found = [bar for one in measured for bar in _of(one)]
    rates = {
        one.case.name: one.figures.per_s
        for one in measured
        if isinstance(one.figures, PreloadedFigures) and one.case.batch_events == BATCH_EVENTS
    }
    if {Name.SOURCES, Name.WORKER} <= rates.keys():
        ratio = rates[Name.SOURCES] / rates[Name.WORKER]
        found.append(Bar("rate at 100,000 sources against 1,000", ratio, _RATIO_MIN, at_least=True))
    return found


def _of(one: Measured) -> Iterator[Bar]:
    case, figures = one
    if isinstance(case, Preloaded) and isinstance(figures, PreloadedFigures) and case.batch_events == BATCH_EVENTS:
        limits = {Name.SEQUENCE: (400_000, 3.0), Name.WORKER: (350_000, 3.5)}.get(Name(case.name))
        if limits is not None:
            yield Bar(f"{case.name}, events/s", figures.per_s, limits[0], at_least=True)
            yield Bar(f"{case.name}, client us/event", figures.client_us, limits[1], at_least=False)
        yield Bar(f"{case.name}, peak MB", figures.rss_peak_mb, 500, at_least=False)
    if isinstance(case, Paced) and isinstance(figures, PacedFigures) and case.name == Name.PACED:
        yield Bar("paced, p50 ms", figures.p50_ms, 20, at_least=False)
        yield Bar("paced, p95 ms", figures.p95_ms, 35, at_least=False)
        yield Bar("paced, p99 ms", figures.p99_ms, 50, at_least=False)
        yield Bar("paced, lag flat", float(figures.lag_flat), 1, at_least=True)
        yield _rate(case.name, figures)
        yield Bar("paced, seconds", case.seconds, FULL_SECONDS, at_least=True)
    if isinstance(figures, PacedFigures) and case.name == Name.MEMORY:
        yield Bar("memory, peak MB", figures.rss_peak_mb, 500, at_least=False)
        yield _rate(case.name, figures)
        slope = math.inf if figures.rss_slope_mb_per_min is None else figures.rss_slope_mb_per_min  # ran too short
        yield Bar("memory, MB/min", slope, 1, at_least=False)


def _rate(name: str, figures: PacedFigures) -> Bar:
    return Bar(f"{name}, events/s", figures.rate, 0.99 * PACED_PER_S, at_least=True)
