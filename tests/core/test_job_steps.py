"""The steps of jobs: what they leave is the archive, wherever they are cut off and whatever the disk refuses."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lifecycle.archived_chunks import ArchivedChunks, ArchiveFileDamagedError
from lifecycle.archiving import ChainError
from lifecycle.chunk_codec import decode_column, read_section, text_bytes_in
from lifecycle.chunks import ROW_COLUMNS, TEXT_BYTES, ChunkDamagedError, Column
from lifecycle.file_tree import FileTree, FileTreeUnavailableError
from lifecycle.job_steps import Place, Work, compact, prune, restore, seal
from lifecycle.layout import index_of
from lifecycle.packing import DamagedError, Texts
from lifecycle.proving import entries_in
from lifecycle.tidying import UnknownArchivesError, tidy
from lifecycle.tiers import Grain, Tier
from lifecycle.verifying import open_segment, verify
from schemas.canonical import ValueState
from streams.sequence import encode
from tests.core.hours import over_hours
from tests.core.job_scenario import HOURS, KILLED, LENGTH, OWNER, SEED, FileLease, run

if TYPE_CHECKING:
    from lifecycle.manifest import Segment, Tree
    from tests.core.hours import Hours

ROOT = Path(__file__).parents[2]
#: More operations than the scenario has.
POINTS = 2_000


@pytest.fixture(scope="module")
def hours() -> Hours:
    """Some hours over midnight."""
    return over_hours(SEED, LENGTH, HOURS)


def work_in(folder: Path) -> Work:
    """What steps need, from what is in the folder."""
    folder.mkdir(exist_ok=True)
    return Work(FileTree(folder / "root", OWNER), FileLease(folder / "manifest"), "a-job", lambda: 1)


def seal_all(work: Work, hours: Hours) -> list[Segment]:
    """A file an hour."""
    return [
        seal(
            work,
            hours.partition,
            Place(Tier.RECENT, Grain.HOURLY, hour.period),
            hour.chunks,
            hours.batches(hour.headers[0].first_index, 1000),
        )
        for hour in hours.hours
    ]


def bytes_in(work: Work, segment: Segment) -> bytes:
    """All entries of a file, as they stand in the ledger."""
    parts = []
    with open_segment(work.files, segment) as (archive, _):
        for _, _, entries in entries_in(archive):
            encoded, starts = encode(entries)
            parts.append(encoded[: starts[-1]].tobytes())
    return b"".join(parts)


def bytes_of(hours: Hours, first: int, last: int) -> bytes:
    """The same from the ledger."""
    (entries,) = (next(hours.batches(first, last - first + 1)),)
    encoded, starts = encode(entries)
    return encoded[: starts[-1]].tobytes()


def files_in(folder: Path) -> list[str]:
    """What is there, by path, but for what is no job's."""
    root = folder / "root"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != "OWNER")


def test_an_hour_a_file_and_a_day_of_them(tmp_path: Path, hours: Hours) -> None:
    """Each gives back its part of the ledger, and so does the day they are joined to."""
    assert len(hours.hours) == HOURS
    work = work_in(tmp_path)
    segments = seal_all(work, hours)
    for segment in segments:
        facts = segment.facts
        assert bytes_in(work, segment) == bytes_of(hours, facts.first_index, facts.last_index)
        assert verify(work.files, segment).merkle_root == facts.merkle_root
    day = compact(work, Place(Tier.HISTORICAL, Grain.DAILY, "2026-01-30"), segments[:2])
    assert bytes_in(work, day) == bytes_in(work_in(tmp_path), day) == bytes_of(hours, 1, segments[1].facts.last_index)
    assert verify(work.files, day).entries == segments[1].facts.last_index
    assert files_in(tmp_path) == sorted(
        path for each in (day, *segments[2:]) for path in (each.path, index_of(each.path))
    )
    prune(work, hours.partition, [day])
    assert tidy(work, lambda _: 1) == 0
    assert len(files_in(tmp_path)) == 2 * (HOURS - 2)


def test_chunks_are_read_as_the_hot_tier_had_them(tmp_path: Path, hours: Hours) -> None:
    """Headers, readings and every column, to the bit; from hourly files, and from the day they become meanwhile."""
    work = work_in(tmp_path)
    segments = seal_all(work, hours)
    archives = ArchivedChunks(work.files, FollowingLease(tmp_path))
    headers = [header for hour in hours.hours for header in hour.headers]
    for joined in (False, True):
        found = archives.headers(hours.partition, 0, 1000)
        assert [header[:-1] for header in found] == [header[:-1] for header in headers]
        assert [h.first_sequence for h in archives.headers(hours.partition, headers[2].first_sequence, 2)] == [
            header.first_sequence for header in headers[2:4]
        ]
        for hour in hours.hours:
            for chunk, header in zip(hour.chunks, hour.headers, strict=True):
                where = hours.partition, header.first_sequence
                columns = [*ROW_COLUMNS, *([Column.READINGS] if header.readings else [])]
                for column in random.Random(header.rows).sample(columns, len(columns)):
                    rows = header.readings if column is Column.READINGS else header.rows
                    wanted = read_section(*where, column, rows, chunk.sections[column]).values
                    values, _ = archives.column(*where, column, rows)
                    assert same(values, wanted), (column, where)
        if not joined:
            compact(work, Place(Tier.HISTORICAL, Grain.DAILY, "2026-01-30"), segments[:2])
    archives.close()


class FollowingLease:
    """A manifest as those follow it that do not hold it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tree = FileLease(folder / "manifest").tree

    def refresh(self) -> Tree:
        """What is committed by now."""
        self.tree = FileLease(self._folder / "manifest").tree
        return self.tree


def same(values: object, wanted: object) -> bool:
    """To the bit."""
    if isinstance(wanted, Texts):
        assert isinstance(values, Texts)
        return values.strings() == wanted.strings()
    if isinstance(wanted, tuple):
        assert isinstance(values, tuple)
        return all(same(one, other) for one, other in zip(values, wanted, strict=True))
    assert isinstance(values, np.ndarray)
    assert isinstance(wanted, np.ndarray)
    return values.dtype == wanted.dtype and values.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    "points", [range(5, POINTS, 151), pytest.param(range(1, POINTS), marks=pytest.mark.soak)], ids=["some", "all"]
)
def test_whatever_a_kill_cuts_off_the_next_run_ends(tmp_path: Path, hours: Hours, points: range) -> None:
    """At every operation on a file and on the manifest: the same tree, the same files with the same bytes."""
    whole = tmp_path / "whole"
    whole.mkdir()
    wanted = run(whole, hours)
    expected = {path: (whole / "root" / path).read_bytes() for path in files_in(whole)}
    for point in points:
        folder = tmp_path / str(point)
        folder.mkdir()
        command = [sys.executable, "-m", "tests.core.job_scenario", str(folder), str(point)]
        ended = subprocess.run(command, cwd=ROOT, check=False).returncode
        assert ended in (0, KILLED)
        tree = run(folder, hours)
        assert tree.commit == wanted.commit
        assert tree.parts == wanted.parts
        assert {path: (folder / "root" / path).read_bytes() for path in files_in(folder)} == expected
        if ended == 0:
            break
    else:
        assert points.step > 1, "the scenario has more operations than were tried"


def test_a_disk_that_is_full_loses_nothing(tmp_path: Path, hours: Hours) -> None:
    """A limit on the size of files, at each of some sizes: refused, named, and gone on from once there is room."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = 0
    for limit in (0, 1000, 20_000, 100_000, 200_000):
        folder = tmp_path / str(limit)
        folder.mkdir()
        work_in(folder).files.orphans(work_in(folder).lease.tree)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            seal_all(work_in(folder), hours)
        except FileTreeUnavailableError as error:
            refused += "fresh" in str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        work = work_in(folder)
        tidy(work, lambda _: 1)
        end = work.lease.tree.end(hours.partition)
        done = 0 if end is None else end.facts.last_index
        for hour in hours.hours:
            if hour.headers[0].first_index > done:
                place = Place(Tier.RECENT, Grain.HOURLY, hour.period)
                seal(work, hours.partition, place, hour.chunks, hours.batches(hour.headers[0].first_index, 1000))
        for segment in work.lease.tree.parts[hours.partition]:
            verify(work.files, segment)
        assert len(work.lease.tree.parts[hours.partition]) == HOURS
    assert refused >= 3


def test_damage_is_named_and_never_served(tmp_path: Path, hours: Hours) -> None:
    """Bits flipped, two files swapped, one gone, one cut, junk behind one: by verify, and by who reads columns."""
    work = work_in(tmp_path)
    segments = seal_all(work, hours)
    one, other = (work.files.root / segment.path for segment in segments[:2])
    contents = one.read_bytes(), other.read_bytes()
    rng = random.Random(1)

    def check() -> None:
        with pytest.raises(DamagedError, match=f"sequences {segments[0].facts.first_sequence} to"):
            verify(work.files, segments[0])
        archives = ArchivedChunks(work.files, FollowingLease(tmp_path))
        header = hours.hours[0].headers[0]
        for column in ROW_COLUMNS:
            try:
                values, _ = archives.column(hours.partition, header.first_sequence, column, header.rows)
            except ArchiveFileDamagedError as error:
                named.add(error.path)
            else:
                section = hours.hours[0].chunks[0].sections[column]
                assert same(values, decode_column(hours.partition, header.first_sequence, column, header.rows, section))
        archives.close()

    named: set[str] = set()
    for _ in range(20):
        flipped = bytearray(contents[0])
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        one.write_bytes(flipped)
        check()
    cut = [contents[0][: len(contents[0]) * part // 16] for part in range(16)]
    for content in (contents[1], contents[0] + b"junk", *cut):
        one.write_bytes(content)
        check()
    one.unlink()
    check()
    one.write_bytes(contents[0])
    verify(work.files, segments[0])
    assert named == {segments[0].path}


def test_a_manifest_that_was_lost_loses_no_file(tmp_path: Path, hours: Hours) -> None:
    """What the manifest does not name is not removed for that, whoever else has its entries; junk is nobody's."""
    segments = seal_all(work_in(tmp_path), hours)
    junk = work_in(tmp_path).files.root / segments[0].path
    junk.with_name("a-copy.parquet").write_bytes(b"x")
    there = files_in(tmp_path)
    (tmp_path / "manifest").unlink()
    for ledger_begins, unknown in ((1, segments[1:]), (segments[1].facts.first_index, segments)):
        with pytest.raises(UnknownArchivesError, match="does not have its entries") as told:
            tidy(work_in(tmp_path), lambda _: ledger_begins)  # noqa: B023 - called at once
        paths = {path for path in told.value.paths if path.endswith(".parquet")}
        assert paths == {segment.path for segment in unknown}
        assert files_in(tmp_path) == there


def test_entries_of_another_ledger_are_not_sealed(tmp_path: Path, hours: Hours) -> None:
    """And nothing is left of the try."""
    work, another = work_in(tmp_path), over_hours(SEED + 1, LENGTH, HOURS)
    hour = hours.hours[0]
    place = Place(Tier.RECENT, Grain.HOURLY, hour.period)
    with pytest.raises(ChainError):
        seal(work, hours.partition, place, hour.chunks, another.batches(1, 1000))
    assert work.lease.tree.commit == 0
    tidy(work, lambda _: 1)
    assert files_in(tmp_path) == []


def test_a_row_group_has_no_more_texts_than_a_job_may_gather(tmp_path: Path, hours: Hours) -> None:
    """Unless a chunk alone has more; the entries are the same, and so is the day that they are joined to."""
    wide, narrow = work_in(tmp_path / "wide"), work_in(tmp_path / "narrow")._replace(buffer_bytes=1)
    groups = []
    for work in (wide, narrow):
        segments = seal_all(work, hours)
        day = compact(work, Place(Tier.HISTORICAL, Grain.DAILY, "2026-01-30"), segments[:2])
        verify(work.files, day)
        with open_segment(work.files, day) as (archive, index):
            groups.append((int(archive.table.is_data.sum()), index.chunks, archive.facts))
    (few, chunks, facts), (many, _, same_facts) = groups
    assert few < many == chunks
    assert facts == same_facts
    assert bytes_in(wide, wide.lease.tree.parts[hours.partition][0]) == bytes_of(hours, 1, facts.last_index)


def test_a_row_group_has_no_more_values_that_cannot_be_read_either(tmp_path: Path) -> None:
    """No text of theirs is in any chunk, and the archive has all of each."""
    spoiled = over_hours(SEED, 40_000, 1, spoiled=b"?" * 300)
    work = work_in(tmp_path)._replace(buffer_bytes=1 << 20)
    segment, *_ = seal_all(work, spoiled)
    facts = segment.facts
    with open_segment(work.files, segment) as (archive, index):
        assert int(archive.table.is_data.sum()) == index.chunks > 2
    assert bytes_in(work, segment) == bytes_of(spoiled, 1, facts.last_index)


def test_values_that_cannot_be_read_take_no_more_memory_than_others(tmp_path: Path) -> None:
    """Twenty thousand of 20 KB: in a chunk, and in the hands of who seals, proves or makes again, are a few of them."""
    size_bytes = 20_000
    spoiled = over_hours(SEED, 23_000, 1, spoiled=b"?" * size_bytes)
    headers = [header for hour in spoiled.hours for header in hour.headers]
    assert sum(header.rows for header in headers) > 20_000
    work = work_in(tmp_path)
    tracemalloc.start()
    try:
        segments = seal_all(work, spoiled)
        for hour, segment in zip(spoiled.hours, segments, strict=True):
            verify(work.files, segment)
            batches = spoiled.batches(segment.facts.first_index, 1000)
            assert restore(work, segment, hour.chunks, batches) == segment
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 * TEXT_BYTES
    for header in headers:
        entries = next(spoiled.batches(header.first_index, header.last_index - header.first_index + 1))
        assert entries.value_length[entries.value_state == ValueState.PRESENT].sum() <= TEXT_BYTES + size_bytes


def test_a_chunk_says_what_its_texts_take(hours: Hours) -> None:
    """As they are in memory; one whose texts are cut off is damaged."""
    chunk, header = hours.hours[0].chunks[0], hours.hours[0].headers[0]
    texts = [
        read_section(hours.partition, chunk.first_sequence, column, header.rows, chunk.sections[column]).values
        for column in (Column.EVENT_ID, Column.PAYLOAD)
    ]
    assert text_bytes_in(hours.partition, chunk) == sum(
        len(text) for each in texts if isinstance(each, Texts) for text in each.strings()
    )
    cut = chunk._replace(sections={**chunk.sections, Column.PAYLOAD: b"short"})
    with pytest.raises(ChunkDamagedError, match="a column of texts"):
        text_bytes_in(hours.partition, cut)
