"""Where the lists of `driftledger drift` come from: the hot tier where it has all of a list, else the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import UnreachableError
from streams.cli.context import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.drift_reader import Row
    from streams.cli.ranges import Span

FromLedgerOption = Annotated[
    bool, typer.Option("--from-ledger", help="Read the ledger, whatever the hot tiers of this machine's workers hold.")
]


def hot_rows(
    context: typer.Context,
    *,
    last: int | None,
    span: Span,
    source: str | None,
    partition: int | None,
    warned: bool = False,
    sequences: tuple[int, int | None] = (1, None),
) -> Iterator[Row] | None:
    """The rows of a list from the hot tier; None where the ledger is to be read. Says on stderr which, and why.

    last: the newest so many, the newest first; None: all of the span and the sequences, oldest first.
    """
    from streams.address import find_workers

    settings = settings_of(context)
    workers = find_workers(settings)
    if not workers:
        _say("ledger, for no worker of it answers on this machine")
        return None
    from lifecycle.drift_question import DriftQuestion
    from lifecycle.drift_reader import HotDrift, find_holders
    from schemas.instants import INT64_MAX

    first, end = sequences
    asked = DriftQuestion(
        partition=0,
        warned=warned,
        source=None if source is None else source.encode(),
        first_ms=span.first_ms,
        last_ms=span.last_ms,
        first=first if warned else 0,
        last=INT64_MAX if end is None else end,
    )
    try:
        addresses = [worker.address for worker in workers]
        holders = find_holders(addresses, settings.partitions, partition, settings.token)
        drift = HotDrift(holders, settings.token)
        rows = drift.between(asked) if last is None else drift.newest(asked, last)
    except UnreachableError as error:
        _say(f"ledger, for {error}")
        return None
    _say(f"hot tier of {', '.join(drift.addresses)}")
    return rows


def _say(where: str) -> None:
    typer.echo(f"from the {where}", err=True)
