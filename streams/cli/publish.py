"""`driftledger publish`: a file of events into the input of a ledger."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

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

    from rich.progress import Progress

    from schemas.producer import Delivery, EventProducer

#: Events between two updates of the progress bar.
_PROGRESS_EVENTS = 500


def publish(
    context: typer.Context,
    file: FileArgument,
    form: FormatOption = None,
    source: EventSourceOption = None,
    kind: EventKindOption = DEFAULT_KIND,
) -> None:
    """Send the events of a file; bad lines are reported with number and reason, good ones sent.

    An event whose partition is halted, or whose partition or source is locked, is a bad line; its reason says who did
    it, when, why, and what to do.

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
    from schemas.topics import topic_names
    from streams.broker import reach
    from streams.gate import Gate
    from streams.topics_admin import TopicsAdmin

    settings = settings_of(context)
    chosen = format_in(file, form)
    with opened_file(file) as stream, contextlib.ExitStack() as ended:
        bootstrap = reach(settings)
        names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
        found = TopicsAdmin(bootstrap).find([names.input, names.progress])
        into, progress_topic = found[names.input], found[names.progress]
        if into is None:
            raise UnreachableError(
                f"topic {settings.input_topic} does not exist. Run `{settings.command} topics create`"
            )
        lines = lines_of(stream, chosen, source, kind)
        if progress_topic is not None:  # else there is no ledger yet, which nobody can have stopped
            gate = Gate(bootstrap, names.progress, into.partitions, progress_topic.partitions)
            lines = ended.enter_context(contextlib.closing(gate)).passed(lines)
        producer = EventProducer(bootstrap, settings.input_topic, framing=Framing(settings.framing))
        with bytes_progress() as progress:
            publication = Publication(file, settings.input_topic, progress)
            publication.send_all(lines, producer, stream)
    sent, bad = counted(publication.delivered, "event"), counted(publication.bad, "bad line")
    typer.echo(f"{sent} sent to {settings.input_topic}, {bad}", err=True)
    if publication.bad:
        raise typer.Exit(WRONG)


class Publication:
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

        bar = self._progress.add_task("publishing", total=size_of(stream))
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
                    self._progress.update(bar, completed=position_of(stream))
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
        tell_bad_line(self._progress, self._file, number, reason)
