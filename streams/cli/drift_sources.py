"""`driftledger drift sources`: where each clock is, how fast it runs, and how stable it was."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import BadInputError
from streams.cli.output import Output, OutputOption, emit
from streams.cli.ranges import PartitionOption, SourceOption, opened, span_of

if TYPE_CHECKING:
    from streams.source_clock import SourceClock
    from streams.source_clocks import Stability

_DAY_MS = 86_400_000
_SOURCE_COLUMNS = (
    "source", "offset_ms", "bound_ms", "skew_ppm", "skew_error_ppm", "severity", "alert", "cause", "late", "method",
    "samples", "span_s", "silent_s", "coherent_s", "disturbances",
)  # fmt: skip
_SOURCE_FIELDS = (
    *_SOURCE_COLUMNS, "step_ms", "step_at", "step_sequence", "broker_ms", "at", "partition", "last_sequence",
)  # fmt: skip
_STABILITY_COLUMNS = ("source", "tau_s", "samples", "adev", "oadev", "mdev", "tdev_s", "best")
_STABILITY_FIELDS = (*_STABILITY_COLUMNS[1:], "hdev", "ohdev", "totdev")


class Sort(enum.StrEnum):
    """The order of a list of clocks."""

    OFFSET = "offset"
    SKEW = "skew"
    BOUND = "bound"
    SOURCE = "source"


def sources(
    context: typer.Context,
    source: SourceOption = None,
    partition: PartitionOption = None,
    sort: Annotated[
        Sort, typer.Option(help="offset, skew, bound: the largest first, whatever its sign; unknown ones last.")
    ] = Sort.OFFSET,
    limit: Annotated[int, typer.Option(min=1, help="So many sources at most.")] = 50,
    stability: Annotated[
        bool,
        typer.Option("--stability", help="Also how stable each clock was: Allan deviations and the best window."),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option("--from", help="With --stability: estimates from this instant on; the last day unless given."),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List what is known of each source's clock: where it is, how fast it runs, and how long that holds.

    offset is the clock minus the authority, positive is ahead, and the truth is within the bound of it. ONE_WAY was
    found from events alone, TWO_WAY also from acknowledged round trips, which producers of driftledger tell. coherent
    is how many seconds the clock stays within 1 s at least. severity is that of the estimate, not of an event: those
    are in `driftledger drift log`. alert and cause are those of the open alert about the clock, late the severity of
    the one about the way of its events. Answered from the ledger, with a worker or without.

    Examples:

        driftledger drift sources

        driftledger drift sources --source pump-7

        driftledger drift sources --sort skew --limit 10 --output jsonl

        driftledger drift sources --source pump-7 --stability
    """
    from streams.source_clocks import source_clocks
    from streams.source_clocks import stability as stability_since

    if since is not None and not stability:
        raise BadInputError("--from is for --stability: the list is of now. Give --stability, too, or leave it out")
    begin_ms = None if since is None else span_of(since, None).first_ms
    with opened(context) as ledger:
        found = source_clocks(ledger, source=source, partition=partition)
        if not found:
            typer.echo("no source is known" if source is None else f"no source {source!r} is known", err=True)
        shown = sorted(found, key=lambda clock: clock.order(sort))[:limit]
        if begin_ms is None:
            begin_ms = max((clock.at_ms for clock in shown), default=0) - _DAY_MS
        stable = stability_since(ledger, shown, begin_ms) if stability else None
    _emit(shown, stable, output)
    if len(shown) < len(found):
        typer.echo(f"{len(shown)} of {len(found):,} sources; --limit {len(found)} lists all", err=True)
    elif source is not None:
        for clock in shown:
            typer.echo(clock.in_words(), err=True)


def _emit(shown: list[SourceClock], stable: list[list[Stability]] | None, output: Output) -> None:
    """The list; with it how stable each clock was: a table below it, or a member of each row."""
    rows = [clock.row() for clock in shown]
    if output is Output.TABLE:
        emit(rows, _SOURCE_COLUMNS, output)
    elif stable is None:
        emit(rows, _SOURCE_FIELDS, output)
    else:
        members = (
            [{field: row[field] for field in _STABILITY_FIELDS} for row in (one.row() for one in of)] for of in stable
        )
        joined = (row | {"stability": of_it} for row, of_it in zip(rows, members, strict=True))
        emit(joined, (*_SOURCE_FIELDS, "stability"), output)
    if stable is None:
        return
    told = [one.row() for of_one in stable for one in of_one]
    if told and output is Output.TABLE:
        emit(told, _STABILITY_COLUMNS, output)
    if shown and not told:
        typer.echo(
            "no source was told of three times since then; each is, once in estimate_interval_ms or 16 events", err=True
        )
