"""Clocks that are wrong, a backlog and a silent partition, before a real worker: no honest event late, all closes."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streams import aggregates
from streams.aggregates import LateCounts, Result
from streams.aggregates_check import Range, check_partition
from streams.queries import Ledger as Reader
from streams.silent_partitions import closed_by_heartbeats
from streams.whole_windows import merged
from streams.windows import By, WindowDefinition
from tests.broker.harness import Ledger, event_value, time, wait_for
from tests.broker.ledgers import produce

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streams.aggregates import AggregateRecord
    from streams.whole_windows import WholeWindow

MS_US = 1_000
S_US = 1_000_000
SIZE_US = 500 * MS_US
MAX_BEHIND_US = 2 * S_US
WINDOWS = (
    WindowDefinition("by_source", SIZE_US, lateness_us=400 * MS_US, max_behind_us=MAX_BEHIND_US, early_us=200 * MS_US),
    WindowDefinition("whole", SIZE_US, by=By.ALL, whole=True, lateness_us=400 * MS_US, max_behind_us=MAX_BEHIND_US),
)
#: How far each clock is off.
OFF_US = {"pump": 0, "fan": 0, "day-ahead": 86_400 * S_US, "slow": -10 * S_US}
HONEST = ("pump", "fan")


@dataclass
class Fleet:
    """Sends an event of each source every 20 ms, as they come or for later. sent: by partition and honest window."""

    ledger: Ledger
    sent: dict[int, Counter[tuple[str, int]]] = field(default_factory=lambda: {0: Counter(), 1: Counter()})
    _number: int = 0

    def run(self, seconds: float, *partitions: int) -> None:
        """For so long, to those partitions."""
        end_ns = time.monotonic_ns() + int(seconds * 1e9)
        while time.monotonic_ns() < end_ns:
            for partition in partitions:
                self._send(partition)
            time.sleep_s(0.02)

    def _send(self, partition: int) -> None:
        made: list[Any] = []
        for source, off_us in OFF_US.items():
            local_us, self._number = time.now_us() + off_us, self._number + 1
            made.append((source.encode(), event_value(f"e{self._number}", source, local_us), []))
            if source in HONEST:
                self.sent[partition][source, local_us // SIZE_US * SIZE_US] += 1
        produce(self.ledger.settings, self.ledger.names.input, made, partition)


def _records(reader: Reader, partition: int) -> list[AggregateRecord]:
    ends = aggregates.ends(reader, partition)
    return list(aggregates.read(reader, partition, 0, ends[partition]))


def _finals(reader: Reader, partition: int) -> dict[tuple[str | None, int], int]:
    """Events of each closed window of honest sources."""
    return {
        (record.key, record.window_start_us): record.count
        for record in _records(reader, partition)
        if isinstance(record, Result) and record.final and record.key in HONEST
    }


def _wholes(reader: Reader) -> list[WholeWindow]:
    silent = closed_by_heartbeats(reader)
    results = [record for partition in (0, 1) for record in _records(reader, partition) if isinstance(record, Result)]
    return merged(reader, aggregates.last_revisions(results), silent, lambda _result: True)  # type: ignore[arg-type]


def _check_beside(reader: Reader, fleet: Fleet) -> Iterator[int]:
    """Windows compared in each partition while the worker and its producers go on."""
    producing = threading.Thread(target=fleet.run, args=(3.0, 0))
    producing.start()
    try:
        for partition in (0, 1):
            checks = check_partition(reader, partition, Range())
            assert [str(found) for check in checks for found in check.differences] == []
            yield sum(check.windows for check in checks)
    finally:
        producing.join()


def test_no_honest_event_is_late_and_every_window_closes(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """One source a day ahead, one 10 s slow; six seconds of backlog; a partition falls silent; checked meanwhile."""
    options = {"partitions": 2, "lanes": 1, "windows": WINDOWS, "heartbeat_interval_ms": 100, "batch_events_max": 50}
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, options).create()
    fleet = Fleet(ledger)
    with ledger.worker() as worker:
        worker.wait_live()
        fleet.run(1.5, 0, 1)
        worker.stop()
    fleet.run(6.0, 0)  # a backlog, three times max_behind long
    with ledger.worker() as worker, Reader(ledger.settings, kafka.bootstrap) as reader:
        worker.wait_live()
        fleet.run(1.0, 0)
        compared = list(_check_beside(reader, fleet))
        assert compared[0] > 2 * 12
        assert compared[1] > 0
        for partition, sent in fleet.sent.items():  # both fall silent: heartbeats close what is open
            wait_for(
                lambda p=partition, of_it=sent: _finals(reader, p) == dict(of_it), f"partition {partition} is closed"
            )
        late = [r for p in (0, 1) for r in _records(reader, p) if isinstance(r, LateCounts)]
        assert {r.source for r in late if r.late} <= {"slow"}
        assert {r.source for r in late if r.ahead} == {"day-ahead"}
        wholes = wait_for(lambda: _complete(_wholes(reader)), "every whole window is complete")
        honest = {start_us for sent in fleet.sent.values() for _, start_us in sent}
        assert honest <= {one.whole.window_start_us for one in wholes}
        worker.stop()


def _complete(wholes: list[WholeWindow]) -> list[WholeWindow]:
    """All of them, or none."""
    return wholes if all(one.whole.complete for one in wholes) else []
