"""Jobs and questions over files in a store of objects: as on this machine, wherever they are cut off."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import fs

from lifecycle import job_steps, object_file
from lifecycle.archive_files import TieredFiles, file_system
from lifecycle.archived_chunks import ArchivedChunks, ArchiveFileDamagedError
from lifecycle.chunk_codec import read_section
from lifecycle.chunks import ROW_COLUMNS, Column
from lifecycle.job_steps import Place, Work, compact, move, seal
from lifecycle.layout import index_of, is_fresh
from lifecycle.leftovers import mend_of_leftovers
from lifecycle.manifest import Move, Tree
from lifecycle.mending import Reindex, mend_index
from lifecycle.object_tree import ObjectStoreUnavailableError, OccupiedPathError
from lifecycle.packing import DamagedError
from lifecycle.tidying import tidy
from lifecycle.tiers import Grain, Tier
from lifecycle.verifying import verify
from streams.archive_uri import parse
from tests.core.hours import over_hours
from tests.core.job_scenario import HOURS, KILLED, LENGTH, OWNER, SEED, FileLease, mend, run
from tests.core.object_scenario import LARGE, files_at
from tests.core.object_scenario import put as put_large
from tests.core.s3_faults import Fault, Way, way_to
from tests.core.test_job_steps import FollowingLease, bytes_in, bytes_of, same, seal_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.core.hours import Hours
    from tests.core.s3_server import Server

ROOT = Path(__file__).parents[2]
#: More operations than the scenario has.
POINTS = 2_000


@pytest.fixture(scope="module")
def hours() -> Hours:
    """Some hours over midnight."""
    return over_hours(SEED, LENGTH, HOURS)


@pytest.fixture
def way(s3: Server) -> Iterator[Way]:
    """To the store."""
    with way_to(s3.address) as way:
        yield way


def uri_of(address: str, prefix: str) -> str:
    """A place in the store."""
    return f"s3://cold/{prefix}?endpoint_override={address}&scheme=http&region=us-east-1"


def work_at(address: str, folder: Path) -> Work:
    """What steps need; all files are in the store."""
    folder.mkdir(exist_ok=True)
    return Work(files_at(folder, uri_of(address, folder.name)), FileLease(folder / "manifest"), "a-job", lambda: 1)


def objects_in(address: str, prefix: str) -> dict[str, bytes]:
    """What is there, but for its owner."""
    place = parse(uri_of(address, prefix))
    system = file_system(place)
    found = {}
    for info in system.get_file_info(fs.FileSelector(place.path, allow_not_found=True, recursive=True)):
        if info.type is fs.FileType.File and not info.path.endswith("/OWNER"):
            with system.open_input_file(info.path) as file:
                found[info.path.removeprefix(f"{place.path}/")] = file.read()
    return found


def put(address: str, prefix: str, path: str, content: bytes | None) -> None:
    """Put an object as somebody else would, or delete it."""
    place = parse(uri_of(address, prefix))
    system, key = file_system(place), f"{place.path}/{path}"
    if content is None:
        system.delete_file(key)
    else:
        with system.open_output_stream(key, compression=None) as file:
            file.write(content)


def test_the_same_files_as_on_a_disk(s3: Server, tmp_path: Path, hours: Hours) -> None:
    """Sealed, joined, moved and pruned: to the byte; nothing stays on this machine."""
    (tmp_path / "here").mkdir()
    there = tmp_path / "there-same"
    there.mkdir()
    wanted = run(tmp_path / "here", hours)
    tree = run(there, hours, files_at(there, uri_of(s3.address, there.name)))
    assert tree == wanted
    here = tmp_path / "here" / "root"
    on_disk = {
        str(each.relative_to(here)): each.read_bytes()
        for each in here.rglob("*")
        if each.is_file() and each.name != "OWNER"
    }
    assert objects_in(s3.address, there.name) == on_disk
    assert [each.name for each in (there / "root").rglob("*") if each.is_file()] == ["OWNER"]


@pytest.mark.parametrize(
    ("mends", "points"),
    [
        (False, (9, 120)),
        (True, (60,)),
        pytest.param(False, range(1, POINTS), marks=pytest.mark.soak),
        pytest.param(True, range(1, POINTS), marks=pytest.mark.soak),
    ],
    ids=["jobs", "mending", "all of jobs", "all of mending"],
)
def test_whatever_a_kill_cuts_off_the_next_run_ends(
    s3: Server, tmp_path: Path, hours: Hours, points: Any, *, mends: bool
) -> None:
    """At every request, and every record of the manifest: the same tree, the same objects, nothing left over."""
    whole = tmp_path / f"whole-{mends}"
    whole.mkdir()
    go_on = mend if mends else run
    spoil(s3.address, whole, hours, mends=mends)
    wanted = go_on(whole, hours, files_at(whole, uri_of(s3.address, whole.name)))
    expected = objects_in(s3.address, whole.name)
    for point in points:
        folder = tmp_path / f"at-{point}-{mends}-{len(points)}"
        folder.mkdir()
        spoil(s3.address, folder, hours, mends=mends)
        uri = uri_of(s3.address, folder.name)
        ended = scenario(folder, uri, point, "mend" if mends else "jobs")
        tree = go_on(folder, hours, files_at(folder, uri))
        assert tree.parts == wanted.parts
        assert objects_in(s3.address, folder.name) == expected
        assert [each.name for each in (folder / "root").rglob("*") if each.is_file()] == ["OWNER"]
        if ended == 0:
            break
    else:
        assert isinstance(points, tuple), "the scenario has more operations than were tried"


def scenario(folder: Path, uri: str, point: int, what: str) -> int:
    """Run it until a point; how it ended."""
    command = [sys.executable, "-m", "tests.core.object_scenario", str(folder), uri, str(point), what]
    ended = subprocess.run(command, cwd=ROOT, check=False).returncode
    assert ended in (0, KILLED)
    return ended


def test_a_kill_amid_the_parts_of_a_file_leaves_no_object(s3: Server, way: Way, tmp_path: Path) -> None:
    """The file on this machine is the next job's to remove; published again, it is whole."""
    folder = tmp_path / "parts"
    folder.mkdir()
    content = random.Random(1).randbytes(25_000_000)
    (folder / "large").write_bytes(content)
    uri = uri_of(s3.address, folder.name)
    assert scenario(folder, uri_of(way.address, folder.name), 14, "put") == KILLED
    assert way.count("POST", LARGE) == 1  # parts were begun, and not made an object
    assert LARGE not in objects_in(s3.address, folder.name)
    files = files_at(folder, uri)
    (fresh,) = files.orphans(Tree())
    assert is_fresh(fresh)
    files.remove(fresh)
    put_large(folder, files)
    assert objects_in(s3.address, folder.name) == {LARGE: content}


def spoil(address: str, folder: Path, hours: Hours, *, mends: bool) -> None:
    """What is there before something is mended: a manifest that lost its last file, a lost and a damaged index."""
    if not mends:
        return
    work = work_at(address, folder)
    segments = seal_all(work, hours)
    manifest = folder / "manifest"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:-1]))
    put(address, folder.name, index_of(segments[0].path), None)
    put(address, folder.name, index_of(segments[1].path), b"junk")
    put(address, folder.name, segments[2].path, None)


def test_chunks_are_read_by_few_requests(way: Way, tmp_path: Path, hours: Hours) -> None:
    """To the bit; an index is fetched once, and nothing twice. From hourly files, and from the day they become."""
    work = work_at(way.address, tmp_path / "chunks")
    segments = seal_all(work, hours)
    archives = ArchivedChunks(work.files, FollowingLease(tmp_path / "chunks"))
    headers = [header for hour in hours.hours for header in hour.headers]
    for joined in (False, True):
        way.passed.clear()
        assert [each[:-1] for each in archives.headers(hours.partition, 0, 1000)] == [each[:-1] for each in headers]
        for hour in hours.hours:
            for chunk, header in zip(hour.chunks, hour.headers, strict=True):
                where = hours.partition, header.first_sequence
                for column in ROW_COLUMNS:
                    wanted = read_section(*where, column, header.rows, chunk.sections[column]).values
                    assert same(archives.column(*where, column, header.rows).values, wanted), (column, where)
        paths = [segment.path for segment in work.lease.tree.parts[hours.partition]]
        for path in paths:
            if joined is (path not in {segment.path for segment in segments}):
                assert way.count("GET", index_of(path)) == 1
                assert way.count("GET", path) == 1  # it is small
        if not joined:
            # The first hours go while they are open.
            compact(work, Place(Tier.HISTORICAL, Grain.DAILY, "2026-01-30"), segments[:2])
    archives.close()


def test_damage_is_named_and_never_served(s3: Server, tmp_path: Path, hours: Hours) -> None:
    """As on a disk: bits flipped, one cut, junk behind one, one gone; by verify, and by who reads columns."""
    folder = tmp_path / "damage"
    work = work_at(s3.address, folder)
    segments = seal_all(work, hours)
    path, rng = segments[0].path, random.Random(1)
    content = objects_in(s3.address, folder.name)[path]
    header, chunk = hours.hours[0].headers[0], hours.hours[0].chunks[0]
    named = 0
    flipped = bytearray(content)
    flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    for damaged in (bytes(flipped), content[: len(content) // 2], content + b"junk", b"", None):
        put(s3.address, folder.name, path, damaged)
        with pytest.raises(DamagedError, match=f"sequences {segments[0].facts.first_sequence} to"):
            verify(work.files, segments[0])
        archives = ArchivedChunks(work.files, FollowingLease(folder))
        for column in (Column.VALUE, Column.SEQUENCE, Column.SOURCE):
            try:
                values, _ = archives.column(hours.partition, header.first_sequence, column, header.rows)
            except ArchiveFileDamagedError as error:
                named += error.path == path
            else:
                section = chunk.sections[column]
                wanted = read_section(hours.partition, header.first_sequence, column, header.rows, section).values
                assert same(values, wanted)
        archives.close()
    assert named >= 12
    put(s3.address, folder.name, path, content)
    put(s3.address, folder.name, index_of(path), None)
    mend_index(work, segments[0])
    assert verify(work.files, segments[0]).merkle_root == segments[0].facts.merkle_root


def test_a_store_that_does_not_answer_is_no_damage(way: Way, tmp_path: Path, hours: Hours) -> None:
    """Nothing is removed, made again or left out for it: the question, or the job, is refused."""
    folder = tmp_path / "away"
    work = work_at(way.address, folder)
    segment = seal_all(work, hours)[0]
    header = hours.hours[0].headers[0]
    archives = ArchivedChunks(work.files, FollowingLease(folder))
    fault = Fault("GET", segment.path, 403)
    way.faults.append(fault)
    for act in (
        lambda: verify(work.files, segment),
        lambda: archives.column(hours.partition, header.first_sequence, Column.VALUE, header.rows),
    ):
        with pytest.raises(ObjectStoreUnavailableError, match="refused"):
            act()
    way.faults.clear()
    assert archives.column(hours.partition, header.first_sequence, Column.VALUE, header.rows)
    assert bytes_in(work, segment) == bytes_of(hours, segment.facts.first_index, segment.facts.last_index)
    archives.close()


def test_a_manifest_that_was_lost_is_filled_from_the_store(s3: Server, tmp_path: Path, hours: Hours) -> None:
    """The files are proved by what the store gives."""
    folder = tmp_path / "reindex"
    before = seal_all(work_at(s3.address, folder), hours)
    (folder / "manifest").unlink()
    work = work_at(s3.address, folder)
    reindex = Reindex(work.files, work.lease.tree, lambda _: 1)
    reindex.prove(work)
    for step in reindex.steps():
        reindex.do(work, step.paths[0])
    assert list(work.lease.tree.parts[hours.partition]) == before
    assert tidy(work, lambda _: 1) == 0


def test_only_deep_files_go_elsewhere(s3: Server, tmp_path: Path, hours: Hours) -> None:
    """Moved there, what was here is removed once it was read back."""
    folder = tmp_path / "deep"
    folder.mkdir()
    every = files_at(folder, uri_of(s3.address, folder.name))
    files = TieredFiles(folder / "root", OWNER, {Tier.DEEP: every._elsewhere[Tier.DEEP]})
    work = Work(files, FileLease(folder / "manifest"), "a-job", lambda: 1)
    hour = hours.hours[0]
    place = Place(Tier.HISTORICAL, Grain.HOURLY, hour.period)
    here = seal(work, hours.partition, place, hour.chunks, hours.batches(1, 700))
    assert (folder / "root" / here.path).exists()
    assert objects_in(s3.address, folder.name) == {}
    there = move(work, Move.DEMOTE, place._replace(tier=Tier.DEEP), here)
    assert sorted(objects_in(s3.address, folder.name)) == sorted([there.path, index_of(there.path)])
    assert [each.name for each in (folder / "root").rglob("*") if each.is_file()] == ["OWNER"]
    assert bytes_in(work, there) == bytes_of(hours, 1, there.facts.last_index)
    assert tidy(work, lambda _: 1) == 0


def test_a_file_that_goes_while_it_is_read_is_looked_up_anew(
    s3: Server, tmp_path: Path, hours: Hours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk it stays for who has it open; here it does not. One that nothing replaced is named."""
    for name in ("WHOLE_BYTES", "AHEAD_BYTES", "TAIL_BYTES"):
        monkeypatch.setattr(object_file, name, 0)
    work = work_at(s3.address, tmp_path / "gone")
    segments = seal_all(work, hours)
    archives = ArchivedChunks(work.files, FollowingLease(tmp_path / "gone"))
    header, chunk = hours.hours[0].headers[0], hours.hours[0].chunks[0]
    where = hours.partition, header.first_sequence
    assert archives.column(*where, Column.VALUE, header.rows)
    compact(work, Place(Tier.HISTORICAL, Grain.DAILY, "2026-01-30"), segments[:2])
    wanted = read_section(*where, Column.EVENT_ID, header.rows, chunk.sections[Column.EVENT_ID]).values
    assert same(archives.column(*where, Column.EVENT_ID, header.rows).values, wanted)
    (day, *_) = work.lease.tree.parts[hours.partition]
    put(s3.address, "gone", day.path, None)
    with pytest.raises(ArchiveFileDamagedError, match=f"{day.path}, which has sequences 1 to .* is not there"):
        archives.column(*where, Column.FLAGS, header.rows)
    archives.close()


def test_a_copy_takes_the_place_of_an_object_that_is_damaged(s3: Server, tmp_path: Path, hours: Hours) -> None:
    """As on a disk."""
    folder = tmp_path / "again-of-a-copy"
    work = work_at(s3.address, folder)
    segment = seal_all(work, hours)[0]
    before = objects_in(s3.address, folder.name)
    moved = move(work, Move.DEMOTE, Place(Tier.DEEP, Grain.HOURLY, segment.period), segment)
    wanted = objects_in(s3.address, folder.name)
    for path in (segment.path, index_of(segment.path)):
        put(s3.address, folder.name, path, before[path])
    put(s3.address, folder.name, moved.path, b"junk")
    assert mend_of_leftovers(work, moved)
    assert tidy(work, lambda _: 1) == 2
    assert objects_in(s3.address, folder.name) == wanted


def test_what_an_upload_left_by_halves_is_in_no_seals_way(s3: Server, tmp_path: Path, hours: Hours) -> None:
    """It stays until the next seal, which replaces it; what the manifest names is never replaced so."""
    whole, halves = tmp_path / "sealed-whole", tmp_path / "sealed-by-halves"
    segment = seal_all(work_at(s3.address, whole), hours)[0]
    wanted = objects_in(s3.address, whole.name)
    for path in (segment.path, index_of(segment.path)):
        put(s3.address, halves.name, path, wanted[path][:100])
    work = work_at(s3.address, halves)
    assert tidy(work, lambda _: 1) == 0
    seal_all(work, hours)
    assert objects_in(s3.address, halves.name) == wanted
    fresh = work.files.fresh(segment.tier)
    fresh.write_bytes(b"others")
    with pytest.raises(OccupiedPathError):
        job_steps._publish(work, fresh, segment.path, segment.path)
    assert objects_in(s3.address, halves.name) == wanted
