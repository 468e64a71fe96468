"""What runs that were cut off have left: removed where it is in the way of nothing, kept where it may be needed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from lifecycle.file_tree import FileTree
from lifecycle.found_files import UnchainedArchivesError
from lifecycle.job_steps import Place, compact, move, seal
from lifecycle.layout import index_of, path_of
from lifecycle.leftovers import mend_of_leftovers
from lifecycle.manifest import Move
from lifecycle.tidying import UnknownArchivesError, tidy
from lifecycle.tiers import Grain, Tier
from lifecycle.verifying import verify
from tests.core.hours import over_hours
from tests.core.job_scenario import HOURS, LENGTH, OWNER, SEED, FileLease, LeaseLostError
from tests.core.test_job_steps import bytes_in, bytes_of, files_in, seal_all, work_in
from tests.core.test_mending import DAY, GONE, archived, contents, reindex, with_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

    from lifecycle.job_steps import Work
    from lifecycle.manifest import Segment
    from tests.core.hours import Hours


@pytest.fixture(scope="module")
def hours() -> Hours:
    """Some hours over midnight."""
    return over_hours(SEED, LENGTH, HOURS)


def seal_first(work: Work, hours: Hours) -> Segment:
    """An hour, behind what is archived."""
    hour = hours.hours[len(work.lease.tree.parts.get(hours.partition, ()))]
    place = Place(Tier.RECENT, Grain.HOURLY, hour.period)
    return seal(work, hours.partition, place, hour.chunks, hours.batches(hour.headers[0].first_index, 1000))


def test_what_a_seal_left_stays_until_the_next_has_made_it_again(tmp_path: Path, hours: Hours) -> None:
    """It may be the only archive of a manifest that was lost; where it is none it is replaced by itself."""
    for commits in (0, 1):
        folder = tmp_path / str(commits)
        for _ in range(commits):
            seal_first(work_in(folder), hours)
        manifest = (folder / "manifest").read_bytes() if commits else b""
        seal_first(work_in(folder), hours)
        (folder / "manifest").write_bytes(manifest)
        there = contents(folder)
        assert tidy(work_in(folder), lambda _: 1) == 0
        assert contents(folder) == there
        seal_first(work_in(folder), hours)
        assert contents(folder) == there
        assert tidy(work_in(folder), lambda _: 1) == 0


def longer(folder: Path, hours: Hours) -> list[str]:
    """Leave what a seal of the second hour makes that has the third as well; returns the paths."""
    other = folder.parent / "other"
    work = work_in(other)
    seal_first(work, hours)
    there = set(files_in(other))
    second, third = hours.hours[1:3]
    place = Place(Tier.RECENT, Grain.HOURLY, second.period)
    batches = hours.batches(second.headers[0].first_index, 1000)
    seal(work, hours.partition, place, [*second.chunks, *third.chunks], batches)
    left = sorted(set(files_in(other)) - there)
    for path in left:
        target = folder / "root" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(other / "root" / path, target)
    return left


def test_an_hour_that_was_sealed_shorter_since_blocks_nothing(tmp_path: Path, hours: Hours) -> None:
    """Where the ledger has what is in no file: no job is refused, reindex neither; seals then make it again."""
    folder = tmp_path / "one"
    for _ in range(2):
        seal_first(work_in(folder), hours)
    wanted = contents(folder)
    left = longer(folder, hours)
    there, next_index = contents(folder), hours.hours[2].headers[0].first_index
    assert [path.endswith(".parquet") for path in left].count(True) == 1
    for ledger_begins in (1, next_index - 1, next_index):
        assert tidy(work_in(folder), lambda _: ledger_begins) == 0  # noqa: B023 - called at once
        assert reindex(work_in(folder), ledger_begins) == []
    assert contents(folder) == there
    with pytest.raises(UnknownArchivesError) as told:
        tidy(work_in(folder), lambda _: next_index + 1)
    assert sorted(told.value.paths) == left
    with pytest.raises(UnchainedArchivesError):
        reindex(work_in(folder), next_index + 1)
    assert contents(folder) == there
    third = seal_first(work_in(folder), hours)
    assert tidy(work_in(folder), lambda _: 1) == len(left)
    assert contents(folder).keys() == {*wanted, third.path, index_of(third.path)}


def test_what_overlaps_the_end_and_begins_before_all_files_is_named(tmp_path: Path, hours: Hours) -> None:
    """Of a manifest that was lost: unless the ledger has all of its entries, nothing proves the first of them."""
    folder = tmp_path / "one"
    first = seal_first(work_in(folder), hours)
    second = seal_first(work_in(folder), hours)
    left = longer(folder, hours)
    (folder / "manifest").unlink()
    for path in (first.path, index_of(first.path)):
        (folder / "root" / path).unlink()
    longest = folder / "root" / next(path for path in left if path.endswith(".parquet"))
    begins = longest.name.replace(f"{second.facts.first_index:018d}", f"{second.facts.first_index - 1:018d}")
    longest.rename(longest.with_name(begins))  # damaged, so that it is not taken
    with pytest.raises(UnchainedArchivesError, match=begins):
        reindex(work_in(folder), second.facts.first_index)
    assert reindex(work_in(folder), second.facts.first_index - 1) == [second.path]


@pytest.mark.parametrize("place", [DAY, Place(Tier.RECENT, Grain.HOURLY, "2026-01-30-23")])
def test_what_no_seal_leaves_is_not_removed(tmp_path: Path, hours: Hours, place: Place) -> None:
    """A joined file, and one that begins behind the next entry: also where the ledger has all of it."""
    segments = archived(tmp_path, hours) if place is DAY else seal_all(work_in(tmp_path), hours)[1:]
    root = tmp_path / "root"
    for path in {path for segment in segments[1:] for path in (segment.path, index_of(segment.path))}:
        (root / path).unlink()
    for segment in seal_all(work_in(tmp_path / "other"), hours)[:1]:
        assert place is DAY or (root / segment.path).exists()
    (tmp_path / "manifest").unlink()
    there = contents(tmp_path)
    with pytest.raises(UnknownArchivesError, match="reindex") as told:
        tidy(work_in(tmp_path), lambda _: 1)
    assert segments[0].path in told.value.paths
    assert contents(tmp_path) == there


def test_a_manifest_is_not_filled_with_less_than_there_is(tmp_path: Path, hours: Hours) -> None:
    """Files beside one that is damaged are not given up for that the ledger has their entries still."""
    segments = seal_all(work_in(tmp_path), hours)
    (tmp_path / "manifest").unlink()
    (tmp_path / "root" / segments[1].path).write_bytes(b"junk")
    with pytest.raises(UnchainedArchivesError) as told:
        reindex(work_in(tmp_path), 1)
    assert set(told.value.paths) == {segment.path for segment in segments[:2]}
    assert work_in(tmp_path).lease.tree.commit == 0


def test_what_has_entries_of_a_damaged_file_stays_and_makes_it_again(tmp_path: Path, hours: Hours) -> None:
    """The parts that it was joined of; then they go."""
    folder = tmp_path / "left"
    day, *segments = archived(folder, hours)
    wanted = contents(folder)
    parts = seal_all(work_in(tmp_path / "parts"), hours)[:2]
    for path in (path for part in parts for path in (part.path, index_of(part.path))):
        file = folder / "root" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "parts" / "root" / path, file)
    (folder / "root" / day.path).write_bytes(b"junk")
    there = contents(folder)
    assert tidy(work_in(folder), lambda _: GONE) == 0
    assert contents(folder) == there
    work = work_in(folder)
    assert mend_of_leftovers(work, day)
    again = work.lease.tree.parts[hours.partition][0]
    assert again.facts == day.facts
    assert verify(work.files, again).merkle_root == day.facts.merkle_root
    assert bytes_in(work, again) == bytes_of(hours, 1, day.facts.last_index)
    assert tidy(work, lambda _: GONE) == 4
    assert contents(folder) == wanted
    assert work.lease.tree.parts[hours.partition] == (again, *segments)


def test_a_copy_in_another_tier_takes_the_place_of_a_file_that_is_lost(tmp_path: Path, hours: Hours) -> None:
    """With its index; one that is damaged as well does not, and stays."""
    day, *_ = archived(tmp_path, hours)
    root, work = tmp_path / "root", work_in(tmp_path)
    old = {path: (root / path).read_bytes() for path in (day.path, index_of(day.path))}
    moved = move(work, Move.DEMOTE, Place(Tier.DEEP, Grain.DAILY, day.period), day)
    wanted = contents(tmp_path)
    for path, content in old.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / moved.path).unlink()
    (root / index_of(moved.path)).unlink()
    (root / day.path).write_bytes(old[day.path][:-1])
    assert not mend_of_leftovers(work_in(tmp_path), moved)
    assert tidy(work_in(tmp_path), lambda _: GONE) == 0
    (root / day.path).write_bytes(old[day.path])
    assert mend_of_leftovers(work_in(tmp_path), moved)
    tidy(work_in(tmp_path), lambda _: GONE)
    assert contents(tmp_path) == wanted


def test_files_of_another_ledger_make_nothing_again(tmp_path: Path, hours: Hours) -> None:
    """Though they say that they have the same entries."""
    folder, other = tmp_path / "one", tmp_path / "other"
    (day, *_), _ = with_leftovers(folder, hours)
    reindex(work_in(folder))
    foreign = seal_all(work_in(other), over_hours(SEED + 1, LENGTH, HOURS))
    for segment in seal_all(work_in(tmp_path / "names"), hours)[:2]:
        for path in (segment.path, index_of(segment.path)):
            (folder / "root" / path).unlink(missing_ok=True)
    target = folder / "root" / path_of(Tier.RECENT, Grain.HOURLY, foreign[0].period, foreign[0].path.rpartition("/")[2])
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(other / "root" / foreign[0].path, target)
    (folder / "root" / day.path).write_bytes(b"junk")
    work = work_in(folder)
    assert not mend_of_leftovers(work, work.lease.tree.parts[hours.partition][0])
    assert target.exists()
    assert (folder / "root" / day.path).read_bytes() == b"junk"
    assert files_in(folder)


class Overtaken(FileTree):
    """Files of a run that stands still once it has opened so many, until another has ended."""

    def __init__(self, root: Path, opened: int, other: Callable[[], None]) -> None:
        super().__init__(root, OWNER)
        self._opened, self._other = opened, other

    def open_checked(self, path: str) -> BinaryIO:
        """An archive."""
        file = super().open_checked(path)
        self._opened -= 1
        if self._opened == 0:
            self._other()
        return file


def test_a_run_that_was_overtaken_removes_nothing(
    tmp_path: Path, hours: Hours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A joined file was left by a run that died; while its parts are read another joins them anew, and drops them."""
    parts = seal_all(work_in(tmp_path), hours)[:2]

    def die(*_: object) -> None:
        raise LeaseLostError("it died")

    with monkeypatch.context() as dying:
        dying.setattr(FileLease, "commit", die)
        with pytest.raises(LeaseLostError):
            compact(work_in(tmp_path), DAY, parts)

    def other() -> None:
        work = work_in(tmp_path)
        assert tidy(work, lambda _: 1) == 2
        compact(work, DAY, parts)

    late = work_in(tmp_path)._replace(files=Overtaken(tmp_path / "root", len(parts), other))
    with pytest.raises(LeaseLostError):
        tidy(late, lambda _: 1)
    work = work_in(tmp_path)
    for segment in work.lease.tree.parts[hours.partition]:
        assert verify(work.files, segment).merkle_root == segment.facts.merkle_root
