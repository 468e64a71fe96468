"""What is measured, as a process of its own: the worker, or its lanes alone.

Both are started on empty topics, are ready when every lane is open, and are asked to end in order.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Final, Protocol

from schemas.clock import SystemTime
from schemas.errors import DriftledgerError
from schemas.topics import topic_names
from streams.folds import Configured
from streams.lane import Lane
from streams.up import Worker
from streams.warm import warm
from streams.warning_log import WarningLog
from streams.windows import WindowDefinition

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from streams.settings import Settings

#: Compiling takes 75 seconds where the cache is empty; opening lanes takes a second.
READY_TIMEOUT_S: Final = 180
_STOP_TIMEOUT_S: Final = 20
_POLL_S: Final = 0.1
_NS_PER_S: Final = 1_000_000_000
_US_PER_MS: Final = 1_000
_NAME: Final = "benchmark"
#: What a worker logs where it does less than its work.
_FAILURES: Final = (b'"lane_failed"', b'"partition_halted"', b'"hot_tier_unavailable"', b'"hot_store_damaged"')
_time = SystemTime()


class SubjectError(DriftledgerError):
    """What is measured did not start, or ended."""


class Running(Protocol):
    """A subject between start and stop."""

    @property
    def pid(self) -> int:
        """Its process."""
        ...

    def is_ready(self) -> bool:
        """Whether every lane is open; raises SubjectError where it ended."""
        ...

    def check(self) -> None:
        """Raise SubjectError where it ended or a lane of it does not work."""
        ...

    def stop(self) -> None:
        """Ask it to end, and end it."""
        ...


def start_worker(settings: Settings, bootstrap: str, folder: Path) -> Running:
    """`driftledger worker` on one ledger; its settings and its log are in the folder."""
    config = folder / "driftledger.toml"
    fields = ("prefix", "partitions", "lanes", "batch_events_max", "http_port", "hot_store", "data_dir")
    lines = [f"{name} = {_toml(getattr(settings, name))}\n" for name in fields]
    lines += [] if settings.windows else ["window = []\n"]
    lines.append(f'[[ledger]]\nname = "{settings.ledger}"\n')
    for window in settings.windows:
        lines.append(f'[[window]]\nname = "{window.name}"\nsize_ms = {window.size_us // _US_PER_MS}\n')
    config.write_text("".join(lines), encoding="utf-8")
    return _WorkerProcess(Worker(folder, bootstrap, ("--config", str(config))), settings.lanes)


def start_lanes(settings: Settings, bootstrap: str, *, judged: bool) -> Running:
    """All lanes of a ledger in the threads of one process."""
    return _LanesProcess(settings, bootstrap, judged=judged)


def wait_until_ready(subject: Running) -> None:
    """Raises SubjectError where a subject is not ready within READY_TIMEOUT_S."""
    deadline_ns = _time.monotonic_ns() + READY_TIMEOUT_S * _NS_PER_S
    while not subject.is_ready():
        if _time.monotonic_ns() > deadline_ns:
            raise SubjectError(f"not all lanes are open after {READY_TIMEOUT_S} s")
        _time.sleep_s(_POLL_S)


class _WorkerProcess:
    def __init__(self, worker: Worker, lanes: int) -> None:
        self._worker, self._lanes = worker, lanes
        self.pid = worker.pid

    def is_ready(self) -> bool:
        self._check_alive()
        health = self._worker.health()
        return health is not None and health.lanes_live == self._lanes

    def check(self) -> None:
        self._check_alive()
        log = self._worker.log.read_bytes()
        if any(event in log for event in _FAILURES):
            raise SubjectError(f"a lane of the worker failed while it was measured. Its log: {self._worker.log_tail()}")

    def stop(self) -> None:
        self._worker.stop()

    def _check_alive(self) -> None:
        if self._worker.exit_code() is not None:
            raise SubjectError(f"the worker ended ({self._worker.exit_code()}). Its log: {self._worker.log_tail()}")


class _LanesProcess:
    def __init__(self, settings: Settings, bootstrap: str, *, judged: bool) -> None:
        context = multiprocessing.get_context("spawn")  # a client of Kafka does not survive a fork
        self._ready, self._stop = context.Event(), context.Event()
        self._process = context.Process(
            target=_serve,
            args=(
                settings, bootstrap, Configured(settings.judge(), settings.windows) if judged else None, self._ready,
                self._stop,
            ),
            daemon=True,
        )  # fmt: skip
        self._process.start()
        self.pid = self._process.pid or 0

    def is_ready(self) -> bool:
        self.check()
        return self._ready.is_set()

    def check(self) -> None:
        if not self._process.is_alive():
            raise SubjectError(f"the lanes ended ({self._process.exitcode}); why stands above")

    def stop(self) -> None:
        self._stop.set()
        self._process.join(_STOP_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def windows_of(window_ms: int) -> tuple[WindowDefinition, ...]:
    """The definition of the cases with windows: tumbling, by source, local, with the usual functions; none for 0."""
    return (WindowDefinition("benchmark", size_us=window_ms * _US_PER_MS),) if window_ms else ()


def _toml(value: str | int | Path) -> str:
    return str(value).lower() if isinstance(value, int) else f'"{value}"'


def _serve(settings: Settings, bootstrap: str, configured: Configured | None, ready: Any, stop: Any) -> None:
    """The entry point of the lanes' process. Ends when told to, when its parent is gone, or with a lane's error."""
    warm()
    names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
    lanes, warnings = [], WarningLog()
    for number in range(settings.lanes):
        partitions = range(number, settings.partitions, settings.lanes)
        lanes.append(Lane(settings, bootstrap, names, number, partitions, configured, worker=_NAME, warnings=warnings))
    parent = multiprocessing.parent_process()
    with ThreadPoolExecutor(settings.lanes) as threads:
        list(threads.map(Lane.open, lanes))
        ready.set()
        running = {threads.submit(_run, lane, stop.is_set) for lane in lanes}
        try:
            while running and (parent is None or parent.is_alive()):
                ended, running = wait(running, _POLL_S, FIRST_COMPLETED)
                for lane_run in ended:
                    lane_run.result()
        finally:
            stop.set()
    for lane in lanes:
        lane.close()


def _run(lane: Lane, stopping: Callable[[], bool]) -> None:
    """Commit, then fetch, as the worker does."""
    batch = lane.fetch()
    while not stopping():
        lane.commit(batch)
        batch = lane.fetch()
    if batch is not None:
        batch.release()
