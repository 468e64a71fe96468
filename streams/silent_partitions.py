"""How far a partition has closed its windows though it gives no result of them: told by its heartbeats.

Problem: a whole window is complete once each partition has closed it, and a partition in which nothing happens says so
by no result. Its heartbeats do: a HEARTBEAT entry moves the watermark of each definition to the frontier it proves,
less max_behind_ms (see `derive_kernel`).

    read the ledger's tail --> derive is level with it --> no transaction hides its results --> read what is in force
    --> read the results

GUARANTEE whoever reads the results after `closed_by_heartbeats` has read those of every window that it calls closed.
HAZARD a partition with more than 20,000 entries since its last heartbeat is not told of; its results tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from schemas.clock import source as time_source
from streams.control import control_values, is_heartbeat, read_control
from streams.derive import DERIVE
from streams.fold_progress import NO_PROGRESS
from streams.progress import read_lane
from streams.window_admin import read_windows

if TYPE_CHECKING:
    from streams.queries import Ledger
    from streams.windows import WindowDefinition

#: Heartbeats are looked for among so many entries, a fraction of a second's reading.
_BACK_ENTRIES: Final = 20_000
_US_PER_MS: Final = 1_000
_WAIT_S: Final = 0.02


class Silent(NamedTuple):
    """A version of a definition has closed its windows in a partition, by its heartbeats, up to that end."""

    definition: WindowDefinition
    partition: int
    version: int
    closed_us: int


def closed_by_heartbeats(ledger: Ledger) -> list[Silent]:
    """Of each definition with whole = true that is in force.

    Waits for transactions that are open, transaction_timeout_ms at most for each partition.
    """
    frontiers = [_frontier(ledger, partition) for partition in range(ledger.partitions)]
    found = []
    for window in read_windows(ledger):  # what is in force now was when its partition's heartbeat came, or has no say
        index, frontier_us = frontiers[window.partition]
        if window.definition.whole and window.suspended is None and window.version <= index:
            closed_us = frontier_us - window.definition.max_behind_us
            found.append(Silent(window.definition, window.partition, window.version, closed_us))
    return found


def _frontier(ledger: Ledger, partition: int) -> tuple[int, int]:
    """Index of a heartbeat and the frontier (us) it proves, all results up to there being readable; (0, 0) for none."""
    tail = ledger.tail(partition)
    if tail is None:
        return 0, 0
    found, frontier_ms = 0, 0
    begin = ledger.offset_of(partition, tail, max(1, tail.head.index - _BACK_ENTRIES), "index")
    for batch in ledger.batches(partition, tail, begin):
        for row, value in control_values(batch.entries):
            kind, body = read_control(value) if is_heartbeat(value) else ("", {})
            if kind == "Heartbeat" and (proved_ms := body["predecessor_appended_ms"]) is not None:
                found = int(batch.entries.index[row])
                frontier_ms = max(frontier_ms, min(proved_ms, int(batch.entries.authority_ms[row])))
    progress = read_lane(ledger.log, ledger.names.progress, ledger.lane_of(partition)).folds.get(DERIVE, NO_PROGRESS)
    if progress.done(partition, tail.head.index) < found or not _readable(ledger, partition):
        return 0, 0
    return found, frontier_ms * _US_PER_MS


def _readable(ledger: Ledger, partition: int) -> bool:
    """Wait until all results that were written by now can be read; False where they cannot after a while."""
    clock, topic = time_source(), ledger.names.aggregates
    deadline_ns = clock.monotonic_ns() + ledger.settings.transaction_timeout_ms * 1_000_000
    end = ledger.log.bounds(topic, partition).end
    while ledger.log.bounds(topic, partition).stable_end < end:
        if clock.monotonic_ns() >= deadline_ns:
            return False
        clock.sleep_s(_WAIT_S)
    return True
