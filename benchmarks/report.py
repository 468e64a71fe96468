"""Figures for people and for programs: a table, what follows from comparing its rows, and JSON lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from rich.box import SIMPLE
from rich.table import Table

from benchmarks.asked import AskedFigures
from benchmarks.cases import Asked, Name, Paced, Preloaded
from benchmarks.figures import BUCKET_US
from benchmarks.paced import PacedFigures
from benchmarks.preloaded import PreloadedFigures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.cases import Case

    Figures = PreloadedFigures | PacedFigures | AskedFigures
    Row = tuple[str, ...]

_NONE: Final = "-"
_PRELOADED_COLUMNS: Final = (
    "case", "measured", "judge", "sources", "lanes", "batch", "entries/txn", "events/s", "first half",
    "second half", "client us/ev", "broker us/ev", "others %", "peak MB", "green %",
)  # fmt: skip
_PACED_COLUMNS: Final = (
    "case", "lanes", "sent/s", "seconds", "entries/txn", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms", "backlog",
    "growth/s", "lag flat", "client us/ev", "broker us/ev", "others %", "peak MB", "MB/min",
)  # fmt: skip
_ASKED_COLUMNS: Final = ("case", "what", "figure", "peak MB")
#: Rates are shown without decimals, times with.
_WHOLE_FROM: Final = 1_000
LEGEND: Final = (
    "events/s: first to last append to the ledger; halves: of the events. client: CPU of the measured process, from "
    "the moment the events are visible. others: what everything else took of the machine, this program and the sender "
    "of the paced cases included. peak: RSS. Latency: produced to readable under read_committed, to "
    f"{BUCKET_US / 1_000} ms."
)


class Measured(NamedTuple):
    """A case and what it showed."""

    case: Case
    figures: Figures


def tables(measured: Sequence[Measured]) -> list[Table]:
    """One for the preloaded cases, one for the paced and one for the asked, those that there are."""
    preloaded = [
        _preloaded_row(c, f) for c, f in measured if isinstance(c, Preloaded) and isinstance(f, PreloadedFigures)
    ]
    asked = [
        (case.name, what, f"{figure:,.2f}" if figure < _WHOLE_FROM else f"{figure:,.0f}", f"{figures.rss_peak_mb:,.0f}")
        for case, figures in measured
        if isinstance(case, Asked) and isinstance(figures, AskedFigures)
        for what, figure in figures.found.items()
    ]
    paced = [_paced_row(c, f) for c, f in measured if isinstance(c, Paced) and isinstance(f, PacedFigures)]
    return [
        _table(title, columns, rows)
        for title, columns, rows in (
            ("catch-up over events that lie ready", _PRELOADED_COLUMNS, preloaded),
            ("events at a rate", _PACED_COLUMNS, paced),
            ("questions (ms, median) and puts (events/s)", _ASKED_COLUMNS, asked),
        )
        if rows
    ]


def ratios(measured: Sequence[Measured]) -> list[str]:
    """What the rows say about one another, by batch size."""
    rates = {
        (case.name, case.batch_events): figures.per_s
        for case, figures in measured
        if isinstance(case, Preloaded) and isinstance(figures, PreloadedFigures)
    }
    lines = []
    for above, below, text in (
        (Name.SOURCES, Name.WORKER, "worker, 100,000 sources against 1,000"),
        (Name.WHOLE_SOURCES, Name.WHOLE, "everything, 100,000 sources against 1,000"),
        (Name.WHOLE, Name.WORKER, "everything against the worker without windows and hot store"),
        (Name.WORKER, Name.LANES, "worker against its lanes alone"),
        (Name.LANES, Name.SEQUENCE, "lanes with judge against without"),
    ):
        for batch in sorted({size for name, size in rates if name == above}):
            other = rates.get((below, batch))
            if other:
                lines.append(f"{text}, batches of {batch:,}: {rates[above, batch] / other:.2f}")
    return lines


def line(measured: Measured, facts: Mapping[str, Any], at: str) -> bytes:
    """One JSON line: case, figures, machine, when."""
    case = {name: getattr(measured.case, name) for name in measured.case.__dataclass_fields__}
    figures = {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in measured.figures._asdict().items()
    }
    return orjson.dumps(
        {"case": case, "figures": figures, "machine": dict(facts), "at": at}, option=orjson.OPT_APPEND_NEWLINE
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in {"case", "measured", "judge", "what"} else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _preloaded_row(case: Preloaded, figures: PreloadedFigures) -> Row:
    return (
        case.name,
        str(case.subject),
        "yes" if case.judged else "no",
        f"{case.sources:,}",
        str(case.lanes),
        f"{case.batch_events:,}",
        _maybe(figures.entries_per_transaction, ",.0f"),
        f"{figures.per_s:,.0f}",
        _maybe(figures.first_half_per_s, ",.0f"),
        _maybe(figures.second_half_per_s, ",.0f"),
        f"{figures.client_us:.2f}",
        _maybe(figures.broker_us, ".2f"),
        _maybe(figures.others_percent, ".0f"),
        f"{figures.rss_peak_mb:,.0f}",
        _maybe(figures.green_percent, ".1f"),
    )


def _paced_row(case: Paced, figures: PacedFigures) -> Row:
    return (
        case.name,
        str(case.lanes),
        f"{figures.rate:,.0f}",
        f"{case.seconds:,}",
        f"{figures.entries_per_transaction:,.0f}",
        f"{figures.p50_ms:.1f}",
        f"{figures.p95_ms:.1f}",
        f"{figures.p99_ms:.1f}",
        f"{figures.p99_9_ms:.1f}",
        f"{figures.backlog_mean:,.0f}",
        f"{figures.backlog_slope_per_s:,.1f}",
        "yes" if figures.lag_flat else "NO",
        f"{figures.client_us:.2f}",
        _maybe(figures.broker_us, ".2f"),
        f"{figures.others_percent:.0f}",
        f"{figures.rss_peak_mb:,.0f}",
        _maybe(figures.rss_slope_mb_per_min, ".2f"),
    )


def _maybe(value: float | None, form: str) -> str:
    return _NONE if value is None else format(value, form)
