"""The steady state: events come at a rate; how soon can each be read, and does anything pile up.

A process sends; this one reads the ledger, read_committed, as a consumer would, and looks at the clock when a batch is
in its hands; where closings are timed, it reads the ledger when all is over. The local time of an event is the moment
it was given to the producer, so the difference of the two is the latency, the producer's linger of 5 ms included. All
processes share one machine and so one clock.
"""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from benchmarks.closings import Closings
from benchmarks.figures import PERCENTILES, Arrivals, Latencies, slope
from benchmarks.ledger_check import CheckFailedError, check, check_hot, columns, open_ledger
from benchmarks.load import NotLoadedError, pace
from benchmarks.sampler import Sampler
from benchmarks.subjects import start_worker, wait_until_ready
from schemas.canonical import EntryKind
from schemas.clock import SystemTime
from schemas.codec import Framing
from schemas.columns import Fault, Scratch, allocate_entries, allocate_events, decode_events
from schemas.errors import DriftledgerError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from benchmarks.cases import Paced
    from benchmarks.load import Loaded
    from benchmarks.subjects import Running
    from benchmarks.surroundings import Surroundings

_SAMPLE_S: Final = 0.25
_WAIT_MS: Final = 20
_ROWS_MAX: Final = 5_000
_STALL_US: Final = 60_000_000
_US_PER_MS: Final = 1_000
_US_PER_S: Final = 1_000_000
_POLL_S: Final = 0.25
#: Memory settles while the first snapshots, segments and pools are made; the slope is taken from there on.
SLOPE_FROM_S: Final = 120
_SLOPE_SECONDS_MIN: Final = 60
_ENDED_EARLY: Final = "the process that sends events ended early; why stands above"
_DATA: Final = int(EntryKind.DATA)
_time = SystemTime()


class PacedFigures(NamedTuple):
    """What a paced case showed. rate: events per second really sent. backlog: events produced and not yet seen.

    measured: events, or closings, whose latency counts.
    """

    measured: int
    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p99_9_ms: float
    backlog_mean: float
    backlog_slope_per_s: float
    lag_flat: bool
    entries_per_transaction: float
    client_us: float
    broker_us: float | None
    others_percent: float
    rss_peak_mb: float
    rss_slope_mb_per_min: float | None


#: Records that the client holds ahead: where the ledger is read afterwards, it must not be read meanwhile.
_AHEAD_MAX: Final = 1_000


class _Sink:
    """Reads the ledger and notes when each event could be read.

    Where closings are timed, it reads when all is over, and an event counts as seen when it was appended: a second
    reader takes a tenth of a core, and as much of the broker's.
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int, closings: Closings | None) -> None:
        self.afterwards = closings is not None
        self._closings = closings
        ahead = {"queued_min_messages": _AHEAD_MAX} if self.afterwards else {}
        self._consumer = open_ledger(bootstrap, topic, list(range(partitions)), fetch_wait_max_ms=10, **ahead)
        self._topic = topic
        self._scratch = Scratch()
        self.seen = 0
        self.begin_us = _time.now_us()
        self.begin_measuring_us = self.begin_us
        self.latencies = Latencies()
        self.arrivals = Arrivals(self.begin_us)
        decode_events(allocate_entries(0), allocate_events(0), Framing.SINGLE_OBJECT)  # compiled before it counts

    def begin(self, warm_s: int) -> None:
        """Now the first event is sent; those of the first seconds do not count."""
        self.begin_us = _time.now_us()
        self.begin_measuring_us = self.begin_us + warm_s * _US_PER_S
        self.arrivals = Arrivals(self.begin_us)

    def poll(self) -> None:
        """Take what came."""
        batch = self._consumer.fetch(_ROWS_MAX, _WAIT_MS)
        now_us = _time.now_us()
        if batch is None:
            return
        try:
            if batch.rows:
                entries = columns(batch, self._topic, self._scratch)
                events = allocate_events(batch.rows)
                decode_events(entries, events, Framing.SINGLE_OBJECT)
                read = events.fault == Fault.NONE
                if np.count_nonzero(read) != np.count_nonzero(entries.kind == _DATA):
                    raise CheckFailedError("the ledger holds events that cannot be decoded. No figure counts")
                produced_us = events.local_us[read]
                if self._closings is not None:
                    self._closings.note(batch, entries, events)
                self.seen += produced_us.size
                appended_us = batch.records.timestamp_ms[: batch.rows][read] * _US_PER_MS
                seen_us = appended_us if self.afterwards else np.full_like(produced_us, now_us)
                self.arrivals.add(produced_us, seen_us)
                self.latencies.add((seen_us - produced_us)[produced_us >= self.begin_measuring_us])
        finally:
            batch.release()

    def close(self) -> None:
        """End the consumer."""
        self._consumer.close()


def measure(case: Paced, around: Surroundings) -> PacedFigures:
    """Run the case on fresh topics, with the worker."""
    settings, bootstrap, names = around.settings, around.bootstrap, around.names
    subject = start_worker(settings, bootstrap, around.folder)
    closings = Closings(bootstrap, names.aggregates, settings.partitions) if case.closings else None
    sink = _Sink(bootstrap, names.sequenced, settings.partitions, closings)
    try:
        wait_until_ready(subject)
        with Sampler(subject.pid, around.brokers, _SAMPLE_S) as sampler:
            loaded = _run(case, bootstrap, names.input, settings.partitions, sink, subject)
        subject.check()
        check_hot(settings, loaded.events)
    finally:
        sink.close()
        if closings is not None:
            closings.close()
        subject.stop()
    checked = check(bootstrap, names, loaded, judged=True)
    begin_us, end_us = sink.begin_measuring_us, sink.begin_measuring_us + case.seconds * _US_PER_S
    use = sampler.used(begin_us, end_us)
    events = case.rate * case.seconds
    backlog = sink.arrivals.backlog(case.warm_s, case.warm_s + case.seconds)
    latencies = sink.latencies if closings is None else closings.latencies(begin_us)
    p50_ms, p95_ms, p99_ms, p99_9_ms = (latencies.percentile_ms(percent) for percent in PERCENTILES)
    return PacedFigures(
        measured=latencies.count,
        rate=loaded.events / loaded.seconds,
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        p99_ms=p99_ms,
        p99_9_ms=p99_9_ms,
        backlog_mean=backlog.mean,
        backlog_slope_per_s=backlog.slope_per_s,
        lag_flat=backlog.flat,
        entries_per_transaction=checked.per_transaction,
        client_us=use.client_s * _US_PER_S / events,
        broker_us=None if use.broker_s is None else use.broker_s * _US_PER_S / events,
        others_percent=100 * use.others_s / (around.cores * case.seconds),
        rss_peak_mb=sampler.peak_bytes() / 2**20,
        rss_slope_mb_per_min=_rss_slope(sampler, sink.begin_us / _US_PER_S, end_us / _US_PER_S),
    )


def _run(case: Paced, bootstrap: str, topic: str, partitions: int, sink: _Sink, subject: Running) -> Loaded:
    """Send and read until everything sent has been read."""
    context = multiprocessing.get_context("spawn")  # a client of Kafka does not survive a fork
    result, sending = context.Pipe(duplex=False)
    sender = context.Process(
        target=pace,
        args=(bootstrap, topic, partitions, case.sources, case.rate, case.warm_s + case.seconds, sending),
        daemon=True,
    )
    sender.start()
    sending.close()
    try:
        while not sink.seen:
            sink.begin(case.warm_s)
            sink.poll()
            subject.check()
            if not sender.is_alive() and not sink.seen:
                raise NotLoadedError(_ENDED_EARLY)
        return _read_all(case, sink, subject, result)
    finally:
        if sender.is_alive():
            sender.terminate()
        sender.join()


def _read_all(case: Paced, sink: _Sink, subject: Running, result: Connection) -> Loaded:
    loaded: Loaded | None = None
    seen, moved_us = sink.seen, _time.now_us()
    checked_us = moved_us
    while loaded is None or sink.seen < loaded.events:
        if loaded is None and sink.afterwards:
            _time.sleep_s(_POLL_S)
            moved_us = _time.now_us()
        else:
            sink.poll()
        now_us = _time.now_us()
        if sink.seen != seen:
            seen, moved_us = sink.seen, now_us
        elif now_us - moved_us > _STALL_US:
            raise DriftledgerError(f"after {seen} of {case.events} events nothing was seen for a minute")
        if now_us - checked_us > _US_PER_S:
            checked_us = now_us
            subject.check()
            if loaded is None and result.poll():
                loaded = _take(result)
    return loaded


def _take(result: Connection) -> Loaded:
    try:
        loaded: Loaded = result.recv()
    except EOFError:
        raise NotLoadedError(_ENDED_EARLY) from None
    return loaded


def _rss_slope(sampler: Sampler, begin_s: float, end_s: float) -> float | None:
    """MB per minute from SLOPE_FROM_S on, None where that leaves too little."""
    instants_s, megabytes = sampler.memory()
    settled = (instants_s >= begin_s + SLOPE_FROM_S) & (instants_s <= end_s)
    if end_s - begin_s < SLOPE_FROM_S + _SLOPE_SECONDS_MIN:
        return None
    return 60 * slope(instants_s[settled], megabytes[settled])
