"""What the jobs of the lifecycle are to do: a pure function of what is there, the rules and the time.

Problem: operators trust a job that says beforehand what it will do and why, and that does it, whatever dies meanwhile.
So what is to be done is decided here, with nothing at hand but numbers; whoever acts does one step after another.

    seal       hours that are old enough become an archive each, from where the archives end, without a gap
    compact    the files of a period that is over become one, as far as file_bytes_max goes
    demote     hours that are archived and little read leave the hot tier; files that are old enough become deep
    promote    hours that are much read come back from the archives, as does the rest of one whose return was cut off
    prune      files beyond what is kept go, from the beginning
    cut        the ledger is cut before what is archived and proved, less what the rules, and snapshots, need of it

verify, reindex and restore are in no plan: they are done when somebody asks, of all files (`jobs`).

GUARANTEE the same input has the same plan.
GUARANTEE a step rests on what is committed, and no two steps of a plan take the same file or give up the same hour. So
what is done of a plan and in which order is of no matter, but within a job and partition, where a step that was not
done ends those that follow. Who acts on an older tree plans anew.
GUARANTEE what a plan prunes, and what it cuts from the ledger, is proved since it was committed. A cut also takes what
was pruned before, which was proved then.
GUARANTEE where all steps of plans are done, and no time passes, plans end. An hour moves once in `stay_hours` at most.
Where its return was cut off, the rest is of the same move.
HAZARD a partition whose broker's clock goes back behind an hour that is sealed, while nothing else came since, has more
of that hour: this becomes a file of its own, joined with the rest of its day.
"""

from __future__ import annotations

import bisect
from functools import cached_property
from itertools import groupby, takewhile
from typing import TYPE_CHECKING, Final

from lifecycle import ageing
from lifecycle.rules import LedgerRetention
from lifecycle.steps import Job, Step, of_files, of_hour
from lifecycle.tiers import MS_PER_DAY, MS_PER_HOUR, Grain, Tier, bounds_of, due_grain, period_of, tier_at
from schemas.instants import US_PER_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lifecycle.manifest import Segment
    from lifecycle.rules import Configuration
    from lifecycle.steps import HotHour, Known

#: One join has so many files open at most; what is more is joined by the next plan.
FILES_MAX: Final = 366
_GRAINS: Final = tuple(Grain)


def plan(known: Known, rules: Configuration, now_us: int, only: Job | None = None) -> tuple[Step, ...]:
    """What is to be done now, by all jobs or only one, in an order in which it may be done.

    That is by job, partition and index. A job's plan is the same alone as with all.
    """
    partitions = sorted({*known.tree.parts, *known.hours, *known.ledgers})
    parts = [_Part(known, rules, now_us, partition) for partition in partitions]
    steps: list[Step] = []
    for job in Job if only is None else (only,):
        steps += [step for part in parts for step in part.steps(job)]
    return tuple(steps)


class _Part:
    """One partition's."""

    def __init__(self, known: Known, rules: Configuration, now_us: int, partition: int) -> None:
        self._rules, self._now_us, self._now_ms = rules, now_us, now_us // US_PER_MS
        self._partition, self._known_proofs = partition, known.proofs
        self._files = known.tree.parts.get(partition, ())
        #: The last entry that ever was in a file.
        self._end = known.tree.ends.get(partition)
        self._hours = known.hours.get(partition, ())
        self._ledger = known.ledgers.get(partition)

    def steps(self, job: Job) -> Iterable[Step]:
        """Those of a job, ascending."""
        match job:
            case Job.SEAL:
                return self._seals()
            case Job.COMPACT:
                return self._compactions
            case Job.DEMOTE:
                return (*self._departures(), *self._deepenings)
            case Job.PROMOTE:
                return self._returns()
            case Job.PRUNE:
                return self._prunes
            case Job.CUT:
                return self._cuts()
            case _:
                return ()

    # What becomes of hours.

    def _seals(self) -> Iterator[Step]:
        """From where the archives end, or the ledger begins, to the first hour that is too young or not there."""
        if self._ledger is None:
            return
        next_index = self._end.index + 1 if self._end else self._ledger.first_index
        sequence = self._end.sequence if self._end else None
        if next_index < self._ledger.first_index:
            return
        recent_ms = self._rules.ages.recent_days * MS_PER_DAY
        for hour in self._hours[self._archived_hours :]:
            age_ms = self._now_ms - hour.end_ms
            if age_ms < recent_ms or not hour.held or hour.first_index > next_index:
                return
            why = f"it ended {_days(age_ms)} ago, and is archived from {_days(recent_ms)} (recent_days) on"
            rows = hour.rows if sequence is None else hour.last_sequence - sequence
            step = of_hour(Job.SEAL, hour, Tier.HISTORICAL, 0.0, why)
            yield step._replace(first_index=next_index, rows=rows)
            next_index, sequence = hour.last_index + 1, hour.last_sequence

    def _departures(self) -> Iterator[Step]:
        """Hours whose rows leave the hot tier."""
        rules = self._rules.ageing
        for hour in self._hours[: self._archived_hours]:
            if not hour.held or self._now_us - hour.moved_us < rules.stay_us:
                continue
            entropy, reads = self._entropy(hour), self._reads(hour)
            if rules.leaves(entropy, hour.moved_us, self._now_us):
                why = f"it is archived, and its entropy of {entropy:.2f} bits is above {rules.limit:g} (limit_bits)"
                yield of_hour(Job.DEMOTE, hour, Tier.HISTORICAL, reads, why)
            elif self._is_beyond(hour.end_ms) and hour.last_index < self._files_from:
                why = f"its archive is pruned, beyond {self._rules.archives_days} days (archives_days)"
                yield of_hour(Job.DEMOTE, hour, Tier.HISTORICAL, reads, why)

    def _returns(self) -> Iterator[Step]:
        """Hours whose rows come back to it, or the rest of them. What is kept no longer does not."""
        rules = self._rules.ageing
        for hour in self._hours[: self._archived_hours]:
            is_back = hour.held and not hour.in_part
            if is_back or hour.first_index < self._files_from or self._is_beyond(hour.end_ms):
                continue
            entropy = self._entropy(hour)
            if rules.returns(entropy, hour.moved_us, self._now_us):
                least = rules.limit - rules.hysteresis
                why = (
                    f"its entropy of {entropy:.2f} bits is below {least:g} (limit_bits - hysteresis_bits), of "
                    f"{self._reads(hour):.1f} reads"
                )
                yield of_hour(Job.PROMOTE, hour, Tier.RECENT, 0.0, why)

    # What becomes of files.

    @cached_property
    def _compactions(self) -> tuple[Step, ...]:
        steps: list[Step] = []
        for (grain, period), group in groupby(self._files, self._due):
            files = list(group)
            if grain is None or not self._is_over(files[-1], grain):
                continue
            kept = [file for file in files if file.facts.first_index >= self._kept_from]
            for run in _runs(kept, self._rules.file_bytes_max):
                if len(run) > 1:
                    why = f"{period} is over, and so far in {len(files)} files"
                elif len(files) == 1 and run[0].grain is not grain:
                    why = f"{period} is over, and this {run[0].grain} file is all there is of it"
                else:
                    continue
                steps.append(of_files(Job.COMPACT, run, why)._replace(period=period, grain=grain))
        return tuple(steps)

    @cached_property
    def _deepenings(self) -> tuple[Step, ...]:
        """Files that become deep, unless they are about to become others."""
        taken = {path for step in self._compactions for path in step.paths}
        steps: list[Step] = []
        for file, end_ms in zip(self._files[self._beyond :], self._ends_ms[self._beyond :], strict=True):
            if file.tier is Tier.DEEP or file.path in taken:
                continue
            if tier_at(end_ms, self._now_ms, self._rules.ages) is Tier.DEEP:
                age = _days(self._now_ms - end_ms)
                why = (
                    f"{file.period} ended {age} ago, and is deep from {self._rules.ages.deep_days} days (deep_days) on"
                )
                steps.append(of_files(Job.DEMOTE, [file], why, self._reads_of(file))._replace(tier=Tier.DEEP))
        return tuple(steps)

    @cached_property
    def _prunes(self) -> tuple[Step, ...]:
        steps: list[Step] = []
        for file, end_ms in zip(self._files[: self._beyond], self._ends_ms, strict=False):
            if not self._is_proved(file):
                break
            age = _days(self._now_ms - end_ms)
            why = f"{file.period} ended {age} ago, and is kept for {self._rules.archives_days} days (archives_days)"
            steps.append(of_files(Job.PRUNE, [file], why, self._reads_of(file)))
        return tuple(steps)

    # What becomes of the ledger.

    def _cuts(self) -> Iterator[Step]:
        ledger, keep_hours = self._ledger, self._rules.ledger_keep_hours
        if ledger is None or self._rules.ledger is LedgerRetention.KEEP:
            return
        proved = self._proved_from(max(ledger.first_index, ledger.pruned_index + 1))
        last = ledger.pruned_index
        if proved:
            until_ms = _at_ms(proved[-1]) - keep_hours * MS_PER_HOUR
            last = max([last, *(file.facts.last_index for file in proved if _at_ms(file) <= until_ms)])
        last = min(last, ledger.oldest_needed_index - 1, ledger.last_index - 1)
        if last < ledger.first_index:
            return
        upto = proved[-1].facts.last_index if proved else ledger.pruned_index
        why = (
            f"archives are proved to entry {upto}; the ledger keeps {keep_hours} hours of that (ledger_keep_hours), "
            f"and all from entry {ledger.oldest_needed_index} on is needed"
        )
        whole = [file for file in proved if file.facts.first_index >= ledger.first_index]
        whole = [file for file in whole if file.facts.last_index <= last]
        rows, size_bytes = sum(file.facts.rows for file in whole), sum(file.size_bytes for file in whole)
        first = ledger.first_index
        yield Step(Job.CUT, self._partition, "", Tier.RECENT, None, (), first, last, rows, size_bytes, 0.0, why)

    def _proved_from(self, index: int) -> Sequence[Segment]:
        """Files with an entry and those after it, without a gap: proved, and about to stay as they are or to go."""
        taken = {path for step in (*self._compactions, *self._deepenings) for path in step.paths}
        first = bisect.bisect_left(self._files, index, key=lambda file: file.facts.last_index)
        if first == len(self._files) or self._files[first].facts.first_index > index:
            return ()
        return list(takewhile(lambda file: file.path not in taken and self._is_proved(file), self._files[first:]))

    # What is asked of files and hours.

    @cached_property
    def _archived_hours(self) -> int:
        """How many of the hours are in archives as a whole, or were."""
        return bisect.bisect(self._hour_indexes[1], self._end.index) if self._end else 0

    @cached_property
    def _files_from(self) -> int:
        """The first entry that is in a file, or will be next."""
        if self._files:
            return self._files[0].facts.first_index
        return self._end.index + 1 if self._end else 1

    @cached_property
    def _ends_ms(self) -> list[int]:
        """Of the periods of files."""
        return [bounds_of(_at_ms(file), file.grain)[1] for file in self._files]

    @cached_property
    def _beyond(self) -> int:
        """How many files, from the first on, are kept no longer; never all."""
        return sum(1 for _ in takewhile(self._is_beyond, self._ends_ms[:-1]))

    @property
    def _kept_from(self) -> int:
        """The first entry whose archive is kept."""
        return self._files[self._beyond].facts.first_index

    @cached_property
    def _hour_indexes(self) -> tuple[list[int], list[int]]:
        """First and last of all hours."""
        return [hour.first_index for hour in self._hours], [hour.last_index for hour in self._hours]

    def _is_beyond(self, end_ms: int) -> bool:
        days = self._rules.archives_days
        return days is not None and self._now_ms - end_ms > days * MS_PER_DAY

    def _is_proved(self, file: Segment) -> bool:
        proved_us = self._known_proofs.get(file.path)
        return proved_us is not None and proved_us >= file.moved_us

    def _due(self, file: Segment) -> tuple[Grain | None, str]:
        """The longest kind of period that a file is due to be of, and which; none where it is of a longer one."""
        at_ms = _at_ms(file)
        grain = due_grain(at_ms, self._now_ms, self._rules.ages)
        if _GRAINS.index(file.grain) > _GRAINS.index(grain):
            return None, file.path
        return grain, period_of(at_ms, grain)

    def _is_over(self, file: Segment, grain: Grain) -> bool:
        """Whether the period that a file is in has come to its end in the archives: nothing of it is sealed later."""
        end_ms = bounds_of(_at_ms(file), grain)[1]
        if _at_ms(self._files[-1]) >= end_ms:
            return True
        if self._now_ms - end_ms < self._rules.ages.recent_days * MS_PER_DAY:
            return False
        behind = self._hours[self._archived_hours : self._archived_hours + 1]
        return not behind or behind[0].end_ms > end_ms

    def _entropy(self, hour: HotHour) -> float:
        return ageing.entropy(hour.end_ms * US_PER_MS, hour.heat, self._now_us, self._rules.ageing.half_life_us)

    def _reads(self, hour: HotHour) -> float:
        return ageing.reads(hour.end_ms * US_PER_MS, hour.heat, self._now_us, self._rules.ageing.half_life_us)

    def _reads_of(self, file: Segment) -> float:
        """Of the hours in a file that are not in the hot tier."""
        firsts, lasts = self._hour_indexes
        first, behind = bisect.bisect_left(firsts, file.facts.first_index), bisect.bisect(lasts, file.facts.last_index)
        return sum(self._reads(hour) for hour in self._hours[first:behind] if not hour.held)


def _runs(files: Sequence[Segment], bytes_max: int) -> Iterator[list[Segment]]:
    """Neighbours of one tier that fit in one file."""
    run: list[Segment] = []
    size_bytes = 0
    for file in files:
        fits = size_bytes + file.size_bytes <= bytes_max and len(run) < FILES_MAX
        if run and not (fits and file.tier is run[-1].tier):
            yield run
            run, size_bytes = [], 0
        run.append(file)
        size_bytes += file.size_bytes
    if run:
        yield run


def _at_ms(file: Segment) -> int:
    """The running maximum of authority time at its end, which is in its period."""
    return max(file.facts.order_ms, file.facts.authority_ms_max)


def _days(ms: int) -> str:
    """For people."""
    return f"{ms / MS_PER_DAY:,.1f} days"
