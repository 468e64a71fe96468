"""The pictures of clocks.md, from runs of judge (`clock_runs`); `python -m docs.draw` writes them with the others."""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.figure import Figure

from docs.clock_runs import Learnt, clock, cut, learn
from docs.style import EVENT, GREY, LATE, SLOW, WATERMARK
from streams.estimate import severity_of_offset

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

    from docs.clock_runs import Floats

_TRUTH, _ESTIMATE, _TWO_WAY = LATE, WATERMARK, SLOW
#: Of GREEN, YELLOW and RED.
_SEVERITIES: Final = ("#4ac26b", "#e3b341", "#cf222e")
_MINUTE: Final = 60.0
_US_PER_MS: Final = 1_000
_SEEN_MS: Final = 0.5


@cache
def backlog() -> Learnt:
    """A clock 180 ms fast, an event each five seconds for half an hour; a path that is cut for five minutes."""
    return learn(cut(clock(360, 5.0, off_ms=180), 600, 900, 1))


@cache
def stepped() -> Learnt:
    """A clock that is right, and set ahead by 0.4 s after ten minutes."""
    return learn(clock(1_200, 1.0, off_ms=-20, step=(600, 400)))


@cache
def both_ways() -> tuple[Learnt, Learnt]:
    """The same clock, 40 ms slow, whose events take 30 ms at least: from events alone, and with round trips."""
    source = clock(400, 1.0, off_ms=-40, least_ms=30)
    return learn(source), learn(source, two_way=True)


@cache
def drifting() -> Learnt:
    """A clock that gains 60 ppm, for two hours, an event each 25 seconds."""
    return learn(clock(288, 25.0, off_ms=-150, ppm=60, least_ms=25))


def _band(axes: Axes, run: Learnt, color: str, label: str, *, seen_ms: float = _SEEN_MS, steps: bool = True) -> None:
    known = ~np.isnan(run.bound_ms)
    columns = (column[known] for column in (run.appended_s / _MINUTE, run.offset_ms, run.bound_ms))
    at, offset, bound = _changes(*columns, seen=seen_ms)
    low, high = offset - bound, offset + bound
    axes.fill_between(at, low, high, step="post" if steps else None, color=color, alpha=0.18, linewidth=0)
    style = "steps-post" if steps else "default"
    axes.plot(at, offset, drawstyle=style, color=color, linewidth=1.8, label=label, zorder=4)


def _truth(axes: Axes, run: Learnt) -> None:
    style: dict[str, Any] = {
        "color": _TRUTH,
        "linewidth": 1.2,
        "linestyle": (0, (4, 3)),
        "label": "the clock as it is",
    }
    axes.step(*_changes(run.appended_s / _MINUTE, run.off_ms), where="post", zorder=5, **style)


def _changes(at: Floats, *columns: Floats, seen: float = _SEEN_MS) -> tuple[Floats, ...]:
    """Without what changes less than can be seen."""
    kept = [0]
    for row in range(1, at.size):
        if row == at.size - 1 or any(abs(column[row] - column[kept[-1]]) > seen for column in columns):
            kept.append(row)
    return tuple(column[kept] for column in (at, *columns))


def _readings(axes: Axes, run: Learnt, **style: Any) -> None:
    plain: dict[str, Any] = {
        "linestyle": "none", "marker": "o", "markersize": 1.8, "markeredgewidth": 0, "color": EVENT,
        "label": "events: local - authority",
    }  # fmt: skip
    axes.plot(run.appended_s / _MINUTE, run.reading_ms, **(plain | style))


def _between(run: Learnt, begin_min: float, end_min: float) -> Learnt:
    """What is in that part of the axis, and a little more."""
    inside = (run.appended_s >= begin_min * _MINUTE - 2) & (run.appended_s <= end_min * _MINUTE + 2)
    return Learnt(*(column[inside] for column in run))


def _strip(axes: Axes, at_min: Floats, severity: Floats, name: str, y: float) -> None:
    """Runs of one severity, as bars."""
    edges = [0, *(np.flatnonzero(np.diff(severity) != 0) + 1).tolist(), severity.size]
    for begin, end in itertools.pairwise(edges):
        if not np.isnan(severity[begin]):
            last = at_min[min(end, severity.size - 1)]
            axes.barh(y, last - at_min[begin], left=at_min[begin], height=0.72, color=_SEVERITIES[int(severity[begin])])
    axes.text(-0.4, y, name, ha="right", va="center")


def clock_backlog() -> Figure:
    """A backlog: the readings fall by minutes, the estimate stays; verdicts of either beside one another."""
    run = backlog()
    figure = Figure(figsize=(8.6, 6.2), layout="constrained")
    whole, near, strips = figure.subplots(3, 1, sharex=True, height_ratios=[2.2, 2.6, 0.9])
    _readings(whole, Learnt(*(column[::4] for column in run)))
    whole.set(ylabel="s", title="A clock 180 ms fast; its path is cut for five minutes")
    whole.set_yticks([0, -100_000, -200_000, -300_000], ["0", "-100", "-200", "-300"])
    whole.annotate("five minutes' events, drained", (15.8, -250_000), (18.5, -220_000), va="center",
        arrowprops={"arrowstyle": "-", "color": GREY})  # fmt: skip
    _readings(near, run)
    _band(near, run, _ESTIMATE, "the estimate, with its bound")
    _truth(near, run)
    near.set(ylim=(60, 420), ylabel="ms")
    near.legend(loc="upper right", ncols=3, handletextpad=0.4, columnspacing=1.2)
    at_min = run.appended_s / _MINUTE
    _strip(strips, at_min, run.severity, "each event", 1)
    of_clock = np.array([float(severity_of_offset(round(ms * _US_PER_MS))) for ms in run.offset_ms.tolist()])
    _strip(strips, at_min, np.where(np.isnan(run.bound_ms), np.nan, of_clock), "the clock", 0)
    strips.set(xlim=(0, 30), ylim=(-0.5, 1.5), xlabel="authority time, minutes")
    strips.set_yticks([])
    strips.spines["left"].set_visible(False)
    return figure


def clock_step() -> Figure:
    """A step is confirmed by readings that agree for five seconds."""
    run = _between(stepped(), 9.6, 10.6)
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    axes = figure.subplots()
    _readings(axes, run, markersize=4)
    _band(axes, run, _ESTIMATE, "the estimate, with its bound")
    _truth(axes, run)
    axes.set(xlim=(9.6, 10.6), ylim=(-120, 480), xlabel="authority time, minutes", ylabel="ms")
    axes.set_title("A clock is set ahead by 0.4 s: told after readings over five seconds agree")
    axes.legend(loc="upper left", handletextpad=0.4)
    return figure


def clock_round_trips() -> Figure:
    """From events alone, and with round trips."""
    one, two = (_between(run, 0, 4) for run in both_ways())
    figure = Figure(figsize=(8.6, 3.8), layout="constrained")
    axes = figure.subplots()
    _readings(axes, one, markersize=2.5)
    _band(axes, one, _ESTIMATE, "from events alone")
    _band(axes, two, _TWO_WAY, "with a round trip each ten seconds")
    _truth(axes, one)
    axes.set(xlim=(0, 4), ylim=(-130, 60), xlabel="authority time, minutes", ylabel="ms")
    axes.set_title("A clock 40 ms slow, behind a path of 30 ms")
    axes.legend(loc="lower right", ncols=2, handletextpad=0.4, columnspacing=1.2)
    return figure


def clock_skew() -> Figure:
    """The upper edge of the readings rises with the clock."""
    run = drifting()
    figure = Figure(figsize=(8.6, 3.8), layout="constrained")
    axes = figure.subplots()
    _readings(axes, run)
    _band(axes, run, _ESTIMATE, "the estimate, with its bound", seen_ms=4, steps=False)
    _truth(axes, run)
    axes.set(xlim=(0, 120), ylim=(-260, 380), xlabel="authority time, minutes", ylabel="ms")
    axes.set_title("A clock that gains 60 ppm: 0.43 s in two hours")
    axes.legend(loc="upper left", handletextpad=0.4)
    return figure


CLOCK_PICTURES: Final[dict[str, Callable[[], Figure]]] = {
    "clock_backlog": clock_backlog,
    "clock_step": clock_step,
    "clock_round_trips": clock_round_trips,
    "clock_skew": clock_skew,
}


def figures() -> dict[str, int]:
    """What clocks.md says of the backlog: events, how many have another verdict than the clock, the worst estimate."""
    run = backlog()
    known = ~np.isnan(run.bound_ms)
    off_ms = np.abs(run.offset_ms - run.off_ms)[known]
    return {
        "events": run.severity.size,
        "judged otherwise": int(np.count_nonzero(run.severity)),
        "worst ms": int(np.ceil(off_ms.max())),
    }
