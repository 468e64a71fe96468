"""`driftledger drift`: whose clock is off; sources, anchors, verifications, the drift log, warnings and alerts."""

from __future__ import annotations

import enum
import re
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.drift_hot import FromLedgerOption, hot_rows
from streams.cli.drift_sources import sources
from streams.cli.listing import Listing
from streams.cli.output import Output, OutputOption, emit, emit_lines
from streams.cli.ranges import (
    DEFAULT_LAST,
    FollowOption,
    LastOption,
    PartitionOption,
    SinceOption,
    SourceOption,
    Span,
    UntilOption,
    check_range,
    opened,
    span_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from streams.alert_record import AlertRecord
    from streams.drift_entries import DriftEntry
    from streams.drift_log import Verification
    from streams.queries import Ledger
    from streams.warning_log import DriftWarning

app = typer.Typer(
    cls=Listing, help="Whose clock is off: sources, anchor, verify, log, warnings, alerts.", no_args_is_help=True
)

app.command()(sources)

CLI_SOURCE = "CLI"
_SEQUENCE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
NOW = "now"

TimeoutOption = Annotated[
    float | None, typer.Option(min=0.0, help="Seconds to wait for a lane to sequence the record; ten unless given.")
]
ActorOption = Annotated[
    str | None,
    typer.Option(help="Who asks; recorded with the entry; `guardian`, whoever watches over the clocks, unless given."),
]
ReasonOption = Annotated[str, typer.Option(help="Why; recorded with the entry.")]

_LOG_COLUMNS = (
    "created_at", "severity", "drift_delta_ms", "cause", "source", "anchor_timestamp", "phase_lock_hash", "reading",
    "id",
)  # fmt: skip
_LOG_FIELDS = (
    "id", "created_at", "created_at_ms", "anchor_timestamp", "anchor_timestamp_us", "drift_delta_ms",
    "phase_lock_hash", "severity", "cause", "offset_ms", "bound_ms", "source", "reading", "sequence",
)  # fmt: skip
#: Left out of a table where no row has one.
_SPARING = ("cause",)
_LOG_LINE_COLUMNS = ("created_at", "severity", "drift_delta_ms", "cause", "source", "reading", "id")
_VERIFY_COLUMNS = ("id", "server_time", "delta_ms", "severity", "phase_lock_hash")
_VERIFY_FIELDS = ("id", "server_time", "server_time_ms", "delta_ms", "severity", "phase_lock_hash")
_WARNING_COLUMNS = (
    "id", "event_id", "source", "local_timestamp", "authority_timestamp", "drift_seconds", "cause", "logged_at",
)  # fmt: skip
_WARNING_FIELDS = (
    *_WARNING_COLUMNS, "local_timestamp_us", "authority_timestamp_ms", "logged_at_ms", "sequence", "offset_ms",
    "bound_ms",
)  # fmt: skip
_WARNING_LINE_COLUMNS = ("authority_timestamp", "drift_seconds", "cause", "source", "event_id", "id")
_ALERT_COLUMNS = (
    "recorded_at", "state", "severity", "cause", "subject", "source", "events", "worst_ms", "alert_id", "text",
)  # fmt: skip
_ALERT_LINE_COLUMNS = ("recorded_at", "state", "severity", "subject", "text")
_ALERT_FIELDS = (
    "recorded_at", "recorded_at_ms", "alert_id", "revision", "state", "partition", "source", "subject", "cause",
    "severity", "previous_severity", "first_sequence", "last_sequence", "events", "skew_ppb", "opened_at", "worst_ms",
    "at_open", "worst", "at_close", "text",
)  # fmt: skip


@app.command()
def anchor(
    context: typer.Context,
    source: Annotated[str, typer.Option(help="Who anchors.")] = CLI_SOURCE,
    timestamp: Annotated[
        str | None, typer.Option(help="Instant to anchor, RFC 3339 or microseconds; the broker's time unless given.")
    ] = None,
    reason: ReasonOption = "anchor",
    actor: ActorOption = None,
    timeout: TimeoutOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Record an anchor: a GREEN entry without delta that carries the chain's head of that moment.

    Exit code 3 when no lane sequences it in time, 1 when its partition is halted; it stays written and is sequenced
    when a worker runs and the halt is lifted.

    Examples:

        driftledger drift anchor

        driftledger drift anchor --timestamp 2026-01-31T00:00:00Z --source me
    """
    from schemas.instants import parse_us
    from streams.drift_log import DriftLog

    at_us = None if timestamp is None else parse_us(timestamp)
    with opened(context) as ledger:
        options = _given(actor=actor, timeout_s=timeout)
        entry = DriftLog(ledger).record_anchor(source, at_us, reason=reason, **options)
    emit([entry.row()], _LOG_COLUMNS if output is Output.TABLE else _LOG_FIELDS, output, sparing=_SPARING)


@app.command()
def verify(
    context: typer.Context,
    timestamp: Annotated[str, typer.Argument(help="RFC 3339, integer microseconds, or `now`: this machine's clock.")],
    source: Annotated[str, typer.Option(help="Whose clock showed it.")] = CLI_SOURCE,
    reason: ReasonOption = "verify",
    actor: ActorOption = None,
    timeout: TimeoutOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let the authority judge a clock: delta = timestamp minus the broker's append time, and its severity.

    The way to the broker counts as delta, a few milliseconds. An instant before 1970 in microseconds begins with a
    minus: write -- before it. Exit code 3 when no lane sequences it in time, 1 when its partition is halted; it stays
    written and is sequenced when a worker runs and the halt is lifted.

    Examples:

        driftledger drift verify now

        driftledger drift verify 2026-01-31T12:00:00Z --source pump-7
    """
    from schemas.instants import parse_us
    from streams.drift_log import DriftLog

    given_us = None if timestamp == NOW else parse_us(timestamp)
    with opened(context) as ledger:
        options = _given(actor=actor, timeout_s=timeout)
        found = DriftLog(ledger).verify_drift(given_us, source, reason=reason, **options)
    emit([_verify_row(found)], _VERIFY_COLUMNS if output is Output.TABLE else _VERIFY_FIELDS, output)


@app.command()
def log(
    context: typer.Context,
    last: LastOption = None,
    first: SinceOption = None,
    to: UntilOption = None,
    source: SourceOption = None,
    partition: PartitionOption = None,
    follow: FollowOption = False,
    from_ledger: FromLedgerOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the drift log: every event, anchor, verification and lock with its verdict; the newest first.

    A range of instants is listed oldest first. Across partitions authority time decides, within one the index, also
    where a broker's clock stepped back. Workers of this machine answer from their hot tiers where these are level with
    the ledger; else, with --from-ledger and with --follow it is read from the ledger: the same rows. A range is then
    read to the ledger's end, because a backlog can stand behind what is newer. Which it was is said on stderr, unless
    the ledger was asked for.

    Why an event's times lie apart (cause), and what was known of its source's clock by then (offset_ms, bound_ms), is
    judge's word. For the ledger's rows judge is run again, from its newest snapshot before them or from the ledger's
    beginning, about a second for a million entries; where it cannot be, these are empty, and stderr says why.

    Examples:

        driftledger drift log

        driftledger drift log --last 50 --source pump-7 --output jsonl

        driftledger drift log --from 2026-01-31T12:00:00Z --output csv

        driftledger drift log --last 1000 --from-ledger

        driftledger drift log --follow --source pump-7
    """
    from streams.drift_log import DriftLog

    check_range(last, first, to, follow=follow)
    span = span_of(first, to)
    ranged = first is not None or to is not None
    columns = _LOG_COLUMNS if output is Output.TABLE else _LOG_FIELDS
    if not follow and not from_ledger:
        newest = None if ranged else last or DEFAULT_LAST
        rows = hot_rows(context, last=newest, span=span, source=source, partition=partition)
        if rows is not None:
            _emit_of(source, rows, columns, output, sparing=_SPARING)
            return
    with opened(context) as ledger:
        drift_log = DriftLog(ledger, _tell)
        entries: Iterable[DriftEntry]
        if follow:
            entries = coming_entries(ledger, partition, source, last, None if first is None else span)
            emit_lines((entry.row() for entry in entries), _LOG_LINE_COLUMNS, _LOG_FIELDS, output)
            return
        if ranged:
            entries = drift_log.between(span.first_ms, span.last_ms, source=source, partition=partition)
        else:
            entries = drift_log.newest(last or DEFAULT_LAST, source=source, partition=partition)
        _emit_of(source, (entry.row() for entry in entries), columns, output, sparing=_SPARING)


def coming_entries(
    ledger: Ledger, partition: int | None, source: str | None, last: int | None, span: Span | None
) -> Iterator[DriftEntry]:
    """The last entries, or those of a span on, oldest first, and then what comes."""
    from streams.drift_log import DriftLog

    drift_log = DriftLog(ledger, _tell)
    tails = {p: ledger.tail(p) for p in ledger.chosen(partition)}
    indexes = {p: 0 if tail is None else tail.head.index for p, tail in tails.items()}
    found: Iterable[DriftEntry]
    if span is None:
        found = reversed(drift_log.newest(last or DEFAULT_LAST, source=source, partition=partition))
    else:
        found = drift_log.between(span.first_ms, span.last_ms, source=source, partition=partition)
    yield from (entry for entry in found if entry.index <= indexes[entry.partition])
    coming = drift_log.coming(tails, source=source)
    yield from (entry for entry in coming if span is None or span.holds(entry.created_at_ms))


@app.command()
def warnings(
    context: typer.Context,
    last: LastOption = None,
    first: Annotated[
        str | None, typer.Option("--from", help="First sequence, or the first instant of append as RFC 3339.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Last sequence, or the last instant of append as RFC 3339.")
    ] = None,
    source: SourceOption = None,
    partition: PartitionOption = None,
    follow: FollowOption = False,
    from_ledger: FromLedgerOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List events whose clock was further off than the threshold in force allowed; the newest first.

    A range is listed oldest first. Across partitions authority time decides, within one the sequence, also where a
    broker's clock stepped back. Workers of this machine answer from their hot tiers where these are level with the
    ledger. Else, with --from-ledger and with --follow, judge is run over the range of the ledger again, from its newest
    snapshot before it or from the ledger's beginning: the same rows, about a second for a million entries. Which it was
    is said on stderr, unless the ledger was asked for.

    Examples:

        driftledger drift warnings

        driftledger drift warnings --partition 0 --from 1 --to 1000 --output csv

        driftledger drift warnings --from 2026-01-31T12:00:00Z --source pump-7

        driftledger drift warnings --last 1000 --from-ledger

        driftledger drift warnings --follow --output jsonl
    """
    from streams.drift_warnings import newest_warnings

    check_range(last, first, to, follow=follow)
    ranged = first is not None or to is not None
    columns = _WARNING_COLUMNS if output is Output.TABLE else _WARNING_FIELDS
    if not follow and not from_ledger:
        sequences, span = _range_of(first, to)
        rows = hot_rows(
            context, last=None if ranged else last or DEFAULT_LAST, span=span, source=source, partition=partition,
            warned=True, sequences=sequences,
        )  # fmt: skip
        if rows is not None:
            _emit_of(source, rows, columns, output, sparing=_SPARING)
            return
    with opened(context) as ledger:
        found: Iterable[DriftWarning]
        if follow:
            found = coming_warnings(ledger, partition, source, last, first)
            emit_lines((warning.row() for warning in found), _WARNING_LINE_COLUMNS, _WARNING_FIELDS, output)
            return
        if ranged:
            found = _ranged_warnings(ledger, partition, source, first, to)
        else:
            found = newest_warnings(ledger, last or DEFAULT_LAST, source=source, partition=partition, tell=_tell)
        _emit_of(source, (warning.row() for warning in found), columns, output, sparing=_SPARING)


def _ranged_warnings(
    ledger: Ledger, partition: int | None, source: str | None, first: str | None, to: str | None
) -> Iterator[DriftWarning]:
    """From and to a sequence or an instant, oldest first; refused at once where that is no range."""
    from streams.drift_warnings import warnings_from

    partitions = ledger.chosen(partition)
    (begin, last_sequence), span = _range_of(first, to)
    if first is not None and _sequence(first) is None:
        begins = {p: ledger.sequence_since(p, span.first_ms) for p in partitions}
    else:
        begins = dict.fromkeys(partitions, begin)
    return warnings_from(
        ledger, begins, last_sequence, first_ms=span.first_ms, last_ms=span.last_ms, source=source, tell=_tell
    )


def _range_of(first: str | None, to: str | None) -> tuple[tuple[int, int | None], Span]:
    """The sequences and the instants that --from and --to name. Raises BadInputError where they are no range."""
    from streams.queries import check_sequences

    first_sequence, last_sequence = _sequence(first), _sequence(to)
    span = span_of(first if first_sequence is None else None, to if last_sequence is None else None)
    begin = 1 if first_sequence is None else first_sequence
    check_sequences(begin, last_sequence)
    return (begin, last_sequence), span


def coming_warnings(
    ledger: Ledger, partition: int | None, source: str | None, last: int | None, first: str | None
) -> Iterator[DriftWarning]:
    """The last warnings, or those of a range on, oldest first, and then what comes."""
    from streams.drift_warnings import follow_warnings, newest_warnings

    tails = {p: ledger.tail(p) for p in ledger.chosen(partition)}
    indexes = {p: 0 if tail is None else tail.head.index for p, tail in tails.items()}
    found: Iterable[DriftWarning]
    if first is None:
        found = reversed(newest_warnings(ledger, last or DEFAULT_LAST, source=source, partition=partition, tell=_tell))
    else:
        found = _ranged_warnings(ledger, partition, source, first, None)
    return chain(
        (warning for warning in found if warning.index <= indexes[warning.partition]),
        follow_warnings(ledger, tails, source=source),
    )


def _sequence(text: str | None) -> int | None:
    """The sequence that --from or --to names, None where it names an instant or is not given."""
    return int(text) if text is not None and _SEQUENCE.fullmatch(text.strip()) else None


class Which(enum.StrEnum):
    """Which alerts."""

    OPEN = "open"
    ALL = "all"


@app.command()
def alerts(
    context: typer.Context,
    last: LastOption = None,
    first: SinceOption = None,
    to: UntilOption = None,
    state: Annotated[
        Which, typer.Option(help="open: the last record of each alert that is not closed. all: every record.")
    ] = Which.ALL,
    source: SourceOption = None,
    partition: PartitionOption = None,
    follow: FollowOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List alerts, newest first: whose clock is off, or whose events arrive late, and why.

    A range is listed oldest first. --state open is what is open now; with a range, what was last recorded in it and is
    open now. With --follow it goes on with alerts that open or change, and leaves out that one is closed: --state all
    tells that, too. A record of the topic that is no alert is skipped, with a line on stderr.

    Examples:

        driftledger drift alerts --state open

        driftledger drift alerts --from 2026-01-31T12:00:00Z --output csv

        driftledger drift alerts --follow --output jsonl
    """
    from streams.alert_log import alerts_between, ends, newest_alerts, open_alerts

    check_range(last, first, to, follow=follow)
    span = span_of(first, to)
    ranged = first is not None or to is not None
    most = None if ranged else last or DEFAULT_LAST
    with opened(context) as ledger:
        positions = ends(ledger, partition)
        if state is Which.OPEN:
            found = open_alerts(ledger, source=source, partition=partition)
            found = [record for record in found if span.holds(record.recorded_at_ms)][:last]
        elif most is None:
            found = alerts_between(ledger, span.first_ms, span.last_ms, source=source, partition=partition)
            found.reverse()
        else:
            found = newest_alerts(ledger, most, source=source, partition=partition)
        oldest_first = found[::-1]
        if follow:
            before = [record for record in oldest_first if record.offset < positions[record.partition]]
            coming = chain(before, coming_alerts(ledger, positions, source, state))
            emit_lines((record.row() for record in coming), _ALERT_LINE_COLUMNS, _ALERT_FIELDS, output)
            return
    rows = (record.row() for record in (oldest_first if ranged else found))
    nothing = "no alert is open" if state is Which.OPEN else "no alerts"
    nothing = f"{nothing}. Verdicts are in `driftledger drift log`; whether lanes are live says `driftledger status`"
    _emit_of(source, rows, _ALERT_COLUMNS if output is Output.TABLE else _ALERT_FIELDS, output, nothing)


def _emit_of(
    source: str | None,
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    output: Output,
    nothing: str = "nothing is in that range",
    *,
    sparing: Collection[str] = (),
) -> None:
    """Print them, or say that there is nothing; of a source by its name, for that may be misspelt."""
    if not emit(rows, columns, output, sparing=sparing):
        typer.echo(nothing if source is None else f"nothing of the source {source!r} is in that range", err=True)


def coming_alerts(ledger: Ledger, positions: dict[int, int], source: str | None, state: Which) -> Iterator[AlertRecord]:
    """Those that come from the positions on; that one is closed only where all are asked for."""
    from streams.alert_log import follow
    from streams.alert_record import CLOSED

    for record in follow(ledger, positions, source=source):
        if record is not None and (state is Which.ALL or record.alert["state"] != CLOSED):
            yield record


def _tell(text: str) -> None:
    typer.echo(text, err=True)


def _given(**options: Any) -> dict[str, Any]:
    """Options of the command that were given; the others are the API's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _verify_row(found: Verification) -> dict[str, Any]:
    from schemas.instants import format_ms

    row = found._asdict()
    return {**row, "server_time": format_ms(found.server_time_ms), "severity": found.severity.name}
