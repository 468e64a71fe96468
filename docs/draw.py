"""Draws the pictures of windows.md and clocks.md from runs of folds: `python -m docs.draw [FOLDER]`, else in place.

GUARANTEE with the locked matplotlib the same bytes each time: no date, no random name, letters as outlines of the font
that matplotlib brings. The ground is opaque, so that they read alike on light and dark pages.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

from docs.clock_faults import HONEST, all_slow, all_slow_patient, backlog, cases, day_ahead, measure, silent, slow
from docs.draw_clocks import CLOCK_PICTURES
from docs.histories import FIRST_INDEX, SECOND, START_MS, Event, aside, beats, fold, read
from docs.style import BAND, EVENT, FAULTY, GREY, INK, LATE, SLOW, STYLE, WATERMARK
from streams.windows import By, Frame, Function, Late, WindowDefinition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

    from docs.clock_faults import Case
    from docs.histories import Run, Step

FOLDER: Final = "docs/pictures"
_S: Final = 1_000_000


def _figure(width: float, height: float, columns: int = 1, **shape: Any) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False, **shape)
    return figure, list(axes[0])


def _seconds(instants_ms: Sequence[float]) -> list[float]:
    return [instant / SECOND for instant in instants_ms]


def _events(steps: Sequence[Step]) -> dict[int, Event]:
    return {number: step.said for number, step in enumerate(steps) if isinstance(step.said, Event)}


def _starts_s(result: dict[str, Any]) -> float:
    return float((result["window_start_us"] // SECOND - START_MS) / SECOND)


def _line(axes: Axes, x: Sequence[float], watermark_ms: Sequence[int | None], **style: Any) -> None:
    """The watermark, as steps over x."""
    known: list[tuple[float, float]] = []
    for at, mark in zip(x, watermark_ms, strict=True):
        if mark is not None and (not known or mark / SECOND != known[-1][1] or at == x[-1]):
            known.append((at, mark / SECOND))
    axes.step([at for at, _ in known], [mark for _, mark in known], where="post", color=WATERMARK, **style)


def _dots(axes: Axes, x: Sequence[float], y: Sequence[float], **style: Any) -> None:
    plain: dict[str, Any] = {"marker": "o", "s": 13, "color": EVENT, "linewidths": 0, "zorder": 3}
    axes.scatter(list(x), list(y), **(plain | style))


def _crosses(axes: Axes, x: Sequence[float], y: Sequence[float], **style: Any) -> None:
    plain: dict[str, Any] = {"marker": "x", "s": 30, "color": LATE, "linewidths": 1.6, "zorder": 4}
    axes.scatter(list(x), list(y), **(plain | style))


# ------------------------------------------------------------------------------------------------------ how it works


@cache
def _first() -> tuple[list[Step], WindowDefinition]:
    """Two sources for fifty seconds, one event of a clock that is fast, one late; then heartbeats alone."""
    made_ms = list(range(1_000, 50_000, 2_300))
    events = [Event(at + 150 + at * 7 % 900, at + at * 3 % 700 - 350, "pump-1", 20.0) for at in made_ms]
    events += [Event(21_400, 46_000, "pump-2", 20.0), Event(37_500, 24_000, "pump-2", 20.0)]
    definition = WindowDefinition(
        "all_10s", size_us=10 * _S, by=By.ALL, lateness_us=5 * _S, max_behind_us=20 * _S, late=Late.SIDE
    )
    return read(events, beats(events, 86_000)), definition


def watermark() -> Figure:
    """Event times against authority time, the watermark below them, windows that close where it leaves them."""
    steps, definition = _first()
    run = fold(steps, definition)
    figure, (axes,) = _figure(8.6, 5.6)
    at_s = _seconds([step.said.at_ms for step in steps])
    for start_s in range(0, 50, 20):
        axes.axhspan(start_s, start_s + 10, color=BAND, zorder=0)
    axes.plot([0, 86], [0, 86], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(
        57, 58.5, "authority time", color="#57606a", rotation=45, rotation_mode="anchor", transform_rotates_text=True
    )
    _line(axes, at_s, run.watermark_ms, zorder=2, linewidth=2.2)
    events = _events(steps)
    taken = [number for number in events if number not in run.aside]
    _dots(axes, [at_s[n] for n in taken], [events[n].local_ms / SECOND for n in taken], s=20)
    late = list(run.aside)
    _crosses(axes, [at_s[n] for n in late], [events[n].local_ms / SECOND for n in late], s=60, linewidths=2)
    for result in run.results:
        x, end_s = at_s[result["step"]], _starts_s(result) + 10
        axes.plot([x], [end_s], marker="s", markersize=6, color=INK, zorder=5)
        axes.annotate(f"closes, count {result['count']}", (x, end_s), (7, -10), textcoords="offset points", va="center")
    ahead = next(n for n in taken if events[n].local_ms - events[n].at_ms > 10 * SECOND)
    axes.annotate(
        "24.6 s ahead: counts in its window;\nthe watermark follows authority time",
        (at_s[ahead], events[ahead].local_ms / SECOND), (3, 61), ha="left",
        arrowprops={"arrowstyle": "-", "color": GREY, "shrinkB": 4}, va="bottom",
    )  # fmt: skip
    axes.annotate(
        "late: its window\nhas closed", (at_s[late[0]], events[late[0]].local_ms / SECOND), (45, 23.5), color=LATE,
        va="center", arrowprops={"arrowstyle": "-", "color": GREY, "shrinkB": 5},
    )  # fmt: skip
    axes.annotate(
        "events: event time, at most\nauthority time, less 5 s", (12.9, 7), (26, 1), va="center", color=WATERMARK,
        arrowprops={"arrowstyle": "-", "color": GREY},
    )  # fmt: skip
    axes.annotate(
        "silence: heartbeats,\nfrontier less 20 s", (76, 55), (70, 37), va="center", color=WATERMARK, ha="left",
        arrowprops={"arrowstyle": "-", "color": GREY},
    )  # fmt: skip
    axes.set(xlim=(0, 87), ylim=(-6, 76), xlabel="authority time, s", ylabel="event time by its source's clock, s")
    axes.set_title("How a watermark moves: windows of 10 s, lateness 5 s, max_behind 20 s")
    return figure


#: Of the pictures of frames: where they begin, their sources, and how far the clocks of these are off.
_FROM_S: Final = -12
_FAST_MS: Final = {"right": 0, "7 s slow": -7_000, "4 s fast": 4_000}


class _Line(NamedTuple):
    """One of two lines of events: its windows, what it is called, and when an event of a source was by it."""

    definition: WindowDefinition
    label: str
    instant_ms: Callable[[Event, int], int]
    said: Callable[[dict[str, Any]], str]


def _two_lines(events: Sequence[Event], top: _Line, bottom: _Line, starts_s: range, title: str) -> Figure:
    """The same events on two lines, with those of the windows that start then."""
    steps = read(events, beats(events, 120_000))
    figure, (axes,) = _figure(8.6, 4.2)
    for y, line in ((1.0, top), (0.0, bottom)):
        axes.plot([_FROM_S, 42], [y, y], color=INK, linewidth=1, zorder=1)
        for result in fold(steps, line.definition).results:
            start_s, above = _starts_s(result), y > 0
            if int(start_s) not in starts_s:
                continue
            low, high = (y, y + 0.32) if above else (y - 0.32, y)
            axes.fill_between([start_s + 0.15, start_s + 9.85], low, high, color=BAND, linewidth=0)
            place = y + (0.17 if above else -0.17)
            axes.text(start_s + 5, place, line.said(result), ha="center", va="center", fontsize=11)
    for colour, marker, (source, fast) in zip((EVENT, SLOW, FAULTY), "osD", _FAST_MS.items(), strict=True):
        mine = [
            (top.instant_ms(event, fast), bottom.instant_ms(event, fast)) for event in events if event.source == source
        ]
        higher, lower = (
            _seconds(instants)
            for instants in zip(*(both for both in mine if min(both) > _FROM_S * SECOND), strict=True)
        )
        for x_top, x_bottom in zip(higher, lower, strict=True):
            axes.plot([x_top, x_bottom], [1, 0], color=colour, linewidth=0.9, alpha=0.75)
        _dots(axes, higher, [1.0] * len(higher), color=colour, marker=marker, s=24)
        label = f"clock {source}" if fast else "clock right"
        _dots(axes, lower, [0.0] * len(lower), color=colour, marker=marker, s=24, label=label)
    axes.set(xlim=(_FROM_S, 42), ylim=(-0.6, 1.45), xlabel="s")
    axes.set_yticks([1, 0], [top.label, bottom.label])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.legend(loc="lower right", ncols=3, handletextpad=0.1, columnspacing=1.2, borderaxespad=0)
    axes.set_title(title)
    return figure


def _by_source(definition: WindowDefinition) -> _Line:
    """By the sources' clocks."""
    return _Line(definition, 'frame = "local"\nits source says when', lambda event, _: event.local_ms, _count)


def _count(result: dict[str, Any]) -> str:
    return f"count {result['count']}"


def frames() -> Figure:
    """The same events by their sources' clocks and by the broker's."""
    events = [
        Event(at + place * 900 + 300, at + place * 900 + fast, source, 20.0)
        for place, (source, fast) in enumerate(_FAST_MS.items())
        for at in range(0, 30_000, 4_300)
    ]
    local = WindowDefinition("w", size_us=10 * _S, by=By.ALL, lateness_us=15 * _S)
    broker = WindowDefinition("w", size_us=10 * _S, by=By.ALL, frame=Frame.AUTHORITY)
    top = _Line(broker, 'frame = "authority"\nthe broker says when', lambda event, _: event.at_ms, _count)
    title = "The same 21 events, in windows of 10 s of either frame"
    return _two_lines(events, top, _by_source(local), range(-20, 60, 10), title)


def corrected() -> Figure:
    """The same events by their sources' clocks, and by those put right."""
    events = [
        Event(made + 20 + made * 7 % 30, made + fast, source, 20.0)
        for place, (source, fast) in enumerate(_FAST_MS.items())
        for made in range(place * 600 - 20_000 + 20, 34_000, 2_000)
    ]
    local = WindowDefinition("w", size_us=10 * _S, by=By.ALL, lateness_us=15 * _S)
    right = WindowDefinition("w", size_us=10 * _S, by=By.ALL, frame=Frame.CORRECTED)
    bottom = _Line(
        right, 'frame = "corrected"\nless its offset', lambda event, fast: event.local_ms - fast,
        lambda result: f"{_count(result)}, {result['near_edge']} near",
    )  # fmt: skip
    title = "Events of sources whose clocks are known, in windows of 10 s of either frame"
    return _two_lines(events, _by_source(local), bottom, range(0, 30, 10), title)


@cache
def _stragglers() -> list[Step]:
    """Events of a window up to 10 s, of its neighbours, and three late ones."""
    made_ms = (*range(500, 10_000, 1_500), *range(11_000, 62_000, 3_000))
    late = {20_400: 6_200, 28_300: 3_100, 52_000: 8_400}
    events = [Event(made + 200, made, "pump-1", 20.0) for made in made_ms]
    events += [Event(at, local, "pump-1", 20.0) for at, local in late.items()]
    return read(events, beats(events, 70_000))


def _window(late: Late, early_us: int = 0) -> WindowDefinition:
    """Of 10 s, with lateness 5 s; updates for 20 s."""
    update_us = 20 * _S if late is Late.UPDATE else 0
    functions = (Function.COUNT,)
    return WindowDefinition(
        "w", 10 * _S, by=By.ALL, functions=functions, percentiles=(), late=late, update_us=update_us, early_us=early_us
    )


def _of_first(run: Run) -> list[dict[str, Any]]:
    """Results of the window that begins at 0 s."""
    return [result for result in run.results if _starts_s(result) == 0]


def _results(axes: Axes, steps: Sequence[Step], results: Sequence[dict[str, Any]], *, named: bool) -> None:
    """Counts of a window as they were told; hollow: not final."""
    x = [steps[result["step"]].said.at_ms / SECOND for result in results]
    y = [result["count"] for result in results]
    axes.step([*x, 65], [*y, y[-1]], where="post", color=EVENT, linewidth=1.4, zorder=2)
    for at, result in zip(x, results, strict=True):
        fill = EVENT if result["final"] else "#fcfcfb"
        axes.plot([at], [result["count"]], marker="o", markersize=7, color=EVENT, markerfacecolor=fill, zorder=3)
        text = f"revision {result['revision']}" if named else str(result["revision"])
        axes.annotate(text, (at, result["count"]), (0, 7), textcoords="offset points", ha="center", fontsize=8.5)


def late() -> Figure:
    """One window, three late events, each policy."""
    steps = _stragglers()
    figure, panels = _figure(10.4, 3.7, 3, sharey=True)
    events = _events(steps)
    for axes, policy in zip(panels, (Late.DROP, Late.UPDATE, Late.SIDE), strict=True):
        definition = _window(policy)
        run = fold(steps, definition)
        results = _of_first(run)
        _results(axes, steps, results, named=False)
        caused = {result["step"] for result in results}
        for number in sorted(aside(steps, definition)):
            x = events[number].at_ms / SECOND
            _crosses(axes, [x], [3.4], s=45)
            fate = "taken" if number in caused else "dead letter" if policy is Late.SIDE else "left out"
            axes.text(x, 2.8, fate, ha="center", va="top", color=LATE, fontsize=8.5, rotation=90)
        reported = sum(report["late"] for report in run.late)
        axes.set(xlim=(5, 65), ylim=(-0.4, 11.2), xlabel="authority time, s")
        axes.set_title(f'late = "{policy}"')
        axes.text(64, 10.7, f"late, as reported: {reported}", ha="right", va="center", fontsize=9)
        axes.set_yticks([0, 2, 4, 6, 8, 10])
        if policy is Late.UPDATE:
            until_s = 35
            axes.axvspan(15, until_s, color=BAND, zorder=0)
            axes.text(25, 5.2, "update_ms", ha="center", va="center", color="#57606a")
    panels[0].set_ylabel("count of the window 0 to 10 s")
    figure.suptitle(
        "Three late events (crosses) and the results of their window (numbers: revision)",
        x=0.01,
        ha="left",
        fontsize=10.5,
    )
    return figure


def early() -> Figure:
    """One window from its first result to its last."""
    steps = _stragglers()
    run = fold(steps, _window(Late.UPDATE, early_us=2 * _S))
    figure, (axes,) = _figure(8.6, 3.5)
    results = _of_first(run)
    _results(axes, steps, results, named=False)
    for line_s in range(2, 64, 2):
        axes.axvline(line_s, color=BAND, linewidth=0.8, zorder=0)
    first_final = next(result for result in results if result["final"])
    x = steps[first_final["step"]].said.at_ms / SECOND
    axes.annotate(
        "closes: final", (x, first_final["count"]), (x - 1, first_final["count"] + 2.6), ha="center",
        arrowprops={"arrowstyle": "-", "color": GREY, "shrinkB": 14},
    )  # fmt: skip
    axes.text(29.5, 8.4, "late events update it: final again,\nwith the next revision", va="top")
    axes.text(6.7, 1.1, "early: not final, where\nauthority time crosses 2 s", va="center")
    axes.set(xlim=(0, 46), ylim=(0, 11.9), xlabel="authority time, s", ylabel="count of the window 0 to 10 s")
    axes.set_title("Results of one window (numbers: revision): hollow early, filled final")
    return figure


# ----------------------------------------------------------------------------------------------------- clocks at fault


def _side(axes: Axes, case: Case, x: Sequence[float], seen: _Seen, title: str) -> None:
    """One half of a picture of a fault: events, watermark, what was late, where windows closed."""
    events = _events(case.steps)
    _line(axes, x, seen.watermark_ms, zorder=2, linewidth=1.8)
    honest, gone = {number for number in events if case.is_honest(number)}, set(seen.late)
    for numbers, draw, style in (
        (honest - gone, _dots, {"s": 11}),
        (events.keys() - honest - gone, _dots, {"color": FAULTY, "s": 14, "marker": "D"}),
        (gone - honest, _crosses, {"color": FAULTY, "s": 20, "linewidths": 1.2}),
        (gone & honest, _crosses, {"s": 20, "linewidths": 1.1}),
    ):
        ordered = sorted(numbers)
        draw(axes, [x[n] for n in ordered], [events[n].local_ms / SECOND for n in ordered], **style)
    if seen.closings:
        at, ends_s = zip(*seen.closings, strict=True)
        axes.scatter([x[n] for n in at], ends_s, marker="s", s=22, color=INK, linewidths=0, zorder=5)
    axes.set_title(title, linespacing=1.5)


class _Seen(NamedTuple):
    """What one rule makes of a history. closings: step and end, in seconds, of windows."""

    watermark_ms: Sequence[int | None]
    late: Sequence[int]
    closings: list[tuple[int, float]]


def _here(case: Case) -> _Seen:
    run = case.here()
    length_s = case.definition.size_us / _S
    closings = sorted({(result["step"], _starts_s(result) + length_s) for result in run.results})
    return _Seen(run.watermark_ms, list(run.aside), closings)


def _elsewhere(case: Case, *, timer: bool = False) -> _Seen:
    found = case.elsewhere(timer=timer)
    length_s = case.definition.size_us / _S
    ends = {(step, start_ms / SECOND + length_s) for step, windows in found.closed.items() for _, start_ms in windows}
    return _Seen(found.watermark_ms, found.late, sorted(ends))


def _pair(
    case: Case,
    left: _Seen,
    left_title: tuple[str, str],
    right: _Seen,
    right_title: tuple[str, str],
    *,
    by_entry: bool = False,
    **limits: tuple[float, float],
) -> Figure:
    """Two rules side by side, each with a title of two lines."""
    figure, panels = _figure(10.4, 4.2, 2, sharey=True)
    x: list[float] = _seconds([step.said.at_ms for step in case.steps])
    if by_entry:
        x = [n + FIRST_INDEX for n in range(len(case.steps))]
    for axes, seen, title in zip(panels, (left, right), (left_title, right_title), strict=True):
        _side(axes, case, x, seen._replace(closings=[] if by_entry else seen.closings), "\n".join(title))
        axes.set(xlabel="index of the entry" if by_entry else "authority time, s")
        axes.set(**limits)
    panels[0].set_ylabel("event time by its source's clock, s")
    marks = ["line: watermark", "cross: late"]
    marks += [] if by_entry else ["■ windows close"]
    marks += ["● of a good clock"] if case.events(honest=True) else []
    marks += ["◆ of a wrong one"] if case.events(honest=False) else []
    figure.suptitle(f"{case.title}     ({',  '.join(marks)})", x=0.01, ha="left", fontsize=10.5)
    return figure


_PLAIN_RULE: Final = "Elsewhere: the largest event time, less 5 s"


def fault_day_ahead() -> Figure:
    """Its events are far above the picture, and so is the watermark elsewhere."""
    case = day_ahead()
    m = measure(case)
    elsewhere = f"{m.honest_plain} of {m.honest} honest events late: the watermark is a day ahead"
    here = f"{m.honest_here} of {m.honest} honest events late; {m.faulty_here} of the other are AHEAD"
    left, right = (_PLAIN_RULE, elsewhere), ("Here", here)
    return _pair(case, _elsewhere(case), left, _here(case), right, xlim=(-2, 134), ylim=(-8, 80))


def fault_slow() -> Figure:
    """What it says of closed windows is late, wherever."""
    case = slow()
    m = measure(case)
    elsewhere = f"late: {m.honest_plain} of {m.honest} honest, {m.faulty_plain} of {m.faulty} slow"
    here = f"late: {m.honest_here} of {m.honest} honest, {m.faulty_here} of {m.faulty} slow"
    left = (_PLAIN_RULE, f"{elsewhere}; {m.open_plain} windows left open")
    right = ("Here", f"{here}; {m.open_here} windows left open")
    return _pair(case, _elsewhere(case), left, _here(case), right, xlim=(-2, 134), ylim=(-18, 80))


def fault_backlog() -> Figure:
    """Against a rule with a timer: without one a plain engine has no trouble here."""
    case = backlog()
    m = measure(case)
    elsewhere = f"{m.honest_timed} of {m.honest} events late: the clock went on while nothing was read"
    here = f"{m.honest_here} of {m.honest} events late: a heartbeat waits for what it vouches for"
    left, right = (f"{_PLAIN_RULE}; or the clock, less 60 s", elsewhere), ("Here", here)
    return _pair(case, _elsewhere(case, timer=True), left, _here(case), right, by_entry=True)


def fault_silent() -> Figure:
    """Nothing comes but heartbeats."""
    case = silent()
    m = measure(case)
    last = case.here().results[-1]
    at_s = case.steps[last["step"]].said.at_ms // SECOND
    elsewhere = f"{m.open_plain} windows left open: nothing moves the watermark"
    here = f"{m.open_here} windows left open: the heartbeat of second {at_s} closes the last"
    left, right = (_PLAIN_RULE, elsewhere), ("Here", here)
    return _pair(case, _elsewhere(case), left, _here(case), right, xlim=(-2, 110), ylim=(-8, 56))


def fault_all_slow() -> Figure:
    """Two definitions: the defaults find nearly all of it late, a patient frontier none of it."""
    case, patient = all_slow(), all_slow_patient()
    m, calm = measure(case), measure(patient)
    hasty = f"{m.faulty_here} of {m.faulty} events late: they are behind the frontier less 60 s"
    late = f"{calm.faulty_here} of {calm.faulty} events late; in silence windows wait 15 minutes"
    left, right = ("Here, with the defaults", hasty), ("Here, max_behind_ms = 900_000", late)
    return _pair(case, _here(case), left, _here(patient), right, xlim=(-8, 488), ylim=(-680, 460))


# ------------------------------------------------------------------------------------------------------------ all of it

PICTURES: Final[dict[str, Callable[[], Figure]]] = {
    "watermark": watermark,
    "frames": frames,
    "corrected": corrected,
    "late": late,
    "early": early,
    "fault_day_ahead": fault_day_ahead,
    "fault_slow": fault_slow,
    "fault_backlog": fault_backlog,
    "fault_silent": fault_silent,
    "fault_all_slow": fault_all_slow,
}


def table() -> list[str]:
    """The lines of the table of windows.md: what was measured of each case."""
    rules = "plain rule / with a timer / here"
    lines = [f"| case | honest events late: {rules} | others late | windows left open |", "|---|---|---|---|"]
    for case in cases():
        m = measure(case)
        honest = f"{m.honest_plain} / {m.honest_timed} / {m.honest_here}, of {m.honest}" if m.honest else "none there"
        faulty = f"{m.faulty_plain} / {m.faulty_timed} / {m.faulty_here}, of {m.faulty}" if m.faulty else "none there"
        lines.append(f"| {case.title} | {honest} | {faulty} | {m.open_plain} / {m.open_timed} / {m.open_here} |")
    return lines


def result() -> dict[str, Any]:
    """A result as windows.md shows it: the second window of an honest source beside one that is a day ahead."""
    definition = WindowDefinition("source_10s", 10 * _S, functions=tuple(Function))
    found = fold(day_ahead().steps, definition).results
    shown = next(one for one in found if one["key"] == HONEST[0] and _starts_s(one) == 10)  # noqa: PLR2004 - see above
    return {name: value for name, value in shown.items() if name != "step"}


def report() -> dict[str, Any]:
    """The first count of late events of the source that is a day ahead."""
    return {name: value for name, value in day_ahead().here().late[0].items() if name != "step"}


def draw(folder: str, form: str = "svg") -> None:
    """Write all of them."""
    for name, picture in {**PICTURES, **CLOCK_PICTURES}.items():
        with rc_context(STYLE):
            nameless = {"Date": None, "Creator": None} if form == "svg" else None
            picture().savefig(f"{folder}/{name}.{form}", metadata=nameless, dpi=110)


if __name__ == "__main__":
    draw(*sys.argv[1:] or [FOLDER])
