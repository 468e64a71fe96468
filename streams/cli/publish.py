"""`driftledger publish`: a file of events into the input of a ledger."""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from schemas.errors import BadInputError, UnreachableError
from streams.cli.context import WRONG, settings_of
from streams.publish import Accepted, Format, Rejected, format_of, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

    from schemas.producer import Delivery, EventProducer

STDIN = "-"
DEFAULT_KIND = "event"
#: Events between two updates of the progress bar.
_PROGRESS_EVENTS = 500


def publish(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="JSON lines or CSV with a header row; - is standard input.")],
    form: Annotated[
        Format | None, typer.Option("--format", help="By the file's suffix, jsonl for -, unless given.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Source of lines that name none.")] = None,
    kind: Annotated[str, typer.Option(help="Kind of lines that name none.")] = DEFAULT_KIND,
) -> None:
    """Send the events of a file; bad lines are reported with number and reason, good ones sent.

    Fields: event_id (a UUIDv7 unless given), source, local_timestamp (RFC 3339 or integer microseconds; now unless
    given), kind, value, payload (text or any JSON value) or payload_base64, hlc, causes, exchange. Exit code 1 if a
    line was bad.

    Examples:

        driftledger publish readings.jsonl

        echo '{"source": "pump-7", "value": 4.2}' | driftledger publish -

        driftledger publish export.csv --source plant --kind temperature
    """
    from schemas.codec import Framing
    from schemas.producer import EventProducer
    from streams.broker import reach
    from streams.topics_admin import TopicsAdmin

    settings = settings_of(context)
    if file != STDIN and Path(file).is_dir():
        raise BadInputError(f"{file} is a directory. Name a file, or - for stdin")
    chosen = form or (Format.JSONL if file == STDIN else format_of(file, Path(file).suffix))
    with _open(file) as stream:
        bootstrap = reach(settings)
        if TopicsAdmin(bootstrap).find([settings.input_topic])[settings.input_topic] is None:
            raise UnreachableError(
                f"topic {settings.input_topic} does not exist. Run `{settings.command} topics create`"
            )
        lines = read(stream, chosen, {"kind": kind} if source is None else {"kind": kind, "source": source})
        producer = EventProducer(bootstrap, settings.input_topic, framing=Framing(settings.framing))
        with _new_progress() as progress:
            publication = _Publication(file, settings.input_topic, progress)
            publication.send_all(lines, producer, stream)
    sent, bad = _count(publication.delivered, "event"), _count(publication.bad, "bad line")
    typer.echo(f"{sent} sent to {settings.input_topic}, {bad}", err=True)
    if publication.bad:
        raise typer.Exit(WRONG)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


class _Publication:
    """One run: what was sent, what was bad, what was lost. All of it is told on stderr as it happens."""

    def __init__(self, file: str, topic: str, progress: Progress) -> None:
        self.bad = 0
        self.delivered = 0
        self._file = file
        self._topic = topic
        self._progress = progress
        self._lost = 0
        self._first_lost = ""

    def send_all(self, lines: Iterator[Accepted | Rejected], producer: EventProducer, stream: BinaryIO) -> None:
        """Send every line that is an event. Raises UnreachableError when Kafka stopped taking them."""
        from schemas.producer import DeliveryError

        bar = self._progress.add_task("publishing", total=_size(stream))
        number = 0
        with contextlib.suppress(DeliveryError), producer:  # each failed delivery has been noted with its line
            for sent, line in enumerate(lines):
                number = line.number
                if isinstance(line, Rejected):
                    self._refuse(number, line.reason)
                    continue
                event = dict(line.event)
                event["local_timestamp_us"] = event.pop("local_timestamp")
                producer.send(**event, on_delivery=partial(self._note, number))
                if sent % _PROGRESS_EVENTS == 0:
                    self._progress.update(bar, completed=_position(stream))
                if self._lost:
                    break
        if self._lost:
            raise UnreachableError(
                f"{self._topic} took {self.delivered} events, then {self._lost} were not delivered; the first is "
                f"{self._first_lost}. Nothing after line {number} was read. Send those lines again when Kafka is back"
            )

    def _note(self, number: int, delivery: Delivery) -> None:
        if delivery.error is None:
            self.delivered += 1
        elif delivery.refused:
            self._refuse(number, f"Kafka refused it: {delivery.error.str()}")
        else:
            self._first_lost = self._first_lost or f"line {number} ({delivery.error.str()})"
            self._lost += 1

    def _refuse(self, number: int, reason: str) -> None:
        self.bad += 1
        self._progress.console.print(
            f"{self._file}:{number}: {reason}", markup=False, highlight=False, emoji=False, soft_wrap=True
        )


@contextlib.contextmanager
def _open(file: str) -> Iterator[BinaryIO]:
    if file == STDIN:
        yield sys.stdin.buffer
        return
    try:
        stream = Path(file).open("rb")  # noqa: SIM115 - closed below; only the opening may be refused
    except OSError as error:
        raise BadInputError(f"{file}: cannot be read: {error.strerror}. Name a readable file, or - for stdin") from None
    with stream:
        yield stream


def _new_progress() -> Progress:
    """A bar on stderr that shows only on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _size(stream: BinaryIO) -> int | None:
    """Bytes of the file, None where the end is not known."""
    if not stream.seekable():
        return None
    begin = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(begin)
    return size


def _position(stream: BinaryIO) -> int:
    return stream.tell() if stream.seekable() else 0
