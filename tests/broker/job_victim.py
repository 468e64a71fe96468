"""Runs of jobs that are killed at a point: a process that makes others, each of which counts what it does and dies.

Run as a program by test_job_kills.py, with the settings of a ledger in its environment. Each line that it reads is a
Plan as JSON; for each it forks a process that runs the job and, at the POINT-th operation, sends itself SIGKILL; then
it writes a Fate. Imports and kernels are loaded once, by the parent, which never has a client of Kafka nor a thread.

What is counted, before it is done: what the system is asked for that changes files or opens them, records of the
manifest at each point of their transaction, records of the jobs topic, steps of a cut, and what is asked of RocksDB.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from lifecycle import jobs, keeper
from lifecycle.hot_store import HotStore
from lifecycle.job_log import JobLog
from lifecycle.keeper import Keeper
from lifecycle.manifest_log import ManifestLease
from lifecycle.owned import OwnedLane
from lifecycle.steps import Job
from schemas.clock import SkewedTime, Step, SystemTime, using
from schemas.topics import topic_names
from streams.settings import Settings
from streams.warm import warm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from schemas.topics import TopicNames

DAY_NS = 86_400 * 10**9
#: What the system is asked for, by name.
CALLS = ("open", "fsync", "rename", "unlink", "rmdir", "mkdir", "write")
#: No job: a worker's look at its data, after so many reads of the first chunk.
LOOK = "look"
#: How a process ends whose job raised an error.
RAISED = 3


class Plan(NamedTuple):
    """job: its name, or LOOK. point: 0 for none. manifest, jobs: topics."""

    job: str
    days: float
    point: int
    data_dir: str
    manifest: str
    jobs: str
    reads: int = 0


class Fate(NamedTuple):
    """code: as of a process, negative for a signal; done: operations that were begun, where it was not killed."""

    code: int
    done: int
    error: str


class HotTierOf:
    """What a keeper asks of a lane's hot tier."""

    def __init__(self, store: HotStore) -> None:
        self._store = store

    @contextmanager
    def reading(self) -> Iterator[HotStore]:
        """The store."""
        yield self._store


class Counter:
    """Counts, and dies."""

    def __init__(self, point: int) -> None:
        self.count, self._point = 0, point

    def __call__(self, *_: object) -> None:
        """One more is about to be done."""
        self.count += 1
        if self.count == self._point:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, owner: Any, name: str) -> None:
        """Count calls of a function."""
        call = getattr(owner, name)

        def counted(*args: Any, **named: Any) -> Any:
            self()
            return call(*args, **named)

        setattr(owner, name, counted)

    def watched(self, database: Any) -> Any:
        """A database whose calls are counted."""
        return _Watched(database, self)


class _Watched:
    def __init__(self, database: Any, counter: Counter) -> None:
        self._database, self._counter = database, counter

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._database, name)
        if name in ("write", "flush", "compact_range", "close"):
            self._counter()
        return found


def run(settings: Settings, names: TopicNames, plan: Plan, counter: Counter) -> None:
    """What is planned, to its end or the process's."""
    for module in (jobs, keeper):
        vars(module)["topic_names"] = lambda *_: names
    for name in CALLS:
        counter.before(os, name)
    for owner, name in ((Path, "open"), (Path, "write_bytes"), (JobLog, "write")):
        counter.before(owner, name)
    vars(jobs)["ManifestLease"] = partial(ManifestLease, at=counter)
    assert settings.bootstrap is not None
    with using(SkewedTime(SystemTime(), Step(int(plan.days * DAY_NS)))):
        if plan.job == LOOK:
            look(settings, settings.bootstrap, plan, counter)
            return
        with jobs.Jobs(settings, settings.bootstrap, counter) as made:
            made.run(Job(plan.job), lambda *_: None, take_over=True)


def look(settings: Settings, bootstrap: str, plan: Plan, counter: Counter) -> None:
    """As a worker does that has the lane."""
    [folder] = settings.data_dir.glob("hot/*/*/lane-0")
    store = HotStore.open(folder)
    store._database._rocks = counter.watched(store._database._rocks)
    tier: Any = HotTierOf(store)
    eyes = Keeper(settings, bootstrap, lambda: [OwnedLane((0,), {}, tier)])
    eyes.turn(settings.data_dir)
    if plan.reads:
        for _ in range(plan.reads):
            eyes.note(0, [1])
        eyes.turn(settings.data_dir)
    eyes.close()
    store.close()


def fate_of(settings: Settings, plan: Plan) -> Fate:
    """Have a process do it."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        _die_by(settings, plan, tell)
    os.close(tell)
    with os.fdopen(told) as reader:
        count, _, error = reader.read().partition(" ")
    _, status = os.waitpid(child, 0)
    return Fate(os.waitstatus_to_exitcode(status), int(count or 0), error)


def _die_by(settings: Settings, plan: Plan, tell: int) -> None:
    """The life of a child; it never returns."""
    write, code, error, counter = os.write, 0, "", Counter(plan.point)
    names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
    names = names._replace(manifest=plan.manifest, jobs=plan.jobs)
    try:
        run(settings.model_copy(update={"data_dir": Path(plan.data_dir)}), names, plan, counter)
    except BaseException as failure:  # noqa: BLE001 - told, whatever it is
        code, error = RAISED, f"{type(failure).__name__}: {failure}"
    write(tell, f"{counter.count} {error}".encode())
    os._exit(code)


def main() -> None:
    """Serve until there are no more plans."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    warm()
    settings = Settings()
    answer: Callable[[str], object] = sys.stdout.write
    for line in sys.stdin:
        answer(json.dumps(fate_of(settings, Plan(**json.loads(line)))._asdict()) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
