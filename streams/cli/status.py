"""`driftledger status`: how every partition stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.context import UNREACHABLE, WRONG
from streams.cli.output import Output, OutputOption, emit, printable
from streams.cli.ranges import opened

if TYPE_CHECKING:
    from streams.status import Status

_TIMEOUT_S = 3.0
#: What a terminal shows without scrolling.
_LOCKS_TOLD = 10
_COLUMNS = (
    "partition", "state", "halt", "max_sequence", "max_index", "input_lag_offsets", "hot", "last_authority", "lane",
)  # fmt: skip
_FIELDS = (*_COLUMNS, "locks", "last_authority_ms", "hot_error", "detail", "remedy")


def status(
    context: typer.Context,
    timeout: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait for a lane to take the anchor that asking records.")
    ] = _TIMEOUT_S,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show every partition: where it ends, what is left of the input, whether it is written.

    Asking records an anchor of the source System. state: live; silent (no entry for five heartbeats: no worker, or
    heartbeats are off and nothing comes); halted; locked; broken (the ledger's last record is no entry); empty.
    input_lag_offsets: input offsets beyond the ledger, which are at most that many events, since markers of
    transactional producers count. hot: whether stored events are level with the ledger, as the worker says that serves
    the partition, if it runs on this machine; which windows are in force there is told on stderr. Exit code 1 if a
    partition is halted or broken, else 3 if no lane took the anchor.

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
    for lock in found.locks[:_LOCKS_TOLD]:
        typer.echo(printable(f"{lock.what} is {lock.since}. {lock.remedy}"), err=True)
    if len(found.locks) > _LOCKS_TOLD:
        typer.echo(f"and {len(found.locks) - _LOCKS_TOLD} more locks: see `driftledger lock status`", err=True)
    for broken in found.broken:
        typer.echo(f"partition {broken.partition} broken, {broken.code}: {broken.detail}. {broken.remedy}", err=True)
    for line in about_hot_and_windows(found):
        typer.echo(line, err=True)
    if found.halts or found.broken:
        raise typer.Exit(WRONG)
    if not found.anchored:
        raise typer.Exit(UNREACHABLE)


def about_hot_and_windows(found: Status) -> list[str]:
    """What the workers of this machine say, in words."""
    lines = [
        f"partition {p.partition}: the hot tier is {p.hot.standing}: {p.hot.error}"
        for p in found.partitions
        if p.hot is not None and p.hot.error is not None
    ]
    works = {window.name: True for window in found.windows} | {w.name: False for w in found.windows if w.suspended}
    if works:
        names = ", ".join(name if working else f"{name} (suspended)" for name, working in sorted(works.items()))
        lines.append(f"windows in force: {names}")
    lines += [
        f"window {w.name} is suspended in partition {w.partition}: {w.suspended}. Once that is mended, run "
        f"`driftledger windows resume {w.name}`"
        for w in found.windows
        if w.suspended is not None
    ]
    return lines
