"""One input record, one DATA entry, in order, contiguous, whatever dies: workers killed inside their transactions."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from lifecycle.reader import Reader
from schemas.canonical import EntryKind
from schemas.codec import decode
from schemas.columns import Fault
from schemas.memory import bytes_at
from streams.address import find_workers
from streams.causes import Cause
from streams.control import encode_control, read_control
from streams.definitions import JUDGE
from streams.judge import Judge
from streams.judge_kernel import Flag
from streams.ledger_reader import read_entries, read_tail
from streams.severity import Severity
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
from tests.broker.test_hot_tier import expected

if TYPE_CHECKING:
    from pathlib import Path

    from tests.broker.harness import Output

_HOT = (
    "sequence", "index", "input_offset", "authority_ms", "flags", "severity", "fault", "chain_hash", "cause",
    "offset_us", "bound_us",
)  # fmt: skip
_NAMES = {int(severity): severity.name for severity in Severity}
#: Batches this small make many transactions, so there is always one in which to die.
BATCH_EVENTS = 100


def _blows(kills: int, seed: int) -> list[Blow]:
    """Each named point, a commit under way (from soon after the request to about its answer), and any moment."""
    rng = random.Random(seed)
    kinds = [
        lambda after: Blow(Point.BEGUN, after),
        lambda after: Blow(Point.HALF_PRODUCED, after),
        lambda after: Blow(Point.PRODUCED, after),
        lambda after: Blow(Point.COMMITTING, after),
        lambda after: Blow(Point.COMMITTING, after, delay_us=rng.randint(200, 900)),
        lambda after: Blow(Point.COMMITTING, after, delay_us=rng.randint(1_000, 8_000)),
        lambda after: Blow(Point.COMMITTED, after),
        lambda after: Blow(Point.BEGUN, after, delay_us=rng.randint(0, 60_000)),
    ]
    # The first of all transactions too: GENESIS and DEFINITION.
    return [kinds[number % len(kinds)](rng.randint(1, 60) if number else 1) for number in range(kills)]


def _kill_over_and_over(ledger: Ledger, kills: int, events: int) -> Load:
    """Load in as many parts as there are kills; in each a worker is killed; the last worker finishes."""
    load = Load(ledger)
    for blow in _blows(kills, seed=kills):
        load.send(events // kills)
        load.flush()
        # A lane's client holds a batch back until the commit; at these points some or all of it must be at the broker.
        sent = blow.point in (Point.HALF_PRODUCED, Point.PRODUCED)
        with ledger.worker(blow, deliver_first=sent) as worker:
            worker.wait_killed()
    load.send(events - events // kills * kills)
    load.flush()
    return load


def _finish(ledger: Ledger) -> None:
    with ledger.worker() as worker:
        worker.wait_live(ledger.settings.lanes)  # the one before it may have left nothing to do
        ledger.wait_level(worker)
        _check_hot(ledger)
        worker.stop()


def _check_hot(ledger: Ledger) -> None:
    """What the worker serves from its hot tier is the ledger, with the verdicts of another judge, row for row."""
    [worker] = wait_for(lambda: find_workers(ledger.settings), "a worker answers")
    for partition in ledger.partitions:
        (
            sequence, index, input_offset, authority_ms, severity, flags, fault, chain_hash, cause, offset_us, bound_us,
        ) = expected(ledger.settings, partition)  # fmt: skip
        rows = len(chain_hash)
        table = Reader(worker.address).temporal_range_query(
            sequences={partition: (1, rows)}, columns=_HOT, frame="authority", limit=rows + 1
        )
        assert table.num_rows == rows
        numbers = {"sequence": sequence, "index": index, "input_offset": input_offset, "flags": flags}
        for name, column in {**numbers, "authority_timestamp": authority_ms}.items():
            assert np.array_equal(table[name].cast(pa.int64()).to_numpy(), column)
        assert table["severity"].to_pylist() == [_NAMES.get(code) for code in severity.tolist()]
        assert table["fault"].to_pylist() == [Fault(code).name for code in fault.tolist()]
        assert table["chain_hash"].to_pylist() == [bytes(code).ljust(32, b"\0") for code in chain_hash]
        assert table["cause"].to_pylist() == [Cause(code).name if code else None for code in cause.tolist()]
        known = zip(offset_us.tolist(), bound_us.tolist(), strict=True)
        estimates = zip(table["offset_us"].to_pylist(), table["bound_us"].to_pylist(), strict=True)
        assert list(estimates) == [(us, bound) if bound >= 0 else (None, None) for us, bound in known]


def _undisturbed(kafka: Any, prefix: str, folder: Path, of: Ledger) -> Ledger:
    """The ledger that a run without a kill makes of the same input."""
    options = {**of.options, "input_topic": of.names.input}
    return Ledger(kafka.bootstrap, f"{prefix}-calm", folder, options).create()


def _check_windows(outputs: dict[tuple[str, int], Output]) -> None:
    """Each definition had results, and in every way: early, final, corrected; and events set aside."""
    results = [
        json.loads(value or b"") for (kind, _), output in outputs.items() if kind == "aggregates" for _, value in output
    ]
    ways = {
        (result["definition"], result["final"], min(result["revision"], 2)) for result in results if "final" in result
    }
    assert ways >= {("tumble", True, 1), ("hop", False, 1), ("hop", True, 2), ("aside", True, 1)}
    assert any("late" in result for result in results)
    letters = [
        decode("DeadLetter", value or b"")
        for (kind, _), output in outputs.items()
        if kind == "dead"
        for _, value in output
    ]
    assert "LATE aside" in {letter["reason"] for letter in letters}


def _prove(kafka: Any, prefix: str, tmp_path: Path, kills: int, events: int) -> None:
    """Two ledgers side by side, one without heartbeats, one with."""
    options = {
        "batch_events_max": BATCH_EVENTS,
        "snapshot_entries": 20_000,
        "confirm_events": 2,
        "windows": QUICK,
    }
    silent = Ledger(kafka.bootstrap, f"{prefix}-s", tmp_path, {**options, "heartbeat_interval_ms": 0}).create()
    ticking = Ledger(kafka.bootstrap, f"{prefix}-t", tmp_path, {**options, "heartbeat_interval_ms": 200}).create()

    def run(ledger: Ledger) -> None:
        _kill_over_and_over(ledger, kills, events)
        _finish(ledger)

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(run, silent), threads.submit(run, ticking)]:
            done.result()
    assert check_exactly_once(silent) == events
    assert check_exactly_once(ticking) == events

    calm = _undisturbed(kafka, prefix, tmp_path, silent)
    _finish(calm)
    assert check_exactly_once(calm) == events
    expected = calm.outputs()
    assert sum(len(output) for (kind, _), output in expected.items() if kind == "alerts") > 20
    assert sum(len(output) for (kind, _), output in expected.items() if kind == "dead") >= events // 1_009
    _check_windows(expected)
    assert silent.outputs() == expected
    assert ticking.outputs() == refold(ticking)


def test_a_worker_killed_at_any_point_loses_and_doubles_nothing(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Eight kills over 200,000 events: every named point of a transaction, a commit under way, and at random.

    Without heartbeats alerts, aggregates and dead letters are byte for byte those of an undisturbed run; with them,
    those that an observer folds from the ledger.
    """
    _prove(kafka, prefix, tmp_path, kills=8, events=200_000)


@pytest.mark.soak
def test_fifty_kills_lose_and_double_nothing(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """The same with fifty kills."""
    _prove(kafka, prefix, tmp_path, kills=50, events=200_000)


def test_sigterm_under_load_ends_a_worker_within_ten_seconds(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """With exit code 0, and the next worker goes on where it stopped."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path).create()
    load = Load(ledger)
    load.send(100_000)
    load.flush()
    with ledger.worker() as worker:
        worker.wait_live(lanes=4)
        load.send(20_000)
        assert worker.stop() < 10
    load.flush()
    _finish(ledger)
    assert check_exactly_once(ledger) == 120_000


_CHANGED = {"partitions": 1, "confirm_events": 2, "heartbeat_interval_ms": 200}


def _definitions(ledger: Ledger) -> list[dict[str, Any]]:
    """What the ledger's DEFINITION records of judge put in force, in order."""
    controls = [read_control(record.value()) for record in ledger.records(ledger.names.control, 0)]
    return [json.loads(body["body"]) for kind, body in controls if kind == "Definition" and body["name"] == JUDGE]


def _warned(ledger: Ledger) -> list[tuple[int, bool, bool]]:
    """Of each first reading of an event: index, whether judge warned, and whether the settings then in force say so."""
    judge = Judge()
    state = judge.new_state(0)
    found: list[tuple[int, bool, bool]] = []
    with ledger.log() as log:
        tail = read_tail(log, ledger.names.sequenced, 0)
    assert tail is not None
    thresholds = iter(_definitions(ledger))
    threshold_us = 0
    for batch in read_entries(ledger.bootstrap, ledger.names.sequenced, 0, 0, tail.offset + 1):
        entries = batch.entries
        outputs = judge.step(state, entries)
        verdicts, events = outputs.verdicts, outputs.events
        for row in range(entries.index.size):
            value = bytes_at(int(entries.value_address[row]), max(0, int(entries.value_length[row])))
            if entries.kind[row] == EntryKind.CONTROL:
                threshold_us = next(thresholds)["threshold_us"] if b"threshold_us" in value else threshold_us
            elif verdicts.fault[row] == Fault.NONE and not verdicts.flags[row] & (Flag.DUPLICATE | Flag.CONFLICT):
                distance_us = abs(int(events.local_us[row]) - 1_000 * int(entries.authority_ms[row]))
                warned = bool(verdicts.flags[row] & Flag.WARNED)
                found.append((int(entries.index[row]), warned, distance_us > threshold_us))
    return found


def test_changed_settings_hold_from_their_entry_on_and_nothing_is_judged_twice(
    kafka: Any, prefix: str, tmp_path: Path
) -> None:
    """A worker with another threshold writes it into the ledger; one with the same threshold writes nothing."""
    before = Ledger(kafka.bootstrap, prefix, tmp_path, {**_CHANGED, "drift_threshold_ms": 5_000}).create()
    after = Ledger(kafka.bootstrap, prefix, tmp_path, {**_CHANGED, "drift_threshold_ms": 1_000.5})
    load = Load(before, sources=8)
    heads, warnings = [], []
    for ledger in (before, after, after):
        load.send(3_000)
        load.flush()
        with ledger.worker() as worker:
            ledger.wait_level(worker)
            load.send(2_000)
            load.flush()
            ledger.wait_level(worker)
            wait_for(lambda: worker.metric("driftledger_events_total") == 5_000, "all are counted")
            warnings.append(worker.metric("driftledger_drift_warnings_total"))
            worker.stop()
        head = ledger.head(0)
        assert head is not None
        heads.append(head.index)
    assert check_exactly_once(after) == 15_000
    assert [definition["threshold_us"] for definition in _definitions(after)] == [5_000_000, 1_000_500]
    readings = _warned(after)
    assert all(warned == expected for _, warned, expected in readings)
    # Each worker warned of what it wrote: a reading judged again, or never, would be counted.
    ranges = zip([0, *heads], heads, strict=False)
    assert warnings == [sum(warned for index, warned, _ in readings if low < index <= high) for low, high in ranges]
    assert after.outputs() == refold(after)


def test_a_changed_setting_behind_a_heartbeat_that_waits_for_input_comes_in(
    kafka: Any, prefix: str, tmp_path: Path
) -> None:
    """A worker died on an idle partition, right after a heartbeat that speaks of the first events.

    That heartbeat waits for those events, and the changed setting stands behind it: the setting comes before any event,
    and the heartbeat counts as missed.
    """
    before = Ledger(kafka.bootstrap, prefix, tmp_path, {**_CHANGED, "drift_threshold_ms": 5_000}).create()
    after = Ledger(kafka.bootstrap, prefix, tmp_path, {**_CHANGED, "drift_threshold_ms": 1_000})
    with before.worker(Blow(Point.COMMITTED, 5)) as worker:
        worker.wait_killed()
    load = Load(before)
    load.send(2_000)
    load.flush()
    with before.log() as log:
        end = log.ends(before.names.input, [0])[0]
        missed = log.ends(before.names.control, [0])[0]
    beat = {"predecessor_appended_ms": None, "input_end_offset": end, "worker_us": time.now_us()}
    before.append(before.names.control, 0, encode_control("Heartbeat", beat, "dead", "tick"))
    with after.worker() as worker:
        after.wait_level(worker)
        wait_for(lambda: len(_definitions(after)) == 2, "the setting is written")
        beats = len(read_ledger(after, 0).control)
        wait_for(lambda: len(read_ledger(after, 0).control) > beats + 2, "heartbeats go on", poll_s=POLL_BROKER_S)
        assert worker.health()[0] == 200
        worker.stop()
    assert "lane_failed" not in worker.output
    assert check_exactly_once(after, passed_over={missed}) == 2_000
    assert all(warned == expected for _, warned, expected in _warned(after))
    assert after.outputs() == refold(after)
