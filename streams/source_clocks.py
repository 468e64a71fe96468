"""What is known of each source's clock now, and how stable it was.

Problem: an operator asks whose clock is wrong, by how much, and for how long the answer holds. Judge knows, in the
state of each partition; how stable a clock is says the series of its estimates, which the estimates topic keeps.

GUARANTEE the list is what a judge knows after the last entry of each partition, whichever worker runs, or none. Sources
that judge has forgotten (more than sources_max) are not in it.
HAZARD the offset is that at the authority time of the last entry: the bound of a silent source grows meanwhile, by 500
ppm.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import structlog

from schemas.codec import DecodeError, Framing, decode
from schemas.instants import MS_PER_S, US_PER_S
from streams.alert_kernel import CAUSE, Question, severity_in
from streams.authority_kernel import SHIFT_MS, true_ms_of
from streams.causes import Cause
from streams.clock_columns import GOOD_MS
from streams.estimate import estimate_of
from streams.judge_states import judge_at
from streams.log import offset_of
from streams.severity import Severity
from streams.source_clock import SourceClock
from streams.sources import COUNT, LAST_SEQUENCE, STATE, name_of
from streams.stability import Deviations, best_window_s, deviations, octaves

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from streams.queries import Ledger
    from streams.sources import Sources

_logger = structlog.get_logger()


class Stability(NamedTuple):
    """The Allan deviations of one source at one tau, from so many samples; whether tau is the best to average over."""

    source: str
    samples: int
    deviations: Deviations
    best: bool

    def row(self) -> dict[str, Any]:
        """For a listing, with seven digits; None where there are too few samples."""
        shown = {
            name: None if math.isnan(value) else float(f"{value:.6e}")
            for name, value in self.deviations._asdict().items()
        }
        return {"source": self.source, "samples": self.samples, **shown, "best": "best" if self.best else None}


def source_clocks(ledger: Ledger, *, source: str | None = None, partition: int | None = None) -> list[SourceClock]:
    """Of all sources, or of one, that judge knows now; by partition, in the order in which they came."""
    found: list[SourceClock] = []
    for p in ledger.chosen(partition):
        tail = ledger.tail(p)
        if tail is None:
            continue
        state = judge_at(ledger, p, tail)
        table, broker_ms = state.sources, int(state.authority[SHIFT_MS])
        at_ms = true_ms_of(tail.authority_ms, broker_ms)
        for slot in range(int(table.used[COUNT])):
            name = name_of(table, slot).decode()
            if source in (None, name):
                found.append(
                    SourceClock(
                        partition=p,
                        source=name,
                        last_sequence=int(table.hot[slot, LAST_SEQUENCE]),
                        alert=Severity(severity_in(int(table.hot[slot, STATE]), Question.CLOCK)),
                        cause=_cause(table, slot),
                        late=Severity(severity_in(int(table.hot[slot, STATE]), Question.DELAY)),
                        at_ms=at_ms,
                        good_ms=int(table.clocks[slot, GOOD_MS]),
                        broker_ms=broker_ms,
                        estimate=estimate_of(table.clocks, slot, at_ms),
                    )
                )
    return found


def _cause(table: Sources, slot: int) -> Cause:
    """Of the open alert about its clock."""
    state = int(table.hot[slot, STATE])
    return Cause(int(table.watch[slot, CAUSE])) if severity_in(state, Question.CLOCK) else Cause.NONE


def stability(ledger: Ledger, clocks: Sequence[SourceClock], since_ms: int) -> list[list[Stability]]:
    """Of each of these sources, from the estimates that were told since then; nothing of one with fewer than three."""
    by_partition: dict[int, set[str]] = {}
    for clock in clocks:
        by_partition.setdefault(clock.partition, set()).add(clock.source)
    series = {p: _series(ledger, p, names, since_ms) for p, names in sorted(by_partition.items())}
    return [list(stability_of(one.source, *series[one.partition].get(one.source, ([], [])))) for one in clocks]


def stability_of(source: str, at_ms: list[int], offset_us: list[int]) -> Iterator[Stability]:
    """Of the longest part of a series without a gap: instants, ascending, and the offset at each."""
    phase_s, tau0_s = longest_run(np.array(at_ms, np.int64), np.array(offset_us, np.int64))
    found = deviations(phase_s, tau0_s, octaves(phase_s.size)) if phase_s.size else []
    best = best_window_s(found)
    for one in found:
        yield Stability(source, phase_s.size, one, best=one.tau_s == best)


def longest_run(at_ms: NDArray[np.int64], offset_us: NDArray[np.int64]) -> tuple[NDArray[np.float64], float]:
    """The offsets in seconds at equal distances, and those in seconds: of the longest part of a series without a gap.

    Estimates are told with the first event of each interval, so they stand an interval apart and a little more or less;
    between two of them the offset is taken to run straight. A gap is where two are more than twice the usual apart.
    """
    if at_ms.size < 3:  # noqa: PLR2004 - of fewer there is no deviation
        return np.zeros(0), 1.0
    apart_ms = np.diff(at_ms)
    usual_ms = max(1, int(np.median(apart_ms)))
    edges = [0, *(np.flatnonzero(apart_ms > 2 * usual_ms) + 1).tolist(), at_ms.size]
    length, begin = max((end - start, start) for start, end in itertools.pairwise(edges))
    run_ms, run_us = at_ms[begin : begin + length], offset_us[begin : begin + length]
    grid_ms = np.arange(run_ms[0], run_ms[-1] + 1, usual_ms)
    return np.interp(grid_ms, run_ms, run_us / US_PER_S), usual_ms / MS_PER_S


def _series(ledger: Ledger, partition: int, names: set[str], since_ms: int) -> dict[str, tuple[list[int], list[int]]]:
    """Instants and offsets of each of these sources, as they were told."""
    topic = ledger.names.drift_estimates
    [begin] = ledger.log.offsets_since(topic, [partition], max(0, since_ms)).values()
    found: dict[str, tuple[list[int], list[int]]] = {}
    end = ledger.log.bounds(topic, partition).stable_end
    if begin < 0:
        return found
    for message in ledger.log.scan(topic, partition, begin, end):
        key = message.key()
        if key is None or key.decode(errors="replace") not in names:
            continue
        try:
            told = decode("DriftEstimate", message.value() or b"", Framing.JSON)
        except DecodeError as error:
            _logger.warning(
                "estimate_not_readable", topic=topic, partition=partition, offset=offset_of(message), error=str(error)
            )
            continue
        instants, offsets = found.setdefault(told["source"], ([], []))
        if not instants or told["authority_timestamp"] > instants[-1]:
            instants.append(told["authority_timestamp"])
            offsets.append(told["offset_us"])
    return found
