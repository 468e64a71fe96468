"""An owner that stands still inside a transaction: others take over, and when it wakes up it harms nobody."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING, Any

from streams.transactions import Point
from tests.broker.harness import QUICK, Blow, Ledger, Load, Worker, check_exactly_once, refold, side_by_side, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from streams.log import Bounds


def _bounds(ledger: Ledger) -> dict[int, Bounds]:
    """Of each ledger partition."""
    with ledger.log() as log:
        return {p: log.bounds(ledger.names.sequenced, p) for p in ledger.partitions}


def _open_transactions(ledger: Ledger) -> list[int]:
    """Ledger partitions on which a transaction is open."""
    return [p for p, bound in _bounds(ledger).items() if bound.stable_end < bound.end]


def _shared(ledger: Ledger, workers: list[Worker]) -> bool:
    """Whether every lane is live in exactly one worker."""
    lanes = [lane for worker in workers for lane in worker.live_lanes()]
    return sorted(lanes) == list(range(ledger.settings.lanes))


def _with_a_successor(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    """Another worker takes its lanes while it stands still; then it goes on.

    Nothing of its transaction becomes visible, it does not fence its successor for good, and it takes its share again.
    """
    ledger = Ledger(bootstrap, prefix, tmp_path, {"windows": QUICK}).create()
    load = Load(ledger)
    load.send(20_000)
    load.flush()
    with ledger.worker(Blow(Point.PRODUCED, 12, "SIGSTOP"), deliver_first=True) as sleeper:
        sleeper.wait_stopped()
        assert _open_transactions(ledger)
        stood = _bounds(ledger)
        with ledger.worker() as successor:
            successor.wait_live(lanes=4)
            ledger.wait_level(successor)
            # The successor has transactions of its own, with each heartbeat one.
            assert all(bound.stable_end >= stood[p].end for p, bound in _bounds(ledger).items())
            assert check_exactly_once(ledger) == 20_000

            load.send(20_000)
            sleeper.signal(signal.SIGCONT)
            load.flush()
            wait_for(lambda: _shared(ledger, [sleeper, successor]), "both share the lanes")
            load.send(20_000)
            load.flush()
            ledger.wait_level(successor)
            # Whoever woke up wrote at most one failed commit for each lane; nobody fences back and forth.
            assert successor.output.count("lane_failed") <= ledger.settings.lanes
            assert sleeper.output.count("lane_failed") <= ledger.settings.lanes
            sleeper.stop()
            successor.stop()
    assert check_exactly_once(ledger) == 60_000
    assert ledger.outputs() == refold(ledger)


def _with_nobody(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    """Paused for longer than its session and its transaction: the broker ended both, and nobody else came.

    It is fenced although it has no successor, asks the group, joins it again and goes on from the tail.
    """
    ledger = Ledger(bootstrap, prefix, tmp_path, {"transaction_timeout_ms": 6_000, "windows": QUICK}).create()
    load = Load(ledger)
    load.send(20_000)
    load.flush()
    with ledger.worker(Blow(Point.PRODUCED, 12, "SIGSTOP"), deliver_first=True) as sleeper:
        sleeper.wait_stopped()
        assert _open_transactions(ledger)
        # The broker looks for transactions that are too old every ten seconds.
        wait_for(lambda: not _open_transactions(ledger), "the broker ends the transaction")
        sleeper.signal(signal.SIGCONT)
        ledger.wait_level(sleeper)
        load.send(5_000)
        load.flush()
        ledger.wait_level(sleeper)
        sleeper.stop()
    assert check_exactly_once(ledger) == 25_000
    assert ledger.outputs() == refold(ledger)


def test_an_owner_that_stands_still_inside_a_transaction_does_no_harm(
    kafka: Any, prefix: str, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Stopped when everything was produced and nothing committed."""
    side_by_side(
        subtests,
        partial(_with_a_successor, kafka.bootstrap, f"{prefix}-a", tmp_path),
        partial(_with_nobody, kafka.bootstrap, f"{prefix}-b", tmp_path),
    )
