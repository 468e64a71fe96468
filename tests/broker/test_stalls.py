"""A broker that stands still for seconds, as a busy machine's may, and goes on: it is not taken for a dead one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.clock import SystemTime
from streams.kafka_cluster import Cluster
from tests.broker.harness import Ledger, Load, check_exactly_once

if TYPE_CHECKING:
    from pathlib import Path

STALLS = 3
STALL_S = 3.0
EVENTS = 2_000
#: What Kafka says where a broker was fenced and is taken back: it gives its partitions up, and loads them again.
FENCED = "Unloaded transaction metadata"


def test_a_broker_that_stood_still_for_seconds_is_not_fenced_and_leaves_no_transaction_open(tmp_path: Path) -> None:
    """Several times, with transactions under way; the ledger is level soon after each, exactly once."""
    time = SystemTime()
    with Cluster(tmp_path / "kafka") as broker:
        options = {"partitions": 4, "batch_events_max": 50, "heartbeat_interval_ms": 200}
        ledger = Ledger(broker.bootstrap, "stall", tmp_path, options).create()
        load = Load(ledger)
        with ledger.worker() as worker:
            for _ in range(STALLS):
                load.send(EVENTS)
                time.sleep_s(0.3)
                broker.pause()
                time.sleep_s(STALL_S)
                broker.resume()
                load.flush()
                ledger.wait_level(worker)
            worker.stop()
        assert "partition_halted" not in worker.output
        assert check_exactly_once(ledger) == STALLS * EVENTS
        [node] = broker.directory.glob("node-*")
        assert FENCED not in (node / "output.log").read_text()
