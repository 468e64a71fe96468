"""What a fetched batch must be before it is sequenced: the checks of every batch, beside those of a start (admission).

Problem: a batch that got lost on the way, a topic whose settings changed, or a log that was cut and written on would
each be a gap or another history that nobody sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.errors import DriftledgerError, HaltCode, HaltError
from streams.admission import INPUT_TRUNCATED_REMEDY
from streams.librdkafka import TIMESTAMP_LOG_APPEND
from streams.log import Log

if TYPE_CHECKING:
    from streams.librdkafka import ClientError
    from streams.records import Records


def check_follows(topic: str, partition: int, position: int, before: int) -> None:
    """Raise DriftledgerError where a batch between the last one and this is missing; offsets may jump over markers.

    position: where the last batch ended; before: where the client says that this one begins.
    """
    if before != position:
        raise DriftledgerError(f"a batch of {topic}[{partition}] is missing: {position} is next, not {before}")


def check_records(topic: str, partition: int, position: int, records: Records) -> None:
    """Raise HaltError where records come out of order, or carry the producer's time. There is at least one."""
    if records.offset[0] < position:
        detail = f"offset {records.offset[0]} of {topic}[{partition}] came after {position - 1}"
        raise HaltError(partition, HaltCode.LEDGER_BROKEN, detail, "Report this: the client broke its order")
    if (records.timestamp_type != TIMESTAMP_LOG_APPEND).any():
        detail = f"{topic}[{partition}] holds records that carry the producer's time, not the broker's"
        remedy = (
            f"Set message.timestamp.type=LogAppendTime on {topic}, delete its records up to the end, "
            "and begin a new ledger under another name"
        )
        raise HaltError(partition, HaltCode.TOPIC_CHANGED, detail, remedy)


def check_cut(bootstrap: str, topic: str, partition: int, position: int, error: ClientError) -> None:
    """Raise HaltError where the log refused a position that it has: what stood there is another record now.

    A position out of bounds is left to the checks of the next start.
    """
    log = Log(bootstrap)
    try:
        bounds = log.bounds(topic, partition)
    finally:
        log.close()
    if bounds.start <= position <= bounds.end:
        detail = f"{topic}[{partition}] was cut before {position} and written on: {error}"
        raise HaltError(partition, HaltCode.INPUT_TRUNCATED, detail, INPUT_TRUNCATED_REMEDY) from error
