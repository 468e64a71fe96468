"""One definition of sliding windows at work in one partition: its state, and the kernel's steps around it.

As in `window_run`, Python acts only where the kernel stops.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from schemas.memory import address_of
from streams import sources
from streams.derive_kernel import N_AHEAD, N_DOUBTFUL, N_LATE, N_TAKEN, RESULTS_MAX, Plan, Stop, Tally
from streams.derived import WindowCounts
from streams.quantiles import SKETCH_SLOTS
from streams.results import FLOAT_COLUMNS, INT_COLUMNS, Layout, Results
from streams.sliding_kernel import Scratch, find_slots, slide_rows
from streams.sliding_table import (
    EVENTS_MAX,
    FIRST,
    KEY_EVENTS_MAX,
    PENDING_MAX,
    WORK_MAX,
    Kept,
    grown,
    no_lists,
    renumber,
    with_room,
)
from streams.window_notices import Notices, no_tally
from streams.window_run import plan_of
from streams.window_table import EXACT_VALUES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.derived import Gathered
    from streams.judge import Outputs
    from streams.windows import WindowDefinition

_TOO_MUCH: Final = (
    f"more than {EVENTS_MAX:,} events kept for sliding windows, {PENDING_MAX:,} of them without a result, "
    f"{KEY_EVENTS_MAX:,} of one key, or {WORK_MAX:,} of the sum of their squares"
)


def no_events() -> Kept:
    """Before the first event, of keys in a table without names."""
    return with_room(0, 0, sources.no_names().hot.shape[0])


@dataclass(slots=True)
class SlidingRun:
    """See the module. version: index of the DEFINITION entry. suspended: why, None while it works."""

    partition: int
    definition: WindowDefinition
    version: int
    numbers: NDArray[np.int64]
    keys: sources.Sources = field(default_factory=sources.no_names)
    kept: Kept = field(default_factory=no_events)
    tally: Tally = field(default_factory=no_tally)
    suspended: str | None = None
    _plan: Plan = field(init=False)
    _layout: Layout = field(init=False)
    _notices: Notices = field(init=False)
    _results: Results = field(init=False)
    _scratch: Scratch = field(init=False)

    def __post_init__(self) -> None:
        self._plan = plan_of(self.definition)
        self._layout = Layout(self.definition, self.version, self.partition)
        self._notices = Notices(self.definition, self.version, self.partition)
        columns = FLOAT_COLUMNS + len(self.definition.percentiles)
        self._results = Results(np.empty((RESULTS_MAX, INT_COLUMNS), np.int64), np.empty((RESULTS_MAX, columns)))
        sketch = (np.empty(SKETCH_SLOTS, np.int64) for _ in range(3))
        self._scratch = Scratch(np.empty(EXACT_VALUES), *sketch)

    def step(self, entries: Entries, judged: Outputs, frontier_us: NDArray[np.int64], gathered: Gathered) -> None:
        """Take the next entries. frontier_us: of heartbeats, NEVER elsewhere."""
        if self.suspended is not None:
            return
        rows = entries.kind.size
        aside = np.zeros(rows, np.uint8)
        hashes, slots = np.empty((2, rows), np.int64)
        before = self.numbers.copy()
        find_slots(0, judged.events, self._plan.by, self.keys, hashes, slots)
        row, results = 0, 0
        while True:
            row, stop = slide_rows(
                row, entries, judged.events, judged.verdicts, frontier_us, hashes, slots, self._plan, self.keys,
                address_of(self.keys.arena), self.kept, self.tally, address_of(self.tally.names.arena), self.numbers,
                self._results, self._scratch, aside,
            )  # fmt: skip
            results += gathered.take_results(self._layout, self._results, self.numbers)
            match stop:
                case Stop.DONE:
                    break
                case Stop.KEYS:
                    self._make_key_room()
                    find_slots(row, judged.events, self._plan.by, self.keys, hashes, slots)
                case Stop.WINDOWS:
                    self.kept = grown(self.kept)
                case Stop.REPORT:
                    self.report(gathered, int(entries.index[row]))
                case Stop.TALLY:
                    self.tally = self._notices.with_room(gathered, int(entries.index[row]), self.tally)
                case Stop.SUSPEND:
                    self._suspend(gathered, int(entries.index[row]))
                    break
        taken, late, ahead, doubtful = (self.numbers - before)[[N_TAKEN, N_LATE, N_AHEAD, N_DOUBTFUL]].tolist()
        self._notices.count(gathered, WindowCounts(taken, late, ahead, doubtful, results))
        self._notices.letters(gathered, entries, aside)

    def _make_key_room(self) -> None:
        """Forget keys without events; where most have some, grow."""
        count = int(self.keys.used[sources.COUNT])
        lists = self.kept.lists[:count]
        staying = np.flatnonzero(lists[:, FIRST] >= 0)
        if 2 * staying.size > count:
            self.keys = sources.grown(self.keys)
            staying = np.arange(count)
        else:
            self.keys = sources.only(self.keys, staying)
            renumber(self.kept, np.cumsum(lists[:, FIRST] >= 0, dtype=np.int64) - 1)
        moved = no_lists(self.keys.hot.shape[0])
        moved[: staying.size] = lists[staying]
        self.kept = self.kept._replace(lists=moved)

    def report(self, gathered: Gathered, index: int) -> None:
        """Tell of the late events since the last time."""
        self.tally = self._notices.late(gathered, index, self.tally)

    def _suspend(self, gathered: Gathered, index: int) -> None:
        self.suspended = _TOO_MUCH
        self.report(gathered, index)
        self._notices.suspended(gathered, index, _TOO_MUCH)
        self.keys, self.kept, self.tally = sources.no_names(), no_events(), no_tally()
