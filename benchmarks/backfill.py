"""Windows that are behind: how fast lanes fold a ledger again that is there already.

The ledger is written by lanes with windows and without snapshots; then the progress of derive is removed, which is how
a ledger looks that was written before there were windows. What is measured is the next opening of the lanes: they read
the ledger, step judge silently and derive speaking, and write its results. An opening of the same lanes without folds,
which fences and checks but reads no ledger, is taken off.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psutil

from schemas.clock import SystemTime
from streams.derive import DERIVE
from streams.folds import Configured
from streams.lane import Lane
from streams.progress import produce_durably
from streams.warm import warm

if TYPE_CHECKING:
    from benchmarks.surroundings import Surroundings
    from schemas.topics import TopicNames
    from streams.settings import Settings

_NAME: Final = "benchmark"
_NS_PER_S: Final = 1_000_000_000
_time = SystemTime()


class Folded(NamedTuple):
    """How long the lanes took, wall and CPU of the process, beyond an opening without folds."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def forget_windows(bootstrap: str, names: TopicNames, lanes: int) -> None:
    """Remove the progress of derive."""
    for lane in range(lanes):
        produce_durably(bootstrap, names.progress, lane, [(DERIVE.encode(), None)])


def fold_again(around: Surroundings) -> Folded:
    """Open all lanes in a process of its own."""
    context = multiprocessing.get_context("spawn")  # a client of Kafka does not survive a fork
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(around.settings, around.bootstrap, around.names, sending))
    process.start()
    sending.close()
    try:
        folded: Folded = receiving.recv()
    finally:
        process.join()
    return folded


def _serve(settings: Settings, bootstrap: str, names: TopicNames, result: Any) -> None:
    """The entry point of the process."""
    warm()
    behind_s, behind_cpu_s = _open(settings, bootstrap, names, Configured(settings.judge(), settings.windows))
    peak_mb = psutil.Process().memory_info().rss / 2**20
    bare_s, bare_cpu_s = _open(settings, bootstrap, names, None)
    result.send(Folded(behind_s - bare_s, behind_cpu_s - bare_cpu_s, peak_mb))
    result.close()


def _open(settings: Settings, bootstrap: str, names: TopicNames, configured: Configured | None) -> tuple[float, float]:
    lanes = [
        Lane(settings, bootstrap, names, n, range(n, settings.partitions, settings.lanes), configured, worker=_NAME)
        for n in range(settings.lanes)
    ]
    began_ns, began_cpu_s = _time.monotonic_ns(), _cpu_s()
    with ThreadPoolExecutor(settings.lanes) as threads:
        list(threads.map(Lane.open, lanes))
    took = (_time.monotonic_ns() - began_ns) / _NS_PER_S, _cpu_s() - began_cpu_s
    for lane in lanes:
        lane.close()
    return took


def _cpu_s() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)
