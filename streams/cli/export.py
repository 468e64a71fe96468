"""`driftledger export`: events as a file for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import BadInputError
from streams.cli.context import settings_of
from streams.cli.event_file import counted
from streams.cli.questions import (
    Clock,
    ColumnsOption,
    FrameOption,
    FromOption,
    KindsOption,
    LastOption,
    PartitionsOption,
    SequencesOption,
    SourcesOption,
    ToOption,
    UnknownOption,
    given,
)

if TYPE_CHECKING:
    from lifecycle.requests import Range


def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The file to make; with iceberg a folder.")],
    form: Annotated[
        str | None,
        typer.Option("--format", help="csv, jsonl, arrow, parquet or iceberg; by the file's suffix unless given."),
    ] = None,
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
    events: Annotated[
        bool, typer.Option("--events", help="Only what `driftledger publish` and `put` take, so it can be put again.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write events, hot and archived, into a file, in the order of the ledger; all of them unless limited.

    The file is there once it is whole and on disk; until then there is nothing under its name, or what was there
    before. Rows have the columns of `driftledger range -o jsonl`. With --events a line is an event as it was sent, but
    for causes and exchange; what could not be read is left out, and counted on stderr. iceberg makes a table
    `driftledger.events` with a catalog of its own in a folder, and needs `pip install 'driftledger[iceberg]'`.

    Examples:

        driftledger export all.parquet

        driftledger export pump-7.csv --source pump-7 --last 30d

        driftledger export again.jsonl --events

        driftledger export lake --format iceberg --partition 0
    """
    from lifecycle.exporting import Shape, shape_of
    from lifecycle.exporting import export as write
    from lifecycle.planner import Field
    from lifecycle.requests import parse
    from lifecycle.scan import Scan
    from schemas.clock import source as time_source
    from streams.cli.progress import entries_progress

    if form is not None and form not in set(Shape):
        raise BadInputError(f"--format {form!r:.40} is none of {', '.join(Shape)}")
    shape = shape_of(str(file), file.suffix) if form is None else Shape(form)
    if events and columns is not None:
        raise BadInputError("--events are whole, and --columns chooses some. Give one or the other")
    pairs = given(
        **{"from": first}, to=to, last=last, source=source, kind=kind, partition=partition, sequences=sequences,
        frame=frame, unknown=unknown, columns=columns,
    )  # fmt: skip
    request: Range = parse("/range", pairs, time_source().now_us())  # type: ignore[assignment] # of that path
    question = request.question
    partitions = question.partitions or tuple(question.sequences) or None
    with Scan(settings_of(context), partitions) as scan, entries_progress() as progress:
        bar = progress.add_task(f"exporting to {file.name}", total=None)

        def tell() -> None:
            done, of = scan.covered()
            progress.update(bar, completed=done, total=of)

        fields = request.fields if columns is not None else tuple(Field)
        exported = write(scan, question, fields, file, shape, events=events, force=force, tell=tell)
    left_out = f", {counted(exported.left_out, 'unreadable one')} left out" if exported.left_out else ""
    typer.echo(f"{counted(exported.rows, 'event')} written to {file}{left_out}", err=True)
