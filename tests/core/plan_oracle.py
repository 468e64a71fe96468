"""A world that ages, as one dictionary: of each entry, where its copies are. And what is to be done in it, by hand.

Nothing here knows of segments but what a dictionary from (partition, index) says: an entry is in the ledger or not, in
the hot tier or not, and in a file with a path, a tier and a grain, or in none. What plans should do is found by asking
each entry by itself, or runs of entries that are in the same file.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lifecycle import plans
from lifecycle.ageing import COLD, after_read
from lifecycle.archive_facts import Facts, name_of
from lifecycle.layout import path_of
from lifecycle.manifest import Commit, Move, Segment, Tree
from lifecycle.rules import LedgerRetention
from lifecycle.steps import HotHour, Job, Known, Ledger, Step
from lifecycle.tiers import MS_PER_DAY, MS_PER_HOUR, Grain, Tier, bounds_of, due_grain, period_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lifecycle.rules import Configuration

ENTRY_BYTES = 150_000
GRAINS = list(Grain)

#: What a plan does to entries: job, partition, index, and what becomes of it.
Effects = set[tuple[str, int, int, str]]


@dataclass
class File:
    """A file that holds an entry."""

    path: str
    tier: Tier
    grain: Grain
    size_bytes: int
    moved_us: int


@dataclass
class Hour:
    """What is known of an hour in the hot tier; moves_us: when jobs moved it."""

    moved_us: int
    reads_us: list[int] = field(default_factory=list)
    moves_us: list[int] = field(default_factory=list)


@dataclass
class Entry:
    """order_ms: running maximum of authority time. sequence: of the last DATA up to it."""

    order_ms: int
    authority_ms: int
    sequence: int
    hour: Hour
    in_hot: bool = True
    in_ledger: bool = True
    file: File | None = None
    pruned: bool = False

    @property
    def hour_end_ms(self) -> int:
        """Of its hour, of authority time."""
        return bounds_of(self.order_ms, Grain.HOURLY)[1]


def hour_of(each: tuple[int, Entry]) -> int:
    """Which one: where entries come to an hour that is archived, they are another."""
    return id(each[1].hour)


@dataclass
class World:
    """Entries by partition and index, from 1. needed: first entry that a snapshot needs, by partition."""

    rules: Configuration
    now_us: int
    entries: dict[tuple[int, int], Entry] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    needed: dict[int, int] = field(default_factory=dict)
    proofs: dict[str, int] = field(default_factory=dict)
    tree: Tree = field(default_factory=Tree)

    # What happens to it.

    def append(self, partition: int, authority_ms: int, *, is_data: bool) -> None:
        """One more entry."""
        before = self.entries.get((partition, self.counts[partition]))
        order_ms = max(authority_ms, before.order_ms) if before else authority_ms
        entry = Entry(order_ms, authority_ms, (before.sequence if before else 0) + is_data, Hour(self.now_us))
        if before and before.hour_end_ms == entry.hour_end_ms and not before.file:
            entry.hour, entry.in_hot = before.hour, before.in_hot
        self.counts[partition] += 1
        self.entries[partition, self.counts[partition]] = entry

    def lose_hot_tier(self, partition: int) -> None:
        """All of a partition."""
        for _, entry in self.of(partition):
            entry.in_hot = False
            entry.hour.moved_us = self.now_us

    def make_hot_tier_anew(self, partition: int) -> None:
        """Of what is not archived: the ledger has it."""
        for _, entry in self.of(partition):
            if entry.file is None and not entry.pruned:
                assert entry.in_ledger
                entry.in_hot = True

    def of(self, partition: int) -> Iterator[tuple[int, Entry]]:
        """Those of a partition, ascending."""
        for index in range(1, self.counts[partition] + 1):
            yield index, self.entries[partition, index]

    def prove(self, paths: Iterable[str]) -> None:
        """These files are what was written."""
        for path in paths:
            self.proofs[path] = self.now_us

    # What a planner is told of it.

    def known(self) -> Known:
        """All of it."""
        ledgers, hours = {}, {}
        for partition in self.counts:
            kept = [index for index, entry in self.of(partition) if entry.in_ledger]
            pruned = max((index for index, entry in self.of(partition) if entry.pruned), default=0)
            needed = self.needed.get(partition, kept[-1] + 1)
            ledgers[partition] = Ledger(kept[0], kept[-1], needed, pruned)
            hours[partition] = list(self._hot_hours(partition))
        return Known(self.tree, hours, ledgers, dict(self.proofs))

    def _hot_hours(self, partition: int) -> Iterator[HotHour]:
        for _, group in groupby(self.of(partition), hour_of):
            members = list(group)
            hour, end_ms = members[0][1].hour, members[0][1].hour_end_ms
            heat = COLD
            for read_us in hour.reads_us:
                heat = after_read(heat, end_ms * 1_000, read_us, self.rules.ageing.half_life_us)
            first = members[0][0]
            before = self.entries[partition, first - 1].sequence if first > 1 else 0
            yield HotHour(
                partition, period_of(end_ms - 1, Grain.HOURLY), before + 1, members[-1][1].sequence, first,
                members[-1][0], members[-1][1].sequence - before, ENTRY_BYTES * len(members),
                all(entry.in_hot for _, entry in members), end_ms, heat, hour.moved_us,
            )  # fmt: skip

    # What jobs do to it.

    def apply(self, step: Step) -> None:
        """Do a step, which must be allowed."""
        members = [self.entries[step.partition, index] for index in range(step.first_index, step.last_index + 1)]
        match step.job:
            case Job.SEAL:
                assert all(entry.in_hot and entry.in_ledger and entry.file is None for entry in members)
                assert step.rows == members[-1].sequence - self._sequence_before(step)
                self._commit(Move.SEAL, step, members)
            case Job.COMPACT:
                self._commit(Move.COMPACT, step, members)
            case Job.DEMOTE if step.paths:
                self._commit(Move.DEMOTE, step, members)
            case Job.DEMOTE | Job.PROMOTE:
                self._move(step, members)
            case Job.PRUNE:
                assert all(self._is_proved(entry) for entry in members)
                self._commit(Move.PRUNE, step, members)
            case Job.CUT:
                assert all(entry.in_ledger and (entry.pruned or self._is_proved(entry)) for entry in members)
                assert step.first_index == 1 or not self.entries[step.partition, step.first_index - 1].in_ledger
                assert step.last_index < self.counts[step.partition]
                for entry in members:
                    entry.in_ledger = False

    def check(self) -> None:
        """That no entry is lost, or in two files, and that the manifest says the same."""
        for (partition, index), entry in self.entries.items():
            assert entry.in_ledger or entry.in_hot or entry.file or entry.pruned
            segment = self.tree.at_index(partition, index)
            assert (segment.path if segment else None) == (entry.file.path if entry.file else None)

    def _sequence_before(self, step: Step) -> int:
        return self.entries[step.partition, step.first_index - 1].sequence if step.first_index > 1 else 0

    def _move(self, step: Step, members: list[Entry]) -> None:
        comes = step.job is Job.PROMOTE
        for entry in members:
            assert entry.in_hot is not comes
            assert entry.file or (entry.pruned and not comes)
            entry.in_hot = comes
        hour = members[0].hour
        if hour.moves_us:
            assert self.now_us - hour.moves_us[-1] >= self.rules.ageing.stay_us
        hour.moves_us.append(self.now_us)
        hour.moved_us = self.now_us

    def _commit(self, move: Move, step: Step, members: list[Entry]) -> None:
        segment = self._segment(step, members)
        adds = () if move is Move.PRUNE else (segment,)
        record = Commit(self.tree.commit + 1, move, "job", step.partition, self.now_us, adds, step.paths)
        self.tree = self.tree.after(record)
        for path in step.paths:
            self.proofs.pop(path, None)
        file = File(segment.path, segment.tier, segment.grain, segment.size_bytes, self.now_us) if adds else None
        for entry in members:
            assert (entry.file.path if entry.file else "") in (step.paths or ("",))
            entry.file, entry.pruned = file, file is None
        if adds:
            assert {period_of(entry.order_ms, segment.grain) for entry in members} == {segment.period}
            assert len(step.paths) < 2 or segment.size_bytes <= self.rules.file_bytes_max

    def _segment(self, step: Step, members: list[Entry]) -> Segment:
        assert step.grain
        partition, first, last = step.partition, step.first_index, step.last_index
        before = self.entries[partition, first - 1] if first > 1 else None
        times = [entry.authority_ms for entry in members]
        facts = Facts(
            partition, first, last, self._sequence_before(step) + 1, members[-1].sequence, 0, 0, 0, 0, min(times),
            max(times), before.order_ms if before else -(2**63), f"{partition}:{first - 1}", f"{partition}:{last}",
            "", (), "", "",
        )  # fmt: skip
        path = path_of(step.tier, step.grain, step.period, name_of(facts, bytes(32)))
        size_bytes = step.size_bytes * 9 // 10 if len(step.paths) > 1 else step.size_bytes
        return Segment(path, step.tier, step.grain, step.period, size_bytes, "", "", {}, self.now_us, facts)

    def _is_proved(self, entry: Entry) -> bool:
        file = entry.file
        return file is not None and self.proofs.get(file.path, -1) >= file.moved_us

    # What plans are to do to it.

    def wanted(self) -> Effects:
        """What plans are to do now, by asking each entry."""
        return {effect for partition in self.counts for effect in self._wanted(partition)}

    def _wanted(self, partition: int) -> Iterator[tuple[str, int, int, str]]:
        files = [
            (members, file)
            for _, group in groupby(self.of(partition), lambda each: each[1].file and each[1].file.path)
            for members in [list(group)]
            if (file := members[0][1].file)
        ]
        kept = files[self._beyond(files) :]
        joined = self._joined(partition, files, kept)
        deep = [] if self.rules.ages.deep_days is None else [
            (members, file) for members, file in kept
            if file.tier is not Tier.DEEP and members[0][0] not in joined
            and self._age_days(bounds_of(members[-1][1].order_ms, file.grain)[1]) >= self.rules.ages.deep_days
        ]  # fmt: skip
        pruned = []
        for members, _ in files[: len(files) - len(kept)]:
            if not self._is_proved(members[0][1]):
                break
            pruned += [index for index, _ in members]
        busy = {*joined, *(index for members, _ in deep for index, _ in members)}
        yield from (("compact", partition, index, what) for index, what in joined.items())
        yield from (("deepen", partition, index, "") for members, _ in deep for index, _ in members)
        yield from (("prune", partition, index, "") for index in pruned)
        yield from (("seal", partition, index, "") for index in self._sealed(partition))
        yield from self._moved(partition)
        yield from (("cut", partition, index, "") for index in self._cut(partition, busy))

    def _age_days(self, at_ms: int) -> float:
        return (self.now_us // 1_000 - at_ms) / MS_PER_DAY

    def _is_beyond(self, end_ms: int) -> bool:
        return self.rules.archives_days is not None and self._age_days(end_ms) > self.rules.archives_days

    def _beyond(self, files: list[tuple[list[tuple[int, Entry]], File]]) -> int:
        for count, (members, file) in enumerate(files[:-1]):
            if not self._is_beyond(bounds_of(members[-1][1].order_ms, file.grain)[1]):
                return count
        return max(len(files) - 1, 0)

    def _sealed(self, partition: int) -> Iterator[int]:
        for index, entry in self.of(partition):
            if entry.file or entry.pruned:
                continue
            if self._age_days(entry.hour_end_ms) < self.rules.ages.recent_days or not entry.in_hot:
                return
            yield index

    def _joined(self, partition: int, files: Any, kept: Any) -> dict[int, str]:
        """By index of each entry that is to be in another file, what that is of."""
        grains: dict[str, tuple[Grain, str]] = {}
        for members, file in files:
            order_ms = members[-1][1].order_ms
            due = due_grain(order_ms, self.now_us // 1_000, self.rules.ages)
            if GRAINS.index(file.grain) > GRAINS.index(due):
                continue
            end_ms = bounds_of(order_ms, due)[1]
            later = any(entry.file and entry.order_ms >= end_ms for _, entry in self.of(partition))
            rest = any(
                entry.hour_end_ms <= end_ms and not entry.file and not entry.pruned for _, entry in self.of(partition)
            )
            if later or (self._age_days(end_ms) >= self.rules.ages.recent_days and not rest):
                grains[file.path] = due, period_of(order_ms, due)
        alone = [period for _, period in grains.values()]
        found: dict[int, str] = {}
        runs: list[list[Any]] = []
        for members, file in kept:
            last = runs[-1] if runs else []
            if (
                last
                and file.path in grains
                and grains.get(last[-1][1].path) == grains[file.path]
                and last[-1][1].tier is file.tier
                and sum(other.size_bytes for _, other in [*last, (members, file)]) <= self.rules.file_bytes_max
                and len(last) < plans.FILES_MAX
            ):
                last.append((members, file))
            else:
                runs.append([(members, file)])
        for run in runs:
            _, file = run[0]
            if file.path not in grains:
                continue
            grain, period = grains[file.path]
            if len(run) > 1 or (alone.count(period) == 1 and file.grain is not grain):
                name = f"{run[0][0][0][0]} {file.tier} {grain} {period}"
                found |= {index: name for members, _ in run for index, _ in members}
        return found

    def _moved(self, partition: int) -> Iterator[tuple[str, int, int, str]]:
        ageing = self.rules.ageing
        for _, group in groupby(self.of(partition), hour_of):
            members = list(group)
            hour, end_ms = members[0][1].hour, members[0][1].hour_end_ms
            if not all(entry.file or entry.pruned for _, entry in members):
                continue
            if self.now_us - hour.moved_us < ageing.stay_us:
                continue
            entropy = (self.now_us - end_ms * 1_000) / ageing.half_life_us
            if hour.reads_us:
                at = [end_ms * 1_000, *hour.reads_us]
                last = max(at)
                weight = math.fsum(2.0 ** ((each - last) / ageing.half_life_us) for each in at)
                entropy = (self.now_us - last) / ageing.half_life_us - math.log2(weight)
            pruned = [entry.pruned for _, entry in members]
            if members[0][1].in_hot:
                if entropy > ageing.limit or (all(pruned) and self._is_beyond(end_ms)):
                    yield from (("demote", partition, index, "") for index, _ in members)
            elif entropy < ageing.limit - ageing.hysteresis and not any(pruned) and not self._is_beyond(end_ms):
                yield from (("promote", partition, index, "") for index, _ in members)

    def _cut(self, partition: int, busy: set[int]) -> list[int]:
        if self.rules.ledger is LedgerRetention.KEEP:
            return []
        kept = [(index, entry) for index, entry in self.of(partition) if entry.in_ledger]
        proved: list[tuple[int, Entry]] = []
        for index, entry in kept:
            if not entry.pruned and (index in busy or not self._is_proved(entry)):
                break
            proved.append((index, entry))
        # Whole files: one goes if its last entry may.
        ends = {entry.file.path: entry.order_ms for _, entry in proved if entry.file}
        until_ms = max(ends.values(), default=0) - self.rules.ledger_keep_hours * MS_PER_HOUR
        gone = [index for index, entry in proved if entry.pruned or (entry.file and ends[entry.file.path] <= until_ms)]
        last = min(self.counts[partition] - 1, self.needed.get(partition, kept[-1][0] + 1) - 1)
        return [index for index in gone if index <= last]


def effects_of(steps: tuple[Step, ...]) -> Effects:
    """What steps do to entries."""
    found: Effects = set()
    for step in steps:
        name = "deepen" if step.job is Job.DEMOTE and step.paths else str(step.job)
        what = f"{step.first_index} {step.tier} {step.grain} {step.period}" if step.job is Job.COMPACT else ""
        for index in range(step.first_index, step.last_index + 1):
            effect = (name, step.partition, index, what)
            assert effect not in found
            found.add(effect)
    return found
