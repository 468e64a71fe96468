"""The broker dies under load and comes back: nothing that was acknowledged is lost, and work goes on."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

from schemas.errors import HaltCode, UnreachableError
from streams.broker import Cluster
from streams.lane import Point
from tests.broker.harness import Blow, Ledger, Load, check_exactly_once, read_ledger, time, wait_for

if TYPE_CHECKING:
    from pathlib import Path

#: The bar of this row.
GOES_ON_WITHIN_S = 15.0


def _indexes(ledger: Ledger) -> list[int]:
    """The last index of each partition; none where the broker does not answer, as it does at first."""
    try:
        heads = [ledger.head(p) for p in ledger.partitions]
    except UnreachableError:
        return []
    return [0 if head is None else head.index for head in heads]


def _check_acknowledged(ledger: Ledger, load: Load) -> None:
    for partition in ledger.partitions:
        written = read_ledger(ledger, partition)
        hashes = dict(zip(written.input_offsets.tolist(), written.value_hashes, strict=True))
        for offset, value in load.acknowledged[partition]:
            assert hashes[offset] == hashlib.sha256(value).digest(), f"{partition}@{offset}"


def test_a_broker_that_is_killed_under_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Killed while a commit is under way, away for some seconds, started again."""
    with Cluster(tmp_path / "kafka") as cluster:
        ledger = Ledger(cluster.bootstrap, "restart", tmp_path).create()
        load = Load(ledger)
        [broker] = cluster.pids
        done = threading.Event()

        def send() -> None:
            while not done.wait(0.05):
                load.send(100)

        sender = threading.Thread(target=send)
        # A few ms into a commit: a transaction that is prepared and not complete, or one whose answer is lost.
        with ledger.worker(Blow(Point.COMMITTING, 150, delay_us=2_000, target=broker)) as worker:
            sender.start()
            try:
                wait_for(lambda: not cluster.pids, f"the broker is killed:\n{worker.output[-3000:]}")
                wait_for(lambda: worker.health()[0] == 503, "health says that the broker is away")
                assert cluster.start() == ledger.bootstrap
                back_ns = time.monotonic_ns()
                before = wait_for(lambda: _indexes(ledger), "the broker answers again")
                wait_for(
                    lambda: any(now := _indexes(ledger)) and all(a < b for a, b in zip(before, now, strict=True)),
                    f"every partition goes on:\n{worker.output[-3000:]}",
                )
                again_s = (time.monotonic_ns() - back_ns) / 1e9
            finally:
                done.set()
                sender.join()
            load.flush()
            ledger.wait_level(worker)
            wait_for(lambda: worker.health()[0] == 200, "healthy again")
            beats = {p: read_ledger(ledger, p).controls for p in ledger.partitions}
            wait_for(lambda: all(read_ledger(ledger, p).controls > n for p, n in beats.items()), "heartbeats go on")
            worker.stop()
        assert again_s < GOES_ON_WITHIN_S
        _check_acknowledged(ledger, load)
        check_exactly_once(ledger)


def _truncate(partition_folder: Path) -> None:
    """Cut a partition's log to its first half while its broker is down, as an election of a stale replica does."""
    [segment] = partition_folder.glob("*.log")
    with segment.open("r+b") as file:
        file.truncate(segment.stat().st_size // 2)
    for pattern in ("*.index", "*.timeindex", "*.txnindex", "*.snapshot"):
        for index in partition_folder.glob(pattern):
            index.unlink()
    (partition_folder.parent / "recovery-point-offset-checkpoint").unlink()


def test_an_input_that_was_cut_and_has_grown_past_the_ledger_again_halts(tmp_path: Path) -> None:
    """Its offsets all exist, but hold other records: only the leader epoch of the last one sequenced tells."""
    with Cluster(tmp_path / "kafka") as cluster:
        ledger = Ledger(cluster.bootstrap, "truncated", tmp_path, {"partitions": 2}).create()
        load = Load(ledger)
        load.send(4_000)
        load.flush()
        with ledger.worker() as worker:
            ledger.wait_level(worker)
            worker.stop()
        stands = ledger.head(0)
        assert stands is not None
        cluster.kill()
        [folder] = (tmp_path / "kafka").glob(f"**/{ledger.names.input}-0")
        _truncate(folder)
        assert cluster.start() == ledger.bootstrap
        with ledger.log() as log:
            wait_for(lambda: log.ends(ledger.names.input, [0])[0] <= stands.input_offset, "the input is shorter")
            while log.ends(ledger.names.input, [0])[0] <= stands.input_offset + 100:
                load.send(2_000)
                load.flush()
        with ledger.worker() as worker:
            wait_for(ledger.halts, f"it halts:\n{worker.output[-3000:]}")
            worker.stop()
        assert {p: halt.code for p, halt in ledger.halts().items()} == {0: HaltCode.INPUT_TRUNCATED}
        assert ledger.head(0) == stands
