"""How far a partition has closed its windows though it gives no result of them: told by its heartbeats.

Problem: a whole window is complete once each partition has closed it, and a partition in which nothing happens says so
by no result. Its heartbeats do: a HEARTBEAT entry moves the watermark of each definition to the frontier it proves,
less max_behind_ms (see `derive_kernel`).

    read the ledger's tail --> derive is level with it --> no transaction hides its results --> read the results

GUARANTEE whoever reads the results after `closed_by_heartbeats` has read those of every window that it calls closed.
HAZARD a partition with more than 20,000 entries since its last heartbeat is not told of; its results tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.clock import source as time_source
from streams.control import control_values, is_heartbeat, read_control
from streams.derive import DERIVE
from streams.fold_progress import NO_PROGRESS
from streams.progress import read_lane
from streams.window_admin import read_windows

if TYPE_CHECKING:
    from streams.queries import Ledger

_BACK: Final = 20_000
_US_PER_MS: Final = 1_000
_WAIT_S: Final = 0.02


def closed_by_heartbeats(ledger: Ledger) -> dict[str, dict[int, int]]:
    """By canonical body of a definition with whole = true, and by partition: the end (us) up to which all is closed.

    Waits for transactions that are open, transaction_timeout_ms at most for each partition.
    """
    closed: dict[str, dict[int, int]] = {}
    whole = [window for window in read_windows(ledger) if window.definition.whole and window.suspended is None]
    for partition in sorted({window.partition for window in whole}):
        index, frontier_us = _frontier(ledger, partition)
        for window in whole:
            if window.partition == partition and window.version <= index:
                of_it = closed.setdefault(window.definition.canonical(), {})
                of_it[partition] = frontier_us - window.definition.max_behind_us
    return closed


def _frontier(ledger: Ledger, partition: int) -> tuple[int, int]:
    """Index of a heartbeat and the frontier (us) it proves, all results up to there being readable; (0, 0) for none."""
    tail = ledger.tail(partition)
    if tail is None:
        return 0, 0
    found, frontier_ms = 0, 0
    begin = ledger.offset_of(partition, tail, max(1, tail.head.index - _BACK), "index")
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
