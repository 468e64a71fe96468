"""`driftledger halts`: partitions that stopped because going on would lie; list them, lift one."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.errors import BadInputError
from streams.cli.listing import Listing
from streams.cli.output import Output, OutputOption, emit
from streams.cli.ranges import opened

app = typer.Typer(cls=Listing, help="Halted partitions: list, lift.", no_args_is_help=True)

_COLUMNS = ("partition", "lane", "code", "halted_at", "detail", "remedy")


@app.command(name="list")
def list_halts(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List the durable halts: why each partition stopped and what to do.

    Examples:

        driftledger halts list

        driftledger halts list --output jsonl
    """
    from streams.halts import read_halts

    with opened(context) as ledger:
        found = read_halts(ledger)
    emit((halt.row() for halt in found), _COLUMNS if output is Output.TABLE else (*_COLUMNS, "halted_at_us"), output)
    if not found:
        typer.echo("no partition is halted", err=True)


@app.command()
def lift(
    context: typer.Context,
    partition: Annotated[int, typer.Argument(help="The halted partition.")],
    actor: Annotated[str, typer.Option(help="Who lifts it; goes into the ledger.")],
    reason: Annotated[str, typer.Option(help="Why it may go on; goes into the ledger.")],
) -> None:
    """Lift a halt once its cause is mended: the lane tries again, and halts again if the cause is still there.

    Who and why is written as an anchor of the source halt/PARTITION on that partition, which its lane sequences first
    thing; it is a line of `driftledger drift log`.

    Example:

        driftledger halts lift 2 --actor ada --reason "input restored"
    """
    from streams.halts import lift_with_reason

    if not actor.strip() or not reason.strip():
        raise BadInputError("a halt is not lifted without a name and a reason. Give --actor and --reason some text")
    with opened(context) as ledger:
        lifted = lift_with_reason(ledger, partition, actor=actor, reason=reason)
    halt = lifted.halt
    typer.echo(f"partition {halt.partition}: halt {halt.code} lifted; it was: {halt.detail}", err=True)
    typer.echo(lifted.record, err=True)
    typer.echo(
        f"a running worker opens lane {halt.lane} again and goes on from the ledger's tail; without one, start "
        "`driftledger worker`. If the cause is still there the partition halts again: see `driftledger status`",
        err=True,
    )
