"""What `driftledger up` shows while it runs: a live picture on a terminal, lines where there is none."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from schemas.instants import NS_PER_MS, NS_PER_S, format_ms, format_us
from streams.cli.output import printable
from streams.overview import AlertBoard, Health, Hot, HotAnswer
from streams.window_board import ClosedWindow, WindowBoard, merged

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from streams.up import AlertNews

#: Between two status lines where there is no terminal.
PLAIN_INTERVAL_NS = 5 * NS_PER_S
#: Lines of the live picture that are no alerts, with one to spare for the cursor.
_FRAME_LINES = 11
_ALERTS_MIN = 3
NOTHING_SERVED = "the worker serves no partition yet"
_STYLES = {"RED": "bold red", "YELLOW": "yellow", "GREEN": "green"}
_HOT_STYLES = {"level": "green", "behind": "yellow", "unavailable": "bold red"}
#: Nobody counts sources that never had an alert, but for the fleet's.
_NAMES = {"RED": "RED", "YELLOW": "YELLOW", "GREEN": "GREEN of the fleet"}
_TIME_OF_DAY = slice(11, 19)
#: Sources that are named as late, and as ahead, the worst first.
_LATE_SHOWN = 3
#: Locks that are named; there may be a thousand in a partition.
_LOCKS_SHOWN = 3
#: From here on a number is shown without decimals.
_LARGE = 1_000


@dataclass(slots=True)
class Overview:
    """What is known now.

    sources: those of the fleet. partitions: of the ledger, also those that other workers serve. events_per_s: None
    until it is known. health: None while the worker does not answer. hot: what the hot tier answered last.
    """

    sources: Collection[str] = ()
    partitions: int = 0
    events_per_s: float | None = None
    health: Health | None = None
    board: AlertBoard = field(default_factory=AlertBoard)
    windows: WindowBoard = field(default_factory=WindowBoard)
    hot: HotAnswer | None = None

    def severities(self) -> list[tuple[str, int]]:
        """Sources with an open alert by severity, worst first; GREEN: those of the fleet that have none."""
        counts = self.board.severities(self.sources)
        return [(severity, counts[severity]) for severity in _STYLES if self.sources or severity != "GREEN"]

    def part(self) -> str:
        """How much of the ledger the worker serves, where that is not all of it: rate and sequences are of that."""
        served = len(self.health.partitions) if self.health else 0
        return f" ({served} of {self.partitions} partitions here)" if 0 < served < self.partitions else ""

    def closed_windows(self) -> list[ClosedWindow]:
        """The window that closed last in each partition, of those in force."""
        return self.windows.closed({window.name for window in self.health.windows} if self.health else ())

    def troubles(self) -> list[str]:
        """What keeps the ledger from being whole, a line each."""
        if self.health is None:
            return ["the worker does not answer"]
        halts = [f"partition {h.partition} HALTED, {h.code}: {h.detail}. {h.remedy}" for h in self.health.halts]
        locked = [lock.told for lock in self.health.locks[:_LOCKS_SHOWN]]
        if len(self.health.locks) > _LOCKS_SHOWN:
            locked.append(f"and {len(self.health.locks) - _LOCKS_SHOWN} more locks: see `driftledger lock status`")
        cold = [
            f"the hot tier of partition {state.partition} is unavailable: {state.hot.error}"
            for state in self.health.partitions
            if state.hot is not None and state.hot.standing == "unavailable"
        ]
        suspended = [
            f"window {name} is suspended in partition {partition}: {why}. See `driftledger windows --help`"
            for name, partition, why in self.windows.suspended()
        ]
        return [*halts, *locked, *self.health.troubles, *cold, *suspended]

    def left_out(self) -> list[str]:
        """Whose events are not in their windows, and why; a line each."""
        sources = self.windows.late_sources()
        reasons = {"late": "late", "ahead": "too far ahead, in no window", "doubtful": "doubtful, in no window"}
        counts = {why: [(one.source, one.definition, getattr(one, why)) for one in sources] for why in reasons}
        return [line for why, how in reasons.items() for line in _named(how, [one for one in counts[why] if one[2]])]


def _named(how: str, counts: list[tuple[str, str, int]]) -> list[str]:
    """Source, definition and events of each, as a line; none for none."""
    if not counts:
        return []
    worst = sorted(counts, key=lambda one: -one[2])
    shown = ", ".join(f"{source} ({count:,} events, {name})" for source, name, count in worst[:_LATE_SHOWN])
    rest = f" and {len(worst) - _LATE_SHOWN} more" if len(worst) > _LATE_SHOWN else ""
    return [f"{how}: {shown}{rest}"]


class View(Protocol):
    """Shows an overview as it changes; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, overview: Overview, news: list[AlertNews], now_ns: int) -> None:
        """Show it as it is at now_ns (monotonic); news: the records that came since the last call."""
        ...


class PlainView:
    """A line for each new alert record, one with the state every few seconds, and some when windows have closed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._due_ns: int | None = None
        self._told = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def show(self, overview: Overview, news: list[AlertNews], now_ns: int) -> None:
        """Write what is new."""
        for alert, appended_ms, fresh in news:
            if fresh:
                self._line(f"{format_ms(appended_ms)[_TIME_OF_DAY]}  {alert['state']:7}  {alert['text']}")
        if self._due_ns is None or now_ns >= self._due_ns:
            self._due_ns = now_ns + PLAIN_INTERVAL_NS
            self._line(status_line(overview))
            self._tell_windows(overview)
            for trouble in overview.troubles():
                self._line(f"! {trouble}")

    def _tell_windows(self, overview: Overview) -> None:
        """Once a window has closed, and who was left out, and what is hot."""
        closed = window_line(overview)
        if closed and closed != self._told:
            self._told = closed
            for line in filter(None, (closed, *overview.left_out(), hot_line(overview))):
                self._line(line)

    def _line(self, text: str) -> None:
        self._console.print(Text(printable(text)), soft_wrap=True)


class LiveView:
    """A picture that is redrawn in place, as high as the terminal allows."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def show(self, overview: Overview, news: list[AlertNews], now_ns: int) -> None:
        """Redraw."""
        del news, now_ns
        lines = self._console.height - _FRAME_LINES - len(overview.troubles()) - len(_notes(overview))
        rows = len(_window_rows(overview))
        with_windows = lines - rows >= _ALERTS_MIN
        alerts_max = max(lines - rows * with_windows, _ALERTS_MIN)
        self._live.update(picture(overview, alerts_max, with_windows=with_windows), refresh=True)


def status_line(overview: Overview) -> str:
    """Everything but the alerts' texts in a line."""
    partitions = overview.health.partitions if overview.health else ()
    if not partitions:
        return NOTHING_SERVED
    sequences = " ".join(f"{state.partition}:{state.sequence}" for state in partitions)
    severities = ", ".join(f"{count} {_NAMES[severity]}" for severity, count in overview.severities())
    rate = "-" if overview.events_per_s is None else f"{overview.events_per_s:.0f}"
    return (
        f"{rate} events/s{overview.part()} | sequence {sequences} | sources {severities} | "
        f"alerts {len(overview.board)} open, {overview.board.closed} closed"
    )


def window_line(overview: Overview) -> str:
    """The windows that closed last, of all partitions as one; nothing where none has."""
    last = merged(overview.closed_windows())
    if last is None:
        return ""
    numbers = [f"{name} {_shown(number)}" for name, number in last.numbers.items()]
    apart = [f"{name} {' '.join(map(_shown, found))}" for name, found in last.apart.items()]
    by = (
        f"; by partition: {', '.join(apart)}" if apart and last.partitions > 1 else "".join(f", {one}" for one in apart)
    )
    where = f"{last.definition} from {format_us(last.start_us)[_TIME_OF_DAY]}"
    return f"{where}: {', '.join([f'{last.events:,} events', *numbers])}{by}"


def hot_line(overview: Overview) -> str:
    """What the hot tier answered last; nothing where it was not asked."""
    if overview.hot is None:
        return ""
    events, mean, took_ns = overview.hot
    return f"{events:,} events are hot; mean of the last minute {_shown(mean)}, asked in {took_ns / NS_PER_MS:.1f} ms"


def _shown(number: float | None) -> str:
    """A number with four digits, or without decimals."""
    if number is None:
        return "-"
    return f"{number:,.0f}" if _LARGE <= abs(number) < _LARGE**5 else f"{number:.4g}"


def picture(overview: Overview, alerts_max: int, *, with_windows: bool = True) -> RenderableType:
    """The live picture with at most so many alerts; the numbers of windows where there is room."""
    rate = "-" if overview.events_per_s is None else f"{overview.events_per_s:,.0f}"
    headline = Text.assemble((rate, "bold"), " events/s", (overview.part(), "dim"), "     sources:")
    for severity, count in overview.severities():
        headline.append(f" {count} {_NAMES[severity]}", _STYLES[severity])
    board = overview.board
    headline.append(f"     alerts: {len(board)} open, {board.closed} closed")
    parts: list[RenderableType] = [Text(), headline, Text(), _partitions(overview, with_windows=with_windows)]
    parts += [Text(printable(note), no_wrap=True, overflow="ellipsis") for note in _notes(overview)]
    parts += [Text(f"! {printable(trouble)}", "bold red") for trouble in overview.troubles()]
    shown = board.newest(alerts_max)
    parts += [Text(), Text("open alerts, the newest first", "bold") if shown else Text("no open alerts", "dim")]
    parts += [
        Text.assemble(
            (format_ms(alert.changed_ms)[_TIME_OF_DAY], "dim"),
            (f"  {alert.subject.lower():6}  ", "dim"),
            (printable(alert.text), _STYLES[alert.severity]),
            no_wrap=True,
            overflow="ellipsis",
        )
        for alert in shown
    ]
    if len(board) > len(shown):
        parts.append(Text(f"and {len(board) - len(shown)} more", "dim"))
    return Group(*parts)


def _notes(overview: Overview) -> list[str]:
    """Lines between partitions and alerts, with what parts them."""
    notes = [*overview.left_out(), *filter(None, [hot_line(overview)])]
    return ["", *notes] if notes else []


def _partitions(overview: Overview, *, with_windows: bool) -> RenderableType:
    partitions = overview.health.partitions if overview.health else ()
    if not partitions:
        return Text(NOTHING_SERVED, "dim")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=False)
    table.add_column(style="dim")
    for _ in partitions:
        table.add_column(justify="right")
    table.add_row("partition", *(str(state.partition) for state in partitions))
    table.add_row("sequence", *(f"{state.sequence:,}" for state in partitions))
    table.add_row("lane", *(Text(s.state, "green" if s.state == "live" else "bold red") for s in partitions))
    table.add_row("hot tier", *(_standing(state.hot) for state in partitions))
    for row in _window_rows(overview) if with_windows else ():
        table.add_row(*row)
    return table


def _standing(hot: Hot | None) -> Text:
    return Text("-") if hot is None else Text(str(hot), _HOT_STYLES[hot.standing])


def _window_rows(overview: Overview) -> list[list[str]]:
    """Of each partition the window that closed last: when it began, its events, its numbers."""
    closed = {window.partition: window for window in overview.closed_windows()}
    partitions = overview.health.partitions if overview.health else ()
    windows = [closed.get(state.partition) for state in partitions]
    last = next((window for window in windows if window is not None), None)
    if last is None:
        return []
    return [
        [],
        [f"{last.definition} from", *("-" if w is None else format_us(w.start_us)[_TIME_OF_DAY] for w in windows)],
        ["events", *("-" if w is None else f"{w.events:,}" for w in windows)],
        *([name, *("-" if w is None else _shown(w.numbers.get(name)) for w in windows)] for name in last.numbers),
    ]
