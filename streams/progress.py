"""What stands on the .progress topic: how far folds have come, which partitions are halted, and what is locked.

Partition = lane. Key = fold name: a Progress record (fold_progress.py), written inside the lane's transactions with the
outputs it speaks of. Key = halt/PARTITION: a Halt record, written outside transactions (there is no producer left to
trust when a partition halts); a null value lifts it. Key = lock/PARTITION or lock/PARTITION/SOURCE: a Lock record
(locks.py), in the transaction of the LOCK entry that it tells of; a null value releases it. Key = cut/PARTITION: the
Control record of the last CUT entry (cuts.py), once that is in the ledger. Compacted: the last record of a key stands.

Of locks judge's state is the truth; what stands here is for everybody who must know of them at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from confluent_kafka import KafkaException, Producer

from schemas.clock import source as time_source
from schemas.codec import DecodeError, decode, encode
from schemas.errors import HaltCode, HaltError, UnreachableError
from streams.cuts import CUT_KEY, cut_of
from streams.fold_progress import FoldProgress
from streams.locks import lock_from
from streams.log import offset_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streams.cuts import Cut
    from streams.locks import Lock
    from streams.log import Log

_HALT = "halt/"
_LOCK = "lock/"
_DELIVERY_TIMEOUT_S = 10.0
_logger = structlog.get_logger()


class LaneState(NamedTuple):
    """Everything on one partition of the progress topic."""

    folds: dict[str, FoldProgress]
    halts: dict[int, HaltError]
    halted_at_us: dict[int, int]
    locks: list[Lock]
    #: By partition.
    cuts: Mapping[int, Cut] = {}


class LaneNotes:
    """The last record of every key of one partition of the progress topic, as it is read on."""

    def __init__(self, topic: str, lane: int) -> None:
        self._topic, self._lane = topic, lane
        self._end = 0
        self._last: dict[str, tuple[int, bytes | None]] = {}

    def read(self, log: Log) -> LaneState:
        """Read what is new; see `read_lane`."""
        bounds = log.bounds(self._topic, self._lane)
        if bounds.stable_end < self._end:  # another topic of that name
            self._end, self._last = 0, {}
        for message in log.scan(self._topic, self._lane, max(bounds.start, self._end), bounds.stable_end):
            self._last[(message.key() or b"").decode(errors="replace")] = (offset_of(message), message.value())
        self._end = bounds.stable_end
        return _state_of(self._topic, self._lane, self._last)


def read_lane(log: Log, topic: str, lane: int) -> LaneState:
    """The last record of every key.

    A record that cannot be read is logged. It is no progress of its fold; under the key of a halt it is a halt.
    """
    return LaneNotes(topic, lane).read(log)


def _state_of(topic: str, lane: int, last: Mapping[str, tuple[int, bytes | None]]) -> LaneState:
    cuts: dict[int, Cut] = {}
    state = LaneState({}, {}, {}, [], cuts)
    for key, (offset, value) in last.items():
        if value is None:
            continue
        try:
            if key.startswith(CUT_KEY):
                cuts[int(key.removeprefix(CUT_KEY))] = cut_of(value)
            else:
                _take(state, key, value)
        except (DecodeError, ValueError) as error:
            detail = f"{topic}[{lane}]@{offset} cannot be read: {error}"
            _logger.warning("progress_unreadable", key=key, detail=detail)
            partition = key.removeprefix(_HALT)
            if key.startswith(_HALT) and partition.isdecimal():
                remedy = "Find out who wrote it, and what halted the partition; then `driftledger halts lift`"
                state.halts[int(partition)] = HaltError(int(partition), HaltCode.LEDGER_BROKEN, detail, remedy)
                state.halted_at_us[int(partition)] = 0
    return state


def _take(state: LaneState, key: str, value: bytes) -> None:
    """Raises DecodeError, or ValueError for a code that this release does not know."""
    if key.startswith(_HALT):
        halt = decode("Halt", value)
        state.halts[halt["partition"]] = HaltError(
            halt["partition"], HaltCode(halt["code"]), halt["detail"], halt["remedy"]
        )
        state.halted_at_us[halt["partition"]] = halt["halted_at"]
        return
    if key.startswith(_LOCK):
        state.locks.append(lock_from(decode("Lock", value)))
        return
    progress = decode("Progress", value)
    rows = progress["partitions"]
    indexes = {row["partition"]: row["index"] for row in rows}
    inline = frozenset(row["partition"] for row in rows if row["inline"])
    state.folds[key] = FoldProgress(progress["version"], indexes, inline)


def progress_message(fold: str, progress: FoldProgress) -> tuple[bytes, bytes]:
    """Key and value of a Progress record."""
    rows: list[dict[str, Any]] = [
        {"partition": partition, "index": index, "inline": partition in progress.inline}
        for partition, index in sorted(progress.indexes.items())
    ]
    value = encode("Progress", {"fold": fold, "version": progress.version, "partitions": rows})
    return fold.encode(), value


def record_halt(bootstrap: str, topic: str, lane: int, halt: HaltError, worker: str) -> None:
    """Make a halt durable. Raises UnreachableError where the broker does not take it."""
    value = encode(
        "Halt",
        {
            "partition": halt.partition,
            "code": str(halt.code),
            "detail": halt.detail,
            "remedy": halt.remedy,
            "halted_at": time_source().now_us(),
            "worker": worker,
        },
    )
    produce_durably(bootstrap, topic, lane, [(f"{_HALT}{halt.partition}".encode(), value)])


def lift_halt(bootstrap: str, topic: str, lane: int, partition: int) -> None:
    """Remove a halt: the lane tries again, and halts again if the cause is still there."""
    produce_durably(bootstrap, topic, lane, [(f"{_HALT}{partition}".encode(), None)])


def record_cut(bootstrap: str, topic: str, lane: int, partition: int, value: bytes) -> None:
    """Note the control record of a CUT entry. Raises UnreachableError where the broker does not take it."""
    produce_durably(bootstrap, topic, lane, [(f"{CUT_KEY}{partition}".encode(), value)])


def produce_durably(
    bootstrap: str,
    topic: str,
    partition: int,
    records: Iterable[tuple[bytes | None, bytes | None]],
    *,
    idempotent: bool = True,
) -> list[tuple[int, int]]:
    """Append records outside any transaction; (offset, append time in ms) of each, once all are acknowledged.

    The records are asked for once the client is connected, so one that holds a time can be made when it leaves; an
    idempotent client may hold it back for half a second more, one that is not may write a record twice.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": idempotent,
            "acks": "all",
            "linger.ms": 0,
            "message.timeout.ms": int(_DELIVERY_TIMEOUT_S * 1000),
            "log_level": 0,
        }
    )
    places: list[tuple[int, int]] = []
    errors: list[str] = []

    def delivered(error: Any, message: Any) -> None:
        if error is not None:
            errors.append(error.str())
        else:
            places.append((message.offset(), message.timestamp()[1]))

    try:
        producer.list_topics(topic, _DELIVERY_TIMEOUT_S)
        for key, value in records:
            producer.produce(topic, value, key, partition, on_delivery=delivered)
        left = producer.flush(_DELIVERY_TIMEOUT_S + 1)
    except KafkaException as error:
        raise UnreachableError(f"{topic}[{partition}] at {bootstrap} took no record: {error}") from error
    finally:
        del producer  # an error keeps this frame, and where that is garbage the client may not be (see `log`)
    if errors or left:
        reason = errors[0] if errors else "no answer"
        raise UnreachableError(f"{topic}[{partition}] at {bootstrap} took no record: {reason}")
    return places
