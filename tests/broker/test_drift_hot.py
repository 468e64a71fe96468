"""The lists of `driftledger drift` from a real worker's hot tier: what the ledger says, and why, or the ledger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from lifecycle.reader import Reader, explanation
from schemas.errors import UnreachableError
from schemas.instants import format_ms
from schemas.topics import partition_for
from streams.address import find_workers
from streams.cli.main import main
from streams.drift_log import DriftLog
from streams.queries import Ledger as Opened
from tests.broker.harness import Ledger, event_value, time, wait_for
from tests.broker.ledgers import produce

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.harness import Worker

PARTITIONS = 3
#: How far each source's clock is off: steady, late, a day ahead, out of any calendar.
CLOCKS_US = {"steady": 0, "late": -3_000_000, "Füllstand": 86_400_000_000, "lost": -(2**62)}
#: More than a chunk of the partition that has the most.
EVENTS = 9_000


class _Printed(NamedTuple):
    code: int
    out: str
    err: str


class _Command:
    """Runs `driftledger drift` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> _Printed:
        self._capsys.readouterr()
        code = main(["drift", *arguments])
        captured = self._capsys.readouterr()
        return _Printed(code, captured.out, captured.err)


def _send(ledger: Ledger, first: int, last: int, sources: tuple[str, ...] = tuple(CLOCKS_US)) -> None:
    """Events of these sources; some twice, some twice with another value, some that cannot be read."""
    for source in sources:
        partition = partition_for(source.encode(), PARTITIONS)
        messages: list[Any] = []
        for n in range(first, last):
            value = event_value(f"{source}-{n}", source, time.now_us() + CLOCKS_US[source], float(n))
            messages.append((source.encode(), value, []))
            if n % 50 == 7:
                messages.append(messages[-1])
            if n % 90 == 11:
                messages.append((None, event_value(f"{source}-{n}", source, time.now_us(), -1.0), []))
            if n % 70 == 13:
                messages.append((None, b"?" * (n % 9), []))
        produce(ledger.settings, ledger.names.input, messages, partition)


@pytest.fixture(scope="module")
def served(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, Worker]]:
    """A worker, and a ledger with events, anchors and verifications; some of it is in no chunk."""
    options = {"partitions": PARTITIONS, "lanes": 2, "heartbeat_interval_ms": 200}
    ledger = Ledger(kafka.bootstrap, f"hotlog-{time.now_us():x}", tmp_path_factory.mktemp("hotlog"), options).create()
    with ledger.worker() as worker:
        worker.wait_live(2)
        _send(ledger, 0, 300)
        with Opened(ledger.settings, kafka.bootstrap) as opened:
            log = DriftLog(opened)
            log.record_anchor("nightly", 1_234_567)
            log.record_anchor("late")
            log.verify_drift(time.now_us() - 3_000_000, "late")
            log.verify_drift(2**62, "nobody else")
        _send(ledger, 300, 400)
        yield ledger, worker
        worker.stop()


@pytest.fixture
def drift(
    served: tuple[Ledger, Worker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> _Command:
    """The command, on that ledger, which the hot tier is level with."""
    ledger, worker = served
    for name, value in ledger.environment().items():
        monkeypatch.setenv(name, value)
    if find_workers(ledger.settings):
        _wait_level(ledger, worker)
    return _Command(capsys)


def _reader(ledger: Ledger) -> Reader:
    return Reader(find_workers(ledger.settings)[0].address)


def _wait_level(ledger: Ledger, worker: Worker) -> None:
    def level() -> bool:
        heads = [ledger.head(partition) for partition in range(PARTITIONS)]
        try:
            rows = (
                Reader(find_workers(ledger.settings)[0].address)
                .temporal_range_query(columns=["sequence"], limit=1_000_000)
                .num_rows
            )
        except UnreachableError:
            return False
        return bool(rows == sum(head.sequence for head in heads if head is not None))

    ledger.wait_level(worker)
    wait_for(level, "the hot tier shows all events")


def _chunks(ledger: Ledger) -> int:
    """How many have ended."""
    return int(explanation(_reader(ledger).temporal_range_query(limit=1_000_000))["chunks_rows"])


def _check(drift: _Command, *arguments: str, forms: tuple[str, ...] = ("jsonl",)) -> list[dict[str, Any]]:
    """That both answers are the same, to the byte; returns the rows of the hot tier."""
    rows: list[dict[str, Any]] = []
    for form in forms:
        hot = drift(*arguments, "--output", form)
        assert (hot.code, "from the hot tier of http://127.0.0.1:" in hot.err) == (0, True), hot.err
        read = drift(*arguments, "--from-ledger", "--output", form)
        assert (read.code, "from the" in read.err) == (0, False)
        assert hot.out == read.out, arguments
        if form == "jsonl":
            rows = [json.loads(line) for line in hot.out.splitlines()]
    return rows


def _check_all(drift: _Command) -> None:
    """Lists of every sort."""
    every = _check(drift, "log", "--last", "100000", forms=("jsonl", "csv"))
    assert {row["reading"] for row in every} == {"DATA", "ANCHOR", "VERIFY"}
    assert {row["severity"] for row in every} == {"GREEN", "YELLOW", "RED"}
    assert "AHEAD" in {row["cause"] for row in every if row["source"] == "Füllstand"}
    assert {row["cause"] for row in every if row["reading"] != "DATA"} == {None}
    warned = _check(drift, "warnings", "--last", "100000", forms=("jsonl", "csv"))
    assert {row["source"] for row in warned} == {"Füllstand", "lost"}
    assert len(_check(drift, "warnings", forms=("jsonl", "table"))) == 10
    for command in ("log", "warnings"):
        assert len(_check(drift, command)) == 10
        assert len(_check(drift, command, "--last", "333")) == 333
    for source in ("late", "Füllstand", "nightly"):
        assert _check(drift, "log", "--source", source, "--last", "50")
    assert _check(drift, "log", "--source", "nobody") == []
    assert _check(drift, "warnings", "--source", "steady") == []
    assert _check(drift, "log", "--partition", every[0]["id"].partition(":")[0], "--last", "20")
    assert _check(drift, "warnings", "--from", "100", "--to", "900")
    assert _check(drift, "warnings", "--from", "200", "--source", "lost")
    assert _check(drift, "warnings", "--to", "120")
    for command, rows, field in (("log", every, "created_at_ms"), ("warnings", warned, "authority_timestamp_ms")):
        times = sorted({row[field] for row in rows})
        low, high = format_ms(times[len(times) // 3]), format_ms(times[len(times) // 3 * 2])
        assert _check(drift, command, "--from", low, "--to", high)
        assert _check(drift, command, "--from", low, "--source", "Füllstand")
        assert _check(drift, command, "--to", low)
        assert _check(drift, command, "--from", format_ms(times[-1] + 1)) == []


def test_both_answers_are_the_same(served: tuple[Ledger, Worker], drift: _Command) -> None:
    """While nothing is in a chunk, and when chunks have ended: of readings, warnings, duplicates, faults, ranges."""
    ledger, worker = served
    assert _chunks(ledger) == 0
    _check_all(drift)
    _send(ledger, 400, EVENTS, ("Füllstand",))
    with Opened(ledger.settings, ledger.bootstrap) as opened:
        DriftLog(opened).record_anchor("nightly")
    _send(ledger, EVENTS, EVENTS + 50)
    _wait_level(ledger, worker)
    assert _chunks(ledger) > 0
    _check_all(drift)


def test_what_cannot_be_asked_is_refused_alike(drift: _Command) -> None:
    """A partition that there is not, and a range that is none."""
    for arguments in (("log", "--partition", "9"), ("warnings", "--from", "9", "--to", "3")):
        hot, read = drift(*arguments), drift(*arguments, "--from-ledger")
        assert (hot.code, read.code, hot.out) == (2, 2, "")
        assert hot.err.splitlines()[-1] == read.err.splitlines()[-1]


def test_without_a_level_tier_the_ledger_is_read(served: tuple[Ledger, Worker], drift: _Command) -> None:
    """It is said, and why: settings that know less, a tier that is not kept, a worker that has gone."""
    ledger, worker = served
    known = drift("log", "--last", "30", "--output", "jsonl").out
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIFTLEDGER_PARTITIONS", "2")
        fallen = drift("log", "--last", "30", "--output", "jsonl")
    assert (fallen.code, fallen.out) == (0, known)
    assert "from the ledger, for the workers hold partitions [2]" in fallen.err
    worker.stop()
    for command in ("log", "warnings"):
        fallen, read = drift(command, "--output", "jsonl"), drift(command, "--from-ledger", "--output", "jsonl")
        assert (fallen.code, fallen.out) == (0, read.out)
        assert fallen.err == "from the ledger, for no worker of it answers on this machine\n"
    options = {**ledger.options, "hot_store": False}
    unkept = Ledger(ledger.bootstrap, ledger.prefix, ledger.folder, options)
    with unkept.worker() as another:
        another.wait_live(2)
        fallen = drift("log", "--last", "30", "--output", "jsonl")
        assert (fallen.code, fallen.out) == (0, known)
        assert "from the ledger, for partition 0 is kept nowhere, for hot_store is off" in fallen.err
        another.stop()
