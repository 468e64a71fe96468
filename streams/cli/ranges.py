"""What the listing commands share: opening the ledger, and options whose meaning is the same everywhere."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from lifecycle.parameters import utf8_of
from schemas.errors import BadInputError
from streams.cli.context import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.queries import Ledger

PartitionOption = Annotated[int | None, typer.Option("--partition", "-p", help="Only this one; all unless given.")]


def _name(source: str | None) -> str | None:
    """A source that could be one. Raises BadInputError."""
    if source is not None:
        utf8_of("--source", source)
    return source


SourceOption = Annotated[str | None, typer.Option(help="Only this source.", callback=_name)]
FromOption = Annotated[int | None, typer.Option("--from", help="First sequence.")]
ToOption = Annotated[int | None, typer.Option("--to", help="Last sequence.")]
SinceOption = Annotated[
    str | None,
    typer.Option("--from", help="Appended at this instant or later: RFC 3339, or integer microseconds since 1970."),
]
UntilOption = Annotated[
    str | None,
    typer.Option("--to", help="Appended at this instant or earlier: RFC 3339, or integer microseconds since 1970."),
]
#: Rows of a list that was asked for without --last or a range: what a terminal shows.
DEFAULT_LAST = 10


def _rows(text: str | int) -> int:
    """Raises BadInputError."""
    if not str(text).isascii() or not str(text).isdigit() or not int(text):
        raise BadInputError(
            f"--last counts rows here, and {text!r:.40} is no such number. Give 1 or more; a range of time is for "
            "--from and --to, or for `driftledger range --last 1h`"
        )
    return int(text)


LastOption = Annotated[
    int | None,
    typer.Option(
        parser=_rows,
        metavar="<int>",
        help=f"So many, counted back from the end; {DEFAULT_LAST} unless a range is given.",
    ),
]
FollowOption = Annotated[
    bool, typer.Option("--follow", "-f", help="List oldest first and go on with what comes, a line each, until Ctrl-C.")
]


_NUMBER = re.compile(r"[+-]?[0-9]+", re.ASCII)


class Span(NamedTuple):
    """Instants of the authority, both ends included."""

    first_ms: int
    last_ms: int

    def holds(self, instant_ms: int) -> bool:
        """Whether an instant lies in it."""
        return self.first_ms <= instant_ms <= self.last_ms


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


def check_range(last: int | None, first: object, to: object, *, follow: bool) -> None:
    """Refuse --last with a range, --to with --follow, and a number with an instant. Raises BadInputError."""
    if last is not None and (first is not None or to is not None):
        raise BadInputError("--last counts back from the end, --from and --to name a range. Give one or the other")
    if follow and to is not None:
        raise BadInputError("--to ends a range, --follow goes on. Give one or the other")
    if isinstance(first, str) and isinstance(to, str) and _is_number(first) != _is_number(to):
        raise BadInputError(
            f"--from {first} and --to {to}: one is a number, the other an instant. Give two numbers or two instants"
        )


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text.strip()) is not None


def span_of(first: str | None, to: str | None) -> Span:
    """What --from and --to say about instants; without one that end is open. Raises BadInputError."""
    from schemas.instants import INT64_MAX, INT64_MIN, US_PER_MS, parse_us

    first_ms = INT64_MIN if first is None else -(-parse_us(first) // US_PER_MS)
    last_ms = INT64_MAX if to is None else parse_us(to) // US_PER_MS
    if first_ms > last_ms:
        raise BadInputError(f"from {first} to {to} no millisecond is left. Give --from the earlier instant")
    return Span(first_ms, last_ms)
