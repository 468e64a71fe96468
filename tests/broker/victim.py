"""A worker that hurts itself, or its broker, at a named point of a transaction; and the known-bad twin of those.

Run as a program by tests/broker/harness.py: one argument, the plan as JSON. Settings come from the environment, as
those of any worker, its windows from the plan, its clock is so many days ahead.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from schemas.clock import SkewedTime, Step, SystemTime, use
from streams import lane
from streams.lane_clients import producer_settings
from streams.librdkafka import INT, POINTER, ClientError, check, declare, flush
from streams.rdkafka import NativeProducer
from streams.settings import Settings
from streams.transactions import Point, Transactions
from streams.windows import WindowDefinition
from streams.worker import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.outbox import Rows

_abort_transaction = declare("abort_transaction", POINTER, POINTER, INT)
_TWIN_COMMIT_TIMEOUT_MS = 3_000
#: Until the broker goes on and carries out what it was asked for.
_TWIN_BACKOFF_S = 8.0
_PATIENCE_MS = 60_000
_DAY_NS = 86_400 * 10**9


class Blow:
    """A signal sent when a point has been reached so many times.

    plan: {"point", "after", "signal", "delay_us" (null: by the lane's own thread, at the point itself; else from
    another thread, so long after it), "target" (a pid, null for this process), "resume_ms" (null, or when to send the
    target SIGCONT)}.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self._point = Point(plan["point"])
        self._left = int(plan["after"])
        self._signal = signal.Signals[plan["signal"]]
        self._delay_us: int | None = plan["delay_us"]
        self._target = plan["target"] or os.getpid()
        self._resume_ms: int | None = plan["resume_ms"]
        self._lock = threading.Lock()

    def __call__(self, point: Point) -> None:
        """The observer of a lane."""
        if point is not self._point:
            return
        with self._lock:
            self._left -= 1
            if self._left != 0:
                return
        if self._delay_us is None:
            self._strike()
        else:
            threading.Thread(target=self._strike, daemon=True).start()

    def _strike(self) -> None:
        if self._delay_us is not None:
            SystemTime().sleep_s(self._delay_us / 1_000_000)
        if self._target == os.getpid():
            # To this thread, which so goes no further; sent to the process, another thread may have to wake up first.
            signal.pthread_kill(threading.get_ident(), self._signal)
        else:
            os.kill(self._target, self._signal)
        if self._resume_ms is not None:
            threading.Thread(target=self._resume, args=(self._resume_ms / 1_000,), daemon=True).start()

    def _resume(self, after_s: float) -> None:
        SystemTime().sleep_s(after_s)
        os.kill(self._target, signal.SIGCONT)


class AbortAndGoOn(Transactions):
    """Known bad: takes a commit that failed for one that did not happen. It aborts, and writes the batch again.

    The abort goes to the same producer; while a commit is in doubt librdkafka refuses that, and the twin does what is
    then done: a new producer, and on from where it thinks it stands. It never asks the ledger what took effect.
    """

    def __init__(self, settings: Settings, bootstrap: str, transactional_id: str, at: Callable[[Point], None]) -> None:
        super().__init__(settings, bootstrap, transactional_id, at)
        self._make: Callable[[], NativeProducer] = lambda: NativeProducer(
            producer_settings(settings, bootstrap), transactional_id
        )
        self._outgoing: list[tuple[str, Rows]] = []

    def add(self, topic: str, rows: Rows) -> None:
        """Also remember it."""
        self._outgoing.append((topic, rows))
        super().add(topic, rows)

    def commit(self) -> int:
        """Until it succeeds."""
        clock = SystemTime()
        began_ns = clock.monotonic_ns()
        while self._outgoing:
            self._at(Point.COMMITTING)
            try:
                self._producer.commit(_TWIN_COMMIT_TIMEOUT_MS)
            except ClientError:
                self._abort()
                self._producer.begin()
                for topic, rows in self._outgoing:
                    self._producer.produce(topic, rows.partition, rows.rows)
            else:
                self._outgoing.clear()
                self._added = 0
        return clock.monotonic_ns() - began_ns

    def _abort(self) -> None:
        try:
            check("abort_transaction", _abort_transaction(self._producer.handle, _PATIENCE_MS))
        except ClientError:
            SystemTime().sleep_s(_TWIN_BACKOFF_S)
            self._producer.destroy()
            self._producer = self._make()
            self._producer.init_transactions(_PATIENCE_MS)


def _deliver_first() -> None:
    """Have everything delivered before a commit begins, so that the commit is one request and its answer."""
    produce = NativeProducer.produce

    def produce_and_deliver(producer: NativeProducer, topic: str, partition: int, rows: Any) -> None:
        produce(producer, topic, partition, rows)
        flush(producer.handle, _PATIENCE_MS)

    NativeProducer.produce = produce_and_deliver  # type: ignore[method-assign,assignment]


def main() -> None:
    """Run until SIGTERM; SIGUSR1 writes where every thread stands."""
    faulthandler.register(signal.SIGUSR1)
    plan = json.loads(sys.argv[1])
    settings = Settings(windows=tuple(WindowDefinition.parse(body) for body in plan["windows"]))
    assert settings.bootstrap is not None
    if plan["lane"] == "abort_and_go_on":
        vars(lane)["Transactions"] = AbortAndGoOn
    at: Callable[[Point], None] | None = Blow(plan["blow"]) if plan["blow"] else None
    if plan["days"]:
        use(SkewedTime(SystemTime(), Step(int(plan["days"] * _DAY_NS))))
    if plan["deliver_first"]:
        _deliver_first()
    run(settings, settings.bootstrap, at=at)


if __name__ == "__main__":
    main()
