"""What the tests of the runner share: a ledger, workers as processes, load, and the checks that decide.

The checks do not trust what they check: the input is read again through confluent-kafka and hashed with hashlib, the
ledger through its own reader and `sequence.verify`, the outputs as bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import numpy as np
import psutil
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.canonical import EntryKind, ValueState, canonical_headers
from schemas.clock import SystemTime
from schemas.codec import single_object_prefix
from schemas.errors import UnreachableError
from schemas.memory import bytes_at
from schemas.topics import TopicNames, partition_for, topic_names
from streams.derive import Derive
from streams.folds import Folds, States, Stepped
from streams.judge import Judge
from streams.ledger_reader import read_entries, read_tail
from streams.log import Log, offset_of
from streams.progress import read_lane
from streams.sequence import Break, Head, verify
from streams.settings import Settings
from streams.topics_admin import TopicsAdmin, specs_of
from streams.warm import warm
from streams.windows import By, Frame, Function, Kind, Late, WindowDefinition
from tests.core.event_generator import avro_bytes, avro_long

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    import pytest
    from confluent_kafka import Message

    from schemas.columns import Entries
    from schemas.errors import HaltError
    from streams.fold import Messages

ROOT = Path(__file__).resolve().parent.parent.parent
#: A machine with two cores and much else to do: what is not a bar of its own gets this long.
PATIENCE_S = 90.0
POLL_S = 0.1
#: For questions that open clients: they cost more than the answer.
POLL_BROKER_S = 0.4
#: A worker that was told to stop has this long: its bar.
STOP_WITHIN_S = 10.0
time = SystemTime()

Output = list[tuple[bytes | None, bytes | None]]
_JUDGE = Judge()
_DERIVE = Derive()

_MS_US = 1_000
#: Windows that close often within the seconds of a test, and take, correct or set aside what comes late.
QUICK: tuple[WindowDefinition, ...] = (
    WindowDefinition("tumble", 200 * _MS_US, frame=Frame.AUTHORITY),
    WindowDefinition(
        "hop",
        900 * _MS_US,
        Kind.HOPPING,
        slide_us=300 * _MS_US,
        by=By.ALL,
        functions=tuple(Function),
        lateness_us=50 * _MS_US,
        max_behind_us=300 * _MS_US,
        max_ahead_us=3_000 * _MS_US,
        late=Late.UPDATE,
        update_us=5_000 * _MS_US,
        early_us=250 * _MS_US,
    ),
    WindowDefinition(
        "aside",
        500 * _MS_US,
        by=By.KIND,
        functions=(Function.LAST,),
        percentiles=(99_900,),
        lateness_us=50 * _MS_US,
        max_behind_us=300 * _MS_US,
        max_ahead_us=100_000 * _MS_US,
        late=Late.SIDE,
    ),
)


def wait_for(predicate: Any, what: str, timeout_s: float = PATIENCE_S, poll_s: float = POLL_S) -> Any:
    """Poll until the predicate gives something true, and return it; fail with `what` otherwise."""
    deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
    while not (found := predicate()):
        if time.monotonic_ns() > deadline_ns:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep_s(poll_s)
    return found


def side_by_side(subtests: pytest.Subtests, *scenarios: Callable[[], None]) -> None:
    """Run scenarios at the same time, each reported under its first line: they mostly wait."""
    with ThreadPoolExecutor(len(scenarios)) as threads:
        outcomes = [(scenario, threads.submit(scenario)) for scenario in scenarios]
        for scenario, outcome in outcomes:
            with subtests.test(name_of(scenario)):
                outcome.result()


def name_of(scenario: Any) -> str:
    """What a scenario shows."""
    function = scenario.func if isinstance(scenario, partial) else scenario
    return str(function.__doc__).partition("\n")[0]


# ------------------------------------------------------------------------------------------------------------- workers


@dataclass(frozen=True, slots=True)
class Blow:
    """See tests/broker/victim.py."""

    point: str
    after: int
    signal: str = "SIGKILL"
    delay_us: int | None = None
    target: int | None = None
    resume_ms: int | None = None


class Worker:
    """A worker process. A context manager: on the way out it is killed if it still runs."""

    def __init__(
        self,
        ledger: Ledger,
        blow: Blow | None,
        lane: str,
        *,
        deliver_first: bool,
        days: float,
        settings: Mapping[str, Any],
    ) -> None:
        self._output = ledger.folder / f"worker-{time.monotonic_ns()}.log"
        plan = {
            "lane": lane,
            "blow": None if blow is None else asdict(blow),
            "deliver_first": deliver_first,
            "days": days,
            "windows": [window.canonical() for window in ledger.settings.windows],
        }
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DRIFTLEDGER_")}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.broker.victim", json.dumps(plan)],
                cwd=ROOT,
                env=environment | ledger.environment() | as_variables(settings) | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._output.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self) -> float:
        """SIGTERM; it must leave with 0 in time. Returns the seconds it took."""
        begun_ns = time.monotonic_ns()
        self.process.terminate()
        try:
            code = self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there {STOP_WITHIN_S} s after SIGTERM:\n{self.stacks()}") from None
        assert code == 0, f"left with {code}:\n{self.output[-3000:]}"
        return (time.monotonic_ns() - begun_ns) / 1e9

    def stacks(self) -> str:
        """Where its threads stand, after the end of its output."""
        before = len(self.output)
        self.process.send_signal(signal.SIGUSR1)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: "Current thread" in self.output[before:], "stacks", timeout_s=5)
        return self.output[max(0, before - 3_000) :]

    def wait_killed(self, timeout_s: float = PATIENCE_S) -> None:
        """Wait until the signal that was planned has ended it."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it lives, the planned point was never reached:\n{self.output[-3000:]}") from None
        assert code == -signal.SIGKILL, f"ended by itself with {code}:\n{self.output[-3000:]}"

    def wait_stopped(self) -> None:
        """Wait until it stands still (SIGSTOP)."""
        status = psutil.Process(self.process.pid).status
        wait_for(lambda: status() == psutil.STATUS_STOPPED, f"the worker stops itself:\n{self.output[-3000:]}")

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and facts of /health; (0, {}) where nobody answers."""
        address = re.search(r"health=(http://\S+)", self.output)
        if address is None:
            return 0, {}
        try:
            with urllib.request.urlopen(address[1], timeout=5) as answer:  # noqa: S310 - its own loopback
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            return 0, {}

    def metric(self, name: str) -> float:
        """A metric of its page now, summed over its labels; a name with labels as it stands there is that one alone."""
        address = re.search(r"metrics=(http://\S+)", self.output)
        assert address is not None, self.output[-3000:]
        with urllib.request.urlopen(address[1], timeout=5) as answer:  # noqa: S310 - its own loopback
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def live_lanes(self) -> set[int]:
        """Lanes it serves now."""
        return {lane["lane"] for lane in self.health()[1].get("lanes", []) if lane["state"] == "live"}

    def wait_live(self, lanes: int = 1, timeout_s: float = PATIENCE_S) -> None:
        """Wait until it serves at least so many lanes."""
        try:
            wait_for(lambda: len(self.live_lanes()) >= lanes or self.process.poll() is not None, "live", timeout_s)
        except AssertionError:
            text = f"{self.live_lanes()} of {lanes} lanes live:\n{self.output[-3000:]}"
            raise AssertionError(text) from None
        assert self.process.poll() is None, self.output[-3000:]


# -------------------------------------------------------------------------------------------------------------- ledger


@cache
def _warm() -> None:
    warm()


def as_variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as the environment has them."""
    return {f"DRIFTLEDGER_{name.upper()}": str(value) for name, value in settings.items()}


@dataclass
class Ledger:
    """A ledger for one test. options: settings that differ from the defaults of these tests."""

    bootstrap: str
    prefix: str
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        prompt = {"hold_ms": 0, "fleet_hold_ms": 0, "clear_events": 2}
        given = {
            "partitions": 4,
            "http_port": 0,
            "data_dir": self.folder,
            "batch_events_max": 500,
            **prompt,
            **self.options,
        }
        self._given = {"bootstrap": self.bootstrap, "prefix": self.prefix, **given}
        self.settings = Settings(**self._given)
        self.names: TopicNames = topic_names(self.prefix, self.settings.ledger, self.settings.input_topic)
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def create(self) -> Self:
        """Make the topics that are not there; compile, once, what the first worker would otherwise compile."""
        _warm()
        TopicsAdmin(self.bootstrap).create(specs_of(self.settings))
        return self

    def environment(self) -> dict[str, str]:
        """The settings, for a process; windows stand in files only."""
        named = {name: value for name, value in self._given.items() if name != "windows"}
        return as_variables(named)

    def worker(
        self,
        blow: Blow | None = None,
        lane: str = "real",
        *,
        deliver_first: bool = False,
        days: float = 0.0,
        **settings: Any,
    ) -> Worker:
        """Start a worker; use as a context manager. For the options see tests/broker/victim.py.

        settings: in place of those of the ledger.
        """
        return Worker(self, blow, lane, deliver_first=deliver_first, days=days, settings=settings)

    @property
    def partitions(self) -> range:
        """All of them."""
        return range(self.settings.partitions)

    def lane_of(self, partition: int) -> int:
        """Whose partition it is."""
        return partition % self.settings.lanes

    # ---------------------------------------------------------------------------------------------------------- reading

    def records(self, topic: str, partition: int) -> list[Message]:
        """Every readable record of a partition, in order, through confluent-kafka."""
        with self.log() as log:
            bounds = log.bounds(topic, partition)
            return list(log.scan(topic, partition, bounds.start, bounds.stable_end))

    def outputs(self) -> dict[tuple[str, int], Output]:
        """Keys and values of alerts, estimates, aggregates and dead letters, in order, by kind and partition."""
        names = self.names
        topics = {
            "alerts": names.drift_alerts,
            "estimates": names.drift_estimates,
            "aggregates": names.aggregates,
            "dead": names.dead_letters,
        }
        return {
            (kind, p): [(record.key(), record.value()) for record in self.records(topic, p)]
            for kind, topic in topics.items()
            for p in self.partitions
        }

    @contextlib.contextmanager
    def log(self) -> Iterator[Log]:
        """For questions to the broker."""
        log = Log(self.bootstrap)
        try:
            yield log
        finally:
            log.close()

    def head(self, partition: int) -> Head | None:
        """The head of a ledger partition now."""
        with self.log() as log:
            tail = read_tail(log, self.names.sequenced, partition)
        return None if tail is None else tail.head

    def halts(self) -> dict[int, HaltError]:
        """The halts that stand on the progress topic, by partition."""
        with self.log() as log:
            lanes = [read_lane(log, self.names.progress, lane) for lane in range(self.settings.lanes)]
        return {partition: halt for lane in lanes for partition, halt in lane.halts.items()}

    def is_level(self, partitions: Iterable[int] | None = None) -> bool:
        """Whether every readable input record is in the ledger; False also where the broker does not answer."""
        with self.log() as log, contextlib.suppress(UnreachableError):
            for partition in self.partitions if partitions is None else partitions:
                last = log.last(self.names.input, partition)
                tail = read_tail(log, self.names.sequenced, partition)
                if last is not None and (tail is None or tail.head.input_offset < offset_of(last)):
                    return False
            return True
        return False

    def wait_level(
        self, worker: Worker, partitions: Iterable[int] | None = None, timeout_s: float = PATIENCE_S
    ) -> None:
        """Wait until the worker has brought the ledger level with the input."""
        try:
            gone_or_level = lambda: worker.process.poll() is not None or self.is_level(partitions)  # noqa: E731
            wait_for(gone_or_level, "level", timeout_s, POLL_BROKER_S)
        except AssertionError:
            raise AssertionError(f"not level within {timeout_s} s:\n{worker.output[-4000:]}") from None
        assert worker.process.poll() is None, f"the worker is gone:\n{worker.output[-4000:]}"

    def append(self, topic: str, partition: int, value: bytes | None, key: bytes | None = None) -> None:
        """One record to any topic of the ledger, by nobody it knows."""
        failed: list[str] = []
        producer = Producer({"bootstrap.servers": self.bootstrap, "log_level": 0})
        producer.produce(topic, value, key, partition, on_delivery=lambda e, _: failed.append(e.str()) if e else None)
        assert not producer.flush(30), topic
        assert not failed, failed

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """What retention does, now: the records before an offset (-1: all) are gone."""
        for future in self.admin.delete_records([TopicPartition(topic, partition, before)]).values():
            future.result(30)


# ---------------------------------------------------------------------------------------------------------------- load


@cache
def _partition(source: str, partitions: int) -> int:
    return partition_for(source.encode(), partitions)


def event_value(event_id: str, source: str, local_us: int, value: float = 1.0, payload: bytes = b"") -> bytes:
    """The single-object bytes of an event, without the optional parts."""
    return b"".join(
        (
            single_object_prefix("Event"),
            avro_bytes(event_id.encode()),
            avro_bytes(source.encode()),
            avro_long(local_us),
            b"\x02k",
            b"\x02" + np.float64(value).tobytes(),
            avro_bytes(payload),
            b"\0\0\0",
        )
    )


class Load:
    """Events whose sources go fast and come back, with a poisoned record, a duplicate and a conflict now and then."""

    def __init__(self, ledger: Ledger, sources: int = 40, seed: int = 1) -> None:
        self._ledger = ledger
        self._random = random.Random(seed)
        self._sources = [f"source-{number}" for number in range(sources)]
        self._count = 0
        self._again: dict[str, bytes] = {}
        self.failed: list[str] = []
        #: By partition: values whose delivery the broker acknowledged, with their offset.
        self.acknowledged: dict[int, list[tuple[int, bytes]]] = {p: [] for p in ledger.partitions}
        self._producer = Producer(
            {
                "bootstrap.servers": ledger.bootstrap,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 20,
                "queue.buffering.max.messages": 500_000,
                "message.timeout.ms": 120_000,
                "log_level": 0,
            }
        )

    def send(self, count: int) -> None:
        """Queue the next `count` events."""
        topic, partitions = self._ledger.names.input, self._ledger.settings.partitions
        for _ in range(count):
            source, value = self._next()
            key = None if self._count % 97 == 0 else source.encode()
            self._producer.produce(
                topic, value, key, _partition(source, partitions), headers=self._headers(), on_delivery=self._delivered
            )
        self._producer.poll(0)

    def flush(self) -> Self:
        """Wait until everything that was queued is acknowledged."""
        left = self._producer.flush(PATIENCE_S)
        assert not left, f"{left} events were not delivered"
        assert not self.failed, self.failed[:3]
        return self

    def _headers(self) -> Any:
        """Now and then some: twice the same name, no value, a value of no bytes, no name."""
        number = b"%d" % self._count
        if self._count % 53 == 0:
            return [("trace", number), ("trace", None)]
        if self._count % 71 == 0:
            return [("", number), ("empty", b""), ("", None)]
        return []

    def _next(self) -> tuple[str, bytes]:
        self._count = number = self._count + 1
        source = self._sources[self._random.randrange(len(self._sources))]
        if number % 1_009 == 0:
            return source, self._random.randbytes(self._random.randint(0, 40))
        if number % 211 == 0 and source in self._again:
            return source, self._again[source]
        # A phase of good time, then one of bad: each change opens, changes or closes an alert. Some come late.
        phase = (number // 3_000 + self._sources.index(source)) % 4
        local_us = time.now_us() + (0, 2_500_000, 90_000_000, 0)[phase] - (0 if number % 131 else 700_000)
        value = event_value(f"e{number}", source, local_us, self._random.random())
        self._again[source] = value
        return source, value

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failed.append(error.str())
        else:
            self.acknowledged[message.partition()].append((message.offset(), message.value()))


# -------------------------------------------------------------------------------------------------------------- checks


#: A record with a larger key and headers is in the ledger without them, under one header with their hash.
LABELS_BYTES_MAX = 1_048_576


class Row(NamedTuple):
    """What a record is, in its topic and in the ledger; headers in canonical form."""

    offset: int
    appended_ms: int
    key: bytes | None
    headers: bytes
    value_hash: bytes


class Written(NamedTuple):
    """The entries of a ledger partition: DATA with the offsets of the input, CONTROL with those of the control topic.

    leader_epochs: of the DATA entries.
    """

    head: Head
    data: list[Row]
    control: list[Row]
    leader_epochs: list[int]

    @property
    def input_offsets(self) -> list[int]:
        """Of the DATA entries."""
        return [row.offset for row in self.data]


def read_ledger(ledger: Ledger, partition: int) -> Written:
    """Read a whole ledger partition, and check numbers, value hashes and chain from genesis on."""
    written = Written(Head(), [], [], [])
    with ledger.log() as log:
        tail = read_tail(log, ledger.names.sequenced, partition)
        start = log.bounds(ledger.names.sequenced, partition).start
    assert tail is not None, f"ledger partition {partition} is empty"
    head = Head()
    for batch in read_entries(ledger.bootstrap, ledger.names.sequenced, partition, start, tail.offset + 1):
        entries = batch.entries
        before = head
        head, bad, why = verify(head, entries)
        assert bad == -1, f"partition {partition}: {why.name} at index {entries.index[bad]}"
        assert why is Break.NONE
        # Said once more in plain numpy, which shares nothing with the kernel.
        rows = entries.index.size
        assert np.array_equal(entries.index, before.index + 1 + np.arange(rows))
        is_data = entries.kind == EntryKind.DATA
        assert np.array_equal(entries.sequence, before.sequence + np.cumsum(is_data))
        written.leader_epochs.extend(entries.leader_epoch[is_data].tolist())
        for number, data in enumerate(is_data.tolist()):
            (written.data if data else written.control).append(_row_of_entry(entries, number, data=data))
    return written._replace(head=head)


def _row_of_entry(entries: Entries, row: int, *, data: bool) -> Row:
    key_length = int(entries.key_length[row])
    return Row(
        int((entries.input_offset if data else entries.control_offset)[row]),
        int(entries.authority_ms[row]),
        bytes_at(int(entries.key_address[row]), key_length) if key_length >= 0 else None,
        bytes_at(int(entries.headers_address[row]), int(entries.headers_length[row])),
        entries.value_hash[row].tobytes(),
    )


def _row_of_record(record: Message) -> Row:
    """What the ledger must say of a record."""
    key, value = record.key(), record.value()
    headers = canonical_headers(cast("list[tuple[str, bytes | None]]", record.headers() or []))
    if len(key or b"") + len(headers) > LABELS_BYTES_MAX:
        labels = struct.pack(">BI", 12, len(headers)) + headers
        if key is not None:
            labels += struct.pack(">BI", 13, len(key)) + key
        key, headers = None, canonical_headers([("driftledger-omitted", hashlib.sha256(labels).digest())])
    _, appended_ms = record.timestamp()
    value_hash = bytes(32) if value is None else hashlib.sha256(value).digest()
    return Row(record.offset() or 0, appended_ms, key, headers, value_hash)


def check_exactly_once(
    ledger: Ledger, partitions: Iterable[int] | None = None, passed_over: Collection[int] = ()
) -> int:
    """Every readable input record is in the ledger once, in order, whole; so is every control record up to the last.

    What stands on the control topic before the first GENESIS belongs to no ledger; what came after the lane stopped
    is not in it yet. passed_over: control offsets of heartbeats that are not in it, and must not be. Returns the number
    of DATA entries.
    """
    events = 0
    for partition in ledger.partitions if partitions is None else partitions:
        written = read_ledger(ledger, partition)
        sent = ledger.records(ledger.names.input, partition)
        _check_same(f"input {partition}", written.data, [_row_of_record(record) for record in sent])
        assert written.leader_epochs == [record.leader_epoch() for record in sent], f"partition {partition}: epochs"
        controls = [_row_of_record(record) for record in ledger.records(ledger.names.control, partition)]
        controls = [row for row in controls if row.offset not in passed_over]
        first, last = written.control[0].offset, written.control[-1].offset
        _check_same(f"control {partition}", written.control, [row for row in controls if first <= row.offset <= last])
        events += len(sent)
    return events


def _check_same(what: str, written: list[Row], expected: list[Row]) -> None:
    """Say where two long lists differ first."""
    for found, wanted in zip(written, expected, strict=False):
        assert found == wanted, f"{what}: {_short(found)} is in the ledger, {_short(wanted)} is next"
    assert len(written) == len(expected), f"{what}: {len(written)} entries of {len(expected)} records"


def _short(row: Row) -> str:
    return f"{row._replace(key=(row.key or b'')[:80], headers=row.headers[:80])}"


def records_of(messages: Messages) -> Output:
    """Key and value of each, in order."""
    columns = [column.tolist() for column in messages[1:5]]
    return [
        (bytes_at(key, key_length), bytes_at(value, value_length))
        for key, key_length, value, value_length in zip(*columns, strict=True)
    ]


def refold(
    ledger: Ledger, judge: Judge = _JUDGE, derive: Derive = _DERIVE, *, rows_max: int = 777
) -> dict[tuple[str, int], Output]:
    """All outputs as an observer computes them: folds, stepped over the ledger alone."""
    folds = Folds(judge, derive)
    outputs: dict[tuple[str, int], Output] = {}
    for partition in ledger.partitions:
        parts: dict[str, Output] = {"alerts": [], "estimates": [], "aggregates": [], "dead": []}
        states = States(judge.new_state(partition), derive.new_state(partition))
        with ledger.log() as log:
            tail = read_tail(log, ledger.names.sequenced, partition)
            start = log.bounds(ledger.names.sequenced, partition).start
        assert tail is not None
        for batch in read_entries(
            ledger.bootstrap, ledger.names.sequenced, partition, start, tail.offset + 1, rows_max=rows_max
        ):
            stepped = Stepped(*folds.step(states, batch.entries))
            assert stepped.judged is not None
            assert stepped.derived is not None
            parts["alerts"] += stepped.alerts()
            parts["estimates"] += records_of(stepped.judged.estimates)
            parts["aggregates"] += records_of(stepped.derived.aggregates)
            parts["dead"] += stepped.dead_letters()
        outputs |= {(kind, partition): output for kind, output in parts.items()}
    return outputs


def states_of(ledger: Ledger, partition: int) -> list[ValueState]:
    """The value state of each DATA entry of a partition."""
    with ledger.log() as log:
        tail = read_tail(log, ledger.names.sequenced, partition)
        start = log.bounds(ledger.names.sequenced, partition).start
    assert tail is not None
    states: list[ValueState] = []
    for batch in read_entries(ledger.bootstrap, ledger.names.sequenced, partition, start, tail.offset + 1):
        data = batch.entries.kind == EntryKind.DATA
        states += [ValueState(state) for state in batch.entries.value_state[data].tolist()]
    return states
