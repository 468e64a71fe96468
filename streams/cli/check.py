"""`driftledger check`: what the folds said, computed again in another way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import BadInputError
from streams.cli.context import WRONG
from streams.cli.listing import Listing
from streams.cli.output import Output, OutputOption, emit
from streams.cli.progress import entries_progress
from streams.cli.ranges import PartitionOption, opened

if TYPE_CHECKING:
    from rich.progress import Progress

    from streams.aggregates_check import Range
    from streams.comparison import DefinitionCheck
    from streams.queries import Ledger

app = typer.Typer(
    cls=Listing, help="Compute results again from the raw events, and compare: aggregates.", no_args_is_help=True
)

_COLUMNS = (
    "partition", "definition", "version", "result", "windows", "results", "events", "sums", "percentiles", "late",
    "gone", "differing",
)  # fmt: skip


@app.callback()
def _group() -> None:
    """A group also while it has one command."""


@app.command()
def aggregates(
    context: typer.Context,
    window: Annotated[str | None, typer.Option(help="Only the definition of this name.")] = None,
    partition: PartitionOption = None,
    first: Annotated[
        int | None, typer.Option("--from-sequence", help="Windows whose events come from this sequence on.")
    ] = None,
    to: Annotated[int | None, typer.Option("--to-sequence", help="Events up to this sequence.")] = None,
    last: Annotated[
        str | None, typer.Option(help="Instead: back from the ledger's end by this much, as 30m, 1h or 7d.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Recompute every result with DuckDB from the raw events, and compare it with the aggregates topic.

    Final results, early ones, each revision. Counts, sums, means and variances must be equal to the last bit, exact
    percentiles too; those of a sketch lie within 1 % of the exact one. Exit code 0: equal. 1: a difference; each is
    told on stderr with both values. Lanes may go on meanwhile: what they add is not looked at.

    It reads some 30,000 events a second, the whole ledger unless a range is given, and takes 1 GB of memory and about
    300 bytes of temporary files for each event. A range compares the windows that begin in it, by the clock of the
    broker; those of events that were appended long after their local time need the whole ledger.

    windows: those that are final; events: in them; results: compared, with early ones and revisions. late: events that
    were late or ahead whose counts were compared, from the beginning only. gone: windows whose results the topic no
    longer keeps. A window whose results hold more than 50,000 values in all is compared in full in the last of them.

    Examples:

        driftledger check aggregates

        driftledger check aggregates --window source_10s --last 1h

        driftledger check aggregates --from-sequence 1 --to-sequence 1000000

        driftledger check aggregates --partition 0 --output jsonl
    """
    if last is not None and (first is not None or to is not None):
        raise BadInputError(
            "--last counts back from the end, --from-sequence and --to-sequence name a range. Give one or the other"
        )
    with opened(context) as ledger, entries_progress() as progress:
        asked = {p: _range(ledger, p, first, to, last) for p in ledger.chosen(partition)}
        checks = [check for p, of_it in asked.items() for check in _checked(ledger, p, of_it, window, progress)]
    emit((_row(check, output) for check in checks), _columns(output), output)
    if not checks:
        what = "any window" if window is None else f"a window {window!r}"
        typer.echo(f"nothing to compare: no definition of {what} was in force there", err=True)
    for check in checks:
        if check.passed_over is not None:
            text = f"partition {check.partition}, window {check.definition}: passed over, {check.passed_over}"
            typer.echo(f"{text}. Check without a range", err=True)
        for difference in check.differences:
            typer.echo(f"{difference}", err=True)
        if check.differing > len(check.differences):
            more = check.differing - len(check.differences)
            typer.echo(f"partition {check.partition}, window {check.definition}: {more} more differences", err=True)
    if any(check.differing for check in checks):
        raise typer.Exit(WRONG)


def _range(ledger: Ledger, partition: int, first: int | None, to: int | None, last: str | None) -> Range:
    from streams.aggregates_check import Range, duration_ms

    if last is not None:
        back_ms, tail = duration_ms(last), ledger.tail(partition)
        return Range(1 if tail is None else ledger.sequence_since(partition, tail.authority_ms - back_ms))
    asked = Range(*(number for number in (first,) if number is not None))
    return asked if to is None else asked._replace(last=to)


def _checked(
    ledger: Ledger, partition: int, asked: Range, window: str | None, progress: Progress
) -> list[DefinitionCheck]:
    from streams.aggregates_check import check_partition

    bar = progress.add_task(f"partition {partition}", total=None)
    return check_partition(
        ledger, partition, asked, window, lambda done, total: progress.update(bar, completed=done, total=total)
    )


def _columns(output: Output) -> tuple[str, ...]:
    return _COLUMNS if output is Output.TABLE else (*_COLUMNS, "differences")


def _row(check: DefinitionCheck, output: Output) -> dict[str, Any]:
    row = {name: getattr(check, name) for name in _COLUMNS if name != "result"}
    row["result"] = "different" if check.differing else "equal" if check.results else "nothing yet"
    if check.passed_over is not None:
        row["result"] = "passed over"
    if output is not Output.TABLE:
        row["differences"] = [difference._asdict() for difference in check.differences]
    return row
