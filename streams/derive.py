"""The fold of user definitions: events into windows, windows into results.

Problem: one producer with a clock a day fast makes every honest event late in an engine whose watermark is the largest
event time seen. Here the watermark of a definition cannot be dragged: it is a function of the entries of the partition,
of the event's time or the running maximum of authority time, whichever is less, and of the heartbeats' authority
frontier (see `derive_kernel` for what happens at each entry, `sliding_kernel` for sliding windows, docs/windows.md for
pictures).

DEFINITION entries named "window/NAME" put a definition in force from their own index on, which is its version; the body
"null" withdraws it. A definition that comes again, changed or not, begins anew with no windows: what the earlier
version had open is given up, and its late events are reported. HAZARD a definition that cannot be read, or is one more
than DEFINITIONS_MAX, is passed over, counted (`refused`) and changes nothing, as with judge.

A definition that outgrows its bounds is suspended, alone, from that entry on, with a record that says so; it works
again once another DEFINITION entry of its name comes.

GUARANTEE those of `fold`. Each definition works by itself: what one does shows in no other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from schemas.columns import slice_rows
from schemas.errors import BadInputError
from streams import derive_dump
from streams.control import control_values, read_control
from streams.derive_kernel import NEVER, frontier_clock
from streams.derived import Gathered
from streams.fold import FoldError
from streams.judge import slice_outputs
from streams.sliding_run import SlidingRun
from streams.window_run import WindowRun, first_numbers
from streams.window_table import WINDOWS_MAX
from streams.windows import DEFINITIONS_MAX, Kind, read_entry, window_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.derived import Derived
    from streams.judge import Outputs
    from streams.windows import WindowDefinition

DERIVE: Final = "derive"
_US_PER_MS: Final = 1_000
#: Anybody may write a heartbeat: one of another age must not stop the fold. Nor may one of the future close windows: no
#: predecessor was appended after it.
_MS_MIN: Final = -(1 << 61) // _US_PER_MS


@dataclass(slots=True)
class DeriveState:
    """Of one partition. clock: int64[2], running maximum of authority time and frontier, in us.

    running: definitions in force by name, in order of name; written_by: as in judge's state.
    """

    partition: int
    written_by: int = derive_dump.FIRST_VERSION
    clock: NDArray[np.int64] = field(default_factory=lambda: np.full(2, NEVER, np.int64))
    running: dict[str, WindowRun | SlidingRun] = field(default_factory=dict)

    def in_force(self) -> dict[str, str]:
        """Canonical body of each definition in force, by name: of those that are suspended too."""
        return {name: run.definition.canonical() for name, run in self.running.items()}


@dataclass(frozen=True, slots=True)
class _Change:
    """A definition comes into force at a row, or goes (None)."""

    row: int
    name: str
    definition: WindowDefinition | None


@dataclass(frozen=True, slots=True)
class Derive:
    """The fold. names: of the definitions that it takes from the ledger, None for all."""

    names: frozenset[str] | None = field(default=None, kw_only=True)

    @property
    def name(self) -> str:
        """Of the fold."""
        return DERIVE

    @property
    def version(self) -> int:
        """Of its rules."""
        return derive_dump.VERSION

    def new_state(self, partition: int) -> DeriveState:
        """Before the first entry: nothing is defined."""
        return DeriveState(partition)

    def step(self, state: DeriveState, entries: Entries, judged: Outputs) -> Derived:
        """Take the next entries, with what judge said of them. Raises FoldError where a newer derive wrote on."""
        rows = entries.kind.size
        gathered = Gathered()
        frontier_us = np.full(rows, NEVER, np.int64)
        start = 0
        for change in self._controls(state, entries, frontier_us, gathered):
            self._run(state, entries, judged, frontier_us, start, change.row, gathered)
            start = change.row
            if not self._adopt(state, change, int(entries.index[change.row]), gathered):
                gathered.refused += 1
        self._run(state, entries, judged, frontier_us, start, rows, gathered)
        return gathered.all()

    def rows_max(self, state: DeriveState) -> int:
        """Entries that a step should take at most: what they cause stands in memory, and in one transaction.

        In all they open no more windows than may be open; besides, those close that were open before.
        """
        return WINDOWS_MAX // max(1, sum(run.definition.windows_per_event for run in state.running.values()))

    def dump(self, state: DeriveState) -> bytes:
        """See `derive_dump`."""
        return derive_dump.dump(
            derive_dump.Image(state.partition, state.written_by, state.clock, list(state.running.values()))
        )

    def load(self, partition: int, data: bytes) -> DeriveState:
        """See `derive_dump`."""
        image = derive_dump.load(partition, data)
        running = {run.definition.name: run for run in image.running}
        return DeriveState(partition, image.written_by, image.clock, running)

    def _controls(
        self, state: DeriveState, entries: Entries, frontier_us: NDArray[np.int64], gathered: Gathered
    ) -> list[_Change]:
        """Fill in the frontier of heartbeats; the changes of definitions, in order."""
        changes = []
        for row, value in control_values(entries):
            kind, body = read_control(value)
            if kind == "Heartbeat" and body["predecessor_appended_ms"] is not None:
                proved_ms = min(body["predecessor_appended_ms"], int(entries.authority_ms[row]))
                frontier_us[row] = max(proved_ms, _MS_MIN) * _US_PER_MS
            elif kind == "FoldVersion" and body["fold"] == DERIVE:
                if body["version"] > self.version:
                    raise FoldError(
                        f"index {entries.index[row]} says that derive {body['version']} wrote on from there, this is "
                        f"derive {self.version}. Run a release that has derive {body['version']}"
                    )
                state.written_by = body["version"]
            elif kind == "Definition" and (name := window_name(body["name"])) is not None:
                if self.names is not None and name not in self.names:
                    continue
                try:
                    changes.append(_Change(row, name, read_entry(body["name"], body["body"])))
                except BadInputError:  # see the HAZARD above
                    gathered.refused += 1
        return changes

    def _run(
        self, state: DeriveState, entries: Entries, judged: Outputs, frontier_us: NDArray[np.int64], start: int,
        stop: int, gathered: Gathered,
    ) -> None:  # fmt: skip
        """Rows start to stop - 1, which stand under the same definitions."""
        if start == stop:
            return
        if stop - start < entries.kind.size:
            entries, judged = slice_rows(entries, start, stop), slice_outputs(judged, start, stop)
            frontier_us = frontier_us[start:stop]
        for run in state.running.values():
            run.step(entries, judged, frontier_us, gathered)
        frontier_clock(entries, frontier_us, state.clock)

    def _adopt(self, state: DeriveState, change: _Change, index: int, gathered: Gathered) -> bool:
        """Put a definition in force, or withdraw it; False where it would be one too many."""
        if change.name in state.running:
            state.running[change.name].report(gathered, index)
        running = {name: run for name, run in state.running.items() if name != change.name}
        if change.definition is not None:
            if len(running) == DEFINITIONS_MAX:
                return False
            run = SlidingRun if change.definition.kind is Kind.SLIDING else WindowRun
            running[change.name] = run(state.partition, change.definition, index, first_numbers(state.clock))
        state.running = dict(sorted(running.items()))
        return True
