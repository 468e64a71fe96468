"""The state of a ledger at a glance, from the broker alone; asking records an anchor (S0.5).

Problem: when something is wrong the worker may be the thing that is gone, so its status cannot be asked of the worker.
Everything here is read from the topics: tails, halts, the ends of the input. The anchor is the one thing that needs a
lane, and so it is the probe: taken into the ledger in time, a lane works; if not, the rest is shown all the same.

HAZARD a lag counts offsets: where the input is written in transactions it counts their markers and aborted records too,
so it is the most that is left, and 0 is exact.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.instants import format_ms
from schemas.topics import partition_for
from streams.drift_log import API_SOURCE, DriftLog, NotBegunError, NotSequencedError
from streams.halts import read_halts

if TYPE_CHECKING:
    from streams.halts import Halt
    from streams.queries import Ledger

#: A partition whose last entry is older than so many heartbeats of the worker is not being written.
_LIVE_HEARTBEATS: Final = 5
_LIVE_MS_MIN: Final = 5_000


class LaneStanding(enum.StrEnum):
    """What is known of who writes a partition."""

    LIVE = "live"
    #: No entry for a while although heartbeats should come: no worker, or heartbeats are off and nothing happens.
    SILENT = "silent"
    HALTED = "halted"
    #: No entry yet.
    EMPTY = "empty"


class PartitionStatus(NamedTuple):
    """Of one partition. lag: input offsets that are not in the ledger; -1 where there is no input topic."""

    partition: int
    lane: int
    standing: LaneStanding
    max_sequence: int
    max_index: int
    input_lag_offsets: int
    last_authority_ms: int | None
    halt: Halt | None

    def row(self) -> dict[str, Any]:
        """For a listing."""
        return {
            "partition": self.partition,
            "lane": self.lane,
            "state": self.standing,
            "halt": self.halt.code if self.halt else None,
            "max_sequence": self.max_sequence,
            "max_index": self.max_index,
            "input_lag_offsets": None if self.input_lag_offsets < 0 else self.input_lag_offsets,
            "last_authority_ms": self.last_authority_ms,
            "last_authority": None if self.last_authority_ms is None else format_ms(self.last_authority_ms),
            "halt_detail": self.halt.detail if self.halt else None,
            "halt_remedy": self.halt.remedy if self.halt else None,
        }


class Status(NamedTuple):
    """All of a ledger. anchor: what became of it, in words; anchored: whether it is in the ledger."""

    partitions: list[PartitionStatus]
    anchor: str
    anchored: bool

    @property
    def halts(self) -> list[Halt]:
        """Of all partitions."""
        return [partition.halt for partition in self.partitions if partition.halt is not None]


def read_status(ledger: Ledger, *, actor: str, timeout_s: float) -> Status:
    """Record an anchor, wait for it for at most timeout_s, and tell how every partition stands."""
    halts = {halt.partition: halt for halt in read_halts(ledger)}
    anchor, anchored, now_ms = _anchor(ledger, halts, actor, timeout_s)
    ends = _input_ends(ledger)
    return Status(
        [_standing(ledger, p, halts.get(p), ends, now_ms) for p in range(ledger.partitions)], anchor, anchored
    )


def _anchor(ledger: Ledger, halts: dict[int, Halt], actor: str, timeout_s: float) -> tuple[str, bool, int | None]:
    """What became of the anchor, whether it is in the ledger, and the broker's time of it (None: not written)."""
    log = DriftLog(ledger)
    partition = partition_for(API_SOURCE.encode(), ledger.partitions)
    try:
        written = log.write_anchor(API_SOURCE, actor=actor, reason="status")
    except NotBegunError as error:
        return f"no anchor: {error}", False, None
    if partition in halts:
        text = f"anchor written ({written}); partition {partition} is halted, so it waits until the halt is lifted"
        return text, False, written.appended_ms
    try:
        entry = log.entry_of(written, timeout_s)
    except NotSequencedError:
        text = f"no worker took the anchor within {timeout_s:g} s; it is written ({written})"
        return f"{text} and sequenced when one runs: start `driftledger worker`", False, written.appended_ms
    return f"anchor {entry.id}, phase lock {entry.phase_lock_hash.hex()}", True, written.appended_ms


def _input_ends(ledger: Ledger) -> dict[int, int]:
    facts = ledger.log.topic(ledger.names.input)
    if facts is None:
        return {}
    return ledger.log.ends(ledger.names.input, range(min(facts.partitions, ledger.partitions)))


def _standing(
    ledger: Ledger, partition: int, halt: Halt | None, ends: dict[int, int], now_ms: int | None
) -> PartitionStatus:
    lane = ledger.lane_of(partition)
    tail = ledger.tail(partition)
    if tail is None:
        lag = ends[partition] - ledger.log.bounds(ledger.names.input, partition).start if partition in ends else -1
        standing = LaneStanding.HALTED if halt else LaneStanding.EMPTY
        return PartitionStatus(partition, lane, standing, 0, 0, lag, None, halt)
    live_ms = max(_LIVE_HEARTBEATS * ledger.settings.heartbeat_interval_ms, _LIVE_MS_MIN)
    if halt:
        standing = LaneStanding.HALTED
    elif now_ms is not None and now_ms - tail.authority_ms <= live_ms:
        standing = LaneStanding.LIVE
    else:
        standing = LaneStanding.SILENT
    lag = max(0, ends[partition] - tail.head.input_offset - 1) if partition in ends else -1
    head = tail.head
    return PartitionStatus(partition, lane, standing, head.sequence, head.index, lag, tail.authority_ms, halt)
