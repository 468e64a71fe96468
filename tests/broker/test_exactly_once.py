"""One input record, one DATA entry, in order, contiguous, whatever dies: workers killed inside their transactions."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from streams.lane import Point
from tests.broker.harness import Blow, Ledger, Load, check_exactly_once, refold

if TYPE_CHECKING:
    from pathlib import Path

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
        # A lane's client holds a batch back until the commit; at these points half or all of it must be at the broker.
        sent = blow.point in (Point.HALF_PRODUCED, Point.PRODUCED)
        with ledger.worker(blow, deliver_first=sent) as worker:
            worker.wait_killed()
    load.send(events - events // kills * kills)
    load.flush()
    return load


def _finish(ledger: Ledger) -> None:
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        worker.stop()


def _undisturbed(kafka: Any, prefix: str, folder: Path, of: Ledger) -> Ledger:
    """The ledger that a run without a kill makes of the same input."""
    options = {**of.options, "input_topic": of.names.input}
    return Ledger(kafka.bootstrap, f"{prefix}-calm", folder, options).create()


def _prove(kafka: Any, prefix: str, tmp_path: Path, kills: int, events: int) -> None:
    """Two ledgers side by side, one without heartbeats, one with."""
    options = {"batch_events_max": BATCH_EVENTS, "snapshot_entries": 20_000, "confirm_events": 2}
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
    assert silent.outputs() == expected
    assert ticking.outputs() == refold(ticking)


def test_a_worker_killed_at_any_point_loses_and_doubles_nothing(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Eight kills over 200,000 events: every named point of a transaction, a commit under way, and at random.

    Without heartbeats alerts and dead letters are byte for byte those of an undisturbed run; with them, those that an
    observer folds from the ledger.
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
