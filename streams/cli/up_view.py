"""What `driftledger up` shows while it runs: a live picture on a terminal, lines where there is none."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from schemas.instants import NS_PER_S, format_ms
from streams.overview import AlertBoard, Health

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from streams.up import AlertNews

#: Between two status lines where there is no terminal.
PLAIN_INTERVAL_NS = 5 * NS_PER_S
#: Lines of the live picture that are no alerts, with one to spare for the cursor.
_FRAME_LINES = 10
_ALERTS_MIN = 3
NOTHING_SERVED = "the worker serves no partition yet"
_STYLES = {"RED": "bold red", "YELLOW": "yellow", "GREEN": "green"}
#: Nobody counts sources that never had an alert, but for the fleet's.
_NAMES = {"RED": "RED", "YELLOW": "YELLOW", "GREEN": "GREEN of the fleet"}
_TIME_OF_DAY = slice(11, 19)


@dataclass(slots=True)
class Overview:
    """What is known now.

    sources: those of the fleet. partitions: of the ledger, also those that other workers serve. events_per_s: None
    until it is known. health: None while the worker does not answer.
    """

    sources: Collection[str] = ()
    partitions: int = 0
    events_per_s: float | None = None
    health: Health | None = None
    board: AlertBoard = field(default_factory=AlertBoard)

    def severities(self) -> list[tuple[str, int]]:
        """Sources with an open alert by severity, worst first; GREEN: those of the fleet that have none."""
        counts = self.board.severities(self.sources)
        return [(severity, counts[severity]) for severity in _STYLES if self.sources or severity != "GREEN"]

    def part(self) -> str:
        """How much of the ledger the worker serves, where that is not all of it: rate and sequences are of that."""
        served = len(self.health.partitions) if self.health else 0
        return f" ({served} of {self.partitions} partitions here)" if 0 < served < self.partitions else ""

    def troubles(self) -> list[str]:
        """What keeps the ledger from being whole, a line each."""
        if self.health is None:
            return ["the worker does not answer"]
        halts = [f"partition {h.partition} HALTED, {h.code}: {h.detail}. {h.remedy}" for h in self.health.halts]
        return [*halts, *self.health.troubles]


class View(Protocol):
    """Shows an overview as it changes; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, overview: Overview, news: list[AlertNews], now_ns: int) -> None:
        """Show it as it is at now_ns (monotonic); news: the records that came since the last call."""
        ...


class PlainView:
    """A line for each new alert record, and one with everything else every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._due_ns: int | None = None

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
            for trouble in overview.troubles():
                self._line(f"! {trouble}")

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


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
        alerts_max = max(self._console.height - _FRAME_LINES - len(overview.troubles()), _ALERTS_MIN)
        self._live.update(picture(overview, alerts_max), refresh=True)


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


def picture(overview: Overview, alerts_max: int) -> RenderableType:
    """The live picture with at most so many alerts."""
    rate = "-" if overview.events_per_s is None else f"{overview.events_per_s:,.0f}"
    headline = Text.assemble((rate, "bold"), " events/s", (overview.part(), "dim"), "     sources:")
    for severity, count in overview.severities():
        headline.append(f" {count} {_NAMES[severity]}", _STYLES[severity])
    board = overview.board
    headline.append(f"     alerts: {len(board)} open, {board.closed} closed")
    parts: list[RenderableType] = [Text(), headline, Text(), _partitions(overview)]
    parts += [Text(f"! {trouble}", "bold red") for trouble in overview.troubles()]
    shown = board.newest(alerts_max)
    parts += [Text(), Text("open alerts, the newest first", "bold") if shown else Text("no open alerts", "dim")]
    parts += [
        Text.assemble(
            (format_ms(alert.changed_ms)[_TIME_OF_DAY], "dim"),
            "  ",
            (alert.text, _STYLES[alert.severity]),
            no_wrap=True,
            overflow="ellipsis",
        )
        for alert in shown
    ]
    if len(board) > len(shown):
        parts.append(Text(f"and {len(board) - len(shown)} more", "dim"))
    return Group(*parts)


def _partitions(overview: Overview) -> RenderableType:
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
    return table
