"""`python -m benchmarks`: measure driftledger on this machine. Tables on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads annotations when the program runs
from typing import Annotated

import typer

from benchmarks.cases import (
    FULL_SECONDS,
    FULL_SPREAD_S,
    HOT_ROWS,
    PARTITIONS,
    QUICK_EVENTS,
    QUICK_SECONDS,
    QUICK_WARM_S,
    WARM_S,
    Name,
    plan,
)
from benchmarks.command import BarsOption, status_of, tell
from streams.cli.context import WRONG

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def benchmarks(
    *,
    case: Annotated[
        list[Name] | None, typer.Option(help="Only this case; may be given several times. All of them unless given.")
    ] = None,
    events: Annotated[int, typer.Option(min=1, help="Events of a preloaded case.")] = 3_000_000,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            min=1, max=100_000, help="Entries of a transaction, at most; several times for several. 2000, 5000."
        ),
    ] = None,
    rate: Annotated[int, typer.Option(min=100, help="Events per second of the paced cases.")] = 50_000,
    seconds: Annotated[int, typer.Option(min=1, help="Length of the paced case.")] = 30,
    lanes: Annotated[
        int, typer.Option(min=1, max=PARTITIONS, help=f"Lanes that share the {PARTITIONS} partitions.")
    ] = PARTITIONS,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help=f"Paced cases for {FULL_SECONDS} s, the cases with windows over {FULL_SPREAD_S} s."
        ),
    ] = False,
    spread: Annotated[
        int, typer.Option(min=0, max=800, help="Seconds that the local times span in the cases with windows.")
    ] = 0,
    memory_minutes: Annotated[
        int, typer.Option(min=0, help="Add a paced case of so many minutes, for the growth of memory: 10 in a soak.")
    ] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Everything small, to see that it works; its figures mean nothing.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Append one JSON line for each case to this file.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the broker keeps its data meanwhile; the system's temporary folder.")
    ] = None,
    bootstrap: Annotated[
        str | None, typer.Option(help="Measure with this Kafka; the broker's CPU time is then not known.")
    ] = None,
    bars_too: BarsOption = False,
) -> None:
    """Measure rate, cost, memory and latency; the ledger's contents are checked before a figure counts.

    Cases: sequence (lanes alone, without judge: the worker has no switch for it), lanes (with judge, without Faust),
    worker (the product without windows and hot store, 1,000 sources), sources (likewise, 100,000 sources), whole
    (everything: windows of 10 s and the hot store too), whole-sources (likewise, 100,000 sources), backfill (lanes
    whose windows are behind), paced (latency), closings (from the event that closes a window of 1 s to its result),
    queries (a hot store of two million rows), put (events through the API), memory (everything; only with
    --memory-minutes).

    Examples:

        python -m benchmarks

        python -m benchmarks --quick

        python -m benchmarks --case worker --case sources --batch 5000 --events 6000000

        python -m benchmarks --case paced --full --output figures.jsonl

        python -m benchmarks --case memory --memory-minutes 10

        python -m benchmarks --batch 5000 --full --memory-minutes 10 --bars
    """  # noqa: D412, D413 - laid out for the terminal
    batches = batch or ([5_000] if quick else [2_000, 5_000])
    length_s = QUICK_SECONDS if quick else FULL_SECONDS if full else seconds
    cases = plan(
        case or [],
        events=QUICK_EVENTS if quick else events,
        batches=batches,
        rate=rate,
        seconds=length_s,
        warm_s=QUICK_WARM_S if quick else WARM_S,
        memory_minutes=memory_minutes,
        spread_s=FULL_SPREAD_S if full else spread,
        asked=QUICK_EVENTS if quick else HOT_ROWS,
        lanes=lanes,
    )
    from benchmarks.run import run  # noqa: PLC0415 - Kafka, numba and Faust, which --help does without

    measured = run(cases, output=output, data_dir=data_dir, bootstrap=bootstrap, warm_up=not quick)
    if bars_too:
        from benchmarks.bars import bars  # noqa: PLC0415 - as above

        found = bars(measured)
        if not found:
            typer.echo("no bar is about these cases: preloaded ones are judged with --batch 5000", err=True)
        if not tell(found) or not found:
            raise typer.Exit(WRONG)


def main(arguments: list[str]) -> int:
    """See `status_of`."""
    return status_of(app, arguments, "python -m benchmarks")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
