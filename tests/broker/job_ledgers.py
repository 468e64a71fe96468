"""What tests of jobs share: a ledger whose events are hot, a worker beside it, and jobs that run days later."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lifecycle.jobs import Jobs
from schemas.clock import SkewedTime, Step, SystemTime, using
from streams.snapshots import read_snapshots
from tests.broker.harness import Ledger, Load, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.steps import Job
    from tests.broker.harness import Worker

DAY_S = 86_400


def fill(ledger: Ledger, events: int, *, seed: int = 1, in_snapshots: bool = False) -> None:
    """Send events, have a worker make all of them hot, and end it.

    in_snapshots: of a ledger of one partition, once all snapshots are of its end.
    """
    load = Load(ledger, seed=seed)
    load.send(events)
    load.flush()
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        wait_for(lambda: worker.output.count("hot_tier_level") == ledger.settings.partitions, "all are hot")
        if in_snapshots:
            wait_for(lambda: oldest_snapshot(ledger) > events, "all snapshots are of its end", poll_s=1)
        worker.stop()


def oldest_snapshot(ledger: Ledger) -> int:
    """Of judge, derive and store of all partitions of the first lane; both of each are there, else 0."""
    with ledger.log() as log:
        found = [packed.index for packed in read_snapshots(log, ledger.names.snapshots, 0)]
    of_lane = [partition for partition in ledger.partitions if ledger.lane_of(partition) == 0]
    return min(found) if len(found) == 6 * len(of_lane) else 0


@contextmanager
def live(ledger: Ledger) -> Iterator[Worker]:
    """With a worker."""
    with ledger.worker() as worker:
        worker.wait_live()
        yield worker
        worker.stop()


@contextmanager
def later(days: float) -> Iterator[None]:
    """So many days from now."""
    with using(SkewedTime(SystemTime(), Step(int(days * DAY_S * 1e9)))):
        yield


def run(ledger: Ledger, job: Job, days: float) -> list[str]:
    """A job, so many days later; what it did."""
    told: list[str] = []
    with later(days), Jobs(ledger.settings, ledger.bootstrap) as jobs:
        jobs.run(job, lambda step, _done, _of: told.append(step.what))
    return told
