"""Snapshots of fold states: a cache that saves re-reading the ledger, never the truth.

Unless the ledger was cut: what stands before its first entry is then in judge's snapshot at the cut alone, and without
it the partition halts.

Layout on the .snapshots topic, partition = lane, keys `fold/partition/slot/chunk` and `fold/partition/slot/head`:
the state, LZ4-compressed with a content checksum, in chunks under the message limit; the head last, with the
SHA-256 of the state and the chain hash of the entry it stands after. Two slots in turn, so that a writer that dies
half way leaves the other whole; after a start, too, for the first in turn is the one that nobody would restore from.

A lane's partition is read as a whole, for a broker finds nothing by key; a reader keeps what it wants of that, packed,
and unpacks what it tries: the newest, and the older one where the newer cannot be used.

GUARANTEE a snapshot is used only if its head came after all its chunks and the hash agrees; what turns out to be
anything else is logged and as if absent. Written outside the lane's transactions, after the commit of the entries it
contains: index <= the committed tail.
GUARANTEE of all lanes of a process one at a time has copies of its states in memory, until they are delivered.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import lz4.frame
import structlog
from confluent_kafka import Producer

from schemas.clock import source as time_source
from schemas.codec import DecodeError, decode, encode
from schemas.errors import UnreachableError
from streams.fold import FoldError
from streams.log import offset_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from confluent_kafka import KafkaError, Message

    from streams.log import Log

Loaded = TypeVar("Loaded")

#: Under the default message limit of 1 MiB with room for keys and framing.
CHUNK_BYTES = 512 * 1024
_SLOTS = 2
_HEAD = "/head"
#: A worker that stops must not wait longer than this for a broker that is away.
_CLOSE_TIMEOUT_S = 5.0
#: How long a snapshot may take: so long, and longer by its bytes at the rate of a slow broker.
_DELIVERY_TIMEOUT_S = 5.0
_BYTES_PER_S = 4 * 1024 * 1024
#: How often a delivery looks whether it is still wanted.
_FLUSH_S = 0.5
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


@dataclass(frozen=True, slots=True)
class Packed:
    """A snapshot as it stands on the topic. slot: `fold/partition/slot` of its keys; the other fields: of its head."""

    slot: str
    fold: str
    version: int
    partition: int
    index: int
    chain_hash: bytes
    chunks: list[bytes]
    length: int
    state_hash: bytes

    def unpack(self) -> bytes:
        """The state. Raises FoldError where it is not the one that was packed."""
        try:
            state: bytes = lz4.frame.decompress(b"".join(self.chunks))
        except RuntimeError as error:  # lz4's word for a damaged frame
            raise FoldError(f"its chunks are damaged: {error}") from error
        if len(state) != self.length or hashlib.sha256(state).digest() != self.state_hash:
            raise FoldError("its state is not the one that its head names: length or hash differ")
        return state

    def loaded(self, load: Callable[[bytes], Loaded]) -> Loaded | None:
        """What `load` makes of the state; None, and logged, where it is damaged or `load` raises FoldError."""
        try:
            return load(self.unpack())
        except FoldError as error:
            self.pass_over(str(error))
            return None

    def is_whole(self) -> bool:
        """Whether its state can be unpacked; logged where not."""
        return self.loaded(len) is not None

    def pass_over(self, reason: str) -> None:
        """Log why it is not used."""
        where = {"fold": self.fold, "partition": self.partition, "index": self.index}
        _logger.warning("snapshot_unusable", slot=self.slot, **where, reason=reason)

    def records(self) -> list[tuple[str, bytes]]:
        """Key and value of each, in the order in which they are written."""
        head = {
            "fold": self.fold,
            "version": self.version,
            "partition": self.partition,
            "index": self.index,
            "chain_hash": self.chain_hash,
            "chunks": len(self.chunks),
            "length": self.length,
            "state_hash": self.state_hash,
        }
        chunks = [(f"{self.slot}/{number}", chunk) for number, chunk in enumerate(self.chunks)]
        return [*chunks, (self.slot + _HEAD, encode("SnapshotHead", head))]


def pack(snapshot: Snapshot, slot: int) -> Packed:
    """A snapshot as it is written into that one of its slots."""
    data = lz4.frame.compress(snapshot.state, content_checksum=True)
    return Packed(
        slot=f"{snapshot.fold}/{snapshot.partition}/{slot}",
        fold=snapshot.fold,
        version=snapshot.version,
        partition=snapshot.partition,
        index=snapshot.index,
        chain_hash=snapshot.chain_hash,
        chunks=[data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)],
        length=len(snapshot.state),
        state_hash=hashlib.sha256(snapshot.state).digest(),
    )


class Stored(NamedTuple):
    """Snapshots that are worth something only once what they build on is durable: `flush` makes it so, or raises."""

    snapshots: list[Snapshot]
    flush: Callable[[], None]


class Offered(NamedTuple):
    """What is written at a time."""

    snapshots: list[Snapshot]
    stored: Stored | None = None


#: Of a process: whose snapshots are being written.
_turn: Final = threading.BoundedSemaphore()


class SnapshotWriter:
    """Writes the snapshots of one lane on a thread of its own.

    A dropped or failed snapshot costs time at the next restart, nothing else, so it is logged and not raised.

    held: what stands on the topic; the first of each fold and partition is the one that must stay longest.
    """

    def __init__(self, bootstrap: str, topic: str, lane: int, held: Iterable[Packed] = ()) -> None:
        self._bootstrap, self._topic, self._lane = bootstrap, topic, lane
        #: None until it is needed, and again after a failure: what failed may have been fatal to it.
        self._producer: Producer | None = None
        #: By fold and partition the next in turn.
        self._slots = _next_slots(held)
        self._given_up = threading.Event()
        #: One at most, and the end.
        self._offered: queue.SimpleQueue[Offered | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"snapshots-{lane}", daemon=True)
        self._thread.start()

    def offer(self, take: Callable[[], Offered | None]) -> bool:
        """Write what `take` returns, if nothing is being written for any lane of this process; whether it is.

        take: called at once, on this thread, and only if it is its turn; None for nothing.
        """
        if not _turn.acquire(blocking=False):
            return False
        offered = None
        try:
            offered = take()
        finally:
            if offered is None:
                _turn.release()
        if offered is None:
            return False
        self._offered.put(offered)
        return True

    def close(self) -> None:
        """Finish what was handed over, or give it up where the broker does not take it in time."""
        self._offered.put(None)
        self._thread.join(_CLOSE_TIMEOUT_S)
        self._given_up.set()

    def _run(self) -> None:
        while (offered := self._offered.get()) is not None:
            waiting = deque(offered.snapshots)
            if offered.stored is not None and self._flushed(offered.stored):
                waiting += offered.stored.snapshots
            del offered
            while waiting and not self._given_up.is_set():
                self._try_write(waiting.popleft())
            waiting.clear()
            _turn.release()

    def _try_write(self, snapshot: Snapshot) -> None:
        try:
            self._write(snapshot)
        except Exception as error:  # noqa: BLE001 - a snapshot is a cache, and the next one may succeed
            self._producer = None
            _logger.warning("snapshot_failed", lane=self._lane, partition=snapshot.partition, error=repr(error))

    def _flushed(self, stored: Stored) -> bool:
        try:
            stored.flush()
        except Exception as error:  # noqa: BLE001 - as below
            _logger.warning("snapshot_failed", lane=self._lane, error=repr(error))
            return False
        return True

    def _write(self, snapshot: Snapshot) -> None:
        """Raises where not all of it was delivered."""
        where = (snapshot.fold, snapshot.partition)
        slot = self._slots.get(where, snapshot.index % _SLOTS)
        self._deliver(pack(snapshot, slot).records())
        self._slots[where] = (slot + 1) % _SLOTS

    def _deliver(self, records: list[tuple[str, bytes]]) -> None:
        producer = self._producer = self._producer or self._client()
        errors: list[str] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                errors.append(error.str())

        for key, value in records:
            producer.produce(self._topic, value, key, self._lane, on_delivery=delivered)
        clock, size = time_source(), sum(len(value) for _, value in records)
        deadline_ns = clock.monotonic_ns() + int((_DELIVERY_TIMEOUT_S + size / _BYTES_PER_S) * 1e9)
        while (left := producer.flush(_FLUSH_S)) and not errors:
            if self._given_up.is_set() or clock.monotonic_ns() >= deadline_ns:
                break
        if errors or left:
            raise UnreachableError(errors[0] if errors else "not delivered in time")

    def _client(self) -> Producer:
        return Producer({"bootstrap.servers": self._bootstrap, "enable.idempotence": True, "log_level": 0})


def _next_slots(held: Iterable[Packed]) -> dict[tuple[str, int], int]:
    slots: dict[tuple[str, int], int] = {}
    for packed in held:
        other = next(slot for slot in range(_SLOTS) if not packed.slot.endswith(f"/{slot}"))
        slots.setdefault((packed.fold, packed.partition), other)
    return slots


def read_snapshots(
    log: Log, topic: str, lane: int, folds: Collection[str] | None = None, partition: int | None = None
) -> list[Packed]:
    """The snapshots on a lane's partition, newest first; one that is not finished is logged and passed over.

    folds, partition: the only ones that are wanted, None for all.
    """
    bounds = log.bounds(topic, lane)
    kept: dict[str, tuple[int, bytes]] = {}
    for message in log.scan(topic, lane, bounds.start, bounds.stable_end):
        key, value = (message.key() or b"").decode(errors="replace"), message.value()
        if not _is_wanted(key, folds, partition):
            continue
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = (offset_of(message), value)
    found = []
    for key, (offset, value) in kept.items():
        if not key.endswith(_HEAD):
            continue
        slot = key.removesuffix(_HEAD)
        packed = _assemble(slot, offset, value, kept)
        if isinstance(packed, Packed):
            found.append(packed)
        else:
            _logger.warning("snapshot_unusable", lane=lane, slot=slot, reason=packed)
    return sorted(found, key=lambda packed: packed.index, reverse=True)


def _is_wanted(key: str, folds: Collection[str] | None, partition: int | None) -> bool:
    fold, _, rest = key.partition("/")
    return (folds is None or fold in folds) and (partition is None or rest.startswith(f"{partition}/"))


def _assemble(slot: str, head_offset: int, value: bytes, kept: dict[str, tuple[int, bytes]]) -> Packed | str:
    """The snapshot in a slot, or why there is none."""
    try:
        head = decode("SnapshotHead", value)
    except DecodeError as error:
        return f"its head cannot be read: {error}"
    chunks = []
    for number in range(head["chunks"]):
        offset, data = kept.get(f"{slot}/{number}", (None, b""))
        if offset is None:
            return f"chunk {number} of {head['chunks']} is missing"
        if offset > head_offset:
            return f"chunk {number} is newer than the head: the next snapshot in its place was not finished"
        chunks.append(data)
    return Packed(**{**head, "slot": slot, "chunks": chunks})
