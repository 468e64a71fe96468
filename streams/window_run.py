"""One definition of tumbling or hopping windows at work in one partition: its state, and the kernel's steps around it.

Python acts only where the kernel stops: it takes results, makes room, reports late events, and suspends a definition
that outgrows its bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from schemas.memory import address_of
from streams import sources
from streams.corrected_kernel import WAYS
from streams.derive_kernel import (
    BY_ALL,
    BY_KIND,
    BY_SOURCE,
    IN_AUTHORITY,
    IN_CORRECTED,
    IN_LOCAL,
    N_AHEAD,
    N_AUTHORITY,
    N_DOUBTFUL,
    N_FRONTIER,
    N_LATE,
    N_RESULTS,
    N_TAKEN,
    NEVER,
    NUMBERS,
    RESULTS_MAX,
    Plan,
    Stop,
    Tally,
)
from streams.derived import WindowCounts
from streams.quantiles import SKETCH_SLOTS
from streams.results import FLOAT_COLUMNS, INT_COLUMNS, Layout, Results
from streams.window_kernel import Batch, Located, derive_rows, locate
from streams.window_keys import with_key_room
from streams.window_notices import Notices, no_tally
from streams.window_results import Scratch
from streams.window_room import grown, no_windows
from streams.window_table import BLOCK_VALUES, BLOCKS_MAX, EXACT_VALUES, WINDOWS_MAX, Windows
from streams.windows import By, Frame, Function, WindowDefinition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.derived import Gathered
    from streams.judge import Outputs

_WIDE: Final = {Function.VARIANCE, Function.FIRST, Function.LAST}
_FRAMES: Final = {Frame.LOCAL: IN_LOCAL, Frame.AUTHORITY: IN_AUTHORITY, Frame.CORRECTED: IN_CORRECTED}
_BY: Final = {By.SOURCE: BY_SOURCE, By.KIND: BY_KIND, By.ALL: BY_ALL}
_TOO_MUCH: Final = (
    f"more than {WINDOWS_MAX:,} open windows, or {BLOCKS_MAX * BLOCK_VALUES:,} values kept for percentiles"
)


def plan_of(definition: WindowDefinition) -> Plan:
    """What the kernel must know of it."""
    return Plan(
        size_us=definition.size_us,
        slide_us=definition.slide_us,
        frame=_FRAMES[definition.frame],
        by=_BY[definition.by],
        lateness_us=definition.lateness_us,
        max_behind_us=definition.max_behind_us,
        max_ahead_us=definition.max_ahead_us,
        update_us=definition.update_us,
        early_us=definition.early_us,
        red=WAYS[definition.red],
        unknown=WAYS[definition.unknown],
        wide=int(not _WIDE.isdisjoint(definition.functions)),
        per_event=definition.windows_per_event,
        percentiles=np.array(definition.percentiles, np.int64),
    )


def first_numbers(clock: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of a definition that comes into force. clock: int64[2], running maximum of authority time and frontier."""
    numbers = np.full(NUMBERS, NEVER, np.int64)
    numbers[N_AUTHORITY], numbers[N_FRONTIER] = clock
    numbers[N_RESULTS:] = 0
    return numbers


@dataclass(slots=True)
class WindowRun:
    """See the module. version: index of the DEFINITION entry. suspended: why, None while it works."""

    partition: int
    definition: WindowDefinition
    version: int
    numbers: NDArray[np.int64]
    keys: sources.Sources = field(default_factory=sources.no_names)
    windows: Windows = field(default_factory=no_windows)
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
        self._scratch = Scratch(
            np.empty(EXACT_VALUES), np.empty(SKETCH_SLOTS, np.int64), np.empty(SKETCH_SLOTS, np.int64)
        )

    def step(self, entries: Entries, judged: Outputs, frontier_us: NDArray[np.int64], gathered: Gathered) -> None:
        """Take the next entries. frontier_us: of heartbeats, NEVER elsewhere."""
        if self.suspended is not None:
            return
        rows = entries.kind.size
        batch = self._batch(entries, judged, frontier_us)
        aside = np.zeros(rows, np.uint8)
        located = Located(*np.empty((len(Located._fields), rows), np.int64))
        before = self.numbers.copy()
        locate(0, batch, self._plan, self.keys, located)
        row, results = 0, 0
        while True:
            row, stop = derive_rows(
                row, batch, located, self._plan, self.keys, address_of(self.keys.arena), self.windows, self.tally,
                address_of(self.tally.names.arena), self.numbers, self._results, self._scratch, aside,
            )  # fmt: skip
            results += gathered.take_results(self._layout, self._results, self.numbers)
            match stop:
                case Stop.DONE:
                    break
                case Stop.KEYS:
                    self.keys, self.windows = with_key_room(self.keys, self.windows)
                    locate(row, batch, self._plan, self.keys, located)
                case Stop.WINDOWS:
                    self.windows = grown(self.windows, self._plan.per_event)
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

    def _batch(self, entries: Entries, judged: Outputs, frontier_us: NDArray[np.int64]) -> Batch:
        events = judged.events
        by_kind = self.definition.by is By.KIND
        return Batch(
            kind=entries.kind,
            index=entries.index,
            sequence=entries.sequence,
            authority_ms=entries.authority_ms,
            fault=events.fault,
            flags=judged.verdicts.flags,
            local_us=events.local_us,
            offset_us=judged.verdicts.offset_us,
            bound_us=judged.verdicts.bound_us,
            has_value=events.has_value,
            value=events.value,
            key_address=events.kind_address if by_kind else events.source_address,
            key_length=events.kind_length if by_kind else events.source_length,
            source_address=events.source_address,
            source_length=events.source_length,
            frontier_us=frontier_us,
        )

    def report(self, gathered: Gathered, index: int) -> None:
        """Tell of the late events since the last time."""
        self.tally = self._notices.late(gathered, index, self.tally)

    def _suspend(self, gathered: Gathered, index: int) -> None:
        self.suspended = _TOO_MUCH
        self.report(gathered, index)
        self._notices.suspended(gathered, index, _TOO_MUCH)
        self.keys, self.windows, self.tally = sources.no_names(), no_windows(), no_tally()
