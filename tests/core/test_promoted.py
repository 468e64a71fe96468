"""Chunks that come back from an archive are those that were sealed, byte for byte."""

from __future__ import annotations

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
