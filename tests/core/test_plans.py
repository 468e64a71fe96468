"""Plans against a dictionary of where each entry is, through histories of crashes; and what each job is for."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import plans
from lifecycle.ageing import COLD, after_read
from lifecycle.archive_facts import Facts
from lifecycle.manifest import End, Segment, Tree
from lifecycle.plans import plan
from lifecycle.rules import MEMBERS, Configuration, parse
from lifecycle.steps import HotHour, Job, Known, Ledger, Step, of_files
from lifecycle.tiers import MS_PER_DAY, MS_PER_HOUR, Grain, Tier, bounds_of, period_of
from schemas.errors import BadInputError
from tests.core.plan_oracle import ENTRY_BYTES, World, effects_of

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULTS = parse({})
US_PER_HOUR = 3_600_000_000
#: Until a world has nothing left to do, while no time passes: hours become files, these days, months, years, deep, and
#: each is proved before what it was goes.
ROUNDS_MAX = 12


def ms(*date: int) -> int:
    """Of a moment in UTC."""
    return int(datetime(*date, tzinfo=UTC).timestamp()) * 1_000  # type: ignore[arg-type,misc]


def rules(**given: Any) -> Configuration:
    """Those of members, whichever files they are of."""
    contents = {
        file: json.dumps({"version": 1} | {name: given[name] for name in members if name in given}).encode()
        for file, members in MEMBERS.items()
    }
    return parse(contents)


def any_rules(draw: random.Random) -> Configuration:
    """That do not contradict each other."""
    while True:
        given = {
            "recent_days": draw.choice([1, 2, 7]),
            "monthly_days": draw.choice([3, 10, 31]),
            "yearly_days": draw.choice([40, 366]),
            "deep_days": draw.choice([None, 5, 50, 400]),
            # No entropy is at a limit but for rounding, which is not the same here and there.
            "half_life_hours": draw.choice([3.1, 6.7, 20.3, 47.9]),
            "limit_bits": draw.choice([2, 8]),
            "hysteresis_bits": draw.choice([0.1, 0.9, 1.7]),
            "stay_hours": draw.choice([0, 5, 24, 100]),
            "file_bytes_max": draw.choice([7, 11, 40, 1_000]) * ENTRY_BYTES,
            "archives_days": draw.choice([None, None, 8, 60, 500]),
            "ledger": draw.choice(["cut_when_proved", "cut_when_proved", "keep"]),
            "ledger_keep_hours": draw.choice([0, 24, 168]),
        }
        try:
            return rules(**given)
        except BadInputError:
            continue


def time_passes(world: World, draw: random.Random) -> None:
    """With entries of some partitions, not all of them in order of time; clocks that go back do so by hours."""
    hours = draw.choice([1, 3, 24, 24, 100, 24 * 10, 24 * 40, 24 * 370])
    start_ms, end_ms = world.now_us // 1_000, world.now_us // 1_000 + hours * MS_PER_HOUR
    world.now_us = end_ms * 1_000 + draw.choice([0, 0, 1, 999])
    for partition in range(3):
        for at_ms in sorted(draw.randrange(start_ms, end_ms) for _ in range(draw.choice([0, 2, 9, 25]))):
            world.append(partition, at_ms - draw.choice([0, 0, 0, 5 * MS_PER_HOUR]), is_data=draw.random() < 0.8)


def something_happens(world: World, draw: random.Random) -> None:
    """Reads, a hot tier that is lost or made anew, other rules, snapshots, proofs that are lost."""
    for entry in draw.choices(list(world.entries.values()), k=draw.choice([0, 0, 1, 9])):
        entry.hour.reads_us += [world.now_us] * draw.choice([1, 1, 5])
    partition = draw.choice(list(world.counts))
    match draw.randrange(12):
        case 0:
            world.lose_hot_tier(partition)
        case 1 | 2 | 3:
            world.make_hot_tier_anew(partition)
        case 4:
            world.rules = any_rules(draw)
        case 5 | 6:
            world.needed[partition] = draw.randint(1, world.counts[partition] + 1)
        case 7:
            world.needed.clear()
        case 8 if world.proofs:
            del world.proofs[draw.choice(sorted(world.proofs))]


def some_is_done(world: World, steps: Sequence[Step], draw: random.Random) -> None:
    """Jobs of partitions by turns, each in order, and each may die before any step."""
    queues: dict[Any, list[Step]] = defaultdict(list)
    for step in steps:
        queues[step.job, step.partition].append(step)
    dies = draw.choice([0.0, 0.1, 0.5])
    while queues:
        name = draw.choice(list(queues))
        step = queues[name].pop(0)
        if draw.random() < dies:
            queues[name].clear()
        else:
            world.apply(step)
        if not queues[name]:
            del queues[name]
    world.check()


@pytest.mark.parametrize("seed", range(100))
def test_plans_are_those_of_a_dictionary_whatever_dies(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry by entry; no copy is the last to go, and where nothing dies plans come to an end."""
    draw = random.Random(seed)
    monkeypatch.setattr(plans, "FILES_MAX", draw.choice([2, 5, 366]))
    world = World(any_rules(draw), ms(2023, draw.randint(1, 12), draw.randint(1, 28)) * 1_000)
    world.append(0, world.now_us // 1_000, is_data=False)
    for _ in range(12):
        time_passes(world, draw)
        something_happens(world, draw)
        for _ in range(draw.choice([1, 2])):
            proved = draw.choice([0.0, 0.5, 1.0])
            world.prove(path for path in sorted(world.tree.paths()) if draw.random() < proved)
            steps = plan(world.known(), world.rules, world.now_us)
            assert effects_of(steps) == world.wanted()
            some_is_done(world, steps, draw)
        if draw.random() < 0.4:
            comes_to_rest(world)
    comes_to_rest(world)


def comes_to_rest(world: World) -> None:
    """While no time passes, plans end. All files are proved, as a run does before it prunes or cuts."""
    for _ in range(ROUNDS_MAX):
        world.prove(world.tree.paths())
        steps = plan(world.known(), world.rules, world.now_us)
        assert effects_of(steps) == world.wanted()
        if not steps:
            break
        for step in steps:
            world.apply(step)
        world.check()
    assert not plan(world.known(), world.rules, world.now_us)


def test_histories_come_to_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that cannot fail is none: each job, and each form of it, is in the plans of histories."""
    seen: set[str] = set()
    apply = World.apply

    def seeing(world: World, step: Step) -> None:
        seen.add(f"{step.job} {step.tier}" if step.paths else str(step.job))
        if step.job is Job.COMPACT:
            seen.add(f"{'join' if len(step.paths) > 1 else 'rename'} to {step.grain}")
        apply(world, step)

    monkeypatch.setattr(World, "apply", seeing)
    for seed in range(12):
        with pytest.MonkeyPatch.context() as patch:
            test_plans_are_those_of_a_dictionary_whatever_dies(seed, patch)
    assert seen >= {
        "seal", "demote", "promote", "cut", "demote deep", "prune historical", "prune deep", "join to daily",
        "join to monthly", "join to yearly", "rename to daily", "rename to monthly", "rename to yearly", "compact deep",
    }  # fmt: skip


# What each job is for, by hand. A world of one partition, of which each hour has ten entries, all of them DATA.

NOW_MS = ms(2025, 6, 1, 12)
NOW_US = NOW_MS * 1_000
HOUR_ENTRIES = 10


def hot(number: int, end_ms: int, **changed: Any) -> HotHour:
    """The n-th hour, from 0."""
    first, last = number * HOUR_ENTRIES + 1, (number + 1) * HOUR_ENTRIES
    period = period_of(end_ms - 1, Grain.HOURLY)
    hour = HotHour(0, period, first, last, first, last, HOUR_ENTRIES, 1_000, True, end_ms, COLD, end_ms * 1_000)  # noqa: FBT003
    return hour._replace(**changed)


def archived(first: int, last: int, end_ms: int, grain: Grain = Grain.HOURLY, **changed: Any) -> Segment:
    """A file of those hours, first and last included, of which the last ends then."""
    facts = Facts(
        0, first * HOUR_ENTRIES + 1, (last + 1) * HOUR_ENTRIES, first * HOUR_ENTRIES + 1, (last + 1) * HOUR_ENTRIES,
        0, 0, 0, 0, end_ms - 1, end_ms - 1, -(2**63), f"{first}", f"{last + 1}", "", (), "", "",
    )  # fmt: skip
    period = period_of(end_ms - 1, grain)
    path = f"{grain}/{period}-{first}"
    moved_us = min(end_ms * 1_000 + 8 * 24 * US_PER_HOUR, NOW_US)
    size_bytes = 1_000 * (last - first + 1)
    segment = Segment(path, Tier.HISTORICAL, grain, period, size_bytes, "", "", {}, moved_us, facts)
    return segment._replace(**changed)


def known_of(
    files: Sequence[Segment] = (), hours: Sequence[HotHour] = (), *, proved: bool = True, **ledger: int
) -> Known:
    """Files that are all proved or not, hours, and a ledger that has everything and ten entries more."""
    last = max([0, *(file.facts.last_index for file in files), *(hour.last_index for hour in hours)])
    proofs = {file.path: NOW_US for file in files} if proved else {}
    ends = {0: End(files[-1].facts.last_index, files[-1].facts.last_sequence, "")} if files else {}
    whole = Ledger(1, last + HOUR_ENTRIES, last + HOUR_ENTRIES + 1)
    return Known(Tree(len(files), {0: tuple(files)}, ends), {0: tuple(hours)}, {0: whole._replace(**ledger)}, proofs)


def days(count: int, *, until_ms: int = NOW_MS - 8 * MS_PER_DAY) -> list[Segment]:
    """Daily files, the last of which holds that instant; one hour each."""
    ends = [until_ms - back * MS_PER_DAY for back in reversed(range(count))]
    return [archived(number, number, end, Grain.DAILY) for number, end in enumerate(ends)]


def test_where_nothing_is_nothing_is_to_be_done() -> None:
    """With and without a ledger."""
    assert plan(Known(Tree()), DEFAULTS, NOW_US) == ()
    assert plan(known_of(), DEFAULTS, NOW_US) == ()


def test_hours_are_sealed_from_where_the_archives_end_to_the_first_that_is_too_young() -> None:
    """To the microsecond."""
    ends = [NOW_MS - 7 * MS_PER_DAY + hour * MS_PER_HOUR for hour in range(-3, 2)]
    known = known_of([archived(0, 0, ends[0])], [hot(number, end) for number, end in enumerate(ends)])
    steps = plan(known, DEFAULTS, NOW_US, Job.SEAL)
    assert [(step.first_index, step.last_index, step.rows) for step in steps] == [
        (11, 20, 10),
        (21, 30, 10),
        (31, 40, 10),
    ]
    assert {(step.tier, step.grain) for step in steps} == {(Tier.HISTORICAL, Grain.HOURLY)}
    assert steps[-1].what == "archive the hour 2025-05-25-11"
    assert steps[-1].why == "it ended 7.0 days ago, and is archived from 7.0 days (recent_days) on"
    assert plan(known, DEFAULTS, NOW_US - 1, Job.SEAL) == tuple(
        step._replace(why=after.why)
        for step, after in zip(steps[:2], plan(known, DEFAULTS, NOW_US - 1, Job.SEAL), strict=True)
    )


def test_no_hour_is_sealed_behind_a_gap() -> None:
    """One that is missing, or not held, or that the ledger has no more."""
    ends = [NOW_MS - 9 * MS_PER_DAY + hour * MS_PER_HOUR for hour in range(4)]
    hours = [hot(number, end) for number, end in enumerate(ends)]
    for there in (
        [hours[0], hours[2], hours[3]],
        [hours[0], hours[1]._replace(held=False), hours[2]],
    ):
        assert [step.last_index for step in plan(known_of([], there), DEFAULTS, NOW_US, Job.SEAL)] == [10]
    assert plan(known_of([], hours[1:]), DEFAULTS, NOW_US, Job.SEAL) == ()
    assert plan(known_of([], hours[1:], first_index=11), DEFAULTS, NOW_US, Job.SEAL)[0].first_index == 11
    assert plan(known_of([archived(0, 0, ends[0])], hours[1:], first_index=12), DEFAULTS, NOW_US, Job.SEAL) == ()
    without_ledger = replace(known_of([], hours), ledgers={})
    assert plan(without_ledger, DEFAULTS, NOW_US, Job.SEAL) == ()


def test_where_all_archives_are_gone_those_that_come_go_on_where_they_ended() -> None:
    """And what was archived is not brought back, nor dropped from the hot tier but for its age."""
    ends = [NOW_MS - 9 * MS_PER_DAY + hour * MS_PER_HOUR for hour in range(3)]
    hours = [hot(number, end) for number, end in enumerate(ends)]
    known = replace(known_of([], hours), tree=Tree(5, {0: ()}, {0: End(15, 14, "")}))
    steps = plan(known, DEFAULTS, NOW_US, Job.SEAL)
    assert [(step.first_index, step.last_index, step.rows) for step in steps] == [(16, 20, 6), (21, 30, 10)]
    read = [hour._replace(heat=100.0, held=False) for hour in hours]
    assert plan(replace(known, hours={0: read}), DEFAULTS, NOW_US, Job.PROMOTE) == ()
    assert (
        plan(replace(known, hours={0: [hour._replace(held=True) for hour in read]}), DEFAULTS, NOW_US, Job.DEMOTE) == ()
    )


def test_of_an_hour_that_is_archived_in_part_the_rest_is_sealed() -> None:
    """A broker's clock went back while nothing else came."""
    end = NOW_MS - 9 * MS_PER_DAY
    step = plan(known_of([archived(0, 0, end)], [hot(0, end, last_index=25, last_sequence=24)]), DEFAULTS, NOW_US)[0]
    assert (step.job, step.first_index, step.last_index, step.rows) == (Job.SEAL, 11, 25, 14)


def test_a_day_becomes_one_file_when_it_is_over_in_the_archives() -> None:
    """That is, once an hour of the next is archived."""
    midnight = ms(2025, 5, 20)
    hours = [archived(number, number, midnight + (number + 1) * MS_PER_HOUR) for number in range(24)]
    now_us = (midnight + 8 * MS_PER_DAY - MS_PER_HOUR) * 1_000
    assert plan(known_of(hours), DEFAULTS, now_us, Job.COMPACT) == ()
    next_day = archived(24, 24, midnight + 25 * MS_PER_HOUR)
    [step] = plan(known_of([*hours, next_day]), DEFAULTS, now_us, Job.COMPACT)
    assert (step.period, step.grain, step.tier, len(step.paths)) == ("2025-05-20", Grain.DAILY, Tier.HISTORICAL, 24)
    assert (step.entries, step.rows, step.size_bytes, step.reads) == (240, 240, 24_000, 0.0)
    assert step.what == "join 24 files to one of 2025-05-20"
    assert step.why == "2025-05-20 is over, and so far in 24 files"


def test_the_last_day_of_a_silent_partition_is_over_when_it_is_old_and_all_of_it_archived() -> None:
    """Nothing comes after it."""
    midnight = ms(2025, 5, 20)
    files = [archived(number, number, midnight + (number + 1) * MS_PER_HOUR) for number in range(2)]
    rest = hot(2, midnight + 3 * MS_PER_HOUR)
    now_us = (midnight + 8 * MS_PER_DAY) * 1_000
    assert plan(known_of(files), DEFAULTS, now_us - 1, Job.COMPACT) == ()
    assert len(plan(known_of(files), DEFAULTS, now_us, Job.COMPACT)) == 1
    assert plan(known_of(files, [rest]), DEFAULTS, now_us, Job.COMPACT) == ()
    assert (
        len(plan(known_of(files, [rest._replace(end_ms=midnight + 30 * MS_PER_HOUR)]), DEFAULTS, now_us, Job.COMPACT))
        == 1
    )


def test_files_are_joined_as_far_as_the_limit_goes_and_never_across_tiers() -> None:
    """Neighbours only; a file as large as the limit stays as it is."""
    midnight = ms(2025, 5, 1)
    sizes = [6, 4, 5, 5, 1, 9, 9]
    files = [
        archived(number, number, midnight + (number + 1) * MS_PER_HOUR, size_bytes=size * 2**20)
        for number, size in enumerate(sizes)
    ]
    limited = rules(file_bytes_max=10 * 2**20)
    steps = plan(known_of(files), limited, NOW_US, Job.COMPACT)
    assert [(step.first_index, step.last_index) for step in steps] == [(1, 20), (21, 40), (41, 60)]
    files[1] = files[1]._replace(tier=Tier.DEEP)
    steps = plan(known_of(files), limited, NOW_US, Job.COMPACT)
    assert [(step.first_index, step.last_index) for step in steps] == [(21, 40), (41, 60)]


def test_a_file_alone_in_its_period_becomes_that_period_s_and_one_that_is_it_is_left_alone() -> None:
    """As is one of a longer period, made under other rules."""
    end = ms(2025, 3, 10)
    [step] = plan(known_of([archived(0, 0, end, Grain.DAILY)]), DEFAULTS, NOW_US, Job.COMPACT)
    assert (step.what, step.grain) == ("make one file that of 2025-03", Grain.MONTHLY)
    assert step.why == "2025-03 is over, and this daily file is all there is of it"
    assert plan(known_of([archived(0, 0, end, Grain.MONTHLY)]), DEFAULTS, NOW_US, Job.COMPACT) == ()
    assert plan(known_of([archived(0, 0, end, Grain.YEARLY)]), DEFAULTS, NOW_US, Job.COMPACT) == ()


def test_an_hour_leaves_when_it_is_archived_and_little_read_and_comes_back_when_it_is_much_read() -> None:
    """One read keeps it, two bring it back."""
    end = NOW_MS - 7 * MS_PER_DAY
    written_us, half_life_us = end * 1_000, DEFAULTS.ageing.half_life_us
    file, hour = archived(0, 0, end, moved_us=NOW_US), hot(0, end)
    assert plan(known_of([], [hour]), DEFAULTS, NOW_US + 1, Job.DEMOTE) == ()
    assert plan(known_of([file], [hour]), DEFAULTS, NOW_US, Job.DEMOTE) == ()
    later = NOW_US + US_PER_HOUR
    [step] = plan(known_of([file], [hour]), DEFAULTS, later, Job.DEMOTE)
    assert step.what == "drop the hour 2025-05-25-11 from the hot tier"
    assert step.why == "it is archived, and its entropy of 8.05 bits is above 8 (limit_bits)"
    assert (step.reads, step.size_bytes, step.paths) == (0.0, 1_000, ())
    for moved_us, count in ((later - 24 * US_PER_HOUR, 1), (later - 24 * US_PER_HOUR + 1, 0)):
        assert len(plan(known_of([file], [hour._replace(moved_us=moved_us)]), DEFAULTS, later, Job.DEMOTE)) == count
    once = after_read(COLD, written_us, NOW_US, half_life_us)
    assert plan(known_of([file], [hour._replace(heat=once)]), DEFAULTS, later, Job.DEMOTE) == ()
    gone = hour._replace(held=False, heat=once)
    assert plan(known_of([file], [gone]), DEFAULTS, later, Job.PROMOTE) == ()
    twice = gone._replace(heat=after_read(once, written_us, NOW_US, half_life_us))
    [step] = plan(known_of([file], [twice]), DEFAULTS, NOW_US, Job.PROMOTE)
    assert step.what == "bring the hour 2025-05-25-11 back to the hot tier"
    assert step.why == ("its entropy of -1.00 bits is below 0 (limit_bits - hysteresis_bits), of 2.0 reads")
    assert (step.tier, step.reads) == (Tier.RECENT, 0.0)


def test_the_rest_of_an_hour_of_which_a_part_came_back_is_due() -> None:
    """By the rule that brought the part back; else it waits, or leaves again with the part."""
    end = NOW_MS - 7 * MS_PER_DAY
    written_us, half_life_us = end * 1_000, DEFAULTS.ageing.half_life_us
    file, part = archived(0, 0, end), hot(0, end, in_part=True)
    later = NOW_US + US_PER_HOUR
    [step] = plan(known_of([file], [part]), DEFAULTS, later)
    assert step.job is Job.DEMOTE
    once = after_read(COLD, written_us, NOW_US, half_life_us)
    assert plan(known_of([file], [part._replace(heat=once)]), DEFAULTS, later) == ()
    twice = part._replace(heat=after_read(once, written_us, NOW_US, half_life_us))
    [step] = plan(known_of([file], [twice]), DEFAULTS, NOW_US)
    assert (step.job, step.what) == (Job.PROMOTE, "bring the hour 2025-05-25-11 back to the hot tier")
    assert plan(known_of([file], [twice._replace(in_part=False)]), DEFAULTS, NOW_US) == ()


def test_files_become_deep_by_age_and_the_reads_that_this_slows_are_told() -> None:
    """Those of hours in the hot tier are not slowed."""
    end = ms(2022, 1, 1)
    files = [archived(0, 1, end, Grain.YEARLY), archived(2, 2, NOW_MS - 9 * MS_PER_DAY, Grain.DAILY)]
    heat = after_read(COLD, end * 1_000, NOW_US, DEFAULTS.ageing.half_life_us)
    hours = [hot(0, end - MS_PER_HOUR, held=False), hot(1, end, held=False, heat=heat)]
    [step] = plan(known_of(files, hours), DEFAULTS, NOW_US, Job.DEMOTE)
    assert (step.what, step.tier, step.grain) == ("move the file of 2021 to deep", Tier.DEEP, Grain.YEARLY)
    assert step.why == "2021 ended 1,247.5 days ago, and is deep from 1096 days (deep_days) on"
    assert step.reads == pytest.approx(1.0)
    held = [hour._replace(held=True, moved_us=NOW_US) for hour in hours]
    assert plan(known_of(files, held), DEFAULTS, NOW_US, Job.DEMOTE)[0].reads == 0.0
    files[0] = files[0]._replace(tier=Tier.DEEP)
    assert plan(known_of(files, hours), DEFAULTS, NOW_US, Job.DEMOTE) == ()


def test_files_beyond_what_is_kept_go_from_the_beginning_once_they_are_proved_but_never_the_last() -> None:
    """More than so many days after their end."""
    files, kept = days(20), rules(archives_days=20)
    assert plan(known_of(files), DEFAULTS, NOW_US, Job.PRUNE) == ()
    steps = plan(known_of(files), kept, NOW_US, Job.PRUNE)
    assert [step.paths for step in steps] == [(file.path,) for file in files[:7]]
    assert steps[0].what == "delete the file of 2025-05-05"
    assert steps[0].why == "2025-05-05 ended 26.5 days ago, and is kept for 20 days (archives_days)"
    assert plan(known_of(files, proved=False), kept, NOW_US, Job.PRUNE) == ()
    unproved = known_of(files)
    unproved = replace(unproved, proofs={path: at for path, at in unproved.proofs.items() if path != files[3].path})
    assert len(plan(unproved, kept, NOW_US, Job.PRUNE)) == 3
    far = NOW_US + 1_000 * 24 * US_PER_HOUR
    assert len(plan(known_of(files), kept, far, Job.PRUNE)) == 19


def test_the_hot_tier_gives_up_what_is_pruned_however_much_it_is_read() -> None:
    """But nothing whose archive is missing for any other reason."""
    ends = [NOW_MS - 30 * MS_PER_DAY, NOW_MS - 9 * MS_PER_DAY]
    hour = hot(0, ends[0], heat=100.0)
    kept = rules(archives_days=20)
    [step] = plan(known_of([archived(1, 1, ends[1], Grain.DAILY)], [hour]), kept, NOW_US, Job.DEMOTE)
    assert step.why == "its archive is pruned, beyond 20 days (archives_days)"
    assert plan(known_of([archived(1, 1, ends[1], Grain.DAILY)], [hour]), DEFAULTS, NOW_US, Job.DEMOTE) == ()
    assert plan(known_of([archived(0, 1, ends[1], Grain.DAILY)], [hour]), kept, NOW_US, Job.DEMOTE) == ()
    for files in ([archived(1, 1, ends[1], Grain.DAILY)], [archived(0, 1, ends[1], Grain.DAILY)]):
        assert plan(known_of(files, [hour._replace(held=False)]), kept, NOW_US, Job.PROMOTE) == ()


def test_the_ledger_is_cut_before_what_is_proved_less_what_is_kept_and_needed() -> None:
    """Never the last entry, never across a gap, nothing by a proof of what stood there before."""
    files = days(20)
    [step] = plan(known_of(files), DEFAULTS, NOW_US, Job.CUT)
    assert (step.first_index, step.last_index, step.rows, step.size_bytes) == (1, 130, 130, 13_000)
    assert step.what == "cut the ledger before entry 131"
    assert step.why == (
        "archives are proved to entry 200; the ledger keeps 168 hours of that (ledger_keep_hours), and all from entry "
        "211 on is needed"
    )

    def cut(known: Known, **given: Any) -> list[tuple[int, int]]:
        return [(step.first_index, step.last_index) for step in plan(known, rules(**given), NOW_US, Job.CUT)]

    assert cut(known_of(files), ledger="keep") == []
    assert cut(known_of(files), ledger_keep_hours=0) == [(1, 200)]
    assert cut(known_of(files, last_index=200), ledger_keep_hours=0) == [(1, 199)]
    assert cut(known_of(files, oldest_needed_index=55)) == [(1, 54)]
    assert cut(known_of(files, oldest_needed_index=1)) == []
    assert cut(known_of(files, first_index=130)) == [(130, 130)]
    assert cut(known_of(files, first_index=131)) == []
    assert cut(known_of(files, proved=False)) == []
    assert cut(known_of(files[2:])) == []
    assert cut(known_of(files[2:], first_index=21)) == [(21, 130)]
    assert cut(known_of(files[2:], pruned_index=20)) == [(1, 130)]
    assert cut(known_of(files[2:], proved=False, pruned_index=20)) == [(1, 20)]
    assert cut(replace(known_of(files), ledgers={})) == []
    early = known_of(files)
    early = replace(early, proofs={**early.proofs, files[10].path: files[10].moved_us - 1})
    assert cut(early) == [(1, 30)]


def test_no_cut_rests_on_a_file_that_is_about_to_be_another() -> None:
    """However well it is proved."""
    files = days(60)
    joined = [path for step in plan(known_of(files), DEFAULTS, NOW_US, Job.COMPACT) for path in step.paths]
    assert files[0].path in joined
    assert plan(known_of(files), DEFAULTS, NOW_US, Job.CUT) == ()


def test_no_plan_proves_files_that_nobody_asked_to_prove() -> None:
    """However old they, or their proofs, are: nothing keeps when a file was proved."""
    files = days(3)
    old = replace(known_of(files), proofs={file.path: file.moved_us for file in files})
    for known in (known_of(files, proved=False), old):
        for later in (0, 1_000 * 24 * US_PER_HOUR):
            assert not {step.job for step in plan(known, DEFAULTS, NOW_US + later)} - {Job.COMPACT, Job.DEMOTE, Job.CUT}
            assert plan(known, DEFAULTS, NOW_US + later, Job.VERIFY) == ()
    assert of_files(Job.VERIFY, files[:1], "").what == f"prove the file of {files[0].period}"


def test_equal_input_has_an_equal_plan_and_each_job_its_part_of_it() -> None:
    """In whatever order mappings are."""
    parts = {}
    for partition in (2, 0, 1):
        parts[partition] = tuple(
            file._replace(path=f"{partition}/{file.path}", facts=file.facts._replace(partition=partition))
            for file in days(90)
        )
    one = Known(Tree(1, parts), {}, {partition: Ledger(1, 10_000, 10_001) for partition in parts})
    other = Known(Tree(1, dict(sorted(parts.items()))), {}, dict(sorted(one.ledgers.items())))
    steps = plan(one, rules(archives_days=40), NOW_US)
    assert steps == plan(other, rules(archives_days=40), NOW_US)
    by_job = [plan(one, rules(archives_days=40), NOW_US, job) for job in Job]
    assert steps == tuple(step for part in by_job for step in part)
    assert [step.partition for step in by_job[1]] == sorted(step.partition for step in by_job[1])


def test_entries_of_any_instant_are_planned_for() -> None:
    """At any time."""
    ends = (-(2**63), 2**63 - 1)
    for at_ms in ends:
        facts = archived(0, 0, 0).facts._replace(authority_ms_min=at_ms, authority_ms_max=at_ms)
        file = archived(0, 0, 0)._replace(facts=facts)
        hours = [hot(0, bounds_of(at_ms, Grain.HOURLY)[1], heat=1e9), hot(1, at_ms)]
        for now_us in (*ends, NOW_US):
            for held in (False, True):
                known = known_of([file, archived(1, 1, 0)], [hour._replace(held=held) for hour in hours])
                for step in plan(known, rules(archives_days=2_000), now_us):
                    assert step.what
