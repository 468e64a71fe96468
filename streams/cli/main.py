"""The `driftledger` command: its groups, and what an error becomes.

Guarantees: machine output on stdout, everything else on stderr; an error is one line saying what happened and what to
do, without a traceback; the exit code is 0 fine, 1 found something wrong, 2 usage, 3 cannot reach what it needs (130
after Ctrl-C, 141 when the reader of stdout went away, as shells count it: an answer that was cut off is not fine). A
traceback means a defect of ours.

`--help` answers at once because heavy modules (Kafka, numba, Faust) are imported by the commands that need them.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.errors import BadInputError, DriftledgerError, UnreachableError
from streams.cli import (
    aggregates,
    broker,
    check,
    drift,
    export,
    halts,
    lifecycle,
    lock,
    publish,
    put,
    query,
    sequence,
    sql,
    status,
    topics,
    up,
    windows,
    worker,
)
from streams.cli.context import FINE, UNREACHABLE, USAGE, WRONG, Asked
from streams.cli.listing import Listing

#: 128 and the number of SIGPIPE.
CLOSED_PIPE = 141

#: The commands as they are needed, one after the other, and as the README has them.
_ORDER = (
    "up", "broker", "topics", "publish", "put", "worker", "sequence", "drift", "get", "range", "aggregate", "sql",
    "export", "windows", "aggregates", "check", "lifecycle", "lock", "status", "halts",
)  # fmt: skip


class _Ordered(Listing):
    """Typer has all groups behind all single commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names as `_ORDER` has them."""
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    name="driftledger",
    cls=_Ordered,
    help="A ledger for event streams whose clocks cannot be trusted.",
    epilog="Settings: DRIFTLEDGER_* variables, then driftledger.toml. Exit codes: 0 fine, 1 found something wrong, "
    "2 usage, 3 cannot reach what it needs, 130 Ctrl-C, 141 the reader of stdout went away.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# One line each, and a name in _ORDER. Groups: app.add_typer(module.app, name=...). Single commands:
# app.command(name)(module.function).
app.add_typer(broker.app, name="broker")
app.add_typer(topics.app, name="topics")
app.add_typer(sequence.app, name="sequence")
app.add_typer(drift.app, name="drift")
app.add_typer(halts.app, name="halts")
app.add_typer(lock.app, name="lock")
app.add_typer(check.app, name="check")
app.add_typer(lifecycle.app, name="lifecycle")
app.command("aggregates")(aggregates.aggregates)
app.command("publish")(publish.publish)
app.command("put")(put.put)
app.command("get")(query.get)
app.command("range")(query.list_range)
app.command("aggregate")(query.aggregate)
app.command("sql")(sql.sql)
app.command("export")(export.export)
app.add_typer(windows.app, name="windows")
app.command("status")(status.status)
app.command("worker")(worker.worker)
app.command("up")(up.up)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"driftledger {version('driftledger')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="Settings file; driftledger.toml of the working directory unless given.")
    ] = None,
    ledger: Annotated[
        str | None, typer.Option(help="Which ledger; the file's first, or 'events', unless given.")
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    context.obj = Asked(config, ledger)
    _log_to_stderr()
    _warn_of_variables()


def _warn_of_variables() -> None:
    """Name the variables that were meant as settings and are none."""
    if not any(name.upper().startswith("DRIFTLEDGER_") for name in os.environ):
        return  # and no settings to be imported for --help
    from streams.settings_file import unknown_variables

    for name, near in unknown_variables().items():
        remedy = f"Did you mean {near}?" if near else "Unset it"
        typer.echo(f"driftledger: {name} is no setting and has no effect. {remedy}", err=True)


def _log_to_stderr() -> None:
    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors are told on stderr."""
    try:
        code = app(arguments, prog_name="driftledger", standalone_mode=False)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # typer's way out of it
            return CLOSED_PIPE
        return ended.code if isinstance(ended.code, int) else FINE
    except typer.TyperException as error:
        typer.echo(_describe(error), err=True)
        return USAGE
    except DriftledgerError as error:
        typer.echo(f"driftledger: {error}", err=True)
        if isinstance(error, BadInputError):
            return USAGE
        return UNREACHABLE if isinstance(error, UnreachableError) else WRONG
    return code if isinstance(code, int) else FINE


def _describe(error: typer.TyperException) -> str:
    """One line for a command line that is none; the help of a group that was given no command."""
    text = error.format_message()
    if text.startswith("Usage:"):
        return text
    line = " ".join(text.replace("Value error, ", "").split()).rstrip(".")
    command = getattr(getattr(error, "ctx", None), "command_path", "driftledger")
    return f"driftledger: {line}. See `{command} --help`"


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main(sys.argv[1:]))
