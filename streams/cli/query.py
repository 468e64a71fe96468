"""`driftledger get`, `range` and `aggregate`: questions to stored events."""

from __future__ import annotations

import enum
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import BadInputError
from streams.cli.context import settings_of
from streams.cli.output import Output, emit
from streams.cli.questions import (
    Clock,
    ColumnsOption,
    Form,
    FormOption,
    FrameOption,
    FromOption,
    KindsOption,
    LastOption,
    PartitionsOption,
    SequencesOption,
    SourcesOption,
    ToOption,
    UnknownOption,
    check_form,
    given,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from lifecycle.requests import Request

_CLOCKS = {
    Clock.LOCAL: "the sources' own clocks",
    Clock.AUTHORITY: "the broker's",
    Clock.CORRECTED: "the sources' own clocks put right",
}


class Of(enum.StrEnum):
    """What the events of a line have in common."""

    ALL = "all"
    SOURCE = "source"
    KIND = "kind"


ExplainOption = Annotated[
    bool, typer.Option("--explain", help="Say on stderr how it was found: chunks, rows, unsealed rows, time.")
]
WorkerOption = Annotated[
    str | None, typer.Option(help="Address of the one worker to ask; all of this machine unless given.")
]

#: Of a table, for people; the other forms have all columns.
_ROW_COLUMNS = (
    "partition", "sequence", "authority_timestamp", "source", "local_timestamp", "kind", "value", "severity", "fault",
    "cause",
)  # fmt: skip
#: And of frame corrected.
_CORRECTED_COLUMNS = ("corrected_timestamp", "bound_us")
#: Left out of that table where no row has one.
_SPARING = ("cause",)


def get(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="Whose last event.")],
    at: Annotated[
        str | None, typer.Option(help="At this instant or before it: RFC 3339, or integer microseconds; else of all.")
    ] = None,
    frame: FrameOption = Clock.LOCAL,
    partition: PartitionsOption = None,
    explain: ExplainOption = False,
    worker: WorkerOption = None,
    output: FormOption = Form.TABLE,
) -> None:
    """Show the last event of a source: what it said at an instant, by its own clock or the broker's.

    Duplicates, conflicts and what could not be read are passed over. Asked are the workers of this machine; where none
    holds the source, its stored events and the ledger behind them.

    Examples:

        driftledger get pump-7

        driftledger get pump-7 --at 2026-01-31T12:00:00Z --output jsonl

        driftledger get pump-7 --explain
    """
    pairs = [("source", source), *given(at=at, frame=frame, partition=partition)]
    if not _answer(context, "/get", pairs, worker, output, explain=explain):
        then = "" if at is None else f" at that time by {_CLOCKS[frame]}"
        typer.echo(f"nothing of the source {source!r} is there{then}", err=True)


def list_range(
    context: typer.Context,
    first: FromOption = None,
    to: ToOption = None,
    last: LastOption = None,
    source: SourcesOption = None,
    kind: KindsOption = None,
    partition: PartitionsOption = None,
    sequences: SequencesOption = None,
    frame: FrameOption = Clock.LOCAL,
    unknown: UnknownOption = None,
    columns: ColumnsOption = None,
    limit: Annotated[int, typer.Option(min=1, help="The first so many rows.")] = 1_000,
    explain: ExplainOption = False,
    worker: WorkerOption = None,
    output: FormOption = Form.TABLE,
) -> None:
    """List stored events with a time in a range, in the order of the ledger: found by time, source or kind.

    By time alone `driftledger sequence range` cannot find them; it reads the ledger by sequence. That there are more
    than --limit is said on stderr.

    Examples:

        driftledger range --last 15m

        driftledger range --from 2026-01-31T12:00:00Z --to 2026-01-31T13:00:00Z

        driftledger range --source pump-7 --last 1d --limit 100000 -o csv

        driftledger range --columns value --limit 9 -o arrow > rows.arrow
    """
    pairs = given(
        **{"from": first}, to=to, last=last, source=source, kind=kind, partition=partition, sequences=sequences,
        frame=frame, unknown=unknown, columns=columns, limit=limit,
    )  # fmt: skip
    if not _answer(context, "/range", pairs, worker, output, explain=explain, limit=limit):
        _tell_nothing(frame, timed=any((first, to, last)))


def aggregate(
    context: typer.Context,
    first: FromOption = None,
    to: ToOption = None,
    last: LastOption = None,
    by: Annotated[Of, typer.Option(help="A line for all, for each source or for each kind.")] = Of.ALL,
    window: Annotated[str | None, typer.Option(help="A line for each time span: 500ms, 10s, 1m, 1h, 1d.")] = None,
    slide: Annotated[str | None, typer.Option(help="How far apart windows begin; their length unless given.")] = None,
    functions: Annotated[
        str | None, typer.Option(help="By commas: sum,min,max,mean; all unless given, count always.")
    ] = None,
    percentiles: Annotated[str | None, typer.Option(help="By commas: 50,99,99.9.")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Exact percentiles, also of many values; they may be read twice.")
    ] = False,
    source: SourcesOption = None,
    kind: KindsOption = None,
    partition: PartitionsOption = None,
    sequences: SequencesOption = None,
    frame: FrameOption = Clock.LOCAL,
    unknown: UnknownOption = None,
    explain: ExplainOption = False,
    worker: WorkerOption = None,
    output: FormOption = Form.TABLE,
) -> None:
    """Compute counts, sums and percentiles now, over stored events; any window, any range.

    What windows of driftledger.toml gave as events came, `driftledger aggregates` lists. Duplicates, conflicts and what
    could not be read are not counted; sums are exact, rounded once. Percentiles are by nearest rank: exact of up to 256
    values, of more within 1 % of the value at that rank, and the same that a window of driftledger.toml tells of these
    values; method and relative_error say which. --exact has the values themselves, and says on stderr how many rows it
    read; its memory is bounded, too. With --frame corrected
    near_edge says how many events lie so near an edge that they may belong elsewhere, unknown how many of a source
    whose offset was not known yet.

    Examples:

        driftledger aggregate --last 1h --window 1m --by source

        driftledger aggregate --source pump-7 --percentiles 50,99 -o jsonl

        driftledger aggregate --last 7d --percentiles 50,95,99 --exact

        driftledger aggregate --last 1d --window 1h --slide 10m --functions mean

        driftledger aggregate --from 2026-01-31T00:00:00Z --window 1d --explain

        driftledger aggregate --last 1h --window 1m --frame corrected
    """
    if slide is not None and window is None:
        raise BadInputError("--slide moves a window, and there is none. Give --window too")
    pairs = given(
        **{"from": first}, to=to, last=last, by=by, window_ms=_milliseconds("--window", window),
        slide_ms=_milliseconds("--slide", slide), functions=functions, percentiles=percentiles,
        exact="1" if exact else None, source=source, kind=kind, partition=partition, sequences=sequences,
        frame=frame, unknown=unknown,
    )  # fmt: skip
    if not _answer(context, "/aggregate", pairs, worker, output, explain=explain):
        _tell_nothing(frame, timed=any((first, to, last)))


def _answer(
    context: typer.Context,
    path: str,
    pairs: Sequence[tuple[str, str]],
    worker: str | None,
    output: Form,
    *,
    explain: bool,
    limit: int = 0,
) -> int:
    """Ask, print, and say how many events were found."""
    from lifecycle.reader import Reader, explanation
    from lifecycle.requests import parse
    from schemas.clock import source as time_source

    check_form(output)
    request = _whole(parse(path, pairs, time_source().now_us()), output)
    settings = settings_of(context)
    table = Reader(worker or settings, token=settings.token).ask(request)
    explained = explanation(table)
    _print(path, table, output)
    if limit and explained["more"]:
        typer.echo(f"there are more than {limit} rows. Give a larger --limit, or a narrower range", err=True)
    if ("exact", "1") in pairs:
        rows, times = explained["rows_scanned"] + explained["rows_unsealed"], explained["readings"]
        again = f", in {times} readings" if times > len(explained["answers"]) else ""
        typer.echo(f"exact: {rows} rows were read{again}", err=True)
    if left_out := explained.get("rows_left_out"):
        typer.echo(f"left out: {left_out} events without an estimate of their clock", err=True)
    if explain:
        _explain(explained, table.num_rows, corrected=("frame", Clock.CORRECTED) in pairs)
    return sum(table["count"].to_pylist()) if path == "/aggregate" else int(table.num_rows)


def _tell_nothing(frame: Clock, *, timed: bool) -> None:
    """By which clock it was looked for: others may have it."""
    if not timed:
        typer.echo("nothing is there", err=True)
        return
    other = next(clock for clock in Clock if clock is not frame)
    asks = f"`--frame {other}` asks by {_CLOCKS[other]}"
    typer.echo(f"nothing is in that range by {_CLOCKS[frame]}; {asks}", err=True)


def _whole(request: Request, output: Form) -> Request:
    """For programs, with all columns, unless some were chosen."""
    from lifecycle.planner import Field
    from lifecycle.requests import Aggregate, Get, usual_fields

    if output is Form.TABLE or isinstance(request, Aggregate):
        return request
    frame = request.frame if isinstance(request, Get) else request.question.frame
    if request.fields != usual_fields(frame):
        return request
    return replace(request, fields=tuple(Field))


def _print(path: str, table: pa.Table, output: Form) -> None:
    from lifecycle.rows import names_in, rows_in

    if output is Form.ARROW:
        from lifecycle.arrow import ipc_bytes

        sys.stdout.buffer.write(ipc_bytes(table))
        sys.stdout.buffer.flush()
        return
    columns: Sequence[str] = names_in(table.schema)
    sparing: Sequence[str] = ()
    if output is Form.TABLE:
        chosen = [name for name in _ROW_COLUMNS if name in columns]
        every = [name for name in columns if not _is_doubled(name, columns)]
        usual = path != "/aggregate" and len(chosen) == len(_ROW_COLUMNS)
        if usual and "corrected_timestamp" in columns:
            place = chosen.index("local_timestamp") + 1
            chosen[place:place] = _CORRECTED_COLUMNS
        columns, sparing = (chosen, _SPARING) if usual else (every, ())
    emit(rows_in(table), columns, Output(output.value), sparing=sparing)


def _is_doubled(name: str, names: Sequence[str]) -> bool:
    """Whether it is an instant as a number, beside its text, or bytes that were no text."""
    stem, _, ending = name.rpartition("_")
    return ending in ("us", "ms", "base64") and stem in names


def _explain(explained: dict[str, Any], rows: int, *, corrected: bool) -> None:
    """How it ran, on stderr."""
    columns = ", ".join(f"{name} {count}" for name, count in explained["columns"].items()) or "none"
    lines = [
        f"answer     {rows} {'row' if rows == 1 else 'rows'} in {explained['elapsed_us'] / 1_000:.1f} ms",
        (
            f"chunks     {explained['chunks_skipped']} skipped, {explained['chunks_statistics']} from statistics, "
            f"{explained['chunks_edges']} in part from statistics, {explained['chunks_rows']} by rows; "
            f"{explained['chunks_archived']} of these in archives"
        ),
        f"decoded    {columns}; {explained['cached']} still decoded, {explained['bytes_read']} bytes read",
        f"rows       {explained['rows_scanned']} scanned in chunks, {explained['rows_unsealed']} unsealed",
    ]
    if corrected:
        lines.append("statistics none in frame corrected: of chunks with such times the rows are read")
    for answer in explained["answers"]:
        lines.append(f"asked      {answer['by']}: partitions {', '.join(map(str, answer['partitions']))}")
        lines += [
            f"           partition {place['partition']}: {place['store'] or 'no store'} up to index {place['stored']}, "
            f"{place['read']} entries read from the ledger"
            for place in answer.get("local", ())
        ]
    for line in lines:
        typer.echo(line, err=True)


def _milliseconds(option: str, text: str | None) -> int | None:
    from lifecycle.requests import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text) // 1_000
    except BadInputError as error:
        raise BadInputError(f"{option}: {error}") from None
