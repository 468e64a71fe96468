"""Chunks that come back from an archive are those that were sealed, byte for byte."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

from lifecycle.archived_chunks import ArchivedChunks
from lifecycle.file_tree import FileTree
from lifecycle.job_steps import Place, Work, seal
from lifecycle.keeper import chunks_in
from lifecycle.tiers import Grain, Tier
from tests.core.hours import over_hours
from tests.core.job_scenario import FileLease

if TYPE_CHECKING:
    from pathlib import Path

    from lifecycle.manifest import Tree


class _Followed(FileLease):
    """A manifest that nobody else writes."""

    def refresh(self) -> Tree:
        """The tree."""
        return self.tree


def test_what_comes_back_is_what_left(tmp_path: Path) -> None:
    """Headers and all columns: an event's id was longer by a byte at the end of each chunk, and then not to be read."""
    made = over_hours(5, 20_000, 2)
    lease = _Followed(tmp_path / "manifest")
    work = Work(FileTree(tmp_path / "root", "test.manifest"), lease, "a-job", lambda: 1)
    hour = max(made.hours, key=lambda each: len(each.chunks))
    first = made.hours.index(hour)
    for each in made.hours[: first + 1]:
        entries = made.batches(each.headers[0].first_index, 700)
        seal(work, made.partition, Place(Tier.HISTORICAL, Grain.HOURLY, each.period), each.chunks, entries)
    with closing(ArchivedChunks(work.files, lease)) as archives:
        firsts = [chunk.first_sequence for chunk in hour.chunks]
        assert list(chunks_in(archives, made.partition, firsts)) == hour.chunks


class _Slow(_Followed):
    """A manifest that does not answer until it is let go."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.asked, self.answers = threading.Event(), threading.Event()

    def refresh(self) -> Tree:
        """The tree, later."""
        self.asked.set()
        assert self.answers.wait(30)
        return super().refresh()


def test_who_asks_does_not_wait_for_who_follows_the_manifest(tmp_path: Path) -> None:
    """A Kafka that hangs keeps no question from its answer."""
    made = over_hours(5, 20_000, 2)
    lease = _Slow(tmp_path / "manifest")
    work = Work(FileTree(tmp_path / "root", "test.manifest"), lease, "a-job", lambda: 1)
    hour = made.hours[0]
    seal(work, made.partition, Place(Tier.HISTORICAL, Grain.HOURLY, hour.period), hour.chunks, made.batches(1, 700))
    with closing(ArchivedChunks(work.files, lease)) as archives, ThreadPoolExecutor(2) as pool:
        following = pool.submit(archives.refresh)
        assert lease.asked.wait(10)
        try:
            asked = pool.submit(archives.headers, made.partition, 1, 1)
            assert [header.first_sequence for header in asked.result(5)] == [1]
        finally:
            lease.answers.set()
        following.result(10)
