"""What a worker makes of asks, with a log and runs that do as they are told; no broker."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

import pytest

from lifecycle import asked_jobs
from lifecycle.asked_jobs import AskedJobs, AskRefusedError
from lifecycle.asks import Ask, AskHeard
from lifecycle.job_record import Asked, Heard, State
from lifecycle.job_record import Job as Run
from lifecycle.job_run import JobRunningError
from lifecycle.owned import OwnedLane
from lifecycle.steps import Job
from schemas.errors import UnreachableError
from streams.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lifecycle.asked_jobs import Errand

ASK = Ask("an-ask", Job.SEAL, None, False, False, "a-host", 7, 30)  # noqa: FBT003 - a record


class FakeTier:
    """That of a lane with a hot store."""

    @contextlib.contextmanager
    def reading(self) -> Iterator[object]:
        """A store."""
        yield object()


class FakeLog:
    """Has one ask."""

    def __init__(self, *_: object) -> None:
        self.asks = [AskHeard(0, 0, ASK)]

    def recent(self) -> int:
        """Before all."""
        return -1

    def everything_behind(self, offset: int) -> list[AskHeard]:
        """What was not read."""
        return [each for each in self.asks if each.offset > offset]


class FakeRun:
    """Of a lane; those of some cannot be told."""

    untold: frozenset[int] = frozenset()

    def __init__(self, _bootstrap: str, _topic: str, job: str, *, lease: bool, wait_s: float, asked: Asked) -> None:
        self.job = Run("a-run", job, State.PLANNED, "b-host", 8, 40, 35, lease=lease, asked=asked)
        self.asked, self.wait_s, self.told_ms = asked, wait_s, 0
        self.ended: BaseException | None = None

    def __enter__(self) -> Self:
        if self.asked.lane in self.untold:
            raise UnreachableError("the jobs topic takes nothing")
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self.ended = error

    def want_lease(self) -> None:
        """Whatever it wants."""

    def wait(self) -> None:
        """As long as it takes."""


class FakeJobs:
    """Whose runs find another in their way."""

    other: Heard

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, *_: object, **__: object) -> None:
        """It stays."""
        raise JobRunningError(self.other)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AskedJobs:
    """Of a worker with two lanes."""
    monkeypatch.setattr(asked_jobs, "JobLog", FakeLog)
    monkeypatch.setattr(asked_jobs, "JobRun", FakeRun)
    monkeypatch.setattr(asked_jobs, "Jobs", FakeJobs)
    tier: Any = FakeTier()
    keeper: Any = type("FakeKeeper", (), {"pace": None})
    lanes = [OwnedLane((0, 2), {}, tier), OwnedLane((1, 3), {}, tier)]
    return AskedJobs(Settings(data_dir=tmp_path, partitions=4, lanes=2), "nowhere:1", keeper, lambda: lanes)


def fake(errand: Errand) -> FakeRun:
    """Its run."""
    run: Any = errand.run
    assert isinstance(run, FakeRun)
    return run


def test_what_was_taken_is_run_though_the_next_cannot_be_told(
    asked: AskedJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be told as planned for ever. The other lane is taken when it can be told."""
    monkeypatch.setattr(FakeRun, "untold", frozenset({1}))
    assert [errand.due.lane for errand in asked.look()] == [0]
    with pytest.raises(UnreachableError):
        asked.look()
    monkeypatch.setattr(FakeRun, "untold", frozenset())
    assert [errand.due.lane for errand in asked.look()] == [1]
    assert asked.look() == []


@pytest.mark.parametrize("ask", [None, "another-ask"])
def test_a_run_that_stays_in_the_way_ends_an_ask(
    asked: AskedJobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ask: str | None
) -> None:
    """It is named to who asked, and the ask is not taken again until it is too old."""
    monkeypatch.setattr(FakeJobs, "other", other_of(ask), raising=False)
    errand, _ = asked.look()
    asked.run(errand, tmp_path)
    refused = fake(errand).ended
    assert isinstance(refused, AskRefusedError)
    assert "for 120 s: compact runs already: b-host:8 (run other-run)" in str(refused)


def test_lanes_of_an_ask_wait_for_one_another(
    asked: AskedJobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What one lane holds up is run when that has ended: it is cancelled, and taken again."""
    monkeypatch.setattr(FakeJobs, "other", other_of(ASK.id), raising=False)
    errand, _ = asked.look()
    asked.run(errand, tmp_path)
    assert isinstance(fake(errand).ended, JobRunningError)


@pytest.mark.parametrize(("wait_ms", "wait_s"), [(0, 120.0), (90_000, 120.0), (600_000, 600.0)])
def test_who_asks_may_wait_longer(
    asked: AskedJobs, monkeypatch: pytest.MonkeyPatch, wait_ms: int, wait_s: float
) -> None:
    """Than a worker does by itself."""
    monkeypatch.setattr(FakeLog, "everything_behind", lambda *_: [AskHeard(0, 0, ASK._replace(wait_ms=wait_ms))])
    assert [fake(errand).wait_s for errand in asked.look()] == [wait_s, wait_s]


def other_of(ask: str | None) -> Heard:
    """A run that has the lease, for an ask or for none."""
    asked = None if ask is None else Asked(ask, 1)
    return Heard(3, 1_000, Run("other-run", "compact", State.RUNNING, "b-host", 8, 40, 35, lease=True, asked=asked))
