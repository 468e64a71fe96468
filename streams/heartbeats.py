"""Heartbeats: what lets an idle partition's time go on; they also carry the worker's own clock.

At each tick one HEARTBEAT per live partition is appended to the control topic, whose broker stamps it. It carries
the append time of its predecessor and the end of the input, read after the predecessor was acknowledged. The lane
lets it into the ledger only once its input position has reached that end (control_feed.py), so it proves:
everything appended to the input before the predecessor's time is in the ledger.
While a lock keeps the input of a partition back its heartbeats prove nothing, and name no end that would be waited for;
they go on for the clock.

Each also tells the round trip of the last one that was acknowledged: when the broker appended it, and when this worker
knew. With its own time that bounds the worker's clock from both sides (guardian.py).
HAZARD the worker's first heartbeat has no predecessor and proves nothing about the input; it is there for the
clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.clock import source as time_source
from streams.control import RoundTrip, encode_control
from streams.log import Log

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from schemas.topics import TopicNames

_DELIVERY_TIMEOUT_S = 5.0
_logger = structlog.get_logger()


class Heart:
    """Sends the heartbeats of one worker. Not for two threads at once."""

    def __init__(self, bootstrap: str, names: TopicNames, worker: str) -> None:
        self._names, self._worker = names, worker
        self._bootstrap, self._log = bootstrap, Log(bootstrap)
        self._producer = self._client()
        #: The producer met an error after which it takes nothing any more.
        self._dead = False
        #: By partition: of this worker's last acknowledged heartbeat.
        self._trips: dict[int, RoundTrip] = {}

    def beat(self, partitions: Iterable[int], locked: Collection[int] = ()) -> None:
        """One heartbeat for each partition; waits for the acknowledgements. Raises UnreachableError.

        locked: of those, whose input is kept back.

        A heartbeat that is not delivered is missed, no more: the next one comes at the next tick.
        """
        if self._dead:
            self._producer, self._dead = self._client(), False
        wanted = list(partitions)
        self._trips = {p: trip for p, trip in self._trips.items() if p in wanted}
        if not wanted:
            return
        ends = self._log.ends(self._names.input, [p for p in wanted if p not in locked])
        for partition in wanted:
            trip, free = self._trips.get(partition), partition in ends
            body = {
                "predecessor_appended_ms": trip.appended_ms if free and trip is not None else None,
                "input_end_offset": ends[partition] if free else 0,
                "worker_us": time_source().now_us(),
                "round_trip": None if trip is None else trip._asdict(),
            }
            value = encode_control("Heartbeat", body, self._worker, "tick")
            try:
                self._producer.produce(self._names.control, value, partition=partition, on_delivery=self._delivered)
            except BufferError as error:
                _logger.warning("heartbeat_missed", partition=partition, error=str(error))
            except KafkaException as error:
                self._missed(partition, error.args[0])
        self._producer.flush(_DELIVERY_TIMEOUT_S)

    def close(self) -> None:
        """End the clients."""
        self._producer.flush(_DELIVERY_TIMEOUT_S)
        self._log.close()

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._missed(message.partition(), error)
            return
        self._trips[message.partition()] = RoundTrip(message.timestamp()[1], time_source().now_us())

    def _missed(self, partition: int, error: KafkaError) -> None:
        _logger.warning("heartbeat_missed", partition=partition, error=error.str())
        self._dead |= error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001 - its public name

    def _client(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "enable.idempotence": True,
                "linger.ms": 0,
                "message.timeout.ms": int(_DELIVERY_TIMEOUT_S * 1000),
                "log_level": 0,
            }
        )
