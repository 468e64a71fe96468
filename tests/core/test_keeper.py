"""What a worker does for its data in a turn: all that can be done, whatever fails, and nothing more once it stops."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import pytest
from structlog.testing import capture_logs

from lifecycle import keeper as module
from lifecycle.file_tree import FileTree, root_of
from lifecycle.hot_store import HotStore
from lifecycle.job_record import Did
from lifecycle.job_run import HandedOnError
from lifecycle.job_steps import Place, Work, seal
from lifecycle.jobs import Outcome
from lifecycle.keeper import Keeper
from lifecycle.owned import OwnedLane
from lifecycle.packing import DamagedError
from lifecycle.steps import Job, Step
from lifecycle.store import Store
from lifecycle.tiers import MS_PER_DAY, Grain, Tier
from schemas.clock import SimulatedTime, using
from schemas.errors import DriftledgerError, UnreachableError
from schemas.topics import topic_names
from streams.judge import Judge
from streams.settings import Settings
from tests.core.hours import BEGIN_MS, over_hours
from tests.core.job_scenario import FileLease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lifecycle.manifest import Tree
    from tests.core.hours import Hours

HOURS = 3
DAYS = 9


class _Followed(FileLease):
    """A manifest that nobody else writes."""

    def refresh(self) -> Tree:
        """The tree."""
        return self.tree


class _Tier:
    """What a keeper asks of a lane's hot tier. store: None until it may be served; uses: by how many it is now."""

    def __init__(self, store: HotStore | None) -> None:
        self.store, self.uses = store, 0

    @contextlib.contextmanager
    def reading(self) -> Iterator[HotStore | None]:
        """The store."""
        self.uses += 1
        try:
            yield self.store
        finally:
            self.uses -= 1


class _Jobs:
    """Jobs that do as they are told: a step of each is due. done: called with each, behind its step."""

    def __init__(self, steps: list[Step], done: Callable[[Job], None]) -> None:
        self.steps, self.ran, self._done = steps, list[Job](), done

    def __call__(self, *_: object, **__: object) -> _Jobs:
        """As it is made."""
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def planned(self, *, cuts: bool) -> tuple[Step, ...]:
        """All."""
        assert not cuts
        return tuple(self.steps)

    def run(self, job: Job, tell: Callable[[Step, int, int], None]) -> Outcome:
        """The step of a job."""
        [step] = [step for step in self.steps if step.job is job]
        tell(step, 0, step.rows)
        self.ran.append(job)
        self._done(job)
        return Outcome("an-id", (step,), Did(), 0)


class Kept:
    """Hours that are hot and archived, and their keeper, so many days later."""

    def __init__(self, folder: Path, made: Hours, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = Settings(data_dir=folder)
        self.manifest = topic_names(settings.prefix, settings.ledger, settings.input_topic).manifest
        lease = _Followed(folder / "manifest")
        work = Work(FileTree(root_of(folder, self.manifest), self.manifest), lease, "a-job", lambda: 1)
        for hour in made.hours[:HOURS]:
            place = Place(Tier.RECENT, Grain.HOURLY, hour.period)
            seal(work, made.partition, place, hour.chunks, made.batches(hour.headers[0].first_index, 700))
        judge, fold = Judge(), Store()
        judged = judge.step(judge.new_state(made.partition), made.entries)
        self.store = HotStore.open(folder / "store")
        self.store.write(fold.step(fold.new_state(made.partition), made.entries, judged))
        self.folder, self.partition, self.hours = folder, made.partition, made.hours
        self.tier = _Tier(self.store)
        tier: Any = self.tier
        monkeypatch.setattr(module, "ManifestLog", lambda *_: lease)
        self.keeper = Keeper(settings, "nowhere:1", lambda: [OwnedLane((made.partition,), {}, tier)])
        self.jobs = self.given(monkeypatch, lambda _: None)

    def given(self, monkeypatch: pytest.MonkeyPatch, done: Callable[[Job], None], *jobs: Job) -> _Jobs:
        """Jobs that are due, each about the first hour."""
        head, tail = self.hours[0].headers[0], self.hours[0].headers[-1]
        indexes = head.first_index, tail.last_index
        steps = [
            Step(job, self.partition, "a", Tier.HISTORICAL, Grain.DAILY, ("a",), *indexes, 1, 1, 0.0, "")
            for job in jobs
        ]
        made = _Jobs(steps, done)
        monkeypatch.setattr(module, "Jobs", made)
        return made

    def turn(self) -> None:
        """One."""
        self.keeper.turn(self.folder)

    def held(self) -> list[bool]:
        """By hour: whether its first chunk is hot."""
        away = set(self.store.away(self.partition).tolist())
        return [hour.chunks[0].first_sequence not in away for hour in self.hours[:HOURS]]

    def used(self) -> Any:
        """How hours are used, as it was saved."""
        return json.loads((self.folder / f"{self.manifest}.usage.json").read_text())


@pytest.fixture(scope="module")
def made() -> Hours:
    """Some hours, each of more than one chunk."""
    made = over_hours(5, 60_000, HOURS)
    assert len(made.hours) > HOURS
    return made


@pytest.fixture
def clock() -> Iterator[SimulatedTime]:
    """Some days after the hours."""
    clock = SimulatedTime((BEGIN_MS + DAYS * MS_PER_DAY) * 1_000_000)
    with using(clock):
        yield clock


@pytest.fixture
def kept(made: Hours, clock: SimulatedTime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """Nothing is due but what is hot."""
    assert clock.now_us() > 0
    kept = Kept(tmp_path, made, monkeypatch)
    yield kept
    kept.keeper.close()
    kept.store.close()


def test_what_is_old_leaves_and_what_is_read_comes_back(kept: Kept, clock: SimulatedTime) -> None:
    """No question waits meanwhile for a store that is kept open while archives are read at a pace."""
    kept.turn()
    assert kept.held() == [False] * HOURS
    for _ in range(2_000):
        kept.keeper.note(kept.partition, [hour.chunks[0].first_sequence for hour in kept.hours[:HOURS]])
    clock.sleep_s(1.5 * 86_400)
    for _ in range(2_000):
        kept.keeper.note(kept.partition, [hour.chunks[0].first_sequence for hour in kept.hours[:HOURS]])
    uses: list[int] = []
    pace: Any = kept.keeper.pace
    pace.take = lambda _: uses.append(kept.tier.uses)
    kept.turn()
    assert kept.held() == [True] * HOURS
    assert uses
    assert not any(uses)


def test_the_rest_of_an_hour_comes_back_whose_return_was_cut_off(kept: Kept, clock: SimulatedTime) -> None:
    """At the next turn, and of the archive no more is read than that."""
    kept.turn()
    hour = kept.hours[0]
    firsts = [chunk.first_sequence for chunk in hour.chunks]
    assert set(firsts) <= set(kept.store.away(kept.partition).tolist())
    clock.sleep_s(1.5 * 86_400)
    for _ in range(2_000):
        kept.keeper.note(kept.partition, firsts[:1])
    kept.store.bring_back(kept.partition, hour.chunks[:1])
    read: list[int] = []
    pace: Any = kept.keeper.pace
    pace.take = read.append
    kept.turn()
    assert not set(firsts) & set(kept.store.away(kept.partition).tolist())
    assert read == [sum(len(each) for chunk in hour.chunks[1:] for each in chunk.sections.values())]
    kept.turn()
    assert len(read) == 1


def test_a_job_that_fails_keeps_no_other_from_its_work(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor hours from leaving, but for those of the damaged file; all of it is told, with what helps."""

    def done(job: Job) -> None:
        if job is Job.SEAL:
            raise OSError("no room")
        if job is Job.COMPACT:
            raise DamagedError("a file of the day")

    jobs = kept.given(monkeypatch, done, Job.SEAL, Job.COMPACT, Job.PRUNE)
    with capture_logs() as lines, pytest.raises(DriftledgerError, match=r"no room.*a file of the day"):
        kept.turn()
    assert jobs.ran == [Job.SEAL, Job.COMPACT, Job.PRUNE]
    assert kept.held() == [True] + [False] * (HOURS - 1)
    told = [(line["job"], line["log_level"]) for line in lines if line["event"] == "lifecycle_job_failed"]
    assert told == [(Job.SEAL, "warning"), (Job.COMPACT, "warning")]


def test_what_nobody_answers_is_not_asked_again_in_a_turn(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its jobs would wait for as long."""

    def done(_: Job) -> None:
        raise UnreachableError("Kafka is away")

    jobs = kept.given(monkeypatch, done, Job.SEAL, Job.COMPACT)
    with pytest.raises(DriftledgerError, match="Kafka is away"):
        kept.turn()
    assert jobs.ran == [Job.SEAL]


def test_a_worker_that_stops_ends_a_turn_between_two_steps(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where files are read; hours stay where they are."""
    jobs = kept.given(monkeypatch, lambda _: kept.keeper.stop(), Job.SEAL, Job.COMPACT)
    with pytest.raises(HandedOnError, match="stops"):
        kept.turn()
    assert jobs.ran == [Job.SEAL]
    assert kept.held() == [True] * HOURS
    with pytest.raises(HandedOnError, match="stops"):
        kept.keeper.pace.take(1)
    with pytest.raises(HandedOnError, match="stops"):
        kept.keeper.move(kept.folder, Job.DEMOTE, [kept.partition], None)


def test_who_asks_what_is_due_waits_for_no_job(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does who moves hours."""
    found: list[int] = []
    with ThreadPoolExecutor(1) as pool:

        def done(_: Job) -> None:
            for tell in (None, lambda *_: None):
                asked = pool.submit(kept.keeper.move, kept.folder, Job.DEMOTE, [kept.partition], tell)
                found.append(len(asked.result(10)))

        kept.given(monkeypatch, done, Job.COMPACT)
        kept.turn()
    assert found == [HOURS, HOURS]


def test_a_question_counts_that_comes_before_the_first_hours_are_known(kept: Kept) -> None:
    """Before the first turn, and where there was one that found no store yet."""
    kept.keeper.note(kept.partition, [1])
    kept.tier.store = None
    kept.turn()
    kept.keeper.note(kept.partition, [kept.hours[1].chunks[0].first_sequence])
    assert kept.used() == {}
    kept.tier.store = kept.store
    kept.turn()
    heats = [heat for heat, _ in kept.used()[str(kept.partition)].values()]
    assert sum(heat > float("-inf") for heat in heats) == 2
