"""`driftledger windows`: the windows in force, one run over history, and a suspended one begun anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.parameters import utf8_of
from schemas.errors import BadInputError
from streams.cli.context import WRONG
from streams.cli.listing import Listing
from streams.cli.output import Output, OutputOption, emit
from streams.cli.progress import entries_progress
from streams.cli.questions import Form, FormOption, check_form
from streams.cli.ranges import PartitionOption, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

    from lifecycle.window_run import HistoryRun
    from streams.queries import Ledger
    from streams.windows import WindowDefinition

app = typer.Typer(cls=Listing, invoke_without_command=True)

_COLUMNS = ("window", "partition", "version", "kind", "size_ms", "frame", "by", "suspended")
_FIELDS = (
    "window", "partition", "version", "kind", "size_ms", "slide_ms", "frame", "by", "late", "red", "unknown",
    "functions", "percentiles", "suspended",
)  # fmt: skip
_ACTOR = "operator"


@app.callback()
def list_windows(
    context: typer.Context, partition: PartitionOption = None, output: OutputOption = Output.TABLE
) -> None:
    """Windows in force in each partition: list them, run one over history, resume a suspended one.

    version is the index of the ledger entry that put the window in force. It is told from the ledger and derive's
    snapshots, so no worker need run. To define windows, see [[window]] in driftledger.toml.

    Examples:

        driftledger windows

        driftledger windows --output jsonl
    """
    if context.invoked_subcommand is not None:
        if partition is not None or output is not Output.TABLE:
            raise BadInputError(
                "--partition and --output are of the list. A window is resumed wherever it is suspended"
            )
        return
    from streams.window_admin import read_windows

    with opened(context) as ledger:
        found = read_windows(ledger, partition)
    emit((window.row() for window in found), _COLUMNS if output is Output.TABLE else _FIELDS, output)
    if not found:
        typer.echo("no window is in force", err=True)
    for name in sorted({window.definition.name for window in found if window.suspended is not None}):
        typer.echo(f"{name} is suspended: once its cause is mended, run `driftledger windows resume {name}`", err=True)


_RUN_COLUMNS = (
    "key", "window_start", "window_end", "final", "revision", "count", "values", "near_edge", "sum", "min", "max",
    "mean", "variance", "first", "last", "percentiles", "partition",
)  # fmt: skip
_RUN_FIELDS = (
    "definition", "version", "partition", "frame", "key", "window_start", "window_end", "window_start_us",
    "window_end_us", "revision", "final", "at_index", "count", "values", "near_edge", "sum", "min", "max", "mean",
    "variance", "first", "last", "percentiles", "method", "relative_error",
)  # fmt: skip
_RUN_SPARING = frozenset({"key", "near_edge", "sum", "min", "max", "mean", "variance", "first", "last", "percentiles"})


@app.command()
def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The window, as it is in driftledger.toml, --file, or the ledger.")],
    first: Annotated[
        str | None,
        typer.Option("--from", help="Windows that begin at this instant or later: RFC 3339, or integer microseconds."),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Windows that end at this instant or earlier: likewise.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file of [[window]] tables to take the window from, not yet in any ledger.")
    ] = None,
    as_live: Annotated[
        bool, typer.Option("--as-live", help="As the ledger has had it, each version from its own entry on.")
    ] = False,
    key: Annotated[str | None, typer.Option(help="Only this key, a source or a kind.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every revision of a window, not only the last.")] = False,
    final_only: Annotated[
        bool, typer.Option("--final-only", help="Leave out windows that had not closed by the last entry.")
    ] = False,
    partition: PartitionOption = None,
    output: FormOption = Form.TABLE,
) -> None:
    """Run a window over history, all entries of archives and ledger, also of what was cut; nothing is written.

    The window is folded as a lane folds it, as if it had been in force from the first entry on: the same watermark, and
    an event that was late then is late now. So each result is to the last bit the one that live gave of a window it saw
    from its first event on. --as-live takes the definitions of the ledger instead, and has all results of live, those
    of changed versions and of incomplete windows too, long after the topic of results has forgotten them.

    Of each window the last revision is listed, in order of the windows' ends; final says that it had closed, and that
    nothing but a late event can change it. What late events were left out is told on stderr, as is up to where windows
    are closed. It reads from the first entry, about a second for a million.

    Examples:

        driftledger windows run source_10s --from 2026-01-31T00:00:00Z

        driftledger windows run hourly --file idea.toml --final-only -o jsonl

        driftledger windows run source_10s --as-live --all -o arrow > all.arrow
    """
    from schemas.instants import parse_us

    if as_live and file is not None:
        raise BadInputError("--as-live takes the window from the ledger, --file from a file. Give one or the other")
    check_form(output)
    from_us, to_us = (None if text is None else parse_us(text) for text in (first, to))
    if from_us is not None and to_us is not None and to_us < from_us:
        raise BadInputError(f"no window lies between {first} and {to}. Give --from the earlier instant")
    from lifecycle.window_run import HistoryRun

    with opened(context) as ledger, entries_progress() as progress:
        definition = None if as_live else _definition(ledger, name, file)
        runs = [HistoryRun(ledger, p, name, definition, from_us, to_us) for p in ledger.chosen(partition)]
        rows = _results(runs, progress, key, every=every, final_only=final_only)
        if output is Form.ARROW:
            from lifecycle.result_stream import write_results

            count = write_results(rows, sys.stdout.buffer)
        else:
            form = Output(output.value)
            count = emit(rows, _RUN_COLUMNS if form is Output.TABLE else _RUN_FIELDS, form, sparing=_RUN_SPARING)
    for one in runs:
        _tell(one, name)
    if not count:
        typer.echo("no window is there", err=True)
    if any(one.suspended is not None for one in runs):
        raise typer.Exit(WRONG)


def _definition(ledger: Ledger, name: str, file: Path | None) -> WindowDefinition:
    """Of a file, of the settings, or what is in force. Raises BadInputError."""
    from streams.window_admin import read_windows

    known = ledger.settings.windows if file is None else _windows_in(file)
    found = {window.name: window for window in known}
    if name not in found and file is None:
        found |= {window.definition.name: window.definition for window in read_windows(ledger)}
    if name not in found:
        where = "in driftledger.toml nor in force" if file is None else f"in {file}"
        names = ", ".join(sorted(found)) or "none"
        raise BadInputError(f"no window {name!r} is {where}; there is {names}. Name one, or give --file")
    return found[name]


def _windows_in(file: Path) -> tuple[WindowDefinition, ...]:
    """Raises BadInputError."""
    import tomllib

    from streams.window_settings import read_windows

    try:
        text = file.read_text(encoding="utf-8")
        tables = tomllib.loads(text).get("window", [])
    except (OSError, ValueError) as error:
        raise BadInputError(f"{file} cannot be read: {error}. Give a file of [[window]] tables") from error
    return read_windows(tables, text, str(file))


def _results(
    runs: list[HistoryRun], progress: Progress, key: str | None, *, every: bool, final_only: bool
) -> Iterator[dict[str, Any]]:
    for one in runs:
        bar = progress.add_task(f"partition {one.partition}", total=None)

        def tell(done: int, total: int, bar: Any = bar) -> None:
            progress.update(bar, completed=done, total=total)

        for result in one.results(every=every, progress=tell):
            if (result.final or not final_only) and key in (None, result.key):
                yield result.row()


def _tell(run: HistoryRun, name: str) -> None:
    """What became of the entries, on stderr."""
    from schemas.instants import format_us

    closed = "nowhere yet" if run.closed_us is None else f"to {format_us(run.closed_us)}"
    left_out = ", ".join(
        f"{count} {what}"
        for what, count in (("late", run.late), ("ahead", run.ahead), ("doubtful", run.doubtful))
        if count
    )
    typer.echo(
        f"partition {run.partition}: {run.entries} entries, windows closed {closed}; "
        f"events left out: {left_out or 'none'}",
        err=True,
    )
    if run.first_index > 1:
        typer.echo(
            f"partition {run.partition} begins at entry {run.first_index}: what was before is in no archive here",
            err=True,
        )
    if run.suspended is not None:
        typer.echo(f"window {name} was suspended in partition {run.partition} {run.suspended}", err=True)


@app.command()
def resume(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The suspended window.")],
    actor: Annotated[str, typer.Option(help="Who resumes it; goes into the ledger.")] = _ACTOR,
    reason: Annotated[str, typer.Option(help="Why; goes into the ledger.")] = "resumed",
) -> None:
    """Begin a suspended window anew in each partition where it is suspended, as it was defined.

    The definition is written again to the control topic with who and why, and is in force from its new entry on; the
    windows it had open are lost, events from then on are gathered again. To let it need less, change it in
    driftledger.toml instead: that begins it anew, too.

    Example:

        driftledger windows resume source_10s --actor ada --reason "it is over"
    """
    from streams.window_admin import resume

    if not actor.strip() or not reason.strip():
        raise BadInputError("a window is not resumed without a name and a reason. Give --actor and --reason some text")
    utf8_of("actor", actor), utf8_of("reason", reason)
    with opened(context) as ledger:
        written = resume(ledger, name, actor=actor, reason=reason)
    for partition, record in sorted(written.items()):
        typer.echo(f"partition {partition}: window {name} is defined again by {record}", err=True)
    typer.echo("a running worker takes it at once; without one, start `driftledger worker`", err=True)
