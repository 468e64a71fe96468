"""What the programs that measure share: how they tell of bars, and how they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import BadInputError, DriftledgerError, UnreachableError
from streams.cli.context import FINE, UNREACHABLE, USAGE, WRONG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bars import Bar

BarsOption = Annotated[
    bool, typer.Option("--bars", help="Say which of the project's bars are reached; exit code 1 where one is not.")
]


def tell(bars: Sequence[Bar]) -> bool:
    """A line each, on stdout; whether all are reached."""
    for bar in bars:
        typer.echo(str(bar))
    return all(bar.reached for bar in bars)


def status_of(app: typer.Typer, arguments: list[str], program: str) -> int:
    """Run and return the exit code; errors are told on stderr."""
    try:
        app(arguments, prog_name=program)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else FINE
    except DriftledgerError as error:
        typer.echo(f"benchmarks: {error}", err=True)
        if isinstance(error, BadInputError):
            return USAGE
        return UNREACHABLE if isinstance(error, UnreachableError) else WRONG
    return FINE
