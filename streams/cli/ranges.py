"""What the listing commands share: opening the ledger, and options whose meaning is the same everywhere."""

from __future__ import annotations

import contextlib
import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import BadInputError
from streams.cli.context import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.queries import Ledger

PartitionOption = Annotated[int | None, typer.Option("--partition", "-p", help="Only this one; all unless given.")]
SourceOption = Annotated[str | None, typer.Option(help="Only this source.")]
FromOption = Annotated[int | None, typer.Option("--from", help="First sequence.")]
ToOption = Annotated[int | None, typer.Option("--to", help="Last sequence.")]


@contextlib.contextmanager
def opened(context: typer.Context) -> Iterator[Ledger]:
    """The ledger that was asked for, on a Kafka that runs; never starts one."""
    from streams.broker import reach
    from streams.queries import Ledger

    settings = settings_of(context)
    with Ledger(settings, reach(settings)) as ledger:
        yield ledger


def only_partition(ledger: Ledger, partition: int | None) -> int:
    """The partition asked for; the only one where there is only one. Raises BadInputError."""
    if partition is not None:
        return ledger.chosen(partition)[0]
    if ledger.partitions > 1:
        raise BadInputError(
            f"sequences are counted in each partition, and there are {ledger.partitions}. Give --partition 0 to "
            f"{ledger.partitions - 1}"
        )
    return 0


def check_last(last: int | None, first: int | None, to: int | None) -> None:
    """--last stands alone, and is at least 1. Raises BadInputError."""
    if last is not None and (first is not None or to is not None):
        raise BadInputError("--last counts back from the end, --from and --to name sequences. Give one or the other")
    if last is not None and last < 1:
        raise BadInputError(f"--last {last} is no number of rows. Give 1 or more")


def user() -> str:
    """Who runs the command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        return "cli"
