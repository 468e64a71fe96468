"""The alerts topic, read: the newest records, the alerts that are open, and what comes.

Problem: an alert is several records (opened, changed, closed) in the partition of its source, each exactly once to a
read_committed reader. To see the last of them a reader goes back from the end; to know what is open it must read all
that is kept, because an alert may have been opened long ago. Of what was
closed meanwhile it holds as much as is asked for.

A record that is no alert is skipped, with a line in the log that says where it stands: only lanes may write there, but
one foreign record must not hide what they wrote.

HAZARD the topic keeps 30 days: an alert whose last record is older is open and not listed. Judge's state has it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import structlog
from confluent_kafka import Consumer, KafkaError, TopicPartition

from schemas.codec import DecodeError, Framing, decode
from schemas.errors import BadInputError, UnreachableError
from streams.alert_record import CLOSED, AlertRecord
from streams.log import offset_of
from streams.order import merge, newest_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from confluent_kafka import Message

    from streams.queries import Ledger

_FIRST_WINDOW: Final = 256
_WINDOW_GROWTH: Final = 4
_FOLLOW_WAIT_S: Final = 0.2
_logger = structlog.get_logger()


def newest_alerts(
    ledger: Ledger, most: int, *, source: str | None = None, partition: int | None = None
) -> list[AlertRecord]:
    """The newest records, newest first; across partitions by append time as in `order`."""
    if most < 1:
        raise BadInputError(f"the last {most} alerts are none. Ask for 1 or more")
    return newest_first((_placed(_newest(ledger, p, most, source)) for p in ledger.chosen(partition)), most)


def open_alerts(ledger: Ledger, *, source: str | None = None, partition: int | None = None) -> list[AlertRecord]:
    """The last record of each alert that is not closed, newest first."""
    of_each = [_last(ledger, p, source, 0)[0] for p in ledger.chosen(partition)]
    return newest_first(map(_placed, of_each), sum(map(len, of_each)))


def last_records(ledger: Ledger, closed_max: int) -> list[AlertRecord]:
    """The last record of each alert, in order of append time: of all that are open, and of the newest closed ones.

    closed_max: how many of these, and how many are held of any but one partition meanwhile.
    """
    is_open: list[AlertRecord] = []
    closed: list[AlertRecord] = []
    for p in ledger.chosen(None):
        still_open, since_closed = _last(ledger, p, None, closed_max)
        is_open += still_open
        closed = sorted([*closed, *since_closed], key=_recorded_at)[-closed_max:]
    return sorted([*is_open, *closed], key=_recorded_at)


def alerts_between(
    ledger: Ledger, first_ms: int, last_ms: int, *, source: str | None = None, partition: int | None = None
) -> list[AlertRecord]:
    """The records appended from first_ms to last_ms, both included, oldest first."""
    topic = ledger.names.drift_alerts
    of_each: list[list[AlertRecord]] = []
    for p, begin in sorted(since(ledger, first_ms, partition).items()):
        records = (
            _record(message) for message in ledger.log.scan(topic, p, begin, ledger.log.bounds(topic, p).stable_end)
        )
        of_each.append(
            [
                r
                for r in records
                if r is not None and r.recorded_at_ms <= last_ms and source in (None, r.alert["source"])
            ]
        )
    return list(merge(map(_placed, of_each)))


def since(ledger: Ledger, first_ms: int, partition: int | None = None) -> dict[int, int]:
    """Of each partition the first offset appended at that instant or later; its end where there is none."""
    found = ledger.log.offsets_since(ledger.names.drift_alerts, ledger.chosen(partition), max(0, first_ms))
    return {p: offset if offset >= 0 else ends(ledger, p)[p] for p, offset in found.items()}


def ends(ledger: Ledger, partition: int | None = None) -> dict[int, int]:
    """Where the committed alerts of each partition end now: what `follow` goes on from."""
    topic = ledger.names.drift_alerts
    return {p: ledger.log.bounds(topic, p).stable_end for p in ledger.chosen(partition)}


def follow(ledger: Ledger, positions: dict[int, int], *, source: str | None = None) -> Iterator[AlertRecord | None]:
    """Records as they are committed, from those offsets on, for ever; None where nothing came for a moment."""
    topic = ledger.names.drift_alerts
    consumer = Consumer(
        {
            "bootstrap.servers": ledger.bootstrap,
            "group.id": "driftledger-reader",  # never joined: assign() only, nothing committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "check.crcs": True,
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in positions.items()])
    try:
        while True:
            message = consumer.poll(_FOLLOW_WAIT_S)
            record = None if message is None else record_of(message)
            if message is None:
                yield None
            elif record is not None and source in (None, record.alert["source"]):
                yield record
    finally:
        consumer.close()


def _last(
    ledger: Ledger, partition: int, source: str | None, closed_max: int
) -> tuple[list[AlertRecord], list[AlertRecord]]:
    """The last record of each alert of a partition, in order: of those that are open, and of the newest closed ones."""
    topic = ledger.names.drift_alerts
    bounds = ledger.log.bounds(topic, partition)
    is_open: dict[str, AlertRecord] = {}  # an alert is in one partition
    closed: deque[AlertRecord] = deque(maxlen=closed_max)
    for message in ledger.log.scan(topic, partition, bounds.start, bounds.stable_end):
        record = _record(message)
        if record is None or source not in (None, record.alert["source"]):
            continue
        is_open.pop(record.alert["alert_id"], None)  # so that the order is that of the last records
        if record.alert["state"] == CLOSED:
            closed.append(record)
        else:
            is_open[record.alert["alert_id"]] = record
    return list(is_open.values()), list(closed)


def _recorded_at(record: AlertRecord) -> int:
    return record.recorded_at_ms


def _newest(ledger: Ledger, partition: int, most: int, source: str | None) -> list[AlertRecord]:
    topic = ledger.names.drift_alerts
    bounds = ledger.log.bounds(topic, partition)
    found: list[AlertRecord] = []
    end, window = bounds.stable_end, _FIRST_WINDOW
    while end > bounds.start and len(found) < most:
        begin = max(bounds.start, end - window)
        records = [_record(message) for message in ledger.log.scan(topic, partition, begin, end)]
        found = ([r for r in records if r is not None and source in (None, r.alert["source"])] + found)[-most:]
        end, window = begin, window * _WINDOW_GROWTH
    return found


def _placed(records: Iterable[AlertRecord]) -> Iterator[tuple[int, AlertRecord]]:
    return ((record.recorded_at_ms, record) for record in records)


def record_of(message: Message) -> AlertRecord | None:
    """What a consumer of the topic was given: a record; None for an error that passes, and for what is no alert.

    Raises UnreachableError for an error that does not pass.
    """
    error = message.error()
    if error is None:
        return _record(message)
    if error.retriable() or error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):  # noqa: SLF001 - public names
        return None
    raise UnreachableError(f"{message.topic()} cannot be read: {error.str()}. Is Kafka up?")


def _record(message: Message) -> AlertRecord | None:
    partition, offset = message.partition() or 0, offset_of(message)
    try:
        alert = decode("DriftAlert", message.value() or b"", Framing.JSON)
    except DecodeError as error:
        _logger.warning(
            "alert_not_readable", topic=message.topic(), partition=partition, offset=offset, error=str(error)
        )
        return None
    return AlertRecord(message.timestamp()[1], partition, offset, alert)
