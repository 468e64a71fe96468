"""The state of a ledger at a glance, from the broker alone; asking records an anchor.

Problem: when something is wrong the worker may be the thing that is gone, so its status cannot be asked of the worker.
Everything here is read from the topics: tails, halts, the ends of the input. The anchor is the one thing that needs a
lane, and so it is the probe: taken into the ledger in time, a lane works; if not, the rest is shown all the same. Nor
does a partition whose ledger cannot be read hide the others. Only how hot tiers and windows stand is in no topic: that
is asked of the ledger's workers on this machine, and not known of partitions that others serve.

How old an entry is, is told by the broker's time of the anchor. HAZARD where none could be written it is told by the
clock of this machine or the newest entry, whichever is later: if that clock is fast, a live partition looks silent.
HAZARD a lag counts offsets: where the input is written in transactions it counts their markers and aborted records too,
so it is the most that is left, and 0 is exact.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.clock import source as time_source
from schemas.errors import HaltError
from schemas.instants import US_PER_MS, format_ms
from streams.address import ASK_TIMEOUT_S, find_workers
from streams.drift_log import API_ACTOR, API_SOURCE, DriftLog, HaltedError, NotBegunError, NotSequencedError
from streams.halts import read_halts
from streams.lock_log import LockLog
from streams.overview import parse_health
from streams.worker_http import ask

if TYPE_CHECKING:
    from streams.halts import Halt
    from streams.ledger_reader import Tail
    from streams.locks import Lock
    from streams.overview import Health, Hot, InForce
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
    #: Somebody locked it; whether it is written besides, the anchor tells.
    LOCKED = "locked"
    #: The last record of the ledger is no entry.
    BROKEN = "broken"
    #: No entry yet.
    EMPTY = "empty"


class PartitionStatus(NamedTuple):
    """Of one partition. lag: input offsets that are not in the ledger; None where that cannot be told.

    broken: why the ledger's end cannot be read; then there are no maxima either. hot: None where no worker says it.
    locks: those that are engaged, that of the partition first.
    """

    partition: int
    lane: int
    standing: LaneStanding
    max_sequence: int | None
    max_index: int | None
    input_lag_offsets: int | None
    last_authority_ms: int | None
    halt: Halt | None = None
    broken: HaltError | None = None
    hot: Hot | None = None
    locks: tuple[Lock, ...] = ()

    def row(self) -> dict[str, Any]:
        """For a listing."""
        trouble = self.halt or self.broken
        lock = self.locks[0] if self.locks and trouble is None else None
        return {
            "partition": self.partition,
            "lane": self.lane,
            "state": self.standing,
            "halt": self.halt.code if self.halt else None,
            "locks": len(self.locks),
            "max_sequence": self.max_sequence,
            "max_index": self.max_index,
            "input_lag_offsets": self.input_lag_offsets,
            "last_authority_ms": self.last_authority_ms,
            "last_authority": None if self.last_authority_ms is None else format_ms(self.last_authority_ms),
            "hot": None if self.hot is None else str(self.hot),
            "hot_error": None if self.hot is None else self.hot.error,
            "detail": trouble.detail if trouble else f"{lock.what} is {lock.since}" if lock else None,
            "remedy": trouble.remedy if trouble else lock.remedy if lock else None,
        }


class Status(NamedTuple):
    """All of a ledger. anchor: what became of it, in words; anchored: whether it is in the ledger.

    windows: those in force in the partitions that workers of this machine serve.
    """

    partitions: list[PartitionStatus]
    anchor: str
    anchored: bool
    windows: list[InForce]

    @property
    def halts(self) -> list[Halt]:
        """Of all partitions."""
        return [partition.halt for partition in self.partitions if partition.halt is not None]

    @property
    def locks(self) -> list[Lock]:
        """Of all partitions."""
        return [lock for partition in self.partitions for lock in partition.locks]

    @property
    def broken(self) -> list[HaltError]:
        """Of all partitions."""
        return [partition.broken for partition in self.partitions if partition.broken is not None]


def read_status(ledger: Ledger, *, actor: str = API_ACTOR, timeout_s: float) -> Status:
    """Record an anchor, wait for it for at most timeout_s, and tell how every partition stands."""
    halts = {halt.partition: halt for halt in read_halts(ledger)}
    anchor, anchored, now_ms = _anchor(ledger, actor, timeout_s)
    ends = _input_ends(ledger)
    tails = [_tail(ledger, p) for p in range(ledger.partitions)]
    if now_ms is None:
        newest_ms = (tail.authority_ms for tail in tails if tail is not None and not isinstance(tail, HaltError))
        now_ms = max(time_source().now_us() // US_PER_MS, *newest_ms, 0)
    partitions = [_standing(ledger, p, tail, halts.get(p), ends.get(p), now_ms) for p, tail in enumerate(tails)]
    locks = LockLog(ledger).locks()
    partitions = [_locked(p, tuple(lock for lock in locks if lock.partition == p.partition)) for p in partitions]
    healths = _workers_say(ledger)
    hot = {state.partition: state.hot for health in healths for state in health.partitions}
    windows = sorted((window for health in healths for window in health.windows), key=lambda window: window[:3])
    return Status([p._replace(hot=hot.get(p.partition)) for p in partitions], anchor, anchored, windows)


def _locked(partition: PartitionStatus, locks: tuple[Lock, ...]) -> PartitionStatus:
    """With its locks; one of the whole partition is what is to be known of it before whether it is written."""
    whole = any(lock.scope is None for lock in locks)
    shows = whole and partition.standing in (LaneStanding.LIVE, LaneStanding.SILENT, LaneStanding.EMPTY)
    return partition._replace(locks=locks, standing=LaneStanding.LOCKED if shows else partition.standing)


def _workers_say(ledger: Ledger) -> list[Health]:
    """The health of each worker of the ledger on this machine that answers."""
    token = ledger.settings.token
    answers = [ask(worker.address, "/health", ASK_TIMEOUT_S, token) for worker in find_workers(ledger.settings)]
    return [parse_health(answer) for answer in answers if answer is not None]


def _anchor(ledger: Ledger, actor: str, timeout_s: float) -> tuple[str, bool, int | None]:
    """What became of the anchor, whether it is in the ledger, and the broker's time of it (None: not written)."""
    log = DriftLog(ledger)
    try:
        written = log.write_anchor(API_SOURCE, actor=actor, reason="status")
    except NotBegunError as error:
        return f"no anchor: {error}", False, None
    try:
        entry = log.entry_of(written, timeout_s)
    except HaltedError as error:
        text = f"partition {error.halt.partition} is halted, so it waits until the halt is lifted"
        return f"anchor written ({written}); {text}", False, written.appended_ms
    except HaltError as error:
        text = f"the ledger of partition {error.partition} cannot be read, so whether it was taken is not known"
        return f"anchor written ({written}); {text}", False, written.appended_ms
    except NotSequencedError:
        text = f"no worker took the anchor within {timeout_s:g} s; it is written ({written})"
        return f"{text} and sequenced when one runs: start `driftledger worker`", False, written.appended_ms
    return f"anchor {entry.id}, phase lock {entry.phase_lock_hash.hex()}", True, written.appended_ms


def _input_ends(ledger: Ledger) -> dict[int, int]:
    facts = ledger.log.topic(ledger.names.input)
    if facts is None:
        return {}
    return ledger.log.ends(ledger.names.input, range(min(facts.partitions, ledger.partitions)))


def _tail(ledger: Ledger, partition: int) -> Tail | HaltError | None:
    """The last entry, or why it cannot be read."""
    try:
        return ledger.tail(partition)
    except HaltError as error:
        return error


def _standing(
    ledger: Ledger, partition: int, tail: Tail | HaltError | None, halt: Halt | None, end: int | None, now_ms: int
) -> PartitionStatus:
    lane = ledger.lane_of(partition)
    if isinstance(tail, HaltError):
        return PartitionStatus(partition, lane, LaneStanding.BROKEN, None, None, None, None, halt, tail)
    if tail is None:
        lag = None if end is None else end - ledger.log.bounds(ledger.names.input, partition).start
        standing = LaneStanding.HALTED if halt else LaneStanding.EMPTY
        return PartitionStatus(partition, lane, standing, 0, 0, lag, None, halt)
    live_ms = max(_LIVE_HEARTBEATS * ledger.settings.heartbeat_interval_ms, _LIVE_MS_MIN)
    if halt:
        standing = LaneStanding.HALTED
    elif now_ms - tail.authority_ms <= live_ms:
        standing = LaneStanding.LIVE
    else:
        standing = LaneStanding.SILENT
    head = tail.head
    lag = None if end is None else max(0, end - head.input_offset - 1)
    return PartitionStatus(partition, lane, standing, head.sequence, head.index, lag, tail.authority_ms, halt)
