"""The broker dies under load and comes back: nothing that was acknowledged is lost, and work goes on."""

from __future__ import annotations

import contextlib
import hashlib
import struct
import threading
from typing import TYPE_CHECKING

import pytest

from schemas.errors import HaltCode, UnreachableError
from streams.kafka_cluster import Cluster
from streams.transactions import Point
from tests.broker.harness import (
    POLL_BROKER_S,
    QUICK,
    Blow,
    Ledger,
    Load,
    check_exactly_once,
    read_ledger,
    refold,
    time,
    wait_for,
)

if TYPE_CHECKING:
    from pathlib import Path

    from streams.log import Log
    from streams.sequence import Head

#: The bar of this row.
GOES_ON_WITHIN_S = 15.0
#: Of a record batch in a log segment: places of its length (of what follows it) and attributes, and a flag of these.
_LENGTH_AT, _ATTRIBUTES_AT, _CONTROL_BATCH = 8, 21, 0x20
#: The time of its last record.
_WRITTEN_AT = 35


def _indexes(ledger: Ledger) -> list[int]:
    """The last index of each partition; none where the broker does not answer, as it does at first."""
    try:
        heads = [ledger.head(p) for p in ledger.partitions]
    except UnreachableError:
        return []
    return [0 if head is None else head.index for head in heads]


def _end(log: Log, topic: str) -> int:
    """Of partition 0; 0 where the broker does not answer, or not with what it has."""
    with contextlib.suppress(UnreachableError):
        return log.ends(topic, [0])[0]
    return 0


def _is_stable(log: Log, topic: str) -> bool:
    """Whether partition 0 has records and no open transaction; not where the broker does not answer."""
    with contextlib.suppress(UnreachableError):
        bounds = log.bounds(topic, 0)
        return 0 < bounds.end == bounds.stable_end
    return False


def _check_acknowledged(ledger: Ledger, load: Load) -> None:
    for partition in ledger.partitions:
        written = read_ledger(ledger, partition)
        hashes = {row.offset: row.value_hash for row in written.data}
        for offset, value in load.acknowledged[partition]:
            assert hashes[offset] == hashlib.sha256(value).digest(), f"{partition}@{offset}"


@pytest.mark.alone
def test_a_broker_that_is_killed_under_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Killed while a commit is under way, away for some seconds, started again."""
    with Cluster(tmp_path / "kafka") as cluster:
        ledger = Ledger(cluster.bootstrap, "restart", tmp_path, {"windows": QUICK}).create()
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
            beats = {p: len(read_ledger(ledger, p).control) for p in ledger.partitions}
            wait_for(lambda: all(len(read_ledger(ledger, p).control) > n for p, n in beats.items()), "heartbeats go on")
            worker.stop()
        assert again_s < GOES_ON_WITHIN_S
        _check_acknowledged(ledger, load)
        check_exactly_once(ledger)
        assert ledger.outputs() == refold(ledger)


def _batch_ends(segment: bytes, *, markers_only: bool) -> list[int]:
    """Where the record batches of a log segment end, or only those that are the marker of a transaction."""
    ends, at = [], 0
    while at < len(segment):
        [length] = struct.unpack_from(">i", segment, at + _LENGTH_AT)
        [attributes] = struct.unpack_from(">h", segment, at + _ATTRIBUTES_AT)
        at += _LENGTH_AT + 4 + length
        if not markers_only or attributes & _CONTROL_BATCH:
            ends.append(at)
    return ends


def _truncate(cluster: Cluster, topic: str, *, markers_only: bool = False) -> None:
    """Cut partition 0 of a topic to its first half while its broker is down, as an election of a stale replica does."""
    segment = _segment(cluster, topic)
    size = segment.stat().st_size
    _cut(segment, max(end for end in _batch_ends(segment.read_bytes(), markers_only=markers_only) if end <= size // 2))


def _segment(cluster: Cluster, topic: str) -> Path:
    [folder] = cluster.directory.glob(f"**/{topic}-0")
    [segment] = folder.glob("*.log")
    return segment


def _cut(segment: Path, end: int) -> None:
    folder = segment.parent
    with segment.open("r+b") as file:
        file.truncate(end)
    for pattern in ("*.index", "*.timeindex", "*.txnindex", "*.snapshot"):
        for index in folder.glob(pattern):
            index.unlink()
    (folder.parent / "recovery-point-offset-checkpoint").unlink(missing_ok=True)


def _lose_marker(cluster: Cluster, topic: str, since_ms: int) -> int:
    """Cut the last batch of partition 0 if it is a marker written since then, while the broker is down.

    Returns when the batch before was written.
    """
    segment = _segment(cluster, topic)
    content = segment.read_bytes()
    ends = [0, *_batch_ends(content, markers_only=False)]
    if len(ends) < len(("before", "last", "end")):
        return 0
    before, last = ends[-3], ends[-2]
    [attributes] = struct.unpack_from(">h", content, last + _ATTRIBUTES_AT)
    [written_ms] = struct.unpack_from(">q", content, last + _WRITTEN_AT)
    if attributes & _CONTROL_BATCH and written_ms >= since_ms:
        _cut(segment, last)
    return int(struct.unpack_from(">q", content, before + _WRITTEN_AT)[0])


def _run_for(ledger: Ledger, heartbeats: int) -> Head:
    """Let a worker bring a ledger level and go on for some heartbeats; the head of partition 0 then."""
    load = Load(ledger)
    with ledger.worker() as worker:
        for _ in range(10):
            load.send(400)
            load.flush()  # each a batch of its own, so that a log can be cut between them
        ledger.wait_level(worker)
        wait_for(lambda: len(read_ledger(ledger, 0).control) > heartbeats, "some heartbeats", poll_s=POLL_BROKER_S)
        worker.stop()
    head = ledger.head(0)
    assert head is not None
    return head


def test_what_a_broker_loses_behind_our_back_halts(tmp_path: Path) -> None:
    """An input that was cut and has grown past the ledger again, and a ledger that lost its last seconds.

    All offsets of that input exist, but hold other records: only the leader epoch of the last one sequenced tells. In
    that ledger nothing is wrong, except that it ends too early: other topics say so, and nothing is written there.
    """
    with Cluster(tmp_path / "kafka") as cluster:
        quick = {"partitions": 2, "heartbeat_interval_ms": 200}
        grown = Ledger(cluster.bootstrap, "grown", tmp_path, quick).create()
        short = Ledger(cluster.bootstrap, "short", tmp_path, quick).create()
        stands, ended = _run_for(grown, heartbeats=5), _run_for(short, heartbeats=40)
        cluster.kill()
        _truncate(cluster, grown.names.input)
        _truncate(cluster, short.names.sequenced, markers_only=True)
        assert cluster.start() == grown.bootstrap

        with grown.log() as log:
            assert wait_for(lambda: _end(log, grown.names.input), "the input answers") <= stands.input_offset
            load = Load(grown, seed=2)  # another client: the first one would miss what it had sent
            while log.ends(grown.names.input, [0])[0] <= stands.input_offset + 100:
                load.send(1_000)
                load.flush()
        with grown.worker() as worker:
            wait_for(grown.halts, f"it halts:\n{worker.output[-3000:]}")
            grown.wait_level(worker, [1])
            worker.stop()
        assert {p: halt.code for p, halt in grown.halts().items()} == {0: HaltCode.INPUT_TRUNCATED}
        written = grown.head(0)
        assert written is not None
        assert (written.sequence, written.input_offset) == (stands.sequence, stands.input_offset)
        check_exactly_once(grown, [1])

        cut = short.head(0)
        assert cut is not None
        assert cut.index < ended.index - 10
        with short.worker() as worker:
            wait_for(short.halts, f"it halts:\n{worker.output[-3000:]}")
            short.wait_level(worker, [1])
            worker.stop()
        assert {p: halt.code for p, halt in short.halts().items()} == {0: HaltCode.LEDGER_TAIL_LOST}
        assert short.head(0) == cut
        check_exactly_once(short, [1])


def test_a_commit_whose_markers_were_not_written_is_one_after_a_restart(tmp_path: Path) -> None:
    """The broker dies when it has decided to commit, before it writes a marker: not rare where commits never end."""
    with Cluster(tmp_path / "kafka") as cluster:
        options = {"partitions": 1, "heartbeat_interval_ms": 200, "windows": QUICK}
        ledger = Ledger(cluster.bootstrap, "decided", tmp_path, options).create()
        ended = _run_for(ledger, heartbeats=5)
        cluster.kill()
        names = ledger.names
        since_ms = _lose_marker(cluster, names.sequenced, 0)
        for topic in (*names.outputs, names.progress):
            _lose_marker(cluster, topic, since_ms)
        [decided] = [log for log in cluster.directory.glob("**/__transaction_state-*/*.log") if log.stat().st_size]
        _cut(decided, _batch_ends(decided.read_bytes(), markers_only=False)[-2])  # without: it is complete
        assert cluster.start() == ledger.bootstrap
        with ledger.log() as log:
            wait_for(lambda: _is_stable(log, names.sequenced), "the end of the ledger is committed")
        assert ledger.head(0) == ended
        with ledger.worker() as worker:
            load = Load(ledger, seed=2)
            load.send(1_000)
            load.flush()
            ledger.wait_level(worker)
            worker.stop()
        check_exactly_once(ledger)
        assert ledger.outputs() == refold(ledger)
