"""Catch-up: all events are there at once, behind a gate, and every lane is open and warm when it opens.

The rate is taken from the broker's append times of the ledger's own records, from the first to the last. CPU counts
from the moment the events become visible, so what is fetched ahead of the first append is paid for too.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.backfill import fold_again, forget_windows
from benchmarks.cases import OFF_PERCENT, Name, Subject
from benchmarks.events import EventFactory
from benchmarks.figures import rates
from benchmarks.ledger_check import check, check_hot
from benchmarks.load import Preload, load
from benchmarks.sampler import Sampler
from benchmarks.subjects import start_lanes, start_worker, wait_until_ready
from schemas.clock import SystemTime
from schemas.errors import UnreachableError
from streams.ledger_reader import read_tail
from streams.log import Log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.cases import Preloaded
    from benchmarks.ledger_check import Checked
    from benchmarks.load import Loaded
    from benchmarks.subjects import Running
    from benchmarks.surroundings import Surroundings
    from schemas.topics import TopicNames

_SAMPLE_S: Final = 0.05
_POLL_S: Final = 0.2
_STALL_NS: Final = 60_000_000_000
#: A commit's answer and what follows it come this long after its last record was appended, at most.
_TAIL_US: Final = 100_000
_US_PER_MS: Final = 1_000
_US_PER_S: Final = 1_000_000
_time = SystemTime()


class PreloadedFigures(NamedTuple):
    """What a preloaded case showed. CPU in microseconds per event; rss_peak_mb from start to end.

    None where a case has no such figure.
    """

    events: int
    per_s: float
    first_half_per_s: float | None
    second_half_per_s: float | None
    entries_per_transaction: float | None
    client_us: float
    broker_us: float | None
    others_percent: float | None
    rss_peak_mb: float
    green_percent: float | None
    load_s: float


class Filled(NamedTuple):
    """A case whose input is there, unseen."""

    case: Preloaded
    around: Surroundings
    preload: Preload
    loaded: Loaded


def fill(cases: Sequence[Preloaded], arounds: Sequence[Surroundings]) -> list[Filled]:
    """Fill the inputs of cases of as many events and as long a spread, at once, on fresh topics."""
    preloads = []
    for case, (settings, bootstrap, names, *_) in zip(cases, arounds, strict=True):
        factory = EventFactory(case.sources, settings.partitions, OFF_PERCENT)
        preloads.append(Preload(bootstrap, names.input, settings.partitions, factory))
    first = cases[0]
    loaded = load(preloads, first.events, arounds[0].settings.partitions, first.spread_s)
    return [Filled(*filled) for filled in zip(cases, arounds, preloads, loaded, strict=True)]


def measure(filled: Filled) -> PreloadedFigures:
    """Open the lanes, then the gate."""
    case, around, preload, loaded = filled
    settings, bootstrap, names = around.settings, around.bootstrap, around.names
    subject = (
        start_worker(settings, bootstrap, around.folder)
        if case.subject is Subject.WORKER
        else start_lanes(settings, bootstrap, judged=case.judged)
    )
    try:
        wait_until_ready(subject)
        with Sampler(subject.pid, around.brokers, _SAMPLE_S) as sampler:
            released_us = _time.now_us()
            preload.release()
            _wait_for_events(bootstrap, names, loaded.events, settings.partitions, subject)
        subject.check()
        if case.subject is Subject.WORKER:
            check_hot(settings, loaded.events)
    finally:
        subject.stop()
    checked = check(bootstrap, names, loaded, judged=case.judged)
    if case.name == Name.BACKFILL:
        return _measure_backfill(around, loaded, checked)
    rate = rates(checked.appended_ms, checked.events)
    ended_us = rate.last_ms * _US_PER_MS + _TAIL_US
    use = sampler.used(released_us, ended_us)
    return PreloadedFigures(
        events=loaded.events,
        per_s=rate.per_s,
        first_half_per_s=rate.first_half_per_s,
        second_half_per_s=rate.second_half_per_s,
        entries_per_transaction=checked.per_transaction,
        client_us=use.client_s * _US_PER_S / loaded.events,
        broker_us=None if use.broker_s is None else use.broker_s * _US_PER_S / loaded.events,
        others_percent=100 * use.others_s * _US_PER_S / (around.cores * (ended_us - released_us)),
        rss_peak_mb=sampler.peak_bytes() / 2**20,
        green_percent=checked.green_percent,
        load_s=loaded.seconds,
    )


def _measure_backfill(around: Surroundings, loaded: Loaded, checked: Checked) -> PreloadedFigures:
    forget_windows(around.bootstrap, around.names, around.settings.lanes)
    folded = fold_again(around)
    per_s = loaded.events / folded.wall_s
    return PreloadedFigures(
        events=loaded.events,
        per_s=per_s,
        first_half_per_s=None,
        second_half_per_s=None,
        entries_per_transaction=None,
        client_us=folded.cpu_s * _US_PER_S / loaded.events,
        broker_us=None,
        others_percent=None,
        rss_peak_mb=folded.peak_mb,
        green_percent=checked.green_percent,
        load_s=loaded.seconds,
    )


def _wait_for_events(bootstrap: str, names: TopicNames, events: int, partitions: int, subject: Running) -> None:
    """Until the ledger ends at that many events. Asks little of the broker before the end is near."""
    log = Log(bootstrap)
    seen, moved_ns = -1, _time.monotonic_ns()
    try:
        while True:
            subject.check()
            held = seen
            with contextlib.suppress(UnreachableError):  # a question that a busy broker refused is asked again
                held = sum(log.ends(names.sequenced, range(partitions)).values())
                if held >= events and _sequenced(log, names, partitions) >= events:
                    return
            if held != seen:
                seen, moved_ns = held, _time.monotonic_ns()
            elif _time.monotonic_ns() - moved_ns > _STALL_NS:
                raise UnreachableError(
                    f"{names.sequenced} stands at {held} offsets for a minute. Is the machine overloaded?"
                )
            _time.sleep_s(_POLL_S)
    finally:
        log.close()


def _sequenced(log: Log, names: TopicNames, partitions: int) -> int:
    """Events in the ledger; offsets are more, for there are CONTROL entries and markers."""
    tails = [read_tail(log, names.sequenced, partition) for partition in range(partitions)]
    return sum(tail.head.sequence for tail in tails if tail is not None)
