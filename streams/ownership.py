"""Which lanes this worker owns: one member of the ledger's consumer group.

The member subscribes to the progress topic, whose partition numbers are the lanes, and reads nothing of it
(paused); the group only hands out ownership. Classic protocol, cooperative-sticky: a change moves only the lanes
that must move. Once a second it also commits the input positions of its lanes, as a hint for lag monitors; nobody
of ours reads them back.

GUARANTEE `on_revoked` has returned before the group gives the lane to another member, unless this member was thrown
out.
GUARANTEE an error that ends the membership is told to `on_failed`; `runs` is False from then on.
HAZARD a member that was thrown out learns it late (a stopped process, a partition of the network): safety is not
here, it is in the fence of the next owner. `confirmed` asks the group and is called before a lane that failed is
opened again, so that a zombie does not fence its successor.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.clock import source as time_source
from schemas.errors import DriftledgerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.topics import TopicNames
    from streams.settings import Settings

_POLL_S = 0.1
_HINT_NS = 1_000_000_000
_CONFIRM_TIMEOUT_S = 5.0
_METADATA_TIMEOUT_S = 5.0
_logger = structlog.get_logger()


class Ownership:
    """The membership. Callbacks run on its thread: on_assigned(lanes), on_revoked(lanes), on_lost(lanes), on_failed.

    on_revoked may block until the lanes are closed; on_lost and on_failed must not.
    """

    def __init__(
        self,
        settings: Settings,
        bootstrap: str,
        names: TopicNames,
        *,
        on_assigned: Callable[[list[int]], None],
        on_revoked: Callable[[list[int]], None],
        on_lost: Callable[[list[int]], None],
        on_failed: Callable[[Exception], object],
        positions: Callable[[], dict[int, int]],
    ) -> None:
        self._names = names
        self._lanes = settings.lanes
        self._on_assigned, self._on_revoked, self._on_lost = on_assigned, on_revoked, on_lost
        self._on_failed = on_failed
        self._positions = positions
        self._stopping = threading.Event()
        self._failed = False
        #: While lanes are taken back nobody is answered: who asks is a lane that our thread waits for.
        self._revoking = False
        self._asked = threading.Event()
        self._answered = threading.Event()
        self._answer = False
        self._ask_lock = threading.Lock()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"{settings.prefix}.{settings.ledger}",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": settings.session_timeout_ms,
                "heartbeat.interval.ms": settings.session_timeout_ms // 4,
                # How long a question to the group may keep this thread from its polls where a broker has gone away.
                "socket.timeout.ms": settings.session_timeout_ms,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "latest",
                "log_level": 0,
            }
        )
        self._thread = threading.Thread(target=self._run, name="ownership", daemon=True)

    def start(self) -> None:
        """Join the group."""
        self._consumer.subscribe(
            [self._names.progress], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )
        self._thread.start()

    def stop(self) -> None:
        """Leave the group; the lanes still owned are revoked first."""
        self._stopping.set()
        self._thread.join()

    @property
    def runs(self) -> bool:
        """Whether the membership is being kept up."""
        return self._thread.is_alive() and not self._failed

    def confirmed(self) -> bool:
        """Whether the group counts this worker as a member of its current generation; blocks, not for our thread."""
        with self._ask_lock:
            self._answered.clear()
            self._asked.set()
            return not self._revoking and self._answered.wait(_CONFIRM_TIMEOUT_S) and self._answer

    def _run(self) -> None:
        for step in (self._serve, self._consumer.close):
            try:
                step()
            except Exception as error:  # noqa: BLE001 - the worker ends with it
                self._failed = True
                self._on_failed(error)

    def _serve(self) -> None:
        hint_due_ns = 0
        while not self._stopping.is_set():
            message = self._consumer.poll(_POLL_S)
            error = message.error() if message is not None else None
            if error is not None:
                _logger.warning("group_error", error=error.str())
            if self._asked.is_set():
                self._asked.clear()
                self._answer = self._commit_positions(wait=True)
                self._answered.set()
            now_ns = time_source().monotonic_ns()
            if now_ns >= hint_due_ns:
                hint_due_ns = now_ns + _HINT_NS
                self._commit_positions(wait=False)

    def _commit_positions(self, *, wait: bool) -> bool:
        """Commit the lag hint; with wait, True says that the group took it from this member."""
        offsets = [TopicPartition(self._names.input, p, offset) for p, offset in self._positions().items()]
        if wait and not offsets:
            # Any offset serves as the question; this one names a partition of ours that is never read by offset.
            offsets = [TopicPartition(self._names.progress, p.partition, 0) for p in self._consumer.assignment()]
        if not offsets:
            return False
        try:
            if wait:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            _logger.info("group_refused_hint", error=error.args[0].str())
            return False
        return True

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if any(p.partition >= self._lanes for p in partitions):
            topic = self._names.progress
            count = len(consumer.list_topics(topic, _METADATA_TIMEOUT_S).topics[topic].partitions)
            raise DriftledgerError(
                f"{topic} has {count} partitions, one for each lane, but lanes={self._lanes}. Set lanes={count} where "
                "the ledger began with so many; else begin a new one under another name: lanes never change"
            )
        consumer.incremental_assign(partitions)
        if partitions:
            consumer.pause(partitions)
            self._on_assigned([p.partition for p in partitions])

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._revoking, self._answer = True, False
        self._answered.set()
        try:
            self._on_revoked([p.partition for p in partitions])
        finally:
            self._revoking = False
        consumer.incremental_unassign(partitions)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._on_lost([p.partition for p in partitions])
        consumer.incremental_unassign(partitions)
