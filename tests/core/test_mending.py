"""Indices and manifests that are lost: both come back from the archives as they were, or what is missing is named."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lifecycle.archived_chunks import ArchivedChunks, ArchiveFileDamagedError
from lifecycle.archiving import ChainError
from lifecycle.found_files import UnchainedArchivesError
from lifecycle.job_steps import Place, compact, prune, restore
from lifecycle.layout import index_of
from lifecycle.mending import Reindex
from lifecycle.packing import DamagedError
from lifecycle.restoring import damaged_in, folded_chunks
from lifecycle.tidying import UnknownArchivesError, tidy
from lifecycle.tiers import Grain, Tier
from lifecycle.verifying import verify
from streams.judge import Judge
from tests.core.hours import over_hours
from tests.core.job_scenario import HOURS, KILLED, LENGTH, SEED, mend
from tests.core.test_job_steps import POINTS, ROOT, FollowingLease, bytes_in, bytes_of, files_in, seal_all, work_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lifecycle.chunks import ChunkBytes
    from lifecycle.job_steps import Work
    from lifecycle.manifest import Segment
    from schemas.columns import Entries
    from tests.core.hours import Hours

DAY = Place(Tier.HISTORICAL, Grain.DAILY, "2026-01-30")
#: Of the ledger's entries none is left.
GONE = 10**9


@pytest.fixture(scope="module")
def hours() -> Hours:
    """Some hours over midnight."""
    return over_hours(SEED, LENGTH, HOURS)


def reindex(work: Work, ledger_begins: int = GONE, most: int = 1000) -> list[str]:
    """Do at most so many steps of the job; returns the paths that it had."""
    job = Reindex(work.files, work.lease.tree, lambda _: ledger_begins)
    job.prove(work)
    paths = [step.paths[0] for step in job.steps()]
    for path in paths[:most]:
        job.do(work, path)
    return paths


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files that are there, but for what is on its way."""
    return {path: (folder / "root" / path).read_bytes() for path in files_in(folder) if "/fresh/" not in path}


def archived(folder: Path, hours: Hours) -> list[Segment]:
    """A day, and the hours after it."""
    work = work_in(folder)
    segments = seal_all(work, hours)
    return [compact(work, DAY, segments[:2]), *segments[2:]]


def test_indices_come_back_as_they_were(tmp_path: Path, hours: Hours) -> None:
    """One is gone, one is cut, of one a bit is flipped; those that are whole are left alone."""
    segments = archived(tmp_path, hours)
    wanted, root = contents(tmp_path), tmp_path / "root"
    assert reindex(work_in(tmp_path)) == []
    (root / index_of(segments[0].path)).unlink()
    cut = root / index_of(segments[1].path)
    cut.write_bytes(cut.read_bytes()[:-1])
    assert reindex(work_in(tmp_path)) == [segment.path for segment in segments[:2]]
    assert contents(tmp_path) == wanted
    flipped = bytearray(cut.read_bytes())
    flipped[random.Random(1).randrange(len(flipped))] ^= 8
    cut.write_bytes(flipped)
    assert reindex(work_in(tmp_path)) == [segments[1].path]
    assert contents(tmp_path) == wanted
    assert reindex(work_in(tmp_path)) == []


def test_indices_that_were_swapped_are_named_and_not_served(tmp_path: Path, hours: Hours) -> None:
    """By verify, and by who asks for headers; then each is made again."""
    segments = archived(tmp_path, hours)
    wanted, root = contents(tmp_path), tmp_path / "root"
    one, other = (root / index_of(segment.path) for segment in segments[:2])
    swapped = one.read_bytes(), other.read_bytes()
    one.write_bytes(swapped[1])
    other.write_bytes(swapped[0])
    archives = ArchivedChunks(work_in(tmp_path).files, FollowingLease(tmp_path))
    for segment in segments[:2]:
        facts = segment.facts
        with pytest.raises(DamagedError, match=f"sequences {facts.first_sequence} to {facts.last_sequence}"):
            verify(work_in(tmp_path).files, segment)
        with pytest.raises(ArchiveFileDamagedError, match=segment.path):
            archives.headers(hours.partition, facts.first_sequence, 1)
    archives.close()
    assert reindex(work_in(tmp_path)) == [segment.path for segment in segments[:2]]
    assert contents(tmp_path) == wanted


def test_no_index_is_made_of_a_damaged_archive(tmp_path: Path, hours: Hours) -> None:
    """Wherever it is damaged, also where nothing is read otherwise for it; the file and its sequences are named."""
    segment = archived(tmp_path, hours)[0]
    data, index = (tmp_path / "root" / path for path in (segment.path, index_of(segment.path)))
    content = data.read_bytes()
    index.unlink()
    for place in (10, len(content) // 2, len(content) - 10):
        data.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DamagedError, match=f"{segment.path} .* sequences 1 to {segment.facts.last_sequence}"):
            reindex(work_in(tmp_path))
        assert not index.exists()


@pytest.mark.parametrize("pruned", [False, True])
def test_a_manifest_that_was_lost_comes_back(tmp_path: Path, hours: Hours, *, pruned: bool) -> None:
    """The same tree, from files alone; with indices that are lost, too, and cut off behind each commit."""
    segments = archived(tmp_path, hours)
    if pruned:
        prune(work_in(tmp_path), hours.partition, segments[:1])
        del segments[0]
    parts, wanted = work_in(tmp_path).lease.tree.parts, contents(tmp_path)
    (tmp_path / "manifest").unlink()
    (tmp_path / "root" / index_of(segments[-1].path)).unlink()
    left = [segment.path for segment in segments]
    while left:
        assert reindex(work_in(tmp_path), most=1) == left
        del left[0]
    assert reindex(work_in(tmp_path)) == []
    assert work_in(tmp_path).lease.tree.parts == parts
    tidy(work_in(tmp_path), lambda _: GONE)
    assert contents(tmp_path) == wanted
    for segment in segments:
        verify(work_in(tmp_path).files, segment)


def test_files_that_were_lost_with_the_manifest_can_be_put_back(tmp_path: Path, hours: Hours) -> None:
    """They were not pruned: no job removes them, and a manifest that is made anew has them again."""
    first, *others = archived(tmp_path, hours)
    parts, root = work_in(tmp_path).lease.tree.parts, tmp_path / "root"
    paths = [first.path, index_of(first.path)]
    lost = [(root / path).read_bytes() for path in paths]
    (tmp_path / "manifest").unlink()
    for path in paths:
        (root / path).unlink()
    assert reindex(work_in(tmp_path)) == [segment.path for segment in others]
    assert tidy(work_in(tmp_path), lambda _: GONE) == 0
    for path, content in zip(paths, lost, strict=True):
        (root / path).write_bytes(content)
    there = contents(tmp_path)
    for _ in range(2):
        with pytest.raises(UnknownArchivesError, match="delete the topic") as told:
            tidy(work_in(tmp_path), lambda _: 1)
        assert sorted(told.value.paths) == sorted(paths)
        assert reindex(work_in(tmp_path)) == []
    assert contents(tmp_path) == there
    (tmp_path / "manifest").unlink()
    assert reindex(work_in(tmp_path)) == [segment.path for segment in (first, *others)]
    assert work_in(tmp_path).lease.tree.parts == parts
    assert tidy(work_in(tmp_path), lambda _: 1) == 0
    assert contents(tmp_path) == there


def with_leftovers(folder: Path, hours: Hours) -> tuple[list[Segment], dict[str, bytes]]:
    """Files of which a job that was cut off has left those that it had joined; and what is there when it has not."""
    segments = seal_all(work_in(folder), hours)
    before = contents(folder)
    day = compact(work_in(folder), DAY, segments[:2])
    wanted = contents(folder)
    for path, content in before.items():
        file = folder / "root" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (folder / "manifest").unlink()
    return [day, *segments], wanted


def test_what_a_crash_has_left_is_not_entered(tmp_path: Path, hours: Hours) -> None:
    """A joined file is taken before those it was joined of, and these are removed by whoever tidies."""
    (day, *segments), wanted = with_leftovers(tmp_path, hours)
    assert reindex(work_in(tmp_path)) == [day.path, *(segment.path for segment in segments[2:])]
    assert tidy(work_in(tmp_path), lambda _: GONE) >= 4
    assert contents(tmp_path) == wanted


def test_what_is_damaged_is_replaced_by_what_it_was_made_of(tmp_path: Path, hours: Hours) -> None:
    """As long as that is there."""
    (day, *segments), _ = with_leftovers(tmp_path, hours)
    file = tmp_path / "root" / day.path
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    assert reindex(work_in(tmp_path)) == [segment.path for segment in segments]
    assert work_in(tmp_path).lease.tree.parts == {hours.partition: tuple(segments)}


def test_what_cannot_be_chained_is_named_and_nothing_is_done(tmp_path: Path, hours: Hours) -> None:
    """A file between is lost, or damaged; where the ledger has what comes behind, that is sealed again."""
    segments = seal_all(work_in(tmp_path), hours)
    (tmp_path / "manifest").unlink()
    file = tmp_path / "root" / segments[1].path
    content = file.read_bytes()
    for damage in (content[:-1], content[:1000] + b"junk" + content[1004:], b"", None):
        if damage is None:
            file.unlink()
        else:
            file.write_bytes(damage)
        there = contents(tmp_path)
        with pytest.raises(UnchainedArchivesError, match=f"partition {hours.partition}, entries") as told:
            reindex(work_in(tmp_path))
        some = {segment.path for segment in segments}
        assert set(told.value.paths) < some
        assert damage is None or segments[1].path in told.value.paths
        assert contents(tmp_path) == there
        assert work_in(tmp_path).lease.tree.commit == 0
    file.write_bytes(content)
    last = tmp_path / "root" / segments[-1].path
    last.write_bytes(last.read_bytes()[:-1])
    assert reindex(work_in(tmp_path), segments[-1].facts.first_index) == [segment.path for segment in segments[:-1]]


def folded(hours: Hours, segment: Segment, rows: int) -> list[ChunkBytes]:
    """The chunks of a file, by a replay of the ledger in batches of so many rows."""
    judge = Judge()
    judged = judge.new_state(hours.partition)
    first = segment.facts.first_index
    if first > 1:
        judge.step(judged, next(hours.batches(1, first - 1)))
    return list(folded_chunks(segment.facts, judged, hours.batches(first, rows)))


def test_folds_give_the_chunks_of_a_file_again(tmp_path: Path, hours: Hours) -> None:
    """To the byte, wherever the file begins and however the ledger is read."""
    day, *segments = archived(tmp_path, hours)
    wanted = [hour.chunks for hour in hours.hours]
    assert folded(hours, day, 1000) == [*wanted[0], *wanted[1]]
    for segment, chunks in zip(segments, wanted[2:], strict=True):
        assert folded(hours, segment, 777) == chunks


def test_a_file_is_made_again(tmp_path: Path, hours: Hours) -> None:
    """One that is lost, one that is damaged: the same files; one that was joined may have other row groups."""
    day, *segments = archived(tmp_path, hours)
    wanted, commit = contents(tmp_path), work_in(tmp_path).lease.tree.commit
    root = tmp_path / "root"
    (root / segments[0].path).unlink()
    (root / segments[1].path).write_bytes(b"junk")
    work = work_in(tmp_path)
    steps = damaged_in(work.files, work.lease.tree)
    assert [step.paths for step in steps] == [(segments[0].path,), (segments[1].path,)]
    for segment in segments[:2]:
        assert restore(work, segment, folded(hours, segment, 900), batches_of(hours, segment)) == segment
    assert contents(tmp_path) == wanted
    assert work.lease.tree.commit == commit

    (root / day.path).unlink()
    again = restore(work, day, folded(hours, day, 900), batches_of(hours, day))
    assert again.facts == day.facts
    assert again.spans == day.spans
    assert work_in(tmp_path).lease.tree.parts == {hours.partition: (again, *segments)}
    assert verify(work.files, again).merkle_root == day.facts.merkle_root
    assert bytes_in(work, again) == bytes_of(hours, 1, day.facts.last_index)
    assert tidy(work, lambda _: GONE) == 0
    assert damaged_in(work.files, work.lease.tree) == ()


def test_a_file_of_another_ledger_does_not_take_its_place(tmp_path: Path, hours: Hours) -> None:
    """Nothing is changed, and what was begun is removed by whoever tidies."""
    segment = archived(tmp_path, hours)[1]
    work, other = work_in(tmp_path), over_hours(SEED + 1, LENGTH, HOURS)
    (tmp_path / "root" / segment.path).unlink()
    there = contents(tmp_path)
    with pytest.raises(ChainError):
        restore(work, segment, folded(hours, segment, 900), batches_of(other, segment))
    with pytest.raises(DamagedError, match="not what was written"):
        restore(work, segment, folded(hours, segment, 900)[:1], batches_of(hours, segment))
    tidy(work, lambda _: GONE)
    assert contents(tmp_path) == there


def batches_of(hours: Hours, segment: Segment) -> Iterator[Entries]:
    """Its entries, and those behind."""
    return hours.batches(segment.facts.first_index, 1000)


@pytest.mark.parametrize(
    "points", [range(3, POINTS, 131), pytest.param(range(1, POINTS), marks=pytest.mark.soak)], ids=["some", "all"]
)
def test_whatever_a_kill_cuts_off_is_mended_by_the_next_run(tmp_path: Path, hours: Hours, points: range) -> None:
    """The manifest, then two files, each made again; killed at every operation: the same files, none lost."""
    begin, wanted = tmp_path / "begin", tmp_path / "wanted"
    archived(begin, hours)
    (begin / "manifest").unlink()
    shutil.copytree(begin, wanted)
    for lost in (False, True):
        parts = mended(wanted, hours, lost=lost)
    expected = contents(wanted)
    for point in points:
        folder = tmp_path / str(point)
        shutil.copytree(begin, folder)
        ended = []
        for lost in (False, True):
            if lost:
                lose(folder)
            command = [sys.executable, "-m", "tests.core.job_scenario", str(folder), str(point), "mend"]
            ended.append(subprocess.run(command, cwd=ROOT, check=False).returncode)
            assert ended[-1] in (0, KILLED)
            tree = mend(folder, hours)
        assert tree.parts == parts
        assert contents(folder) == expected
        if ended == [0, 0]:
            break
    else:
        assert points.step > 1, "there are more operations than were tried"


def mended(folder: Path, hours: Hours, *, lost: bool) -> Mapping[int, tuple[Segment, ...]]:
    """What a run that nobody ends makes of it."""
    if lost:
        lose(folder)
    return mend(folder, hours).parts


def lose(folder: Path) -> None:
    """A joined file and an index are gone, and another file is damaged."""
    day, hour, *_ = work_in(folder).lease.tree.parts[3]
    (folder / "root" / day.path).unlink()
    (folder / "root" / index_of(day.path)).unlink()
    (folder / "root" / hour.path).write_bytes(b"junk")
