"""Control records on their way into the ledger: read, held until they may go in, handed over as columns.

GUARANTEE control records enter in the order of the control topic. A HEARTBEAT waits until the input position has
reached the end it names, and what stands behind it waits with it; so a sequenced heartbeat proves that everything
appended to the input before its predecessor's append time is in the ledger (the authority frontier).
GUARANTEE while a lock keeps the input back, a heartbeat that names a later end is passed over: it proves nothing and
would hold back the release. It counts as one that was missed, which the next one makes up for.
HAZARD control[p] and input[p] may have leaders with different clocks; the proof is about the control leader's time.
HAZARD a heartbeat that names an end the input never reaches holds back all that stands behind it: only workers and
operators may write to the control topic.
A record that is no Control at all is sequenced like any other and means nothing to a fold.

Bounded: CONTROL_PENDING_MAX records wait per partition; then its reading pauses, the log keeps the rest.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from confluent_kafka import Consumer, KafkaError, TopicPartition

from schemas.canonical import canonical_headers
from schemas.errors import UnreachableError
from schemas.memory import address_of
from streams.control import read_control
from streams.log import offset_of
from streams.records import allocate_records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Message

    from streams.records import Records

#: Records kept per partition while a heartbeat waits for the input: a quarter of an hour of heartbeats.
CONTROL_PENDING_MAX = 1_000
#: Entered per partition and transaction.
TAKE_MAX = 200
_NOT_BLOCKED = -1


class _Waiting(NamedTuple):
    message: Message
    input_end_offset: int


class ControlFeed:
    """The control records of a lane's partitions from given offsets on."""

    def __init__(self, bootstrap: str, topic: str, positions: Mapping[int, int]) -> None:
        self._topic = topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "driftledger-control",  # never joined: assign() only, nothing committed
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "check.crcs": True,
                "queued.max.messages.kbytes": 1_024,
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(topic, p, offset) for p, offset in positions.items()])
        self._waiting: dict[int, deque[_Waiting]] = {p: deque() for p in positions}
        self._paused: set[int] = set()

    def poll(self) -> None:
        """Take in what has arrived; never waits. Raises UnreachableError for an error that does not pass by itself."""
        for message in self._consumer.consume(TAKE_MAX, 0):
            error = message.error()
            if error is not None:
                if error.retriable() or error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):  # noqa: SLF001
                    continue
                raise UnreachableError(f"reading {self._topic}: {error.str()}")
            kind, body = read_control(message.value())
            until = body["input_end_offset"] if kind == "Heartbeat" else _NOT_BLOCKED
            partition = int(message.partition() or 0)
            self._waiting[partition].append(_Waiting(message, until))
            if len(self._waiting[partition]) >= CONTROL_PENDING_MAX and partition not in self._paused:
                self._consumer.pause([TopicPartition(self._topic, partition)])
                self._paused.add(partition)

    def take(self, partition: int, input_position: int, *, locked: bool = False) -> list[Message]:
        """The records that may enter now that the input up to input_position has been sequenced, or locked there."""
        waiting = self._waiting[partition]
        taken: list[Message] = []
        while waiting and len(taken) < TAKE_MAX and (locked or waiting[0].input_end_offset <= input_position):
            record = waiting.popleft()
            if record.input_end_offset <= input_position:
                taken.append(record.message)
        if partition in self._paused and len(waiting) < CONTROL_PENDING_MAX // 2:
            self._consumer.resume([TopicPartition(self._topic, partition)])
            self._paused.discard(partition)
        return taken

    def close(self) -> None:
        """End the client."""
        self._consumer.close()


class ControlRecords(NamedTuple):
    """Control records as columns, and the memory they point into."""

    records: Records
    memory: np.ndarray[tuple[int], np.dtype[np.uint8]]


def control_records(messages: list[Message]) -> ControlRecords:
    """Columns for messages of one partition, in their order."""
    records = allocate_records(len(messages))
    parts: list[bytes] = []
    places: list[tuple[int, int]] = []
    used = 0
    for message in messages:
        headers = cast("list[tuple[str, bytes | None]] | None", message.headers())
        for part in (message.value(), message.key(), canonical_headers(headers) if headers else b""):
            places.append((used, -1) if part is None else (used, len(part)))
            parts.append(part or b"")
            used += len(parts[-1])
    memory = np.frombuffer(b"".join(parts) + b"\0", np.uint8)
    base = address_of(memory)
    for row, message in enumerate(messages):
        value, key, header = places[3 * row : 3 * row + 3]
        records.offset[row] = offset_of(message)
        records.timestamp_type[row], records.timestamp_ms[row] = message.timestamp()
        records.leader_epoch[row] = -1
        records.value_address[row], records.value_length[row] = (base + value[0] if value[1] >= 0 else 0), value[1]
        records.key_address[row], records.key_length[row] = (base + key[0] if key[1] >= 0 else 0), key[1]
        records.headers_address[row], records.headers_length[row] = (base + header[0] if header[1] else 0), header[1]
    return ControlRecords(records, memory)
