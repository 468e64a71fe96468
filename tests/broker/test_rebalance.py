"""Workers come and go under load: lanes move, and every partition goes on."""

from __future__ import annotations

import contextlib
import random
import threading
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.broker.harness import PATIENCE_S, QUICK, Ledger, Load, Worker, check_exactly_once, refold, time, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EVENTS_PER_BURST = 100
BURST_S = 0.1
#: The bars of this row.
ADVANCE_WITHIN_S = 10.0
LIVE_WITHIN_S = 15.0
#: However slow a machine is.
LEAVE_MIN = 3


@contextlib.contextmanager
def _steady(load: Load) -> Iterator[None]:
    """About 1,000 events/s, to all partitions, until the block ends."""
    done = threading.Event()

    def send() -> None:
        while not done.wait(BURST_S):
            load.send(EVENTS_PER_BURST)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class _Pulse:
    """Watches that the sum of all indexes advances; a stall that is too long is kept and reported."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.stall_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        total, since_ns = 0, time.monotonic_ns()
        while not self._done.wait(0.5):
            now = sum(index for index in indexes(self._ledger).values())
            now_ns = time.monotonic_ns()
            self.stall_s = max(self.stall_s, (now_ns - since_ns) / 1e9)
            if now > total:
                total, since_ns = now, now_ns


def indexes(ledger: Ledger) -> dict[int, int]:
    """The last index of each partition, 0 for none."""
    heads = {p: ledger.head(p) for p in ledger.partitions}
    return {p: head.index if head else 0 for p, head in heads.items()}


def _come_and_go(kafka: Any, prefix: str, tmp_path: Path, partitions: int, duration_s: float) -> tuple[int, int]:
    """Two workers leave and join in turn, every few seconds: mostly told to, now and then killed. Returns both counts.

    Then one leaves for good, once killed and once told to: the other one takes over.
    """
    options = {"partitions": partitions, "lanes": partitions, "batch_events_max": 5_000, "windows": QUICK}
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, options).create()
    load = Load(ledger, sources=20 * partitions)
    rng = random.Random(partitions)
    again_s = []
    with contextlib.ExitStack() as stack:
        workers: list[Worker] = [stack.enter_context(ledger.worker()) for _ in range(2)]
        wait_for(lambda: sum(len(worker.live_lanes()) for worker in workers) == partitions, "all lanes are live")

        def replace(leaving: int) -> None:
            workers[leaving] = stack.enter_context(ledger.worker())
            # The other one leaves only once this one serves: with nobody there, nothing could go on.
            workers[leaving].wait_live()

        with _steady(load):
            wait_for(lambda: all(indexes(ledger).values()), "every partition has begun")
            with _Pulse(ledger) as pulse:
                end_ns = time.monotonic_ns() + int(duration_s * 1e9)
                left = killed = 0
                while time.monotonic_ns() < end_ns or left < LEAVE_MIN:
                    leaving = left % 2
                    if left % 4 == 3:
                        _kill(workers[leaving])
                        killed += 1
                    else:
                        workers[leaving].stop()
                    left += 1
                    replace(leaving)
                    time.sleep_s(rng.uniform(0.0, 1.5))
                again_s.append(_taken_over_s(ledger, lambda: _kill(workers[0]), workers[1]))
                replace(0)
                again_s.append(_taken_over_s(ledger, workers[1].stop, workers[0]))
        load.flush()
        ledger.wait_level(workers[0])
        workers[0].stop()
    assert pulse.stall_s < ADVANCE_WITHIN_S
    assert max(again_s) < LIVE_WITHIN_S, again_s
    assert check_exactly_once(ledger) == sum(len(sent) for sent in load.acknowledged.values())
    assert ledger.outputs() == refold(ledger)
    return left, killed


def _kill(worker: Worker) -> None:
    worker.process.kill()
    worker.process.wait()


def _taken_over_s(ledger: Ledger, leave: Callable[[], object], stays: Worker) -> float:
    """Seconds from before one leaves to a live lane and a commit of the other's on every partition."""
    disturbed_ns = time.monotonic_ns()
    leave()
    before = indexes(ledger)

    def goes_on() -> bool:
        now = indexes(ledger)
        return len(stays.live_lanes()) == len(before) and all(now[p] > before[p] for p in before)

    wait_for(goes_on, "every partition has a live lane and a new commit", PATIENCE_S)
    return (time.monotonic_ns() - disturbed_ns) / 1e9


@pytest.mark.alone
def test_workers_that_come_and_go_leave_no_gap(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Eight partitions, 25 s."""
    _come_and_go(kafka, prefix, tmp_path, partitions=8, duration_s=20)


@pytest.mark.soak
def test_two_minutes_of_coming_and_going_leave_no_gap(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Sixteen partitions, 2 minutes."""
    left, killed = _come_and_go(kafka, prefix, tmp_path, partitions=16, duration_s=120)
    assert left >= 10
    assert killed >= 2
