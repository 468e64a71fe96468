"""`driftledger sequence`: how far a ledger goes, what stands in it, and whether it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import HaltError
from streams.cli.context import WRONG
from streams.cli.listing import Listing
from streams.cli.output import Output, OutputOption, emit, emit_lines
from streams.cli.progress import entries_progress
from streams.cli.ranges import (
    DEFAULT_LAST,
    FollowOption,
    FromOption,
    LastOption,
    PartitionOption,
    ToOption,
    check_range,
    only_partition,
    opened,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

    from streams.continuity import PartitionCheck
    from streams.queries import Ledger

app = typer.Typer(cls=Listing, help="Sequence and chain of a ledger: max, range, check.", no_args_is_help=True)

_LINE_COLUMNS = ("sequence", "authority_timestamp", "source", "kind", "value", "event_id", "fault")


@app.command(name="max")
def maximum(context: typer.Context, partition: PartitionOption = None, output: OutputOption = Output.TABLE) -> None:
    """Print the last sequence of each partition, 0 for an empty one; a table ends with the total.

    A partition whose last record is no entry has none; it is told on stderr, with exit code 1.

    Examples:

        driftledger sequence max

        driftledger sequence max --output jsonl
    """
    rows: list[dict[str, Any]] = []
    broken: list[HaltError] = []
    with opened(context) as ledger:
        for p in ledger.chosen(partition):
            try:
                rows.append({"partition": p, "max_sequence": ledger.get_max_sequence(p)})
            except HaltError as error:
                rows.append({"partition": p, "max_sequence": None})
                broken.append(error)
    if output is Output.TABLE:
        total = None if broken else sum(row["max_sequence"] for row in rows)
        rows.append({"partition": "total", "max_sequence": total})
    emit(rows, ("partition", "max_sequence"), output)
    for found in broken:
        typer.echo(f"partition {found.partition} broken, {found.code}: {found.detail}. {found.remedy}", err=True)
    if broken:
        raise typer.Exit(WRONG)


@app.command(name="range")
def list_range(
    context: typer.Context,
    partition: Annotated[
        int | None, typer.Option("--partition", "-p", help="Which; may be left out where there is one.")
    ] = None,
    first: FromOption = None,
    to: ToOption = None,
    last: LastOption = None,
    follow: FollowOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the events of a range of sequences, both ends included, in order.

    With --follow it goes on with the events that come, a line each. An event that could not be decoded is shown with
    its fault; jsonl and csv have every field, bytes that are not UTF-8 as base64.

    Examples:

        driftledger sequence range --partition 0 --last 20

        driftledger sequence range --partition 0 --from 1 --to 1000 -o jsonl

        driftledger sequence range --partition 0 --follow --output jsonl
    """
    from streams.values import EVENT_COLUMNS, EVENT_FIELDS

    check_range(last, first, to, follow=follow)
    with opened(context) as ledger:
        chosen = only_partition(ledger, partition)
        if follow:
            start = _start(ledger, chosen, ledger.get_max_sequence(chosen), last) if first is None else first
            emit_lines(ledger.follow_events(chosen, start), _LINE_COLUMNS, EVENT_FIELDS, output)
            return
        highest = ledger.get_max_sequence(chosen)
        rows = _range(ledger, chosen, highest, first, to, last)
        if not emit(rows, EVENT_COLUMNS if output is Output.TABLE else EVENT_FIELDS, output):
            begins = ledger.first(chosen).sequence
            there = (
                f"has the sequences {begins} to {highest}" if highest else "is empty; `driftledger status` tells why"
            )
            typer.echo(f"nothing is in that range: partition {chosen} {there}", err=True)


def _start(ledger: Ledger, partition: int, highest: int, last: int | None) -> int:
    """The first of the last sequences that are there."""
    return max(ledger.first(partition).sequence, highest - (last or DEFAULT_LAST) + 1)


def _range(
    ledger: Ledger, partition: int, highest: int, first: int | None, to: int | None, last: int | None
) -> Iterator[dict[str, Any]]:
    if first is None and to is None:
        if highest == 0:
            return iter(())
        first = _start(ledger, partition, highest, last)
    start = 1 if first is None else first
    return ledger.get_events_by_sequence_range(partition, start, max(highest, start) if to is None else to)


@app.command()
def check(
    context: typer.Context,
    partition: PartitionOption = None,
    first: Annotated[
        int | None, typer.Option("--from", help="Begin at this sequence; at GENESIS unless given.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Recompute numbers and chain of the ledger, and compare it with the input as far as that is kept.

    Where its first entries were cut it begins behind them, and says so.

    Exit code 0: whole. 1: a gap, a broken chain or an entry that is not its input record; each is told on stderr with
    where, what and what to do.

    Examples:

        driftledger sequence check

        driftledger sequence check --partition 2 --from 1000000 --output jsonl
    """
    with opened(context) as ledger, entries_progress() as progress:
        checks = [_checked(ledger, p, first, progress) for p in ledger.chosen(partition)]
    emit((_check_row(result, output) for result in checks), _CHECK_COLUMNS, output)
    for result in checks:
        if result.note:
            typer.echo(f"partition {result.partition}: {result.note}", err=True)
        for finding in result.findings:
            typer.echo(f"{finding}", err=True)
    if any(result.findings for result in checks):
        raise typer.Exit(WRONG)


_CHECK_COLUMNS = (
    "partition", "result", "first_index", "last_index", "max_sequence", "entries", "compared_with_input",
    "gone_from_input", "findings", "chain_head",
)  # fmt: skip


def _checked(ledger: Ledger, partition: int, first: int | None, progress: Progress) -> PartitionCheck:
    from streams.continuity import check_partition

    bar = progress.add_task(f"partition {partition}", total=None)
    return check_partition(
        ledger,
        partition,
        1 if first is None else first,
        lambda done, total: progress.update(bar, completed=done, total=total),
    )


def _check_row(result: PartitionCheck, output: Output) -> dict[str, Any]:
    head = result.head
    return {
        "partition": result.partition,
        "result": "broken" if result.findings else "whole" if head else "empty",
        "first_index": result.first_index,
        "last_index": head.index if head else 0,
        "max_sequence": head.sequence if head else 0,
        "entries": result.entries,
        "compared_with_input": result.compared,
        "gone_from_input": result.gone,
        "findings": [finding._asdict() for finding in result.findings]
        if output is Output.JSONL
        else len(result.findings),
        "chain_head": head.chain_hash if head else None,
    }
