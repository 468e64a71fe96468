"""A ledger of some years as the page is told of it, by the default rules: what photographs of its tiers show.

Problem: a ledger that was begun two minutes ago has nothing in an archive, and time cannot be had faster from a broker.
So days are invented here, each of which is sealed, joined, and moved when the rules say so; what is made of their
commits is the page's own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from lifecycle.ageing import COLD, after_read
from lifecycle.archive_facts import Facts
from lifecycle.job_record import Did, Heard, Job, Progress, State
from lifecycle.lifecycle_page import Lifecycle
from lifecycle.manifest import Commit, Move, Segment
from lifecycle.rules import parse
from lifecycle.run_view import Runs
from lifecycle.steps import HotHour
from lifecycle.tier_files import TierFiles
from lifecycle.tier_view import Away, Hot, view_of
from lifecycle.tiers import MS_PER_DAY, MS_PER_HOUR, Grain, Tier, bounds_of, period_of

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTITIONS: Final = 4
DAYS: Final = 1_500
_RULES: Final = parse({})
_US_PER_MS: Final = 1_000
_MINUTE_MS: Final = 60_000
_ROWS_PER_HOUR: Final = 88_000
#: Hours that are older came back from the archive.
_BACK_FROM: Final = 400
_ARCHIVE_ROW_BYTES: Final = 27
_HOT_ROW_BYTES: Final = 31


def years(now_ms: int) -> Lifecycle:
    """All that is known of such a ledger then."""
    files, runs = _Years(now_ms).lived(), Runs()
    for heard in _runs(now_ms):
        runs.apply(heard)
    view = view_of(files, _hot(now_ms), _RULES, now_ms - now_ms % _MINUTE_MS, PARTITIONS)
    jobs, newest = tuple(runs.jobs(now_ms)), tuple(runs.newest(now_ms))
    return Lifecycle(view, view.facts(), jobs, newest, True, files.commit)  # noqa: FBT003 - runs that are not kept


class _Years:
    """Commits as jobs would have made them, one day after the other."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms, self._files = now_ms, TierFiles()

    def lived(self) -> TierFiles:
        """The files that there are then."""
        ages = _RULES.ages
        begin_ms = self._now_ms - self._now_ms % MS_PER_DAY - DAYS * MS_PER_DAY
        parts: list[list[Segment]] = [[] for _ in range(PARTITIONS)]
        for day in range(DAYS - ages.recent_days):
            start_ms = begin_ms + day * MS_PER_DAY
            at_ms = start_ms + (1 + ages.recent_days) * MS_PER_DAY
            for partition, there in enumerate(parts):
                hours = [_segment(partition, Grain.HOURLY, start_ms + n * MS_PER_HOUR) for n in range(24)]
                self._commit(Move.SEAL, at_ms, hours, [])
                there.append(_joined(Grain.DAILY, hours))
                self._commit(Move.COMPACT, at_ms, there[-1:], hours)
                self._join(there, Grain.MONTHLY, ages.monthly_days, at_ms)
                self._join(there, Grain.YEARLY, ages.yearly_days, at_ms)
                self._deepen(there, at_ms)
        return self._files

    def _join(self, there: list[Segment], grain: Grain, days: int, at_ms: int) -> None:
        """Those of a period that is over and old enough."""
        shorter = list(Grain)[list(Grain).index(grain) - 1]
        first = next((n for n, one in enumerate(there) if one.grain is shorter), None)
        if first is None:
            return
        _, end_ms = bounds_of(there[first].facts.authority_ms_max, grain)
        if at_ms - end_ms < days * MS_PER_DAY:
            return
        some = [one for one in there[first:] if one.facts.authority_ms_max < end_ms]
        there[first : first + len(some)] = [_joined(grain, some)]
        self._commit(Move.COMPACT, at_ms, there[first : first + 1], some)

    def _deepen(self, there: list[Segment], at_ms: int) -> None:
        for number, one in enumerate(there):
            _, end_ms = bounds_of(one.facts.authority_ms_max, one.grain)
            if one.tier is Tier.HISTORICAL and at_ms - end_ms >= (_RULES.ages.deep_days or 0) * MS_PER_DAY:
                there[number] = one._replace(tier=Tier.DEEP, path=f"deep/{one.path}")
                self._commit(Move.DEMOTE, at_ms, [there[number]], [one])

    def _commit(self, move: Move, at_ms: int, adds: Sequence[Segment], drops: Sequence[Segment]) -> None:
        number, partition = self._files.commit + 1, adds[0].facts.partition
        paths = tuple(one.path for one in drops)
        self._files.apply(Commit(number, move, "a-run", partition, at_ms * _US_PER_MS, tuple(adds), paths))


def _segment(partition: int, grain: Grain, start_ms: int) -> Segment:
    """A file of an hour; by day there is more than by night."""
    hour = start_ms // MS_PER_HOUR % 24
    rows = round(_ROWS_PER_HOUR * (1 + 0.4 * math.sin(math.pi * (hour - 6) / 12)) * (1 + partition / 4))
    return _file(partition, grain, start_ms, start_ms + MS_PER_HOUR - 1, rows)


def _joined(grain: Grain, some: Sequence[Segment]) -> Segment:
    first, last = some[0].facts, some[-1].facts
    rows = sum(one.facts.rows for one in some)
    return _file(first.partition, grain, first.authority_ms_min, last.authority_ms_max, rows)


def _file(partition: int, grain: Grain, first_ms: int, last_ms: int, rows: int) -> Segment:
    facts = Facts(partition, 1, rows, 1, rows, 0, 0, 0, 0, first_ms, last_ms, first_ms, "", "", "", (), "", "")
    period = period_of(first_ms, grain)
    path, size_bytes = f"{grain}/{period}/{partition}", rows * _ARCHIVE_ROW_BYTES
    return Segment(path, Tier.HISTORICAL, grain, period, size_bytes, "", "", {}, 0, facts)


def _hot(now_ms: int) -> Hot:
    """A week of hours, of which a morning is asked for each day, and what came back of last month."""
    hours, away = [], []
    last_ms = now_ms - now_ms % MS_PER_HOUR + MS_PER_HOUR
    for partition in range(PARTITIONS):
        for ago in (*range(7 * 24), *range(430, 434)):
            end_ms = last_ms - ago * MS_PER_HOUR
            reads = 24 if ago > _BACK_FROM else 2 if end_ms // MS_PER_HOUR % 24 in (8, 9) else 0
            rows = _ROWS_PER_HOUR + 1_000 * partition
            came_us = end_ms * _US_PER_MS if ago < _BACK_FROM else (now_ms - 30 * MS_PER_HOUR) * _US_PER_MS
            period = period_of(end_ms - MS_PER_HOUR, Grain.HOURLY)
            hours.append(
                HotHour(
                    partition, period, 1, rows, 1, rows, rows, rows * _HOT_ROW_BYTES, True, end_ms,  # noqa: FBT003
                    _heat(end_ms, reads, now_ms), came_us,
                )
            )  # fmt: skip
        for ago in range(7 * 24, 10 * 24):
            end_ms = last_ms - ago * MS_PER_HOUR
            left_us = (end_ms + 7 * MS_PER_DAY) * _US_PER_MS
            away.append(Away(end_ms, _heat(end_ms, int(ago % 24 == 0), end_ms + 8 * MS_PER_DAY), left_us))
    return Hot(hours, away)


def _heat(end_ms: int, reads: int, now_ms: int) -> float:
    """Of one that was read so often, some hours ago."""
    heat = COLD
    for number in range(reads):
        read_us = (now_ms - (number + 1) * 2 * MS_PER_HOUR) * _US_PER_MS
        heat = after_read(heat, end_ms * _US_PER_MS, read_us, _RULES.ageing.half_life_us)
    return heat


def _runs(now_ms: int) -> list[Heard]:
    """Of two days, and one that goes on."""
    found: list[Heard] = []
    for minutes in range(2 * 24 * 60, 0, -60):
        hour = (now_ms - minutes * _MINUTE_MS) // MS_PER_HOUR % 24
        found.append(_run(now_ms, minutes, "seal", _ROWS_PER_HOUR * 5, added=PARTITIONS))
        if hour == 0:
            found.append(_run(now_ms, minutes - 1, "compact", 24 * _ROWS_PER_HOUR * 5, added=4, dropped=96))
            found.append(_run(now_ms, minutes - 2, "demote", 30 * 24 * _ROWS_PER_HOUR * 5, added=4, dropped=4))
    failed = _run(now_ms, 190, "verify", 3 * _ROWS_PER_HOUR)
    why = "UnreachableError: Kafka at broker-1:9092 did not answer: Local: Timed out. Is it up?"
    found.append(failed._replace(job=failed.job._replace(state=State.FAILED, error=why)))
    going = _run(now_ms, 2, "verify", 86_000_000)
    progress = Progress(86_000_000, 136_000_000, "rows")
    going = going._replace(appended_ms=now_ms - 900)
    found.append(going._replace(job=going.job._replace(state=State.RUNNING, ended_us=None, progress=progress)))
    return sorted(found, key=lambda heard: heard.job.started_us)


def _run(now_ms: int, minutes: int, job: str, rows: int, added: int = 0, dropped: int = 0) -> Heard:
    at_us = (now_ms - minutes * _MINUTE_MS) * _US_PER_MS
    took_us = rows * 3 // 5 + 400_000
    did = Did(rows, rows * _HOT_ROW_BYTES, rows * _ARCHIVE_ROW_BYTES if added else 0, added, dropped, added)
    run = Job(
        f"{job}-{minutes}", job, State.DONE, "ledger-1", 4711, at_us + took_us, at_us, at_us + took_us,
        progress=Progress(rows, rows, "rows"), did=did,
    )  # fmt: skip
    return Heard(0, (at_us + took_us) // _US_PER_MS, run)
