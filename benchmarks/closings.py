"""How soon the results of a window can be read once the event that closes it was produced.

A thread reads the aggregates topic, read_committed, and notes for each entry that closed windows when the first of its
final results was in its hands. The events come from the ledger, by another reader; an entry is matched by partition and
index once all is over. Heartbeats close windows too; those are not counted, for nobody produced them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

from benchmarks.figures import Latencies
from benchmarks.ledger_check import open_ledger
from schemas.canonical import EntryKind
from schemas.clock import SystemTime
from schemas.memory import bytes_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from schemas.columns import Entries, Events
    from streams.rdkafka import Batch

_ROWS_MAX: Final = 5_000
_WAIT_MS: Final = 20
_DATA: Final = int(EntryKind.DATA)
_time = SystemTime()


class Closings:
    """Reads results from the moment it is made. note and latencies are for one thread."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self._consumer = open_ledger(bootstrap, topic, list(range(partitions)), fetch_wait_max_ms=10)
        self._partitions = partitions
        self._seen_us: dict[tuple[int, int], int] = {}
        self._produced: list[list[NDArray[np.int64]]] = [[] for _ in range(partitions)]
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="closings", daemon=True)
        self._thread.start()

    def note(self, batch: Batch, entries: Entries, events: Events) -> None:
        """Entries of the ledger as they were read, partition by partition."""
        for partition in range(self._partitions):
            rows = slice(int(batch.starts[partition]), int(batch.ends[partition]))
            data = entries.kind[rows] == _DATA
            self._produced[partition].append(np.stack([entries.index[rows][data], events.local_us[rows][data]]))

    def latencies(self, from_us: int) -> Latencies:
        """Of the closings by events that were produced from an instant on."""
        found = Latencies()
        for partition, parts in enumerate(self._produced):
            indexes, produced_us = np.concatenate(parts, axis=1) if parts else np.zeros((2, 0), np.int64)
            closed = np.array(sorted((i, at) for (p, i), at in self._seen_us.items() if p == partition), np.int64)
            closed = closed.reshape(-1, 2)
            places = np.searchsorted(indexes, closed[:, 0])
            known = places < indexes.size
            known[known] = indexes[places[known]] == closed[known, 0]
            begun_us = produced_us[places[known]]
            counted = begun_us >= from_us
            found.add((closed[known, 1] - begun_us)[counted])
        return found

    def close(self) -> None:
        """End the thread and the consumer."""
        self._ending.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            batch = self._consumer.fetch(_ROWS_MAX, _WAIT_MS)
            now_us = _time.now_us()
            if batch is None:
                continue
            try:
                self._take(batch, now_us)
            finally:
                batch.release()

    def _take(self, batch: Batch, now_us: int) -> None:
        records = batch.records
        for partition in range(self._partitions):
            for row in range(int(batch.starts[partition]), int(batch.ends[partition])):
                value = orjson.loads(bytes_at(int(records.value_address[row]), int(records.value_length[row])))
                if value.get("final"):
                    self._seen_us.setdefault((partition, value["at_index"]), now_us)
