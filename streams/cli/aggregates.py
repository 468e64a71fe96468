"""`driftledger aggregates`: what windows say, from the aggregates topic."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import BadInputError
from streams.cli.output import Output, OutputOption, emit, emit_lines
from streams.cli.ranges import (
    DEFAULT_LAST,
    FollowOption,
    LastOption,
    PartitionOption,
    SinceOption,
    UntilOption,
    check_range,
    opened,
    span_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streams.aggregates import AggregateRecord
    from streams.cli.ranges import Span
    from streams.queries import Ledger

_COLUMNS = (
    "definition", "key", "window_start", "window_end", "final", "revision", "count", "values", "near_edge", "sum",
    "min", "max", "mean", "variance", "first", "last", "percentiles", "partition",
)  # fmt: skip
#: What a definition need not ask for: it takes room in a table only where a row has it.
_SPARING = frozenset({"near_edge", "sum", "min", "max", "mean", "variance", "first", "last", "percentiles"})
_LINE_COLUMNS = ("window_start", "definition", "key", "final", "revision", "count", "sum", "mean")
_FIELDS = (
    "definition", "version", "partition", "frame", "key", "window_start", "window_end", "window_start_us",
    "window_end_us", "revision", "final", "at_index", "count", "values", "near_edge", "sum", "min", "max", "mean",
    "variance", "first", "last", "percentiles", "method", "relative_error", "recorded_at", "recorded_at_ms",
)  # fmt: skip
_LATE_COLUMNS = ("definition", "source", "late", "ahead", "doubtful", "partition", "last_recorded_at")
_LATE_LINE_COLUMNS = ("recorded_at", "definition", "source", "late", "ahead", "doubtful")
_LATE_FIELDS = ("definition", "source", "late", "ahead", "doubtful", "partition", "version", "at_index", "recorded_at")
_WHOLE_COLUMNS = (
    "definition", "key", "window_start", "window_end", "complete", "waiting_for", "count", "values", "near_edge", "sum",
    "min", "max", "mean", "variance", "partitions",
)  # fmt: skip
_WHOLE_FIELDS = (*_WHOLE_COLUMNS, "window_start_us", "window_end_us", "frame")


class _Asked:
    """Which records a listing is about; gathers the suspensions that it passes."""

    def __init__(self, window: str | None, key: str | None, *, late: bool, final_only: bool) -> None:
        self._window, self._key, self._late, self._final_only = window, key, late, final_only
        self._suspensions: dict[tuple[str, int, int], str] = {}

    def __call__(self, record: AggregateRecord) -> bool:
        """Whether it is one of them."""
        from streams.aggregates import LateCounts, Suspension

        if self._window not in (None, record.definition):
            return False
        if isinstance(record, Suspension):
            text = f"window {record.definition} was suspended in partition {record.partition} at index"
            place = record.definition, record.partition, record.at_index
            self._suspensions[place] = f"{text} {record.at_index}: {record.reason}"
            return False
        if isinstance(record, LateCounts):
            return self._late and self._key in (None, record.source)
        return not self._late and self._key in (None, record.key) and (record.final or not self._final_only)

    def tell(self) -> None:
        """The suspensions, on stderr."""
        for text in self._suspensions.values():
            typer.echo(text, err=True)


def aggregates(
    context: typer.Context,
    window: Annotated[str | None, typer.Argument(help="Only the definition of this name; all unless given.")] = None,
    key: Annotated[str | None, typer.Option(help="Only this key, a source or a kind; with --late this source.")] = None,
    last: LastOption = None,
    first: SinceOption = None,
    to: UntilOption = None,
    partition: PartitionOption = None,
    final_only: Annotated[bool, typer.Option("--final-only", help="Leave out results that came early.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Every revision of a window, not only the last.")] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Merge the partitions, for windows that are defined with whole = true.")
    ] = False,
    late: Annotated[
        bool, typer.Option("--late", help="List instead how many events of each source were left out, and why.")
    ] = False,
    follow: FollowOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List results of windows, the newest first, of each window the last revision; a range is listed oldest first.

    --from and --to are of the instant at which a result was appended. A definition that was suspended is told on
    stderr.

    --whole reads all that is kept and lists windows in order of their ends; of a range those of which a result was
    appended in it. One is complete when each partition has closed it, which a silent partition says by its heartbeats:
    `waiting for` names the others. first, last and percentiles are not there: sequences of two partitions have no
    order, and percentiles of a whole do not follow from those of its parts.

    --late adds up the counts of the range, or of all that is kept, by definition and source.

    Examples:

        driftledger aggregates

        driftledger aggregates source_10s --key pump-7 --last 50 --output jsonl

        driftledger aggregates --from 2026-01-31T12:00:00Z --final-only -o csv

        driftledger aggregates minutes --whole --last 20

        driftledger aggregates --late

        driftledger aggregates source_10s --follow
    """
    check_range(last, first, to, follow=follow)
    _check_forms(whole=whole, late=late, every=every, final_only=final_only, follow=follow, partition=partition)
    span = span_of(first, to)
    # a partition that has nothing of a key has closed a window of it all the same: other keys tell
    asked = _Asked(window, None if whole else key, late=late, final_only=final_only)
    with opened(context) as ledger:
        if follow:
            _follow(ledger, asked, last, None if first is None else span, partition, late=late, output=output)
        elif late:
            if not _list_late(ledger, asked, span, last, partition, output):
                _tell_nothing(ledger, window, key)
        elif whole:
            _list_whole(ledger, asked, key, span, last, output)
        else:
            records = _records(ledger, asked, last, None if first is None and to is None else span, partition, every)
            rows = (record.row() for record in records)
            if not emit(rows, _COLUMNS if output is Output.TABLE else _FIELDS, output, sparing=_SPARING):
                _tell_nothing(ledger, window, key)
    asked.tell()


def _tell_nothing(ledger: Ledger, window: str | None, key: str | None) -> None:
    """Why: a name may be misspelt, a window may have no results yet."""
    if window is not None:
        from streams.window_admin import read_windows

        if all(found.definition.name != window for found in read_windows(ledger)):
            typer.echo(f"nothing is there: no window {window!r} is in force. See `driftledger windows`", err=True)
            return
    names = [f"{what} {name!r}" for what, name in (("window", window), ("key", key)) if name is not None]
    of_them = f" of the {' and the '.join(names)}" if names else ""
    typer.echo(f"nothing{of_them} is there", err=True)


def _check_forms(
    *, whole: bool, late: bool, every: bool, final_only: bool, follow: bool, partition: int | None
) -> None:
    """Refuse options that contradict one another. Raises BadInputError."""
    if whole and (late or follow or every):
        raise BadInputError("--whole lists merged windows once. Leave out --late, --follow and --all")
    if whole and partition is not None:
        raise BadInputError("--whole is of all partitions. Leave out --partition")
    if late and (every or final_only):
        raise BadInputError("--late counts are no results. Leave out --all and --final-only")


def _records(
    ledger: Ledger, asked: _Asked, last: int | None, span: Span | None, partition: int | None, every: bool
) -> Sequence[AggregateRecord]:
    """Newest first, or those of a span, oldest first."""
    from streams.aggregates import between, newest

    if span is None:
        return newest(ledger, last or DEFAULT_LAST, asked, partition=partition, every_revision=every)
    return between(ledger, span.first_ms, span.last_ms, asked, partition=partition, every_revision=every)


def _follow(
    ledger: Ledger, asked: _Asked, last: int | None, span: Span | None, partition: int | None, *, late: bool,
    output: Output,
) -> None:  # fmt: skip
    """Oldest first, and then what comes, every revision."""
    from streams.aggregates import ends, follow

    positions = ends(ledger, partition)
    found = _records(ledger, asked, last, span, partition, every=True)
    oldest_first: Iterable[AggregateRecord] = found if span is not None else found[::-1]
    before = [record for record in oldest_first if record.offset < positions[record.partition]]
    asked.tell()
    columns, fields = (_LATE_LINE_COLUMNS, _LATE_FIELDS) if late else (_LINE_COLUMNS, _FIELDS)
    rows = (record.row() for record in chain(before, follow(ledger, positions, asked)))
    emit_lines(rows, columns, fields, output)


def _list_late(
    ledger: Ledger, asked: _Asked, span: Span, last: int | None, partition: int | None, output: Output
) -> int:
    """Counts added up, the most first; how many."""
    from streams.aggregates import LateCounts, between

    sums: dict[tuple[str, str, int], dict[str, Any]] = {}
    for record in between(ledger, span.first_ms, span.last_ms, asked, partition=partition, every_revision=True):
        if isinstance(record, LateCounts):
            place = record.definition, record.source, record.partition
            row = sums.setdefault(place, {**record.row(), "late": 0, "ahead": 0, "doubtful": None})
            row["late"] += record.late
            row["ahead"] += record.ahead
            if record.doubtful is not None:
                row["doubtful"] = (row["doubtful"] or 0) + record.doubtful
            row["last_recorded_at"] = record.row()["recorded_at"]
    left_out = ("late", "ahead", "doubtful")
    rows = sorted(
        sums.values(), key=lambda row: (-sum(row[n] or 0 for n in left_out), row["definition"], row["source"])
    )
    return emit(rows[:last], _LATE_COLUMNS, output, sparing=("doubtful",))


def _list_whole(
    ledger: Ledger, asked: _Asked, key: str | None, span: Span, last: int | None, output: Output
) -> None:  # fmt: skip
    """Merged over the partitions, in order of the windows' ends; of one key where one is given."""
    from streams.aggregates import Result, between
    from streams.silent_partitions import closed_by_heartbeats
    from streams.whole_windows import merged

    silent = closed_by_heartbeats(ledger)  # before the results
    every = span_of(None, None)
    results = [r for r in between(ledger, every.first_ms, every.last_ms, asked) if isinstance(r, Result)]
    wholes = merged(ledger, results, silent, lambda result: span.holds(result.recorded_at_ms))
    wholes.sort(key=lambda one: one.whole.window_end_us)  # of all definitions: --last is not to leave one out
    rows = [one.row() for one in wholes if key in (None, one.whole.key)]
    if not wholes:
        typer.echo("no window of that range is defined with whole = true", err=True)
    columns = _WHOLE_COLUMNS if output is Output.TABLE else _WHOLE_FIELDS
    emit(rows if last is None else rows[-last:], columns, output, sparing=_SPARING)
