"""The sample fleet: 200 sources that are wrong in known ways, so that what the ledger says can be checked.

Problem: to believe a judge of clocks one must know the truth. So the fleet is a fixed table: each source's name says
what is wrong with it ("fast-7s-2", "drift+50000ppm", "step-3s-1", "cut-off-4", "day-ahead"), and an alert that names it
is right or wrong at a glance. Most clocks are as good as real ones are (steady ones, and quartz within 100 ppm), some
are bad from the start, some become bad while one looks on, and some are set right again, so that alerts close too. Some
have nothing wrong with their clocks: their path is cut for a while, and what was kept meanwhile comes late.

What the sources measure is of no concern to their clocks: series of the Numenta Anomaly Benchmark (NAB) where they are
at hand, otherwise `generate`; timestamps of either are not used, values are repeated without end.

GUARANTEE the fleet is the same at every start: names, clocks, rates, series, and the order of values. Nothing here
reads a clock: when an event is due is a function of the time that passed since the start.
"""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.instants import MS_PER_S, NS_PER_S, S_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Clock:
    """What is wrong with a clock, counted from the start of the fleet; all of it adds up.

    ahead_ms: off from the start, negative is behind. corrected_after_s: when that ends. step_ms, step_after_s: set
    forward by so much, negative is back, at that time. rate_ppm: runs fast by so many parts in a million, negative is
    slow. sway_ms: how far it sways to both sides in sway_period_s. jitter_ms: noise.
    """

    ahead_ms: int = 0
    corrected_after_s: int | None = None
    step_ms: int = 0
    step_after_s: int = 0
    rate_ppm: int = 0
    sway_ms: int = 0
    sway_period_s: int = 60
    jitter_ms: int = 5


@dataclass(frozen=True, slots=True)
class Cut:
    """A path that takes nothing for a while, and then what was kept at so many times the source's rate."""

    after_s: int
    for_s: int
    drain_times: int = 2


@dataclass(frozen=True, slots=True)
class Group:
    """Sources that are wrong in one way; `text` says which."""

    text: str
    clocks: Mapping[str, Clock]
    cut: Cut | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One source. Its n-th event (from 0) carries value (first_value + n) of its series, repeated without end."""

    name: str
    clock: Clock
    series: str
    first_value: int
    rate_hz: int
    phase_ns: int
    cut: Cut | None = None

    def due(self, elapsed_ns: int) -> int:
        """Events that should have been made when elapsed_ns have passed since the start."""
        return (elapsed_ns + self.phase_ns) * self.rate_hz // NS_PER_S

    def passed(self, elapsed_ns: int) -> int:
        """Events that its path should have taken by then."""
        if self.cut is None:
            return self.due(elapsed_ns)
        begin_ns, length_ns = self.cut.after_s * NS_PER_S, self.cut.for_s * NS_PER_S
        before = self.due(min(elapsed_ns, begin_ns))
        since_ns = max(0, elapsed_ns - begin_ns - length_ns)
        return min(self.due(elapsed_ns), before + since_ns * self.rate_hz * self.cut.drain_times // NS_PER_S)


def _numbered(name: str, count: int, clock: Clock) -> dict[str, Clock]:
    return {f"{name}-{number}": clock for number in range(1, count + 1)}


#: Frequencies of quartz as it is sold, none of which anybody would notice within a day.
_QUARTZ_PPM: Final = (-100, -60, -40, -20, -10, -5, -2, 2, 5, 10, 20, 40, 60, 100)

GROUPS: Final = (
    Group("steady", _numbered("steady", 134, Clock())),
    Group("ordinary quartz, within 100 ppm", {f"quartz{ppm:+d}ppm": Clock(rate_ppm=ppm) for ppm in _QUARTZ_PPM}),
    Group("off by 2 s", _numbered("fast-2s", 8, Clock(2_000)) | _numbered("slow-2s", 6, Clock(-2_000))),
    Group("off by 7 s", _numbered("fast-7s", 6, Clock(7_000)) | _numbered("slow-7s", 4, Clock(-7_000))),
    Group(
        "set by 3 s after half a minute",
        _numbered("step+3s", 4, Clock(step_ms=3_000, step_after_s=30))
        | _numbered("step-3s", 4, Clock(step_ms=-3_000, step_after_s=30)),
    ),
    Group("right and cut off for 40 s", _numbered("cut-off", 10, Clock()), Cut(after_s=20, for_s=40)),
    Group(
        "drifting by 1 to 5 %",
        {f"drift{ppm:+d}ppm": Clock(rate_ppm=ppm) for ppm in (10_000, -10_000, 20_000, -30_000, 50_000)},
    ),
    Group(
        "swaying by 2 s",
        {
            "sway-in-1min": Clock(sway_ms=2_000, sway_period_s=60),
            "sway-in-2min": Clock(sway_ms=2_000, sway_period_s=120),
        },
    ),
    Group("set right after a minute", {"corrected-1": Clock(3_000, 60), "corrected-2": Clock(-6_000, 60)}),
    Group("a day ahead", {"day-ahead": Clock(S_PER_DAY * MS_PER_S)}),
)

_RATE_HZ_MIN: Final = 3
_RATES: Final = 4
#: Prime to the number of rates and of sources, so that neighbours differ.
_STRIDE: Final = 7


def fleet(series: Sequence[str]) -> list[Source]:
    """The 200 sources, fed by the named series in turn; two that share one are at different places in it."""
    clocks = [(name, clock, group.cut) for group in GROUPS for name, clock in group.clocks.items()]
    return [
        Source(
            name=name,
            clock=clock,
            series=series[number % len(series)],
            first_value=number // len(series) * 1_009,
            rate_hz=_RATE_HZ_MIN + number * _STRIDE % _RATES,
            phase_ns=number * _STRIDE % len(clocks) * NS_PER_S // (len(clocks) * _RATE_HZ_MIN),
            cut=cut,
        )
        for number, (name, clock, cut) in enumerate(clocks)
    ]


def describe_clocks() -> str:
    """All groups in a line."""
    return "; ".join(f"{len(group.clocks)} {group.text}" for group in GROUPS)


def parse_nab(text: str) -> array[float]:
    """Values of a NAB file (CSV with a header, timestamp and value).

    Raises ValueError for anything else.
    """
    header, *lines = text.splitlines() or [""]
    if header != "timestamp,value" or not lines:
        raise ValueError(f"it begins with {header[:40]!r} and has {len(lines)} values; expected timestamp,value")
    return array("d", (float(line.partition(",")[2]) for line in lines))


#: Names of the generator's series, each with level, swing over a "day", noise, and how many values lie between spikes.
_SHAPES: Final[Mapping[str, tuple[float, float, float, int]]] = {
    "cpu_percent": (40.0, 25.0, 6.0, 400),
    "temperature_celsius": (65.0, 4.0, 0.5, 900),
    "requests_per_s": (220.0, 180.0, 30.0, 250),
    "disk_bytes_per_s": (3.0e6, 1.0e6, 8.0e5, 150),
    "pressure_bar": (5.2, 0.3, 0.05, 700),
    "queue_length": (12.0, 10.0, 4.0, 100),
}
_VALUES: Final = 2_880
_DAY: Final = 288
_SPIKE: Final = 3


def generate() -> dict[str, array[float]]:
    """Series in the manner of NAB's: a level that swings with the day, noise, now and then a spike. Always the same."""
    return {name: _generate_one(name, *shape) for name, shape in _SHAPES.items()}


def _generate_one(name: str, level: float, swing: float, noise: float, spike_every: int) -> array[float]:
    draw = random.Random(name)  # noqa: S311 - a repeatable series is the point
    values = array("d")
    for n in range(_VALUES):
        of_day = abs(n % _DAY - _DAY // 2) / (_DAY // 4) - 1  # a triangle between -1 and 1
        value = level + swing * of_day + noise * (2 * draw.random() - 1)
        if draw.random() * spike_every < 1:
            value += _SPIKE * swing
        values.append(round(max(value, 0.0), 3))
    return values
