"""What the figures must reach on two cores that the broker shares, and which of them do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.asked import AskedFigures
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
_CLOSINGS_MIN: Final = 400
#: Events per second at least, client CPU in microseconds per event below.
_LIMITS: Final = {
    Name.SEQUENCE: (400_000, 3.0),
    Name.WORKER: (350_000, 3.5),
    Name.WHOLE: (300_000, 4.0),
    Name.BACKFILL: (1_000_000, 1.3),
}
#: Of two million rows, in ms.
_MS: Final = {"aggregate of 80 %": 3, "1 minute over all": 12, "one source, 1 %": 1, "100 k rows": 6}
_PUT_PER_S: Final = 25_000
#: p50, p95, p99.
_LATENCY_MS: Final = {Name.PACED: (20, 35, 50), Name.CLOSINGS: (25, 40, 60)}


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
        if isinstance(one.case, Preloaded)
        and isinstance(one.figures, PreloadedFigures)
        and one.case.batch_events == BATCH_EVENTS
    }
    for many, few in ((Name.SOURCES, Name.WORKER), (Name.WHOLE_SOURCES, Name.WHOLE)):
        if {many, few} <= rates.keys():
            text = f"{few}, rate at 100,000 sources against 1,000"
            found.append(Bar(text, rates[many] / rates[few], _RATIO_MIN, at_least=True))
    return found


def _of(one: Measured) -> Iterator[Bar]:
    case, figures = one
    if isinstance(figures, AskedFigures):
        yield from _of_asked(case.name, figures)
    if isinstance(case, Preloaded) and isinstance(figures, PreloadedFigures) and case.batch_events == BATCH_EVENTS:
        limits = _LIMITS.get(Name(case.name))
        if limits is not None:
            yield Bar(f"{case.name}, events/s", figures.per_s, limits[0], at_least=True)
            yield Bar(f"{case.name}, client us/event", figures.client_us, limits[1], at_least=False)
        if case.name != Name.WHOLE_SOURCES:  # what it holds is stated, for it holds what there is
            yield Bar(f"{case.name}, peak MB", figures.rss_peak_mb, 700 if case.window_ms else 500, at_least=False)
    if isinstance(case, Paced) and isinstance(figures, PacedFigures) and case.name in _LATENCY_MS:
        p50_ms, p95_ms, p99_ms = _LATENCY_MS[Name(case.name)]
        yield Bar(f"{case.name}, p50 ms", figures.p50_ms, p50_ms, at_least=False)
        yield Bar(f"{case.name}, p95 ms", figures.p95_ms, p95_ms, at_least=False)
        yield Bar(f"{case.name}, p99 ms", figures.p99_ms, p99_ms, at_least=False)
        yield Bar(f"{case.name}, lag flat", float(figures.lag_flat), 1, at_least=True)
        yield _rate(case.name, figures)
        yield Bar(f"{case.name}, seconds", case.seconds, FULL_SECONDS, at_least=True)
        if case.closings:
            yield Bar(f"{case.name}, closings", figures.measured, _CLOSINGS_MIN, at_least=True)
    if isinstance(figures, PacedFigures) and case.name == Name.MEMORY:
        yield Bar("memory, peak MB", figures.rss_peak_mb, 700, at_least=False)
        yield _rate(case.name, figures)
        slope = math.inf if figures.rss_slope_mb_per_min is None else figures.rss_slope_mb_per_min  # ran too short
        yield Bar("memory, MB/min", slope, 1, at_least=False)


def _of_asked(name: str, figures: AskedFigures) -> Iterator[Bar]:
    for what, figure in figures.found.items():
        if what in _MS:
            yield Bar(f"{what}, ms", figure, _MS[what], at_least=False)
    if name == Name.PUT:
        yield Bar("put, events/s", max(figures.found.values()), _PUT_PER_S, at_least=True)


def _rate(name: str, figures: PacedFigures) -> Bar:
    return Bar(f"{name}, events/s", figures.rate, 0.99 * PACED_PER_S, at_least=True)
