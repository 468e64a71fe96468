"""A definition of windows run over the history of a ledger: every entry there is, from archives and from the ledger.

    with Ledger(settings, reach(settings)) as ledger:
        run = HistoryRun(ledger, 0, "source_10s", definition)
        rows = [result.row() for result in run.results()]

See `streams.window_history` for what the results are. The entries are read from the first there is, for a fold knows
only what it has seen: about a second for a million, whatever is asked for. What is hot is in the ledger as well, and is
read there: the hot tier has no heartbeats, without which no watermark is the one of live.

GUARANTEE memory is that of a lane with one definition. Nothing is written: no topic, no snapshot, no file.
HAZARD where the first entries are nowhere any more (their archives were pruned) it begins at the first of judge's
snapshots behind that, `first_index`: windows that began before are not whole.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from lifecycle.all_entries import AllEntries
from schemas.columns import slice_rows
from schemas.errors import DriftledgerError
from schemas.instants import INT64_MAX, INT64_MIN
from streams.aggregates import Result, Suspension
from streams.judge import Judge
from streams.judge_states import snapshots_of
from streams.window_history import LastRevisions, WindowHistory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from schemas.columns import Entries
    from streams.aggregates import AggregateRecord
    from streams.judge import JudgeState
    from streams.ledger_reader import Tail
    from streams.queries import Ledger
    from streams.windows import WindowDefinition

#: Entries of a step, at most.
_ROWS_MAX: Final = 20_000


class HistoryRun:
    """Of one definition over one partition. definition None: as the ledger has had it, see `streams.window_history`.

    from_us, to_us: only windows that lie between these instants, by the definition's frame. Attributes: partition; once
    all results were given also first_index (where the entries begin), entries (how many were folded), late, ahead,
    doubtful (events left out), closed_us (up to where windows are closed, None for nowhere), suspended (why, None: it
    was not).
    """

    def __init__(
        self,
        ledger: Ledger,
        partition: int,
        name: str,
        definition: WindowDefinition | None,
        from_us: int | None = None,
        to_us: int | None = None,
    ) -> None:
        self.partition = partition
        self._ledger, self._definition = ledger, definition
        self._from_us = INT64_MIN if from_us is None else from_us
        self._to_us = INT64_MAX if to_us is None else to_us
        self._everything = AllEntries(ledger)
        self._history = WindowHistory(partition, name, definition)
        self.first_index, self.entries = 1, 0
        self.suspended: str | None = None

    @property
    def late(self) -> int:
        """Events whose windows had closed."""
        return self._history.late

    @property
    def ahead(self) -> int:
        """Events further ahead of authority time than the definition takes."""
        return self._history.ahead

    @property
    def doubtful(self) -> int:
        """In frame corrected, events left out for their source's clock."""
        return self._history.doubtful

    @property
    def closed_us(self) -> int | None:
        """Up to where all windows are closed."""
        standing = self._history.standing
        return None if standing is None else standing.closed_us

    def results(
        self, *, every: bool = False, progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> Iterator[Result]:
        """The last revision of each window in order of their ends, or every one as live wrote them.

        progress: entries read, and all there are. Raises DriftledgerError where entries are missing, or damaged.
        """
        last = LastRevisions()
        for records in self._records(progress):
            found = [one for one in records if isinstance(one, Result)]
            given = found if every else last.take(found, self._history.standing)
            yield from filter(self._is_wanted, given)
        yield from filter(self._is_wanted, last.rest())

    def _records(self, progress: Callable[[int, int], None]) -> Iterator[list[AggregateRecord]]:
        tail = self._ledger.tail(self.partition)
        if tail is None:
            return
        judge = Judge()
        self.first_index, judged = self._begin(judge, tail)
        for entries in self._everything.read(self.partition, tail, self.first_index, tail.head.index):
            for portion in self._portions(entries):
                records = self._history.take(portion, judge.step(judged, portion))
                self.entries += portion.index.size
                yield self._noted(records)
                if self._is_over():
                    return
            progress(self.entries, tail.head.index - self.first_index + 1)

    def _begin(self, judge: Judge, tail: Tail) -> tuple[int, JudgeState]:
        """The first entry that is folded, and judge before it."""
        begins = self._everything.begins(self.partition)
        if begins == 1:
            return 1, judge.new_state(self.partition)
        for packed in sorted(snapshots_of(self._ledger, self.partition), key=lambda packed: packed.index):
            if begins <= packed.index < tail.head.index:
                found = self._everything.read(self.partition, tail, packed.index, packed.index)
                if [entries.chain_hash[-1].tobytes() for entries in found] == [packed.chain_hash]:
                    state = packed.loaded(partial(judge.load, self.partition))
                    if state is not None:
                        return packed.index + 1, state
        raise DriftledgerError(
            f"entries 1 to {begins - 1} of partition {self.partition} are in neither ledger nor archive below "
            f"{self._ledger.settings.data_dir}, and judge has no snapshot behind them to begin from. Give this process "
            "the data directory, or the archive_uri, that has the archives"
        )

    def _portions(self, entries: Entries) -> Iterator[Entries]:
        start = 0
        while start < entries.index.size:
            stop = min(start + min(self._history.rows_max, _ROWS_MAX), entries.index.size)
            yield slice_rows(entries, start, stop)
            start = stop

    def _noted(self, records: Iterable[AggregateRecord]) -> list[AggregateRecord]:
        found = list(records)
        for record in found:
            if isinstance(record, Suspension):
                self.suspended = f"at index {record.at_index}: {record.reason}"
        return found

    def _is_over(self) -> bool:
        """Whether nothing that is asked for can follow; of a definition that may begin anew something can."""
        if self._definition is None:
            return False
        settled_us = self._to_us + self._definition.update_us
        return self.suspended is not None or (self.closed_us is not None and self.closed_us >= settled_us)

    def _is_wanted(self, result: Result) -> bool:
        return self._from_us <= result.window_start_us and result.window_end_us <= self._to_us
