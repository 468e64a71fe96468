"""Events from a worker's HTTP door into the input, answered when Kafka has them.

Problem: who puts events over HTTP wants one answer for all of them: what is in the log, where, and what is refused and
why. So one producer serves all requests; each request counts the deliveries of its own events, and ends when every one
of them has settled.

What an event is, and in which words a line is refused, is publish.py's. What a line leaves out is filled in here:
event_id by a UUIDv7, local_timestamp by this machine's clock.

GUARANTEE an event counted as accepted is acknowledged by all in-sync replicas (acks=all), at the positions told.
GUARANTEE events of one source within a request keep their order; none is doubled by a retry of this producer.
GUARANTEE an event whose partition is halted, or whose partition or source is locked, is refused, also from the middle
of a request on: see gate.py.
GUARANTEE a request ends: what cannot be delivered within delivery_timeout_s is lost, and told.
HAZARD a lost event may yet be in the log. Sent again with the same event_id it is a duplicate that the ledger
recognises; sent again without one it is a new event.
HAZARD first and last offset of a partition are a request's own; between them may be events of others.
"""

from __future__ import annotations

import secrets
import threading
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from confluent_kafka import KafkaError

from schemas.clock import source as time_source
from schemas.errors import UnreachableError
from schemas.event_writer import writer
from schemas.producer import DELIVERY_TIMEOUT_S, Delivery, uuid7
from streams.event_sender import N_ERROR, N_OFFSET, N_PARTITION, Batch, EventSender
from streams.publish import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from schemas.codec import Framing
    from streams.gate import Closed, Gate
    from streams.publish import Accepted

    Int64s = NDArray[np.int64]

#: Of a stop that is not told how long it may take.
STOP_WITHIN_S: Final = 2.0
#: For requests whose events are all settled to be answered.
_LAST_USER_S: Final = 1.0
#: Lines that are read before their events leave: the broker has work while the next ones are read.
_PART_EVENTS: Final = 500
_UUID_RANDOM_BYTES: Final = 8


class Span(NamedTuple):
    """Where the events of a request are, in one partition of the input."""

    partition: int
    first_offset: int
    last_offset: int


class Outcome(NamedTuple):
    """What became of a request's lines. lost: events that Kafka did not take; first_lost: the line of one, and why.

    locked: why some were refused that a halt or a lock stood in the way of, empty for none.
    """

    accepted: int
    refused: list[Rejected]
    positions: list[Span]
    lost: int = 0
    first_lost: str = ""
    locked: str = ""


class Puts:
    """The door to one input topic. For any number of threads; the producer is opened by the first request.

    gate: what may stand in the way; None for nothing.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        framing: Framing,
        gate: Gate | None = None,
        *,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
    ) -> None:
        self.topic = topic
        self._gate = gate
        self._open = partial(EventSender, bootstrap, topic, delivery_timeout_s)
        self._write = writer(framing)
        #: Held while the producer is opened; a stop does not wait for that.
        self._opening = threading.Lock()
        self._changed = threading.Condition()
        self._stopped = False
        self._failed = False
        self._users = 0
        self._sender: EventSender | None = None

    def put(self, lines: Iterable[Accepted | Rejected]) -> Outcome:
        """Send every line that is an event, and wait until each has settled.

        Raises UnreachableError, before any line is read, where Kafka does not answer or the worker stops.
        """
        with self._connected() as sender:
            refused: list[Rejected] = []
            locked = ""
            closed = self._closed(None)
            under_way: list[tuple[list[int], Batch]] = []
            rest = iter(lines)
            while part := list(islice(rest, _PART_EVENTS)):
                closed = self._closed(closed)
                refused += [line for line in part if isinstance(line, Rejected)]
                accepted = [line for line in part if not isinstance(line, Rejected)]
                if closed:
                    accepted, barred = _parted(accepted, closed)
                    refused += barred
                    locked = locked or (barred[0].reason if barred else "")
                if not accepted:
                    continue
                batch = self._batch([line.event for line in accepted])
                under_way.append(([line.number for line in accepted], batch))
                sender.send(batch)
            outcome = outcome_of(refused, [(numbers, batch.wait()) for numbers, batch in under_way])
            self._failed |= outcome.lost > 0
            return outcome._replace(locked=locked)

    def stop(self, within_s: float = STOP_WITHIN_S) -> None:
        """Take no more requests; those under way have so long to be delivered, then what is left of them is lost."""
        with self._changed:
            self._stopped = True
            sender, self._sender = self._sender, None
        if self._gate is not None:
            self._gate.close()
        if sender is None:
            return
        sender.drain(within_s)
        with self._changed:
            if self._changed.wait_for(lambda: not self._users, _LAST_USER_S):
                sender.close()

    def _closed(self, before: Closed | None) -> Closed | None:
        """What stands in the way now. Raises UnreachableError where it was not known before; else that holds on."""
        if self._gate is None:
            return None
        try:
            return self._gate.closed()
        except UnreachableError:
            if before is None:
                raise
            return before

    def _batch(self, events: list[dict[str, Any]]) -> Batch:
        now_us = time_source().now_us
        for event in events:
            if event["event_id"] is None:
                event["event_id"] = str(uuid7(now_us(), secrets.token_bytes(_UUID_RANDOM_BYTES)))
            if event["local_timestamp"] is None:
                event["local_timestamp"] = now_us()
        return Batch([event["source"].encode() for event in events], [self._write(event) for event in events])

    @contextmanager
    def _connected(self) -> Iterator[EventSender]:
        """The producer, in use."""
        sender = self._taken()
        try:
            yield sender
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def _taken(self) -> EventSender:
        """The producer, opened where there is none, or where the last one lost events and nobody uses it."""
        with self._opening:
            with self._changed:
                self._check_wanted()
                if self._sender is not None and self._failed and not self._users:
                    self._sender.close()
                    self._sender, self._failed = None, False
                if self._sender is not None:
                    self._users += 1
                    return self._sender
            sender = self._open()
            with self._changed:
                if not self._stopped:
                    self._sender = sender
                    self._users += 1
                    return sender
            sender.close()
            self._check_wanted()
            return sender

    def _check_wanted(self) -> None:
        if self._stopped:
            raise UnreachableError("the worker stops. Send the events to another one, or again when it is back")


def _parted(lines: list[Accepted], closed: Closed) -> tuple[list[Accepted], list[Rejected]]:
    """Those that may be put, and those that may not."""
    passed: list[Accepted] = []
    barred: list[Rejected] = []
    for line in lines:
        why = closed.refusal(line.event["source"])
        if why is None:
            passed.append(line)
        else:
            barred.append(Rejected(line.number, why))
    return passed, barred


def outcome_of(refused: list[Rejected], settled: list[tuple[list[int], Int64s]]) -> Outcome:
    """What the notes of all batches say, the numbers being those of their rows' lines."""
    if not settled:
        return Outcome(0, sorted(refused), [])
    numbers = [number for of_batch, _ in settled for number in of_batch]
    notes = np.concatenate([of_batch for _, of_batch in settled])
    lost, first_lost = 0, ""
    for row in np.flatnonzero(notes[:, N_ERROR]).tolist():
        error = KafkaError(int(notes[row, N_ERROR]))
        if Delivery("", "", -1, -1, -1, error).refused:
            refused.append(Rejected(numbers[row], f"Kafka refused it: {error.str()}"))
        else:
            first_lost = first_lost or f"{numbers[row]} ({error.str()})"
            lost += 1
    taken = notes[notes[:, N_ERROR] == 0]
    positions = []
    for partition in np.unique(taken[:, N_PARTITION]).tolist():
        offsets = taken[taken[:, N_PARTITION] == partition, N_OFFSET]
        positions.append(Span(partition, int(offsets.min()), int(offsets.max())))
    return Outcome(len(taken), sorted(refused), positions, lost, first_lost)
