"""How a lane's two clients of the data plane are set: why each value is what it is, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.topics import ENTRY_HEADROOM_BYTES
from streams.log import CLIENT_BYTES_MAX

if TYPE_CHECKING:
    from streams.settings import Settings

#: What the input client holds ahead of the lane; with the batch in hand and what it causes, about four times this.
_QUEUE_KILOBYTES: Final = 16_384
#: And at most this many batches of records, each of which costs the client half a kilobyte beside its bytes.
_QUEUE_BATCHES: Final = 4
#: Room in a request beside a batch: control entries.
_MESSAGES_SPARE: Final = 10_000
#: Longer than a batch takes to queue, and the folds to step over it.
_LINGER_MS: Final = 1_000
#: What a request is longer than the records in it, at most.
_REQUEST_OVERHEAD_BYTES: Final = 65_536


def producer_settings(settings: Settings, bootstrap: str) -> dict[str, str | int]:
    """Of the transactional producer, but for its transactional id."""
    return {
        "bootstrap.servers": bootstrap,
        "transaction.timeout.ms": settings.transaction_timeout_ms,
        # The flush inside commit is what sends. A request that leaves earlier, or a batch in two of them, makes the
        # client's thread spin until the first is acknowledged: more CPU, far more on a busy machine.
        "linger.ms": _LINGER_MS,
        "batch.size": settings.max_value_bytes + ENTRY_HEADROOM_BYTES - _REQUEST_OVERHEAD_BYTES,
        "compression.type": "lz4",
        "batch.num.messages": settings.batch_events_max + _MESSAGES_SPARE,
        # One batch and what it causes: bounded by the input's queue, and by the sources that one event may evict.
        "queue.buffering.max.messages": 0,
        "queue.buffering.max.kbytes": 2_000_000,
        "message.max.bytes": CLIENT_BYTES_MAX,
    }


def consumer_settings(settings: Settings, bootstrap: str) -> dict[str, str | int]:
    """Of the consumer of the input."""
    return {
        "bootstrap.servers": bootstrap,
        "group.id": "driftledger-lane",  # never joined: assign() only, nothing committed
        "enable.auto.commit": "false",
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "check.crcs": "true",
        "fetch.queue.backoff.ms": 2,
        "queued.max.messages.kbytes": _QUEUE_KILOBYTES,
        "queued.min.messages": _QUEUE_BATCHES * settings.batch_events_max,
        "receive.message.max.bytes": CLIENT_BYTES_MAX,
    }
