"""Data over all tiers on a real ledger: it leaves the hot tier and comes back by the rules, and no answer changes."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lifecycle.hot_store import HotStore
from lifecycle.keeper import Keeper
from lifecycle.owned import OwnedLane
from lifecycle.reader import Reader, explanation
from schemas.clock import SkewedTime, Step, SystemTime, using
from tests.broker.harness import Ledger, Load, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

DAY_NS = 86_400 * 10**9
EVENTS = 60_000


class OneStore:
    """What a keeper asks of a lane's hot tier."""

    def __init__(self, store: HotStore) -> None:
        self._store = store

    @contextmanager
    def reading(self) -> Iterator[HotStore]:
        """It, for as long as it is wanted."""
        yield self._store


def answers(ledger: Ledger) -> tuple[list[pa.Table], dict[str, Any]]:
    """To some questions, without a worker, and how the last was found."""
    reader = Reader(ledger.settings)
    found = [
        reader.aggregate(by="source", percentiles=[50, 99]),
        reader.aggregate(window_ms=1_000),
        reader.temporal_range_query(limit=EVENTS, columns=["partition", "sequence", "event_id", "value", "payload"]),
    ]
    return [table.replace_schema_metadata() for table in found], explanation(found[-1])


def turn(ledger: Ledger, folder: Path, days: float, reads: int = 0) -> int:
    """Let a keeper look, so many days later; returns how many chunks are away then."""
    store = HotStore.open(folder)
    tier: Any = OneStore(store)
    with using(SkewedTime(SystemTime(), Step(int(days * DAY_NS)))):
        keeper = Keeper(ledger.settings, ledger.bootstrap, lambda: [OwnedLane((0,), {}, tier)])
        keeper.turn(ledger.folder)
        for _ in range(reads):
            keeper.note(0, [1])
        if reads:
            keeper.turn(ledger.folder)
        keeper.close()
    away = int(store.away(0).size)
    store.close()
    return away


def test_what_is_old_leaves_and_what_is_read_comes_back(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Sealed, joined, sent away, asked for, brought back: each time the same answers."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 1, "lanes": 1}).create()
    load = Load(ledger)
    load.send(EVENTS)
    load.flush()
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        wait_for(lambda: worker.output.count("hot_tier_level") == 1, "it is hot")
        worker.stop()
    (folder,) = ledger.settings.data_dir.glob("hot/*/*/lane-0")
    wanted, _ = answers(ledger)

    assert turn(ledger, folder, 6) == 0
    gone = turn(ledger, folder, 9)
    assert gone >= EVENTS // 8_192 - 1
    found, how = answers(ledger)
    assert found == wanted
    assert how["chunks_archived"] == gone

    assert turn(ledger, folder, 9.5, reads=2_000) == gone  # it left less than a day ago
    assert turn(ledger, folder, 10.5, reads=2_000) == 0
    found, how = answers(ledger)
    assert found == wanted
    assert how["chunks_archived"] == 0


def test_a_worker_looks_after_its_data(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """It counts what is read, and has nothing to do; a rule that cannot be is said, and lanes go on."""
    ledger = Ledger(
        kafka.bootstrap, prefix, tmp_path, {"partitions": 2, "lanes": 1, "lifecycle_interval_s": 1}
    ).create()
    load = Load(ledger)
    load.send(20_000)
    load.flush()
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        wait_for(lambda: worker.output.count("hot_tier_level") == 2, "it is hot")
        usage = tmp_path / "hot" / "0" / f"{ledger.names.manifest}.usage.json"
        wait_for(usage.exists, "it looked")
        Reader(ledger.settings).temporal_range_query(limit=10)
        wait_for(lambda: json.loads(usage.read_text()), "the question was counted")
        assert "lifecycle_failed" not in worker.output
        rules = tmp_path / "temporal" / f"{prefix}.events" / "configuration" / "lifecycle_rules.json"
        rules.parent.mkdir(parents=True)
        rules.write_text('{"version": 1, "recent_days": 0}')
        wait_for(lambda: "lifecycle_failed" in worker.output, "the rule is refused")
        assert "recent_days" in worker.output
        load.send(1_000)
        load.flush()
        ledger.wait_level(worker)
        worker.stop()
