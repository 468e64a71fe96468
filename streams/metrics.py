"""Every metric there is, one line each. Labels are bounded: lanes, partitions, windows, tiers, never sources."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lifecycle.job_record import State
from schemas.columns import Fault
from schemas.instants import MS_PER_S, NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lifecycle.lifecycle_page import Lifecycle
    from streams.folds import Counted
    from streams.lane import Committed

REGISTRY = CollectorRegistry()

_BATCH_BUCKETS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
_SECONDS_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"driftledger_{name}", text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"driftledger_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"driftledger_{name}", text, labels, registry=REGISTRY, buckets=buckets)


EVENTS = _counter("events", "DATA entries committed", "lane")
ENTRIES = _counter("entries", "entries committed, DATA and CONTROL", "lane")
BATCH = _histogram("batch_entries", "entries in a transaction", _BATCH_BUCKETS, "lane")
TRANSACTION = _histogram("transaction_seconds", "from begin to the commit's answer", _SECONDS_BUCKETS, "lane")
LAG = _gauge("input_lag", "input offsets between the lane and the end of the input, read every 5 s", "partition")
LATE = _gauge("partitions_past_half_retention", "partitions whose next input record is older than half the retention")
SEVERITY = _counter("severity", "judged events by severity", "severity")
WARNED = _counter("drift_warnings", "events beyond the drift threshold")
DUPLICATES = _counter("duplicates", "events seen before with the same content")
CONFLICTS = _counter("conflicts", "events seen before with other content")
NOT_FINITE = _counter("not_finite", "events whose value is NaN or infinite")
DEAD = _counter("dead_letters", "dead letters written, by fault", "fault")
ALERTS = _counter("alerts", "records on the alerts topic")
EVICTED = _counter("evicted_sources", "sources forgotten because sources_max was reached")
RESULTS = _counter("window_results", "results of windows written, early ones among them", "window")
LATE_EVENTS = _counter("late_events", "events that came when a window of theirs was closed", "window")
AHEAD_EVENTS = _counter("ahead_events", "events too far ahead of authority time for a window", "window")
DOUBTFUL_EVENTS = _counter("doubtful_events", "events that a window left out for their source's clock", "window")
SUSPENDED = _counter("suspended_windows", "definitions suspended because they outgrew their bounds", "window")
# Not `suspended_windows`: a counter has its name without `_total`, too.
SUSPENDED_NOW = _gauge("suspended_partitions", "partitions in which a definition is suspended now", "window")
REFUSED = _counter("refused_windows", "DEFINITION entries of windows that could not be read, or were one too many")
LOCKED = _gauge("locks", "locks that are engaged: of the partition, and of sources in it", "partition")
REFUSED_LOCKS = _counter("refused_locks", "LOCK entries that were one too many, of no source, or of no use")
LANE_FAILURES = _counter("lane_failures", "times a lane was closed after an error", "lane")
HALTED = _gauge("halted_partitions", "partitions this worker holds halted")
LIVE = _gauge("live_lanes", "lanes this worker owns and serves")
TIER_SEGMENTS = _gauge("tier_segments", "hours of the hot tier here, or files of the archive", "tier", "store", "grain")
TIER_BYTES = _gauge("tier_bytes", "bytes of a tier: hot here, or of the archive", "tier", "store")
TIER_ROWS = _gauge("tier_rows", "DATA entries in a tier: hot here, or in the archive", "tier", "store")
TIER_AGE = _gauge("tier_oldest_seconds", "age of the oldest entry of a tier, of those that hold any", "tier", "store")
ENTROPY = _gauge("hot_entropy_bits", "greatest entropy of an hour that is hot here", "tier")
JOB_STATE = _gauge("job_last_state", "1 for the state of the last run of a job", "job", "state")
JOB_AGE = _gauge("job_last_seconds", "since the last run of a job was heard of", "job")
JOB_DONE_AGE = _gauge("job_done_seconds", "since a run of a job was done last", "job")
JOB_ROWS = _counter("job_rows", "rows of the steps that runs of a job did, of runs that this worker knows of", "job")


class _OfLane(NamedTuple):
    """The children of one lane: finding them by label costs more than counting."""

    events: Counter
    entries: Counter
    batch: Histogram
    transaction: Histogram


@cache
def _of_lane(lane: int) -> _OfLane:
    label = str(lane)
    return _OfLane(EVENTS.labels(label), ENTRIES.labels(label), BATCH.labels(label), TRANSACTION.labels(label))


#: Of each job what has been counted.
_job_rows: dict[str, int] = {}

_GREEN, _YELLOW, _RED = (SEVERITY.labels(severity) for severity in ("GREEN", "YELLOW", "RED"))


def observe(lane: int, committed: Sequence[Committed]) -> None:
    """Count transactions; each counter is raised once for all of them, for that costs more than adding up."""
    mine = _of_lane(lane)
    totals: defaultdict[Counter, int] = defaultdict(int)
    for one in committed:
        totals[mine.events] += one.events
        totals[mine.entries] += one.entries
        mine.batch.observe(one.entries)
        mine.transaction.observe(one.duration_ns / NS_PER_S)
        for counted in one.counted:
            _add_judged(totals, counted)
            _add_windows(totals, counted)
    for counter, number in totals.items():
        if number:
            counter.inc(number)


def show_suspended(partitions: Mapping[str, int]) -> None:
    """In how many partitions each definition in force here is suspended; those that are in force no more go."""
    SUSPENDED_NOW.clear()
    for name, number in partitions.items():
        SUSPENDED_NOW.labels(name).set(number)


def show_locked(partitions: Mapping[int, int]) -> None:
    """How many locks are engaged in each partition served here."""
    LOCKED.clear()
    for partition, number in partitions.items():
        LOCKED.labels(str(partition)).set(number)


def show_lifecycle(known: Lifecycle, now_ms: int) -> None:
    """Tiers and jobs as they are known; nothing before they are."""
    if known.tiers is None:
        return
    of_tiers = (TIER_SEGMENTS, TIER_BYTES, TIER_ROWS, TIER_AGE, ENTROPY)
    for gauge in (*of_tiers, JOB_STATE, JOB_AGE, JOB_DONE_AGE):
        gauge.clear()
    for row in known.tiers.tiers:
        place = row.tier.value, row.store
        for grain, count in row.grains.items():
            TIER_SEGMENTS.labels(*place, grain).set(count)
        TIER_BYTES.labels(*place).set(row.size_bytes)
        TIER_ROWS.labels(*place).set(row.rows)
        if row.segments:
            TIER_AGE.labels(*place).set((now_ms - row.oldest_ms) / MS_PER_S)
        if row.entropy_max is not None:
            ENTROPY.labels(row.tier.value).set(row.entropy_max)
    for job in known.jobs:
        for state in State:
            JOB_STATE.labels(job.job, state.value).set(job.state is state)
        JOB_AGE.labels(job.job).set((now_ms - job.heard_ms) / MS_PER_S)
        if job.done_ms is not None:
            JOB_DONE_AGE.labels(job.job).set((now_ms - job.done_ms) / MS_PER_S)
        told = _job_rows.get(job.job, 0)
        JOB_ROWS.labels(job.job).inc(max(job.rows - told, 0))
        _job_rows[job.job] = job.rows


def _add_judged(totals: defaultdict[Counter, int], counted: Counted) -> None:
    counts = counted.judged
    if counts is None:
        return
    totals[_GREEN] += counts.green
    totals[_YELLOW] += counts.yellow
    totals[_RED] += counts.red
    totals[WARNED] += counts.warned
    totals[DUPLICATES] += counts.duplicates
    totals[CONFLICTS] += counts.conflicts
    totals[NOT_FINITE] += counts.not_finite
    totals[EVICTED] += counts.evicted_sources
    totals[ALERTS] += counted.alerts
    totals[REFUSED_LOCKS] += counts.refused_locks
    for fault, number in counts.unreadable.items():
        if fault is not Fault.ERASED:  # read once, and erased since: there is no letter
            totals[DEAD.labels(fault.name)] += number


def _add_windows(totals: defaultdict[Counter, int], counted: Counted) -> None:
    for name, counts in counted.windows.items():
        numbers = (counts.results, counts.late, counts.ahead, counts.doubtful)
        for counter, number in zip((RESULTS, LATE_EVENTS, AHEAD_EVENTS, DOUBTFUL_EVENTS), numbers, strict=True):
            if number:
                totals[counter.labels(name)] += number
    for name in counted.suspended:
        totals[SUSPENDED.labels(name)] += 1
    totals[REFUSED] += counted.refused
