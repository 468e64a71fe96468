"""A disk that is full under any job but the seal (see test_job_steps): refused, nothing committed, and gone on with."""

from __future__ import annotations

import contextlib
import resource
import signal
from typing import TYPE_CHECKING

import pytest

from lifecycle.file_tree import FileTreeUnavailableError
from lifecycle.job_steps import Place, compact, move
from lifecycle.layout import index_of
from lifecycle.leftovers import mend_of_leftovers
from lifecycle.manifest import Move
from lifecycle.tidying import tidy
from lifecycle.tiers import Grain, Tier
from lifecycle.verifying import verify
from tests.core.hours import over_hours
from tests.core.job_scenario import HOURS, LENGTH, SEED
from tests.core.test_job_steps import seal_all, work_in
from tests.core.test_mending import DAY, GONE, contents, reindex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.core.hours import Hours

#: Bytes that a file may have: archives have more than the last, indices more than the second.
LIMITS = (0, 1_000, 20_000)


@pytest.fixture(scope="module")
def hours() -> Hours:
    """Some hours over midnight."""
    return over_hours(SEED, LENGTH, HOURS)


@contextlib.contextmanager
def full(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def join(folder: Path) -> None:
    """The first two files as a day."""
    work = work_in(folder)
    compact(work, DAY, work.lease.tree.parts[3][:2])


def deepen(folder: Path) -> None:
    """The first file to the deep tier."""
    work = work_in(folder)
    segment = work.lease.tree.parts[3][0]
    move(work, Move.DEMOTE, Place(Tier.DEEP, Grain.HOURLY, segment.period), segment)


def index_again(folder: Path) -> None:
    """An index that is lost."""
    reindex(work_in(folder))


def copy_again(folder: Path) -> None:
    """A file that is lost, of a copy."""
    work = work_in(folder)
    assert mend_of_leftovers(work, work.lease.tree.parts[3][0])


def lose_index(folder: Path) -> None:
    """Of the first file."""
    (folder / "root" / index_of(work_in(folder).lease.tree.parts[3][0].path)).unlink()


def misplace(folder: Path) -> None:
    """The first file lies in another tier."""
    segment = work_in(folder).lease.tree.parts[3][0]
    for path in (segment.path, index_of(segment.path)):
        target = folder / "root" / path.replace(f"{segment.tier}/", f"{Tier.DEEP}/", 1)
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / "root" / path).rename(target)


def nothing(_: Path) -> None:
    """As it is."""


@pytest.mark.parametrize(
    ("begin", "job", "limits"),
    [(nothing, join, LIMITS), (nothing, deepen, LIMITS), (lose_index, index_again, LIMITS[:2]),
     (misplace, copy_again, LIMITS)],
    ids=["compact", "demote", "reindex", "restore"],
)  # fmt: skip
def test_a_job_is_refused_and_run_again(
    tmp_path: Path,
    hours: Hours,
    begin: Callable[[Path], None],
    job: Callable[[Path], None],
    limits: tuple[int, ...],
) -> None:
    """The file and its bytes are named; tree and files are those of before, then those of a run with room."""
    whole = tmp_path / "whole"
    seal_all(work_in(whole), hours)
    begin(whole)
    there, parts = contents(whole), work_in(whole).lease.tree.parts
    job(whole)
    tidy(work_in(whole), lambda _: GONE)
    wanted = contents(whole)
    for limit in limits:
        folder = tmp_path / str(limit)
        seal_all(work_in(folder), hours)
        begin(folder)
        with full(limit), pytest.raises(FileTreeUnavailableError, match="bytes of it are there") as told:
            job(folder)
        assert "fresh" in str(told.value)
        assert told.value.size_bytes <= limit
        assert work_in(folder).lease.tree.parts == parts
        assert contents(folder) == there
        tidy(work_in(folder), lambda _: GONE)
        job(folder)
        tidy(work_in(folder), lambda _: GONE)
        assert contents(folder) == wanted
    for segment in work_in(whole).lease.tree.parts[3]:
        verify(work_in(whole).files, segment)
