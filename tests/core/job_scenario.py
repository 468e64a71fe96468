"""A scenario of jobs over a folder, which may be killed at any of its operations; run as a program by the tests.

    python -m tests.core.job_scenario FOLDER POINT [mend]

Goes on from whatever is in the folder: seals each hour, joins a day, moves it to the deep tier, brings it back, and
drops the first file; or, with mend, makes what is lost of files, indices and manifest again. At the POINT-th operation
on a file or on the manifest the process ends as if killed.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifecycle.file_tree import FileTree
from lifecycle.job_steps import Place, Work, compact, move, prune, restore, seal
from lifecycle.manifest import Commit, Move, Tree, decode, encode
from lifecycle.mending import Reindex
from lifecycle.packing import DamagedError
from lifecycle.restoring import damaged_in
from lifecycle.tidying import tidy
from lifecycle.tiers import Grain, Tier
from schemas.errors import DriftledgerError
from tests.core.hours import over_hours

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.core.hours import Hours

OWNER = "test.manifest"
SEED, LENGTH, HOURS = 3, 16_000, 4
#: Operations that are counted: of the system, by name.
CALLS = ("open", "fsync", "rename", "unlink", "rmdir", "mkdir")
KILLED = 9


class LeaseLostError(DriftledgerError):
    """As that of `manifest_log`, which needs Kafka."""


class FileLease:
    """A manifest in a file: a record is appended at once or not at all."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.tree = Tree()
        if file.exists():
            for line in file.read_bytes().splitlines():
                self.tree = self.tree.after(decode(line))

    def commit(self, record: Commit) -> Tree:
        """One more."""
        self.tree = self.tree.after(record)
        handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(handle, encode(record) + b"\n")
        finally:
            os.close(handle)
        return self.tree

    def held(self) -> Tree:
        """Whoever has committed since has the lease."""
        found = FileLease(self._file).tree.commit
        if found != self.tree.commit:
            raise LeaseLostError(f"{self._file} is at {found}")
        return self.tree


def run(folder: Path, made: Hours, files: FileTree | None = None) -> Tree:
    """Bring the folder to the end of the scenario. files: where they lie, if not in it."""
    work = Work(files or FileTree(folder / "root", OWNER), FileLease(folder / "manifest"), "a-job", lambda: 1)
    tidy(work, lambda _: 1)
    for hour in made.hours:
        end = work.lease.tree.end(made.partition)
        done = 0 if end is None else end.facts.last_index
        if hour.headers[-1].last_index > done and not _is_pruned(work):
            place = Place(Tier.RECENT, Grain.HOURLY, hour.period)
            seal(work, made.partition, place, hour.chunks, made.batches(hour.headers[0].first_index, 700))
    day = made.hours[0].period[:10]
    segments = work.lease.tree.parts[made.partition]
    of_day = [each for each in segments if each.period.startswith(day)]
    if of_day and of_day[0].grain is Grain.HOURLY:
        compact(work, Place(Tier.HISTORICAL, Grain.DAILY, day), of_day)
    first = work.lease.tree.parts[made.partition][0]
    if first.period == day and first.tier is Tier.HISTORICAL:
        first = move(work, Move.DEMOTE, Place(Tier.DEEP, Grain.DAILY, day), first)
    if first.period == day:
        prune(work, made.partition, [first])
    tidy(work, lambda _: 1)
    return work.lease.tree


def mend(folder: Path, made: Hours, files: FileTree | None = None) -> Tree:
    """Enter what the manifest does not name, make indices again, and files. files: as of `run`."""
    work = Work(files or FileTree(folder / "root", OWNER), FileLease(folder / "manifest"), "a-job", lambda: 1)
    reindex = Reindex(work.files, work.lease.tree, lambda _: 1)
    reindex.prove(work)
    for step in reindex.steps():
        with contextlib.suppress(DamagedError):  # it is made again below, with its index
            reindex.do(work, step.paths[0])
    tidy(work, lambda _: 1)
    chunks = [chunk for hour in made.hours for chunk in hour.chunks]
    for path in [path for step in damaged_in(work.files, work.lease.tree) for path in step.paths]:
        segment = next(each for each in work.lease.tree.parts[made.partition] if each.path == path)
        facts = segment.facts
        within = [each for each in chunks if facts.first_sequence <= each.first_sequence <= facts.last_sequence]
        restore(work, segment, within, made.batches(facts.first_index, 700))
    return work.lease.tree


def _is_pruned(work: Work) -> bool:
    parts = work.lease.tree.parts
    return any(segments and segments[0].facts.first_index > 1 for segments in parts.values())


def counted(point: int) -> None:
    """Have the process end at an operation."""
    count = 0

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def before(*args: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == point:
                os._exit(KILLED)
            return call(*args, **named)

        return before

    for name in (*CALLS, "write"):
        setattr(os, name, wrapped(getattr(os, name)))


if __name__ == "__main__":
    hours = over_hours(SEED, LENGTH, HOURS)
    counted(int(sys.argv[2]))
    (mend if sys.argv[3:] == ["mend"] else run)(Path(sys.argv[1]), hours)
