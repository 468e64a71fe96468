"""`driftledger sql`: any question to events, archives and jobs, in SQL."""

from __future__ import annotations

import re
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from schemas.errors import BadInputError
from streams.cli.context import settings_of
from streams.cli.output import Output, emit
from streams.cli.questions import Form, check_form

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.planner import Explain
    from lifecycle.sql import Answer
    from lifecycle.sql_views import Pushed

#: Of a table for people, which is held whole.
_TABLE_ROWS_MAX: Final = 1_000
_SIZE: Final = re.compile(r"([0-9]{1,6})([KMGT]?)B?", re.IGNORECASE | re.ASCII)
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MEMORY_BYTES_MIN: Final = 64 << 20


def sql(
    context: typer.Context,
    query: Annotated[str | None, typer.Argument(help="The query; - or none: from standard input.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The query is in this file.")] = None,
    memory: Annotated[str, typer.Option(help="What DuckDB may take: 512MB, 4GB.")] = "1GB",
    temporary: Annotated[str, typer.Option(help="What it may write to the temporary folder beyond that.")] = "16GB",
    explain: Annotated[
        bool, typer.Option("--explain", help="Say on stderr what was read for it: sources, times, sequences, chunks.")
    ] = False,
    output: Annotated[
        Form,
        typer.Option(
            "--output", "-o", "--format", help="A table to read; JSON lines, CSV or an Arrow stream to process."
        ),
    ] = Form.TABLE,
) -> None:
    """Ask anything about events, wherever they lie, in the SQL of DuckDB.

    events has a row for each event, hot or archived: partition, sequence, index, input_offset, authority_timestamp,
    local_timestamp, corrected_timestamp, delta_ms, severity, cause, offset_us, bound_us, flags, fault, counted, source,
    kind, event_id, value, payload, hlc, chain_hash. archives has the files of the archive, jobs the runs of jobs;
    `DESCRIBE events` tells types. Duplicates, conflicts and what could not be read are there; counted says which not.

    What a condition says of source, kind, partition, sequence and instants is not even read where it leaves out;
    --explain says so. A query reads the ledger and nothing else: no file, no network, no extension. A table shows the
    first 1,000 rows, the other forms have all.

    Examples:

        driftledger sql "SELECT kind, count(*) FROM events GROUP BY kind"

        driftledger sql "SELECT max(value) FROM events WHERE source = 'a'"

        driftledger sql "FROM archives SELECT tier, sum(rows) GROUP BY tier"

        driftledger sql --file report.sql -o arrow > report.arrow

        echo 'SELECT * FROM jobs LIMIT 9' | driftledger sql -o csv
    """
    from lifecycle.scan import Scan
    from lifecycle.sql import Sql

    check_form(output)
    text = _query(query, file)
    sizes = {"memory_bytes": _bytes("--memory", memory), "temporary_bytes": _bytes("--temporary", temporary)}
    if sizes["memory_bytes"] < _MEMORY_BYTES_MIN:
        raise BadInputError(f"--memory {memory} is less than 64MB, with which DuckDB does not run well. Give more")
    settings = settings_of(context)
    with Scan(settings) as scan, Sql(settings, scan, **sizes) as session:
        _print(session.ask(text), output, session.check)
        if explain:
            _explain(session.pushed, scan.explain)


def _query(query: str | None, file: Path | None) -> str:
    """The text, from where it was given."""
    if file is not None and query is not None:
        raise BadInputError("the query is given, and a file of one too. Give one or the other")
    if file is not None:
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(f"{file}: cannot be read as text: {error}. Name a file with a query") from None
    elif query is None or query == "-":
        if sys.stdin.isatty():
            raise BadInputError(
                'there is no query. Give one in quotes, `driftledger sql "SELECT count(*) FROM events"`, with --file, '
                "or on standard input"
            )
        text = sys.stdin.read()
    else:
        text = query
    if not text.strip():
        raise BadInputError('the query is empty. Give one, for example "SELECT count(*) FROM events"')
    return text


def _print(answer: Answer, output: Form, check: Callable[[], None]) -> None:
    from lifecycle.sql_rows import names_of, rows_of

    if output is Form.ARROW:
        import pyarrow as pa

        with pa.ipc.new_stream(sys.stdout.buffer, answer.schema) as writer:
            for batch in answer.batches:
                writer.write_batch(batch)
        sys.stdout.buffer.flush()
        return
    names, rows = names_of(answer.schema), rows_of(answer.schema, answer.batches)
    if output is not Form.TABLE:
        emit(rows, names, Output(output.value))
        return
    shown = list(islice(rows, _TABLE_ROWS_MAX + 1))
    more = len(shown) > _TABLE_ROWS_MAX
    if more:  # nobody reads to the end, where it would be found that some are gone
        check()
    if names:
        emit(shown[:_TABLE_ROWS_MAX], names, Output.TABLE)
    if more:
        typer.echo(f"there are more than {_TABLE_ROWS_MAX:,} rows; `-o csv` or `-o jsonl` has all", err=True)


def _explain(scans: list[Pushed], found: Explain) -> None:
    """What was read, on stderr."""
    for number, pushed in enumerate(scans, 1):
        typer.echo(f"scan {number}     columns {', '.join(pushed.columns)}", err=True)
        if pushed.condition:
            typer.echo(f"           only rows with {pushed.condition}", err=True)
        for line in _asked(pushed.question):
            typer.echo(f"           {line}", err=True)
    typer.echo(
        f"chunks     {found.chunks_skipped} skipped, {found.chunks_rows} by rows; {found.chunks_archived} of these in "
        f"archives\nrows       {found.rows_scanned} scanned in chunks, {found.rows_unsealed} unsealed",
        err=True,
    )


def _asked(question: Any) -> list[str]:
    """What a scan was limited to."""
    from schemas.instants import format_us

    if question is None:
        return ["read nothing: no row can be in it"]
    lines = [
        f"of {what} {', '.join(name.decode() for name in names)}"
        for what, names in (("sources", question.sources), ("kinds", question.kinds))
        if names is not None
    ]
    ends = [None if end is None else format_us(end) for end in (question.from_us, question.to_us)]
    if any(ends):
        lines.append(f"by {question.frame} time from {ends[0] or 'the beginning'} to before {ends[1] or 'the end'}")
    lines += [
        f"in partition {partition} sequences {first} to {last}"
        for partition, (first, last) in sorted(question.sequences.items())
    ]
    return lines


def _bytes(option: str, text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise BadInputError(f"{option} {text!r:.40} is no size. Write for example 512MB or 4GB")
    return int(found[1]) * _UNITS[found[2].upper()]
