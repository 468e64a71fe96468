"""Locks on a real broker: who locks is verified, the lane takes no input, nothing is put, and it goes on afterwards."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest

from schemas.clock import SystemTime
from schemas.topics import partition_for
from streams.address import find_workers
from streams.cli.main import main
from streams.control import encode_control
from streams.drift_entries import Reading
from streams.drift_log import DriftLog
from streams.gate import Gate, LockedError
from streams.lock_log import LockLog, What
from streams.log import Log
from streams.queries import Ledger
from streams.sample_fleet import fleet as sample_fleet
from streams.up import Fleet, read_series
from tests.broker import harness
from tests.broker.ledgers import Message, begin, lane_of, names_of, produce, running, use

if TYPE_CHECKING:
    from pathlib import Path

    from streams.locks import Lock
    from streams.sample_fleet import Source
    from streams.settings import Settings

TIME = SystemTime()
LINES = {"Content-Type": "application/x-ndjson"}


def told(capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], str]:
    """Rows of stdout, and stderr."""
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], captured.err


def asked(ledger: harness.Ledger) -> Ledger:
    """The ledger of the harness, opened for questions."""
    return Ledger(ledger.settings, ledger.bootstrap)


def put(ledger: harness.Ledger, body: bytes) -> tuple[int, dict[str, Any]]:
    """By the door of the ledger's worker."""
    (found_worker,) = find_workers(ledger.settings)
    connection = HTTPConnection(found_worker.address.removeprefix("http://"))
    connection.request("POST", "/put", body, LINES)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


@pytest.fixture
def settings(kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A ledger that has begun, of two partitions in one lane, for commands of this process."""
    made = begin(kafka, prefix, partitions=2, lanes=1)
    with running(made):
        pass
    use(made, monkeypatch)
    return made


def test_a_lock_is_an_entry_that_verifies_who_locks(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """With delta, severity and hash; the drift log has it; the first one stands; a release ends it."""
    with running(settings):
        assert main(["lock", "engage", "--reason", "set clocks", "--actor", "ada", "--output", "jsonl"]) == 0
        rows, _ = told(capsys)
        assert [(row["partition"], row["lock"], row["severity"]) for row in rows] == [
            (0, "engaged", "GREEN"), (1, "engaged", "GREEN"),
        ]  # fmt: skip
        assert all(abs(row["delta_ms"]) < 1_000 and len(row["phase_lock_hash"]) == 64 for row in rows)
        assert main(["lock", "engage", "--reason", "me too", "--partition", "1", "--output", "jsonl"]) == 0
        again, err = told(capsys)
        assert [(row["partition"], row["lock"]) for row in again] == [(1, "was engaged")]
        assert "by ada because set clocks; that stands" in err
        assert main(["lock", "engage", "--reason", "r", "--source", "pump-7", "--output", "jsonl"]) == 0
        assert [row["source"] for row in told(capsys)[0]] == ["pump-7"]
        assert main(["lock", "status", "--output", "jsonl"]) == 0
        locks, _ = told(capsys)
        assert sorted((lock["partition"], lock["source"] or "", lock["halts"]) for lock in locks) == sorted(
            [(0, "", "sequence,put"), (1, "", "sequence,put"), (partition_for(b"pump-7", 2), "pump-7", "put")]
        )
        assert [lock["id"] for lock in locks if lock["source"] is None] == [row["id"] for row in rows]
        with Ledger(settings, settings.bootstrap or "") as ledger:
            readings = [entry.reading for entry in DriftLog(ledger).newest(source="CLI")]
        assert readings == [Reading.LOCK] * 4
        assert main(["lock", "release", "--reason", "done", "--partition", "1", "--output", "jsonl"]) == 0
        assert [row["lock"] for row in told(capsys)[0]] == ["released"]
        assert main(["lock", "release", "--reason", "done", "--output", "jsonl"]) == 0
        assert [row["lock"] for row in told(capsys)[0]] == ["released", "was not engaged"]
    assert main(["lock", "status", "--output", "jsonl"]) == 0
    assert [lock["source"] for lock in told(capsys)[0]] == ["pump-7"]


def test_without_a_worker_a_lock_waits(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3; it is written, and engaged once a worker runs."""
    assert main(["lock", "engage", "--reason", "r", "--partition", "0", "--timeout", "0.1", "--output", "jsonl"]) == 3
    rows, err = told(capsys)
    assert [(row["partition"], row["lock"]) for row in rows] == [(0, "waits")]
    assert "the record is written" in err
    with running(settings), Ledger(settings, settings.bootstrap or "") as ledger:
        harness.wait_for(lambda: LockLog(ledger).locks(), "it is engaged")


def test_a_locked_partition_takes_no_input_until_it_is_released(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Control records go on; what waited is sequenced whole and in order, whoever restarts meanwhile."""
    ledger = harness.Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 2, "lanes": 1}).create()
    load = harness.Load(ledger)
    load.send(2_000)
    load.flush()
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        with asked(ledger) as questions:
            (locked,) = LockLog(questions).engage("hold it", "ada", partition=0)
            assert locked.what is What.ENGAGED
            harness.wait_for(lambda: worker.live_lanes() == {0}, "the lane is open again")
            before = ledger.head(0)
            assert before is not None
            load.send(2_000)
            load.flush()
            ledger.wait_level(worker, [1])
            entry = DriftLog(questions).entry_of(
                DriftLog(questions).write_anchor("a", actor="ada", reason="r", partition=0), harness.PATIENCE_S
            )
            assert entry.partition == 0
            after = ledger.head(0)
            assert after is not None
            assert (after.sequence, after.input_offset) == (before.sequence, before.input_offset)
            assert after.index > before.index
            status, facts = worker.health()
            assert status == 200
            parts = {part["partition"]: part for lane in facts["lanes"] for part in lane["partitions"]}
            assert (parts[0]["locked"], parts[1]["locked"]) == (True, False)
            assert "by ada because hold it" in parts[0]["locks"][0]["told"]
        worker.stop()
    with ledger.worker() as worker, asked(ledger) as questions:
        worker.wait_live(1)
        assert [lock.partition for lock in LockLog(questions).locks()] == [0]
        later = ledger.head(0)
        assert later is not None
        assert later.sequence == before.sequence
        (released,) = LockLog(questions).release("go on", "ada", partition=0)
        assert released.what is What.RELEASED
        ledger.wait_level(worker)
        worker.stop()
    assert harness.check_exactly_once(ledger) == 4_000


def test_what_is_locked_is_not_put(kafka: Any, prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """423 from the worker, a bad line of `publish`, an error of whoever asks the gate; other sources are put."""
    ledger = harness.Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 1}).create()
    for name, value in ledger.environment().items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "events.jsonl"
    file.write_text('{"source": "a"}\n{"source": "b"}\n')
    with ledger.worker() as worker, asked(ledger) as questions:
        worker.wait_live(1)
        assert put(ledger, file.read_bytes())[0] == 200
        LockLog(questions).engage("calibrated", "ada", source="b")
        harness.wait_for(lambda: put(ledger, b'{"source": "b"}')[0] == 423, "the door is closed for b")
        status, facts = put(ledger, file.read_bytes())
        assert (status, facts["accepted"], facts["refused"][0]["line"]) == (423, 1, 2)
        assert "source b is locked since" in facts["error"]
        assert "`driftledger lock release --source b --reason TEXT`" in facts["error"]
        capsys.readouterr()
        assert main(["publish", str(file)]) == 1
        assert f"{file}:2: source b is locked since" in capsys.readouterr().err
        assert main(["put", str(file)]) == 1
        assert f"{file}:2: source b is locked since" in capsys.readouterr().err
        LockLog(questions).engage("all of it", "ada")
        gate = Gate(ledger.bootstrap, ledger.names.progress, 1, 1)
        with pytest.raises(LockedError, match="partition 0 is locked since"):
            gate.check(0)
        gate.close()
        assert main(["status", "--output", "jsonl"]) == 0
        rows, err = told(capsys)
        assert (rows[0]["state"], rows[0]["locks"]) == ("locked", 2)
        assert "partition 0 is locked since" in err
        LockLog(questions).release("done", "ada")
        LockLog(questions).release("done", "ada", source="b")
        harness.wait_for(lambda: put(ledger, file.read_bytes())[0] == 200, "the door is open again")
        worker.stop()


def test_the_sample_fleet_sends_nothing_of_what_is_locked(settings: Settings) -> None:
    """Of a source that is locked nothing comes; the other one goes on, and so does it after the release."""
    assert settings.bootstrap is not None
    series, _ = read_series(None)
    held, free = (replace(source, rate_hz=50) for source in sample_fleet(list(series))[:2])
    with closing(Log(settings.bootstrap)) as log, Ledger(settings, settings.bootstrap) as ledger, running(settings):

        def sent(source: Source) -> int:
            names = (message.key() for p in range(2) for message in log.scan(settings.input_topic, p, 0, bounds(p)))
            return sum(name == source.name.encode() for name in names)

        def bounds(partition: int) -> int:
            return log.bounds(settings.input_topic, partition).stable_end

        LockLog(ledger).engage("calibrated", "ada", source=held.name)
        sending = Fleet(settings, settings.bootstrap, [held, free], series)
        try:
            harness.wait_for(lambda: sent(free) > 100, "the other one sends")
            assert sent(held) == 0
            LockLog(ledger).release("done", "ada", source=held.name)
            harness.wait_for(lambda: sent(held) > 0, "it sends again")
        finally:
            sending.stop()


def test_heartbeats_that_name_a_later_end_do_not_hold_back_the_release(settings: Settings) -> None:
    """They were written before the worker knew of the lock; they are passed over, and nothing is lost."""
    assert settings.bootstrap is not None
    names, lane = names_of(settings), lane_of(settings, 0)
    lane.open()
    with Ledger(settings, settings.bootstrap) as ledger:
        log = DriftLog(ledger)
        log.write_lock(0, None, ["sequence"], "CLI", actor="ada", reason="r", engaged=True)
        produce(settings, settings.input_topic, [(None, b"x", [])] * 3, partition=0)
        beat = {"predecessor_appended_ms": None, "input_end_offset": 3, "worker_us": 0}
        produce(settings, names.control, [(None, encode_control("Heartbeat", beat, "test", "tick"), [])], 0)
        deadline_ns = TIME.monotonic_ns() + 30 * 10**9
        while not lane.stale:
            assert TIME.monotonic_ns() < deadline_ns
            lane.commit(None)
        assert lane.fetch() is None
        log.write_lock(0, None, [], "CLI", actor="ada", reason="r", engaged=False)
    while lane.stale:
        assert TIME.monotonic_ns() < deadline_ns
        lane.commit(None)
    lane.close()
    lane = lane_of(settings, 0)
    lane.open()
    while lane.parts[0].head.sequence < 3:
        assert TIME.monotonic_ns() < deadline_ns
        lane.commit(lane.fetch())
    lane.close()


def test_a_lock_behind_a_backlog_stands_at_once(settings: Settings) -> None:
    """In a lane that is live, and in one that opens: no input is taken in spite of a lock that was written before."""
    assert settings.bootstrap is not None
    names = names_of(settings)
    beat = {"predecessor_appended_ms": None, "input_end_offset": 10**9, "worker_us": 0}
    behind: list[Message] = [(None, encode_control("Heartbeat", beat, "test", "tick"), [])]
    deadline_ns = TIME.monotonic_ns() + 30 * 10**9
    with Ledger(settings, settings.bootstrap) as ledger:
        log = DriftLog(ledger)
        for live in (True, False):
            lane = lane_of(settings, 0)
            if live:
                lane.open()
            produce(settings, names.control, behind, 0)
            log.write_lock(0, None, ["sequence"], "CLI", actor="ada", reason="r", engaged=True)
            produce(settings, settings.input_topic, [(None, b"x", [])] * 3, partition=0)
            if not live:
                lane.open()
                assert lane.stale
            while not lane.stale:
                assert TIME.monotonic_ns() < deadline_ns
                lane.commit(None)
            assert lane.fetch() is None
            assert lane.parts[0].head.sequence == 0
            lane.close()
            log.write_lock(0, None, [], "CLI", actor="ada", reason="r", engaged=False)
            lane = lane_of(settings, 0)
            lane.open()
            assert lane.stale
            lane.close()
    lane = lane_of(settings, 0)
    lane.open()
    while lane.parts[0].head.sequence < 6:
        assert TIME.monotonic_ns() < deadline_ns
        lane.commit(lane.fetch())
    lane.close()


def test_the_guardian_locks_where_its_workers_clock_is_wrong(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Heartbeats of its own that are a day ahead, as it were: an alert, and the lock by the guardian."""
    chosen = {"partitions": 1, "guardian_locks": True, "heartbeat_interval_ms": 0, "hold_ms": 0, "fleet_hold_ms": 0}
    ledger = harness.Ledger(kafka.bootstrap, prefix, tmp_path, chosen).create()

    def locked(name: str) -> list[Lock]:
        ahead_us = TIME.now_us() + 86_400_000_000
        beat = {"predecessor_appended_ms": None, "input_end_offset": 0, "worker_us": ahead_us}
        ledger.append(ledger.names.control, 0, encode_control("Heartbeat", beat, name, "tick"))
        with asked(ledger) as questions:
            return LockLog(questions).locks()

    with ledger.worker() as worker:
        worker.wait_live(1)
        name = f"{socket.gethostname()}-{worker.process.pid}"
        (lock,) = harness.wait_for(lambda: locked(name), "the guardian locks")
        worker.stop()
    assert lock.actor == "guardian"
    assert lock.reason.startswith(f"the clock of worker {name} of partition 0 is 86")
    assert abs(lock.delta_ms) < 60_000
