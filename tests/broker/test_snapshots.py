"""Snapshots on a real broker: written, read back."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streams.snapshots import CHUNK_BYTES, Snapshot, SnapshotWriter, read_snapshots
from tests.broker.harness import Ledger, wait_for

if TYPE_CHECKING:
    from pathlib import Path


def test_the_two_newest_snapshots_are_read_back(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Of several chunks; the third has taken the place of the first."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path).create()
    state = random.Random(1).randbytes(3 * CHUNK_BYTES + 1)
    written = [Snapshot("judge", 1, 1, index, bytes(32), state) for index in (7, 8, 9)]
    writer = SnapshotWriter(kafka.bootstrap, ledger.names.snapshots, 1)
    for snapshot in written:
        wait_for(writer.ready, "the writer is free")
        assert writer.offer([replace(snapshot, state=state + bytes([snapshot.index]))])
    writer.close()
    with ledger.log() as log:
        found = read_snapshots(log, ledger.names.snapshots, 1)
    assert [(snapshot.index, snapshot.state == state + bytes([snapshot.index])) for snapshot in found] == [
        (9, True),
        (8, True),
    ]
