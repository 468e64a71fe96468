"""Jobs that are asked of workers on a real ledger: whoever has the hot tier does them, whoever dies meanwhile."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle.asked_jobs import AskedJobs
from lifecycle.asking import AskedJobError, NobodyAnswersError, Workers
from lifecycle.chunks import ROWS
from lifecycle.hot_store import HotStore
from lifecycle.job_log import JobLog
from lifecycle.job_record import State
from lifecycle.jobs import Jobs
from lifecycle.keeper import Keeper
from lifecycle.owned import OwnedLane
from lifecycle.steps import Job
from schemas.clock import SkewedTime, Step, SystemTime, using
from schemas.errors import UnreachableError
from streams.cli.main import main
from tests.broker.harness import Ledger, Load, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lifecycle.asking import Answer
    from lifecycle.job_record import Job as Run
    from tests.broker.harness import Worker

DAYS = 9.0
EVENTS = 40_000


def ledger_of(kafka: Any, prefix: str, folder: Path, **options: Any) -> Ledger:
    """One whose workers move nothing by themselves, and flush what is hot each second."""
    given = {"lifecycle_interval_s": 0, "snapshot_interval_ms": 1_000, **options}
    return Ledger(kafka.bootstrap, prefix, folder, given).create()


def fill(ledger: Ledger, worker: Worker) -> None:
    """Send events, and wait until they are hot."""
    load = Load(ledger)
    load.send(EVENTS)
    load.flush()
    ledger.wait_level(worker)
    partitions = ledger.settings.partitions
    wait_for(lambda: worker.output.count("hot_tier_level") == partitions, "all are hot")


@contextmanager
def later(ledger: Ledger, **settings: Any) -> Iterator[Worker]:
    """A worker some days later that serves all lanes."""
    with ledger.worker(days=DAYS, **settings) as worker:
        worker.wait_live(ledger.settings.lanes)
        yield worker


def runs_of(ledger: Ledger) -> list[Run]:
    """All that the jobs topic tells, newest first."""
    with JobLog(ledger.bootstrap, ledger.names.jobs) as log:
        return log.history(100)


def away(ledger: Ledger) -> int:
    """How many chunks the hot stores do not hold; of no worker that runs."""
    found = 0
    for folder in ledger.settings.data_dir.glob("hot/*/*/lane-*"):
        with closing(HotStore.open_read_only(folder)) as store:
            found += sum(store.away(partition).size for partition in store.partitions())
    return found


def unsized(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what the hot tier takes, which changes as it is written."""
    return [step | {"size_bytes": None} for step in steps]


def test_who_cannot_be_asked_is_said(
    kafka: Any, prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker, a partition that there is not, a job that nobody is asked for, one that there is not."""
    ledger = ledger_of(kafka, prefix, tmp_path, partitions=2, lanes=1)
    for name, value in ledger.environment().items():
        monkeypatch.setenv(name, value)

    def refused(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["lifecycle", "run", *arguments])
        return code, capsys.readouterr().err

    code, text = refused("promote", "--wait", "1")
    assert code == 3
    assert "no live worker that has the hot store of partitions 0, 1" in text
    assert "driftledger worker" in text
    assert refused("seal")[0] == 0  # there is nothing to seal, so nobody is asked
    code, text = refused("promote", "--partition", "2")
    assert (code, "0 to 1" in text) == (2, True)
    code, text = refused("compact", "--where", "worker")
    assert (code, "touches no hot tier" in text) == (2, True)
    code, text = refused("dance")
    assert code == 2
    assert all(job in text for job in Job)
    assert refused("promote", "--where", "here")[0] == 2
    code, text = refused("promote", "--bytes-per-s", "1000")
    assert (code, "lifecycle_bytes_per_s" in text) == (2, True)


def test_the_next_owner_ends_what_a_killed_worker_began(
    kafka: Any, prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator on a machine that has nothing asks for a seal, and is told its end; so he is of what he asks next."""
    ledger = ledger_of(kafka, prefix, tmp_path, partitions=2, lanes=2)
    elsewhere = ledger.settings.model_copy(update={"data_dir": tmp_path / "elsewhere"})
    for name, value in (ledger.environment() | {"DRIFTLEDGER_DATA_DIR": str(elsewhere.data_dir)}).items():
        monkeypatch.setenv(name, value)

    def told(*arguments: str) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main(["lifecycle", *arguments, "--json"]) == 0, capsys.readouterr().err
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    follow: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        with later(ledger, lifecycle_bytes_per_s=60_000) as slow:
            fill(ledger, slow)
            planned = wait_for(lambda: whole(told("run", "seal", "--dry-run")), "it is flushed", poll_s=0.4)
            asking = pool.submit(ask, ledger, Job.SEAL, lambda _done, _of, text: follow.append(text))
            wait_for(lambda: running(ledger), "it runs", poll_s=0.4)
            slow.process.kill()
        with later(ledger) as worker:
            assert len(asking.result(90).steps) <= len(planned)
            assert any("the next owner goes on" in text for text in follow)
            runs = [(run.asked, run.state) for run in runs_of(ledger) if run.asked is not None]
            lost = next(asked.ask for asked, state in runs if state is State.LOST)
            assert sorted((asked.lane, state) for asked, state in runs if asked.ask == lost) == [
                (0, State.DONE), (0, State.LOST), (1, State.DONE), (1, State.LOST),
            ]  # fmt: skip
            assert told("run", "seal", "--partition", "1") == []
            leaving = told("run", "demote", "--dry-run")
            assert {step["partition"] for step in leaving} == {0, 1}
            assert unsized(told("run", "demote")) == unsized(leaving)
            assert told("run", "promote") == []
            history = told("history", "--last", "50")
            worker.stop()
    sealed = next(run for run in history if run["job"] == "seal" and run["rows"])
    assert min(sealed[name] for name in ("seconds", "rows_per_s", "bytes_per_s", "bytes_out")) > 0
    assert away(ledger) >= EVENTS // ROWS - 2
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        outcome = jobs.run(Job.VERIFY, lambda *_: None)
        assert len(outcome.steps) >= len(planned)
        assert outcome.tidied == 0
        rows = {partition: sum(file.facts.rows for file in files) for partition, files in jobs.tree().parts.items()}
    assert all(rows[part] >= sum(s["rows"] for s in planned if s["partition"] == part) for part in (0, 1))


def whole(planned: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps that seal all full chunks of both partitions; nothing where they do not."""
    return planned if sum(step["rows"] for step in planned) > EVENTS - 2 * ROWS else []


def running(ledger: Ledger) -> bool:
    """Whether a run of the lease is under way."""
    return any(run.state is State.RUNNING and run.lease for run in runs_of(ledger))


def ask(ledger: Ledger, job: Job, follow: Callable[[int, int | None, str], None], **options: Any) -> Answer:
    """Of the workers of a ledger."""
    return Workers(ledger.settings, ledger.bootstrap).ask(job, follow, **options)


def test_a_worker_that_stops_ends_its_turn(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """In the middle of a seal: that is told as cancelled, so the next run begins at once; the worker leaves in time."""
    ledger = ledger_of(kafka, prefix, tmp_path, partitions=1, lanes=1, lifecycle_interval_s=1)
    with later(ledger, lifecycle_bytes_per_s=60_000) as worker:
        fill(ledger, worker)
        wait_for(lambda: running(ledger), "it runs", poll_s=0.4)
        worker.stop()
    run = next(run for run in runs_of(ledger) if run.job == Job.SEAL)
    assert run.state is State.CANCELLED, run.error
    with at(DAYS), Jobs(ledger.settings, ledger.bootstrap) as jobs:
        assert jobs.run(Job.SEAL, lambda *_: None).steps


class _Tier:
    """What a keeper asks of a lane's hot tier."""

    def __init__(self, store: HotStore) -> None:
        self._store = store

    @contextmanager
    def reading(self) -> Iterator[HotStore]:
        yield self._store


def lanes_of(store: HotStore) -> list[OwnedLane]:
    """Of a worker that has one."""
    tier: Any = _Tier(store)
    return [OwnedLane((0,), {}, tier)]


def at(days: float) -> Any:
    """So many days from now."""
    return using(SkewedTime(SystemTime(), Step(int(days * 86_400 * 1e9))))


def test_a_worker_takes_each_ask_once_and_no_old_one(
    kafka: Any, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read much comes back; a record that is there twice counts once; what is old, or fails, says why."""
    ledger = ledger_of(kafka, prefix, tmp_path, partitions=1, lanes=1)
    with ledger.worker() as worker:
        fill(ledger, worker)
        worker.stop()
    (folder,) = ledger.settings.data_dir.glob("hot/*/*/lane-0")
    slot = folder.parent.parent
    with closing(HotStore.open(folder)) as store, at(DAYS):
        lanes = lanes_of(store)
        with closing(Keeper(ledger.settings, ledger.bootstrap, lambda: lanes)) as keeper:
            keeper.turn(slot)
        assert store.away(0).size >= EVENTS // ROWS - 1
    with closing(HotStore.open(folder)) as store, at(DAYS + 1.5) as clock, ThreadPoolExecutor(1) as pool:
        lanes = lanes_of(store)
        keeper = Keeper(ledger.settings, ledger.bootstrap, lambda: lanes)
        asked = AskedJobs(ledger.settings, ledger.bootstrap, keeper, lambda: lanes)

        def answered(job: Job, **options: Any) -> Answer:
            """Ask, and be the worker meanwhile."""
            answer = pool.submit(ask, ledger, job, lambda *_: None, **options)
            while not answer.done():
                for errand in asked.look():
                    asked.run(errand, slot)
                clock.sleep_s(0.1)
            return answer.result()

        assert answered(Job.PROMOTE).steps == ()
        for _ in range(2_000):
            keeper.note(0, [1])
        assert {step.job for step in answered(Job.PROMOTE, dry_run=True).steps} == {Job.PROMOTE}
        assert store.away(0).size
        assert {step.job for step in answered(Job.PROMOTE).steps} == {Job.PROMOTE}
        assert not store.away(0).size
        assert asked.look() == []
        monkeypatch.setattr("lifecycle.asks.FRESH_MS", -1)
        with pytest.raises(AskedJobError, match="nothing that is older than") as refused:
            answered(Job.DEMOTE)
        assert refused.value.code == 3
        monkeypatch.undo()
        lanes.clear()
        with pytest.raises(NobodyAnswersError):
            answered(Job.DEMOTE, answer_s=0.5)
        asked.close()
        keeper.close()
    with pytest.raises(UnreachableError):
        ask(ledger, Job.DEMOTE, lambda *_: None, answer_s=0.5)
