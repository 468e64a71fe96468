"""`driftledger status`: how every partition stands."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.cli.output import Output, OutputOption, emit
from streams.cli.ranges import opened, user

WRONG = 1
_TIMEOUT_S = 3.0
_COLUMNS = (
    "partition", "state", "halt", "max_sequence", "max_index", "input_lag_offsets", "last_authority", "lane",
)  # fmt: skip
_FIELDS = (*_COLUMNS, "last_authority_ms", "halt_detail", "halt_remedy")


def status(
    context: typer.Context,
    timeout: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait for a lane to take the anchor that asking records.")
    ] = _TIMEOUT_S,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show every partition: where it ends, what is left of the input, whether it is written; exit code 1 if any halts.

    Asking records an anchor of the source System. state: live; silent (no entry for five heartbeats: no worker, or
    heartbeats are off and nothing comes); halted; empty. input_lag_offsets: input offsets beyond the ledger, which are
    at most that many events, since markers of transactional producers count.

    Examples:

        driftledger status

        driftledger status --output jsonl
    """
    from streams.status import read_status

    with opened(context) as ledger:
        found = read_status(ledger, actor=user(), timeout_s=timeout)
    emit((row.row() for row in found.partitions), _COLUMNS if output is Output.TABLE else _FIELDS, output)
    typer.echo(found.anchor, err=True)
    for halt in found.halts:
        row = halt.row()
        typer.echo(
            f"partition {halt.partition} halted since {row['halted_at']}, {halt.code}: {halt.detail}. {halt.remedy}. "
            f"Then run `driftledger halts lift {halt.partition} --actor NAME --reason TEXT`",
            err=True,
        )
    if found.halts:
        raise typer.Exit(WRONG)
