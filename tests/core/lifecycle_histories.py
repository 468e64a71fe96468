"""Invented ledgers as a page is told of them: files of years, hours that are hot, runs of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lifecycle.ageing import COLD, after_read
from lifecycle.job_record import Did, Heard, Job, Progress, State
from lifecycle.lifecycle_page import Lifecycle
from lifecycle.rules import parse
from lifecycle.run_view import Runs
from lifecycle.steps import HotHour
from lifecycle.tier_files import File, TierFiles
from lifecycle.tier_view import Away, Hot, view_of
from lifecycle.tiers import MS_PER_DAY, MS_PER_HOUR, Grain, Tier, bounds_of, period_of, tier_at

if TYPE_CHECKING:
    from collections.abc import Sequence

RULES = parse({})
NOW_MS = 1_795_464_000_000
ROWS = 1_000


def files_of(count: int, partitions: int, *, now_ms: int = NOW_MS) -> TierFiles:
    """So many files of days, months and years, back from a week ago; each partition has as many."""
    files = TierFiles()
    for partition in range(partitions):
        end_ms = now_ms - now_ms % MS_PER_DAY - 7 * MS_PER_DAY
        for number in range(count // partitions):
            grain = Grain.DAILY if number < 31 else Grain.MONTHLY if number < 43 else Grain.YEARLY
            if count > 1_000:
                grain = Grain.DAILY
            start_ms, _ = bounds_of(end_ms - 1, grain)
            tier = max(Tier.HISTORICAL, tier_at(end_ms, now_ms, RULES.ages), key=list(Tier).index)
            files.files[f"{partition}/{number}"] = File(
                partition, tier, grain, start_ms, end_ms, start_ms, end_ms - 1, number * ROWS, number * ROWS + 99,
                ROWS, 26 * ROWS,
            )  # fmt: skip
            end_ms = start_ms
    files.commit = count
    return files


def hour_of(partition: int, hours_ago: int, reads: int = 0, *, now_ms: int = NOW_MS) -> HotHour:
    """One that is hot, of which rows were read so often a moment ago."""
    end_ms = now_ms - now_ms % MS_PER_HOUR - hours_ago * MS_PER_HOUR
    heat = COLD
    for _ in range(reads):
        heat = after_read(heat, end_ms * 1_000, now_ms * 1_000, RULES.ageing.half_life_us)
    period = period_of(end_ms - MS_PER_HOUR, Grain.HOURLY)
    return HotHour(partition, period, 1, ROWS, 1, ROWS, ROWS, 40 * ROWS, True, end_ms, heat, end_ms * 1_000)  # noqa: FBT003


def hot_of(partitions: int, hours: int = 168, *, now_ms: int = NOW_MS) -> Hot:
    """So many of each, some of them read; and two that are away."""
    held = [hour_of(p, n, 3 if n % 50 == 49 else 0, now_ms=now_ms) for p in range(partitions) for n in range(hours)]
    away = [hour_of(0, hours + 30 + n, n, now_ms=now_ms) for n in range(4)]
    left = [Away(hour.end_ms, hour.heat, (hour.end_ms + 8 * MS_PER_DAY) * 1_000) for hour in away]
    return Hot(held, left)


def run_of(
    number: int, state: State = State.DONE, job: str = "seal", *, now_ms: int = NOW_MS, **changed: object
) -> Heard:
    """The last record of a run that began so many minutes ago."""
    at_us = (now_ms - number * 60_000) * 1_000
    ended = None if state in (State.RUNNING, State.PLANNED) else at_us + 2_500_000
    run = Job(
        f"run-{number:06d}", job, state, "a-host", 77, at_us, at_us, ended,
        progress=Progress(500 * ROWS, 1_000 * ROWS, "rows"),
        did=Did(rows=500 * ROWS, bytes_in=9_000_000, bytes_out=3_000_000, added=1, dropped=3, commits=1),
    )  # fmt: skip
    run = run._replace(**changed)  # type: ignore[arg-type]
    return Heard(1_000_000 - number, at_us // 1_000, run)


def known_of(
    files: TierFiles, hot: Hot, runs: Sequence[Heard] = (), *, partitions: int = 1, now_ms: int = NOW_MS
) -> Lifecycle:
    """All of it, as who follows a ledger tells it."""
    folded = Runs()
    for heard in runs:
        folded.apply(heard)
    tiers = view_of(files, hot, RULES, now_ms, partitions)
    jobs, newest = tuple(folded.jobs(now_ms)), tuple(folded.newest(now_ms))
    return Lifecycle(tiers, tiers.facts(), jobs, newest, folded.cut, files.commit)


class Told:
    """What follows a ledger, where a test says what is known."""

    def __init__(self, known: Lifecycle | None = None) -> None:
        self.known = known or Lifecycle()
        self.looks = 0

    def look(self, fresh_s: float) -> Lifecycle:
        """What is known."""
        assert fresh_s > 0
        self.looks += 1
        return self.known
