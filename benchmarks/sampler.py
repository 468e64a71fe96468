"""CPU time and memory of processes over time, read from outside.

A thread takes a sample at each interval; what was used between two instants is interpolated, so nobody has to read at
the right moment. psutil tells CPU time in hundredths of a second: exact enough for windows of seconds.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import numpy as np
import psutil

from schemas.clock import SystemTime

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_STOP_TIMEOUT_S: Final = 10
_US_PER_S: Final = 1_000_000
_time = SystemTime()


class Use(NamedTuple):
    """CPU seconds between two instants: of the client, of the broker (None where it runs elsewhere), of all others."""

    client_s: float
    broker_s: float | None
    others_s: float


class Sampler:
    """Samples a client with its children, and a broker, from entry to exit of a `with`."""

    def __init__(self, client: int, broker: Iterable[int], interval_s: float) -> None:
        parent = psutil.Process(client)
        self._client = [parent, *parent.children(recursive=True)]
        self._broker = [psutil.Process(pid) for pid in broker]
        self._interval_s = interval_s
        self._rows: list[tuple[float, ...]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        self._take()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(_STOP_TIMEOUT_S)
        with contextlib.suppress(psutil.NoSuchProcess):
            self._take()

    def used(self, begin_us: int, end_us: int) -> Use:
        """What was used between two instants of the wall clock."""
        rows = self._table()
        client, broker, all_of_it = (
            float(np.interp(end_us, rows[:, 0], column) - np.interp(begin_us, rows[:, 0], column))
            for column in (rows[:, 1], rows[:, 2], rows[:, 3])
        )
        others = max(all_of_it - client - broker, 0.0)
        return Use(client, broker if self._broker else None, others)

    def peak_bytes(self) -> int:
        """The most memory (RSS) of the client in any sample."""
        return int(self._table()[:, 4].max())

    def memory(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Instants in seconds (wall) and the client's RSS in MB at each."""
        rows = self._table()
        return rows[:, 0] / _US_PER_S, rows[:, 4] / 2**20

    def _table(self) -> NDArray[np.float64]:
        return np.array(list(self._rows), np.float64)

    def _run(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):  # whoever runs the client notices its end, and says why
            while not self._stopping.wait(self._interval_s):
                self._take()

    def _take(self) -> None:
        now_us = _time.now_us()
        client = sum(_cpu_s(process) for process in self._client)
        rss = sum(process.memory_info().rss for process in self._client)
        broker = sum(_cpu_s(process) for process in self._broker)
        times = psutil.cpu_times()
        busy = times.user + times.nice + times.system + getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0)
        self._rows.append((now_us, client, broker, busy, rss))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
