"""`driftledger drift`: whose clock is off; anchors, verifications, the drift log, warnings and alerts."""

from __future__ import annotations

import enum
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.output import Output, OutputOption, emit
from streams.cli.ranges import FromOption, PartitionOption, SourceOption, ToOption, check_last, opened, user

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.alert_log import AlertRecord
    from streams.drift_log import Verification
    from streams.queries import Ledger
    from streams.warning_log import DriftWarning

app = typer.Typer(help="Whose clock is off: anchor, verify, log, warnings, alerts.", no_args_is_help=True)

CLI_SOURCE = "CLI"
NOW = "now"
_DEFAULT_LAST = 10
_TIMEOUT_S = 10.0

LastOption = Annotated[int, typer.Option(min=1, help="So many, the newest first.")]
TimeoutOption = Annotated[float, typer.Option(min=0.0, help="Seconds to wait for a lane to sequence the record.")]
ReasonOption = Annotated[str, typer.Option(help="Why; recorded with the entry.")]

_LOG_COLUMNS = (
    "created_at", "severity", "drift_delta_ms", "source", "anchor_timestamp", "phase_lock_hash", "reading", "id",
)  # fmt: skip
_LOG_FIELDS = (
    "id", "created_at", "created_at_ms", "anchor_timestamp", "anchor_timestamp_us", "drift_delta_ms",
    "phase_lock_hash", "severity", "source", "reading", "sequence",
)  # fmt: skip
_VERIFY_FIELDS = ("id", "server_time", "server_time_ms", "delta_ms", "severity", "phase_lock_hash")
_WARNING_COLUMNS = (
    "id", "event_id", "source", "local_timestamp", "authority_timestamp", "drift_seconds", "logged_at",
)  # fmt: skip
_WARNING_FIELDS = (*_WARNING_COLUMNS, "local_timestamp_us", "authority_timestamp_ms", "logged_at_ms", "sequence")
_ALERT_COLUMNS = ("recorded_at", "state", "severity", "source", "events", "worst_delta_ms", "alert_id", "text")
_ALERT_FIELDS = (
    "recorded_at", "recorded_at_ms", "alert_id", "revision", "state", "partition", "source", "cause", "severity",
    "previous_severity", "first_sequence", "last_sequence", "events", "at_open", "worst", "at_close", "text",
)  # fmt: skip


@app.command()
def anchor(
    context: typer.Context,
    source: Annotated[str, typer.Option(help="Who anchors.")] = CLI_SOURCE,
    timestamp: Annotated[
        str | None, typer.Option(help="Instant to anchor, RFC 3339 or microseconds; the broker's time unless given.")
    ] = None,
    reason: ReasonOption = "anchor",
    timeout: TimeoutOption = _TIMEOUT_S,
    output: OutputOption = Output.TABLE,
) -> None:
    """Record an anchor: a GREEN entry without delta that carries the chain's head of that moment.

    Exit code 3 when no lane sequences it in time; it stays written and is sequenced when a worker runs.

    Examples:

        driftledger drift anchor

        driftledger drift anchor --source nightly --timestamp 2026-01-31T00:00:00Z
    """
    from schemas.instants import parse_us
    from streams.drift_log import DriftLog

    at_us = None if timestamp is None else parse_us(timestamp)
    with opened(context) as ledger:
        entry = DriftLog(ledger).record_anchor(source, at_us, actor=user(), reason=reason, timeout_s=timeout)
    emit([entry.row()], _LOG_COLUMNS if output is Output.TABLE else _LOG_FIELDS, output)


@app.command()
def verify(
    context: typer.Context,
    timestamp: Annotated[str, typer.Argument(help="RFC 3339, integer microseconds, or `now`: this machine's clock.")],
    source: Annotated[str, typer.Option(help="Whose clock showed it.")] = CLI_SOURCE,
    reason: ReasonOption = "verify",
    timeout: TimeoutOption = _TIMEOUT_S,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let the authority judge a clock: delta = timestamp minus the broker's append time, and its severity.

    The way to the broker counts as delta, a few milliseconds. An instant before 1970 in microseconds begins with a
    minus: write -- before it. Exit code 3 when no lane sequences it in time; it stays written and is sequenced when a
    worker runs.

    Examples:

        driftledger drift verify now

        driftledger drift verify 2026-01-31T12:00:00Z --source pump-7
    """
    from schemas.instants import parse_us
    from streams.drift_log import DriftLog

    given_us = None if timestamp == NOW else parse_us(timestamp)
    with opened(context) as ledger:
        found = DriftLog(ledger).verify_drift(given_us, source, actor=user(), reason=reason, timeout_s=timeout)
    emit([_verify_row(found)], _VERIFY_FIELDS, output)


@app.command()
def log(
    context: typer.Context,
    last: LastOption = _DEFAULT_LAST,
    source: SourceOption = None,
    partition: PartitionOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the newest entries of the drift log, newest first: every event, anchor and verification with its verdict.

    Examples:

        driftledger drift log

        driftledger drift log --last 50 --source pump-7 --output jsonl
    """
    from streams.drift_log import DriftLog

    with opened(context) as ledger:
        entries = DriftLog(ledger).newest(last, source=source, partition=partition)
    emit((entry.row() for entry in entries), _LOG_COLUMNS if output is Output.TABLE else _LOG_FIELDS, output)


@app.command()
def warnings(
    context: typer.Context,
    last: Annotated[
        int | None, typer.Option(help=f"So many, the newest first; {_DEFAULT_LAST} unless --from or --to is given.")
    ] = None,
    first: FromOption = None,
    to: ToOption = None,
    source: SourceOption = None,
    partition: PartitionOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List events whose clock was further off than the threshold in force allowed; ranges are in order of sequence.

    Judge is run over the range again, from its newest snapshot before it, else from the ledger's beginning: that takes
    about a second for a million entries.

    Examples:

        driftledger drift warnings

        driftledger drift warnings --partition 0 --from 1 --to 1000 --output csv
    """
    from streams.drift_warnings import last_warnings, warnings_between

    check_last(last, first, to)
    columns = _WARNING_COLUMNS if output is Output.TABLE else _WARNING_FIELDS
    with opened(context) as ledger:
        partitions = ledger.chosen(partition)
        if first is None and to is None:
            most = last or _DEFAULT_LAST
            found = [w for p in partitions for w in last_warnings(ledger, p, most, source=source)]
            found.sort(key=_when, reverse=True)
            emit((warning.row() for warning in found[:most]), columns, output)
        else:
            ranges = [warnings_between(ledger, p, 1 if first is None else first, to, source=source) for p in partitions]
            emit((warning.row() for warning in chain.from_iterable(ranges)), columns, output)


class Which(enum.StrEnum):
    """Which alerts."""

    OPEN = "open"
    ALL = "all"


@app.command()
def alerts(
    context: typer.Context,
    last: LastOption = _DEFAULT_LAST,
    state: Annotated[
        Which, typer.Option(help="open: the last record of each alert that is not closed. all: every record.")
    ] = Which.ALL,
    source: SourceOption = None,
    partition: PartitionOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List alerts, newest first: a source's severity changed and stayed so.

    With --follow they are listed oldest first, one line each, and go on.

    Examples:

        driftledger drift alerts --state open

        driftledger drift alerts --follow --output jsonl
    """
    from streams.alert_log import ends, newest_alerts, open_alerts

    columns = _ALERT_COLUMNS if output is Output.TABLE else _ALERT_FIELDS
    with opened(context) as ledger:
        positions = ends(ledger, partition)
        if state is Which.OPEN:
            found = open_alerts(ledger, source=source, partition=partition)[:last]
        else:
            found = newest_alerts(ledger, last, source=source, partition=partition)
        if not follow:
            emit((record.row() for record in found), columns, output)
            return
        before = [record for record in reversed(found) if record.offset < positions[record.partition]]
        coming = chain(before, _coming(ledger, positions, source))
        if output is Output.TABLE:  # a table is as wide as its widest row, so it cannot be followed
            for record in coming:
                alert = record.alert
                typer.echo(f"{record.row()['recorded_at']}  {alert['state']:<7} {alert['severity']:<6} {alert['text']}")
        else:
            emit((record.row() for record in coming), columns, output)


def _coming(ledger: Ledger, positions: dict[int, int], source: str | None) -> Iterator[AlertRecord]:
    from streams.alert_log import follow

    return (record for record in follow(ledger, positions, source=source) if record is not None)


def _when(warning: DriftWarning) -> tuple[int, int, int]:
    return warning.authority_timestamp_ms, warning.partition, warning.index


def _verify_row(found: Verification) -> dict[str, Any]:
    from schemas.instants import format_ms

    row = found._asdict()
    return {**row, "server_time": format_ms(found.server_time_ms), "severity": found.severity.name}
