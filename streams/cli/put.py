"""`driftledger put`: a file of events into the input of a ledger, through its worker."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import UnreachableError
from streams.cli.context import WRONG, settings_of
from streams.cli.event_file import (
    EventKindOption,
    EventSourceOption,
    FileArgument,
    FormatOption,
    counted,
    format_in,
    lines_of,
    opened_file,
    position_of,
    size_of,
    tell_bad_line,
)
from streams.cli.progress import bytes_progress
from streams.publish import DEFAULT_KIND, Accepted, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from rich.progress import Progress

    from lifecycle.client import Client, PutResult

#: Lines between two updates of the progress bar; what a request takes.
_PART_LINES = 5_000


def put(
    context: typer.Context,
    file: FileArgument,
    form: FormatOption = None,
    source: EventSourceOption = None,
    kind: EventKindOption = DEFAULT_KIND,
    worker: Annotated[
        str | None, typer.Option(help="Address of a worker; one that runs with the same data_dir unless given.")
    ] = None,
) -> None:
    """Put the events of a file into the ledger through its worker on this machine.

    Needs no Kafka client and no broker address: the worker has both, and answers when Kafka has the events. It does
    what `driftledger publish` does straight to Kafka, which needs no worker. Bad lines are reported with number and
    reason, good ones put; exit code 1 if a line was bad, 3 where no worker runs or Kafka takes nothing.

    Fields: event_id (a UUIDv7 unless given), source, local_timestamp (RFC 3339 or integer microseconds; now unless
    given), kind, value, payload (text or any JSON value) or payload_base64, hlc, causes, exchange.

    Examples:

        driftledger put readings.jsonl

        echo '{"source": "pump-7", "value": 4.2}' | driftledger put -

        driftledger put export.csv --source plant --kind temperature

        driftledger put export.csv --worker http://127.0.0.1:8411
    """
    from lifecycle.client import Client

    chosen = format_in(file, form)
    settings = settings_of(context)
    with opened_file(file) as stream:
        lines = lines_of(stream, chosen, source, kind)
        try:
            client = Client(worker or settings, token=settings.token)
        except UnreachableError as error:
            raise UnreachableError(f"{error}, or use `{settings.command} publish`, which needs none") from None
        with client, bytes_progress() as progress:
            typer.echo(f"putting through the worker at {client.address}", err=True)
            putting = _Putting(file, progress)
            putting.put_all(lines, client, stream)
    accepted, bad = counted(putting.accepted, "event"), counted(putting.bad, "bad line")
    into = settings.input_topic if worker is None else f"the input of the worker at {client.address}"
    typer.echo(f"{accepted} put into {into}, {bad}", err=True)
    if putting.bad:
        raise typer.Exit(WRONG)


class _Putting:
    """One run: what was accepted and what was bad. All of it is told on stderr as it happens."""

    def __init__(self, file: str, progress: Progress) -> None:
        self.accepted = 0
        self.bad = 0
        self._file = file
        self._progress = progress

    def put_all(self, lines: Iterator[Accepted | Rejected], client: Client, stream: BinaryIO) -> None:
        """Put every line that is an event. Raises UnreachableError where the worker or Kafka stopped taking them."""
        bar = self._progress.add_task("putting", total=size_of(stream))
        events = self._events(lines)
        numbers = [0]
        while numbers:
            numbers.clear()
            self._put(events, numbers, client)
            self._progress.update(bar, completed=position_of(stream))

    def _put(self, events: Iterator[Accepted], numbers: list[int], client: Client) -> None:
        """The next lines; numbers: becomes theirs."""
        from lifecycle.client import PutError

        def read_on() -> Iterator[dict[str, Any]]:
            for line in islice(events, _PART_LINES):
                numbers.append(line.number)
                yield line.event

        try:
            result = client.temporal_put(read_on())
        except PutError as error:
            self._refuse_all(error.result, numbers)
            accepted = self.accepted + error.result.accepted
            raise UnreachableError(
                f"{self._file}: {accepted} events were taken, and not all of those from line {numbers[0]} on: {error}"
            ) from error
        self.accepted += result.accepted
        self._refuse_all(result, numbers)

    def _events(self, lines: Iterator[Accepted | Rejected]) -> Iterator[Accepted]:
        for line in lines:
            if isinstance(line, Rejected):
                self._refuse(line.number, line.reason)
            else:
                yield line

    def _refuse_all(self, result: PutResult, numbers: list[int]) -> None:
        for refused in result.refused:
            self._refuse(numbers[refused.line - 1], refused.reason)

    def _refuse(self, number: int, reason: str) -> None:
        self.bad += 1
        tell_bad_line(self._progress, self._file, number, reason)
