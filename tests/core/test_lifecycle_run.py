"""`lifecycle run`: what is listed of what is run here and asked of workers, and what is refused; no broker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import asking
from lifecycle.asking import Answer
from lifecycle.steps import Job, Step
from lifecycle.tiers import Grain, Tier
from schemas.errors import BadInputError
from streams.cli import lifecycle_run
from streams.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

HOUR = Step(Job.DEMOTE, 0, "2026-11-23-07", Tier.RECENT, Grain.HOURLY, (), 1, 9, 9, 90, 0.0, "it is not read")
FILE = HOUR._replace(tier=Tier.DEEP, paths=("historical/a",))
OTHER = FILE._replace(paths=("historical/b",))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of three partitions."""
    return Settings(data_dir=tmp_path, partitions=3, lanes=1)


def test_a_file_is_listed_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker plans files as well; those that are planned here are not listed again."""
    asked: list[dict[str, Any]] = []

    def ask(_self: object, *_: object, **options: Any) -> Answer:
        asked.append(options)
        return Answer((HOUR, FILE, OTHER), 0)

    monkeypatch.setattr(asking.Workers, "ask", ask)
    here: Any = SimpleNamespace(planned=lambda *_, **__: (HOUR, FILE))
    progress: Any = SimpleNamespace(add_task=lambda *_, **__: 0)
    places, done = lifecycle_run._Places(None, frozenset({0, 1, 2})), lifecycle_run._Done()
    line = lifecycle_run._Told(progress, Job.DEMOTE)
    lifecycle_run._run_here(here, Job.DEMOTE, places, done, line, dry_run=True, take_over=False, wait_s=0.0)
    lifecycle_run._ask(
        settings, "nowhere:1", Job.DEMOTE, places, done, line, dry_run=True, take_over=False, wait_s=30.0
    )
    assert done.steps == [FILE, HOUR, OTHER]
    assert [(each["answer_s"], each["wait_s"]) for each in asked] == [(30.0, 30.0)]


def test_the_pace_of_a_worker_is_its_own() -> None:
    """What would be left out silently is refused."""
    asked, here = lifecycle_run._Places(frozenset(), frozenset({0})), lifecycle_run._Places(None, frozenset())
    lifecycle_run._check_pace(0, Job.PROMOTE, asked)
    lifecycle_run._check_pace(5, Job.SEAL, here)
    with pytest.raises(BadInputError, match="lifecycle_bytes_per_s"):
        lifecycle_run._check_pace(5, Job.SEAL, asked)
