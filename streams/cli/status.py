"""`driftledger status`: how every partition stands."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.cli.context import UNREACHABLE, WRONG
from streams.cli.output import Output, OutputOption, emit
from streams.cli.ranges import opened

_TIMEOUT_S = 3.0
_COLUMNS = (
    "partition", "state", "halt", "max_sequence", "max_index", "input_lag_offsets", "last_authority", "lane",
)  # fmt: skip
_FIELDS = (*_COLUMNS, "last_authority_ms", "detail", "remedy")


def status(
    context: typer.Context,
    timeout: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait for a lane to take the anchor that asking records.")
    ] = _TIMEOUT_S,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show every partition: where it ends, what is left of the input, whether it is written.

    Asking records an anchor of the source System. state: live; silent (no entry for five heartbeats: no worker, or
    heartbeats are off and nothing comes); halted; broken (the ledger's last record is no entry); empty.
    input_lag_offsets: input offsets beyond the ledger, which are at most that many events, since markers of
    transactional producers count. Exit code 1 if a partition is halted or broken, else 3 if no lane took the anchor.

    Examples:

        driftledger status

        driftledger status --output jsonl
    """
    from streams.status import read_status

    with opened(context) as ledger:
        found = read_status(ledger, timeout_s=timeout)
    emit((row.row() for row in found.partitions), _COLUMNS if output is Output.TABLE else _FIELDS, output)
    typer.echo(found.anchor, err=True)
    for halt in found.halts:
        row = halt.row()
        typer.echo(
            f"partition {halt.partition} halted since {row['halted_at']}, {halt.code}: {halt.detail}. {halt.remedy}. "
            f"Then run `driftledger halts lift {halt.partition} --actor NAME --reason TEXT`",
            err=True,
        )
    for broken in found.broken:
        typer.echo(f"partition {broken.partition} broken, {broken.code}: {broken.detail}. {broken.remedy}", err=True)
    if found.halts or found.broken:
        raise typer.Exit(WRONG)
    if not found.anchored:
        raise typer.Exit(UNREACHABLE)
