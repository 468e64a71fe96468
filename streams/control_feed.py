"""Control records on their way into the ledger: read, held until they may go in, handed over as columns.

GUARANTEE control records enter in the order of the control topic. A HEARTBEAT waits until the input position has
reached the end it names, and what stands behind it waits with it; so a sequenced heartbeat proves that everything
appended to the input before its predecessor's append time is in the ledger (the authority frontier).
GUARANTEE a LOCK waits for no input, nor does what must be in the ledger before any (lane.py): heartbeats that stand
before it and name a later end are passed over. So are they while a lock keeps the input back, for they would hold back
the release. Each counts as one that was missed, which the next one makes up for.
HAZARD control[p] and input[p] may have leaders with different clocks; the proof is about the control leader's time.
HAZARD a heartbeat that names an end the input never reaches holds back all that stands behind it: only workers and
operators may write to the control topic.
A record that is no Control at all is sequenced like any other and means nothing to a fold.

Bounded: CONTROL_PENDING_MAX records wait per partition. Where more come, every second heartbeat of those that wait is
passed over, so that a LOCK behind them is seen; where that makes little room, all of them are. So behind a backlog of
hours the frontier rises in steps of minutes. Reading pauses only where as many wait all the same.
"""

from __future__ import annotations

from collections import Counter, deque
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
#: Where passing over every second heartbeat leaves more, what waits is mostly something else, which must go in.
_THINNED_MAX = CONTROL_PENDING_MAX * 3 // 4
#: Entered per partition and transaction.
TAKE_MAX = 200
_NOT_BLOCKED = -1


class _Waiting(NamedTuple):
    """A record. input_end_offset: that it waits for; locks: it engages or releases a lock."""

    message: Message
    input_end_offset: int
    locks: bool = False


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
        #: LOCK records among them.
        self._locks: Counter[int] = Counter()
        self._paused: set[int] = set()
        #: Records read so far.
        self.read: Counter[int] = Counter()

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
            self._add(int(message.partition() or 0), _Waiting(message, until, kind == "Lock"))

    def _add(self, partition: int, record: _Waiting) -> None:
        self.read[partition] += 1
        self._waiting[partition].append(record)
        self._locks[partition] += record.locks
        if len(self._waiting[partition]) < CONTROL_PENDING_MAX:
            return
        self._waiting[partition] = waiting = _thinned(self._waiting[partition])
        if len(waiting) >= CONTROL_PENDING_MAX and partition not in self._paused:
            self._consumer.pause([TopicPartition(self._topic, partition)])
            self._paused.add(partition)

    def take(self, partition: int, input_position: int, *, at_once: bool = False) -> list[Message]:
        """The records that may enter now that the input up to input_position has been sequenced.

        at_once: no record waits for the input, which is kept back.
        """
        waiting = self._waiting[partition]
        taken: list[Message] = []
        while waiting and len(taken) < TAKE_MAX:
            proves = waiting[0].input_end_offset <= input_position
            if not (proves or at_once or self._locks[partition]):
                break
            record = waiting.popleft()
            self._locks[partition] -= record.locks
            if proves:
                taken.append(record.message)
        if partition in self._paused and len(waiting) < CONTROL_PENDING_MAX // 2:
            self._consumer.resume([TopicPartition(self._topic, partition)])
            self._paused.discard(partition)
        return taken

    def close(self) -> None:
        """End the client."""
        self._consumer.close()


def _thinned(waiting: deque[_Waiting]) -> deque[_Waiting]:
    """Without every second heartbeat, the newest being kept; without all of them where that makes little room."""
    kept: deque[_Waiting] = deque()
    heartbeats = 0
    for record in reversed(waiting):
        is_heartbeat = record.input_end_offset != _NOT_BLOCKED
        heartbeats += is_heartbeat
        if not is_heartbeat or heartbeats % 2:
            kept.appendleft(record)
    if len(kept) > _THINNED_MAX:
        return deque(record for record in kept if record.input_end_offset == _NOT_BLOCKED)
    return kept


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
