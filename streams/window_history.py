"""One definition of windows folded over entries that are history: the results that live gave, or would have given.

Problem: a window that was thought of today has no results of last year, and the topic of results keeps those of live
for a while only. The entries are all there, and derive is a pure fold of them. So it is folded again: the same kernel,
the same watermark, the same late events, and nothing is written anywhere.

    as defined   in force from before the first entry on, with the version 0, whatever DEFINITION entries say
    as live      as those entries say: each version of it, from its own index on

GUARANTEE as live, every record is the one that a lane wrote, byte for byte. As defined, a result has the numbers, the
revision and the entry (`at_index`) of live's wherever live's version was in force before all of the window's events,
which is so of windows that begin more than max_ahead after the authority time at which it came into force.
HAZARD with more than DEFINITIONS_MAX definitions in a ledger, of which derive passes over those that came too late, one
of these has results here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from schemas.memory import bytes_at
from streams.aggregates import Result, parse
from streams.derive import Derive
from streams.derive_kernel import N_WATERMARK, NEVER
from streams.sliding_run import SlidingRun
from streams.window_run import WindowRun, first_numbers
from streams.windows import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schemas.columns import Entries
    from streams.aggregates import AggregateRecord
    from streams.derived import Derived
    from streams.judge import Outputs
    from streams.windows import WindowDefinition


class Standing(NamedTuple):
    """Of the version at work. closed_us: up to where its windows are closed, None for nowhere yet.

    update_us: how long a closed window still takes events.
    """

    version: int
    closed_us: int | None
    update_us: int


class WindowHistory:
    """Of one definition in one partition. definition: as it is to be run; None: as the ledger has it.

    Attributes: late, ahead, doubtful (events left out so far).
    """

    def __init__(self, partition: int, name: str, definition: WindowDefinition | None) -> None:
        self._partition, self._name = partition, name
        self._derive = Derive(names=frozenset({name}) if definition is None else frozenset())
        self._state = self._derive.new_state(partition)
        self.late = self.ahead = self.doubtful = 0
        if definition is not None:
            run = SlidingRun if definition.kind is Kind.SLIDING else WindowRun
            self._state.running[name] = run(partition, definition, 0, first_numbers(self._state.clock))

    @property
    def rows_max(self) -> int:
        """Entries that a step should take at most."""
        return self._derive.rows_max(self._state)

    @property
    def standing(self) -> Standing | None:
        """None while no version is in force."""
        run = self._state.running.get(self._name)
        if run is None:
            return None
        watermark_us = int(run.numbers[N_WATERMARK])
        return Standing(run.version, None if watermark_us == NEVER else watermark_us, run.definition.update_us)

    def take(self, entries: Entries, judged: Outputs) -> list[AggregateRecord]:
        """The records that the next entries cause, in order."""
        derived = self._derive.step(self._state, entries, judged)
        counts = derived.counts.get(self._name)
        if counts is not None:
            self.late, self.ahead = self.late + counts.late, self.ahead + counts.ahead
            self.doubtful += counts.doubtful
        return [parse(value, 0, self._partition, 0) for value in values_of(derived)]


def values_of(derived: Derived) -> list[bytes]:
    """The values of its records."""
    places = zip(derived.aggregates.value_address.tolist(), derived.aggregates.value_length.tolist(), strict=True)
    return [bytes_at(address, length) for address, length in places]


class LastRevisions:
    """Of the records of one definition in one partition the last result of each window, as soon as none can follow.

    GUARANTEE windows stand in order of version, end, start and key, however the records were handed in.
    """

    def __init__(self) -> None:
        #: Of one version.
        self._held: dict[tuple[object, ...], Result] = {}

    def take(self, records: Iterable[AggregateRecord], standing: Standing | None) -> list[Result]:
        """More records, and how their definition stands after them; the results that are settled."""
        settled = []
        for record in records:
            if isinstance(record, Result):
                if self._version() not in (None, record.version):
                    settled += self.rest()
                self._held[record.window] = record
        if standing is None or self._version() not in (None, standing.version):
            return settled + self.rest()
        if standing.closed_us is not None:
            settled_us = standing.closed_us - standing.update_us
            over = [one for one in self._held.values() if one.final and one.window_end_us <= settled_us]
            for one in over:
                del self._held[one.window]
            settled += sorted(over, key=_order)
        return settled

    def rest(self) -> list[Result]:
        """All others: late events may change them yet, and those that are not final have not closed."""
        rest, self._held = sorted(self._held.values(), key=_order), {}
        return rest

    def _version(self) -> int | None:
        return next((one.version for one in self._held.values()), None)


def _order(result: Result) -> tuple[int, int, str]:
    return result.window_end_us, result.window_start_us, result.key or ""
