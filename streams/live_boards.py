"""Between lanes, which know, and pages, which watch: boards and events of the sources that are looked at.

Problem: judge's tables are a lane's own and change with every batch, and a lane must not wait for a page. So a lane
makes a board itself, between two batches, at most every BOARD_MS, and only while somebody watches; what it publishes is
immutable, and replaced as a whole.

GUARANTEE nothing is shown that was not committed: what a step saw is published after the commit. GUARANTEE while nobody
watches a lane does nothing but look at `watched`. GUARANTEE memory is bounded: a board for each owned partition, and of
each source that is looked at EVENTS_MAX events.
HAZARD `watched` stays true for a while after the last page has gone, for it may only have lost its connection.

`step`, `commit` and `drop` are called by a lane's thread, each partition by one; everything else by any thread.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from schemas.clock import source as time_source
from schemas.instants import NS_PER_MS
from streams.board_kernel import note_rows
from streams.boards import events_of, make_board, no_events, with_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.boards import Board, SeenEvent
    from streams.judge import JudgeState, Outputs

#: Between two boards of a partition.
BOARD_MS: Final = 500
#: Of a source that is looked at: a few minutes of an ordinary one, some seconds of one that sends all there is.
EVENTS_MAX: Final = 200


@dataclass(slots=True)
class _Seen:
    """What a lane's thread keeps of a partition between boards. epoch: since somebody watches without a break."""

    epoch: int
    events: NDArray[np.int64] = field(default_factory=no_events)
    authority_ms: int | None = None
    made_ns: int | None = None
    made_index: int = -1
    #: By number of a source: what the steps since the last commit saw.
    pending: dict[int, list[SeenEvent]] = field(default_factory=dict)


class LiveBoards:
    """Of one worker. on_news: called after each board, and after events of a source that is looked at."""

    def __init__(self) -> None:
        self.watched = False
        #: Rises with everything that is published.
        self.version = 0
        self.on_news: Callable[[], None] = lambda: None
        self._epoch = 0
        self._seen: dict[int, _Seen] = {}
        self._boards: dict[int, Board] = {}
        self._lock = threading.Lock()
        self._followers: Counter[tuple[int, int]] = Counter()
        #: By partition the numbers of sources that are looked at; replaced as a whole.
        self._followed: dict[int, tuple[int, ...]] = {}
        self._events: dict[tuple[int, int], tuple[SeenEvent, ...]] = {}

    # ----------------------------------------------------------------------------------------------- a lane's thread

    def step(self, partition: int, state: JudgeState, entries: Entries, judged: Outputs) -> None:
        """Note what a batch said; state: after it."""
        seen = self._of(partition)
        if entries.authority_ms.size:
            seen.authority_ms = int(entries.authority_ms[-1])
        verdicts = judged.verdicts
        seen.events = with_room(seen.events, state.sources)
        note_rows(
            verdicts.source, verdicts.severity, verdicts.flags, verdicts.delta_ms, verdicts.cause,
            entries.authority_ms, seen.events,
        )  # fmt: skip
        for number in self._followed.get(partition, ()):
            found = events_of(number, entries, judged, EVENTS_MAX)
            if found:
                seen.pending[number] = [*seen.pending.get(number, ()), *found][-EVENTS_MAX:]

    def commit(self, partition: int, state: JudgeState, index: int) -> None:
        """Publish what was noted, and a board where one is due. index: of the last entry that is committed."""
        seen = self._of(partition)
        news = bool(seen.pending)
        for number, events in seen.pending.items():
            before = self._events.get((partition, number))
            if before is not None:
                self._events[partition, number] = (*before, *events)[-EVENTS_MAX:]
        seen.pending = {}
        now_ns = time_source().monotonic_ns()
        due = seen.made_ns is None or now_ns - seen.made_ns >= BOARD_MS * NS_PER_MS
        if due and index != seen.made_index:
            before_board = self._boards.get(partition)
            names = None if before_board is None else before_board.names
            board = make_board(partition, index, state, seen.authority_ms, seen.events, names)
            seen.made_ns, seen.made_index = now_ns, index
            with self._lock:
                if self.watched and seen.epoch == self._epoch:
                    self._boards[partition] = board
            news = True
        if news:
            self.version += 1
            self.on_news()

    def drop(self, partitions: Iterable[int]) -> None:
        """Of a lane that closes: others may show its partitions now."""
        for partition in partitions:
            self._seen.pop(partition, None)
            self._boards.pop(partition, None)
        if self.watched:
            self.version += 1
            self.on_news()

    def _of(self, partition: int) -> _Seen:
        seen = self._seen.get(partition)
        if seen is None or seen.epoch != self._epoch:
            seen = self._seen[partition] = _Seen(self._epoch)
        return seen

    # ------------------------------------------------------------------------------------------------------- watchers

    def watch(self) -> None:
        """From now on lanes make boards."""
        with self._lock:
            self.watched = True

    def unwatch(self) -> None:
        """Lanes make none any more, and what was published goes."""
        with self._lock:
            self.watched = False
            self._epoch += 1
            self._boards = {}
            self._seen = {}
            self.version += 1

    def boards(self) -> Mapping[int, Board]:
        """The newest board of each partition that has one."""
        return dict(self._boards)

    def follow(self, partition: int, number: int) -> None:
        """Collect the events of a source until `leave`."""
        with self._lock:
            self._followers[partition, number] += 1
            self._events.setdefault((partition, number), ())
            self._share(partition)

    def leave(self, partition: int, number: int) -> None:
        """Nobody looks at it here any more, unless another does."""
        with self._lock:
            self._followers[partition, number] -= 1
            if self._followers[partition, number] <= 0:
                del self._followers[partition, number]
                self._events.pop((partition, number), None)
            self._share(partition)

    def events(self, partition: int, number: int) -> tuple[SeenEvent, ...]:
        """Of a source that is followed: its last events since then, in order."""
        return self._events.get((partition, number), ())

    def _share(self, partition: int) -> None:
        self._followed[partition] = tuple(number for place, number in self._followers if place == partition)
