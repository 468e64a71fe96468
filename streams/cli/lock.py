"""`driftledger lock`: stop a partition, a source or the whole ledger; let it go on; what is locked."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import UnreachableError
from streams.cli.context import UNREACHABLE, WRONG
from streams.cli.drift import CLI_SOURCE
from streams.cli.listing import Listing
from streams.cli.output import Output, OutputOption, emit, printable
from streams.cli.ranges import opened

if TYPE_CHECKING:
    from streams.lock_log import Outcome

app = typer.Typer(cls=Listing, help="Locks: engage, release, status.", no_args_is_help=True)

PartitionOption = Annotated[int | None, typer.Option("--partition", "-p", help="Only this one; all unless given.")]
SourceOption = Annotated[str | None, typer.Option(help="Only this source, in its partition.")]
ReasonOption = Annotated[str, typer.Option(help="Why; goes into the ledger, and is told to whoever is refused.")]
ActorOption = Annotated[str | None, typer.Option(help="Who; goes into the ledger. Your user name unless given.")]
TimeoutOption = Annotated[
    float | None, typer.Option(min=0.0, help="Seconds to wait for lanes to sequence the records; ten unless given.")
]

_COLUMNS = (
    "partition",
    "source",
    "lock",
    "id",
    "after_sequence",
    "server_time",
    "delta_ms",
    "severity",
    "phase_lock_hash",
)
_FIELDS = (*_COLUMNS, "server_time_ms")
_STATUS_COLUMNS = ("partition", "source", "halts", "since", "actor", "reason", "delta_ms", "severity", "id")
_STATUS_FIELDS = (*_STATUS_COLUMNS, "since_ms")


@app.command()
def engage(
    context: typer.Context,
    reason: ReasonOption,
    actor: ActorOption = None,
    partition: PartitionOption = None,
    source: SourceOption = None,
    timeout: TimeoutOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Lock every partition, one, or one source, and show how far off the clock was of who did.

    What a lock halts is the setting lock_halts: `sequence`, the lane takes no more input of the partition, which waits;
    `put`, nothing is put or published there. A source is kept from puts alone. Everything that reads goes on. The entry
    is a verification of this machine's clock, too: delta = its time minus the broker's append time.

    Locking what is locked changes nothing: the first lock stands. It waits for no backlog; after_sequence is the last
    event in the ledger before it. Exit code 1 where a partition is halted, or has 1,000 locked sources and this would
    be one more, 3 where no lane sequences the record in time; it stays written and is sequenced when a worker runs.

    Examples:

        driftledger lock engage --reason "clocks are being set"

        driftledger lock engage -p 2 --actor ada --reason "restore"

        driftledger lock engage --source pump-7 --reason "replaced"
    """
    _write(context, reason, actor, partition, source, timeout, output, engaged=True)


@app.command()
def release(
    context: typer.Context,
    reason: ReasonOption,
    actor: ActorOption = None,
    partition: PartitionOption = None,
    source: SourceOption = None,
    timeout: TimeoutOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Release what was locked with the same --partition or --source; without either the lock of every partition.

    Locks of sources stay where their partition is released. The entry verifies this machine's clock, as `engage` does.
    What waited in the input is taken from there on. Exit codes as of `engage`.

    Examples:

        driftledger lock release --reason "all clocks are set"

        driftledger lock release --source pump-7 --reason "calibrated"
    """
    _write(context, reason, actor, partition, source, timeout, output, engaged=False)


@app.command()
def status(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List what is locked: since when, by whom, why, what it halts, and how far off the clock was of who did it.

    Examples:

        driftledger lock status

        driftledger lock status --output jsonl
    """
    from streams.lock_log import LockLog

    with opened(context) as ledger:
        locks = LockLog(ledger).locks()
    emit((lock.row() for lock in locks), _STATUS_COLUMNS if output is Output.TABLE else _STATUS_FIELDS, output)
    if not locks:
        typer.echo("nothing is locked", err=True)


def _write(
    context: typer.Context, reason: str, actor: str | None, partition: int | None, source: str | None,
    timeout: float | None, output: Output, *, engaged: bool,
) -> None:  # fmt: skip
    """Engage or release, and show what became of it."""
    from streams.lock_log import LockLog, check_asked

    who = actor or _user()
    check_asked(partition, source, who, reason)
    with opened(context) as ledger:
        log = LockLog(ledger)
        chosen = {"partition": partition, "source": source, "clock": CLI_SOURCE, **_given(timeout_s=timeout)}
        found = (log.engage if engaged else log.release)(reason, who, **chosen)
    _tell(found, output)


def _tell(found: list[Outcome], output: Output) -> None:
    """Print them, and what is not as it was wanted; the exit code says which."""
    from streams.lock_log import What

    columns = _COLUMNS if output is Output.TABLE else _FIELDS
    emit((outcome.row() for outcome in found), columns, output, sparing=("source",))
    for outcome in found:
        if outcome.error is not None:
            typer.echo(f"partition {outcome.partition}: {outcome.error}", err=True)
        elif outcome.what is What.REFUSED:
            typer.echo(
                f"partition {outcome.partition} has as many locked sources as it may have: this one is recorded, and "
                "not engaged. Release some, or lock the partition itself",
                err=True,
            )
        elif outcome.what is What.STOOD and outcome.lock is not None:
            typer.echo(printable(f"{outcome.lock.what} was {outcome.lock.since}; that stands"), err=True)
        elif outcome.what is What.GONE:
            typer.echo(f"partition {outcome.partition}: somebody has released it since. See `drift log`", err=True)
    errors = [outcome.error for outcome in found if outcome.error is not None]
    if any(outcome.what in (What.REFUSED, What.GONE) for outcome in found):
        raise typer.Exit(WRONG)
    if errors:
        raise typer.Exit(UNREACHABLE if all(isinstance(error, UnreachableError) for error in errors) else WRONG)


def _user() -> str:
    """Who runs this command, by the environment, else by the system; an id may have no name there."""
    if named := os.environ.get("USER") or os.environ.get("LOGNAME"):
        return named
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return "operator"


def _given(**options: Any) -> dict[str, Any]:
    """Options that were given; the others are the API's defaults."""
    return {name: value for name, value in options.items() if value is not None}
