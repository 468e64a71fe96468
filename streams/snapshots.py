"""Snapshots of fold states: a cache that saves re-reading the ledger, never the truth.

Layout on the .snapshots topic, partition = lane, keys `fold/partition/slot/chunk` and `fold/partition/slot/head`:
the state, LZ4-compressed with a content checksum, in chunks under the message limit; the head last, with the
SHA-256 of the state and the chain hash of the entry it stands after. Two slots in turn, so that a writer that dies
half way leaves the other whole.

GUARANTEE a snapshot is used only if its head came after all its chunks and the hash agrees; anything else is as if
absent. Written outside the lane's transactions, after the commit of the entries it contains: index <= committed
progress.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lz4.frame
import structlog
from confluent_kafka import KafkaException, Producer

from schemas.codec import DecodeError, decode, encode
from streams.log import offset_of

if TYPE_CHECKING:
    from streams.log import Log

#: Under the default message limit of 1 MiB with room for keys and framing.
CHUNK_BYTES = 512 * 1024
_SLOTS = 2
#: A worker that stops must not wait longer than this for a broker that is away.
_FLUSH_TIMEOUT_S = 5.0
_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of a fold after a ledger entry."""

    fold: str
    version: int
    partition: int
    index: int
    chain_hash: bytes
    state: bytes


class SnapshotWriter:
    """Writes the snapshots of one lane on a thread of its own; one that comes while another waits is dropped.

    A dropped or failed snapshot costs time at the next restart, nothing else, so it is logged and not raised.
    """

    def __init__(self, bootstrap: str, topic: str, lane: int) -> None:
        self._topic, self._lane = topic, lane
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "message.timeout.ms": int(_FLUSH_TIMEOUT_S * 1000),
                "log_level": 0,
            }
        )
        self._slots: dict[tuple[str, int], int] = {}
        self._waiting: queue.Queue[list[Snapshot] | None] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._run, name=f"snapshots-{lane}", daemon=True)
        self._thread.start()

    def offer(self, snapshots: list[Snapshot]) -> bool:
        """Hand snapshots over; False where the writer is still busy with earlier ones."""
        try:
            self._waiting.put_nowait(snapshots)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Finish what was handed over."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (snapshots := self._waiting.get()) is not None:
            for snapshot in snapshots:
                self._write(snapshot)

    def _write(self, snapshot: Snapshot) -> None:
        where = (snapshot.fold, snapshot.partition)
        slot = self._slots.get(where, snapshot.index % _SLOTS)
        prefix = f"{snapshot.fold}/{snapshot.partition}/{slot}"
        data = lz4.frame.compress(snapshot.state, content_checksum=True)
        chunks = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
        head = {
            "fold": snapshot.fold,
            "version": snapshot.version,
            "partition": snapshot.partition,
            "index": snapshot.index,
            "chain_hash": snapshot.chain_hash,
            "chunks": len(chunks),
            "length": len(snapshot.state),
            "state_hash": hashlib.sha256(snapshot.state).digest(),
        }
        try:
            for number, chunk in enumerate(chunks):
                self._producer.produce(self._topic, chunk, f"{prefix}/{number}", self._lane)
                self._producer.poll(0)
            self._producer.produce(self._topic, encode("SnapshotHead", head), f"{prefix}/head", self._lane)
            left = self._producer.flush(_FLUSH_TIMEOUT_S)
        except (KafkaException, BufferError) as error:
            _logger.warning("snapshot_failed", lane=self._lane, partition=snapshot.partition, error=str(error))
            return
        if left:
            _logger.warning("snapshot_failed", lane=self._lane, partition=snapshot.partition, error="not delivered")
            return
        self._slots[where] = (slot + 1) % _SLOTS


def read_snapshots(log: Log, topic: str, lane: int) -> list[Snapshot]:
    """Every whole snapshot on a lane's partition, newest first."""
    bounds = log.bounds(topic, lane)
    kept: dict[str, tuple[int, bytes]] = {}
    for message in log.scan(topic, lane, bounds.start, bounds.stable_end):
        kept[(message.key() or b"").decode()] = (offset_of(message), message.value() or b"")
    found = []
    for key, (offset, value) in kept.items():
        if key.endswith("/head"):
            snapshot = _assemble(key.removesuffix("/head"), offset, value, kept)
            if snapshot is not None:
                found.append(snapshot)
    return sorted(found, key=lambda snapshot: snapshot.index, reverse=True)


def _assemble(prefix: str, head_offset: int, value: bytes, kept: dict[str, tuple[int, bytes]]) -> Snapshot | None:
    try:
        head = decode("SnapshotHead", value)
    except DecodeError:
        return None
    chunks = [kept.get(f"{prefix}/{number}", (head_offset, b"")) for number in range(head["chunks"])]
    if any(offset >= head_offset for offset, _ in chunks):
        return None
    try:
        state = lz4.frame.decompress(b"".join(data for _, data in chunks))
    except RuntimeError:  # lz4's word for a damaged frame
        return None
    if len(state) != head["length"] or hashlib.sha256(state).digest() != head["state_hash"]:
        return None
    return Snapshot(head["fold"], head["version"], head["partition"], head["index"], head["chain_hash"], state)
