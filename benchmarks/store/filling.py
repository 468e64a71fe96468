"""Rows into our hot tier by the product's own way: sequenced, chained, judged, folded to chunks, written to RocksDB.

Beside the store are the entries, in a file for each partition in the place of the ledger, and the rows that are in no
chunk yet, as the fold dumps them.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from benchmarks.events import SOURCE_BYTES
from benchmarks.store.entries_file import EntriesFile
from benchmarks.store.rows import PARTITIONS, event_bytes
from lifecycle import store_dump
from lifecycle.hot_store import HotStore
from lifecycle.store import Store
from schemas.clock import SystemTime
from schemas.instants import NS_PER_S
from schemas.memory import address_of
from streams import sequence
from streams.judge import Judge
from streams.records import allocate_records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.store.rows import Piece, Rows
    from lifecycle.store import StoreState

#: Entries of a transaction, at most.
_BATCH: Final = 5_000
_VALUE_BYTES_MAX: Final = 1_048_576
_time = SystemTime()


class Kept(NamedTuple):
    """Where all of it is."""

    folder: Path

    @property
    def hot(self) -> Path:
        """The hot store."""
        return self.folder / "hot"

    def entries(self, partition: int) -> EntriesFile:
        """Those of a partition."""
        return EntriesFile(self.entries_path(partition))

    def states(self) -> dict[int, StoreState]:
        """The rows that are in no chunk, published."""
        fold, states = Store(), {}
        for partition in range(PARTITIONS):
            states[partition] = store_dump.load(partition, self.state_path(partition).read_bytes())
            fold.publish(states[partition])
        return states

    def entries_path(self, partition: int) -> Path:
        """Their file."""
        return self.folder / f"entries-{partition}"

    def state_path(self, partition: int) -> Path:
        """Of the rows that are in no chunk."""
        return self.folder / f"unsealed-{partition}"


def fill(folder: Path, rows: Rows, *, long_payload: bool = False) -> float:
    """Store all rows below a new folder; returns the seconds that it took, without the making of the events."""
    kept = Kept(folder)
    folder.mkdir(parents=True)
    fold, judge = Store(), Judge()
    states = {partition: fold.new_state(partition) for partition in range(PARTITIONS)}
    judged = {partition: judge.new_state(partition) for partition in range(PARTITIONS)}
    heads = dict.fromkeys(range(PARTITIONS), sequence.Head())
    took_ns = 0
    with ExitStack() as stack:
        files = [stack.enter_context(kept.entries_path(each).open("wb")) for each in range(PARTITIONS)]
        store = HotStore.open(kept.hot)
        stack.callback(store.close)
        for partition, piece, some, texts in _batches(rows, long_payload=long_payload):
            began_ns = _time.monotonic_ns()
            before = heads[partition]
            heads[partition], sequenced = _sequenced(piece, some, texts, before)
            outputs = judge.step(judged[partition], sequenced.entries)
            store.write(fold.step(states[partition], sequenced.entries, outputs))
            took_ns += _time.monotonic_ns() - began_ns
            kept.entries(partition).append(files[partition], sequenced.entries, texts)
        began_ns = _time.monotonic_ns()
        store.flush()
        took_ns += _time.monotonic_ns() - began_ns
    for partition, state in states.items():
        kept.state_path(partition).write_bytes(store_dump.dump(state))
    return took_ns / NS_PER_S


def fill_long(folder: Path, rows: Rows) -> float:
    """As fill, with payloads of 63 bytes."""
    return fill(folder, rows, long_payload=True)


def _batches(rows: Rows, *, long_payload: bool) -> Iterator[tuple[int, Piece, NDArray[np.int64], NDArray[np.uint8]]]:
    """Partition, piece, rows of it and their events."""
    for piece in rows.pieces():
        for partition in range(PARTITIONS):
            of = piece.of(partition)
            for start in range(0, of.size, _BATCH):
                some = of[start : start + _BATCH]
                yield partition, piece, some, event_bytes(piece, some, long_payload=long_payload)


def _sequenced(
    piece: Piece, some: NDArray[np.int64], texts: NDArray[np.uint8], head: sequence.Head
) -> tuple[sequence.Head, sequence.Sequenced]:
    """Ledger entries of events, which point into texts."""
    count, width = texts.shape
    records = allocate_records(count)
    records.offset[:] = np.arange(head.sequence, head.sequence + count)
    records.timestamp_ms[:] = piece.authority_ms[some]
    records.key_address[:] = address_of(texts) + np.arange(count) * width
    records.key_length[:] = SOURCE_BYTES
    records.value_address[:] = records.key_address + SOURCE_BYTES
    records.value_length[:] = width - SOURCE_BYTES
    return sequence.advance(head, records, sequence.DATA, _VALUE_BYTES_MAX)
