"""The alerts topic while workers are killed at any moment: each record once, in order, byte for byte as judge says.

Events come all the time, of clocks and ways that go wrong and come right again, so alerts open, change and close in
whatever is under way when a worker dies. Three others say what the topic must hold: the fold itself, stepped over the
ledger by an observer; its slow twin (tests/core/judge_oracle.py); and a worker that nobody killed, over the same input.
"""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import orjson
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.canonical import EntryKind, ValueState
from schemas.memory import bytes_at
from streams.ledger_reader import read_entries, read_tail
from streams.transactions import Point
from tests.broker.harness import PATIENCE_S, Blow, Ledger, Output, check_exactly_once, event_value, refold, time
from tests.core.judge_oracle import Oracle, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: The bar is twenty at any moment; every third one more strikes inside a transaction.
KILLS = 30
EVERY_S = 0.2
_S_US = 1_000_000
#: Every source goes wrong and comes right again once in so many seconds.
ROUND_S = 16
OPTIONS: dict[str, Any] = {
    "partitions": 2,
    "heartbeat_interval_ms": 500,
    "hold_ms": 1_000,
    "fleet_hold_ms": 500,
    "clear_events": 3,
    "batch_events_max": 50,
    "snapshot_entries": 2_000,
    "windows": (),
}


def _right(_second: float) -> float:
    return 0


def _fast(second: float) -> float:
    """RED, then YELLOW, then right."""
    return 7 if second < 4 else 3 if second < 8 else 0


def _slow(second: float) -> float:
    return -2.5 if second < 12 else 0


def _set(second: float) -> float:
    """Right until it is set, and set back again."""
    return 0 if second < 8 else 2.2


@dataclass
class _Source:
    """off_s: how far its clock is off, by the second of its round. cut_s: for so long its events are held back."""

    name: str
    partition: int
    begins_s: float
    off_s: Callable[[float], float]
    cut_s: float = 0
    kept: list[bytes] = field(default_factory=list)

    def event(self, number: int, now_us: int) -> list[bytes]:
        """What arrives with the next event."""
        second = (now_us / _S_US + self.begins_s) % ROUND_S
        local_us = now_us + int(self.off_s(second) * _S_US)
        self.kept.append(event_value(f"e{number}", self.name, local_us))
        if second < self.cut_s:
            return []
        arrived, self.kept = self.kept, []
        return arrived


class _Faults:
    """Sends as a context manager, in a thread of its own; count: events that Kafka has acknowledged."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        draw = random.Random(seed)
        sorts = [(_right, 0)] * 6 + [(_fast, 0)] * 4 + [(_slow, 0)] * 4 + [(_set, 0)] * 3 + [(_right, 6)] * 3
        self._sources = [
            _Source(
                f"{off_s.__name__[1:]}-{cut_s}-{partition}-{number}", partition, draw.uniform(0, ROUND_S), off_s, cut_s
            )
            for partition in ledger.partitions
            for number, (off_s, cut_s) in enumerate(sorts)
        ]
        self._topic = ledger.names.input
        self._producer = Producer(
            {"bootstrap.servers": ledger.bootstrap, "enable.idempotence": True, "linger.ms": 5, "log_level": 0}
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._failed: list[str] = []
        self.count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        assert not self._producer.flush(PATIENCE_S)
        assert not self._failed, self._failed[:3]

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(EVERY_S):
            for source in self._sources:
                number += 1
                for value in source.event(number, time.now_us()):
                    self._producer.produce(
                        self._topic, value, source.name.encode(), source.partition, on_delivery=self._delivered
                    )
            self._producer.poll(0)

    def _delivered(self, error: Any, _message: Any) -> None:
        if error is None:
            self.count += 1
        else:
            self._failed.append(error.str())


def _kill_over_and_over(ledger: Ledger, kills: int, draw: random.Random) -> None:
    """Some seconds after its start, some moments after it is live, inside a transaction that Kafka has whole."""
    for number in range(kills):
        inside = number % 3 == 2
        blow = Blow(Point.PRODUCED, draw.randint(1, 30)) if inside else None
        with ledger.worker(blow, deliver_first=True) as worker:
            if inside:
                worker.wait_killed()
                continue
            if number % 3 == 1:
                worker.wait_live(lanes=2)
            time.sleep_s(draw.uniform(0, 12 if number % 3 == 0 else 2))
            assert worker.process.poll() is None, worker.output[-3000:]
            worker.signal(signal.SIGKILL)
            worker.wait_killed()


def _finish(ledger: Ledger) -> None:
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        worker.stop()


class _Told(NamedTuple):
    """Of one partition of the alerts topic."""

    committed: Output
    aborted: int


def _told(ledger: Ledger, partition: int) -> _Told:
    """What anybody's consumer reads there, and how many records it is not shown."""
    read = {
        isolation: [(message.key(), message.value()) for message in _consumed(ledger, partition, isolation)]
        for isolation in ("read_committed", "read_uncommitted")
    }
    committed = read["read_committed"]
    return _Told(committed, len(read["read_uncommitted"]) - len(committed))


def _consumed(ledger: Ledger, partition: int, isolation: str) -> Iterator[Any]:
    topic = ledger.names.drift_alerts
    consumer = Consumer(
        {
            "bootstrap.servers": ledger.bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": isolation,
            "log_level": 0,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, partition, 0)])
        while True:
            message = consumer.poll(PATIENCE_S)
            assert message is not None, "the topic ends"
            if message.error() is not None:
                return
            yield message
    finally:
        consumer.close()


def _by_the_twin(ledger: Ledger, partition: int) -> Output:
    """The alerts that judge's slow twin finds in the ledger."""
    oracle = Oracle(partition)
    with ledger.log() as log:
        tail = read_tail(log, ledger.names.sequenced, partition)
    assert tail is not None
    for batch in read_entries(ledger.bootstrap, ledger.names.sequenced, partition, 0, tail.offset + 1):
        entries = batch.entries
        for row in range(entries.index.size):
            value = bytes_at(int(entries.value_address[row]), int(entries.value_length[row]))
            kind, state = EntryKind(entries.kind[row]), ValueState(entries.value_state[row])
            oracle.take(int(entries.index[row]), Row(value, int(entries.authority_ms[row]), kind, state))
    return [(key, orjson.dumps(fields)) for target, _, key, fields in oracle.records if target == "drift.alerts"]


def _check_story(committed: Output) -> Counter[str]:
    """Each alert opens, changes and closes, in that order, one at a time of a source; how often there was what."""
    revisions: Counter[str] = Counter()
    open_now: dict[tuple[str, str], str] = {}
    seen: Counter[str] = Counter()
    for key, value in committed:
        alert = orjson.loads(value or b"")
        alert_id, state = alert["alert_id"], alert["state"]
        revisions[alert_id] += 1
        assert alert["revision"] == revisions[alert_id]
        assert (state == "OPENED") == (revisions[alert_id] == 1)
        assert key == alert["source"].encode()
        about = (alert["source"], alert_id.rpartition(":")[2])
        assert open_now.get(about) == (None if state == "OPENED" else alert_id)
        if state == "CLOSED":
            del open_now[about]
        else:
            open_now[about] = alert_id
        seen.update([state, alert["cause"]])
    return seen


@pytest.mark.soak
def test_alerts_are_there_once_whenever_workers_are_killed(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Twenty kills at any moment and ten inside a transaction, while alerts open, change and close."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, OPTIONS).create()
    with _Faults(ledger, seed=KILLS) as faults:
        _kill_over_and_over(ledger, KILLS, random.Random(KILLS))
    _finish(ledger)
    assert check_exactly_once(ledger) == faults.count
    calm = Ledger(kafka.bootstrap, f"{prefix}-calm", tmp_path, {**OPTIONS, "input_topic": ledger.names.input}).create()
    _finish(calm)

    told = [_told(ledger, p) for p in ledger.partitions]
    refolded, undisturbed = refold(ledger, rows_max=77), calm.outputs()
    seen: Counter[str] = Counter()
    for partition, (committed, _) in enumerate(told):
        assert committed == refolded["alerts", partition]
        assert committed == undisturbed["alerts", partition]
        assert committed == _by_the_twin(ledger, partition)
        seen += _check_story(committed)
    assert min(seen[what] for what in ("OPENED", "CHANGED", "CLOSED", "AHEAD", "BEHIND", "STEP", "BACKLOG")) >= KILLS
    assert sum(aborted for _, aborted in told) > 0, "kills struck where alerts were written"
