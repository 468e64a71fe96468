"""The jobs of the lifecycle on the rows that were stored: planned and done as the product does, but for Kafka.

Entries come from files in the place of the ledger, and the manifest is a file. Each function is called in a process of
its own and returns what it did.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from benchmarks.store.archive_root import ArchiveRoot
from benchmarks.store.filling import Kept
from benchmarks.store.rows import row_at
from benchmarks.store.subjects import Stopwatch
from lifecycle.archive_facts import Facts, name_of
from lifecycle.archived_chunks import ArchivedChunks
from lifecycle.hot_hours import hours_of
from lifecycle.hot_store import HotStore
from lifecycle.job_steps import Place, compact, move, prune, seal
from lifecycle.keeper import chunks_in
from lifecycle.layout import path_of
from lifecycle.manifest import Move, Segment, Tree
from lifecycle.plans import plan
from lifecycle.rules import parse
from lifecycle.steps import Job, Known, Ledger
from lifecycle.tiered import Tiered
from lifecycle.tiers import MS_PER_DAY, Grain, Tier, period_of
from lifecycle.verifying import verify
from schemas.instants import US_PER_MS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lifecycle.chunks import ChunkBytes, Header, Line
    from lifecycle.steps import HotHour

#: All hours are older than a week, and no month is due.
_LATER_US: Final = 8 * MS_PER_DAY * US_PER_MS
_DAYS: Final = 30
_MONTH: Final = "2026-09"
_CHUNKS_AT_ONCE: Final = 8
_SEGMENTS: Final = 10_000
_PLANS: Final = 31
_KEPT_DAYS: Final = 5_000
_MS: Final = 1_000


class Did(NamedTuple):
    """What a job did, and how long it took. files: that it wrote, moved or removed; hours of the hot tier."""

    rows: int
    files: int
    seconds: float


def seal_hours(folder: Path, root: Path, count: int) -> Did:
    """All hours of the hot tier to a file each, by the plan."""
    now_us = row_at(count) + _LATER_US
    kept, archive, watch = Kept(folder), ArchiveRoot(root, now_us), Stopwatch()
    with contextlib.closing(HotStore.open_read_only(kept.hot)) as store:
        entries = {partition: kept.entries(partition) for partition in store.partitions()}
        with watch:
            steps = plan(_known(store, archive), parse({}), now_us, Job.SEAL)
            for step in steps:
                assert step.grain is not None
                place, indexes = Place(step.tier, step.grain, step.period), (step.first_index, step.last_index)
                lines = [line for line in store.lines(step.partition) if indexes[0] <= line.first_index <= indexes[1]]
                read = entries[step.partition].read(*indexes)
                seal(archive.work, step.partition, place, _chunks(store, step.partition, lines), read)
    return Did(sum(step.rows for step in steps), len(steps), watch.seconds)


def compact_hours(folder: Path, root: Path, count: int) -> Did:
    """The files of each day as one, by the plan."""
    now_us = row_at(count) + _LATER_US
    archive, watch = ArchiveRoot(root, now_us), Stopwatch()
    with contextlib.closing(HotStore.open_read_only(Kept(folder).hot)) as store:
        known = _known(store, archive)
    with watch:
        steps = plan(known, parse({}), now_us, Job.COMPACT)
        for step in steps:
            assert step.grain is not None
            files = [each for each in archive.segments() if each.path in step.paths]
            compact(archive.work, Place(step.tier, step.grain, step.period), files)
    return Did(sum(step.rows for step in steps), len(steps), watch.seconds)


def seal_days(folder: Path, root: Path) -> Did:
    """Each partition in thirty files as long as each other, that stand for the days of a month."""
    kept, archive, watch = Kept(folder), ArchiveRoot(root), Stopwatch()
    files = rows = 0
    with contextlib.closing(HotStore.open_read_only(kept.hot)) as store:
        for partition in store.partitions():
            lines, entries = store.lines(partition), kept.entries(partition)
            days = [some.tolist() for some in np.array_split(np.arange(len(lines)), min(_DAYS, len(lines)))]
            with watch:
                for day, some in enumerate(days, start=1):
                    first, last = lines[some[0]], lines[some[-1]]
                    place = Place(Tier.HISTORICAL, Grain.DAILY, f"{_MONTH}-{day:02d}")
                    read = entries.read(first.first_index, last.last_index)
                    chunks = _chunks(store, partition, lines[some[0] : some[-1] + 1])
                    rows += seal(archive.work, partition, place, chunks, read).facts.rows
            files += len(days)
    return Did(rows, files, watch.seconds)


def compact_days(root: Path) -> Did:
    """The days of each partition as a month."""
    archive, watch = ArchiveRoot(root), Stopwatch()
    before = archive.segments()
    with watch:
        for segments in list(archive.lease.tree.parts.values()):
            compact(archive.work, Place(Tier.HISTORICAL, Grain.MONTHLY, _MONTH), segments)
    return Did(sum(each.facts.rows for each in archive.segments()), len(before), watch.seconds)


def verify_all(root: Path) -> Did:
    """All files read, all entries made again."""
    archive, watch = ArchiveRoot(root), Stopwatch()
    segments = archive.segments()
    with watch:
        entries = sum(verify(archive.files, segment).entries for segment in segments)
    return Did(entries, len(segments), watch.seconds)


def demote_hours(folder: Path, root: Path, count: int) -> Did:
    """Hours that are archived leave the hot tier, by the plan, and their room is given back."""
    now_us = row_at(count) + _LATER_US
    archive, watch = ArchiveRoot(root, now_us), Stopwatch()
    rows = hours = 0
    with (
        contextlib.closing(HotStore.open(Kept(folder).hot)) as store,
        contextlib.closing(ArchivedChunks(archive.files, archive.lease)) as archives,
    ):
        known = _known(store, archive)
        with watch:
            for step in plan(known, parse({}), now_us, Job.DEMOTE):
                partition, applied = step.partition, store.applied(step.partition)
                lines = [
                    line
                    for line in store.lines(partition)
                    if step.first_index <= line.first_index <= step.last_index
                    and applied is not None
                    and line.last_sequence < applied.sequence  # the last stays
                ]
                for line in lines:  # as the product does: what is not in an archive does not leave
                    archives.headers(partition, line.first_sequence, 1)
                store.send_away(partition, [line.first_sequence for line in lines])
                rows += sum(line.rows for line in lines)
                hours += 1
            store.reclaim()
    return Did(rows, hours, watch.seconds)


def promote_all(folder: Path, root: Path) -> Did:
    """All chunks that are away come back."""
    archive, watch = ArchiveRoot(root), Stopwatch()
    rows = chunks = 0
    with (
        contextlib.closing(HotStore.open(Kept(folder).hot)) as store,
        contextlib.closing(ArchivedChunks(archive.files, archive.lease)) as archives,
    ):
        away = {partition: store.away(partition).tolist() for partition in store.partitions()}
        with watch:
            for partition, firsts in away.items():
                for start in range(0, len(firsts), _CHUNKS_AT_ONCE):
                    some = firsts[start : start + _CHUNKS_AT_ONCE]
                    store.bring_back(partition, list(chunks_in(archives, partition, some)))
            store.flush()
        for partition, firsts in away.items():
            known = set(firsts)
            rows += sum(line.rows for line in store.lines(partition) if line.first_sequence in known)
            chunks += len(firsts)
    return Did(rows, chunks, watch.seconds)


def demote_files(root: Path) -> Did:
    """All files become deep."""
    archive, watch = ArchiveRoot(root), Stopwatch()
    segments = archive.segments()
    with watch:
        for each in segments:
            move(archive.work, Move.DEMOTE, Place(Tier.DEEP, each.grain, each.period), each)
    return Did(sum(each.facts.rows for each in segments), len(segments), watch.seconds)


def prune_all(root: Path) -> Did:
    """All files of each partition but the last, proved as a run proves them."""
    archive, watch = ArchiveRoot(root), Stopwatch()
    pruned: list[Segment] = []
    with watch:
        for partition, segments in list(archive.lease.tree.parts.items()):
            for each in segments[:-1]:
                verify(archive.files, each)
                prune(archive.work, partition, [each])
                pruned.append(each)
    return Did(sum(each.facts.rows for each in pruned), len(pruned), watch.seconds)


def prune_plan_ms() -> float:
    """The plan of a prune over as many daily files as there are in 27 years, most of which are to go; the median."""
    tree = _long_tree()
    files = tree.parts[0]
    known = Known(tree, {}, {}, {each.path: each.moved_us for each in files})
    rules = parse({"configuration/retention_policies.json": b'{"version": 1, "archives_days": %d}' % _KEPT_DAYS})
    now_us = files[-1].facts.authority_ms_max * US_PER_MS
    took_ms = []
    for _ in range(_PLANS):
        watch = Stopwatch()
        with watch:
            steps = plan(known, rules, now_us, Job.PRUNE)
        took_ms.append(watch.seconds * _MS)
        assert _SEGMENTS - _KEPT_DAYS - 2 <= len(steps) < _SEGMENTS
    return float(np.median(took_ms))


def _known(store: HotStore, archive: ArchiveRoot) -> Known:
    """As a run gathers it."""
    hours: dict[int, Sequence[HotHour]] = {}
    ledgers = {}
    archives = ArchivedChunks(archive.files, archive.lease)
    tiered = Tiered(store, archives)
    with contextlib.closing(archives):
        for partition in store.partitions():
            lines = store.lines(partition)

            def header(sequence: int, partition: int = partition) -> Header:
                return tiered.headers(partition, sequence, 1)[0]

            hours[partition] = hours_of(partition, lines, header, store.bytes_per_row())
            last = lines[-1].last_index
            ledgers[partition] = Ledger(1, last, last + 1)
    return Known(archive.lease.tree, hours, ledgers, {})


def _chunks(store: HotStore, partition: int, lines: Sequence[Line]) -> Iterator[ChunkBytes]:
    for line in lines:
        yield store.chunk(partition, line.first_sequence)


def _long_tree() -> Tree:
    """One partition of daily files, a row each."""
    first_ms = row_at(0) // US_PER_MS - _SEGMENTS * MS_PER_DAY
    segments = []
    for number in range(_SEGMENTS):
        at_ms = first_ms + number * MS_PER_DAY
        place = number + 1, number + 1
        hashes = (f"{number:064x}", f"{number + 1:064x}", f"{0:064x}")
        facts = Facts(0, *place, *place, number - 1, -1, number, -1, at_ms, at_ms, at_ms, *hashes, (), "", "")
        name = name_of(facts, number.to_bytes(32, "big"))
        period = period_of(at_ms, Grain.DAILY)
        path = path_of(Tier.HISTORICAL, Grain.DAILY, period, name)
        segments.append(
            Segment(path, Tier.HISTORICAL, Grain.DAILY, period, 1, hashes[0], hashes[1], {}, at_ms * US_PER_MS, facts)
        )
    return Tree(_SEGMENTS, {0: tuple(segments)})
