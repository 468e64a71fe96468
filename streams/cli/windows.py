"""`driftledger windows`: the windows in force, and a suspended one begun anew."""

from __future__ import annotations

from typing import Annotated

import typer

from lifecycle.parameters import utf8_of
from schemas.errors import BadInputError
from streams.cli.listing import Listing
from streams.cli.output import Output, OutputOption, emit
from streams.cli.ranges import PartitionOption, opened

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
    """Windows in force in each partition: list them, resume a suspended one.

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
